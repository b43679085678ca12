"""Turn texts into the rows of numbers of a tokenizer."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.inputs.text.input import BYTES, TextInput


def rows_of(takes: TextInput, contents: tf.Tensor) -> tf.Tensor:
    """Return the numbers of texts, float32 [B, parts * length]."""
    beginnings = tf.strings.substr(contents, 0, BYTES * takes.length)
    return tf.ensure_shape(tokenizer(takes)(beginnings), (None, *takes.shape))


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


def rows_unless_large(takes: TextInput, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the numbers of a text, and False: no text needs much memory."""
    return takes.decode(content), tf.constant(False)


def pack(decoded: tf.Tensor) -> tf.Tensor:
    """Return rows as int32."""
    return tf.cast(decoded, tf.int32)


def unpack(packed: tf.Tensor) -> tf.Tensor:
    """Return rows as float32."""
    return tf.cast(packed, tf.float32)


def of_tokenizer(tokenizer: Any) -> TextInput:
    """Return the input of a network's tokenizer; see `tfxfer.savedmodel.Tokenizer`."""
    content = tokenizer.graph.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    return TextInput(
        digest, tokenizer.length, tokenizer.parts, tokenizer.unit, graph=tokenizer.graph
    )


def of_graph(digest: str, length: int, parts: int, unit: str, content: bytes) -> TextInput:
    """Return the input of a tokenizer's graph as bytes.

    Raises:
        ValueError: the graph has another digest.
    """
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("has another tokenizer than its settings say")
    return TextInput(digest, length, parts, unit, graph=GraphDef.FromString(content))


def count_cut(contents: Sequence[bytes], takes: TextInput) -> int:
    """Return how many texts fill the last position that is read."""
    if not contents:
        return 0
    rows = takes.decode_many(tf.constant(list(contents))).numpy()
    last = rows.reshape(len(rows), takes.parts, takes.length)[:, :, -1]
    return int((last != 0).any(1).sum())
