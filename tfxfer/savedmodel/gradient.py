"""Check whether a pure graph's gradients are those of the original.

They may differ where the original has a custom gradient, since the mark of a custom gradient can't
be kept in a pure graph.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.savedmodel.graph import Pretrained, PureGraph, function
from tfxfer.savedmodel.pure import Weights


def marked_gradient(concrete: Any) -> bool:
    graph = concrete.graph.as_graph_def()
    return any("_gradient_op_type" in n.attr for n in graph.node) or any(
        "_gradient_op_type" in n.attr for f in graph.library.function for n in f.node_def
    )


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
    `bound`, relative to the largest absolute value of all gradients.
    """
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((2, *spec.shape[1:]), dtype=np.float32))
    direction = tf.constant(rng.standard_normal(pretrained.features), tf.float32)
    variables = {number: weights.variables[handle] for handle, number in weights.numbers.items()}
    put_back(variables, weights)
    numbers = [i for i in graph.weights if pretrained.weights[i].trainable and i in variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(concrete(x) * direction)
    expected = tape.gradient(
        loss, [x, *(variables[i] for i in numbers)], unconnected_gradients="zero"
    )
    put_back(variables, weights)  # they may be those of a user's own model
    values = {i: tf.constant(pretrained.weights[i].value) for i in graph.weights}
    pure = function(graph, pretrained.weights, pretrained.input_shape)
    with tf.GradientTape() as tape:
        tape.watch([x, *(values[i] for i in numbers)])
        loss = tf.reduce_sum(pure(x, *values.values())[0] * direction)
    gradients = tape.gradient(
        loss, [x, *(values[i] for i in numbers)], unconnected_gradients="zero"
    )
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
    worst = max(
        float(tf.reduce_max(tf.abs(tf.convert_to_tensor(a) - tf.convert_to_tensor(b))))
        for a, b in zip(expected, gradients, strict=True)
    )
    return worst <= bound * max(largest, 1e-30)
