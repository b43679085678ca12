"""Texts as a kind of example; see `tfxfer.inputs.kind`.

TensorFlow is loaded only by what needs it.
"""

from collections.abc import Mapping, Sequence, Set
from os import PathLike
from typing import Any

import numpy as np

from tfxfer.inputs import text
from tfxfer.inputs.input import Damage, Files, Input
from tfxfer.inputs.text.excerpt import excerpt
from tfxfer.inputs.text.read import problem, to_utf8
from tfxfer.inputs.text.words import explain
from tfxfer.inputs.text.words import first_words as parts

__all__ = [
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
    "TAG",
    "TWINS",
    "UNREAD",
    "VALUES",
    "augment",
    "begins_one",
    "can_hide_damage",
    "excerpt",
    "explain",
    "find_damage",
    "find_odd",
    "format_of",
    "formats",
    "mirror",
    "parts",
    "plain",
    "preview",
    "problem",
    "readable",
    "restore",
    "said_of_odd",
    "said_of_unread",
    "spec",
    "takes",
]

NAME = "text"
ONE, MANY = "text", "texts"
CLASSIFIER = "A text classifier"
TAG = "text-classification"
FILE = "text.txt"
VALUES = "counts of words"
TWINS = "a message and an answer that quotes it"
ELSEWHERE = "another author, source or time"
NETWORK = "minilm"
CELLS: Sequence[Sequence[str]] = (
    ("subject", "title", "headline"),
    ("text", "body", "message", "content", "review", "sentence", "comment", "tweet", "document"),
)
ENDINGS: Set[str] = frozenset({".txt"})
UNREAD: Set[str] = frozenset({".doc", ".docx", ".odt", ".pdf", ".rtf"})
OTHERS: Set[str] = frozenset()
BESIDE: Set[str] = frozenset()
FEATURE = "text"
DAMAGE_KEY: dict[str, Any] | None = None
AUGMENTATIONS: tuple[str, ...] = ()
MIRROR: str | None = None
readable = to_utf8


def begins_one(head: bytes) -> bool:
    """Return False: anything may be a text, so its ending must say so."""
    return False


def formats() -> str:
    """Return the formats that are read."""
    return "txt"


def said_of_unread(endings: Set[str]) -> str:
    """Return advice on documents; "" if there are none."""
    found = sorted(UNREAD & endings)
    return f" Documents are not read ({', '.join(found)}): save them as .txt." if found else ""


def format_of(content: bytes) -> str | None:
    """Return "text", or None for what is none."""
    return None if problem(content) else "text"


def can_hide_damage(content: bytes) -> bool:
    """Return False: bytes that are no text are found by `problem`."""
    return False


def find_damage(content: bytes) -> Damage | None:
    """Return None."""
    return None


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
    return None if tokenizer is None else text.of_graph(tokenizer, shape[-1])


def restore(values: Mapping[str, Any]) -> Input:
    """Return the input of the digest and the length in `values`, without its tokenizer.

    Raises:
        ValueError: one of them is not allowed.
    """
    digest, length = values.get("tokenizer"), values.get("text_length")
    if not isinstance(digest, str) or len(digest) != 64:
        raise ValueError(f"has tokenizer {str(digest)[:200]}; expected its SHA-256")
    if type(length) is not int or length < 1:
        raise ValueError(f"has text_length {str(length)[:200]}; expected a number of pieces")
    return text.TextInput(digest, length)


def plain() -> Input:
    """Return counts of words."""
    return text.WordCounts()


def augment(batch: Any, seeds: Any, names: tuple[str, ...]) -> Any:
    """Return the texts as they are."""
    return batch


def mirror(batch: np.ndarray) -> np.ndarray:
    """There is no mirror image of a text."""
    raise NotImplementedError


def preview(content: bytes, weight: np.ndarray | None = None) -> bytes | None:
    """Return None: a text is no picture."""
    return None


def find_odd(examples: Files, plain: Any) -> list[tuple[int, str]]:
    """Return nothing."""
    return []


def said_of_odd(examples: Files, odd: Sequence[tuple[int, str]]) -> list[str]:
    """Return nothing."""
    return []
