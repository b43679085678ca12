"""The files that a table names: whether they are there, and what they are."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.missing import hint_of_missing
from tfxfer.data.named_files import FilesBelow, complete_names
from tfxfer.errors import DataError
from tfxfer.inputs import DEFAULT, KINDS, Kind


def kind_of_files(files: Sequence[str]) -> Kind:
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
        hint = hint_of_missing(lost, table.parent, kind or kind_of_files(files))
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


def _exists(file: str) -> bool:
    """Return whether a path exists and is not a folder.

    A pipe or a device is accepted here; it gives an error when it is read.
    """
    try:
        return not stat.S_ISDIR(os.stat(file).st_mode)
    except (OSError, ValueError):  # no file, or a link to itself; a name with a zero byte
        return False
