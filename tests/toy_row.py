"""A kind of example in one file: a row of eight numbers, as JSON. See test_kinds.py."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfxfer.inputs import AppInput, Files, Input
from tfxfer.inputs.defaults import (  # noqa: F401
    alter,
    augment,
    can_hide_damage,
    essence,
    excerpt,
    find_damage,
    fit_plain,
    mirror,
    parts,
    preview,
    read_together,
    said_of_read,
)

NAME = "row"
ONE, MANY = "row", "rows"
CLASSIFIER = "A row classifier"
TAG = "tabular-classification"
FILE = "row.json"
VALUES = "raw numbers"
SIMILAR = 0.9
TWINS = "two rows of one person"
ELSEWHERE = "another place or day"
WIDTH = 8
ENDINGS: Set[str] = {".json"}
UNREAD: Set[str] = {".xml"}
OTHERS: Set[str] = {".jpg", ".png"}
BESIDE: Set[str] = set()
CELLS: tuple[tuple[str, ...], ...] = ()
NETWORK = "efficientnet-lite0"
PLAIN = "raw_pixels"
FEATURE = "row/encoded"
DAMAGE_KEY: dict[str, Any] | None = None
AUGMENTATIONS: tuple[str, ...] = ()
AS_NEW: tuple[str, ...] = ()
ALTERS_CONTENTS = False
ALTERATION = 0
MIRROR: str | None = None


@dataclass(frozen=True)
class Row:
    """Eight numbers."""

    KIND: ClassVar[str] = NAME
    TOGETHER: ClassVar[int] = 1
    padded: ClassVar[int] = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (WIDTH,)

    def decode(self, content: Any) -> tf.Tensor:
        words = tf.strings.split(tf.strings.regex_replace(content, r"[\[\]\s]", ""), ",")
        return tf.ensure_shape(tf.strings.to_number(words), self.shape)

    def decode_many(self, contents: Any) -> tf.Tensor:
        return tf.map_fn(self.decode, contents, fn_output_signature=tf.float32)

    def decode_unless_large(self, content: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return self.decode(content), tf.constant(False)

    def pack(self, decoded: tf.Tensor) -> tf.Tensor:
        return decoded

    def unpack(self, packed: tf.Tensor) -> tf.Tensor:
        return packed

    def fingerprint(self) -> dict[str, Any]:
        return {"row": WIDTH}

    def settings(self) -> dict[str, Any]:
        return {}

    def apart(self) -> bytes:
        return b""

    def described(self) -> str:
        return f"rows of {WIDTH} numbers"

    def sample(self) -> bytes:
        return json.dumps([0.0] * WIDTH).encode()


def begins_one(head: bytes) -> bool:
    return head.lstrip()[:1] == b"["


def formats() -> str:
    return "json"


def said_of_unread(endings: Set[str]) -> str:
    return " Rows are not read from .xml." if UNREAD & endings else ""


def readable(content: bytes, file: str) -> bytes:
    return content


def problem(content: bytes) -> str | None:
    try:
        row = json.loads(content)
    except ValueError:
        return "is no JSON"
    return None if isinstance(row, list) and len(row) == WIDTH else f"is no list of {WIDTH} numbers"


def format_of(content: bytes) -> str | None:
    return "JSON" if begins_one(content) else None


def spec(
    offered: Sequence[Sequence[Any]], size: tuple[int, int] | None, folder: str | PathLike[str]
) -> Any | None:
    wanted = tf.TensorSpec((None, WIDTH), tf.float32)
    fits = any(len(one) == 1 and wanted.is_compatible_with(one[0]) for one in offered)
    return tf.TensorSpec((None, WIDTH), tf.float32, name="rows") if fits else None


def takes(shape: tuple[int, ...], value_range: tuple[float, float], tokenizer: Any) -> Input | None:
    return Row() if shape == (WIDTH,) else None


def restore(values: Mapping[str, Any], apart: bytes = b"") -> Input:
    return Row()


def plain() -> Input:
    return Row()


def explain(
    answers: Callable[[np.ndarray], np.ndarray], takes: Input, content: bytes, column: int
) -> np.ndarray | None:
    """Leave out one number after the other."""
    decoded = np.asarray(takes.decode(content))
    without = decoded * (1 - np.eye(WIDTH, dtype=np.float32))
    found = answers(np.concatenate([decoded[None], without]))[:, column]
    return np.maximum(found[0] - found[1:], 0)


def find_odd(examples: Files, plain: Any) -> list[tuple[int, str]]:
    rows = np.asarray(plain[np.arange(len(examples.files))])
    return [(int(i), "all zeros") for i in np.flatnonzero(~rows.any(1))]


def said_of_odd(examples: Files, odd: Sequence[tuple[int, str]]) -> list[str]:
    return [f"{len(odd)} rows are all zeros."] if odd else []


def for_app(takes: Input, contents: Iterable[bytes]) -> AppInput:
    return AppInput(names=("row",), dtype="float32", files={}, note="", calibrated=True)
