"""Cut a network in two at the end of a stage.

What comes before the cut becomes a graph of constants, and what follows a `Pretrained` of its own.
"""

import math
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel import stages
from tfxfer.savedmodel.graph import (
    Pretrained,
    PureGraph,
    needed,
    pool_maps,
    rows_of,
    there_of,
)
from tfxfer.savedmodel.stages import node_of


def cut_before(
    pretrained: Pretrained, values: list[np.ndarray], first: int, taps: tuple[str, ...]
) -> GraphDef:
    """Return a graph of constants, from `pixels:0` to `features:0`, of what comes before a stage.

    A row of `features:0` holds what stage number `first` starts from (see `start_shape`),
    flattened, and then the maps `taps`, pooled.
    """
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, *pretrained.input_shape), name="pixels")
        feed = {node_of(pretrained.inference.input or ""): x} | {
            f"weight_{i}": tf.constant(values[i]) for i in pretrained.inference.weights
        }
        cut, *maps = tf.graph_util.import_graph_def(
            pretrained.inference.graph,
            input_map=feed,
            return_elements=[pretrained.stages[first - 1].cut, *taps],
            name="",
        )
        tf.identity(start_of(pretrained, first, cut, x=x, maps=maps), name="features")
    return needed(graph.as_graph_def(), ["features:0"])


def cut_front(pretrained: Pretrained, first: int, taps: tuple[str, ...]) -> Pretrained:
    """Return what comes before stage number `first`, as a network of its own.

    Its output is the row that `cut_before` computes. The network has an inference graph only, with
    weights of its own. It is for a model that holds it beside what follows.
    """
    whole, graph = pretrained.inference, tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(whole.graph, name="")
        names = [pretrained.stages[first - 1].cut, *taps]
        cut, *maps = (graph.get_tensor_by_name(name) for name in names)
        x = graph.get_tensor_by_name(whole.input or "")
        output = tf.identity(start_of(pretrained, first, cut, x=x, maps=maps), name="row").name
    width = math.prod(pretrained.start_shape(first)) + sum(
        (2 if len(shape) > 1 else 1) * shape[-1]
        for stage, shape in zip(pretrained.stages, pretrained.stage_shapes, strict=True)
        if stage.cut in taps
    )
    pruned = needed(graph.as_graph_def(), [output, whole.input or ""])
    present = {node.name for node in pruned.node}
    kept = [i for i in whole.weights if f"weight_{i}" in present]
    number = {i: k for k, i in enumerate(kept)}
    stages_before = tuple(
        replace(stage, weights=tuple(number[i] for i in stage.weights if i in number))
        for stage in pretrained.stages[:first]
    )
    return replace(
        pretrained,
        inference=PureGraph(
            graph=renumber_weights(pruned, number),
            input=whole.input,
            output=output,
            weights=tuple(range(len(kept))),
            rows=whole.rows,
            parts=whole.parts,
        ),
        training=None,
        regularization=None,
        weights=tuple(pretrained.weights[i] for i in kept),
        stages=stages_before,
        last_map=output,
        features=width,
    )


def start_of(
    pretrained: Pretrained, first: int, cut: tf.Tensor, *, x: tf.Tensor, maps: list[tf.Tensor]
) -> tf.Tensor:
    """Return what stage number `first` starts from as rows, followed by pooled maps.

    Args:
        cut: the activations before it.
        x: the input of the network.
    """
    rows = rows_of(x, pretrained.inference.rows)
    parts = [tf.reshape(cut, (-1, math.prod(pretrained.stage_shapes[first - 1])))]
    parts += [] if rows is None else [rows]
    parts += [pool_maps(maps, there_of(x, pretrained.inference))] if maps else []
    return tf.concat(parts, -1) if len(parts) > 1 else parts[0]


