"""A tokenizer by byte pair encoding in TensorFlow's own operations, as language models have it.

There are two kinds. `BytePairs` begins with characters, as described here. `ByteLevel` begins with
bytes, as GPT-2 does, and gets its words from outside.

A word begins as single characters. The two neighbours that come first in a list of merges become
one piece, again and again, until no two neighbours are in the list (Sennrich 2016,
https://arxiv.org/abs/1508.07909). A character that is no piece becomes its bytes. Every word begins
with a mark for the space in front of it; here several spaces, and line breaks, count as one space.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfxfer.handles.lookup import look_up, make_table
from tfxfer.handles.pieces import pieces_of_texts

SPACE = "\u2581"  # marks the beginning of a word
LONGEST_WORD = 256  # characters of a word that are read
# Bytes of a word that are read by `ByteLevel`: a language without spaces has long ones.
MOST_BYTES = 4096
SHORT_WORD = 16  # longer words are merged apart, so that short ones take less memory
BYTE = "<0x{:02X}>"


class Merges:
    """Cuts words into pieces by a list of merges.

    Args:
        vocabulary: the number of each piece.
        merges: pairs of pieces, the first ones first.
        symbols: the numbers of what each word begins with, from string [N] to int64 [N, none].
        words: words that may be one piece. Most words are, and these are looked up as a whole.
        kept: words that are one piece though no merges make them, with their numbers.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        symbols: Callable[[tf.Tensor], tf.RaggedTensor],
        words: Sequence[bytes | str],
        kept: Mapping[str, int] | None = None,
    ):
        self.size, self.symbols = max(vocabulary.values()) + 1, symbols
        keys = [vocabulary[a] * self.size + vocabulary[b] for a, b in merges]
        order = np.argsort(keys)
        self.keys = np.array(keys, np.int64)[order]
        self.ranks = np.arange(len(keys), dtype=np.int64)[order]
        self.merged = np.array([vocabulary[a + b] for a, b in merges], np.int64)[order]
        found = self.merged_pieces(tf.constant(list(words)))
        alone = found.row_lengths().numpy() == 1
        numbers = tf.gather(found.values, found.row_starts()).numpy()[alone]
        kept = kept or {}
        self.whole = make_table(
            [*np.array(words, object)[alone].tolist(), *kept], np.array([*numbers, *kept.values()])
        )

    def __call__(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Return the numbers of the pieces of each word, int64 [N, none]."""
        whole = look_up(self.whole, words, -1)
        short = tf.strings.length(words, "UTF8_CHAR") <= SHORT_WORD
        known = tf.where(whole >= 0)[:, 0]
        rest = [tf.where((whole < 0) & some)[:, 0] for some in (short, ~short)]
        merged = [self.merged_pieces(tf.gather(words, some)) for some in rest]
        found = tf.concat([tf.gather(whole, known)[:, None], *merged], 0)
        return tf.gather(found, tf.argsort(tf.concat([known, *rest], 0)))

    def merged_pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Return the numbers of the pieces of each word, found by merging, int64 [N, none]."""
        # Words in which no two neighbours can be merged any more are left out of the loop.
        _, found = tf.while_loop(
            lambda going, _: tf.size(going) > 0,
            self.merge,
            [tf.range(tf.size(words)), self.symbols(words).to_tensor(-1)],
            shape_invariants=[tf.TensorShape([None]), tf.TensorShape([None, None])],
        )
        there = found >= 0
        return tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(found, there), tf.math.count_nonzero(there, 1)
        )

    def merge(self, going: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Merge one pair of each word that goes on; return which words go on, and the rows.

        Args:
            going: int32 [n], the words that go on.
            rows: int64 [N, L], numbers of pieces; -1 after the end.
        """
        row = tf.gather(rows, going)
        wide = tf.pad(row, [[0, 0], [0, 1]], constant_values=-1)
        left, right = wide[:, :-1], wide[:, 1:]
        key = tf.where((left >= 0) & (right >= 0), left * self.size + right, -1)
        place = tf.searchsorted(self.keys, tf.reshape(key, [-1]))
        place = tf.reshape(tf.minimum(place, len(self.keys) - 1), tf.shape(key))
        last = len(self.ranks)
        rank = tf.where(tf.gather(self.keys, place) == key, tf.gather(self.ranks, place), last)
        best = tf.argmin(rank, 1)
        merges = tf.reduce_min(rank, 1) < last
        new = tf.gather(self.merged, tf.gather(place, best, batch_dims=1))
        at = tf.range(tf.shape(row, tf.int64)[1])[None]
        here = merges[:, None] & (at == best[:, None])
        after = merges[:, None] & (at > best[:, None])
        moved = tf.where(after, right, left)
        changed = tf.where(here, new[:, None], moved)
        rows = tf.tensor_scatter_nd_update(rows, going[:, None], changed)
        return tf.boolean_mask(going, merges), rows


class BytePairs:
    """A tokenizer of one vocabulary, which begins with characters.

    Args:
        vocabulary: the number of each piece. 0 stands for no piece.
        merges: pairs of pieces, the first ones first.
        length: the most pieces of a text.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], length: int
    ):
        self.length = length
        letters = [piece for piece in vocabulary if len(piece) == 1]
        self.letters = make_table(letters, np.array([vocabulary[piece] for piece in letters]))
        self.bytes = np.array([vocabulary[BYTE.format(i)] for i in range(256)], np.int64)
        words = [piece[1:] for piece in vocabulary if piece[:1] == SPACE and len(piece) > 1]
        self.pieces = Merges(vocabulary, merges, symbols=self.symbols, words=words)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Return the numbers of the pieces, int64 [B, length], with 0 after the end.

        Args:
            texts: string [B], UTF-8.
        """
        plain = tf.strings.unicode_transcode(
            texts, "UTF-8", "UTF-8", replace_control_characters=False
        )
        rows = pieces_of_texts(tf.strings.split(plain), self.pieces)
        return rows.to_tensor(0, shape=(None, self.length))

    def symbols(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Return the numbers of letters, int64; those of its bytes for an unknown letter."""
        read = tf.strings.substr(words, 0, LONGEST_WORD, "UTF8_CHAR")
        letters = tf.strings.unicode_split(SPACE + read, "UTF-8")
        flat = letters.values
        known = look_up(self.letters, flat, -1)
        raw = tf.cast(tf.io.decode_raw(flat, tf.uint8, fixed_length=4), tf.int32)
        single = tf.stack([known, *[tf.zeros_like(known)] * 3], 1)
        numbers = tf.where(known[:, None] >= 0, single, tf.gather(self.bytes, raw))
        count = tf.where(known >= 0, 1, tf.strings.length(flat))
        flat_numbers = tf.boolean_mask(numbers, tf.sequence_mask(count, 4))
        ends = tf.concat([[0], tf.cumsum(tf.cast(count, tf.int64))], 0)
        return tf.RaggedTensor.from_row_splits(flat_numbers, tf.gather(ends, letters.row_splits))


