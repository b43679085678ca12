"""Join the rows of a table that name one label each of the same file."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError
from tfxfer.tasks import multilabel
from tfxfer.tasks.written_lists import seems_list


class Joined(NamedTuple):
    """The labels of files that stand in several rows.

    labels: all labels of such a file, by the index of its first row.
    dropped: the indices of its other rows.
    """

    labels: dict[int, str]
    dropped: set[int]


def join_rows(files: Sequence[str], labels: Sequence[str]) -> Joined:
    """Return what is left where each file has one row; rows that say the same are not joined.

    Args:
        files: the path of each row.
        labels: the labels of each row, for the task multilabel.
    """
    joined = Joined({}, set())
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
            joined.dropped.update(own[1:])
    return joined


def check_same(
    files: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    lines: Sequence[int],
    *,
    column: str,
    source: str,
) -> None:
    """Check that the rows of each file say the same in a column.

    Raises:
        DataError: they do not.
    """
    first: dict[str, int] = {}
    odd = []
    for i, file in enumerate(files):
        before = first.setdefault(os.path.normpath(file), i)
        if rows[i][column] != rows[before][column]:
            odd.append(f"{file} (lines {lines[before]} and {lines[i]})")
    if odd:
        raise DataError(
            f"{source}: rows of the same file differ in the column {column}: {shown(odd)}. "
            "Expected the same in all of them."
        )
