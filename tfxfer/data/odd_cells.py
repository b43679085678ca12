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


def check_left_out(
    name: str, cells: Sequence[str], lines: Sequence[int], *, task: Task, source: str
) -> None:
    """Check that a column that holds no labels of a task does not nearly hold them.

    Raises:
        DataError: all but a few of its cells could be labels.
    """
    if odd := find_odd(cells, lambda cell: task.may_hold([cell])):
        what = "yes or no" if task is multilabel else f"{task.NOUN}s"
        said = said_of_odd(name, cells, lines, odd=odd, what=what)
        raise DataError(
            f"{source}: {said}. Correct or empty these cells; or say with --label which columns "
            "hold the labels."
        )


def notes_on_classes(
    name: str, cells: Sequence[str], lines: Sequence[int], *, source: str
) -> list[str]:
    """Return a note if a column of several is taken for classes, but nearly all are numbers.

    Raises:
        DataError: most of these numbers differ, so that they can't be classes.
    """
    odd = find_odd(cells, regress.is_number)
    numbers = [cell for i, cell in enumerate(cells) if i not in set(odd) and not is_empty(cell)]
    if not odd or columns.kind_of(numbers) != regress.NAME:
        return []
    said = said_of_odd(name, cells, lines, odd=odd, what="numbers")
    if 2 * len(set(numbers)) > len(numbers):
        raise DataError(
            f"{source}: {said}. Expected numbers alone, or the same few classes in many rows; "
            "correct or empty these cells."
        )
    return [f"Read as classes: {said}. If they are numbers, correct or empty these cells."]
