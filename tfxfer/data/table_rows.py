"""The rows of a table in a file, as cells."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from tfxfer.data.csv_text import decode_table, split_table
from tfxfer.data.duplicates import shown
from tfxfer.data.table_columns import CALLED, names_files, simplify
from tfxfer.errors import DataError
from tfxfer.files import read_regular
from tfxfer.inputs import KINDS
from tfxfer.limits import MOST_TABLE_BYTES
from tfxfer.tasks.cells import LONGEST_SHOWN

DELIMITERS = ",;\t|"
SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n')  # a first line that only Excel understands
SAMPLE = 64 * 1024  # characters of the first row that are used to find the delimiter
LONGEST_CELL = 131_072  # characters of a cell that is no example


def read_rows(
    path: Path, source: str, *, both: bool
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return (the number of its last line, the cells) for each row that is not empty, and notes.

    Args:
        both: whether the first row must name both columns, and not only that of the examples.

    Raises:
        DataError: the file or its text can't be read as a table.
    """
    try:
        text, notes = decode_table(read_regular(path, MOST_TABLE_BYTES), source)
    except OSError as error:
        raise DataError(f"{source} can't be read: {error.strerror or error}.") from error
    if said_by_excel := SEPARATOR.match(text):
        delimiter = said_by_excel[1]
        text = "\n" + text[said_by_excel.end() :]  # so that line numbers stay the same
    else:
        delimiter = _delimiter(text, both)
    table, said = split_table(text, delimiter, source)
    return table, [*notes, *said]


def align_rows(table: Sequence[tuple[int, list[str]]], source: str) -> None:
    """Remove empty cells at the end of rows, such as after a delimiter that the header lacks.

    Raises:
        DataError: there is no row below the header, or a row has more or fewer cells.
    """
    count = len(table[0][1]) if table else 0
    for _, cells in table:
        while len(cells) > count and not cells[-1]:
            cells.pop()
    if len(table) < 2:
        raise DataError(f"{source}: no rows below the header.")
    if odd := [str(line) for line, cells in table[1:] if len(cells) != count]:
        raise DataError(
            f"{source}: {count} columns are named, but these lines have more or fewer: "
            f"{shown(odd)}."
        )


def check_lengths(
    rows: Sequence[dict[str, str]], lines: Sequence[int], source: str, held: Sequence[str]
) -> None:
    """Check that only cells that are examples are long.

    Args:
        held: names of the columns that hold examples.

    Raises:
        DataError: another cell is too long.
    """
    for line, row in zip(lines, rows, strict=True):
        for name, cell in row.items():
            if len(cell) > LONGEST_CELL and name not in held:
                raise DataError(
                    f"{source}: the cell of the column {name[:LONGEST_SHOWN]} in line {line} has "
                    f"{len(cell):,} characters; expected at most {LONGEST_CELL:,}."
                )


def _delimiter(text: str, both: bool) -> str:
    """Return the character that separates the cells.

    It is the one with which the first row holds the names of the columns, or else the one with
    which it has most cells. `csv.Sniffer` takes minutes for texts with many quotes.

    Args:
        both: whether there must be a column label, and not only one of examples.
    """
    labels = {simplify(word) for word in CALLED["label"]}
    counts = []
    for delimiter in DELIMITERS:
        first = next(csv.reader(io.StringIO(text[:SAMPLE], newline=""), delimiter=delimiter), [])
        counts.append(len(first))
        cells = {cell.strip().casefold() for cell in first}
        holds = any(kind.CELLS and cells & set(kind.CELLS[-1]) for kind in KINDS.values())
        named = not both or labels & {simplify(cell) for cell in first}
        if named and (holds or names_files(first)):
            return delimiter
    return DELIMITERS[counts.index(max(counts))]
