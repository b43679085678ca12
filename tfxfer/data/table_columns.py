"""Which column of a table holds what, by its name or by its cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfxfer.data.cells import FEW, Held, find_held, look_like_files
from tfxfer.data.duplicates import shown
from tfxfer.data.named_files import FEWEST_CELLS, FilesBelow, find_column_of_files
from tfxfer.data.odd_cells import said_of_left_out
from tfxfer.data.parts import part_in
from tfxfer.errors import DataError
from tfxfer.inputs import KINDS, Kind
from tfxfer.tasks import Task
from tfxfer.tasks.cells import LONGEST_SHOWN

# Names that other programs give to the two required columns.
CALLED = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img"),
    "label": ("label", "class", "category", "class_name", "classname", "label_name", "target"),
}
CALLED["path"] += ("image_path", "img_path", "image_name", "image_file")
CALLED["label"] += ("classes", "categories", "category_name")
OPTIONAL = ("split", "group")
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
FEWEST_WORDS = 3  # of a cell, on average, from which a column seems to hold sentences
FEWEST_WORDS_OF_PART = 2  # the same for parts of a text, such as the subject of a mail


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
    called = {simplify(word) for word in CALLED["label"]}
    asked = {name.casefold() for name in labels}
    others = {
        name: place
        for place, name in enumerate(cell.casefold() for cell in header)
        if name and name not in {*asked, *OPTIONAL, *BOXES}
    }
    cells = {
        name: [row[place] for _, row in table[1:] if len(row) > place and row[place]]
        for name, place in others.items()
        if simplify(name) not in called
    }
    column = find_column_of_files(cells, below, kind, source=source, fewest=fewest)
    if column is None:
        return {}
    left = [name for name in others if name != column]
    if any(simplify(name) in called for name in left) or len(left) != 1:
        return {"path": column}
    return {"path": column, "label": left[0]}


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
    return simplify(column) in {simplify(word) for word in CALLED["path"]}


def find_label_columns(
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


def simplify(name: str) -> str:
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
        called_simply = {simplify(word) for word in called}
        matches = [column for column in columns if simplify(column) in called_simply]
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
        labels = {simplify(word) for word in CALLED["label"]}
        if any(simplify(cell) in labels for cell in header):
            return path
        return f"{path} Give the column of class names the name label, or name it with --label."
    several = ""
    if named > 2:
        several = (
            " For one column of yes and no for each label, add --task multilabel; for numbers, add "
            "--task regress."
        )
    return f" Give the column of class names the name label, or name it with --label.{several}"


def find_column_of_sentences(table: Sequence[tuple[int, list[str]]]) -> str | None:
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


def said_of_boxes(columns: Sequence[str]) -> list[str]:
    boxes = [name for name in columns if name in BOXES]
    if len(boxes) < 2 and "bbox" not in boxes:
        return []
    return [
        f"The columns {shown(boxes, 4)} say where things are in a photo, but tfxfer takes each "
        "row as one whole photo. Cut the things out first, each as a photo of its own."
    ]


def said_of_unused(
    columns: Sequence[str], rows: Sequence[dict[str, str]], held: Held | None
) -> list[str]:
    """Return a note for each column that is not read, with its possible meaning.

    Args:
        held: the columns that hold the examples; None where the rows name files.
    """
    notes = []
    parts = () if held is None else _names_of_further_parts(held)
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
        elif held is not None and parts and _may_hold_part(values, len(rows)):
            note += f" Is it a part of the {held.kind.ONE}? Then call it {parts[0]}."
        notes.append(note)
    return notes


def _names_of_further_parts(held: Held) -> list[str]:
    """Return a name for each further column that examples can be joined from."""
    return [group[0] for group in held.kind.CELLS if not set(group) & set(held.columns)]


def _may_hold_part(values: Sequence[str], count: int) -> bool:
    """Return whether a column may hold a part of each example: words, different in many rows.

    Args:
        values: the different cells.
        count: the number of rows.
    """
    words = sum(len(value.split()) for value in values)
    return 2 * len(values) > count and words >= FEWEST_WORDS_OF_PART * len(values)


def _may_name_groups(column: str) -> bool:
    return column.startswith("group") or any(word in column for word in GROUPS)
