"""Compute the SHA-256 of a backbone, and compare it with the `#sha256=...` at the end of a handle.

For an archive, from disk or the web, it is the hash of the file. For a backbone that is built from
a package, it is the hash of the file with the weights. For a SavedModel folder it is the hash of a
text with one line for saved_model.pb and for each file in assets/ and variables/. The lines are
those that `sha256sum` prints, sorted by the bytes of the file names.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from tfxfer.errors import HandleError
from tfxfer.files import open_regular
from tfxfer.limits import MOST_MEMBERS

MARK = "#sha256="
PIECE = 1024**2


def split(handle: str) -> tuple[str, str]:
    """Split a handle into the part before `#sha256=...` and the 64 hexadecimal digits.

    Returns:
        The handle without `#sha256=...`, and the digits, or "" if there are none.

    Raises:
        HandleError: something else follows the `#`.
    """
    name, hash_sign, fragment = handle.rpartition("#")
    if not hash_sign:
        return handle, ""
    wanted = fragment.lower().removeprefix("sha256=")
    if not fragment.startswith("sha256=") or not re.fullmatch("[0-9a-f]{64}", wanted):
        raise HandleError(
            f"{handle} ends in #{fragment}; expected #sha256= and 64 hexadecimal digits, or no #."
        )
    return name, wanted


def check(what: str, digest: str, wanted: str) -> None:
    """Check that the SHA-256 `digest` is the one that was asked for.

    Args:
        what: what has this SHA-256, for the message.
        wanted: the SHA-256 that was asked for; "" for any.

    Raises:
        HandleError: they differ. The message shows both.
    """
    if wanted and digest != wanted:
        raise HandleError(
            f"{what} has the SHA-256 {digest}, but #sha256={wanted} was asked for. It was not used:"
            " it is another file than the one you mean, or was damaged or replaced on its way."
        )


def of_file(file: BinaryIO) -> str:
    """Return the SHA-256 of a whole open file, and move back to the beginning of the file."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def of_folder(folder: Path) -> str:
    """Return the SHA-256 of a SavedModel folder, as the docstring of this module describes it.

    Raises:
        HandleError: a file can't be read, something is neither a file nor a folder, or there are
            more files than a SavedModel has.
    """
    total = hashlib.sha256()
    try:
        for path in model_files(folder):
            with open_regular(path) as file:
                line = f"{of_file(file)}  {path.relative_to(folder).as_posix()}\n"
            total.update(os.fsencode(line))
    except OSError as error:
        raise HandleError(
            f"{folder} can't be read for its SHA-256: {error.filename or ''} {error.strerror}."
        ) from error
    return total.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """Return the files of a SavedModel that TensorFlow reads, sorted by the bytes of their paths.

    These are saved_model.pb and the files in assets/ and variables/.
    """
    paths = [folder / "saved_model.pb"]
    for name in ("assets", "variables"):
        for place, folders, files in os.walk(folder / name, followlinks=True):
            paths += [Path(place, file) for file in files]
            if len(paths) + len(folders) > MOST_MEMBERS:
                raise HandleError(
                    f"{folder} holds more than {MOST_MEMBERS:,} files, which no SavedModel does."
                )
    return sorted(paths, key=os.fsencode)
