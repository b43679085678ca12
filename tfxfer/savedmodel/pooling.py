"""One output of a network, as features [B, F]: a map is pooled over its positions."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel.open import Opened

LOG = logging.getLogger(__name__)
FLOATS = (tf.float16, tf.bfloat16, tf.float64)
# Operations that change each value by itself: the axes of their result are those of their inputs.
ELEMENTWISE = frozenset(
    "Add AddV2 Cast Clip ClipByValue Elu Erf Exp Identity LeakyRelu Log Maximum Minimum Mul Neg "
    "Relu Relu6 RealDiv Selu Sigmoid Softplus Softsign Sqrt Square StopGradient Sub Tanh".split()
)
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def pooled(opened: Opened, output: str | None, dtype: tf.DType) -> Callable:
    """Return the call of a network from float32 or strings to its (chosen) output, float32 [B, F].

    Several outputs of which none is chosen stay as they are; `trace` refuses them.

    Args:
        output: see `trace`.
        dtype: what the network takes.
    """

    @tf.autograph.experimental.do_not_convert  # AutoGraph would add lines to error messages
    def call(x: tf.Tensor, **options: Any) -> Any:
        answer = opened.call(as_taken(x, dtype), **options)
        if output is not None:
            answer = pick_output(answer, output, opened.name)
        elif isinstance(answer, dict) and opened.preferred in answer:
            answer = answer[opened.preferred]
        several = tf.nest.flatten(answer)
        if len(several) != 1:
            return answer
        (single,) = several
        if single.dtype in FLOATS:
            single = answer = tf.cast(single, tf.float32)
        rank = single.shape.rank or 0
        if rank < 3:
            return answer
        if rank == 4 and channels_come_first(single, opened.name):
            single = tf.transpose(single, TO_LAST)
        return tf.reduce_mean(single, list(range(1, rank - 1)))

    return call


def as_taken(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return examples in the dtype that a network takes."""
    if dtype == x.dtype:
        return x
    if dtype.is_integer:
        x = tf.clip_by_value(tf.round(x), float(dtype.min), float(dtype.max))
    return tf.cast(x, dtype)


def pick_output(answer: Any, output: str, name: str) -> tf.Tensor:
    """Return one of several outputs.

    Args:
        answer: a dict, or a tuple, of which the outputs are called "0", "1", ...

    Raises:
        SavedModelError: there is none of that name; lists those that there are.
    """
    numbered = {str(i): value for i, value in enumerate(tf.nest.flatten(answer))}
    outputs = answer if isinstance(answer, dict) else numbered
    if output not in outputs:
        raise SavedModelError(
            f"{name} has no output {output!r}. It has: {', '.join(map(str, outputs))}."
        )
    return outputs[output]


def channels_come_first(tensor: tf.Tensor, name: str) -> bool:
    """Return whether a map is [B, C, H, W], as the operations that made it tell.

    What is found or assumed is logged, except for a map that is plainly [B, H, W, C].
    """
    first, second, third = tensor.shape[1:]
    if first == second != third:
        return False
    found = find_order(tensor)
    if found:
        LOG.info("%s returns maps with channels first; they are pooled over the last axes", name)
    elif found is None and second == third:
        LOG.warning(
            "%s returns maps of shape %s, and its graph does not tell which axis holds the "
            "channels: the last one is assumed. If it is the first, export the network with its "
            "maps transposed to [batch, height, width, channels].",
            name,
            (first, second, third),
        )
    return bool(found)


class Place(NamedTuple):
    """An output of a node, in a graph or in the body of a function."""

    nodes: dict[str, NodeDef]
    node: NodeDef
    number: int


def find_order(tensor: tf.Tensor) -> bool | None:
    """Return whether a map has its channels first; None if no operation near its end tells."""
    graph = tensor.graph.as_graph_def()
    functions = {one.signature.name: one for one in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    waiting, seen = places(nodes, [tensor.name]), set[tuple[int, str]]()
    while waiting:
        nodes, node, number = waiting.pop(0)
        if (id(nodes), node.name) in seen:
            continue
        seen.add((id(nodes), node.name))
        if node.op in CALLS:
            body = functions[node.attr["f"].func.name]
            inside = {one.name: one for one in body.node_def}
            waiting += places(inside, [body.ret[body.signature.output_arg[number].name]])
        elif node.op == "Transpose":
            return {tuple(TO_FIRST): True, tuple(TO_LAST): False}.get(order_of(node, nodes))
        elif "data_format" in node.attr:
            return node.attr["data_format"].s == b"NCHW"
        elif node.op in ELEMENTWISE:
            waiting += places(nodes, [one for one in node.input if not one.startswith("^")])
    return None


def places(nodes: dict[str, NodeDef], tensors: list[str]) -> list[Place]:
    """Return where tensors are made; an argument of a function is left out."""
    split = [one.split(":") for one in tensors]
    return [
        Place(nodes, nodes[parts[0]], int(parts[-1]) if len(parts) > 1 else 0)
        for parts in split
        if parts[0] in nodes
    ]


def order_of(node: NodeDef, nodes: dict[str, NodeDef]) -> tuple[int, ...]:
    """Return the order of axes that a Transpose makes; () if it is not a constant."""
    order = nodes.get(node.input[1].split(":")[0])
    if order is None or order.op != "Const":
        return ()
    return tuple(int(axis) for axis in np.ravel(tf.make_ndarray(order.attr["value"].tensor)))
