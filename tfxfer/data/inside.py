"""Check that the paths in a table that came in an archive lead to files of this archive.

Such a table is not trusted: its paths could name any file of the machine.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError


def check_inside(
    cells: Sequence[str], lines: Sequence[int], *, table: Path, inside: Path, source: str
) -> None:
    """Check that no path of a table leads out of a folder, neither by its names nor by a link.

    Args:
        cells: the paths, relative to the folder of the table; \\ may stand for /.
        inside: the folder.

    Raises:
        DataError: a path leads elsewhere.
    """
    top = os.path.realpath(inside)
    real: dict[str, str] = {}  # by the folder, since many files lie in one
    outside = [
        f"{cell} (line {line})"
        for cell, line in zip(cells, lines, strict=True)
        if any(
            not _is_below(os.path.join(table.parent, path), top, real)
            for path in {cell, cell.replace("\\", "/")}
        )
    ]
    if outside:
        raise DataError(
            f"{source}: {len(outside)} of {len(cells)} paths lead out of the archive: "
            f"{shown(outside)}. Expected files in the archive. If you trust the table, unpack the "
            "archive and give the table."
        )


def _is_below(path: str, top: str, real: dict[str, str]) -> bool:
    """Return whether a file lies below a folder.

    Args:
        real: folders with where they really are, to which new ones are added.
    """
    if "\0" in path:
        return True  # no file has such a name
    folder, name = os.path.split(path)
    if name in (".", "..") or os.path.islink(path):
        return _starts_with(os.path.realpath(path), top)
    if folder not in real:
        real[folder] = os.path.realpath(folder)
    return _starts_with(os.path.join(real[folder], name), top)


def _starts_with(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip(os.sep) + os.sep)
