"""Read files only where they are plain files, and write them so that they appear whole.

It needs only the standard library.
"""

import contextlib
import errno
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from tfxfer.limits import FREE_UNPACKED, MOST_BYTES, MOST_JSON, MOST_MEMBERS, MOST_RATIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a plain file for reading.

    Reading a pipe can wait for ever and a device has no end, so both are refused, also behind a
    symbolic link. Nothing is read from them, and opening does not wait.

    Raises:
        OSError: the file can't be opened, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file, but a folder, a pipe or a device")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """Return the content of a plain file of at most `most` bytes.

    Raises:
        OSError: see `open_regular`; or the file is larger.
    """
    with open_regular(path) as file:
        # `read` allocates as many bytes as are asked for, so ask for no more than the file has.
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, most) + 1)
        if len(content) > size:
            content += file.read(most + 1 - len(content))  # it grew
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most / 2**20:,.0f} MiB that are read")
    return content


def read_json(path: str | os.PathLike[str], most: int = MOST_JSON) -> Any:
    """Return the values of a JSON file, as a run folder's `write` wrote them.

    Raises:
        OSError: see `read_regular`.
        ValueError: the file is no JSON, or nested too deeply.
    """
    text = read_regular(path, most).decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_zip(
    archive: zipfile.ZipFile, free: int = FREE_UNPACKED, members: int = MOST_MEMBERS
) -> None:
    """Refuse a ZIP file that unpacks to far more than its size, before anything is unpacked.

    The size that is stated for a member can be trusted, since no more of it is ever read.

    Args:
        archive: opened from a file.
        free: number of bytes to which any file may unpack.
        members: number of members that the archive may have.

    Raises:
        ValueError: it has too many members, is too large, or a member would leave the folder.
    """
    infos = archive.infolist()
    if len(infos) > members:
        raise ValueError(f"it has {len(infos):,} members; at most {members:,} are read")
    size = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    held = os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]
    most = max(free, MOST_RATIO * min(packed, held))
    if size > most:
        raise ValueError(
            f"it unpacks to {size / 2**20:,.0f} MiB; at most {most / 2**20:,.0f} MiB are read"
        )
    for info in infos:
        if not is_plain_name(info.filename.rstrip("/")):
            why = "would leave the folder"
            if is_plain_name(info.filename.replace("\\", "/").rstrip("/")):
                why = "has \\ between folders, as old Windows programs write it: unpack it first"
            raise ValueError(f"its member {info.filename!r} {why}")


def is_plain_name(name: Any) -> bool:
    """Whether a text from a stranger names something inside a folder.

    The name must be relative, without `..`, and written in the one usual way.
    """
    return (
        isinstance(name, str)
        and "\\" not in name
        and "\0" not in name
        and ":" not in name.split("/")[0]
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


def remove_named(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of these names in a folder, and folders below it that are then empty.

    Nothing outside of the folder is touched: a name that would leave it, or that lies behind a
    symbolic link, is passed over.

    Raises:
        OSError: a file can't be removed.
    """
    parents: set[Path] = set()
    for name in names:
        if not is_plain_name(name):
            continue
        path = folder / name
        between = [parent for parent in path.parents if folder in parent.parents]
        if any(parent.is_symlink() or not parent.is_dir() for parent in between):
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()
            parents.update(between)
    for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # the folder holds other files
            parent.rmdir()


def appear(path: Path, aside: Path, writer: Callable[[str], Any]) -> None:
    """Let `writer(aside)` write a temporary file, which then appears whole as `path`."""
    try:
        # Remove what may be there: half a file of a killed process, or a link that somebody made so
        # that we write to another file.
        aside.unlink(missing_ok=True)
        writer(str(aside))
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file for writing, which replaces the one at `path` when the block ends.

    Where the block raises an error, the old file stays as it was. A link stays, and the file behind
    it is replaced. A device or a pipe, which has no content to lose, is written to directly.

    Raises:
        OSError: the file can't be written.
    """
    target = Path(os.path.realpath(path))
    if streams(path):
        with open(path, "wb") as file:
            yield file
        return
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    aside = target.with_name(f".{target.name[:100]}.{uuid4().hex}.tmp")
    try:
        with open(aside, "xb") as file:
            if target.exists():
                os.chmod(aside, stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        sync_folder(target.parent)
    finally:
        aside.unlink(missing_ok=True)


def streams(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a terminal, a pipe or a device, also by a name such as /dev/stdout."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # a path that doesn't exist yet becomes a plain file
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def sync_folder(folder: Path) -> None:
    """Make sure that a rename in `folder` survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
