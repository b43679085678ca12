"""A SavedModel packed as `.tar.gz`, `.tgz` or `.tar`, unpacked into the cache under the hash of its content.

An archive comes from strangers: nothing leaves the folder, links and devices are refused, and so is an archive that grows without measure.
"""

import gzip
import io
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tfxfer.cache import default_folder
from tfxfer.errors import ArchiveError
from tfxfer.files import open_regular
from tfxfer.handles import checksum
from tfxfer.handles.folder import beside, first_line, problem, publish, set_aside
from tfxfer.limits import FREE_UNPACKED, MOST_HEADER, MOST_MEMBERS, MOST_RATIO, MOST_UNPACKED

SUFFIXES = (".tar.gz", ".tgz", ".tar")
GZIP = b"\x1f\x8b"
# What tarfile and zlib raise on damaged bytes. tarfile reads numbers in headers without a check.
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
# Headers that stand before another header, with its long name or other properties.
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
HOLES = "holds a file with holes, which is not unpacked: pack it without tar --sparse"


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, wanted: str = "") -> tuple[Path, str]:
    """The SavedModel folder inside the archive at `path`, unpacked into the cache; the same content is unpacked once.

    Args:
        wanted: SHA-256 that it must have.

    Returns:
        the folder, and the SHA-256 of the archive.

    Raises:
        ArchiveError: damaged, too large, a member that leaves the folder or is neither file nor folder, or no SavedModel inside.
        HandleError: it has another hash than `wanted`.
    """
    if not path.exists():
        raise ArchiveError(
            f"{path} does not exist; expected a {', '.join(SUFFIXES)} archive of a SavedModel folder. Is the path right?"
        )
    try:
        with open_regular(path) as file:
            digest = checksum.of_file(file)
            checksum.check(str(path), digest, wanted)
            return inside(unpacked(file, str(path), digest))[0], digest
    except OSError as error:
        raise ArchiveError(f"{path} can't be read ({error.strerror}).") from error


def unpacked(file: BinaryIO, name: str, digest: str) -> Path:
    """The folder of the cache with the content of an archive that has this hash."""
    folder = default_folder() / "archives" / digest[:32]
    if folder.exists() and (found := fault(folder)):
        set_aside(folder, found)
    if not folder.exists():
        with beside(folder) as aside:
            extract(file, aside, name)
            if found := fault(aside):
                raise ArchiveError(
                    f"{name} is no archive of a whole SavedModel: {found}. Fetch or pack it again."
                )
            publish(aside, folder)
    return folder


def inside(folder: Path) -> list[Path]:
    """The SavedModels in an unpacked archive: the one at the top, else those below."""
    top = folder / "saved_model.pb"
    return (
        [folder] if top.exists() else sorted(file.parent for file in folder.rglob("saved_model.pb"))
    )


def fault(folder: Path) -> str:
    """Why an unpacked archive is not one whole SavedModel, "" where it is."""
    found = inside(folder)
    if len(found) != 1:
        listed = ", ".join(str(p.relative_to(folder)) for p in found) or "none"
        return f"it holds {len(found)} folders with a saved_model.pb ({listed}), expected one"
    return problem(found[0])


def extract(file: BinaryIO, folder: Path, name: str, members: int = MOST_MEMBERS) -> None:
    """Unpack an archive, an open file on disk, into the new folder `folder`.

    Args:
        name: of the archive, in messages.
        members: that it may have.

    Raises:
        ArchiveError: see `unpack`.
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
        while stream.read(1024 * 1024):  # to the end, where gzip keeps the checksum
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
    """Whether a file begins as gzip or tar does."""
    file.seek(0)
    start = file.read(512)
    file.seek(0)
    return start.startswith(GZIP) or start[257:262] == b"ustar"


def target(folder: Path, member: tarfile.TarInfo, archive: str) -> Path:
    """Where a member goes, if it may."""
    name = PurePosixPath(member.name)
    if (
        name.is_absolute()
        or ".." in name.parts
        or "\\" in member.name
        or "\0" in member.name
        or (name.parts and ":" in name.parts[0])
    ):
        raise ArchiveError(
            f"{archive} holds {member.name!r}, which would leave the folder that it is unpacked into; it was not unpacked."
        )
    if member.issym() or member.islnk():
        raise ArchiveError(
            f"{archive} holds the link {member.name!r} -> {member.linkname!r}; expected files and folders only. Pack it with tar --dereference."
        )
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise ArchiveError(
            f"{archive} holds {member.name!r}, which is neither a plain file nor a folder; it was not unpacked."
        )
    return folder.joinpath(*name.parts)


def write(archive: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    if member.isdir():
        to.mkdir(parents=True, exist_ok=True)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None  # `target` lets only plain files through
    with open(to, "xb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)


class RefusedError(Exception):
    """What no archive of a SavedModel holds."""


class Member(tarfile.TarInfo):
    """A member whose header is looked at before tarfile reads anything more into memory for it."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """As ever; RefusedError for a header that says it is very long, and for a file with holes."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MOST_HEADER:
            raise RefusedError(
                f"holds a header of {member.size:,} bytes, and {MOST_HEADER:,} are the most"
            )
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise RefusedError(HOLES)
        return member

    def _proc_gnusparse_10(self, *_):
        # Private, and the only way: this newer kind of holes is listed, without limit, in the content.
        raise RefusedError(HOLES)


class Limited(io.RawIOBase):
    """The unpacked bytes of an archive on disk, counted, so that headers count as well as files."""

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
                f"{self.name} unpacks to more than {self.limit / 1024**2:,.0f} MiB from {self.packed / 1024**2:,.1f} MiB, "
                "which is too much; it was not unpacked."
            )
        return data
