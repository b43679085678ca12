"""Predictions as CSV, JSON, JSON lines or Parquet. Rows are written as they come; an `ImageError` at their end leaves all the others written."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TextIO

import pyarrow as pa
from pyarrow import parquet

from tfxfer.errors import ServingError
from tfxfer.serving.predict import Prediction

GROUP = 8192  # rows of a row group of Parquet


def write(
    rows: Iterable[Prediction], form: str = "csv", to: str | os.PathLike | None = None
) -> None:
    """Write predictions to a file; to standard output where `to` is None.

    CSV and Parquet have the columns `file`, `predicted`, `probability`, then `predicted_2`, `probability_2`, ... , `set` (in CSV a JSON list) and `unknown`
    (in CSV true or false) where they were asked for. JSON has the same names, with `others` as a list of {"predicted", "probability"}.

    Raises:
        ServingError: the file can't be written, or Parquet has none.
    """
    if form == "parquet":
        return as_parquet(rows, to)
    writer = {"csv": as_csv, "json": as_json, "jsonl": as_jsonl}[form]
    if to is None:
        return writer(rows, sys.stdout)
    with (
        explained(to),
        open(to, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer(rows, file)


@contextmanager
def explained(to: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServingError(
            f"{os.fspath(to)} can't be written: {error.strerror or error}. Choose another file with --to."
        ) from error


def as_csv(rows: Iterable[Prediction], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for i, row in enumerate(rows):
        flat = columns(row)
        if not i:
            writer.writerow(flat)
        writer.writerow(cell(value) for value in flat.values())
    file.flush()


def as_json(rows: Iterable[Prediction], file: TextIO) -> None:
    file.write("[")
    try:
        for i, row in enumerate(rows):
            file.write(f"{',' if i else ''}\n  {json.dumps(nested(row))}")
    finally:
        file.write("\n]\n")
        file.flush()


def as_jsonl(rows: Iterable[Prediction], file: TextIO) -> None:
    for row in rows:
        file.write(f"{json.dumps(nested(row))}\n")
    file.flush()


def as_parquet(rows: Iterable[Prediction], to: str | os.PathLike | None) -> None:
    if to is None:
        raise ServingError("Parquet is not for a terminal. Expected a file: --to out.parquet")
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        return
    schema = pa.schema([(name, kind(name)) for name in columns(first)])
    with explained(to), open(to, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        held: list[dict[str, Any]] = []
        try:
            for row in chain([first], rows):
                held.append(valid(columns(row)))
                if len(held) == GROUP:
                    writer.write_table(pa.Table.from_pylist(held, schema))
                    held = []
        finally:
            writer.write_table(pa.Table.from_pylist(held, schema))


def valid(value: Any) -> Any:
    """Names need not be valid Unicode, and Parquet asks for it."""
    if isinstance(value, dict):
        return {name: valid(each) for name, each in value.items()}
    if isinstance(value, list):
        return [valid(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def columns(row: Prediction) -> dict[str, Any]:
    """Flat, as tables have it."""
    flat: dict[str, Any] = {
        "file": row.file,
        "predicted": row.predicted,
        "probability": row.probability,
    }
    for i, (name, value) in enumerate(row.others, 2):
        flat |= {f"predicted_{i}": name, f"probability_{i}": value}
    return (
        flat
        | ({} if row.set is None else {"set": list(row.set)})
        | ({} if row.unknown is None else {"unknown": row.unknown})
    )


def nested(row: Prediction) -> dict[str, Any]:
    """As JSON has it."""
    found: dict[str, Any] = {
        "file": row.file,
        "predicted": row.predicted,
        "probability": rounded(row.probability),
    }
    found |= (
        {
            "others": [
                {"predicted": name, "probability": rounded(value)} for name, value in row.others
            ]
        }
        if row.others
        else {}
    )
    return (
        found
        | ({} if row.set is None else {"set": list(row.set)})
        | ({} if row.unknown is None else {"unknown": row.unknown})
    )


def cell(value: Any) -> str:
    """As CSV has it."""
    return (
        f"{value:.6f}"
        if isinstance(value, float)
        else value
        if isinstance(value, str)
        else json.dumps(value)
    )


def rounded(value: float) -> float:
    """What a float32 says, and no more."""
    return round(value, 6)


def kind(name: str) -> Any:
    if name == "set":
        return pa.list_(pa.string())
    return (
        pa.bool_()
        if name == "unknown"
        else pa.float32()
        if name.startswith("probability")
        else pa.string()
    )
