"""The folder of an export: FOLDER/<version>/, which appears under its name when it is complete."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import tensorflow as tf

from tfxfer.data.duplicates import shown
from tfxfer.errors import ServingError
from tfxfer.handles.folder import plain_path

EXTRA = "assets.extra"  # folder of what TensorFlow Serving, or people, read besides the model


def placed(to: str | os.PathLike, version: int | None, write: Callable[[Path], None]) -> Path:
    """Write an export to a temporary folder, and move it to the folder of its version.

    Args:
        version: by default the largest one in `to` + 1.
        write: `write(folder)` writes the export.

    Returns: the folder of the version.

    Raises:
        ServingError: the folder can't be written or holds other things, or the version exists.
    """
    to = Path(to)
    check_place(to, version)
    aside = to / f".export-{uuid4().hex}"
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ServingError(
            f"{to} can't be written: {error.strerror or error}. Choose a folder that exists or can "
            "be made."
        ) from error
    try:
        # TensorFlow takes brackets in a path for a pattern, so such a path goes through a link.
        write(plain_path(aside))
        return move(aside, to, version)
    except (OSError, tf.errors.OpError) as error:
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else str(error).strip().splitlines()[0]
        )
        raise ServingError(
            f"the export to {to} failed: {reason}. Nothing was left there; make room, or choose "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_place(to: str | os.PathLike, version: int | None) -> None:
    """Check that an export may be written to a folder.

    Raises:
        ServingError: the folder is a run's own, it holds other things and no export, or the version
            exists.
    """
    to = Path(to)
    if (to / "settings.json").exists():
        raise ServingError(f"{to} is a run's own folder. Choose another one for exports.")
    if version is not None and (to / str(version)).exists():
        raise ServingError(
            f"{to / str(version)} exists already. Leave --version out for the next free one "
            f"({following(to)}), or choose another."
        )
    others = sorted(path for path in to.glob("*") if not path.name.startswith("."))
    if others and not any(is_export(to / str(number)) for number in versions(to)):
        raise ServingError(
            f"{to} holds {shown([path.name for path in others])}, and no export. Expected a new "
            "folder, an empty one, or one with earlier exports."
        )


def is_export(version: Path) -> bool:
    """Return whether a folder holds a SavedModel or LiteRT files."""
    return (version / "saved_model.pb").is_file() or any(version.glob("*.tflite"))


def move(aside: Path, to: Path, version: int | None = None) -> Path:
    """Make what was written durable, then give it its version."""
    for path in (aside, *aside.rglob("*")):
        synced(path)
    while True:
        place = to / str(following(to) if version is None else version)
        try:
            aside.rename(place)
            break
        except OSError as error:
            if not place.exists():
                raise
            if version is not None:
                raise ServingError(
                    f"{place} was made by another export in the meantime. Choose another --version."
                ) from error
    synced(to)
    return place


def versions(folder: Path) -> list[int]:
    return (
        sorted(int(name) for name in os.listdir(folder) if name.isascii() and name.isdigit())
        if folder.is_dir()
        else []
    )


def following(folder: Path) -> int:
    """The largest version in the folder + 1."""
    return 1 + max(versions(folder), default=0)


def latest(folder: Path) -> Path | None:
    """The export with the largest version; None where there is none."""
    return next(
        (
            path
            for version in reversed(versions(folder))
            if ((path := folder / str(version)) / "saved_model.pb").is_file()
        ),
        None,
    )


def synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
