"""Find or fetch what a handle (a name, a path or a URL) stands for: a SavedModel or Keras model."""

import difflib
import importlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfxfer.errors import HandleError, MissingExtraError
from tfxfer.handles.catalog import CATALOG, Entry, find
from tfxfer.handles.keras_names import find_name

LOG = logging.getLogger(__name__)

__all__ = ["KERAS", "Entry", "Source", "check_length", "check_name", "load_keras", "resolve"]

# The prefix of a handle, and the module whose `load(handle, size, check)` loads the Keras model.
# A new kind of handle needs one such module and one row here.
KERAS = {
    "keras": "tfxfer.handles.keras_applications",
    "kerashub": "tfxfer.handles.kerashub",
    "hf": "tfxfer.handles.kerashub",
    "kaggle": "tfxfer.handles.kerashub",
}

# Builders of networks that read as much of a text as is asked for.
WITH_LENGTH = frozenset({"minilm", "wordllama"})


@dataclass(frozen=True)
class Source:
    """Where a backbone was found.

    Args:
        path: the folder that holds `saved_model.pb`.
        handle: the handle as it was given.
        entry: the row of the catalog, or None if the catalog does not list the handle.
        sha256: the SHA-256 of what the handle leads to: an archive, a file with weights, or a
            folder (see `tfxfer.handles.checksum`). None if tensorflow_hub had already put the
            download into its cache.
    """

    path: Path
    handle: str
    entry: Entry | None
    sha256: str | None = None


def load_keras(
    handle: str | os.PathLike,
    size: tuple[int, int] | None,
    check: Any,
    length: int | None = None,
) -> Any | None:
    """Return the `KerasNetwork` that a handle such as `keras:EfficientNetV2B0` names.

    Args:
        size: height and width of the images; None for the size that the network was trained on.
        check: a `Check` of files that anybody may have written.
        length: how many pieces of a text are read, for networks that take texts.

    Returns:
        None if the handle names no Keras model.

    Raises:
        HandleError: there is no such network, it can't be fetched, or it can't read texts of that
            length.
        MissingExtraError: a package is needed for it.
    """
    text = os.fspath(handle)
    prefix, colon, _ = text.partition(":")
    named = isinstance(handle, str) and find(text) is not None
    if is_preset(Path(os.path.expanduser(text))) and not named:
        prefix = "kerashub"
    elif not colon or prefix not in KERAS or not isinstance(handle, str):
        return None
    elif "#" in text:
        raise HandleError(
            f"{handle} ends in #{text.rpartition('#')[2]}, which works only for SavedModels and "
            ".keras files. To fix the content of a network of Keras, KerasHub, Hugging Face or "
            "Kaggle, save it as a .keras file, and add #sha256= to the path of that file."
        )
    LOG.info("Looking for the network %s", handle)
    try:
        loader = importlib.import_module(KERAS[prefix])
    except ModuleNotFoundError as error:
        if error.name != "keras_hub":
            raise HandleError(f"{handle} needs the package {error.name}: {error}") from error
        raise MissingExtraError(text, "kerashub") from error
    except ImportError as error:
        raise HandleError(
            f"{handle} can't be used with the version of KerasHub that is installed: {error}"
        ) from error
    return loader.load(text, size, check, length)


def is_preset(path: Path) -> bool:
    """Return whether a path looks like a preset: a folder with config.json and no SavedModel."""
    return (path / "config.json").is_file() and not (path / "saved_model.pb").exists()


def resolve(handle: str | os.PathLike, length: int | None = None) -> Source:
    """Find the SavedModel that `handle` names; fetch, unpack or build it into the cache if needed.

    Args:
        handle: a name of the catalog (`efficientnet-lite0`), a SavedModel folder, a `.tar.gz` or
            `.tgz` of one, or a URL (tfhub.dev, www.kaggle.com/models, a server of the same kind,
            gs://). It may end in `#sha256=` and 64 hexadecimal digits; then the model must have
            this SHA-256. A `pathlib.Path` is always a path.
        length: how many pieces of a text are read; only where `has_length`.

    Raises:
        ValueError: the network can't read so many pieces.
        HandleError: nothing was found, there is no internet connection, the download is damaged, or
            the SHA-256 is not the one that was asked for.
        ArchiveError: the archive is damaged, too large, or has a member that would be written
            outside its folder.
        MissingExtraError: the package of a catalog name is not installed.
    """
    LOG.info("Looking for the network %s", os.fspath(handle))
    # These modules load TensorFlow. They are imported here, so that listing the catalog does not
    # need TensorFlow.
    from tfxfer.handles import archive, checksum, folder, tfhub

    given = os.fspath(handle)
    text, wanted = given, ""
    # The name of an existing file or folder may hold a #.
    if isinstance(handle, str) and (
        tfhub.is_url(given) or not os.path.exists(os.path.expanduser(given))
    ):
        text, wanted = checksum.split(given)
    entry = find(text) if isinstance(handle, str) else None
    if entry and entry.offline:
        builder = importlib.import_module(f"tfxfer.handles.{entry.builder}")
        options = {} if length is None else {"length": length}
        path, digest = builder.build(entry, wanted, **options)
        return Source(path=path, handle=given, entry=entry, sha256=digest)
    if entry or (isinstance(handle, str) and tfhub.is_url(text)):
        path, sha256 = tfhub.fetch(entry.handle if entry else text, wanted)
        return Source(path=path, handle=given, entry=entry, sha256=sha256)
    path = Path(os.path.expanduser(text))
    if archive.is_archive(path) and not path.is_dir():
        path, digest = archive.unpack(path, wanted)
        return Source(path=path, handle=given, entry=None, sha256=digest)
    if isinstance(handle, str) and is_unknown(text):
        raise HandleError(unknown(text))
    if not (path / "saved_model.pb").is_file():
        folder.check(path)
    digest = checksum.of_folder(path)
    checksum.check(str(path), digest, wanted)
    return Source(path=folder.check(path), handle=given, entry=None, sha256=digest)


def check_name(handle: str) -> None:
    """Check what the name of a network alone shows, without TensorFlow.

    Raises:
        HandleError: it is the name of no network of the catalog or of `keras.applications`.
    """
    if os.path.exists(os.path.expanduser(handle)):
        return
    text = handle.partition("#")[0]  # the digits of a SHA-256 may follow
    if text.startswith("keras:"):
        find_name(text.removeprefix("keras:"))
    elif text.partition(":")[0] not in KERAS and is_unknown(text):
        raise HandleError(unknown(text))


def is_unknown(text: str) -> bool:
    """Return whether a handle looks like a name, but is none of the catalog and no path."""
    path = Path(os.path.expanduser(text))
    return find(text) is None and not path.exists() and len(path.parts) == 1 and not path.suffix


def has_length(handle: Any) -> bool:
    """Return whether a handle names a network of the catalog that can read texts of any length."""
    entry = find(handle.partition("#")[0]) if isinstance(handle, str) else None
    return entry is not None and entry.builder in WITH_LENGTH


def unknown(name: str) -> str:
    near = difflib.get_close_matches(
        name.lower(), [entry.name for entry in CATALOG], n=3, cutoff=0.4
    )
    nearest = f"The nearest names: {', '.join(near)}. " if near else ""
    return (
        f"{name!r} is neither a name in the catalog nor a folder here. "
        f"{nearest}`tfxfer backbones` lists the names; a URL or a path works too."
    )
