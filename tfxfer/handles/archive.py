"""A SavedModel packed as `.tar.gz`, `.tgz` or `.tar`.

It is unpacked into the cache under the hash of its content.
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
