"""Texts as a kind of example; see `tfxfer.inputs.kind`.

TensorFlow is loaded only by what needs it.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from os import PathLike
from typing import Any

import numpy as np

from tfxfer.inputs import text
from tfxfer.inputs.defaults import (
    augment,
    can_hide_damage,
    find_damage,
    find_odd,
    mirror,
    preview,
    said_of_odd,
)
from tfxfer.inputs.input import AppInput, Input
from tfxfer.inputs.text.excerpt import excerpt
from tfxfer.inputs.text.markup import said_of_markup
from tfxfer.inputs.text.read import own_words, problem, read_together, to_utf8
from tfxfer.inputs.text.words import explain
from tfxfer.inputs.text.words import first_words as parts

__all__ = [
    "ALTERATION",
    "ALTERS_CONTENTS",
    "AS_NEW",
    "AUGMENTATIONS",
    "BESIDE",
    "CELLS",
    "CLASSIFIER",
    "DAMAGE_KEY",
    "ELSEWHERE",
    "ENDINGS",
    "FEATURE",
    "FILE",
    "MANY",
    "MIRROR",
    "NAME",
    "NETWORK",
    "ONE",
    "OTHERS",
    "PLAIN",
    "SIMILAR",
    "TAG",
    "TWINS",
    "UNREAD",
    "VALUES",
    "alter",
    "augment",
    "begins_one",
    "can_hide_damage",
    "essence",
    "excerpt",
    "explain",
    "find_damage",
    "find_odd",
    "fit_plain",
    "for_app",
    "format_of",
    "formats",
    "mirror",
    "parts",
    "plain",
    "preview",
    "problem",
    "read_together",
    "readable",
    "restore",
    "said_of_odd",
    "said_of_read",
    "said_of_unread",
    "spec",
    "takes",
]

NAME = "text"
ONE, MANY = "text", "texts"
CLASSIFIER = "A text classifier"
TAG = "text-classification"
FILE = "text.txt"
VALUES = "words and letters (tf-idf)"
# Measured with minilm: of 1,000 mails, 95 in 100 had less than 0.87 with the most similar one
# of another part; of copies that lack one word in twenty, 95 in 100 had 0.90 or more.
SIMILAR = 0.9
TWINS = "a message and an answer that quotes it"
ELSEWHERE = "another author, source or time"
NETWORK = "minilm"
PLAIN = "tf_idf"
CELLS: Sequence[Sequence[str]] = (
    ("subject", "title", "headline"),
    tuple("text body message content review sentence comment tweet document description".split()),
)
ENDINGS: Set[str] = frozenset({".txt"})
MAILS: Set[str] = frozenset({".eml", ".mbox", ".msg"})
UNREAD: Set[str] = MAILS | {".doc", ".docx", ".odt", ".pdf", ".rtf"}
OTHERS: Set[str] = frozenset()
BESIDE: Set[str] = frozenset()
FEATURE = "text"
DAMAGE_KEY: dict[str, Any] | None = None
AUGMENTATIONS: tuple[str, ...] = ("dropout", "order")
AS_NEW: tuple[str, ...] = ("dropout",)
ALTERS_CONTENTS = True
ALTERATION = 1
MIRROR: str | None = None
readable = to_utf8


def begins_one(head: bytes) -> bool:
    """Return False: anything may be a text, so its ending must say so."""
    return False


def formats() -> str:
    """Return the formats that are read."""
    return "txt"


def said_of_unread(endings: Set[str]) -> str:
    """Return advice on documents and mails; "" if there are none."""
    documents, mails = sorted((UNREAD - MAILS) & endings), sorted(MAILS & endings)
    advice = ""
    if documents:
        advice += f" Documents are not read ({', '.join(documents)}): save them as .txt."
    if mails:
        advice += (
            f" Mails are not read as they are ({', '.join(mails)}): write their subjects, bodies "
            "and labels to a table, as docs/texts.md shows."
        )
    return advice


def format_of(content: bytes) -> str | None:
    """Return "text", or None for what is none."""
    return None if problem(content) else "text"


def essence(content: bytes) -> bytes:
    """Return the words that are new in a text: see `own_words`."""
    return own_words(content)


def spec(
    offered: Sequence[Sequence[Any]], size: tuple[int, int] | None, folder: str | PathLike[str]
) -> Any | None:
    """Return the spec of texts, string [None]; see `Kind.spec`."""
    fitting = (
        one[0]
        for one in offered
        if len(one) == 1 and one[0].dtype.name == "string" and one[0].shape.rank in (1, None)
    )
    found = next(fitting, None)
    return None if found is None else type(found)([None], found.dtype, name="texts")


def takes(shape: tuple[int, ...], unused: tuple[float, float], tokenizer: Any) -> Input | None:
    """Return the input of a network with this tokenizer; None for a network without one."""
    return None if tokenizer is None else text.of_tokenizer(tokenizer)


def restore(values: Mapping[str, Any], apart: bytes = b"") -> Input:
    """Return the input of the digest and the length in `values`.

    Args:
        apart: the tokenizer's graph; without it, nothing can be decoded.

    Raises:
        ValueError: one of them is not allowed.
    """
    digest, unit = values.get("tokenizer"), values.get("text_unit")
    if not isinstance(digest, str) or len(digest) != 64:
        raise ValueError(f"has tokenizer {str(digest)[:200]}; expected its SHA-256")
    numbers: list[int] = []
    for name in ("text_length", "text_parts"):
        value = values.get(name)
        if type(value) is not int or value < 1:
            raise ValueError(f"has {name} {str(value)[:200]}; expected a number above 0")
        numbers.append(value)
    if not isinstance(unit, str):
        raise ValueError(f"has text_unit {str(unit)[:200]}; expected what a text is cut into")
    if not apart:
        return text.TextInput(digest, numbers[0], numbers[1], unit)
    return text.of_graph(digest, numbers[0], numbers[1], unit, apart)


def plain() -> Input | None:
    """Return None: which words count is learnt from the training texts."""
    return None


def fit_plain(contents: Sequence[bytes], train: int, seed: int) -> np.ndarray:
    """Return words and letters of texts, weighted; see `weigh_words`."""
    texts = [content.decode("utf-8", "replace") for content in contents]
    return text.weigh_words(texts, train, seed)


def alter(content: Any, seed: Any, names: tuple[str, ...]) -> Any:
    """Return a text without some of its words, or with its sentences in another order."""
    return text.alter_text(content, seed, names)


def for_app(takes: Input, contents: Iterable[bytes]) -> AppInput:
    """Return the vocabulary and the steps by which an app makes numbers of texts.

    Raises:
        ServingError: the tokenizer of the network is of another kind.
    """
    assert isinstance(takes, text.TextInput)
    return text.for_app(takes, contents)


def said_of_read(contents: Sequence[bytes], takes: Input) -> list[str]:
    """Return notes on the share of texts that are longer than what is read, and on markup."""
    assert isinstance(takes, text.TextInput)
    notes = said_of_markup(contents)
    count = text.count_cut(contents, takes)
    if not count:
        return notes
    share = f"{100 * count / len(contents):.0f} % of the texts"
    return [
        *notes,
        f"{share} are longer than the {takes.length:,} {takes.unit} that are read of a text: what "
        "follows does not count. --length reads more, where the network can.",
    ]
