"""Write predictions as CSV, JSON, JSON lines, Parquet or an Excel workbook.

Rows are written as they come. If they end with an `ImageError`, all rows before it are written.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
from pyarrow import parquet

from tfxfer.data import find_examples, free_name
from tfxfer.errors import ImageError, MissingExtraError, ServingError
from tfxfer.files import replaced, streams
from tfxfer.run import read_manifest
from tfxfer.safety.names import csv_cell, one_line
from tfxfer.serving.kind import kind_of
from tfxfer.serving.predict import Answer, Prediction

GROUP = 8192  # rows in a row group of Parquet


Line = Prediction | Answer


def write(rows: Iterable[Line], form: str = "csv", to: str | os.PathLike | None = None) -> int:
    """Write predictions to a file, or to standard output where `to` is None, and return how many.

    The file appears when it is complete. Until then, and where predicting fails, an old file of
    that name stays as it was. Where some images can't be predicted, the others are written.

    CSV and Parquet have the columns `file`, `label` where it is known, `predicted`, `probability`,
    then `predicted_2`, `probability_2`, ... , and `set` (in CSV a JSON list) and `unknown` (in CSV
    true or false) where they were asked for. Of answers that are no classes, the columns are those
    of `Answer.values`. The columns of a table that was given come before these. JSON has the same
    names, with `others` as a list of {"predicted", "probability"}. In CSV, a text that a
    spreadsheet would run as a formula has a quote before it. A CSV file begins with the byte order
    mark of UTF-8, since Excel would read it in an old code page without it. A workbook has the
    columns of CSV.

    Raises:
        ServingError: the file can't be written, or Parquet or a workbook was asked for without a
            file.
        MissingExtraError: a workbook needs `tfxfer[excel]`.
        ImageError: raised by the rows, after all others were written.
    """
    if form in BINARY and to is None:
        raise ServingError(f"{form} is not for a terminal. Expected a file: --to out.{form}")
    counted = Counted(rows)
    if to is None:
        WRITERS[form](counted, sys.stdout)
        return counted.count
    late: ImageError | None = None
    # This comes before the file is made: where no image can be predicted, an old file is kept.
    first = list(islice(counted, 1))
    if form in BINARY and not first:
        return 0
    with explained(to), replaced(to) as file:
        try:
            if form in BINARY:
                BINARY[form](chain(first, counted), file)
            else:
                with text_of(file) as text:
                    text.write("\ufeff" if form == "csv" else "")
                    WRITERS[form](chain(first, counted), text)
        except ImageError as error:
            late = error
    if late:
        raise late
    return counted.count


class Counted:
    """An iterator over rows that counts them."""

    def __init__(self, rows: Iterable[Line]):
        self.rows, self.count = iter(rows), 0

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        row = next(self.rows)
        self.count += 1
        return row


@contextmanager
def text_of(file: BinaryIO) -> Iterator[TextIO]:
    """Open a binary file for text; the binary file stays open afterwards."""
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    try:
        yield text
    finally:
        text.flush()
        text.detach()


def check_target(
    to: str | os.PathLike | None,
    paths: Iterable[str | os.PathLike],
    folder: str | os.PathLike,
) -> None:
    """Refuse to write the answer over a file that it is made from, whatever name it is given by.

    Args:
        to: the file for the answer.
        paths: images, and folders of images.
        folder: the folder of the run or the export that answers.

    Raises:
        ServingError: `to` is one of the images, a file of the run or the export, or a folder.
    """
    if to is None or streams(to) or not os.path.exists(to):
        return
    if os.path.isdir(to):
        raise ServingError(f"{os.fspath(to)} is a folder. Expected a file for the answer in --to.")
    kind = kind_of(Path(folder))
    for path in map(Path, paths):
        check_other(to, find_examples(path, kind)[0] if path.is_dir() else [path])
    check_other(to, own_files(Path(folder)))


def own_files(folder: Path) -> Iterable[Path]:
    """The files that a run lists in its manifest, or all files of an export."""
    if not (folder / "settings.json").exists():
        return folder.rglob("*")
    return [folder / "manifest.json", *(folder / name for name in read_manifest(folder))]


def check_other(to: str | os.PathLike, files: Iterable[Path]) -> None:
    """Refuse a target that is one of some files.

    Raises:
        ServingError: names the file.
    """
    for file in files:
        if file.exists() and file.samefile(to):
            raise ServingError(
                f"--to {os.fspath(to)} is {file}, which is read. Choose another file."
            )


@contextmanager
def explained(to: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServingError(
            f"{os.fspath(to)} can't be written: {error.strerror or error}. "
            "Choose another file with --to."
        ) from error


def as_csv(rows: Iterable[Line], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for i, row in enumerate(rows):
        flat = columns(row)
        if not i:
            writer.writerow(map(csv_cell, flat))
        writer.writerow(cell(value) for value in flat.values())
    file.flush()


def as_json(rows: Iterable[Line], file: TextIO) -> None:
    rows, begun = iter(rows), False
    try:
        # The bracket comes with the first row, behind the steps that are shown until there is one.
        for row in rows:
            file.write(f"{',' if begun else '['}\n  {json.dumps(nested(row))}")
            begun = True
    finally:
        file.write(f"{'' if begun else '['}\n]\n")
        file.flush()


def as_jsonl(rows: Iterable[Line], file: TextIO) -> None:
    for row in rows:
        file.write(f"{json.dumps(nested(row))}\n")
    file.flush()


def as_parquet(rows: Iterable[Line], file: BinaryIO) -> None:
    rows = iter(rows)
    first = next(rows)
    schema = pa.schema([(name, kind(value)) for name, value in columns(first).items()])
    with parquet.ParquetWriter(file, schema) as writer:
        held: list[dict[str, Any]] = []
        try:
            for row in chain([first], rows):
                held.append(valid(columns(row)))
                if len(held) == GROUP:
                    writer.write_table(pa.Table.from_pylist(held, schema))
                    held = []
        finally:
            writer.write_table(pa.Table.from_pylist(held, schema))


def as_workbook(rows: Iterable[Line], file: BinaryIO) -> None:
    """Write one sheet, in which texts that begin like a formula stay texts."""
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.utils.exceptions import IllegalCharacterError
    except ImportError as error:
        raise MissingExtraError("An Excel workbook", "excel") from error
    book = Workbook(write_only=True)
    sheet = book.create_sheet("predictions")

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            value = ", ".join(value)
        if not isinstance(value, str):
            return value
        one = WriteOnlyCell(sheet)
        try:
            one.value = valid(value)
        except IllegalCharacterError:
            one.value = one_line(value)
        one.data_type = "s"
        return one

    try:
        for i, row in enumerate(rows):
            flat = columns(row)
            if not i:
                sheet.append([shown(name) for name in flat])
            sheet.append([shown(value) for value in flat.values()])
    finally:
        book.save(file)


def valid(value: Any) -> Any:
    """Make the texts in a value valid Unicode.

    Names need not be valid Unicode, and Parquet requires it.
    """
    if isinstance(value, dict):
        return {name: valid(each) for name, each in value.items()}
    if isinstance(value, list):
        return [valid(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def behind_given(row: Line, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer behind the cells of its row in the table that was given.

    A column of the table that has the name of one of the answer's is renamed.
    """
    if row.given is None:
        return answer
    taken = {name: name for name in (*answer, *row.given)}
    cells: dict[str, Any] = {}
    for name, value in row.given.items():
        new = free_name(f"{name}_given", taken) if name in answer else name
        taken[new] = name
        cells[new] = value
    return cells | answer


