"""Find cells that keep a column from being what nearly all its cells are."""

from collections.abc import Callable, Sequence

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError
from tfxfer.tasks import Task, columns, multilabel, regress
from tfxfer.tasks.cells import LONGEST_SHOWN, is_empty

NEARLY = 0.9  # share of cells from which on the others are taken for mistakes


def find_odd(cells: Sequence[str], fits: Callable[[str], bool]) -> list[int]:
    """Return the indices of the cells that do not fit; none where many do not.

    Empty cells are left out.
    """
    full = [i for i, cell in enumerate(cells) if not is_empty(cell)]
    odd = [i for i in full if not fits(cells[i])]
    return odd if len(full) - len(odd) >= NEARLY * len(full) else []


def said_of_odd(
    name: str, cells: Sequence[str], lines: Sequence[int], *, odd: Sequence[int], what: str
) -> str:
    """Return a sentence on the cells of a column that do not fit, without its full stop.

    Args:
        what: what the other cells are.
    """
    full = sum(not is_empty(cell) for cell in cells)
    listed = shown([f"{cells[i][:LONGEST_SHOWN]!r} (line {lines[i]})" for i in odd])
    return (
        f"{full - len(odd):,} of {full:,} cells of the column {name} are {what}, but not {listed}"
    )


def said_of_left_out(
    name: str, cells: Sequence[str], lines: Sequence[int], *, task: Task
) -> str | None:
    """Return a sentence on a column that nearly holds labels of a task, without its full stop.

    Return None if many of its cells are no such labels.
    """
    odd = find_odd(cells, lambda cell: task.may_hold([cell]))
    what = "yes or no" if task is multilabel else f"{task.NOUN}s"
    return said_of_odd(name, cells, lines, odd=odd, what=what) if odd else None


def check_not_measured(
    name: str, cells: Sequence[str], lines: Sequence[int], *, source: str
) -> None:
    """Check that a column that is taken for classes does not measure something.

    Raises:
        DataError: nearly all its cells are numbers, and most of these differ.
    """
    numbers = _numbers_in(cells)
    if (odd := _odd_among(numbers, cells)) and 2 * len(set(numbers)) > len(numbers):
        raise DataError(
            f"{source}: {said_of_odd(name, cells, lines, odd=odd, what='numbers')}. Expected "
            "numbers alone, or the same few classes in many rows; correct or empty these cells."
        )


def notes_on_classes(name: str, cells: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return a note if a column of several is taken for classes, but nearly all are numbers."""
    odd = _odd_among(_numbers_in(cells), cells)
    if not odd:
        return []
    said = said_of_odd(name, cells, lines, odd=odd, what="numbers")
    return [f"Read as classes: {said}. If they are numbers, correct or empty these cells."]


def _numbers_in(cells: Sequence[str]) -> list[str]:
    return list(filter(regress.is_number, cells))


def _odd_among(numbers: Sequence[str], cells: Sequence[str]) -> list[int]:
    """Return the indices of the cells that are no numbers; none if the numbers may be classes.

    Args:
        numbers: those among the cells.
    """
    odd = find_odd(cells, regress.is_number)
    return odd if odd and columns.kind_of(numbers) == regress.NAME else []
