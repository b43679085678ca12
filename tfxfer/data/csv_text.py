"""From the bytes of a table to its rows: the encoding, quotes, and cells of several lines."""

import csv
import io

from tfxfer.data.duplicates import shown
from tfxfer.data.lines import line_of
from tfxfer.data.quotes import Row, find_swallowed
from tfxfer.errors import DataError
from tfxfer.inputs.encoding import decodes, guess_encoding, has_zeros, known_encoding


def decode_table(content: bytes, source: str) -> tuple[str, list[str]]:
    """Return the text of a file, and a note if it is not UTF-8.

    Raises:
        DataError: the file is not a text file.
    """
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{source} is a workbook or another ZIP file. Save it as CSV UTF-8.")
    encoding = known_encoding(content)
    if encoding in (None, "utf_8") and has_zeros(content):
        raise DataError(
            f"{source} holds very many bytes of zero. It may be UTF-16 whose first two bytes (the "
            "byte order mark) are missing. Save it as CSV UTF-8."
        )
    encoding = encoding or guess_encoding(content)
    if encoding is None or not decodes(content, encoding):
        raise DataError(
            f"{source} is not text in one encoding: {_said_of_bytes(content)} is not UTF-8, and no "
            "other encoding fits the whole file. Save it as CSV UTF-8."
        )
    text = content.decode(encoding)
    said = []
    if encoding not in ("utf_8", "utf_8_sig"):
        said.append(
            f"Read as {encoding}, not as UTF-8: check that names are right. If they are wrong, "
            "save the table as CSV UTF-8."
        )
    if text.startswith("\ufeff"):
        said.append("The table begins with two byte order marks; the second one is left out.")
    return text.lstrip("\ufeff"), said


def _said_of_bytes(content: bytes) -> str:
    """Return where a text stops being UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"the byte {content[error.start]:#04x} in line {line}"
    return "its beginning"


def split_table(
    text: str, delimiter: str, source: str
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return (the number of its last line, the cells) for each row that is not empty, and notes.

    Raises:
        DataError: a quote is not closed, so that the rows after it would become part of the cell,
            or is closed only by one of a later row.
    """
    limit = csv.field_size_limit(max(len(text), 1))  # texts may be longer than what Python allows
    try:
        rows, said = _give_back_rows(_split_cells(text, delimiter, source), text, delimiter, source)
    finally:
        csv.field_size_limit(limit)
    return [(line_of(row), row.cells) for row in rows], said


def _give_back_rows(
    rows: list[Row], text: str, delimiter: str, source: str
) -> tuple[list[Row], list[str]]:
    """Return the rows, with those that a quote had swallowed, and a note on these.

    Raises:
        DataError: there are such rows, and the cells are not separated by tabs.
    """
    if not any(row.several for row in rows):
        return rows, []
    swallowed, alone = find_swallowed(rows, list(io.StringIO(text, newline="")), delimiter)
    if not swallowed:
        return rows, []
    places = shown([f"{row.begins} to {row.ends}" for row in swallowed])
    if delimiter == "\t" and alone is not None:
        return alone, [
            f'Read each line as a row: in lines {places} a text begins with a quote (") that only '
            "a later row closes, as in tables that are written without quoting."
        ]
    what = (
        f"lines {places} form one row{' each' if len(swallowed) > 1 else ''}: a cell begins with a "
        'quote (") in the first line, and the quote that ends it is in the last. But each line '
        "looks like a row. If it is one, put each text that holds a quote into quotes, and double "
        "the quotes inside it."
    )
    if delimiter == "\t" or alone is not None:
        raise DataError(f"{source}: {what}")
    return rows, [f"{what[0].upper()}{what[1:]}"]


def _split_cells(text: str, delimiter: str, source: str) -> list[Row]:
    """Return the rows that are not empty; see `split_table`.

    Where the text breaks the rules for quotes, it is read once more without these rules. Then no
    cell from there on may hold a line break: it could be the rest of the table.
    """
    table, begins, unclosed, broken = list[Row](), 1, "", 1
    for strict in (True, False):
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=strict,
        )
        table, begins = [], 1
        try:
            for number, line in enumerate(reader, 1):
                cells = [cell.strip() for cell in line]
                several = any("\n" in cell or "\r" in cell for cell in cells)
                if unclosed and several and begins >= broken:
                    break
                if any(cells):
                    table.append(Row(begins, reader.line_num, cells, number))
                begins = reader.line_num + 1
            else:
                return table
        except csv.Error as error:
            unclosed, broken = unclosed or str(error), begins
    raise DataError(
        f"{source}: the row that begins in line {broken} can't be read: {unclosed}. Is there a "
        'quote (") too many or too few? Inside a cell, a quote is written twice.'
    )
