"""BERT's tokenizer in TensorFlow's own operations, so that an export needs no other library.

The steps are those of the original (https://github.com/google-research/bert, tokenization.py):
clean the text, put spaces around Chinese characters, take accents and capitals away, split at
spaces and punctuation, and cut each word into the longest pieces that the vocabulary holds
(WordPiece).
"""

import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfxfer.handles.lookup import look_up, make_table
from tfxfer.handles.pieces import pieces_of_texts

# Control characters, but not those that count as spaces.
CONTROL = r"[^\PC\t\n\r]|\x{FFFD}"
SPACE = r"[\t\n\r\pZ]"
CHINESE = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}"
    r"\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
PUNCTUATION = r"[!-/:-@\[-`{-~\pP]"
LONGEST_WORD = 100  # characters; a longer word is unknown
UNKNOWN, BEGIN, END, PADDING = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
AFTER = "##"  # before a piece that does not begin a word


class WordPiece:
    """A tokenizer of one vocabulary.

    Args:
        vocabulary: all pieces; the number of a piece is its place.
        length: the most pieces of a text, with those for its beginning and its end.
    """

    def __init__(self, vocabulary: Sequence[str], length: int):
        numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self.unknown, self.begin, self.end, self.padding = (
            numbers[name] for name in (UNKNOWN, BEGIN, END, PADDING)
        )
        self.length = length
        self.longest = max(len(piece) for piece in vocabulary)
        self.numbers = make_table(vocabulary, np.arange(len(vocabulary)))
        letters, plain = undecorated()
        self.plain = make_table(letters, np.array([letter.encode() for letter in plain], object))

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Return the numbers of the pieces, int64 [B, length], with `padding` after the end.

        Args:
            texts: string [B], UTF-8.
        """
        words = tf.strings.split(self.normalised(texts))
        rows = pieces_of_texts(words, self.pieces)[:, : self.length - 2]
        count = tf.shape(texts)[0]
        ones = tf.ones((count, 1), tf.int64)
        both = tf.concat([ones * self.begin, rows, ones * self.end], 1)
        return both.to_tensor(self.padding, shape=(None, self.length))

    def normalised(self, texts: tf.Tensor) -> tf.Tensor:
        """Return the texts in lower case, without accents, with spaces around punctuation."""
        texts = tf.strings.unicode_transcode(
            texts, "UTF-8", "UTF-8", replace_control_characters=False
        )
        texts = tf.strings.regex_replace(texts, CONTROL, "")
        texts = tf.strings.regex_replace(texts, SPACE, " ")
        texts = tf.strings.regex_replace(texts, CHINESE, r" \0 ")
        special = tf.where(tf.logical_not(tf.strings.regex_full_match(texts, r"[\x00-\x7F]*")))
        plain = self.without_accents(tf.gather_nd(texts, special))
        texts = tf.tensor_scatter_nd_update(texts, special, plain)
        # The original makes letters small one by one; at the end of a word this one differs then.
        texts = tf.strings.regex_replace(texts, "\u03a3", "\u03c3")
        texts = tf.strings.lower(texts, encoding="utf-8")
        return tf.strings.regex_replace(texts, PUNCTUATION, r" \0 ")

    def without_accents(self, texts: tf.Tensor) -> tf.Tensor:
        """Return the texts with each character in place of its decorated form."""
        letters = tf.strings.unicode_split(texts, "UTF-8")
        found = look_up(self.plain, letters.values, "")
        # What the table lacks stays as it is; a mark on its own is a space in the table.
        values = tf.where(found == "", letters.values, tf.strings.strip(found))
        return tf.strings.reduce_join(letters.with_values(values), -1)

    def pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Return the numbers of the pieces of each word, int64 [N, none]."""
        count = tf.size(words)
        sizes = tf.range(1, self.longest + 1)

        def step(
            number: tf.Tensor, at: tf.Tensor, rest: tf.Tensor, place: tf.Tensor, piece: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            left = tf.strings.length(rest, "UTF8_CHAR")
            beginnings = tf.strings.substr(
                tf.repeat(rest[:, None], self.longest, 1),
                tf.zeros_like(sizes)[None, :] + tf.zeros_like(left)[:, None],
                tf.minimum(sizes[None, :], left[:, None]),
                "UTF8_CHAR",
            )
            marked = tf.where(number > 0, AFTER, "") + beginnings
            found = tf.where(sizes[None, :] <= left[:, None], look_up(self.numbers, marked, -1), -1)
            best = tf.reduce_max(tf.where(found >= 0, sizes[None, :], 0), 1)
            ids = tf.gather(found, tf.maximum(best - 1, 0), batch_dims=1)
            # A word of which any part is in no piece is unknown as a whole.
            ids = tf.where(best > 0, ids, -1)
            place, piece = tf.concat([place, at], 0), tf.concat([piece, ids], 0)
            more = (best > 0) & (best < left)
            rest = tf.strings.substr(
                tf.boolean_mask(rest, more),
                tf.boolean_mask(best, more),
                tf.boolean_mask(left - best, more),
                "UTF8_CHAR",
            )
            return number + 1, tf.boolean_mask(at, more), rest, place, piece

        short = tf.strings.length(words, "UTF8_CHAR") <= LONGEST_WORD
        at = tf.cast(tf.where(short)[:, 0], tf.int32)
        none = tf.zeros((0,), tf.int32)
        *_, place, piece = tf.while_loop(
            lambda number, at, *_: tf.size(at) > 0,
            step,
            [tf.constant(0), at, tf.gather(words, at), none, tf.zeros((0,), tf.int64)],
            shape_invariants=[tf.TensorShape([]), *[tf.TensorShape([None])] * 4],
        )
        order = tf.argsort(place, stable=True)  # those of a word are in the order of the steps
        place, piece = tf.gather(place, order), tf.gather(piece, order)
        failed = tf.math.unsorted_segment_min(piece, place, count) < 0
        failed |= tf.logical_not(short)
        kept = tf.logical_not(tf.gather(failed, place))
        place = tf.concat(
            [tf.boolean_mask(place, kept), tf.cast(tf.where(failed)[:, 0], tf.int32)], 0
        )
        unknown = tf.fill([tf.math.count_nonzero(failed, dtype=tf.int32)], self.unknown)
        piece = tf.concat([tf.boolean_mask(piece, kept), tf.cast(unknown, tf.int64)], 0)
        order = tf.argsort(place, stable=True)
        return tf.RaggedTensor.from_value_rowids(
            tf.gather(piece, order), tf.gather(place, order), nrows=tf.cast(count, tf.int32)
        )


def undecorated() -> tuple[list[str], list[str]]:
    """Return the characters with accents, and each without them; a space where nothing is left.

    These are the canonical decomposition (NFD) without marks (Mn).
    """
    keys, values = [], []
    for code in range(0x80, sys.maxunicode + 1):
        letter = chr(code)
        if 0xD800 <= code < 0xE000:  # halves of a character
            continue
        parts = unicodedata.normalize("NFD", letter)
        plain = "".join(part for part in parts if unicodedata.category(part) != "Mn")
        if plain != letter:
            keys.append(letter)
            values.append(plain or " ")
    return keys, values