class ByteLevel:
    """A tokenizer of one vocabulary, which begins with bytes.

    Args:
        vocabulary: the number of each piece, whose bytes are written as in `letters_of_bytes`.
        merges: pairs of pieces, the first ones first.
        kept: pieces that stand for themselves in a text, such as "<s>".

    Raises:
        ValueError: a byte has no number.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        kept: Sequence[str] = (),
    ):
        letters = letters_of_bytes()
        if missing := [letter for letter in letters if letter not in vocabulary]:
            raise ValueError(
                f"the vocabulary lacks {len(missing)} of the 256 bytes, such as {missing[0]!r}"
            )
        self.bytes = np.array([vocabulary[letter] for letter in letters], np.int64)
        values = {letter: bytes([i]) for i, letter in enumerate(letters)}
        words = [
            b"".join(values[letter] for letter in piece)
            for piece in vocabulary
            if piece and piece not in kept and all(letter in values for letter in piece)
        ]
        own = {piece: vocabulary[piece] for piece in kept if piece in vocabulary}
        words = sorted(set(words) - {piece.encode() for piece in own})
        self.pieces = Merges(vocabulary, merges, symbols=self.symbols, words=words, kept=own)

    def __call__(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        """Return the numbers of the pieces of each text, int64 [B, none].

        Args:
            words: string [B, none], with the spaces that belong to them.
        """
        return pieces_of_texts(words, self.pieces)

    def symbols(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Return the numbers of the bytes of each word, int64."""
        letters = tf.strings.bytes_split(tf.strings.substr(words, 0, MOST_BYTES))
        raw = tf.io.decode_raw(letters.values, tf.uint8, fixed_length=1)[:, 0]
        return letters.with_values(tf.gather(self.bytes, tf.cast(raw, tf.int32)))


def letters_of_bytes() -> list[str]:
    """Return the letter that stands for each byte in a vocabulary, as GPT-2 writes them.

    Bytes that are printable in Latin-1 stand for themselves, and the others for the letters from
    number 256 on. (https://github.com/openai/gpt-2/blob/master/src/encoder.py)
    """
    ranges = (("!", "~"), ("\xa1", "\xac"), ("\xae", "\xff"))
    printable = {i for first, last in ranges for i in range(ord(first), ord(last) + 1)}
    others = iter(range(256, 512))
    return [chr(i if i in printable else next(others)) for i in range(256)]
