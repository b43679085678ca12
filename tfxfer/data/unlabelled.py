"""Examples without labels, such as those to predict: files, folders of them, and rows of tables."""

import logging
from collections.abc import Callable, Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from tfxfer.data.cells import find_held
from tfxfer.data.duplicates import shown
from tfxfer.data.folder import files_in
from tfxfer.data.table import align_rows, read_rows
from tfxfer.errors import DataError
from tfxfer.files import read_regular
from tfxfer.inputs import Kind
from tfxfer.tasks.cells import LONGEST_SHOWN

LOG = logging.getLogger(__name__)
TABLES = (".csv", ".tsv")


class Unlabelled(NamedTuple):
    """Examples without labels.

    files: a name for each: its path, or TABLE:LINE for a row of a table, with the number of the
        row's last line.
    read: a function from the index of an example to its content.
    in_table: whether some of them are rows of tables, and not files.
    """

    files: list[str]
    read: Callable[[int], bytes]
    in_table: bool


def find_unlabelled(paths: Iterable[str | PathLike[str]], kind: Kind) -> Unlabelled:
    """List examples in files, in folders and, where the kind has `CELLS`, in tables.

    Files that are ignored, and guesses at how files are read, are logged.

    Raises:
        DataError: a path does not exist, there is no example at all, or a table can't be read.
    """
    files: list[str] = []
    contents: dict[int, bytes] = {}
    for given in paths:
        path = fspath(given)
        if not (kind.CELLS and path.lower().endswith(TABLES) and Path(path).is_file()):
            files += files_in(path, kind)
            continue
        for line, cell in read_cells(Path(path), path, kind):
            contents[len(files)] = cell.encode("utf-8", "surrogateescape")
            files.append(f"{path}:{line}")
    if not files:
        raise DataError(
            f"there is no {kind.ONE} to predict. Expected {kind.MANY}, or folders of them."
        )

    def read(i: int) -> bytes:
        return contents[i] if i in contents else read_regular(files[i])

    read_one, said = kind.read_together(read, files)
    for note in said:
        LOG.warning(note)
    return Unlabelled(files, read_one, bool(contents))


def read_cells(path: Path, source: str, kind: Kind) -> list[tuple[int, str]]:
    """Return (the number of its last line, the example) for each row of a table.

    Raises:
        DataError: the file can't be read as a table, or has no column of such examples.
    """
    table, notes = read_rows(path, source, both=False)
    header = table[0][1] if table else []
    held = find_held(header, source)
    if held is None or held.kind is not kind:
        found = shown([cell[:LONGEST_SHOWN] for cell in header], 50) or "nothing"
        raise DataError(
            f"{source}: no column holds a {kind.NAME}. Expected a first row with one of the names "
            f"{shown(kind.CELLS[-1], 20)}. Found: {found}."
        )
    align_rows(table, source)
    names = [cell.casefold() for cell in header]
    for note in (*notes, f"Read as {kind.NAME}: {shown(held.columns)}."):
        LOG.info(f"{source}: {note}")
    return [(line, held.content(dict(zip(names, row, strict=True)))) for line, row in table[1:]]
