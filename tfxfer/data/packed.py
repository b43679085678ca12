"""Unpack a `.zip` or `.tar` of photos into the cache, where it is read like any folder.

The folder in the cache is named by the hash of the archive. Archives are not trusted: nothing is
written outside the folder, and archives that unpack to far too many bytes are refused.
"""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tfxfer.cache import default_folder
from tfxfer.data.layout import (
    by_its_point,
    has_ending_of_example,
    hidden,
    said_of_pointed,
)
from tfxfer.errors import DataError
from tfxfer.files import check_zip, open_regular
from tfxfer.handles import checksum, tar
from tfxfer.handles.aside import beside, publish
from tfxfer.limits import MOST_EXAMPLES, MOST_UNPACKED

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
OLD = "cp437"  # the encoding of names in a ZIP file that does not call them UTF-8
UTF_8 = 0x800  # the flag that does


class Unpacked(NamedTuple):
    """The folder of an archive in the cache, and notes on the names in the archive."""

    folder: Path
    notes: list[str]


def is_packed(path: Path) -> bool:
    """Return whether a path is that of an existing archive, by the ending of its name."""
    return path.name.lower().endswith(SUFFIXES) and path.exists() and not path.is_dir()


def unpack_data(path: Path, source: str) -> Unpacked:
    """Unpack an archive into the cache; the same content is unpacked once.

    Args:
        source: the archive as it was given, for messages.

    Raises:
        DataError: the archive is damaged, protected by a password, or too large.
        ArchiveError: the same for a tar file.
    """
    try:
        with open_regular(path) as file:
            names = names_in(file)
            # An earlier version may have unpacked the same archive with other names.
            ending = "-utf8" if names.meant_as_utf8 else ""
            name = checksum.of_file(file)[:32] + ending
            folder = default_folder() / "photos" / name
            notes = said_of_names(names, source)
            if folder.is_dir():
                return Unpacked(folder, notes)
            with beside(folder) as aside:
                file.seek(0)
                if zipfile.is_zipfile(file):
                    unzip(file, aside, source)
                elif file.seek(0) == 0 and file.read(4) == b"PK\3\4":
                    raise DataError(
                        f"{source} is a ZIP file whose end is missing. Download or copy it again."
                    )
                elif not tar.looks_like_one(file):
                    file.seek(0)
                    raise DataError(
                        f"{source} is neither a ZIP nor a TAR file, whatever its name says: it "
                        f"begins with {file.read(12)!r}."
                    )
                else:
                    tar.extract(file, aside, source, members=MOST_EXAMPLES)
                publish(aside, folder)
            return Unpacked(folder, notes)
    except OSError as error:
        raise DataError(f"{source} can't be unpacked: {error.strerror or error}.") from error


def unzip(file: BinaryIO, folder: Path, source: str) -> None:
    """Unpack a ZIP file into a new folder.

    Raises:
        DataError: see `unpack_data`.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(file) as packed:
            rename_members(packed)
            check_zip(packed, members=MOST_EXAMPLES)
            if sum(info.file_size for info in packed.infolist()) > MOST_UNPACKED:
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED >> 30} GiB")
            for info in packed.infolist():
                names = info.filename.split("/")
                if info.is_dir() or any(hidden(name) for name in names):
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise ValueError(f"its member {info.filename!r} is a link")
                if info.flag_bits & 1:
                    raise ValueError("it is protected by a password; unpack it first")
                write(packed, info, folder.joinpath(*names))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(f"{source} can't be unpacked: {error}.") from error
    except FileExistsError as error:
        raise DataError(
            f"{source} can't be unpacked: it holds {os.path.relpath(error.filename, folder)} twice."
        ) from error


class Names(NamedTuple):
    """The names in a ZIP file as they are used, and which of them may be wrong.

    unsure: those that are neither ASCII nor UTF-8, so that nothing says what they are.
    """

    members: list[str]
    unsure: list[str]
    meant_as_utf8: bool


def names_in(file: BinaryIO) -> Names:
    """Return the names in a file; none where it is no ZIP file that can be read."""
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as packed:
            old = old_names(packed)
            changed = rename_members(packed)
            members = [info.filename for info in packed.infolist()]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError):
        return Names([], [], False)  # unpacking it tells what is wrong
    finally:
        file.seek(0)
    return Names(members, [] if changed else [info.filename for info in old], changed)


def old_names(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the members whose names are not ASCII, and that do not say that they are UTF-8."""
    return [
        info
        for info in packed.infolist()
        if not info.flag_bits & UTF_8 and not info.filename.isascii()
    ]


def rename_members(packed: zipfile.ZipFile) -> bool:
    """Rename the members whose names are UTF-8 and do not say so, as on a Mac.

    All of them together decide it: a Chinese name in GBK may be UTF-8 by chance.

    Returns:
        Whether names were changed.
    """
    old = old_names(packed)
    try:
        meant = [info.filename.encode(OLD).decode("utf-8") for info in old]
    except UnicodeError:
        return False
    for info, name in zip(old, meant, strict=True):
        info.filename = name
    return bool(old)


def said_of_names(names: Names, source: str) -> list[str]:
    """Return notes on names in an unknown encoding, and on hidden folders of examples."""
    notes = []
    unsure = [name for name in names.unsure if not any(map(hidden, name.split("/")))]
    if unsure:
        notes.append(
            f"{source} does not say how its names are encoded. They were read as {OLD}, for "
            f"example {unsure[0]}. If that is wrong, unpack the archive yourself and give the "
            "folder."
        )
    pointed = set[str]()
    for name in names.members:
        *folders, file = name.split("/")
        dotted = [part for part in folders if by_its_point(part)]
        others = [part for part in (*folders, file) if part not in dotted]
        if not any(map(hidden, others)) and has_ending_of_example(file):
            pointed.update(dotted)
    return [*notes, *said_of_pointed(sorted(pointed))]


def write(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    """Write one member to a new file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with zipped.open(info) as packed, open(to, "xb") as file:
        shutil.copyfileobj(packed, file, 1024 * 1024)
