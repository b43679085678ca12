"""The input of a network of texts for one example."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.errors import SavedModelError

# A text may be long, and only its beginning is used: so many bytes for each number of a row.
BYTES = 128
SMALL = 2**16


@dataclass(frozen=True)
class TextInput:
    """Rows of numbers that a tokenizer makes of texts.

    Args:
        digest: the SHA-256 of the tokenizer's graph, in hexadecimal.
        length: how many positions of a text are read.
        parts: how many numbers there are for each position; those of all positions stand together.
        unit: what is at a position, in words.
        graph: the tokenizer, from `texts:0` to `rows:0`; None where only its digest is known.
    """

    KIND: ClassVar[str] = "text"
    TOGETHER: ClassVar[int] = 256

    digest: str
    length: int
    parts: int
    unit: str
    graph: GraphDef | None = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(parts * length,)."""
        return (self.parts * self.length,)

    @property
    def padded(self) -> int:
        """The number of parts."""
        return self.parts

    def decode(self, content: tf.Tensor) -> tf.Tensor:
        """Return the numbers of a text, float32 [parts * length]; 0 is padding.

        Raises:
            SavedModelError: the tokenizer is not known.
        """
        return self.decode_many(content[None])[0]

    def decode_many(self, contents: tf.Tensor) -> tf.Tensor:
        """Return the numbers of texts, float32 [B, parts * length]."""
        if self.graph is None:
            raise SavedModelError("the tokenizer is part of the network, which is not loaded")
        beginnings = tf.strings.substr(contents, 0, BYTES * self.length)
        return tf.ensure_shape(tokenizer(self)(beginnings), (None, *self.shape))

    def decode_unless_large(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the numbers, and False: no text needs much memory."""
        return self.decode(content), tf.constant(False)

    def pack(self, decoded: tf.Tensor) -> tf.Tensor:
        """Return the numbers as int32."""
        return tf.cast(decoded, tf.int32)

    def unpack(self, packed: tf.Tensor) -> tf.Tensor:
        """Return the numbers as float32."""
        return tf.cast(packed, tf.float32)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the numbers besides the text, as JSON values."""
        return {"tokenizer": self.digest, "length": self.length, "bytes": BYTES}

    def settings(self) -> dict[str, Any]:
        """Return what settings.json holds."""
        return {
            "tokenizer": self.digest,
            "text_length": self.length,
            "text_parts": self.parts,
            "text_unit": self.unit,
        }

    def apart(self) -> bytes:
        """Return the tokenizer's graph."""
        return b"" if self.graph is None else self.graph.SerializeToString(deterministic=True)

    def described(self) -> str:
        """Return the length of a text."""
        return f"texts, of which the first {self.length:,} {self.unit} are read"

    def sample(self) -> bytes:
        """Return a short text."""
        return b"A text."


def of_tokenizer(tokenizer: Any) -> TextInput:
    """Return the input of a network's tokenizer; see `tfxfer.savedmodel.Tokenizer`."""
    content = tokenizer.graph.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    return TextInput(
        digest, tokenizer.length, tokenizer.parts, tokenizer.unit, graph=tokenizer.graph
    )


@functools.lru_cache(maxsize=8)
def tokenizer(takes: TextInput) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the tokenizer of an input as a function from string [B] to float32 [B, length]."""

    def rows(texts: tf.Tensor) -> tf.Tensor:
        (found,) = tf.graph_util.import_graph_def(
            takes.graph, input_map={"texts": texts}, return_elements=["rows:0"], name=""
        )
        return found

    with tf.init_scope():
        return tf.compat.v1.wrap_function(rows, [tf.TensorSpec([None], tf.string)])


def of_graph(digest: str, length: int, parts: int, unit: str, content: bytes) -> TextInput:
    """Return the input of a tokenizer's graph as bytes; without its graph if they are b"".

    Raises:
        ValueError: the graph has another digest.
    """
    if content and hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("has another tokenizer than its settings say")
    graph = GraphDef.FromString(content) if content else None
    return TextInput(digest, length, parts, unit, graph=graph)


def count_cut(contents: Sequence[bytes], takes: TextInput) -> int:
    """Return how many texts fill the last position that is read."""
    if not contents:
        return 0
    rows = takes.decode_many(tf.constant(list(contents))).numpy()
    last = rows.reshape(len(rows), takes.parts, takes.length)[:, :, -1]
    return int((last != 0).any(1).sum())
