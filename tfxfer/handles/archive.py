"""A SavedModel packed as `.tar.gz`, `.tgz` or `.tar`, unpacked into the cache under the hash of its content.

An archive comes from strangers: nothing leaves the folder, links and devices are refused, and so is an archive that grows without measure.
"""

import gzip
import hashlib
import io
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tfxfer.cache import default_folder
from tfxfer.errors import ArchiveError
from tfxfer.handles.folder import first_line, problem, publish, set_aside, unique_beside

SUFFIXES = (".tar.gz", ".tgz", ".tar")
MAX_FILES = 10_000
MAX_BYTES = 32 * 1024**3
MAX_RATIO = 100  # weights hardly shrink; a file of zeros shrinks a thousandfold
FREE_BYTES = 64 * 1024**2  # small archives may shrink as they like


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path) -> Path:
    """The SavedModel folder inside the archive at `path`, unpacked into the cache; the same content is unpacked once.

    Raises:
        ArchiveError: damaged, too large, a member that leaves the folder or is neither file nor folder, or no SavedModel inside.
    """
    if not path.is_file():
        raise ArchiveError(
            f"{path} does not exist; expected a {', '.join(SUFFIXES)} archive of a SavedModel folder. Is the path right?"
        )
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArchiveError(f"{path} can't be read ({error.strerror}).") from error
    folder = default_folder() / "archives" / digest[:32]
    if folder.exists() and (found := fault(folder)):
        set_aside(folder, found)
    if not folder.exists():
        aside = unique_beside(folder)
        try:
            extract(path, aside)
            if found := fault(aside):
                raise ArchiveError(
                    f"{path} is no archive of a whole SavedModel: {found}. Fetch or pack it again."
                )
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        publish(aside, folder)
    return inside(folder)[0]


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


def extract(path: Path, folder: Path) -> None:
    """Unpack the archive at `path` into the new folder `folder`.

    Raises:
        ArchiveError: see `unpack`.
    """
    try:
        folder.mkdir(parents=True)
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = Limited(gzip.GzipFile(fileobj=raw) if gzipped else raw, path)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for number, member in enumerate(archive):
                    if number >= MAX_FILES:
                        raise ArchiveError(
                            f"{path} holds more than {MAX_FILES:,} files, which no SavedModel does; it was not unpacked."
                        )
                    write(archive, member, target(folder, member, path))
            while stream.read(1024 * 1024):  # to the end, where gzip keeps the checksum
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as error:
        raise ArchiveError(
            f"{path} is damaged or cut off: {first_line(error)}. Fetch it again."
        ) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f"{path} holds one name twice ({Path(error.filename).name!r}); it was not unpacked."
        ) from error
    except OSError as error:
        raise ArchiveError(
            f"{path} can't be unpacked into {folder.parent}: {error.strerror or error}."
        ) from error


def target(folder: Path, member: tarfile.TarInfo, path: Path) -> Path:
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
            f"{path} holds {member.name!r}, which would leave the folder that it is unpacked into; it was not unpacked."
        )
    if member.issym() or member.islnk():
        raise ArchiveError(
            f"{path} holds the link {member.name!r} -> {member.linkname!r}; expected files and folders only. Pack it with tar --dereference."
        )
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise ArchiveError(
            f"{path} holds {member.name!r}, which is neither a plain file nor a folder; it was not unpacked."
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


class Limited(io.RawIOBase):
    """The unpacked bytes, counted, so that headers count as well as files."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: Path):
        self.stream, self.path, self.count = stream, path, 0
        self.limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.count += len(data)
        if self.count > self.limit:
            raise ArchiveError(
                f"{self.path} unpacks to more than {self.limit / 1024**2:,.0f} MiB from {self.path.stat().st_size / 1024**2:,.1f} MiB, "
                "as no SavedModel does; it was not unpacked."
            )
        return data
