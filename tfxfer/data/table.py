"""Read a CSV table of images with the columns path and label, and optionally split and group.

Labels that are no classes may stand in several columns of any name.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tfxfer.data.cells import Held
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.inside import check_inside
from tfxfer.data.joined_rows import check_same, join_rows
from tfxfer.data.named_files import FilesBelow
from tfxfer.data.odd_cells import check_not_measured, notes_on_classes
from tfxfer.data.parts import part_in
from tfxfer.data.series import said_of_series
from tfxfer.data.table_columns import (
    find_column_of_sentences,
    find_columns_by_cells,
    find_held_unless_files,
    find_label_columns,
    name_columns,
    names_files,
    said_of_boxes,
    said_of_unused,
)
from tfxfer.data.table_files import check_files, kind_of_files
from tfxfer.data.table_rows import align_rows, check_lengths, read_rows
from tfxfer.errors import DataError
from tfxfer.files import read_regular
from tfxfer.inputs import KINDS, Kind
from tfxfer.tasks import CLASSIFY, Task, find, multilabel
from tfxfer.tasks.cells import LONGEST_SHOWN, is_empty, join_cells
from tfxfer.tasks.columns import kind_of, name_of

ALONE = ("", "nan", "none", "null", "na")  # values in the column group of images without a group


def read_table(
    path: Path,
    source: str,
    kind: Kind | None = None,
    *,
    task: Task = CLASSIFY,
    labels: Sequence[str] = (),
    judging: bool = False,
    inside: Path | None = None,
) -> Found:
    """Read the rows of a table. Paths are relative to the folder of the table, or absolute.

    If there is a column split, the parts are kept exactly as given. Otherwise the images are split
    by content, and the images of one group stay together. An image without a group is a group of
    its own.

    Commas, semicolons, tabs or vertical bars separate the cells. The text is UTF-8, UTF-16, or of
    an old code page. The notes say what was read in another way than it is written, such as a
    column with another name.

    Args:
        kind: what the files are; None: the first kind of which a file has the ending.
        task: what the labels are. Labels that are no classes may stand in several columns.
        labels: names of the columns of labels; where there are none, the column label, or else the
            columns whose cells look like labels of the task.
        judging: take those of `labels` that are there; a model is only judged on what is known.
        inside: the folder of an archive, out of which no path may lead; None: any file may be read.

    Raises:
        DataError: columns or values are missing, a file does not exist or is not `inside`, or
            images of one group are in several parts.
    """
    below = FilesBelow(path.parent)
    lines, rows, label_columns, held, notes = _rows(
        path, source, task, labels, judging=judging, kind=kind, below=below
    )
    if task.CLASSES and len(label_columns) > 1:
        cells = [[row[name] for row in rows] for name in label_columns]
        kinds = list(map(kind_of, cells))
        task = find(name_of(kinds, list(label_columns.values()), cells))
        said_kinds = [f"{name} ({kind})" for name, kind in zip(label_columns, kinds, strict=True)]
        notes = [*notes, f"Each column is answered by itself: {', '.join(said_kinds)}."]
        for name, own in zip(label_columns, () if judging else cells, strict=False):
            check_not_measured(name, own, lines, source=source)
            notes += notes_on_classes(name, own, lines)
    if held is not None:
        kind, said, paths = held.kind, [f"Read as {held.kind.NAME}: {shown(held.columns)}."], None
        files = [f"{path.name}:{int(line)}" for line in lines]
        contents = [held.content(row).encode("utf-8", "surrogateescape") for row in rows]
        read: Callable[[int], bytes] = contents.__getitem__
    else:
        named = [row["path"] for row in rows]
        called = {word for other in KINDS.values() for word in (other.CELLS or [()])[-1]}
        texts = next((name for name in rows[0] if name in called), None)
        if inside is not None:
            check_inside(named, lines, table=path, inside=inside, source=source)
        files, said = check_files(
            path, source, lines, files=named, kind=kind, texts=texts, below=below
        )
        kind = kind or kind_of_files(files)
        if task is multilabel and not _in_cells(rows, list(label_columns), task):
            label = next(iter(label_columns))
            joined = _join_rows(_Rows(files, rows, lines), label=label, source=source)
            files, rows, lines = joined.files, joined.rows, joined.lines
            said = [*said, *joined.notes]
        paths = [os.path.join(path.parent, file) for file in files]
        read = functools.partial(_read, paths)
    splits = groups = None
    if "split" in rows[0]:
        if odd := [
            f"'{row['split'][:LONGEST_SHOWN]}' (line {line})"
            for line, row in zip(lines, rows, strict=True)
            if part_in(row["split"]) is None
        ]:
            raise DataError(
                f"{source}: unknown values in the column split: {shown(odd)}. Expected train, "
                "validation or test."
            )
        splits = [part_in(row["split"]) or "" for row in rows]
    if "group" in rows[0]:
        groups = [
            _group_in(row["group"]) or f"\0{int(line)}"
            for line, row in zip(lines, rows, strict=True)
        ]
    series = []
    if paths is not None and groups is None:
        series = said_of_series([Path(file).stem for file in paths], splits)
    if splits and groups:
        _check_groups(groups, splits, source)
    in_cells = _in_cells(rows, list(label_columns), task)
    return Found(
        files=files,
        names=[
            join_cells([row[name] for name in label_columns])
            if in_cells
            else row[next(iter(label_columns))]
            for row in rows
        ],
        classes=list(label_columns.values()) if in_cells else None,
        task=task.NAME,
        read=read,
        source=source,
        splits=splits,
        groups=groups,
        notes=(*notes, *said, *series),
        paths=paths,
        kind_name=kind.NAME,
        lines=lines,
    )


class _Rows(NamedTuple):
    """Rows of a table of files.

    files: the path of each.
    rows: the cells of each, by the name of the column.
    lines: the number of the line of each.
    notes: on how they were read.
    """

    files: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    notes: tuple[str, ...] = ()


def _join_rows(table: _Rows, *, label: str, source: str) -> _Rows:
    """Join the rows of each file where each of them has some of its labels.

    Args:
        label: the name of the column of labels.

    Returns:
        The rows that are left, with a note if some were joined.

    Raises:
        DataError: such rows are of several parts or groups.
    """
    files, rows, lines, _ = table
    joined = join_rows(files, [row[label] for row in rows])
    if not joined.dropped:
        return table
    meanings: dict[str, Callable[[str], object]] = {"split": part_in, "group": _group_in}
    for column, meant in meanings.items():
        if column in rows[0]:
            check_same(joined, rows, lines, column=column, meant=meant, source=source)
    rows = [{**row, label: joined.labels.get(i, row[label])} for i, row in enumerate(rows)]
    left = [i for i in range(len(rows)) if i not in joined.dropped]
    places = shown([str(lines[i]) for i in sorted(joined.dropped)])
    rows_add, where = f"{len(joined.dropped):,} rows add", "lines"
    if len(joined.dropped) == 1:
        rows_add, where = "1 row adds", "line"
    note = (
        f"Joined the rows of each file: {rows_add} labels to an earlier row of the same file "
        f"({where} {places})."
    )
    return _Rows(
        [files[i] for i in left], [rows[i] for i in left], [lines[i] for i in left], (note,)
    )


def _group_in(cell: str) -> str:
    """Return the group that a cell names; "" where it names none."""
    return "" if cell.casefold() in ALONE else cell


def _read(paths: Sequence[str], i: int) -> bytes:
    return read_regular(paths[i])


def _in_cells(rows: Sequence[dict[str, str]], label_columns: Sequence[str], task: Task) -> bool:
    """Return whether each column of labels is an output of its own."""
    if task.CLASSES:
        return False
    if len(label_columns) > 1 or task is not multilabel:
        return True
    return multilabel.all_answers([row[label_columns[0]] for row in rows])


def _rows(
    path: Path,
    source: str,
    task: Task,
    labels: Sequence[str],
    *,
    judging: bool,
    kind: Kind | None,
    below: FilesBelow,
) -> tuple[list[int], list[dict[str, str]], dict[str, str], Held | None, list[str]]:
    """Read a table; empty lines are skipped, and rows without any label where these are no classes.

    Returns:
        The line numbers in the file, the rows as cells by column name, the columns of labels with
        their names as they are written, the columns that hold examples, and notes.

    Raises:
        DataError: the file or its text can't be read as a table, or a path or label is empty.
    """
    table, notes = read_rows(path, source, both=task.CLASSES and not labels)
    header = table[0][1] if table else []
    if judging:
        there = {cell.casefold() for cell in header}
        labels = [name for name in labels if name.casefold() in there]
    held = find_held_unless_files(table, kind, source)
    needed = ("label",) if task.CLASSES and not labels else ()
    needed = needed if held is not None else ("path", *needed)
    by_cells: dict[str, str] = {}
    if held is None and not names_files(header):
        by_cells = find_columns_by_cells(table, below, kind, labels=labels, source=source)
        if "label" not in needed:
            by_cells.pop("label", None)
    columns, said = name_columns(
        header,
        source,
        needed,
        or_label=not labels,
        texts=find_column_of_sentences(table),
        by_cells=by_cells,
    )
    align_rows(table, source)
    rows = [dict(zip(columns, cells, strict=True)) for _, cells in table[1:]]
    lines = [line for line, _ in table[1:]]
    check_lengths(rows, lines, source, () if held is None else held.columns)
    places = columns
    if held is not None:
        for row in rows:
            row["path"] = held.content(row)
        columns = [name for name in columns if name not in held.columns]
    said += said_of_boxes(columns)
    own, left_out = find_label_columns(
        columns, rows, lines, source=source, task=task, labels=labels
    )
    if odd := [str(line) for line, row in zip(lines, rows, strict=True) if not row["path"]]:
        content = "path" if held is None else held.kind.NAME
        raise DataError(f"{source}: {content} is empty in these lines: {shown(odd)}.")
    one_class = task.CLASSES and len(own) == 1  # which may be called none or nan
    bare = {
        i
        for i, row in enumerate(rows)
        if all(not row[name] or (not one_class and is_empty(row[name])) for name in own)
    }
    if len(bare) == len(rows):
        raise DataError(
            f"{source}: every cell of the labels ({shown(own)}) is empty. Expected labels of the "
            f"kind {task.NAME} in at least some rows."
        )
    if bare:
        listed = shown([str(lines[i]) for i in sorted(bare)])
        what, where = f"{len(bare):,} rows", "lines"
        if len(bare) == 1:
            what, where = "1 row", "line"
        said.append(f"Left out: {what} without a label ({where} {listed}).")
        lines = [line for i, line in enumerate(lines) if i not in bare]
        rows = [row for i, row in enumerate(rows) if i not in bare]
    if not labels and "label" not in columns:
        what = "the column" if len(own) == 1 else "the columns"
        said.append(f"Read as labels: {what} {shown(own, 10)}. If others are meant, use --label.")
    unused = said_of_unused([name for name in columns if name not in own], rows, held)
    spelled = {name: header[places.index(name)].strip() for name in own}
    return lines, rows, spelled, held, [*notes, *said, *left_out, *unused]


def _check_groups(groups: list[str], splits: list[str], source: str) -> None:
    parts = defaultdict(set)
    for group, part in zip(groups, splits, strict=True):
        parts[group].add(part)
    if torn := sorted(group for group, held in parts.items() if len(held) > 1):
        raise DataError(
            f"{source}: the column split divides groups among parts: {shown(torn)}. Put each "
            "group into one part, or leave the column split out."
        )
