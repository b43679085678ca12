"""Unpack a tar file, with or without gzip, into a folder.

Archives are not trusted: nothing is written outside the folder, and links, devices and archives
that unpack to far too many bytes are refused. The module needs only the standard library, not
TensorFlow.
"""

import gzip
import io
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tfxfer.errors import ArchiveError
from tfxfer.handles.aside import first_line
from tfxfer.limits import FREE_UNPACKED, MOST_HEADER, MOST_MEMBERS, MOST_RATIO, MOST_UNPACKED

GZIP = b"\x1f\x8b"
# The errors that tarfile and zlib raise on damaged bytes. tarfile does not check the numbers in a
# header, hence the general ones.
DAMAGES = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    AttributeError,
)
# Extra headers, which precede the header of a member and hold its long name or other properties.
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
HOLES = "holds a file with holes, which is not unpacked: pack it without tar --sparse"


def extract(file: BinaryIO, folder: Path, name: str, members: int = MOST_MEMBERS) -> None:
    """Unpack an archive, an open file on disk, into the new folder `folder`.

    Args:
        name: the name of the archive, for messages.
        members: the most members that it may have.

    Raises:
        ArchiveError: the archive is damaged or too large, or a member would be written outside the
            folder or is neither a file nor a folder.
    """
    try:
        folder.mkdir(parents=True)
        stream = Limited(file, name)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Member) as archive:
            for number, member in enumerate(archive):
                if number >= members:
                    raise ArchiveError(
                        f"{name} holds more than {members:,} files, which is too many; it was "
                        "not unpacked."
                    )
                write(archive, member, target(folder, member, name))
        while stream.read(1024 * 1024):  # gzip compares its checksum when it reads the end
            pass
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f"{name} holds one name twice ({Path(error.filename).name!r}); it was not unpacked."
        ) from error
    except RefusedError as error:
        raise ArchiveError(f"{name} {error}; it was not unpacked.") from error
    except DAMAGES as error:
        raise ArchiveError(
            f"{name} is damaged or cut off: {first_line(error)}. Fetch it again."
        ) from error
    except OSError as error:
        raise ArchiveError(
            f"{name} can't be unpacked into {folder.parent}: {error.strerror or error}."
        ) from error


def looks_like_one(file: BinaryIO) -> bool:
    """Return whether the first bytes of a file are those of a gzip or tar file."""
    file.seek(0)
    start = file.read(512)
    file.seek(0)
    return start.startswith(GZIP) or start[257:262] == b"ustar"


def target(folder: Path, member: tarfile.TarInfo, archive: str) -> Path:
    """Return the path that a member is unpacked to.

    Raises:
        ArchiveError: the path is outside the folder, or the member is neither a plain file nor a
            folder.
    """
    name = PurePosixPath(member.name)
    if (
        name.is_absolute()
        or ".." in name.parts
        or "\\" in member.name
        or "\0" in member.name
        or (name.parts and ":" in name.parts[0])
    ):
        raise ArchiveError(
            f"{archive} holds {member.name!r}, which would leave the folder that it is unpacked "
            "into; it was not unpacked."
        )
    if member.issym() or member.islnk():
        raise ArchiveError(
            f"{archive} holds the link {member.name!r} -> {member.linkname!r}; expected files and "
            "folders only. Pack it with tar --dereference."
        )
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise ArchiveError(
            f"{archive} holds {member.name!r}, which is neither a plain file nor a folder; it was "
            "not unpacked."
        )
    return folder.joinpath(*name.parts)


def write(archive: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    if member.isdir():
        to.mkdir(parents=True, exist_ok=True)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None  # `target` accepts only plain files and folders
    with open(to, "xb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)


class RefusedError(Exception):
    """The archive holds something that no archive of a SavedModel holds."""


class Member(tarfile.TarInfo):
    """A member whose header is checked before tarfile reads anything more into memory for it."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """Read a header like `tarfile.TarInfo.frombuf`, and check it.

        Raises:
            RefusedError: it is an extra header that says it is very long, or it is that of a file
                with holes.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MOST_HEADER:
            raise RefusedError(
                f"holds a header of {member.size:,} bytes, and {MOST_HEADER:,} are the most"
            )
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise RefusedError(HOLES)
        return member

    def _proc_gnusparse_10(self, *_):
        # tarfile has no public method for this. The newer sparse format lists the holes in the
        # content of the file, and that list has no limit.
        raise RefusedError(HOLES)


class Limited(io.RawIOBase):
    """A stream of the unpacked bytes of an archive on disk, which counts and limits them.

    It counts all bytes, so that headers count as well as files.
    """

    def __init__(self, file: BinaryIO, name: str):
        self.name, self.count = name, 0
        self.packed = os.fstat(file.fileno()).st_size
        self.limit = min(MOST_UNPACKED, max(FREE_UNPACKED, MOST_RATIO * self.packed))
        file.seek(0)
        gzipped = file.read(2) == GZIP
        file.seek(0)
        self.stream: BinaryIO | gzip.GzipFile = (
            gzip.GzipFile(fileobj=file, mode="rb") if gzipped else file
        )

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.count += len(data)
        if self.count > self.limit:
            raise ArchiveError(
                f"{self.name} unpacks to more than {self.limit / 1024**2:,.0f} MiB from "
                f"{self.packed / 1024**2:,.1f} MiB, which is too much; it was not unpacked."
            )
        return data
