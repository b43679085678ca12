"""A folder of class folders, alone or below train/, validation/ and test/."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.images import ENDINGS, kind
from tfxfer.errors import DataError
from tfxfer.files import open_regular, read_regular

PARTS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
LAYOUT = """
  photos/
    cats/  one.jpg  two.jpg ...
    dogs/  three.jpg  four.jpg ..."""


def find_images(folder: Path) -> tuple[list[Path], Counter[str], list[str]]:
    """All images below a folder, sorted; how many other files there are, by ending; and a note for each folder that can't be listed.

    Hidden files and folders (.DS_Store, .ipynb_checkpoints, ._photo.jpg) are passed over and counted; symbolic links are followed, each folder once.
    A file without an ending counts as an image if its first bytes say so.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    closed: list[str] = []
    for path in _walk(folder, others, closed):
        if path.suffix.lower() in ENDINGS or (not path.suffix and _begins_as_image(path)):
            images.append(path)
        else:
            others[path.suffix.lower() or path.name] += 1
    return sorted(images), others, closed


def read_folder(folder: Path, source: str) -> Found:
    """Class folders. Where there is a train/ with class folders in it, the parts are kept exactly as they are; otherwise the folder is one pile.

    Raises:
        DataError: no images, photos without class folders, two folders for one part.
    """
    if parts := _parts(folder, source):
        tops = [(part, classes) for part, top in parts for classes in _subfolders(top)]
        left = [entry.name for entry in _subfolders(folder) if entry.name.lower() not in PARTS]
        notes = (
            [
                f"Left out, for it is none of train, validation and test: {shown([name + '/' for name in left])}."
            ]
            if left
            else []
        )
        loose = [folder, *(top for _, top in parts)]
    else:
        tops, notes, loose = [("", classes) for classes in _subfolders(folder)], [], [folder]
    paths: list[Path] = []
    names: list[str] = []
    splits: list[str] = []
    others: Counter[str] = Counter()
    empty = []
    for part, top in tops:
        images, strange, closed = find_images(top)
        notes += closed
        others += strange
        paths += images
        names += [top.name] * len(images)
        splits += [part] * len(images)
        if not images:
            empty.append(f"{top.relative_to(folder).as_posix()}/")
    stray = _loose(loose, others)
    if not paths:
        raise DataError(_nothing(source, len(stray), others))
    if stray:
        notes.append(
            f"Left out, for they are in no class folder: {shown([path.relative_to(folder).as_posix() for path in stray])}."
        )
    if empty:
        notes.append(f"Left out, for there are no images in it: {shown(empty)}.")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        notes.append(f"{sum(others.values())} files that are no images were passed over ({kinds}).")
    files = [path.relative_to(folder).as_posix() for path in paths]
    return Found(
        files,
        names,
        lambda i: read_regular(paths[i]),
        source,
        splits if parts else None,
        notes=tuple(notes),
        paths=paths,
    )


def _parts(folder: Path, source: str) -> list[tuple[str, Path]]:
    """(part, folder) where the folder is laid out in parts. `train/` full of photos beside `bus/` and `car/` is a class of trains."""
    found: dict[str, Path] = {}
    for entry in _subfolders(folder):
        if part := PARTS.get(entry.name.lower()):
            if part in found:
                raise DataError(
                    f"{source}: {found[part].name}/ and {entry.name}/ both mean {part}. Expected one of them."
                )
            found[part] = entry
    if not found:
        return []
    flat = {part for part, top in found.items() if not _subfolders(top)}
    if flat and len(found) < len(_subfolders(folder)):
        return []
    if "train" not in found:
        if len(found) < len(_subfolders(folder)):
            return []
        raise DataError(
            f"{source}: there is {shown([top.name + '/' for top in found.values()])}, but no train/. Expected train/ with a folder for each class."
        )
    return [(part, found[part]) for part in ("train", "validation", "test") if part in found]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir() and not _hidden(entry.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} can't be listed: {error.strerror or error}.") from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _walk(top: Path, others: Counter[str], closed: list[str]) -> Iterator[Path]:
    """The files below a folder. A list of folders instead of recursion: they may be nested thousands deep."""
    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(top)]
    while waiting:
        folder = waiting.pop()
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = list(os.scandir(folder))
        except OSError as error:
            closed.append(f"Left out, for {folder} can't be listed: {error.strerror or error}.")
            continue
        for entry in entries:
            folded = _is_folder(entry)
            if _hidden(entry.name):
                others[entry.name if folded else "hidden"] += 1
            elif folded:
                waiting.append(entry.path)
            else:
                yield Path(entry.path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _begins_as_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return kind(file.read(64)) is not None
    except OSError:
        return False


def _loose(folders: list[Path], others: Counter[str]) -> list[Path]:
    """Images that lie beside the class folders; whatever else lies there is counted."""
    images = []
    for folder in folders:
        for entry in _entries(folder):
            if entry.is_dir():
                continue
            if _hidden(entry.name):
                others["hidden"] += 1
            elif entry.suffix.lower() in ENDINGS:
                images.append(entry)
            else:
                others[entry.suffix.lower() or entry.name] += 1
    return images


def _nothing(source: str, stray: int, others: Counter[str]) -> str:
    if stray:
        return f"{source}: {stray} images, but no class folders, so that nothing says what they show. Expected a folder for each class, named like it:{LAYOUT}"
    held = f"{sum(others.values())} other files" if others else "the folder is empty"
    return f"{source}: no images found ({held}). Expected a folder for each class:{LAYOUT}"
