"""SHA-256 of what a handle leads to, and the `#sha256=...` behind a handle that asks for one.

Of an archive, from disk or the web, it is the hash of the file; of a backbone that is built from a package,
the hash of the file with the weights. Of a SavedModel folder it is the hash of a list: a line for
saved_model.pb and for each file in assets/ and variables/, as `sha256sum` prints it, in the order of bytes.
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
    """(a handle without its `#sha256=...`, the 64 hexadecimal digits or "").

    Raises:
        HandleError: something else stands behind the `#`.
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


def check(what: str, found: str, wanted: str) -> None:
    """Refuse what has another hash than was asked for; "" asks for none.

    Raises:
        HandleError: with both hashes.
    """
    if wanted and found != wanted:
        raise HandleError(
            f"{what} has the SHA-256 {found}, but #sha256={wanted} was asked for. It was not used: "
            "it is another file than the one you mean, or was damaged or replaced on its way."
        )


def of_file(file: BinaryIO) -> str:
    """Of an open file, from its beginning to its end; it then stands at its beginning again."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def of_folder(folder: Path) -> str:
    """Of a SavedModel folder: of a line for each of its files.

    Raises:
        HandleError: a file can't be read; or there is something that is neither file nor folder, or
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
    """What TensorFlow reads of a SavedModel, in the order of their names' bytes: its graph, assets and variables."""
    found = [folder / "saved_model.pb"]
    for name in ("assets", "variables"):
        for place, folders, files in os.walk(folder / name, followlinks=True):
            found += [Path(place, file) for file in files]
            if len(found) + len(folders) > MOST_MEMBERS:
                raise HandleError(
                    f"{folder} holds more than {MOST_MEMBERS:,} files, which no SavedModel does."
                )
    return sorted(found, key=os.fsencode)
