"""Count the words of a text: the first stage of every network for texts.

A network keeps the meaning of a text, and forgets its words. Where single words tell more, as with
spam, this costs accuracy. So the graph of a network gets one more output, in front of its first
stage: how often each word (or piece of a word) and each pair of neighbours is there. Columns are
found by a hash (Weinberger 2009, https://arxiv.org/abs/0902.2206), so that no words have to be
learnt.
"""

from dataclasses import replace

import tensorflow as tf

from tfxfer.savedmodel.graph import PureGraph, rows_of, there_of
from tfxfer.savedmodel.stages import Stage, node_of
from tfxfer.savedmodel.tokenizer import BYTES, strings_of

COLUMNS = 4096
NAME, TENSOR = "words", "counted_words:0"
NO_WORD = r"[^\pL\pN]+"
# Knuth's multiplicative hash, of 31 bits, whose highest bits are the column; and a prime that tells
# a pair from its reverse.
MULTIPLIER, BITS, SECOND = 2654435769, 31, 1000003
BELOW = BITS - (COLUMNS - 1).bit_length()


def with_words(pure: PureGraph, unit: str) -> tuple[PureGraph, Stage]:
    """Return the graph with the counts as a further tensor, and the stage that ends in it.

    The counts are log(1 + number), float32 [B, COLUMNS].

    Args:
        unit: what is at a position of a row, see `Tokenizer`.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(pure.graph, name="")
        x = graph.get_tensor_by_name(pure.input or "")
        columns, there = columns_of_bytes(x) if unit == BYTES else columns_of_pieces(x, pure)
        counts = tf.raw_ops.DenseBincount(
            input=columns, size=COLUMNS, weights=tf.cast(there, tf.float32), binary_output=False
        )
        counts = tf.ensure_shape(tf.math.log1p(counts), (None, COLUMNS))
        tf.identity(counts, name=node_of(TENSOR))
    counted = replace(pure, graph=graph.as_graph_def())
    return counted, Stage(name=NAME, cut=TENSOR, weights=())


def columns_of_pieces(x: tf.Tensor, pure: PureGraph) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the column of each piece and pair, int32 [B, 2 L - 1], and which of them are there."""
    there = there_of(x, pure)
    rows = rows_of(x, pure.rows)
    assert there is not None and rows is not None
    # The numbers of a position together tell its piece.
    pieces = tf.zeros_like(there, tf.int64)
    for part in tf.split(tf.cast(rows, tf.int64), pure.parts, 1):
        pieces = shuffled(pieces * SECOND + part)
    pairs = pieces[:, :-1] * SECOND + pieces[:, 1:]
    columns = tf.concat([shuffled(pieces), shuffled(pairs)], 1) // 2**BELOW
    return tf.cast(columns, tf.int32), tf.concat([there, there[:, :-1] & there[:, 1:]], 1)


def shuffled(numbers: tf.Tensor) -> tf.Tensor:
    """Return numbers from 0 to 2^BITS - 1, int64, that look like chance."""
    return tf.math.floormod(tf.math.floormod(numbers, 2**BITS) * MULTIPLIER, 2**BITS)


def columns_of_bytes(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the column of each word and pair, int32 [B, none], and which of them are there."""
    plain = tf.strings.regex_replace(tf.strings.lower(strings_of(x), "utf-8"), NO_WORD, " ")
    words = tf.strings.ngrams(tf.strings.split(plain), [1, 2])
    columns = words.with_values(tf.strings.to_hash_bucket_fast(words.values, COLUMNS))
    numbers = columns.to_tensor(-1)
    return tf.cast(tf.maximum(numbers, 0), tf.int32), numbers >= 0
