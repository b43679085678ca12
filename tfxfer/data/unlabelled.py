"""Examples without labels, such as those to predict: files, folders of them, and rows of tables.

A row of a table is an example itself, such as a text, or names a file.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from tfxfer.data.duplicates import shown
from tfxfer.data.folder import files_in
from tfxfer.data.layout import READABLE_TABLES
from tfxfer.data.named_files import FilesBelow
from tfxfer.data.table_columns import (
    find_columns_by_cells,
    find_held_unless_files,
    name_columns,
    names_files,
)
from tfxfer.data.table_files import check_files
from tfxfer.data.table_rows import align_rows, read_rows
from tfxfer.errors import DataError, ImageError, TfxferError
from tfxfer.files import read_regular
from tfxfer.inputs import Kind
from tfxfer.tasks.cells import LONGEST_SHOWN

LOG = logging.getLogger(__name__)


class Unlabelled(NamedTuple):
    """Examples without labels.

    files: a name for each: its path, or TABLE:LINE for a row of a table, with the number of the
        row's last line.
    read: a function from the index of an example to its content.
    in_table: whether some of them are rows of tables, and not files.
    given: the cells of each example's row by the names of the columns, without those that hold the
        example itself; None where not all examples are of tables with the same columns.
    """

    files: list[str]
    read: Callable[[int], bytes]
    in_table: bool
    given: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of one table.

    files: a name for each: the path of its file, or TABLE:LINE.
    contents: the examples themselves; None where the rows name files.
    given: see `Unlabelled`.
    """

    files: list[str]
    contents: list[str] | None
    given: list[dict[str, str]]


def find_unlabelled(paths: Iterable[str | PathLike[str]], kind: Kind) -> Unlabelled:
    """List examples in files, in folders and in tables.

    Files that are ignored, and guesses at how files are read, are logged.

    Raises:
        DataError: a path does not exist, there is no example at all, or a table can't be read.
    """
    files: list[str] = []
    contents: dict[int, bytes] = {}
    given: list[dict[str, str]] = []
    for given_path in paths:
        path = fspath(given_path)
        if not (path.lower().endswith(READABLE_TABLES) and Path(path).is_file()):
            files += files_in(path, kind)
            continue
        rows = read_unlabelled(Path(path), path, kind)
        for place, cell in enumerate(rows.contents or (), len(files)):
            contents[place] = cell.encode("utf-8", "surrogateescape")
        files += rows.files
        given += rows.given
    if not files:
        raise DataError(
            f"there is no {kind.ONE} to predict. Expected {kind.MANY}, or folders of them."
        )

    def read(i: int) -> bytes:
        return contents[i] if i in contents else read_regular(files[i])

    read_one, said = kind.read_together(read, files)
    for note in said:
        LOG.warning(note)
    same = len(given) == len(files) and all(row.keys() == given[0].keys() for row in given)
    if given and not same:
        LOG.info("The answers have no columns of the tables, since not all inputs have the same.")
        return Unlabelled(files, read_one, bool(contents))
    # Tables may have the same columns in another order, and answers have one order.
    in_order = [{name: row[name] for name in given[0]} for row in given]
    return Unlabelled(files, read_one, bool(contents), in_order or None)


def check_any(found: Unlabelled, kind: Kind) -> None:
    """Check that the first bytes of some example are not those of another kind.

    The first good example ends the search, so of many good ones only one is read.

    Raises:
        ImageError: no example is of the kind.
    """
    problems = []
    for i, file in enumerate(found.files):
        if not found.in_table and not os.path.isfile(file):
            return  # what a pipe holds can be read only once
        try:
            problem = kind.problem(kind.readable(found.read(i), file))
        except ImageError as error:
            problems.append(str(error))
            continue
        except (OSError, TfxferError):  # said with all others when they are predicted
            return
        if not problem:
            return
        problems.append(f"{file} {problem}")
    raise ImageError(f"no file can be predicted: {shown(problems, 10)}.")


def read_unlabelled(path: Path, source: str, kind: Kind) -> Rows:
    """Read the rows of a table in which labels are not needed.

    Args:
        source: the table as it was given, for messages.

    Raises:
        DataError: the file can't be read as a table, has no column of such examples or of files,
            or names files that do not exist.
    """
    table, notes = read_rows(path, source, both=False)
    header = table[0][1] if table else []
    held = find_held_unless_files(table, kind, source)
    if held is not None and held.kind is kind:
        align_rows(table, source)
        columns = [cell.casefold() for cell in header]
        lines = [line for line, _ in table[1:]]
        for note in (*notes, f"Read as {kind.NAME}: {shown(held.columns)}."):
            LOG.info(f"{source}: {note}")
        rows = [dict(zip(columns, row, strict=True)) for _, row in table[1:]]
        return Rows(
            [f"{path}:{int(line)}" for line in lines],
            [held.content(row) for row in rows],
            cells_given(table, leave_out=held.columns),
        )
    by_cells: dict[str, str] = {}
    below = FilesBelow(path.parent)
    if not names_files(header):
        by_cells = find_columns_by_cells(table, below, kind, labels=(), source=source, fewest=1)
        by_cells.pop("label", None)
    columns, said = name_columns(header, source, (), or_label=False, texts=None, by_cells=by_cells)
    if "path" not in columns:
        found = shown([cell[:LONGEST_SHOWN] for cell in header], 50) or "nothing"
        what, expected = f"names files of {kind.MANY}", "a column path, for the names of the files"
        if kind.CELLS:
            what = f"holds {kind.MANY} or names files of them"
            expected = f"one of the names {shown([*kind.CELLS[-1], 'path'], 20)}"
        raise DataError(
            f"{source}: no column {what}. Expected a first row with {expected}. Found: {found}."
        )
    align_rows(table, source)
    place = columns.index("path")
    if odd := [str(line) for line, row in table[1:] if not row[place]]:
        raise DataError(f"{source}: path is empty in these lines: {shown(odd)}.")
    files, said_of_files = check_files(
        path,
        source,
        [line for line, _ in table[1:]],
        files=[row[place] for _, row in table[1:]],
        kind=kind,
        texts=None,
        below=below,
    )
    for note in (*notes, *said, *said_of_files):
        LOG.info(f"{source}: {note}")
    return Rows([str(path.parent / file) for file in files], None, cells_given(table))


def cells_given(
    table: Sequence[tuple[int, list[str]]], leave_out: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the cells of each row by the names of their columns, as these are written.

    Columns without a name are left out. A name that is there again gets a number.

    Args:
        leave_out: names of columns to leave out, in lower case.
    """
    names: dict[str, int] = {}
    for place, name in enumerate(table[0][1]):
        if name and name.casefold() not in leave_out:
            names[free_name(name, names)] = place
    return [{name: row[place] for name, place in names.items()} for _, row in table[1:]]


def free_name(name: str, taken: Mapping[str, object]) -> str:
    """Return a name, with a number behind it where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
