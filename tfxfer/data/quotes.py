"""Find rows of a table that a quote has swallowed.

Programs that write a table without quoting put a text that begins with a quote into it as it is.
Where a later text ends with a quote, all rows between the two are then one cell of several lines.
A text of several lines, such as a mail, looks the same: what tells the two apart is whether each of
the lines is like a row of the table.
"""

import csv
from collections.abc import Sequence
from typing import NamedTuple

from tfxfer.tasks.cells import is_empty
from tfxfer.tasks.regress import is_number

NUMBERS, WORDS, ANY = "numbers", "words", "any"  # what the cells of a column are like
# With more different numbers than this, a column holds measured values, of which others may come.
MOST_KNOWN = 10
NEARLY = 0.8  # share of the lines of a row that must be like rows


class Row(NamedTuple):
    """A row of a table.

    begins, ends: the numbers of its first and last line, from 1 on.
    cells: without the blanks around them.
    number: that of the row in a spreadsheet, from 1 on, with empty rows; 0 if it is not known.
    """

    begins: int
    ends: int
    cells: list[str]
    number: int = 0

    @property
    def several(self) -> bool:
        """Whether it has more than one line."""
        return self.ends > self.begins


class Swallowed(NamedTuple):
    """What `find_swallowed` found.

    rows: the rows of which nearly each line seems to be a row.
    alone: the whole table with each line as a row; None where some line has too many or too few
        cells for that, or where some cells do have several lines.
    """

    rows: list[Row]
    alone: list[Row] | None


def find_swallowed(rows: Sequence[Row], lines: Sequence[str], delimiter: str) -> Swallowed:
    """Return the rows in which a quote has swallowed others.

    Nearly each line of such a row has as many cells as the header, and they are like those of the
    other rows: known words, or numbers. Where no column of words or numbers tells, lines with tabs
    are taken for rows if all have the right number of cells, because texts hardly have tabs.

    Args:
        rows: those of the table, the header first.
        lines: the text of the table, line by line.
    """
    nothing = Swallowed([], None)
    long = [row for row in rows[1:] if row.several]
    if not long or rows[0].several or len(rows[0].cells) < 2:
        return nothing
    count = len(rows[0].cells)
    split = [
        (row, _split_lines(lines[row.begins - 1 : row.ends], delimiter, count)) for row in long
    ]
    if not any(own for _, own in split):
        return nothing
    whole = [row.cells for row in rows[1:] if len(row.cells) >= count]
    columns = [_Column([cells[i] for cells in whole if _is_line(cells[i])]) for i in range(count)]
    swallowed = [row for row, own in split if own and _are_rows(own, row, columns, delimiter)]
    if not swallowed:
        return nothing
    return Swallowed(swallowed, _alone(lines, rows[0], delimiter) if swallowed == long else None)


class _Column:
    """Tells whether a cell is like the other cells of its column, of which each has one line."""

    def __init__(self, cells: Sequence[str]):
        self.known = {cell for cell in set(cells) if not is_empty(cell)}
        self.kind = ANY
        repeated = bool(self.known) and 2 * len(self.known) <= len(cells)
        if self.known and all(map(is_number, self.known)):
            self.kind = WORDS if repeated and len(self.known) <= MOST_KNOWN else NUMBERS
        elif repeated:
            self.kind = WORDS

    def takes(self, cell: str) -> bool:
        """Whether a cell is like those of the column."""
        if is_empty(cell) or self.kind == ANY:
            return True
        return is_number(cell) if self.kind == NUMBERS else cell in self.known


def _are_rows(
    lines: Sequence[list[str] | None], row: Row, columns: Sequence[_Column], delimiter: str
) -> bool:
    """Return whether nearly each line of a row is like a row.

    Args:
        lines: the cells of each line; None where it has more or fewer than the header.
    """
    told = [
        i
        for i, (cell, column) in enumerate(zip(row.cells, columns, strict=False))
        if _is_line(cell) and column.kind != ANY
    ]
    if not told:
        return delimiter == "\t" and None not in lines
    alike = sum(
        cells is not None and all(columns[i].takes(cells[i]) for i in told) for cells in lines
    )
    return alike >= NEARLY * len(lines)


def _alone(lines: Sequence[str], header: Row, delimiter: str) -> list[Row] | None:
    """Return the table with each line as a row, or None if a line does not fit."""
    table = [header]
    for number, line in enumerate(lines[header.ends :], header.ends + 1):
        if not line.strip():
            continue
        cells = _cells_of(line, delimiter, len(header.cells))
        if cells is None:
            return None
        table.append(Row(number, number, cells))
    return table


def _cells_of(line: str, delimiter: str, count: int) -> list[str] | None:
    """Return the cells of a line by itself, or None if there are more or fewer than `count`.

    Where its quotes do not keep the rules, they are signs like others.
    """
    plain = line.split(delimiter)
    if len(plain) < count:
        return None
    reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        quoted = next(reader, [])
    except csv.Error:
        quoted = plain
    for cells in (quoted, plain):
        cells = [cell.strip() for cell in cells]
        while len(cells) > count and not cells[-1]:
            cells.pop()
        if len(cells) == count:
            return cells
    return None


def _split_lines(lines: Sequence[str], delimiter: str, count: int) -> list[list[str] | None]:
    """Return the cells of each line, None where there are more or fewer than `count`.

    Where that is so for too many lines, nothing is returned.
    """
    split, odd = list[list[str] | None](), 0
    for line in lines:
        split.append(_cells_of(line, delimiter, count))
        odd += split[-1] is None
        if odd > (1 - NEARLY) * len(lines):
            return []
    return split


def _is_line(cell: str) -> bool:
    return "\n" not in cell and "\r" not in cell
