"""Read a CSV table of images with the columns path and label, and optionally split and group.

Labels that are no classes may stand in several columns of any name.
"""

import csv
import functools
import io
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tfxfer.data.cells import FEW, Held, find_held, look_like_files
from tfxfer.data.csv_text import decode_table, split_table
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.inside import check_inside
from tfxfer.data.joined_rows import check_same, join_rows
from tfxfer.data.missing import hint_of_missing
from tfxfer.data.named_files import FEWEST_CELLS, FilesBelow, complete_names, find_column_of_files
from tfxfer.data.odd_cells import check_not_measured, notes_on_classes, said_of_left_out
from tfxfer.data.parts import part_in
from tfxfer.data.series import said_of_series
from tfxfer.errors import DataError
from tfxfer.files import read_regular
from tfxfer.inputs import DEFAULT, KINDS, Kind
from tfxfer.limits import MOST_TABLE_BYTES
from tfxfer.tasks import CLASSIFY, Task, find, multilabel
from tfxfer.tasks.cells import LONGEST_SHOWN, is_empty, join_cells
from tfxfer.tasks.columns import kind_of, name_of

# Names that other programs give to the two required columns.
CALLED = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img"),
    "label": ("label", "class", "category", "class_name", "classname", "label_name", "target"),
}
CALLED["path"] += ("image_path", "img_path", "image_name", "image_file")
CALLED["label"] += ("classes", "categories", "category_name")
OPTIONAL = ("split", "group")
ALONE = ("", "nan", "none", "null", "na")  # values in the column group of images without a group
# Words in the name of a column that may hold groups. A name may also begin with group, but an
# age_group or a blood_group is shared by strangers.
GROUPS = """
patient subject person case scene video session site camera lesion individual participant
donor animal slide study series user family sequence burst location plot
""".split()
# Names of columns that say where things are in an image.
BOXES = {"xmin", "ymin", "xmax", "ymax", "bbox", "x_min", "y_min", "x1", "y1", "x2", "y2"}
# Names of columns that may hold the part of each image in other words than train, validation and
# test.
SPLITTING = ("split", "set", "subset", "dataset", "partition", "usage", "fold", "part", "phase")
DELIMITERS = ",;\t|"
SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n')  # a first line that only Excel understands
SAMPLE = 64 * 1024  # characters of the first row that are used to find the delimiter
FEWEST_WORDS = 3  # of a cell, on average, from which a column seems to hold sentences
LONGEST_CELL = 131_072  # characters of a cell that is no example


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
        files = [f"{path.name}:{line}" for line in lines]
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
        kind = kind or _kind_of(files)
        if task is multilabel and not _in_cells(rows, list(label_columns), task):
            label = next(iter(label_columns))
            joined = _join_rows(_Rows(files, rows, lines), label=label, source=source)
            files, rows, lines = joined.files, joined.rows, joined.lines
            said = [*said, *joined.notes]
        paths = [path.parent / file for file in files]
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
            _group_in(row["group"]) or f"\0{line}" for line, row in zip(lines, rows, strict=True)
        ]
    series = []
    if paths is not None and groups is None:
        series = said_of_series([file.stem for file in paths], splits)
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
    note = (
        f"Joined the rows of each file: {len(joined.dropped):,} rows add labels to an earlier row "
        f"of the same file (lines {shown([str(lines[i]) for i in sorted(joined.dropped)])})."
    )
    return _Rows(
        [files[i] for i in left], [rows[i] for i in left], [lines[i] for i in left], (note,)
    )


def _group_in(cell: str) -> str:
    """Return the group that a cell names; "" where it names none."""
    return "" if cell.casefold() in ALONE else cell


def _read(paths: Sequence[Path], i: int) -> bytes:
    return read_regular(paths[i])


def _in_cells(rows: Sequence[dict[str, str]], label_columns: Sequence[str], task: Task) -> bool:
    """Return whether each column of labels is an output of its own."""
    if task.CLASSES:
        return False
    if len(label_columns) > 1 or task is not multilabel:
        return True
    return multilabel.all_answers([row[label_columns[0]] for row in rows])


