"""The parts of a SavedModel: pure graphs, weights and stages, and what can be done with them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.savedmodel import convolution, stages
from tfxfer.savedmodel.folded import fold_batch_norms
from tfxfer.savedmodel.mixed import convert_to_mixed
from tfxfer.savedmodel.stages import node_of

ROWS = 3  # of a batch for which shapes are found
# Texts of different lengths. They have 12 words together, so that a tensor with a row for each word
# is not taken for one with a row for each of the 4 texts.
SAMPLES = ["", "a", "one two three four", "one two three four five six seven"]
PASSES = frozenset({"Identity", "Squeeze", "Reshape", "StopGradient", "PreventGradient"})


@dataclass(frozen=True)
class Weight:
    """A variable of the SavedModel: name, value, and whether its author marked it as trainable."""

    name: str
    value: np.ndarray
    trainable: bool


@dataclass(frozen=True)
class Tokenizer:
    """A graph that turns texts into rows of numbers.

    Args:
        graph: from `texts:0`, string [B], to `rows:0`, float32 [B, parts * length], which holds
            whole numbers; 0 is padding.
        length: how many positions a row has.
        parts: how many numbers there are for each position. A row has the first number of all
            positions, then the second number of all, and so on.
        unit: what a position holds, for sentences: "pieces of words" or "bytes".
    """

    graph: GraphDef
    length: int
    parts: int
    unit: str


@dataclass(frozen=True)
class PureGraph:
    """One call of the network as a graph without variables.

    It computes `output` and `updates` from `input` and the placeholders `weight_<i>`.

    Args:
        input: name of the tensor for the images; None for a regularization loss.
        weights: the numbers i of the placeholders.
        updates: the number of a weight and the name of the tensor with its new value, for each
            weight that the call changes.
        rows: how many of the last columns of the input are rows of a tokenizer, in which 0 is
            padding: positions of padding do not count where maps are pooled. 0 for other inputs.
        parts: how many rows of one length stand side by side there, such as numbers and masks. A
            position is padding where all of them are 0.
    """

    graph: GraphDef
    input: str | None
    output: str
    weights: tuple[int, ...]
    updates: tuple[tuple[int, str], ...] = ()
    rows: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Pretrained:
    """A SavedModel taken apart.

    Args:
        inference, training: the pure graphs; `training` is None where the model has one behaviour
            only.
        regularization: the pure graph of the sum of the model's regularization losses, or None.
        weights: every variable that a graph reads.
        stages: from input to output; each holds names `weight_<i>`.
        last_map: the tensor whose spatial mean is the output, or the output itself.
        input_shape: shape of one example, for images (height, width, 3), that the graphs were
            traced for; for a part of a network, that of the activations that it starts from.
        features: width of the output.
        reason: why the weights can't be trained; "" where they can.
        tokenizer: what makes rows of texts; None where the network takes something else.
    """

    inference: PureGraph
    training: PureGraph | None
    regularization: PureGraph | None
    weights: tuple[Weight, ...]
    stages: tuple[stages.Stage, ...]
    last_map: str
    input_shape: tuple[int, ...]
    features: int
    reason: str = ""
    tokenizer: Tokenizer | None = None

    @cached_property
    def stage_shapes(self) -> list[tuple[int, ...]]:
        """Shape of the last tensor of each stage, without the batch."""
        cuts = [stage.cut for stage in self.stages]
        shapes = known_shapes(
            self.inference, self.input_shape, cuts, weights=self.weights, tokenizer=self.tokenizer
        )
        return [shape or () for shape in shapes]

    def start_shape(self, first: int) -> tuple[int, ...]:
        """Return the shape of what stage number `first` starts from, without the batch.

        These are the activations before it. In a network for texts they are flattened, and the rows
        of the tokenizer follow, because every stage needs to know which positions are padding.
        """
        shape, rows = self.stage_shapes[first - 1], self.inference.rows
        return (math.prod(shape) + rows,) if rows else tuple(shape)


def needed(graph: GraphDef, fetches: list[str]) -> GraphDef:
    """The part of a graph that the fetches need, with the nodes in the same order."""
    nodes = {node.name: node for node in graph.node}
    kept = stages.reach(
        [node_of(fetch) for fetch in fetches],
        lambda name: [node_of(one.lstrip("^")) for one in nodes[name].input],
    )
    part = GraphDef(
        versions=graph.versions,
        library=graph.library,
        node=[node for node in graph.node if node.name in kept],
    )
    drop_places(part)
    return part


def drop_places(graph: GraphDef) -> None:
    """Remove the marks of nodes that must share a device with a node that is not in the graph."""
    names = {f"loc:@{node.name}".encode() for node in graph.node}
    for node in graph.node:
        if "_class" in node.attr and not set(node.attr["_class"].list.s) <= names:
            del node.attr["_class"]


def function(
    pure: PureGraph,
    weights: tuple[Weight, ...],
    shape: tuple[int, ...],
    taps: tuple[str, ...] | None = None,
    fold: bool = False,
    fast: bool = False,
    low: bool = False,
) -> Any:
    """Return a differentiable function (x, *weights) -> (output, *updates).

    Args:
        taps: names of maps, from input to output. With them, the output is [B, F]: for each map its
            mean, then its maximum over all positions. All maps are computed in one pass.
        fold: make BatchNorms a part of the convolutions before them (see `folded`). Mixed precision
            does without.
        fast: use gradients that are faster on a CPU (see `convolution`). A model that calls the
            function can't be saved as a graph then.
        low: compute in mixed precision (see `convert_to_mixed`).
    """
    fetch = [*(taps if taps is not None else (pure.output,)), *(name for _, name in pure.updates)]
    graph = pure.graph
    if low:
        graph = convert_to_mixed(graph)
    else:
        graph = fold_batch_norms(graph, fetch) if fold else graph
        graph = convolution.marked(graph) if fast else graph

    # `import_graph_def` alone is not seen by a GradientTape; wrapped in a function, it is.
    def call(*arguments):
        feed = dict(
            zip(
                ([node_of(pure.input)] if pure.input else [])
                + [f"weight_{i}" for i in pure.weights],
                arguments,
                strict=True,
            )
        )
        tensors = tf.graph_util.import_graph_def(
            graph, input_map=feed, return_elements=fetch, name=""
        )
        tensors = [
            tf.cast(each, tf.float32) if each.dtype == tf.bfloat16 else each for each in tensors
        ]
        n = len(fetch) - len(pure.updates)
        there = there_of(arguments[0], pure) if pure.input else None
        pooled = pool_maps(tensors[:n], there) if taps is not None else tensors[0]
        return [pooled, *tensors[n:]]

    specs = [tf.TensorSpec((None, *shape), tf.float32)] if pure.input else []
    specs += [
        tf.TensorSpec(weights[i].value.shape, tf.as_dtype(weights[i].value.dtype))
        for i in pure.weights
    ]
    return tf.compat.v1.wrap_function(call, specs)


def constant_graph(
    pretrained: Pretrained, values: list[np.ndarray], taps: tuple[str, ...] | None
) -> GraphDef:
    """Return the inference graph from `pixels:0` to `features:0`, with every weight as a constant.

    With `taps`, the features are pooled as in `function`.
    """
    pure, graph = pretrained.inference, tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, *pretrained.input_shape), name="pixels")
        feed = {node_of(pure.input or ""): x} | {
            f"weight_{i}": tf.constant(values[i]) for i in pure.weights
        }
        tensors = tf.graph_util.import_graph_def(
            pure.graph, input_map=feed, return_elements=list(taps or (pure.output,)), name=""
        )
        pooled = pool_maps(tensors, there_of(x, pure)) if taps else tensors[0]
        tf.identity(pooled, name="features")
    result = graph.as_graph_def()
    drop_places(result)  # a node may wish to be where the input was, which is replaced here
    return result


def shapes_of(
    pure: PureGraph, shape: tuple[int, ...], tensors: list[str]
) -> list[tuple[int, ...] | None]:
    """Return the shapes of tensors, without the batch dimension.

    A shape is None where the tensor does not have one row for each example, or where the shape is
    not known before the graph runs.
    """
    return [shape_of_one(one, ROWS) for one in static_shapes(pure, shape, tensors)]


def static_shapes(
    pure: PureGraph, shape: tuple[int, ...], tensors: list[str]
) -> list[list[int] | None]:
    """Return the shapes of tensors for a batch of `ROWS`; None where only a run tells."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (ROWS, *shape))
        elements = tf.graph_util.import_graph_def(
            pure.graph, input_map={node_of(pure.input or ""): x}, return_elements=tensors, name=""
        )
    return [one.shape.as_list() if one.shape.is_fully_defined() else None for one in elements]


