"""Write a new folder of the cache under a temporary name, and rename it when it is complete.

This module needs only the standard library, not TensorFlow.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tfxfer.errors import HandleError
from tfxfer.files import sync_folder
from tfxfer.safety.names import one_line

MOST_SAID = 300  # characters shown of an error text that may come from an untrusted file or server
ABANDONED = 24 * 3600  # seconds after which an unfinished folder counts as left by a dead process
# An empty file in each unfinished folder of tfxfer. Folders without it are never removed.
MARK = "unfinished-by-tfxfer"
# A cache folder is named by a hash, or by name, builder and hash. A random number follows.
UNFINISHED = re.compile(
    r"([0-9a-f]{32}|[0-9a-f]{40}|[\w.-]+-[0-9]+-[0-9a-f]{16})\.([0-9a-f]{12}|[0-9a-f]{32})\.tmp"
)


@contextlib.contextmanager
def beside(folder: Path, number: str = "") -> Iterator[Path]:
    """Yield a temporary path, on the same disk as `folder`, at which it can be written.

    When the folder is complete, `publish` renames it. What is left at the temporary path is removed
    at the end. The path lies in a new folder that holds the file `MARK`. Such folders that killed
    processes left, and no others, are removed first.

    Args:
        number: a hexadecimal number for the name; a random one by default.

    Yields:
        The temporary path. Nothing exists there yet.

    Raises:
        HandleError: the parent of `folder` can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        place = folder.with_name(f"{folder.name}.{number or uuid.uuid4().hex[:12]}.tmp")
        place.mkdir()
        (place / MARK).touch()
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    try:
        yield place / "model"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove folders that killed processes left: named by tfxfer, marked, and a day old."""
    for left in parent.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            old = left.lstat().st_mtime < time.time() - ABANDONED
            if old and UNFINISHED.fullmatch(left.name) and (left / MARK).is_file():
                shutil.rmtree(left, ignore_errors=True)


def publish(aside: Path, folder: Path) -> None:
    """Rename the complete folder `aside` to `folder`, after all its files are written to disk.

    If another process was faster, the folder of that process stays.

    Raises:
        HandleError: `folder` can't be written.
    """
    try:
        for place, _, files in os.walk(aside, topdown=False):
            for name in files:
                with open(Path(place, name), "rb+") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(place))
        os.rename(aside, folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not folder.exists():
            raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> HandleError:
    return HandleError(
        f"{folder} can't be written ({error.strerror or error}). Choose another folder for the "
        "cache with TFXFER_CACHE_DIR."
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, safe to print, or its type if it has no text."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0][:MOST_SAID]).rstrip(".") if lines else type(error).__name__
