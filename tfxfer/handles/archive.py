"""Unpack a SavedModel from a `.tar.gz`, `.tgz` or `.tar` archive.

The archive is unpacked into the cache, under the hash of its content.
"""

from pathlib import Path
from typing import BinaryIO

from tfxfer.cache import default_folder
from tfxfer.errors import ArchiveError
from tfxfer.files import open_regular
from tfxfer.handles import checksum
from tfxfer.handles.aside import beside, publish
from tfxfer.handles.folder import problem, set_aside
from tfxfer.handles.tar import extract

SUFFIXES = (".tar.gz", ".tgz", ".tar")


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, wanted: str = "") -> tuple[Path, str]:
    """Unpack the archive at `path` into the cache and return the SavedModel folder inside.

    The same content is unpacked only once.

    Args:
        wanted: the SHA-256 that the archive must have; "" for any.

    Returns:
        The folder, and the SHA-256 of the archive.

    Raises:
        ArchiveError: the archive is damaged or too large, a member would be written outside the
            folder or is neither a file nor a folder, or there is no SavedModel inside.
        HandleError: the SHA-256 is not `wanted`.
    """
    if not path.exists():
        raise ArchiveError(
            f"{path} does not exist; expected a {', '.join(SUFFIXES)} archive of a SavedModel "
            "folder. Is the path right?"
        )
    try:
        with open_regular(path) as file:
            digest = checksum.of_file(file)
            checksum.check(str(path), digest, wanted)
            return inside(unpack_archive(file, str(path), digest))[0], digest
    except OSError as error:
        raise ArchiveError(f"{path} can't be read ({error.strerror}).") from error


def unpack_archive(file: BinaryIO, name: str, digest: str) -> Path:
    """Return the folder of the cache with the content of the archive that has this hash."""
    folder = default_folder() / "archives" / digest[:32]
    if folder.exists() and (damage := fault(folder)):
        set_aside(folder, damage)
    if not folder.exists():
        with beside(folder) as aside:
            extract(file, aside, name)
            if damage := fault(aside):
                raise ArchiveError(
                    f"{name} is no archive of a whole SavedModel: {damage}. Fetch or pack it again."
                )
            publish(aside, folder)
    return folder


def inside(folder: Path) -> list[Path]:
    """Return the SavedModel folders in an unpacked archive: its top folder, or else those below."""
    top = folder / "saved_model.pb"
    return (
        [folder] if top.exists() else sorted(file.parent for file in folder.rglob("saved_model.pb"))
    )


def fault(folder: Path) -> str:
    """Return why an unpacked archive is not one complete SavedModel, or "" if it is."""
    folders = inside(folder)
    if len(folders) != 1:
        listed = ", ".join(str(p.relative_to(folder)) for p in folders) or "none"
        return f"it holds {len(folders)} folders with a saved_model.pb ({listed}), expected one"
    return problem(folders[0])
