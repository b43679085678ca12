"""A new folder of the cache, made aside and put in its place when it is whole.

It needs the standard library only, and no TensorFlow.
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
from tfxfer.names import one_line

MOST_SAID = 300  # characters of an error that a stranger's file or server may have worded
ABANDONED = 24 * 3600  # seconds until an unfinished folder is taken for that of a dead process
MARK = "unfinished-by-tfxfer"  # a file in each unfinished folder of ours; nothing else is swept out
# Cache folders are called by a hash, or by name, builder and hash; then comes a random number.
UNFINISHED = re.compile(
    r"([0-9a-f]{32}|[0-9a-f]{40}|[\w.-]+-[0-9]+-[0-9a-f]{16})\.([0-9a-f]{12}|[0-9a-f]{32})\.tmp"
)


@contextlib.contextmanager
def beside(folder: Path, number: str = "") -> Iterator[Path]:
    """A free name for an unfinished `folder`, on the same disk, from which `publish` renames it; what is left there goes at the end.

    It lies in a folder of its own that holds our mark. Such folders of killed processes, and only such,
    are swept out first.

    Args:
        number: hexadecimal, for its name; a random one by default.

    Raises:
        HandleError: the folder above can't be written.
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
    """Remove what killed processes left: folders with a name of ours and our mark, a day old."""
    for left in parent.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process swept first
            old = left.lstat().st_mtime < time.time() - ABANDONED
            if old and UNFINISHED.fullmatch(left.name) and (left / MARK).is_file():
                shutil.rmtree(left, ignore_errors=True)


def publish(aside: Path, folder: Path) -> None:
    """Rename the finished folder `aside` to `folder`, everything on disk first; where another process was faster, its folder stays."""
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
        f"{folder} can't be written ({error.strerror or error}). Choose another folder for the cache with TFXFER_CACHE_DIR."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, harmless for a terminal, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0][:MOST_SAID]).rstrip(".") if lines else type(error).__name__