def shape_of_one(shape: Sequence[int] | None, rows: int) -> tuple[int, ...] | None:
    """Return the shape of a tensor without its first axis; None if it has not `rows` rows."""
    return tuple(shape[1:]) if shape and len(shape) > 1 and shape[0] == rows else None


def known_shapes(
    pure: PureGraph,
    shape: tuple[int, ...],
    tensors: list[str],
    *,
    weights: Sequence[Weight],
    tokenizer: Tokenizer | None,
) -> list[tuple[int, ...] | None]:
    """Return what `shapes_of` does; the graph runs if it alone does not tell all shapes (loops)."""
    known = static_shapes(pure, shape, tensors)
    found = [shape_of_one(one, ROWS) for one in known]
    # Without a tokenizer, a tensor that is known to have another number of rows needs no run.
    if None not in (known if tokenizer is None else found):
        return found
    # A graph of its own, since the caller may be making one.
    graph = tf.Graph()
    with graph.as_default():
        if tokenizer is None:
            rows = tf.random.stateless_uniform((len(SAMPLES), *shape), (0, 0))
        else:
            (rows,) = tf.graph_util.import_graph_def(
                tokenizer.graph,
                input_map={"texts": tf.constant(SAMPLES)},
                return_elements=["rows:0"],
                name="tokenizer",
            )
        feed = {f"weight_{i}": tf.constant(weights[i].value) for i in pure.weights}
        elements = tf.graph_util.import_graph_def(
            pure.graph,
            input_map=feed | {node_of(pure.input or ""): rows},
            return_elements=tensors,
            name="",
        )
        with tf.compat.v1.Session(graph=graph) as session:
            values = session.run([tf.shape(element) for element in elements])
    measured = [shape_of_one([int(side) for side in value], len(SAMPLES)) for value in values]
    return [own if one is None else one for one, own in zip(found, measured, strict=True)]