def _kind_of(files: Sequence[str]) -> Kind:
    """Return the first kind of which a file has the ending; the default if there is none."""
    endings = {Path(file).suffix.lower() for file in files}
    held = (kind for kind in KINDS.values() if kind.ENDINGS & endings)
    return next(held, KINDS[DEFAULT])


def check_files(
    table: Path,
    source: str,
    lines: Sequence[int],
    *,
    files: Sequence[str],
    kind: Kind | None,
    texts: str | None,
    below: FilesBelow,
) -> tuple[list[str], list[str]]:
    """Check that all files exist, and complete names that lack a folder or an ending.

    Args:
        kind: what the files are, if it is known.
        texts: name of a column of texts beside that of the files, for advice.
        below: the files below the folder of the table.

    Returns:
        The paths, in which / replaces the \\ of Windows if the file only exists that way, and a
        note if that was done or names were completed.

    Raises:
        DataError: a file does not exist, or a name may mean two files.
    """
    there = [_exists(os.path.join(table.parent, file)) for file in files]
    turned = [file.replace("\\", "/") for file in files]
    paths = [
        file if here or file == other or not _exists(os.path.join(table.parent, other)) else other
        for file, other, here in zip(files, turned, there, strict=True)
    ]
    gone = [
        f"{file} (line {line})"
        for file, other, line, here in zip(files, paths, lines, there, strict=True)
        if not here and other == file
    ]
    if gone:
        # If some paths are right as they are, the others are mistakes, and not names to complete.
        completed = None
        if len(gone) == len(files):
            completed = complete_names(files, lines, below=below, kind=kind, source=source)
        if completed is not None:
            return completed
        lost = [file for file, here in zip(files, there, strict=True) if not here]
        hint = hint_of_missing(lost, table.parent, kind or _kind_of(files))
        if texts and len(gone) == len(files):
            hint += (
                f" Are the examples the texts in the column {texts}, and not files? Then remove "
                "the column of paths."
            )
        raise DataError(
            f"{source}: {len(gone)} of {len(files)} files don't exist: {shown(gone)}. "
            f"Paths are relative to the folder of the table.{hint}"
        )
    count = sum(one != other for one, other in zip(files, paths, strict=True))
    said = [f"Read with / in place of \\: {count} paths, written as on Windows."] if count else []
    return paths, said


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
        texts=_column_of_sentences(table),
        by_cells=by_cells,
    )
    align_rows(table, source)
    rows = [dict(zip(columns, cells, strict=True)) for _, cells in table[1:]]
    lines = [line for line, _ in table[1:]]
    _check_lengths(rows, lines, source, () if held is None else held.columns)
    places = columns
    if held is not None:
        for row in rows:
            row["path"] = held.content(row)
        columns = [name for name in columns if name not in held.columns]
    said += _said_of_boxes(columns)
    own, left_out = _label_columns(columns, rows, lines, source=source, task=task, labels=labels)
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
        said.append(
            f"Left out: {len(bare)} rows without a label (lines "
            f"{shown([str(lines[i]) for i in sorted(bare)])})."
        )
        lines = [line for i, line in enumerate(lines) if i not in bare]
        rows = [row for i, row in enumerate(rows) if i not in bare]
    if not labels and "label" not in columns:
        what = "the column" if len(own) == 1 else "the columns"
        said.append(f"Read as labels: {what} {shown(own, 10)}. If others are meant, use --label.")
    unused = _unused([name for name in columns if name not in own], rows)
    spelled = {name: header[places.index(name)].strip() for name in own}
    return lines, rows, spelled, held, [*notes, *said, *left_out, *unused]


