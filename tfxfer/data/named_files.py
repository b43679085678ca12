"""Find the files that a table means where its cells are names without a folder or an ending.

Tables of competitions often list 000bec18 for train/000bec18.jpg.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.folder import walk_files
from tfxfer.data.odd_cells import NEARLY
from tfxfer.errors import DataError
from tfxfer.inputs import KINDS, Kind

MOST_WALKED = 1_000_000  # files below a folder from which on no names are looked for there
FEWEST_CELLS = 2  # from which on a column that has another name may be that of the files


@dataclass
class FilesBelow:
    """The files of one kind below a folder, by their last names with and without the ending.

    Paths are relative to the folder, with / between the names.
    """

    by_name: dict[str, list[str]] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)

    def find(self, cell: str) -> list[str]:
        """Return the files that a cell may mean, at any place below the folder.

        A file of exactly this name is meant before those with an ending more.
        """
        wanted = posixpath.normpath(cell.replace("\\", "/"))
        last = posixpath.basename(wanted)
        exact = [path for path in self.by_name.get(last, ()) if ends_with(path, wanted)]
        if exact:
            return exact
        return [
            path
            for path in self.by_stem.get(last, ())
            if ends_with(posixpath.splitext(path)[0], wanted)
        ]


def ends_with(path: str, names: str) -> bool:
    """Return whether the last names of a path are these."""
    return path == names or path.endswith(f"/{names}")


def find_below(folder: Path, kinds: Iterable[Kind]) -> list[FilesBelow]:
    """List the files of each kind below a folder.

    Hidden folders, runs and exports are left out. Where there are very many files, as in a home
    folder, nothing is listed.
    """
    all_below = {kind.NAME: (kind, FilesBelow()) for kind in kinds}
    count = 0
    for path in islice(walk_files(folder), MOST_WALKED):
        count += 1
        for kind, below in all_below.values():
            if path.suffix.lower() in kind.ENDINGS:
                name = path.relative_to(folder).as_posix()
                below.by_name.setdefault(path.name, []).append(name)
                below.by_stem.setdefault(path.stem, []).append(name)
    if count == MOST_WALKED:
        return []
    return [below for _, below in all_below.values()]


def find_meant(cells: Sequence[str], all_below: Sequence[FilesBelow]) -> list[list[str]]:
    """Return for each cell the files that it may mean, all of the kind that has most of them."""
    best: list[list[str]] = [[] for _ in cells]
    for below in all_below:
        meant = [below.find(cell) for cell in cells]
        if sum(map(bool, meant)) > sum(map(bool, best)):
            best = meant
    return best


def complete_names(
    cells: Sequence[str], lines: Sequence[int], *, folder: Path, kind: Kind | None, source: str
) -> tuple[list[str], list[str]] | None:
    """Return the one file that each cell means, and a note; None if no cell means a file.

    Args:
        cells: names that are no paths of files as they are.
        folder: the folder of the table.
        kind: what the files are; None: the kind that has most of them.

    Raises:
        DataError: a cell may mean two files, or some cells mean none.
    """
    kinds = [kind] if kind is not None else KINDS.values()
    meant = find_meant(cells, find_below(folder, kinds))
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
    bare = sum(
        not ends_with(file, posixpath.normpath(cell.replace("\\", "/")))
        for cell, file in zip(cells, files, strict=True)
    )
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
    columns: Mapping[str, Sequence[str]], folder: Path, kind: Kind | None, *, source: str
) -> str | None:
    """Return the name of the column whose cells name files; None if there is none.

    Nearly all cells must name a file, and nearly all must differ: a class 1 is no file 1.jpg.

    Args:
        columns: the cells of each column that may be it.
        folder: the folder of the table.

    Raises:
        DataError: several columns name files.
    """
    different = {
        name: cells
        for name, cells in columns.items()
        if len(cells) >= FEWEST_CELLS and len(set(cells)) >= NEARLY * len(cells)
    }
    if not different:
        return None
    all_below = find_below(folder, [kind] if kind is not None else KINDS.values())
    naming = [
        name
        for name, cells in different.items()
        if sum(map(bool, find_meant(cells, all_below))) >= NEARLY * len(cells)
    ]
    if len(naming) > 1:
        raise DataError(
            f"{source}: the cells of the columns {shown(naming)} are all names of files. Call the "
            "column that is meant path."
        )
    return naming[0] if naming else None
