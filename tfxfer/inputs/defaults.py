"""Do what a kind of example does where it has nothing of its own; see `tfxfer.inputs.kind`.

A kind imports those functions from here that it does not define.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfxfer.inputs.input import Damage, Files, Input


def read_together(
    read: Callable[[int], bytes], files: Sequence[str]
) -> tuple[Callable[[int], bytes], list[str]]:
    """Return `read`: each file says itself how it is read."""
    return read, []


def essence(content: bytes) -> bytes:
    """Return the content: only examples of the same bytes are copies."""
    return content


def can_hide_damage(content: bytes) -> bool:
    """Return False: `problem` finds all damage."""
    return False


def find_damage(content: bytes) -> Damage | None:
    """Return None."""
    return None


def fit_plain(contents: Sequence[bytes], train: int, seed: int) -> np.ndarray:
    """Raise: a kind that has a `plain` learns nothing."""
    raise NotImplementedError


def augment(batch: Any, seeds: Any, names: tuple[str, ...]) -> Any:
    """Return the examples as they are: there are no `AUGMENTATIONS`."""
    return batch


def alter(content: Any, seed: Any, names: tuple[str, ...]) -> Any:
    """Return the content as it is: augmentations alter decoded examples."""
    return content


def mirror(batch: np.ndarray) -> np.ndarray:
    """Raise: there is no `MIRROR`."""
    raise NotImplementedError


def said_of_read(contents: Sequence[bytes], takes: Input) -> list[str]:
    """Return nothing: all of an example is read."""
    return []


def preview(content: bytes, weight: np.ndarray | None = None) -> bytes | None:
    """Return None: there is no picture of an example."""
    return None


def excerpt(content: bytes) -> str:
    """Return "": an example has no text to show."""
    return ""


def parts(content: bytes) -> list[str]:
    """Return nothing: `explain` leaves out places and not words."""
    return []


def find_odd(examples: Files, plain: Any) -> list[tuple[int, str]]:
    """Return nothing: no example looks broken."""
    return []


def said_of_odd(examples: Files, odd: Sequence[tuple[int, str]]) -> list[str]:
    """Return nothing."""
    return []
