"""Join the rows of a table that name one label each of the same file."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError
from tfxfer.tasks import multilabel
from tfxfer.tasks.written_lists import seems_list


class Joined(NamedTuple):
    """The labels of files that stand in several rows.

    labels: all labels of such a file, by the index of its first row.
    dropped: the index of its first row, by that of each of its other rows.
    """

    labels: dict[int, str]
    dropped: dict[int, int]


def join_rows(files: Sequence[str], labels: Sequence[str]) -> Joined:
    """Return the labels that the rows of each file have together, and the rows to leave out.

    The rows of a file that all have the same labels are not joined.

    Args:
        files: the path of each row.
        labels: the labels of each row, for the task multilabel.
    """
    joined = Joined({}, {})
    if any(map(seems_list, labels)):
        return joined  # an error names them when the labels are read
    rows: dict[str, list[int]] = {}
    for i, file in enumerate(files):
        rows.setdefault(os.path.normpath(file), []).append(i)
    between = multilabel.separator_of(labels)
    for own in rows.values():
        sets = [multilabel.labels_in(labels[i], between) or set() for i in own]
        if any(one != sets[0] for one in sets):
            joined.labels[own[0]] = json.dumps(sorted(set().union(*sets)))
            joined.dropped.update(dict.fromkeys(own[1:], own[0]))
    return joined


def check_same(
    joined: Joined,
    rows: Sequence[Mapping[str, str]],
    lines: Sequence[int],
    *,
    column: str,
    meant: Callable[[str], object],
    source: str,
) -> None:
    """Check that rows that are joined mean the same in a column.

    Args:
        meant: a function from a cell to its meaning, such as from "val" to "validation".

    Raises:
        DataError: they do not.
    """
    odd = [
        f"{rows[i]['path']} (lines {lines[first]} and {lines[i]})"
        for i, first in joined.dropped.items()
        if meant(rows[i][column]) != meant(rows[first][column])
    ]
    if odd:
        raise DataError(
            f"{source}: rows of the same file differ in the column {column}: {shown(odd)}. "
            "Expected the same in all of them."
        )
