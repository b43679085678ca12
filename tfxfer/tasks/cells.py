"""Labels that stand in several columns of a table, as one text for each example.

Data comes with one text for each example. A class is that text itself. Where an example has a cell
in each of several columns, the text holds all cells, with a character between them that no table
holds.
"""

from collections.abc import Sequence

import numpy as np

BETWEEN = "\x1f"  # the unit separator of ASCII
# What programs write into a cell that says nothing.
NOTHING = frozenset({"", "nan", "na", "n/a", "null"})
LONGEST_SHOWN = 60  # characters of a cell in a message


class LabelError(ValueError):
    """A label is none of its kind.

    Attributes:
        index: its place among the labels.
    """

    def __init__(self, text: str, index: int):
        super().__init__(text)
        self.index = index


def join_cells(cells: Sequence[str]) -> str:
    """Return the cells of one example as one text."""
    return BETWEEN + BETWEEN.join(cells)


def split_cells(text: str) -> list[str] | None:
    """Return the cells of one example; None where the text is a label by itself."""
    return text[1:].split(BETWEEN) if text.startswith(BETWEEN) else None


def is_empty(cell: str) -> bool:
    """Whether a cell says nothing."""
    return cell.strip().casefold() in NOTHING


def texts_of(targets: np.ndarray) -> list[str]:
    """Return a text for each row of numbers, [n] or [n, K]; not-a-number is an empty cell."""
    rows = np.asarray(targets, np.float64).reshape(len(targets), -1).tolist()
    return [join_cells(["" if one != one else repr(one) for one in row]) for row in rows]


def texts(targets: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a text for each row of targets; see `texts_of`."""
    return texts_of(targets)


def holds(targets: np.ndarray, outputs: int) -> bool:
    """Whether an array has a column of floats for each output."""
    return targets.dtype.kind == "f" and targets.shape == (len(targets), outputs)


def has(outputs: int) -> bool:
    """Whether an answer can have that many outputs."""
    return outputs > 0


def label_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of labels: those of the outputs."""
    return tuple(names)
