"""Take a network for texts apart: its tokenizer, and the rest.

The tokenizer turns strings into rows of whole numbers, such as the numbers of the pieces of words.
It has no weights, and nothing in it is trained. What follows is a network like any other: its input
is float32 [B, L], which holds whole numbers exactly up to 2**24.
"""

from dataclasses import dataclass, replace

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel import stages
from tfxfer.savedmodel.graph import PureGraph, needed, node_of, with_port
from tfxfer.savedmodel.pure import NotPure

TEXTS, ROWS = "texts:0", "rows:0"  # input and output of a tokenizer
INPUT = "rows_of_numbers"


@dataclass(frozen=True)
class Row:
    """A tensor that the tokenizer hands over: whole numbers or truth values, [B, width]."""

    tensor: str
    dtype: tf.DType
    width: int


def split_tokenizer(pure: PureGraph) -> tuple[GraphDef, PureGraph]:
    """Return the tokenizer of a graph that takes string [B], and the graph of what follows.

    Raises:
        NotPure: something else than rows of whole numbers goes from the strings to the weights.
    """
    rows = Crossing(pure).rows()
    return tokenizer_of(pure, rows), rest_of(pure, rows)


class Crossing:
    """Finds where a graph has no strings any more, and no weights yet."""

    def __init__(self, pure: PureGraph):
        self.nodes = {node.name: node for node in pure.graph.node}
        self.start = node_of(pure.input or "")
        self.ends = [node_of(name) for name in (pure.output, *(name for _, name in pure.updates))]
        self.tensors = tf.Graph()
        with self.tensors.as_default():
            tf.graph_util.import_graph_def(pure.graph, name="")
        users: dict[str, list[str]] = {}
        for node in pure.graph.node:
            for name in stages.data_inputs(node):
                users.setdefault(name, []).append(node.name)
        self.path = stages.reach(
            [self.start],
            lambda name: [
                one for one in users.get(name, []) if self.nodes[one].op not in stages.SHAPE_ONLY
            ],
        )
        weighed = stages.reach(
            [f"weight_{i}" for i in pure.weights], lambda name: users.get(name, [])
        )
        self.inside = set[str]()
        for name in stages.execution_order(pure.graph):
            node = self.nodes[name]
            before = all(a in self.inside for a in stages.data_inputs(node) if a in self.path)
            if name in self.path and name not in weighed and before and self.is_whole(name):
                self.inside.add(name)

    def value(self, tensor: str) -> tf.Tensor:
        """Return a tensor of the graph, for its dtype and shape."""
        return self.tensors.get_tensor_by_name(with_port(tensor))

    def is_whole(self, name: str) -> bool:
        """Whether a node computes no floating-point number."""
        outputs = self.tensors.get_operation_by_name(name).outputs
        return not any(one.dtype.is_floating or one.dtype.is_complex for one in outputs)

    def is_row(self, tensor: str) -> bool:
        """Whether a tensor may be handed over."""
        value = self.value(tensor)
        return value.dtype != tf.string and value.shape.rank == 2

    def tensors_across(self) -> list[str]:
        """Return what is computed inside and used behind it, but for the number of texts."""
        found = set[str]()
        behind = stages.reach(
            self.ends,
            lambda a: [one for one in stages.data_inputs(self.nodes[a]) if one not in self.inside],
        )
        for node in (self.nodes[name] for name in behind):
            for tensor in node.input:
                if node_of(tensor) in self.inside and not asks_count(node, self.value(tensor)):
                    found.add(tensor)
        return sorted(found)

    def rows(self) -> list[Row]:
        """Return what is handed over.

        What can be computed from rows alone stays outside, so that little is handed over.
        """
        moved = True
        while moved:
            moved = False
            for name in {node_of(tensor) for tensor in self.tensors_across()}:
                inputs = [one for one in self.nodes[name].input if node_of(one) in self.path]
                if inputs and all(self.is_row(one) for one in inputs):
                    self.inside.discard(name)
                    moved = True
        found = self.tensors_across()
        if not found:
            raise NotPure("its weights do not depend on the texts")
        rows = []
        for tensor in found:
            value = self.value(tensor)
            if not self.is_row(tensor):
                raise NotPure(f"its texts become something else than rows of numbers ({tensor!r})")
            if value.shape[1] is None:
                raise NotPure(f"a text has no fixed number of pieces ({tensor!r})")
            rows.append(Row(with_port(tensor), value.dtype, int(value.shape[1])))
        return rows


def asks_count(node: NodeDef, value: tf.Tensor) -> bool:
    """Whether a node only asks how many texts there are."""
    return node.op in stages.SHAPE_ONLY and value.dtype == tf.string and value.shape.rank == 1


def tokenizer_of(pure: PureGraph, rows: list[Row]) -> GraphDef:
    """Return the graph from `texts:0`, string [B], to `rows:0`, float32 [B, sum of widths]."""
    graph = tf.Graph()
    with graph.as_default():
        texts = tf.compat.v1.placeholder(tf.string, [None], name=node_of(TEXTS))
        found = tf.graph_util.import_graph_def(
            pure.graph,
            input_map={node_of(pure.input or ""): texts},
            return_elements=[row.tensor for row in rows],
            name="tokenizer",
        )
        values = tf.concat([tf.cast(value, tf.float32) for value in found], 1)
        tf.identity(values, name=node_of(ROWS))
    return needed(graph.as_graph_def(), [ROWS])


def rest_of(pure: PureGraph, rows: list[Row]) -> PureGraph:
    """Return the graph that takes the rows side by side, float32 [B, sum of widths]."""
    width = sum(row.width for row in rows)
    start = node_of(pure.input or "")
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, width], name=INPUT)
        feed, first = dict[str, tf.Tensor](), 0
        for row in rows:
            feed[row.tensor] = tf.cast(x[:, first : first + row.width], row.dtype)
            first += row.width
        for node in pure.graph.node:  # the number of texts, where the graph asks for it
            if node.op == "Shape" and node_of(node.input[0]) == start:
                kind = tf.as_dtype(node.attr["out_type"].type or tf.int32)
                feed[f"{node.name}:0"] = tf.cast(tf.shape(x)[:1], kind)
        tf.graph_util.import_graph_def(pure.graph, input_map=feed, name="")
    fetches = [pure.output, *(name for _, name in pure.updates), f"{INPUT}:0"]
    rest = needed(graph.as_graph_def(), fetches)
    if any(node.name == start for node in rest.node):
        raise NotPure("its strings are read again behind the tokenizer")
    return replace(pure, graph=rest, input=f"{INPUT}:0", rows=width)
