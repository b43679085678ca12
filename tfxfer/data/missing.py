"""Advice on files that a table names and that are not there: most often the same files are, and a
path is written for another folder or another machine.
"""

import itertools
import ntpath
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from tfxfer.data.images import ENDINGS
from tfxfer.data.layout import hidden

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)
MOST_FILES = 100_000  # that are looked through for one of the same name


def hint_of_missing(files: Sequence[str], folder: Path) -> str:
    """Advice on paths that lead nowhere; "" where there is none.

    Args:
        files: as the table has them, one at least.
        folder: of the table.
    """
    first = files[0]
    address = ADDRESS.match(first)
    if address and address[0].lower() != "file://":
        return " These are addresses. Download the files, and write where they are."
    windows = ""
    if "\\" in first or ntpath.splitdrive(first)[0]:
        windows = " These are Windows paths, which name folders of that machine."
    if there := similar(first, folder):
        if composed(there) == composed(first) or not first.isprintable():
            there, first = ascii(there), ascii(first)  # they look the same
        return f"{windows} Is {there} meant by {first}? Then write it so."
    if windows:
        return windows
    if (folder / first).is_dir():
        return f" {first} is a folder. Expected a row for each file."
    if os.path.isabs(first) or address or first.startswith(("~", "$")):
        return " Write them as seen from there, such as photos/1.jpg."
    return ""


def similar(path: str, folder: Path) -> str | None:
    """The one image below a folder that has the same name, but for capitals, the ending, escaped
    characters and Unicode's forms; None where there is none, or where there are several.
    """
    wanted = plain(unquote(path).replace("\\", "/").rsplit("/", 1)[-1])
    found = [
        file
        for file in itertools.islice(images_below(folder), MOST_FILES)
        if wanted in (plain(file.name), plain(file.stem))
    ]
    if len(found) > 1:  # in several folders: the path may say which
        ends = plain(unquote(path).replace("\\", "/")).split("/")[-2:]
        found = [file for file in found if plain(file.parent.name) == ends[0]]
    return found[0].relative_to(folder).as_posix() if len(found) == 1 else None


def images_below(folder: Path) -> Iterator[Path]:
    """The image files below a folder; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(name)]
        for name in names:
            if os.path.splitext(name)[1].lower() in ENDINGS:
                yield Path(place, name)


def plain(name: str) -> str:
    """A file's name without what does not matter."""
    return composed(name).casefold().strip()


def composed(name: str) -> str:
    """An accent and its letter as one character."""
    return unicodedata.normalize("NFC", name)
