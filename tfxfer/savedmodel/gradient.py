"""Check whether a pure graph's gradients are those of the original.

They may differ where the original has a custom gradient, since the mark of a custom gradient can't
be kept in a pure graph.
"""

from typing import Any

import numpy as np
import tensorflow as tf

# Private: the only way to ask which function computes a custom gradient.
from tensorflow.python.framework import ops

from tfxfer.savedmodel.graph import SAMPLES, Pretrained, PureGraph, function, run_tokenizer
from tfxfer.savedmodel.pure import Weights

# A custom gradient that saves memory, and is the derivative of the operations that it replaces. To
# compare it with them takes most of the time in which a network such as EfficientNetV2 is opened.
SAME = ("tensorflow.python.ops.nn_impl", "swish.")
MARK = "_gradient_op_type"


def doubtful_gradient(concrete: Any) -> bool:
    """Whether a graph has a custom gradient that may not be the derivative of its operations."""
    graph = concrete.graph.as_graph_def()
    # A function may come from a file, and then the name of its gradient says nothing: it may be
    # that of another gradient in this process. The nodes of the graph itself were made here.
    if any(MARK in node.attr for function in graph.library.function for node in function.node_def):
        return True
    return any(not is_swish(node.attr[MARK].s.decode()) for node in graph.node if MARK in node.attr)


def is_swish(name: str) -> bool:
    """Whether a custom gradient is that of `tf.nn.silu`.

    Args:
        name: the name under which this process has registered it.
    """
    function = ops.gradient_registry.lookup(name)
    for inner in ("tape_grad_fn", "grad_fn"):
        names = function.__code__.co_freevars
        if inner not in names:
            return False
        function = function.__closure__[names.index(inner)].cell_contents
    module, start = SAME
    return function.__module__ == module and function.__qualname__.startswith(start)


def put_back(variables: dict[int, tf.Variable], weights: Weights) -> None:
    """Give variables the values that they had when the network was opened."""
    for number, variable in variables.items():
        variable.assign(weights.found[number].value)


def same_gradient(
    concrete: Any,
    graph: PureGraph,
    bound: float,
    pretrained: Pretrained,
    weights: Weights,
    spec: tf.TensorSpec,
) -> bool:
    """Whether a pure graph has the same gradients as the loaded object, on one random batch.

    The gradients are those with respect to the weights and to the pixels. They may differ by
    `bound`, relative to the largest absolute value of all gradients. Of a network for texts, they
    are those with respect to the weights, on a few texts.
    """
    rng = np.random.default_rng(0)
    if pretrained.tokenizer is None:
        given = x = tf.constant(rng.random((2, *spec.shape[1:]), dtype=np.float32))
        differentiated = [x]
    else:
        given = tf.constant(SAMPLES)
        x, differentiated = run_tokenizer(pretrained.tokenizer, given), []
    direction = tf.constant(rng.standard_normal(pretrained.features), tf.float32)
    variables = {number: weights.variables[handle] for handle, number in weights.numbers.items()}
    put_back(variables, weights)
    numbers = [i for i in graph.weights if pretrained.weights[i].trainable and i in variables]
    with tf.GradientTape() as tape:
        tape.watch(differentiated)
        loss = tf.reduce_sum(concrete(given) * direction)
    expected = tape.gradient(
        loss, [*differentiated, *(variables[i] for i in numbers)], unconnected_gradients="zero"
    )
    put_back(variables, weights)  # they may be those of a user's own model
    values = {i: tf.constant(pretrained.weights[i].value) for i in graph.weights}
    pure = function(graph, pretrained.weights, pretrained.input_shape)
    with tf.GradientTape() as tape:
        tape.watch([*differentiated, *(values[i] for i in numbers)])
        loss = tf.reduce_sum(pure(x, *values.values())[0] * direction)
    gradients = tape.gradient(
        loss, [*differentiated, *(values[i] for i in numbers)], unconnected_gradients="zero"
    )
    # The loaded object may compute in another precision than float32.
    theirs = [tf.cast(tf.convert_to_tensor(one), tf.float32) for one in expected]
    ours = [tf.convert_to_tensor(one) for one in gradients]
    largest = max(float(tf.reduce_max(tf.abs(one))) for one in theirs)
    worst = max(float(tf.reduce_max(tf.abs(a - b))) for a, b in zip(theirs, ours, strict=True))
    return worst <= bound * max(largest, 1e-30)
