"""Find the files that a table means where its cells are names without a folder or an ending.

Tables of competitions often list 000bec18 for train/000bec18.jpg.
"""

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.folder import walk_paths
from tfxfer.data.missing import composed
from tfxfer.data.odd_cells import NEARLY
from tfxfer.errors import DataError
from tfxfer.inputs import KINDS, Kind

MOST_WALKED = 1_000_000  # files below a folder from which on no names are looked for there
FEWEST_CELLS = 2  # of a table with labels from which on a column may be that of the files
LONGEST_NAME = 255  # characters; few systems have longer names of files


@dataclass
class FilesOfKind:
    """The files of one kind below a folder, by their last names with and without the ending.

    Paths are relative to the folder, with / between the names. The names are composed (see
    `composed`), since a Mac writes an accent apart from its letter.
    """

    by_name: dict[str, list[str]] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Add a file."""
        name = composed(posixpath.basename(path))
        self.by_name.setdefault(name, []).append(path)
        self.by_stem.setdefault(posixpath.splitext(name)[0], []).append(path)

    def find_whole(self, wanted: str) -> list[str]:
        """Return the files whose last names are exactly these (see `names_in`)."""
        paths = self.by_name.get(composed(posixpath.basename(wanted)))
        return ending_with({path: path for path in paths}, wanted) if paths else []

    def find_bare(self, wanted: str) -> list[str]:
        """Return the files whose last names without the ending are these (see `names_in`)."""
        paths = self.by_stem.get(composed(posixpath.basename(wanted)))
        if not paths:
            return []
        return ending_with({path: posixpath.splitext(path)[0] for path in paths}, wanted)


def names_in(cell: str) -> str:
    """Return the names that a cell holds, with / between them."""
    return posixpath.normpath(cell.replace("\\", "/"))


def ending_with(names: Mapping[str, str], wanted: str) -> list[str]:
    """Return the paths with the last names that are wanted.

    Two files may differ only in how an accent is written. Then the same way is meant.

    Args:
        names: the names in each path.
    """
    paths = [path for path in names if ends_with(names[path], wanted)]
    return [path for path in paths if f"/{names[path]}".endswith(f"/{wanted}")] or paths


def ends_with(path: str, names: str) -> bool:
    """Return whether the last names of a path are these, however accents are written."""
    path, names = composed(path), composed(names)
    return path == names or path.endswith(f"/{names}")


class FilesBelow:
    """The files below the folder of a table, which are listed once, and only if they are needed."""

    def __init__(self, folder: Path):
        self.folder = folder

    def of(self, kind: Kind | None) -> list[tuple[Kind, FilesOfKind]]:
        """Return the files of a kind, or of each kind if it is None; nothing for too many files."""
        return [
            (KINDS[name], files)
            for name, files in self._listed.items()
            if kind is None or name == kind.NAME
        ]

    @cached_property
    def _listed(self) -> dict[str, FilesOfKind]:
        """List the files of each kind.

        Hidden folders, runs and exports are left out. Where there are very many files, as in a home
        folder, nothing is listed.
        """
        listed = {name: FilesOfKind() for name in KINDS}
        by_ending = {
            ending: [listed[name] for name, kind in KINDS.items() if ending in kind.ENDINGS]
            for kind in KINDS.values()
            for ending in kind.ENDINGS
        }
        count = 0
        start = len(os.path.join(self.folder, ""))
        for path in islice(walk_paths(self.folder), MOST_WALKED):
            count += 1
            ending = os.path.splitext(path)[1].lower()
            for files in by_ending.get(ending, ()):
                files.add(path[start:].replace(os.sep, "/"))
        return {} if count == MOST_WALKED else listed


def may_be_names(cells: Sequence[str], fewest: int = FEWEST_CELLS) -> bool:
    """Return whether nearly all cells differ and are short, as names of files are."""
    enough = NEARLY * len(cells)
    return (
        len(cells) >= fewest
        and len(set(cells)) >= enough
        and sum(len(cell) <= LONGEST_NAME for cell in cells) >= enough
    )


def name_files(cells: Sequence[str], files: FilesOfKind) -> bool:
    """Return whether nearly all cells name a file; stop as soon as too many name none."""
    lost = 0
    for cell in cells:
        wanted = names_in(cell)
        lost += not (files.find_bare(wanted) or files.find_whole(wanted))
        if lost > len(cells) - NEARLY * len(cells):
            return False
    return True


def find_meant(
    cells: Sequence[str], of_kinds: Sequence[tuple[Kind, FilesOfKind]], *, source: str
) -> list[list[str]]:
    """Return for each cell the files that it may mean, all of the kind that has most of them.

    A file of exactly the name is meant before those with an ending more, also of another kind.

    Raises:
        DataError: nearly all cells name files of two kinds.
    """
    best: list[list[str]] = [[] for _ in cells]
    several: list[tuple[Kind, list[str]]] = []
    wanted = list(map(names_in, cells))
    whole = [any(files.find_whole(names) for _, files in of_kinds) for names in wanted]
    for kind, files in of_kinds:
        meant = [
            files.find_whole(names) if is_whole else files.find_bare(names)
            for names, is_whole in zip(wanted, whole, strict=True)
        ]
        named = sum(map(bool, meant))
        if named and named >= NEARLY * len(cells):
            several.append((kind, next(filter(None, meant))))
        if named > sum(map(bool, best)):
            best = meant
    if len(several) > 1:
        (kind, [one, *_]), (other_kind, [other, *_]) = several[:2]
        raise DataError(
            f"{source}: the names are those of {kind.MANY} and of {other_kind.MANY}, such as {one} "
            f"and {other}. Write the names with their endings, such as {posixpath.basename(one)}; "
            "or move the files that are not meant away from the folder of the table."
        )
    return best


def complete_names(
    cells: Sequence[str], lines: Sequence[int], *, below: FilesBelow, kind: Kind | None, source: str
) -> tuple[list[str], list[str]] | None:
    """Return the one file that each cell means, and a note; None if no cell means a file.

    Args:
        cells: names that are no paths of files as they are.
        below: the files below the folder of the table.
        kind: what the files are; None: the kind that has most of them.

    Raises:
        DataError: a cell may mean two files, or some cells mean none, or files of two kinds.
    """
    meant = find_meant(cells, below.of(kind), source=source)
    if not any(meant):
        return None
    places = shown(folders_of([files[0] for files in meant if files]), 5)
    if lost := [
        f"{cell} (line {line})"
        for cell, line, files in zip(cells, lines, meant, strict=True)
        if not files
    ]:
        raise DataError(
            f"{source}: {len(lost)} of {len(cells)} files don't exist: {shown(lost)}. The others "
            f"are in {places}. Add these files, or remove their rows."
        )
    if unclear := [i for i, files in enumerate(meant) if len(files) > 1]:
        first = unclear[0]
        one, other = meant[first][:2]
        cure = f"Write the whole path into each cell, such as {one}"
        if posixpath.dirname(one) != posixpath.dirname(other):
            folders = folders_of([one, other])
            cure += f"; or move {folders[0]} or {folders[1]} away from the folder of the table"
        raise DataError(
            f"{source}: {len(unclear)} of {len(cells)} names fit two files: {cells[first]} (line "
            f"{lines[first]}) may be {one} or {other}. {cure}."
        )
    files = [paths[0] for paths in meant]
    return files, [said_of_places(cells, files)]


def said_of_places(cells: Sequence[str], files: Sequence[str]) -> str:
    """Return a note on where the files of a table are, and what their names lack there."""
    note = f"The files are in {shown(folders_of(files), 5)}"
    bare = sum(not ends_with(file, names_in(cell)) for cell, file in zip(cells, files, strict=True))
    if bare == len(cells):
        note += ", and their names in the table have no ending"
    elif bare:
        note += f", and {bare:,} of {len(cells):,} names in the table have no ending"
    return f"{note}: {cells[0]} is read as {files[0]}."


def folders_of(files: Sequence[str]) -> list[str]:
    """Return the folders of files, with / behind each."""
    folders = sorted({posixpath.dirname(file) for file in files})
    return [f"{folder}/" if folder else "the folder of the table" for folder in folders]


def find_column_of_files(
    columns: Mapping[str, Sequence[str]],
    below: FilesBelow,
    kind: Kind | None,
    *,
    source: str,
    fewest: int = FEWEST_CELLS,
) -> str | None:
    """Return the name of the column whose cells name files; None if there is none.

    Nearly all cells must name a file, and nearly all must differ: a class 1 is no file 1.jpg.

    Args:
        columns: the cells of each column that may be it.
        below: the files below the folder of the table.
        fewest: cells that such a column has at least.

    Raises:
        DataError: several columns name files.
    """
    possible = {name: cells for name, cells in columns.items() if may_be_names(cells, fewest)}
    naming = [
        name
        for name, cells in possible.items()
        if any(name_files(cells, files) for _, files in below.of(kind))
    ]
    if len(naming) > 1:
        raise DataError(
            f"{source}: the cells of the columns {shown(naming)} are all names of files. Call the "
            "column that is meant path."
        )
    return naming[0] if naming else None