def run_tokenizer(tokenizer: Tokenizer, texts: tf.Tensor) -> tf.Tensor:
    """Return the rows of texts, float32 [B, parts * length]."""

    def rows(texts: tf.Tensor) -> tf.Tensor:
        return tf.graph_util.import_graph_def(
            tokenizer.graph, input_map={"texts": texts}, return_elements=["rows:0"], name=""
        )[0]

    return tf.compat.v1.wrap_function(rows, [tf.TensorSpec([None], tf.string)])(texts)


def rows_of(x: tf.Tensor, count: int) -> tf.Tensor | None:
    """Return the last columns of the input, which are rows of a tokenizer; None without any."""
    return x[:, -count:] if count else None


def there_of(x: tf.Tensor, pure: PureGraph) -> tf.Tensor | None:
    """Return which positions of the input hold something, bool [B, L]; None without rows."""
    rows = rows_of(x, pure.rows)
    if rows is None:
        return None
    parts = [tf.not_equal(part, 0) for part in tf.split(rows, pure.parts, 1)]
    return parts[0] if len(parts) == 1 else tf.reduce_any(tf.stack(parts), 0)


def pool_maps(maps: list[tf.Tensor], there: tf.Tensor | None = None) -> tf.Tensor:
    """Return the mean, then the maximum of each map over its positions, as [B, F].

    A tensor [B, D] stays as it is.

    Args:
        there: bool [B, L]; of maps [B, L, D], only positions where it is true count. Of maps with
            another number of positions, all count.
    """
    parts = []
    for tap in maps:
        axes = list(range(1, tap.shape.rank - 1))
        if there is not None and axes == [1] and tap.shape[1] == there.shape[1]:
            mask = there[:, :, None]
            kept = tf.where(mask, tap, 0.0)
            count = tf.reduce_sum(tf.cast(mask, tap.dtype), 1)
            most = tf.reduce_max(tf.where(mask, tap, tap.dtype.min), 1)
            parts += [tf.math.divide_no_nan(tf.reduce_sum(kept, 1), count), most]
            continue
        parts += [tf.reduce_mean(tap, axes), tf.reduce_max(tap, axes)] if axes else [tap]
    return tf.concat(parts, axis=-1) if len(parts) > 1 else parts[0]


def mean_of(pure: PureGraph) -> str:
    """Return the name of the map whose mean over all positions is the output.

    Where there is no such map, it is the name of the output itself.
    """
    nodes = {node.name: node for node in pure.graph.node}
    name = node_of(pure.output)
    while nodes[name].op in PASSES:
        name = stages.data_inputs(nodes[name])[0]
    if nodes[name].op != "Mean":
        return pure.output
    inner = node_of(nodes[name].input[0])
    axes = nodes.get(node_of(nodes[name].input[1]))
    while axes is not None and axes.op == "Identity":
        axes = nodes.get(node_of(axes.input[0]))
    if axes is None or axes.op != "Const":
        return pure.output
    dimensions = sorted(int(a) for a in np.atleast_1d(tf.make_ndarray(axes.attr["value"].tensor)))
    return f"{inner}:0" if dimensions in ([1, 2], [1], [-3, -2], [-2]) else pure.output
