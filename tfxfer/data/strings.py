"""Examples that a program has as strings, such as texts: in lists, arrays and series.

A kind of example whose `CELLS` has names is made of strings; of the others, strings are no examples
but names of files.
"""

from typing import Any

import numpy as np

from tfxfer.data.cells import look_like_files
from tfxfer.data.numbers import check_mask
from tfxfer.inputs import KINDS, Kind
from tfxfer.tasks.cells import LONGEST_SHOWN

HOLDER = next(kind for kind in KINDS.values() if kind.CELLS)
HEAD = 64  # bytes that show what a file is


def strings_in(values: Any) -> list[Any] | None:
    """Return values as a list if they are examples as strings.

    Some of them may be something else, such as None: `as_content` refuses these.

    Args:
        values: a list, an array, or a series of a data frame; or anything else.

    Returns:
        None if there is no string, or if the strings are encoded images or names of files.
    """
    if not isinstance(values, list | tuple):
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "USTO":
            return None
        values = array.tolist()
    strings = [value for value in values if isinstance(value, str | bytes)]
    if not strings or kind_of(strings[0]) is not HOLDER or look_like_files(strings):
        return None
    return list(values)


def kind_of(string: str | bytes) -> Kind:
    """Return the kind of example that a string is: the one whose files begin so, or a text."""
    if isinstance(string, str):
        return HOLDER
    return next((kind for kind in KINDS.values() if kind.begins_one(string[:HEAD])), HOLDER)


def as_content(value: Any, place: str) -> bytes:
    """Return a string as the content of a file.

    Args:
        place: the position of the string, for errors.

    Raises:
        ValueError: it is no string, or an empty one.
    """
    if not isinstance(value, str | bytes):
        raise ValueError(
            f"Expected a {HOLDER.NAME} at each position, as str or bytes. Received: "
            f"{repr(value)[:LONGEST_SHOWN]}, a {type(value).__name__}, at position {place}. Leave "
            "it out, together with its label."
        )
    # Half a surrogate pair is no character, and has no place in UTF-8.
    content = bytes(value) if isinstance(value, bytes) else value.encode("utf-8", "replace")
    if not content.strip():
        raise ValueError(
            f"Expected a {HOLDER.NAME} at each position. Received: an empty one at position "
            f"{place}. Leave it out, together with its label."
        )
    return content


def contents_of(values: Any) -> list[bytes]:
    """Return examples as the contents of files.

    Args:
        values: as for `strings_in`.

    Raises:
        ValueError: they are no strings, or one of them is empty or masked.
    """
    check_mask(values, f"{HOLDER.NAME}s", "Leave these out, together with their labels.")
    strings = strings_in(values)
    if strings is None:
        received = type(values).__name__
        if (shape := getattr(values, "shape", None)) is not None:
            received += f" of shape {tuple(shape)}"
        raise ValueError(
            f"Expected a list, an array or a series of {HOLDER.NAME}s, as str or bytes. Received: "
            f"a {received}. Give names of files as pathlib.Path."
        )
    return [as_content(value, str(i)) for i, value in enumerate(strings)]
