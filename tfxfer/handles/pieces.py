"""Make rows of pieces from words, as every tokenizer of words does."""

from collections.abc import Callable

import tensorflow as tf


def pieces_of_texts(
    words: tf.RaggedTensor, cut: Callable[[tf.Tensor], tf.RaggedTensor]
) -> tf.RaggedTensor:
    """Return the pieces of the words of each text, in one row; a word that repeats is cut once.

    Args:
        words: string [B, none].
        cut: the pieces of each word, from string [N] to int64 [N, none].
    """
    different, number = tf.unique(words.values)
    pieces = tf.gather(cut(different), number)
    ends = tf.concat([[0], tf.cumsum(pieces.row_lengths())], 0)
    return tf.RaggedTensor.from_row_splits(pieces.values, tf.gather(ends, words.row_splits))