def find_columns_by_cells(
    table: Sequence[tuple[int, list[str]]],
    below: FilesBelow,
    kind: Kind | None,
    *,
    labels: Sequence[str],
    source: str,
    fewest: int = FEWEST_CELLS,
) -> dict[str, str]:
    """Find the column of files by its cells, as in the table id,breed of a competition.

    Args:
        below: the files below the folder of the table.
        labels: names of the columns of labels that the user gave.
        fewest: see `find_column_of_files`.

    Returns:
        The name of that column in lower case at the key "path". If no column is named as that of
        the labels, and one column alone is left, its name at the key "label". Nothing if no column
        names files.

    Raises:
        DataError: several columns name files.
    """
    header = table[0][1] if table else []
    if any(Path(cell).suffix.lower() in kind.ENDINGS for kind in KINDS.values() for cell in header):
        return {}  # the row above the data is missing, and an error below says so
    called = {_simple(word) for word in CALLED["label"]}
    asked = {name.casefold() for name in labels}
    others = {
        name: place
        for place, name in enumerate(cell.casefold() for cell in header)
        if name and name not in {*asked, *OPTIONAL, *BOXES}
    }
    cells = {
        name: [row[place] for _, row in table[1:] if len(row) > place and row[place]]
        for name, place in others.items()
        if _simple(name) not in called
    }
    column = find_column_of_files(cells, below, kind, source=source, fewest=fewest)
    if column is None:
        return {}
    left = [name for name in others if name != column]
    if any(_simple(name) in called for name in left) or len(left) != 1:
        return {"path": column}
    return {"path": column, "label": left[0]}


