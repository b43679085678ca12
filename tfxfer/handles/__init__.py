"""A handle (a name, a path or a URL) to a SavedModel folder on disk."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from tfxfer.errors import HandleError
from tfxfer.handles.catalog import CATALOG, Entry, find

__all__ = ["Entry", "Source", "resolve"]


@dataclass(frozen=True)
class Source:
    """Where a backbone was found.

    Args:
        path: a folder that holds `saved_model.pb`.
        handle: as it was given.
        entry: what the catalog says about it, None where it says nothing.
    """

    path: Path
    handle: str
    entry: Entry | None


def resolve(handle: str | os.PathLike) -> Source:
    """Find the SavedModel that `handle` names, fetching, unpacking or building it into the cache where needed.

    Args:
        handle: a name of the catalog (`efficientnet-lite0`), a SavedModel folder, a `.tar.gz` or `.tgz` of one, or a URL (tfhub.dev,
            www.kaggle.com/models, a server of the same kind, gs://). A `pathlib.Path` is always a path.

    Raises:
        HandleError: nothing there, no network, a damaged download.
        ArchiveError: an archive that is damaged, too large, or leaves its folder.
        MissingExtraError: a catalog name whose package is not installed.
    """
    # TensorFlow is loaded here and not on import, so that the catalog can be listed without it.
    from tfxfer.handles import archive, folder, lite, tfhub

    text = os.fspath(handle)
    entry = find(text) if isinstance(handle, str) else None
    if entry and entry.offline:
        return Source(lite.build(entry), text, entry)
    if entry or (isinstance(handle, str) and tfhub.is_url(text)):
        return Source(tfhub.fetch(entry.handle if entry else text), text, entry)
    path = Path(text).expanduser()
    if archive.is_archive(path) and not path.is_dir():
        return Source(archive.unpack(path), text, None)
    if isinstance(handle, str) and not path.exists() and len(path.parts) == 1 and not path.suffix:
        raise HandleError(unknown(text))
    return Source(folder.check(path), text, None)


def unknown(name: str) -> str:
    near = difflib.get_close_matches(
        name.lower(), [entry.name for entry in CATALOG], n=3, cutoff=0.4
    )
    nearest = f"The nearest names: {', '.join(near)}. " if near else ""
    return f"{name!r} is neither a name in the catalog nor a folder here. {nearest}`tfxfer backbones` lists the names; a URL or a path works too."
