"""Unpack a `.zip` or `.tar` of photos into the cache, where it is read like any folder.

The folder in the cache is named by the hash of the archive. Archives are not trusted: nothing is
written outside the folder, and archives that unpack to far too many bytes are refused.
"""

import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tfxfer.cache import default_folder
from tfxfer.data.layout import (
    has_ending_of_example,
    hidden,
    hidden_by_dot,
    said_of_dotted,
)
from tfxfer.errors import DataError
from tfxfer.files import check_zip, open_regular
from tfxfer.handles import checksum, tar
from tfxfer.handles.aside import beside, publish
from tfxfer.limits import MOST_EXAMPLES, MOST_UNPACKED

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
OLD = "cp437"  # the encoding of names in a ZIP file that does not call them UTF-8
UTF_8 = 0x800  # the flag that does
SECOND_NAME = 0x7075  # the extra field that holds a name in UTF-8


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
            before = [info.filename for info in packed.infolist()]
            unsure = rename_members(packed)
            members = [info.filename for info in packed.infolist()]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError):
        return Names([], [], False)  # unpacking it tells what is wrong
    finally:
        file.seek(0)
    return Names(members, unsure, members != before)


def rename_members(packed: zipfile.ZipFile) -> list[str]:
    """Rename the members whose names are UTF-8 and are not marked so.

    WinZip writes a second name beside the first. Names of a Mac are UTF-8 without any mark: all of
    them together decide it, since a Chinese name in GBK may be UTF-8 by chance.

    Returns:
        The names that are neither ASCII nor UTF-8, so that nothing says what they are.
    """
    old = []
    for info in packed.infolist():
        if info.flag_bits & UTF_8 or info.filename.isascii():
            continue
        second = second_name(info)
        if second is None:
            old.append(info)
        else:
            info.filename = second
    try:
        meant = [info.filename.encode(OLD).decode("utf-8") for info in old]
    except UnicodeError:
        return [info.filename for info in old]
    for info, name in zip(old, meant, strict=True):
        info.filename = name
    return []


def second_name(info: zipfile.ZipInfo) -> str | None:
    """Return the name in UTF-8 that a member has beside the other one; None without any.

    It is an extra field: a version, the checksum of the other name, and the name
    (PKWARE's APPNOTE.TXT, 4.6.9).
    """
    rest = info.extra
    while len(rest) >= 4:
        kind, size = struct.unpack("<HH", rest[:4])
        field, rest = rest[4 : 4 + size], rest[4 + size :]
        if kind == SECOND_NAME and len(field) > 5:
            return field[5:].decode("utf-8", "replace")
    return None


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
    named = set[str]()
    for name in names.members:
        *folders, file = name.split("/")
        dotted = [part for part in folders if hidden_by_dot(part)]
        others = [part for part in (*folders, file) if part not in dotted]
        if not any(map(hidden, others)) and has_ending_of_example(file):
            named.update(dotted)
    return [*notes, *said_of_dotted(sorted(named))]


def write(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    """Write one member to a new file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with zipped.open(info) as packed, open(to, "xb") as file:
        shutil.copyfileobj(packed, file, 1024 * 1024)
