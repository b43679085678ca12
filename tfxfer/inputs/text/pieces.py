"""How a tokenizer of word pieces makes numbers of texts, in terms that another program can follow.

The steps are those of BERT (https://github.com/google-research/bert, tokenization.py). A phone has
none of TensorFlow's operations on strings, so an app needs the vocabulary and these steps.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.errors import ServingError
from tfxfer.inputs.input import AppInput
from tfxfer.inputs.text.input import BYTES, TextInput

LONGEST_WORD = 100  # characters; a longer word is unknown
AFTER = "##"  # before a piece that does not begin a word
VOCABULARY, STEPS = "vocab.txt", "tokenizer.json"
UNKNOWN = "[UNK]"
IDS, MASK, TYPES = "ids", "mask", "types"
SAME = 0.99  # share of texts of which these steps must give the numbers of the tokenizer
CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
CHECKED = 300  # texts on which the steps are compared with the tokenizer
ADVICE = "Export it as a SavedModel, which takes the texts themselves: leave --format out."


@dataclass(frozen=True)
class Pieces:
    """A tokenizer of word pieces.

    Args:
        vocabulary: all pieces; the number of a piece is its place.
        length: how many positions a row has, with those for the beginning and the end of a text.
        lower_case: whether letters are made small and lose their accents.
        unknown, begin, end: numbers of the special pieces. 0 is padding.
        parts: what a row holds, one after the other: "ids", the numbers of the pieces; "mask", 1
            where there is a piece; "types", always 0.
    """

    vocabulary: tuple[str, ...]
    length: int
    lower_case: bool
    unknown: int
    begin: int
    end: int
    parts: tuple[str, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each piece."""
        return {piece: number for number, piece in enumerate(self.vocabulary)}

    @cached_property
    def longest(self) -> int:
        """The number of characters of the longest piece."""
        return max(len(piece) for piece in self.vocabulary)

    def row(self, text: str) -> np.ndarray:
        """Return the numbers of a text, int [parts * length]."""
        found: list[int] = []
        for word in words_of(text, self.lower_case):
            found += self.cut(word)
            if len(found) >= self.length:
                break
        ids = [self.begin, *found[: self.length - 2], self.end]
        padded = np.zeros((len(self.parts), self.length), int)
        for part, values in zip(self.parts, padded, strict=True):
            values[: len(ids)] = {IDS: ids, MASK: 1, TYPES: 0}[part]
        return padded.reshape(-1)

    def cut(self, word: str) -> list[int]:
        """Return the numbers of the longest pieces of a word; of one that has none, `unknown`."""
        if len(word) > LONGEST_WORD:
            return [self.unknown]
        found: list[int] = []
        start = 0
        while start < len(word):
            before = AFTER if start else ""
            ends = range(min(len(word), start + self.longest), start, -1)
            end = next((end for end in ends if before + word[start:end] in self.numbers), None)
            if end is None:
                return [self.unknown]
            found.append(self.numbers[before + word[start:end]])
            start = end
        return found

    def described(self) -> dict[str, Any]:
        """Return these settings as JSON values, but for the vocabulary."""
        return {
            "steps": "BERT's: clean, split at spaces and punctuation, then WordPiece",
            "vocabulary": VOCABULARY,
            "lower_case": self.lower_case,
            "strip_accents": self.lower_case,
            "length": self.length,
            "begin": self.begin,
            "end": self.end,
            "unknown": self.unknown,
            "padding": 0,
            "continued_by": AFTER,
            "longest_word": LONGEST_WORD,
            "inputs": [
                {"name": part, "dtype": "int32", "shape": [1, self.length]} for part in self.parts
            ],
        }


def words_of(text: str, lower_case: bool) -> Iterator[str]:
    """Yield the words and signs of a text."""
    for word in "".join(cleaned(letter) for letter in text).split():
        if lower_case:
            plain = unicodedata.normalize("NFD", word.lower())
            word = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
        yield from "".join(f" {one} " if is_sign(one) else one for one in word).split()


def cleaned(letter: str) -> str:
    """Return a letter without control characters, and with spaces around Chinese ones."""
    if letter in "\t\n\r" or unicodedata.category(letter) == "Zs":
        return " "
    if letter in "\x00\ufffd" or unicodedata.category(letter).startswith("C"):
        return ""
    if any(low <= ord(letter) <= high for low, high in CHINESE):
        return f" {letter} "
    return letter


def is_sign(letter: str) -> bool:
    """Return whether a letter is a sign that is a word of its own."""
    if letter.isascii():
        return letter.isprintable() and not letter.isalnum() and letter != " "
    return unicodedata.category(letter).startswith("P")


