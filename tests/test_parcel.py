"""What workers send each other: every type that may go, and none that may not."""

import contextlib
import datetime
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tfxfer.distribute import parcel


@dataclass(frozen=True)
class Head:
    name: str
    kernel: np.ndarray
    widths: tuple[int, ...]


def same(one, other) -> bool:
    """Whether both are equal, and of the same types all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Head):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return one == other or (one != one and other != other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        0.1,
        math.inf,
        -math.inf,
        math.nan,
        "text\n\ud7ff",
        (1, (2.5, "three"), []),
        {"tuple": (1,), "array": None, "dict": {"": [{}]}},
        np.arange(6, dtype=np.int16).reshape(2, 3).T,
        np.array([], np.float16),
        np.float32(1.5),
        np.bool_(True),
        [np.zeros(3), {"a": np.ones((2, 2), bool)}, np.array(7)],
        Head("linear", np.eye(3, dtype=np.float32), (1, 2)),
    ],
    ids=repr,
)
def test_a_value_arrives_as_it_was(value):
    content = parcel.pack(value, [Head])
    assert same(parcel.unpack(content + b"\0\0\0", [Head]), value)


@pytest.mark.parametrize(
    "value",
    [
        Path("x"),
        datetime.date(2026, 1, 1),
        {1: 2},
        {"a": {1, 2}},
        b"bytes",
        np.array([object()]),
        np.array(["text"]),
        print,
        Head("linear", np.eye(3), (1, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_another_type_is_refused_by_the_sender(value):
    with pytest.raises(TypeError):
        parcel.pack([value])


def test_a_dataclass_that_is_not_known_is_refused_by_the_receiver():
    with pytest.raises(ValueError, match="Head"):
        parcel.unpack(parcel.pack(Head("a", np.eye(1), (1,)), [Head]))


def test_no_pickle_is_read():
    bomb = pickle.dumps(print)
    with pytest.raises(ValueError):
        parcel.unpack(bomb)
    text = b'{"array": ["|O", [1]]}'
    with pytest.raises(ValueError):
        parcel.unpack(len(text).to_bytes(8, "little") + text + np.array([object()]).dumps())


def test_damaged_bytes_are_a_value_error():
    content = parcel.pack({"a": (1, [np.arange(5)]), "b": Head("x", np.eye(2), (1,))}, [Head])
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with contextlib.suppress(ValueError):
            parcel.unpack(bytes(damaged[: rng.integers(1, len(damaged) + 1)]), [Head])