def _check_lengths(
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


def find_held_unless_files(
    table: Sequence[tuple[int, list[str]]], kind: Kind | None, source: str
) -> Held | None:
    """Return the columns that hold examples; None where a column names files or none holds any.

    Args:
        table: the numbers of the lines and the cells of all rows, the names of columns first.
        kind: what the examples are; None if it is not known. A model of texts takes the texts of a
            table, and not the photos that it names beside them.

    Raises:
        DataError: several columns could be the same part of an example.
    """
    header = table[0][1] if table else []
    if names_files(header) and not (kind and kind.CELLS and _names_others(table[1:], header, kind)):
        return None
    held = find_held(header, source)
    if held is not None and _look_like_files(table[1:], header, held.columns[-1]):
        return None  # an error later says how to name a column of files
    return held


def _look_like_files(
    table: Sequence[tuple[int, list[str]]], header: Sequence[str], column: str
) -> bool:
    """Return whether the cells of a column end like files of some kind of example."""
    place = [cell.strip().casefold() for cell in header].index(column)
    return look_like_files([row[place] for _, row in table[:FEW] if len(row) > place])


def _names_others(
    table: Sequence[tuple[int, list[str]]], header: Sequence[str], kind: Kind
) -> bool:
    """Return whether all cells that by their column name files end like those of other kinds."""
    cells = [
        cell
        for _, row in table[:FEW]
        for name, cell in zip(header, row, strict=False)
        if _is_of_files(name)
    ]
    endings = {Path(cell.replace("\\", "/")).suffix.lower() for cell in cells}
    return look_like_files(cells) and not endings & kind.ENDINGS


def names_files(header: Sequence[str]) -> bool:
    """Return whether a column has a name that columns of files have."""
    return any(map(_is_of_files, header))


def _is_of_files(column: str) -> bool:
    return _simple(column) in {_simple(word) for word in CALLED["path"]}


def _label_columns(
    columns: Sequence[str],
    rows: Sequence[dict[str, str]],
    lines: Sequence[int],
    *,
    source: str,
    task: Task,
    labels: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Find the columns that hold the labels.

    Args:
        labels: the names that the user gave.

    Returns:
        Their names, and a note on each column that would be one of them if it were not for a few
        cells.

    Raises:
        DataError: there is no such column, or there are several for a task with one.
    """
    asked = [name.casefold() for name in labels]
    if odd := [name for name in asked if name not in columns or name in ("path", *OPTIONAL)]:
        raise DataError(
            f"{source}: --label {odd[0]} is no column of labels. The columns are: "
            f"{shown([name for name in columns if name], 20)}."
        )
    if asked:
        return asked, []
    if "label" in columns:
        return ["label"], []
    others = [name for name in columns if name and name not in ("path", *OPTIONAL, *BOXES)]
    cells = {name: [row[name] for row in rows] for name in others}
    fitting = [name for name in others if task.may_hold(cells[name])]
    nearly = [
        said
        for name in others
        if name not in fitting and (said := said_of_left_out(name, cells[name], lines, task=task))
    ]
    if nearly and not fitting:
        raise DataError(
            f"{source}: {nearly[0]}. Correct or empty these cells; or say with --label which "
            "columns hold the labels."
        )
    if not fitting:
        raise DataError(
            f"{source}: no column holds labels of the kind {task.NAME}. The columns are: "
            f"{shown(others, 20)}. Name the right one with --label."
        )
    return fitting, [
        f"Not read as labels: {said}. If it holds labels, correct or empty these cells, or name it "
        "with --label."
        for said in nearly
    ]


def _delimiter(text: str, both: bool) -> str:
    """Return the character that separates the cells.

    It is the one with which the first row holds the names of the columns, or else the one with
    which it has most cells. `csv.Sniffer` takes minutes for texts with many quotes.

    Args:
        both: whether there must be a column label, and not only one of examples.
    """
    labels = {_simple(word) for word in CALLED["label"]}
    counts = []
    for delimiter in DELIMITERS:
        first = next(csv.reader(io.StringIO(text[:SAMPLE], newline=""), delimiter=delimiter), [])
        counts.append(len(first))
        cells = {cell.strip().casefold() for cell in first}
        holds = any(kind.CELLS and cells & set(kind.CELLS[-1]) for kind in KINDS.values())
        named = not both or labels & {_simple(cell) for cell in first}
        if named and (holds or names_files(first)):
            return delimiter
    return DELIMITERS[counts.index(max(counts))]


def _simple(name: str) -> str:
    """Return the name of a column in a form to compare: lower case, with _, without a plural s."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_").removesuffix("s")


def name_columns(
    header: list[str],
    source: str,
    needed: Sequence[str],
    *,
    or_label: bool,
    texts: str | None,
    by_cells: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """Find the columns path and label, which may have other names in the file.

    Args:
        needed: those that must be there.
        or_label: whether a column label is looked for, even if it need not be there.
        texts: name of a column of sentences, for advice.
        by_cells: names of columns that are one of the two by what their cells hold.

    Returns:
        The names of the columns, where these two are called path and label, and a note on their
        names in the file if these differ.

    Raises:
        DataError: a name is there twice, one of the two columns is missing, or several columns
            could be the same one.
    """
    columns = [cell.casefold() for cell in header]
    if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
        raise DataError(
            f"{source}: these columns are there more than once: {shown(twice)}. Expected each "
            "name once; remove or rename the one that is not meant."
        )
    said = []
    for name, called in CALLED.items():
        if name in columns or (name == "label" and not or_label):
            continue
        called_simply = {_simple(word) for word in called}
        matches = [column for column in columns if _simple(column) in called_simply]
        if name in by_cells:
            matches = [by_cells[name]]
        if len(matches) > 1:
            raise DataError(
                f"{source}: the columns {shown(matches)} could all be the {name}. Call the right "
                f"one {name}."
            )
        if not matches and name not in needed:
            continue
        if not matches:
            held = shown([cell[:LONGEST_SHOWN] for cell in header], 50) or "nothing"
            wanted = "columns path and label"
            also = "or text in place of path; split and group are optional"
            if "path" not in needed:
                wanted, also = "column label", "split and group are optional"
            raise DataError(
                f"{source}: expected a first row that names the {wanted} ({also}), "
                f"separated by commas, semicolons or tabs. Found: {held}."
                f"{_hint_of_header(header, name, texts)}"
            )
        said.append(f"the column {matches[0]} as {name}")
        columns[columns.index(matches[0])] = name
    return columns, [f"Read {', '.join(said)}."] if said else []


def _hint_of_header(header: Sequence[str], missing: str, texts: str | None) -> str:
    """Return advice on a first row in which a column is missing, or "" if the row is empty.

    Args:
        texts: name of a column of sentences.
    """
    endings = {Path(cell.replace("\\", "/")).suffix.lower() for cell in header}
    if any(endings & kind.ENDINGS for kind in KINDS.values()):
        return " This row seems to hold data: write a row such as path,label above it."
    named = sum(map(bool, header))
    if named < 2:
        return " Remove the lines above the names of the columns." if named else ""
    if missing == "path":
        path = " Give the column of files the name path, or a column of texts the name text."
        if texts is not None:
            path = f" Are the examples the texts in the column {texts}? Then give it the name text."
        labels = {_simple(word) for word in CALLED["label"]}
        if any(_simple(cell) in labels for cell in header):
            return path
        return f"{path} Give the column of class names the name label, or name it with --label."
    several = ""
    if named > 2:
        several = (
            " For one column of yes and no for each label, add --task multilabel; for numbers, add "
            "--task regress."
        )
    return f" Give the column of class names the name label, or name it with --label.{several}"


def _column_of_sentences(table: Sequence[tuple[int, list[str]]]) -> str | None:
    """Return the name of the column whose first cells have most words; None without sentences.

    Args:
        table: the numbers of the lines and the cells of all rows, the names of columns first.
    """
    words: dict[str, int] = Counter()
    for _, cells in table[1 : FEW + 1]:
        for name, cell in zip(table[0][1], cells, strict=False):
            words[name] += len(cell.split())
    most = max(words, key=words.__getitem__, default=None)
    few = len(table[1 : FEW + 1])
    return most[:LONGEST_SHOWN] if most and words[most] >= FEWEST_WORDS * few else None


def _said_of_boxes(columns: Sequence[str]) -> list[str]:
    boxes = [name for name in columns if name in BOXES]
    if len(boxes) < 2 and "bbox" not in boxes:
        return []
    return [
        f"The columns {shown(boxes, 4)} say where things are in a photo, but tfxfer takes each "
        "row as one whole photo. Cut the things out first, each as a photo of its own."
    ]


def _unused(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> list[str]:
    """Return a note for each column that is not read, with its possible meaning."""
    notes = []
    for name in columns:
        if name in CALLED or name in OPTIONAL or name in BOXES:
            continue
        values = list(dict.fromkeys(row[name] for row in rows))
        # Spreadsheets write empty cells, and data frames the numbers of the rows, without a name.
        if not name and (not any(values) or values == [str(i) for i in range(len(rows))]):
            continue
        called = name or "without a name"
        listed = shown([" ".join(value.split())[:LONGEST_SHOWN] for value in values])
        note = f"Not used: the column {called} ({listed})."
        if all(part_in(value) for value in values):
            note += " Does it say which part an example is in? Then call it split."
        elif part_in(name) or name in SPLITTING:
            note += (
                " Does it say which part an example is in? Then call it split, and write train, "
            )
            note += "validation or test."
        elif _may_name_groups(name) and 1 < len(values) < len(rows):
            note += " Must examples with the same value stay in one part? Then call it group."
        notes.append(note)
    return notes


def _may_name_groups(column: str) -> bool:
    return column.startswith("group") or any(word in column for word in GROUPS)


def _exists(file: str) -> bool:
    """Return whether a path exists and is not a folder.

    A pipe or a device is accepted here; it gives an error when it is read.
    """
    try:
        return not stat.S_ISDIR(os.stat(file).st_mode)
    except (OSError, ValueError):  # no file, or a link to itself; a name with a zero byte
        return False


def _check_groups(groups: list[str], splits: list[str], source: str) -> None:
    parts = defaultdict(set)
    for group, part in zip(groups, splits, strict=True):
        parts[group].add(part)
    if torn := sorted(group for group, held in parts.items() if len(held) > 1):
        raise DataError(
            f"{source}: the column split divides groups among parts: {shown(torn)}. Put each "
            "group into one part, or leave the column split out."
        )
