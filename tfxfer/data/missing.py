"""Give advice on files that a table lists and that do not exist.

Most often the files exist, but the paths are written for another folder or another machine.
"""

import itertools
import ntpath
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from tfxfer.data.layout import hidden
from tfxfer.inputs import Kind

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)
MOST_FILES = 100_000  # the most files that are searched for one of the same name


def hint_of_missing(files: Sequence[str], folder: Path, kind: Kind) -> str:
    """Return advice on paths that do not exist, or "" if there is none.

    Args:
        files: the paths as they are in the table, at least one.
        folder: the folder of the table.
    """
    first = files[0]
    address = ADDRESS.match(first)
    if address and address[0].lower() != "file://":
        return " These are web addresses. Download the files, and write their paths instead."
    windows = ""
    if "\\" in first or ntpath.splitdrive(first)[0]:
        windows = " These are Windows paths, which lead to folders of another machine."
    if there := similar(first, folder, kind):
        if composed(there) == composed(first) or not first.isprintable():
            there, first = ascii(there), ascii(first)  # otherwise they would look the same
        return f"{windows} Does {first} mean {there}? Then write it like this."
    if windows:
        return windows
    if (folder / first).is_dir():
        return f" {first} is a folder. Expected a row for each file."
    if os.path.isabs(first) or address or first.startswith(("~", "$")):
        return " Write them relative to it, such as photos/1.jpg."
    return ""


def similar(path: str, folder: Path, kind: Kind) -> str | None:
    """Return the path of the image below a folder that has nearly the same name as `path`.

    Upper and lower case, the ending, escaped characters and the forms of Unicode may differ.

    Returns:
        The path relative to `folder`, or None if there is no such image or more than one.
    """
    wanted = plain(unquote(path).replace("\\", "/").rsplit("/", 1)[-1])
    matches = [
        file
        for file in itertools.islice(examples_below(folder, kind), MOST_FILES)
        if wanted in (plain(file.name), plain(file.stem))
    ]
    if len(matches) > 1:  # the name is there in several folders, so the folder in `path` decides
        ends = plain(unquote(path).replace("\\", "/")).split("/")[-2:]
        matches = [file for file in matches if plain(file.parent.name) == ends[0]]
    return matches[0].relative_to(folder).as_posix() if len(matches) == 1 else None


def examples_below(folder: Path, kind: Kind) -> Iterator[Path]:
    """Yield the files of examples below a folder.

    Hidden folders are skipped; links to folders are not followed.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(name)]
        for name in names:
            if os.path.splitext(name)[1].lower() in kind.ENDINGS:
                yield Path(place, name)


def plain(name: str) -> str:
    """Return a file name in a form to compare: lower case, composed, without blanks around it."""
    return composed(name).casefold().strip()


def composed(name: str) -> str:
    """Return a name in which an accent and its letter are one character (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)
