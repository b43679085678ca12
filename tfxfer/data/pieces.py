"""Find folders side by side that are pieces of one download.

Google Drive packs a large folder as `photos-20240101T120000Z-001.zip`, `-002.zip` and so on, and
each archive holds some of the folders in it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.parts import WORD
from tfxfer.errors import DataError, NoClassFoldersError

LAST_NUMBER = re.compile(r"[-_. ]*\(?\d+\)?$")
DRIVE = re.compile(r"-\d{8}T(\d{6})?Z?(-\d+)?-\d+$")
# Names, without the number, of numbered folders that are pieces of a set and not classes.
HOLDERS = {"archive", "download", "export", "takeout", "dataset", "data", "images", "imgs"}
HOLDERS |= {"photos", "pictures"}
PIECES = HOLDERS | {"part", "piece", "batch", "chunk", "shard", "subset", "zip"}


def check_pieces(below: Mapping[Path, Sequence[str]], source: str, hint: str) -> None:
    """Check that folders are not pieces of one set, by their names.

    Folders that hold only folders are checked. Folders that hold images are checked only if all
    folders have such a name, such as `images_part_1`.

    Args:
        below: for each folder the names of the folders with images in it; empty if images lie
            directly in it.
        source: the data as it was given, for messages.
        hint: more advice, added to the message.

    Raises:
        DataError: some folders are pieces of one set. The message lists them.
    """
    groups: dict[str, list[Path]] = {}
    for top, names in below.items():
        if names and (name := name_of_set(top.name)) is not None:
            groups.setdefault(name, []).append(top)
    sets = {name_of_set(top.name) for top in below}
    if len(below) > 1 and len(sets) == 1 and not any(below.values()):
        words = {word.casefold() for word in WORD.findall(sets.pop() or "")}
        if words & HOLDERS:
            raise NoClassFoldersError(
                f"{source}: {shown([top.name + '/' for top in below])} are pieces of one set by "
                "their names, not classes, so that nothing says what is in them. Expected a "
                f"folder for each class.{hint}"
            )
    for pieces in groups.values():
        if len(pieces) > 1:
            folders = sorted({name for top in pieces for name in below[top]})
            raise DataError(
                f"{source}: {shown([top.name + '/' for top in pieces])} are pieces of one set by "
                f"their names, not classes. Put the folders in them "
                f"({shown([name + '/' for name in folders])}) into one folder, join those of the "
                f"same name, and give that folder.{hint}"
            )


def name_of_set(name: str) -> str | None:
    """Return the name that all pieces of a set share, or None if `name` is not that of a piece."""
    if DRIVE.search(name):
        return DRIVE.sub("", name).casefold()
    stem = LAST_NUMBER.sub("", name)
    words = WORD.findall(stem)
    if stem == name or not words or words[-1].casefold() not in PIECES:
        return None
    return stem.casefold()
