"""Take a network for texts apart: its tokenizer, and the rest.

The tokenizer turns strings into rows of whole numbers, such as the numbers of the pieces of words.
It has no weights, and nothing in it is trained. What follows is a network like any other: its input
is float32 [B, L], which holds whole numbers exactly up to 2**24.

Where a network makes something else of its strings, such as a list of words of any length, the rows
are the bytes of the texts. What follows then begins with making strings of them again.
"""

from dataclasses import dataclass, replace

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel import stages
from tfxfer.savedmodel.graph import PureGraph, Tokenizer, needed
from tfxfer.savedmodel.pure import NotPure
from tfxfer.savedmodel.stages import node_of, with_port

TEXTS, ROWS = "texts:0", "rows:0"  # input and output of a tokenizer
INPUT = "rows_of_numbers"
PIECES, BYTES = "pieces of words", "bytes"  # what a number of a row may stand for
MOST_BYTES = 4096  # of a text that are read where the rows are bytes


@dataclass(frozen=True)
class Row:
    """A tensor that the tokenizer hands over: whole numbers or truth values, [B, width]."""

    tensor: str
    dtype: tf.DType
    width: int


def split_tokenizer(pure: PureGraph, like: Tokenizer | None = None) -> tuple[Tokenizer, PureGraph]:
    """Return the tokenizer of a graph that takes string [B], and the graph of what follows.

    Args:
        like: the tokenizer of another call of the same network, whose rows this one must take.

    Raises:
        NotPure: the weights do not depend on the texts; or the rows would be others than those of
            `like`.
    """
    try:
        if like is not None and like.unit == BYTES:
            return like, rest_of_bytes(pure)
        rows = Crossing(pure).rows()
    except NotRows:
        if like is not None:
            raise
        return Tokenizer(tokenizer_of_bytes(), MOST_BYTES, 1, BYTES), rest_of_bytes(pure)
    found = tokenizer_of(pure, rows)
    if like is not None and (found.length, found.parts) != (like.length, like.parts):
        raise NotPure("it cuts texts into pieces in another way in training")
    return found, rest_of(pure, rows)


class NotRows(NotPure):
    """The reason why what a network makes of its texts is not rows of whole numbers."""


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

        What can be computed from rows alone stays outside, so that little is handed over, and so
        does what is no row itself, but made of numbers.
        """
        moved = True
        while moved:
            moved = False
            for tensor in self.tensors_across():
                name = node_of(tensor)
                inputs = [one for one in self.nodes[name].input if node_of(one) in self.path]
                numbers = all(self.value(one).dtype != tf.string for one in inputs)
                if inputs and (
                    all(self.is_row(one) for one in inputs) or (numbers and not self.is_row(tensor))
                ):
                    self.inside.discard(name)
                    moved = True
        found = self.tensors_across()
        if not found:
            raise NotPure("its weights do not depend on the texts")
        rows = []
        for tensor in found:
            value = self.value(tensor)
            if not self.is_row(tensor):
                raise NotRows(f"its texts become something else than rows of numbers ({tensor!r})")
            if value.shape[1] is None:
                raise NotRows(f"a text has no fixed number of pieces ({tensor!r})")
            rows.append(Row(with_port(tensor), value.dtype, int(value.shape[1])))
        return rows


def asks_count(node: NodeDef, value: tf.Tensor) -> bool:
    """Whether a node only asks how many texts there are."""
    return node.op in stages.SHAPE_ONLY and value.dtype == tf.string and value.shape.rank == 1


def parts_of(rows: list[Row]) -> int:
    """Return how many rows of one length there are; 1 where their lengths differ."""
    return len(rows) if len({row.width for row in rows}) == 1 else 1


def tokenizer_of(pure: PureGraph, rows: list[Row]) -> Tokenizer:
    """Return the part of a graph that makes `rows`, side by side."""
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
    parts = parts_of(rows)
    length = sum(row.width for row in rows) // parts
    return Tokenizer(needed(graph.as_graph_def(), [ROWS]), length, parts, PIECES)


def rest_of(pure: PureGraph, rows: list[Row]) -> PureGraph:
    """Return the graph that takes the rows side by side, float32 [B, sum of widths]."""
    width, parts = sum(row.width for row in rows), parts_of(rows)
    start = node_of(pure.input or "")
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, width], name=INPUT)
        # Rows of one length are divided by their number, so that shorter ones can go in, too.
        own = tf.split(x, parts if parts == len(rows) else [row.width for row in rows], 1)
        feed = {
            row.tensor: tf.cast(values, row.dtype) for row, values in zip(rows, own, strict=True)
        }
        for node in pure.graph.node:  # the number of texts, where the graph asks for it
            if node.op == "Shape" and node_of(node.input[0]) == start:
                kind = tf.as_dtype(node.attr["out_type"].type or tf.int32)
                feed[f"{node.name}:0"] = tf.cast(tf.shape(x)[:1], kind)
        tf.graph_util.import_graph_def(pure.graph, input_map=feed, name="")
    rest = part_behind(graph, pure)
    if any(node.name == start for node in rest.node):
        raise NotRows("its strings are read again behind the tokenizer")
    return replace(pure, graph=rest, input=f"{INPUT}:0", rows=width, parts=parts)


def tokenizer_of_bytes() -> GraphDef:
    """Return the graph that gives each byte of a text plus 1, so that 0 is padding."""
    graph = tf.Graph()
    with graph.as_default():
        texts = tf.compat.v1.placeholder(tf.string, [None], name=node_of(TEXTS))
        begin = tf.strings.substr(texts, 0, MOST_BYTES)
        # The last letter may be cut in two.
        begin = tf.strings.unicode_transcode(
            begin, "UTF-8", "UTF-8", errors="ignore", replace_control_characters=False
        )
        values = tf.io.decode_raw(begin, tf.uint8, fixed_length=MOST_BYTES)
        there = tf.sequence_mask(tf.strings.length(begin), MOST_BYTES)
        values = tf.where(there, tf.cast(values, tf.float32) + 1, 0.0)
        tf.identity(tf.ensure_shape(values, (None, MOST_BYTES)), name=node_of(ROWS))
    return needed(graph.as_graph_def(), [ROWS])


def rest_of_bytes(pure: PureGraph) -> PureGraph:
    """Return the graph that takes bytes plus 1, float32 [B, MOST_BYTES], in place of strings."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, MOST_BYTES], name=INPUT)
        feed = {f"{node_of(pure.input or '')}:0": strings_of(x)}
        tf.graph_util.import_graph_def(pure.graph, input_map=feed, name="")
    rest = part_behind(graph, pure)
    return replace(pure, graph=rest, input=f"{INPUT}:0", rows=MOST_BYTES)


def strings_of(x: tf.Tensor) -> tf.Tensor:
    """Return the strings of rows of bytes plus 1, string [B]."""
    letters = tf.constant([b"", *(bytes([i]) for i in range(256))])
    return tf.strings.reduce_join(tf.gather(letters, tf.cast(x, tf.int32)), 1)


def part_behind(graph: tf.Graph, pure: PureGraph) -> GraphDef:
    """Return what the results of a graph need, of a graph that holds it."""
    fetches = [pure.output, *(name for _, name in pure.updates), f"{INPUT}:0"]
    return needed(graph.as_graph_def(), fetches)
