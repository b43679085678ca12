"""Files: read only where they are plain files, and written so that they appear whole. Standard library."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from tfxfer.limits import MOST_BYTES


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a plain file for reading.

    A pipe would let us wait for ever and a device has no end, so both are refused, also behind a
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
    """The content of a plain file of at most `most` bytes.

    Raises:
        OSError: see `open_regular`; or the file is larger.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most / 2**20:,.0f} MiB that are read")
    return content


def appear(path: Path, aside: Path, writer: Callable[[str], Any]) -> None:
    """`writer(aside)` writes aside; the file then appears whole under its name."""
    try:
        writer(str(aside))
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