def cut_after(pretrained: Pretrained, values: list[np.ndarray], first: int) -> Pretrained:
    """Return stage number `first` and those that follow, as a network that starts from activations.

    The activations are [B, ...]. The network has an inference graph only, with `values` as weights.

    Raises:
        SavedModelError: what follows needs more of the network than the activations.
    """
    whole, graph = pretrained.inference, tf.Graph()
    fetches = list(
        dict.fromkeys(
            [whole.output, pretrained.last_map, *(stage.cut for stage in pretrained.stages[first:])]
        )
    )
    with graph.as_default():
        x = tf.compat.v1.placeholder(
            tf.float32, (None, *pretrained.start_shape(first)), name="activations"
        )
        cut, feed = pretrained.stages[first - 1].cut, {}
        if (rows := rows_of(x, whole.rows)) is None:
            feed[cut] = x
        else:
            shape = pretrained.stage_shapes[first - 1]
            feed[cut] = tf.reshape(x[:, : -whole.rows], (-1, *shape))
            feed[whole.input or ""] = rows
        tf.graph_util.import_graph_def(
            whole.graph, input_map=feed | batch_sizes(pretrained, x, feed), name=""
        )
    pruned = needed(graph.as_graph_def(), fetches)
    names = {node.name for node in pruned.node}
    if node_of(whole.input or "") in names:
        raise SavedModelError(
            f"the network can't be cut after {pretrained.stages[first - 1].name}: what follows "
            "reads the input too."
        )
    kept = [i for i in whole.weights if f"weight_{i}" in names]
    number = {i: k for k, i in enumerate(kept)}
    weights = tuple(replace(pretrained.weights[i], value=values[i]) for i in kept)
    renamed = renumber_weights(pruned, number)
    rest = tuple(
        replace(stage, weights=tuple(number[i] for i in stage.weights if i in number))
        for stage in pretrained.stages[first:]
    )
    pure = PureGraph(
        graph=renamed,
        input="activations:0",
        output=whole.output,
        weights=tuple(range(len(kept))),
        rows=whole.rows,
        parts=whole.parts,
    )
    loss = (
        remove_nodes(pretrained.regularization, values, number)
        if pretrained.regularization
        else None
    )
    return replace(
        pretrained,
        inference=pure,
        training=None,
        regularization=loss,
        weights=weights,
        stages=rest,
        input_shape=pretrained.start_shape(first),
        tokenizer=None,
    )


def batch_sizes(
    pretrained: Pretrained, x: tf.Tensor, feed: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Compute from `x` the shapes that the graph reads from tensors before the cut.

    Networks read the number of images from the shape of their input.
    """
    nodes = {node.name: node for node in pretrained.inference.graph.node}
    cut = node_of(next(iter(feed)))
    earlier = stages.reach([cut], lambda name: stages.data_inputs(nodes[name]))
    asked = [
        node.name
        for node in nodes.values()
        if node.op == "Shape" and node_of(node.input[0]) in earlier
    ]
    if not asked:
        return {}
    graph = tf.Graph()
    with graph.as_default():
        inputs = tf.compat.v1.placeholder(tf.float32, (None, *pretrained.input_shape))
        tf.graph_util.import_graph_def(
            pretrained.inference.graph,
            input_map={node_of(pretrained.inference.input or ""): inputs},
            name="",
        )
    shapes = {}
    for name in asked:
        shape = graph.get_operation_by_name(name).inputs[0].shape
        if shape.rank and None not in shape.as_list()[1:]:
            shapes[f"{name}:0"] = tf.cast(
                tf.stack([tf.shape(x)[0], *shape.as_list()[1:]]),
                tf.as_dtype(nodes[name].attr["out_type"].type or tf.int32),
            )
    return shapes


def remove_nodes(
    loss: PureGraph, values: list[np.ndarray], number: dict[int, int]
) -> PureGraph | None:
    """Return a regularization loss as a graph of the weights in `number`, with all others constant.

    Returns: None where the loss depends on none of these weights.
    """
    graph = tf.Graph()
    with graph.as_default():
        fixed = {f"weight_{i}": tf.constant(values[i]) for i in loss.weights if i not in number}
        tf.graph_util.import_graph_def(loss.graph, input_map=fixed, name="")
    pruned = renumber_weights(needed(graph.as_graph_def(), [loss.output]), number)
    left = {node.name for node in pruned.node if node.op == "Placeholder"}
    weights = tuple(k for k in number.values() if f"weight_{k}" in left)
    if not weights:
        return None
    return PureGraph(graph=pruned, input=None, output=loss.output, weights=weights)


def renumber_weights(graph: GraphDef, number: dict[int, int]) -> GraphDef:
    """The graph with its placeholders `weight_<i>` under other numbers."""
    names = {f"weight_{i}": f"weight_{k}" for i, k in number.items()}
    result = GraphDef()
    result.CopyFrom(graph)
    for node in result.node:
        if node.op == "Placeholder":
            node.name = names.get(node.name, node.name)
        for k, source in enumerate(node.input):
            if node_of(source) in names:
                node.input[k] = names[node_of(source)]
    return result
