"""Which files without a label to label next: those whose label teaches most.

A file is worth a label where the model wavers between two answers (a small margin, Scheffer 2001),
or where it looks unlike everything that the model knows. Of files that look nearly the same only
one is picked, since the label of one also tells that of the others.
"""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfxfer.data.strings import HOLDER
from tfxfer.errors import ServingError
from tfxfer.explore.seen import Seen, look_at
from tfxfer.files import replaced
from tfxfer.safety.names import csv_cell
from tfxfer.tasks.unsure import Unsure

# Cosine of the centred features of two files, above which one of them is enough.
SAME = 0.9
# The model wavers where its answer is at most this many times as probable as the other one.
CLOSE = 4
SURE = "quite sure, so a label teaches little"


class Pick(NamedTuple):
    """A file that should be labelled.

    why: "unlike every class", what the two answers are, such as "between two classes", or `SURE`.
    predicted, second: the answer, and the one that is nearest to it.
    margin: how far the model is from the second answer; see `Unsure`.
    cell: the example itself, where some examples are rows of tables; None where all are files.
    """

    file: str
    why: str
    predicted: str
    probability: float
    second: str
    probability_2: float
    margin: float
    cell: str | None = None


def pick_next(
    folder: str | os.PathLike[str],
    paths: Iterable[str | os.PathLike[str]],
    *,
    count: int = 50,
    **options: Any,
) -> list[Pick]:
    """Return the files that are most worth a label, the most valuable first.

    Args:
        folder: a finished run that predicts classes or labels.
        paths: files and folders without labels.
        count: how many files, at most.
        options: `batch_size`, `trust` and `progress`, see `look_at`.

    Raises:
        ServingError: the run's answers don't say how sure they are.
        The errors of `look_at`.
    """
    seen = look_at(folder, paths, **options)
    unsure = seen.task.unsure(seen.predictions, seen.classes, seen.decision)
    if unsure is None:
        raise ServingError(
            f"{os.fspath(folder)} has answers of the kind {seen.task.NAME}, which don't say how "
            "sure they are; which files to label next is told for classes and labels only."
        )
    strange = np.zeros(len(unsure.margins), bool) if seen.strange is None else seen.strange
    ranked = np.lexsort([unsure.margins, ~strange])
    return [
        Pick(
            file=seen.files[i],
            why=reason(unsure, i, strange=bool(strange[i])),
            predicted=unsure.first[i],
            probability=float(unsure.probabilities[i, 0]),
            second=unsure.second[i],
            probability_2=float(unsure.probabilities[i, 1]),
            margin=float(unsure.margins[i]),
            cell=cell_of(seen, i),
        )
        for i in without_repeats(seen, alternate(ranked, strange), count)
    ]


def reason(unsure: Unsure, i: int, *, strange: bool) -> str:
    """Return why a file is picked; the last ones of a long list are picked for want of better."""
    first, second = unsure.probabilities[i]
    if strange:
        return "unlike every class"
    return unsure.why[i] if CLOSE * second >= first else SURE


def cell_of(seen: Seen, i: int) -> str | None:
    """Return an example as a cell of a table; None where a table can name its file."""
    if seen.read is None:
        return None
    content = seen.kind.readable(seen.read(i), seen.files[i])
    return content.decode("utf-8", "surrogateescape")


def alternate(ranked: np.ndarray, strange: np.ndarray) -> list[int]:
    """Return the positions so that strange files and the others take turns, each in their order.

    What is strange may be worth nothing, such as a photo of a finger, so it never fills the list.
    """
    odd = [int(i) for i in ranked if strange[i]]
    usual = [int(i) for i in ranked if not strange[i]]
    both = [i for pair in zip(usual, odd, strict=False) for i in pair]
    return both + usual[len(odd) :] + odd[len(usual) :]


def without_repeats(seen: Seen, order: Sequence[int], count: int) -> list[int]:
    """Return the first `count` positions of which no two look nearly the same."""
    centred = seen.vectors - seen.vectors.mean(0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = centred / np.where(length > 0, length, np.inf)
    picked: list[int] = []
    for i in order:
        if len(picked) == count:
            break
        if not picked or (centred[picked] @ centred[i]).max() < SAME:
            picked.append(i)
    return picked


def from_table(file: str, to: str | os.PathLike[str] | None) -> str:
    """Return the path of a file as it must stand in a table, which is relative to the table."""
    if to is None or os.path.isabs(file):
        return file
    return os.path.relpath(file, os.path.dirname(os.path.abspath(to)))


def write_picks(
    picks: Sequence[Pick],
    to: str | os.PathLike[str] | None,
    label_columns: Sequence[str] = ("label",),
) -> None:
    """Write a CSV table with empty columns for the labels, to a file or to standard output.

    Filled in, it is a table for `tfxfer run`. Examples that come from tables stand in it as they
    are there, with their place in the column row.

    Args:
        label_columns: the names of these columns; see `Task.label_columns`.

    Raises:
        OSError: the file can't be written.
    """
    in_cells = any(one.cell is not None for one in picks)
    place = ("row", HOLDER.CELLS[-1][0]) if in_cells else ("path",)
    header = (*place, *map(csv_cell, label_columns), *Pick._fields[1:-1])
    rows = [
        (
            csv_cell(one.file if in_cells else from_table(one.file, to)),
            *([csv_cell(one.cell or "")] if in_cells else []),
            *[""] * len(label_columns),
            one.why,
            csv_cell(one.predicted),
            f"{one.probability:.6f}",
            csv_cell(one.second),
            f"{one.probability_2:.6f}",
            f"{one.margin:.6f}",
        )
        for one in picks
    ]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if to is None:
        print(text.getvalue(), end="", flush=True)
        return
    with replaced(to) as file:
        # Excel reads a file without this mark in an old code page.
        file.write(("\ufeff" + text.getvalue()).encode("utf-8", "surrogateescape"))