def for_app(takes: TextInput, contents: Iterable[bytes]) -> AppInput:
    """Return what an app needs to give texts to a LiteRT file; see `Kind.for_app`.

    Raises:
        ServingError: as for `describe`.
    """
    pieces = describe(takes, contents)
    steps = json.dumps(pieces.described(), indent=1)
    lines = "".join(f"{piece}\n" for piece in pieces.vocabulary)
    return AppInput(
        names=pieces.parts,
        dtype="int32",
        files={VOCABULARY: lines.encode(), STEPS: f"{steps}\n".encode()},
        note="The files take numbers and no texts: the app has to make the numbers of a text, with "
        f"{VOCABULARY} and as {STEPS} says.",
        calibrated=False,
    )


def describe(takes: TextInput, contents: Iterable[bytes]) -> Pieces:
    """Return how the tokenizer of a network makes numbers of texts.

    Args:
        contents: texts, on which the description is compared with the tokenizer itself.

    Raises:
        ServingError: it is no tokenizer of word pieces, or its numbers are others.
    """
    found = list(candidates(takes))
    if not found:
        raise ServingError(
            "A LiteRT file takes the numbers that a tokenizer makes of texts, and an app can't "
            "make those of this network: no vocabulary of word pieces was found in it. " + ADVICE
        )
    # In capitals, texts show whether letters are made small.
    plain = [content.decode("utf-8", "ignore") for content in islice(contents, CHECKED)]
    texts = [*plain, *(text.upper() for text in plain)]
    rows = rows_for(takes, texts)
    shares = [share_of_same(pieces, takes, texts, rows) for pieces in found]
    best = max(range(len(found)), key=lambda i: shares[i])
    if shares[best] < SAME:
        raise ServingError(
            "A LiteRT file takes the numbers that a tokenizer makes of texts, and an app can't "
            "make those of this network: the steps of BERT's tokenizer give them for "
            f"{100 * shares[best]:.0f} % of the run's texts only. {ADVICE}"
        )
    return found[best]


def share_of_same(
    pieces: Pieces, takes: TextInput, texts: Sequence[str], rows: np.ndarray
) -> float:
    """Return the share of texts whose numbers are those of the tokenizer."""
    own = [pieces.row(text[: BYTES * takes.length]) for text in texts]
    return float((np.stack(own) == rows).all(1).mean())


def candidates(takes: TextInput) -> Iterator[Pieces]:
    """Yield what the tokenizer may be, for each vocabulary that its graph holds."""
    if takes.graph is None:
        return
    (empty,) = rows_for(takes, [""]).reshape(1, takes.parts, takes.length)
    parts = tuple(map(part_of, empty))
    if parts.count(IDS) != 1:
        return
    ids = empty[parts.index(IDS)].astype(int)
    if np.flatnonzero(ids).tolist() != [0, 1]:
        return
    for vocabulary in vocabularies(takes.graph):
        if UNKNOWN not in vocabulary or any("\n" in piece for piece in vocabulary):
            continue
        for lower_case in (True, False):
            yield Pieces(
                vocabulary=vocabulary,
                length=takes.length,
                lower_case=lower_case,
                unknown=vocabulary.index(UNKNOWN),
                begin=int(ids[0]),
                end=int(ids[1]),
                parts=parts,
            )


def rows_for(takes: TextInput, texts: Sequence[str]) -> np.ndarray:
    """Return the numbers that the tokenizer makes of texts, float32 [n, parts * length]."""
    return np.asarray(takes.decode_many(tf.constant([text.encode() for text in texts])))


def part_of(empty: np.ndarray) -> str:
    """Return what a part of a row holds, by what it holds of an empty text."""
    if not empty.any():
        return TYPES
    return IDS if (empty > 1).any() else MASK


def vocabularies(graph: GraphDef) -> Iterator[tuple[str, ...]]:
    """Yield the lists of strings in a graph that have a number each, in the order of the numbers.

    A table is in the graph as two constants, its keys and their numbers.
    """
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    constants = [tf.make_ndarray(one.attr["value"].tensor) for one in nodes if one.op == "Const"]
    lists = [one for one in constants if one.ndim == 1 and one.size > 1]
    for keys in lists:
        if keys.dtype != object:
            continue
        for numbers in lists:
            if numbers.dtype.kind == "i" and len(numbers) == len(keys):
                order = np.argsort(numbers)
                if np.array_equal(numbers[order], np.arange(len(keys))):
                    yield tuple(keys[i].decode("utf-8", "replace") for i in order)
