"""Counts of words: what a model without a network is fitted on."""

from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

COLUMNS = 4096
BYTES = 16 * 1024  # of a text that are read
WORDS = r"[^\pL\pN]+"


@dataclass(frozen=True)
class WordCounts:
    """The words of a text, and pairs of neighbouring words, counted in columns by their hash.

    The row holds log(1 + count), scaled to length one.
    """

    KIND: ClassVar[str] = "text"

    @property
    def shape(self) -> tuple[int, ...]:
        """(COLUMNS,)."""
        return (COLUMNS,)

    def decode(self, content: tf.Tensor) -> tf.Tensor:
        """Return the row of a text, float32 [COLUMNS]."""
        beginning = tf.strings.substr(content, 0, BYTES)
        text = tf.strings.unicode_transcode(beginning, "UTF-8", "UTF-8")
        words = tf.strings.split(
            tf.strings.regex_replace(tf.strings.lower(text, "utf-8"), WORDS, " ")
        )
        pairs = tf.strings.join([words[:-1], words[1:]], " ")
        columns = tf.strings.to_hash_bucket_fast(tf.concat([words, pairs], 0), COLUMNS)
        counts = tf.math.bincount(
            tf.cast(columns, tf.int32), minlength=COLUMNS, maxlength=COLUMNS, dtype=tf.float32
        )
        row = tf.math.l2_normalize(tf.math.log1p(counts))
        return tf.ensure_shape(row, self.shape)

    def decode_unless_large(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the row, and False."""
        return self.decode(content), tf.constant(False)

    def pack(self, decoded: tf.Tensor) -> tf.Tensor:
        """Return the row as it is."""
        return decoded

    def unpack(self, packed: tf.Tensor) -> tf.Tensor:
        """Return the row as it is."""
        return packed

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the counts besides the text."""
        return {"words": COLUMNS, "bytes": BYTES, "version": 1}

    def settings(self) -> dict[str, Any]:
        """Return nothing: it is always the same."""
        return {}

    def described(self) -> str:
        """Return what it is."""
        return "counts of words"

    def sample(self) -> bytes:
        """Return a short text."""
        return b"A text."
