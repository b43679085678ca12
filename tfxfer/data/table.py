"""A CSV table of images: the columns path and label, and, if wanted, split and group."""

import csv
from collections import defaultdict
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.errors import DataError

PARTS = {"train": "train", "training": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test", "testing": "test"}


def read_table(path: Path, source: str) -> Found:
    """The rows of a table. Paths are relative to the table's folder, or absolute.

    With a split column the parts are kept exactly as given; without one the images are split by content, and the images of one group stay together.

    Raises:
        DataError: columns or values are missing, a file does not exist, the split column tears a group apart.
    """
    rows = _rows(path, source)
    files = [row["path"] for row in rows]
    paths = [path.parent / file for file in files]
    if gone := [f"{files[i]} (row {i + 2})" for i, file in enumerate(paths) if not file.is_file()]:
        raise DataError(f"{source}: {len(gone)} of {len(files)} files don't exist: {shown(gone)}. Paths are relative to the folder of the table.")
    splits = groups = None
    if "split" in rows[0]:
        if odd := [f"'{row['split']}' (row {i + 2})" for i, row in enumerate(rows) if row["split"].lower() not in PARTS]:
            raise DataError(f"{source}: unknown values in the column split: {shown(odd)}. Expected train, validation or test.")
        splits = [PARTS[row["split"].lower()] for row in rows]
    if "group" in rows[0]:
        groups = [row["group"] or f"\0{i}" for i, row in enumerate(rows)]  # an image without a group is a group of its own
    if splits and groups:
        _check_groups(groups, splits, source)
    return Found(files, [row["label"] for row in rows], lambda i: paths[i].read_bytes(), source, splits, groups)


def _rows(path: Path, source: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: no readable CSV table in UTF-8: {error}") from error
    columns = [cell.strip().lower() for cell in lines[0]] if lines else []
    if not {"path", "label"} <= set(columns):
        raise DataError(
            f"{source}: the first row has to name the columns path and label, with commas between them (also: split, group). Found: {', '.join(columns)}"
        )
    if len(lines) < 2:
        raise DataError(f"{source}: no rows below the header.")
    rows = [dict(zip(columns, (cell.strip() for cell in line), strict=False)) for line in lines[1:]]
    if odd := [str(i + 2) for i, line in enumerate(lines[1:]) if len(line) != len(columns)]:
        raise DataError(f"{source}: {len(columns)} columns are named, but these rows have more or fewer: {shown(odd)}.")
    if odd := [str(i + 2) for i, row in enumerate(rows) if not row["path"] or not row["label"]]:
        raise DataError(f"{source}: path or label is empty in these rows: {shown(odd)}.")
    return rows


def _check_groups(groups: list[str], splits: list[str], source: str) -> None:
    parts = defaultdict(set)
    for group, part in zip(groups, splits, strict=True):
        parts[group].add(part)
    if torn := sorted(group for group, held in parts.items() if len(held) > 1):
        raise DataError(f"{source}: the column split tears groups apart: {shown(torn)}. Put each group into one part, or leave the column split out.")
