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
from typing import BinaryIO

from tfxfer.cache import default_folder
from tfxfer.data.layout import hidden
from tfxfer.errors import DataError
from tfxfer.files import check_zip, open_regular
from tfxfer.handles import checksum, tar
from tfxfer.handles.aside import beside, publish
from tfxfer.limits import MOST_EXAMPLES, MOST_UNPACKED

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def is_packed(path: Path) -> bool:
    """Return whether a path is that of an existing archive, by the ending of its name."""
    return path.name.lower().endswith(SUFFIXES) and path.exists() and not path.is_dir()


def unpack_data(path: Path, source: str) -> Path:
    """Unpack an archive into the cache and return the folder; the same content is unpacked once.

    Args:
        source: the archive as it was given, for messages.

    Raises:
        DataError: the archive is damaged, protected by a password, or too large.
        ArchiveError: the same for a tar file.
    """
    try:
        with open_regular(path) as file:
            folder = default_folder() / "photos" / checksum.of_file(file)[:32]
            if folder.is_dir():
                return folder
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
            return folder
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


def write(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    """Write one member to a new file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with zipped.open(info) as packed, open(to, "xb") as file:
        shutil.copyfileobj(packed, file, 1024 * 1024)
