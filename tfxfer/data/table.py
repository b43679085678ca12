"""A CSV table of images: the columns path and label, and, if wanted, split and group."""

import csv
import io
from collections import defaultdict
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.errors import DataError
from tfxfer.files import read_regular
from tfxfer.limits import MOST_TABLE_BYTES

PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


def read_table(path: Path, source: str) -> Found:
    """The rows of a table. Paths are relative to the table's folder, or absolute.

    With a split column the parts are kept exactly as given; without one the images are split by content, and the images of one group stay together. An
    image without a group is a group of its own.

    Raises:
        DataError: columns or values are missing, a file does not exist, the split column tears a group apart.
    """
    lines, rows = _rows(path, source)
    files = [row["path"] for row in rows]
    paths = [path.parent / file for file in files]
    if gone := [
        f"{files[i]} (line {lines[i]})" for i, file in enumerate(paths) if not _exists(file)
    ]:
        raise DataError(
            f"{source}: {len(gone)} of {len(files)} files don't exist: {shown(gone)}. Paths are relative to the folder of the table."
        )
    splits = groups = None
    if "split" in rows[0]:
        if odd := [
            f"'{row['split']}' (line {line})"
            for line, row in zip(lines, rows, strict=True)
            if row["split"].lower() not in PARTS
        ]:
            raise DataError(
                f"{source}: unknown values in the column split: {shown(odd)}. Expected train, validation or test."
            )
        splits = [PARTS[row["split"].lower()] for row in rows]
    if "group" in rows[0]:
        groups = [row["group"] or f"\0{line}" for line, row in zip(lines, rows, strict=True)]
    if splits and groups:
        _check_groups(groups, splits, source)
    return Found(
        files,
        [row["label"] for row in rows],
        lambda i: read_regular(paths[i]),
        source,
        splits,
        groups,
        paths=paths,
    )


def _rows(path: Path, source: str) -> tuple[list[int], list[dict[str, str]]]:
    """(line numbers in the file, the rows by column name); empty lines are passed over."""
    try:
        text = read_regular(path, MOST_TABLE_BYTES).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        table = [
            (reader.line_num, [cell.strip() for cell in line])
            for line in reader
            if any(cell.strip() for cell in line)
        ]
    except OSError as error:
        raise DataError(f"{source} can't be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: no readable CSV table in UTF-8: {error}") from error
    columns = [cell.lower() for cell in table[0][1]] if table else []
    if not {"path", "label"} <= set(columns):
        held = ", ".join(columns) or "nothing"
        raise DataError(
            f"{source}: expected a first row that names the columns path and label, with commas between (also: split, group). Found: {held}."
        )
    if len(table) < 2:
        raise DataError(f"{source}: no rows below the header.")
    if odd := [str(line) for line, cells in table[1:] if len(cells) != len(columns)]:
        raise DataError(
            f"{source}: {len(columns)} columns are named, but these lines have more or fewer: {shown(odd)}."
        )
    rows = [dict(zip(columns, cells, strict=True)) for _, cells in table[1:]]
    if odd := [
        str(line)
        for (line, _), row in zip(table[1:], rows, strict=True)
        if not row["path"] or not row["label"]
    ]:
        raise DataError(f"{source}: path or label is empty in these lines: {shown(odd)}.")
    return [line for line, _ in table[1:]], rows


def _exists(file: Path) -> bool:
    """Anything but a folder: a pipe or a device is named when it is read."""
    try:
        return file.exists() and not file.is_dir()
    except (OSError, ValueError):  # a link that leads to itself; a name with a zero byte
        return False


def _check_groups(groups: list[str], splits: list[str], source: str) -> None:
    parts = defaultdict(set)
    for group, part in zip(groups, splits, strict=True):
        parts[group].add(part)
    if torn := sorted(group for group, held in parts.items() if len(held) > 1):
        raise DataError(
            f"{source}: the column split tears groups apart: {shown(torn)}. Put each group into one part, or leave the column split out."
        )