def columns(row: Line) -> dict[str, Any]:
    """Return a prediction as the columns of a table."""
    if isinstance(row, Answer):
        label = {} if row.label is None else {"label": row.label}
        return behind_given(row, {"file": row.file, **label, **row.values})
    flat: dict[str, Any] = {
        "file": row.file,
        **({} if row.label is None else {"label": row.label}),
        "predicted": row.predicted,
        "probability": row.probability,
    }
    for i, (name, value) in enumerate(row.others, 2):
        flat |= {f"predicted_{i}": name, f"probability_{i}": value}
    return behind_given(
        row,
        flat
        | ({} if row.set is None else {"set": list(row.set)})
        | ({} if row.unknown is None else {"unknown": row.unknown}),
    )


def nested(row: Line) -> dict[str, Any]:
    """Return a prediction as JSON values."""
    if isinstance(row, Answer):
        return {
            name: rounded(value) if isinstance(value, float) else value
            for name, value in columns(row).items()
        }
    values: dict[str, Any] = {
        "file": row.file,
        **({} if row.label is None else {"label": row.label}),
        "predicted": row.predicted,
        "probability": rounded(row.probability),
    }
    values |= (
        {
            "others": [
                {"predicted": name, "probability": rounded(value)} for name, value in row.others
            ]
        }
        if row.others
        else {}
    )
    return behind_given(
        row,
        values
        | ({} if row.set is None else {"set": list(row.set)})
        | ({} if row.unknown is None else {"unknown": row.unknown}),
    )


def cell(value: Any) -> str:
    """Return a value as the text of a CSV cell."""
    if isinstance(value, float):
        return f"{value:.6f}"
    return csv_cell(value if isinstance(value, str) else json.dumps(value))


def rounded(value: float) -> float:
    """Round to 6 decimals, about the precision of a float32."""
    return round(value, 6)


def kind(value: Any) -> Any:
    """Return the type of a column of Parquet, from the value in its first row."""
    if isinstance(value, list):
        return pa.list_(pa.string())
    if isinstance(value, bool):
        return pa.bool_()
    return pa.float32() if isinstance(value, float) else pa.string()


WRITERS = {"csv": as_csv, "json": as_json, "jsonl": as_jsonl}
BINARY = {"parquet": as_parquet, "xlsx": as_workbook}
