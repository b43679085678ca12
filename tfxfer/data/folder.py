"""Read a folder of class folders, either directly or below train/, validation/ and test/."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tfxfer.data.companions import check_companions
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.layout import (
    MOST_OPENED,
    check_classes,
    check_kinds,
    entries,
    find_kind,
    find_parts,
    has_examples,
    hidden,
    hidden_by_dot,
    hint_of_names,
    hint_of_tables,
    is_example,
    is_folder,
    is_kept,
    is_made,
    levels,
    parts_in_classes,
    said_of_devices,
    said_of_dotted,
    said_of_folders,
    subfolders,
    unwrapped,
)
from tfxfer.data.series import said_of_series
from tfxfer.errors import DataError, NoClassFoldersError
from tfxfer.files import open_regular, read_regular
from tfxfer.inputs import KINDS, Kind

LOG = logging.getLogger(__name__)
AWAY = ".icloud"  # .IMG_1.jpg.icloud stands for IMG_1.jpg, which is only in iCloud, not on this Mac
PACKED = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"}
NO_EXAMPLES = {".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".py"}
HEAD = 1024  # bytes that show whether a file is plain text
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x7f]")  # bytes that no plain text has
LAYOUT = """
  {many}/
    cats/  one{ending}  two{ending} ...
    dogs/  three{ending}  four{ending} ..."""


def find_examples(folder: Path, kind: Kind) -> tuple[list[Path], Counter[str], list[str]]:
    """Find all examples of a kind below a folder.

    Hidden files and folders (.DS_Store, .ipynb_checkpoints, ._photo.jpg) are skipped and counted.
    Symbolic links are followed, each folder once. A file without an ending, or with an unknown one,
    counts as an example if its first bytes say so.

    Returns:
        The examples, sorted; the number of other files by ending; and a note for each folder that
        can't be listed.
    """
    examples: list[Path] = []
    others: Counter[str] = Counter()
    closed: list[str] = []
    for path in walk_files(folder, others, closed):
        if is_example(path, kind):
            examples.append(path)
        else:
            others[path.suffix.lower() or path.name] += 1
    return sorted(examples), others, closed


def find_files(paths: Iterable[str | os.PathLike], kind: Kind) -> list[str]:
    """Return files of examples, given directly or found in given folders.

    Files that are ignored are logged.

    Raises:
        DataError: a path does not exist, or there is no example at all.
    """
    files: list[str] = []
    for path in paths:
        files += files_in(os.fspath(path), kind)
    if not files:
        raise DataError(
            f"there is no {kind.ONE} to predict. Expected {kind.MANY}, or folders of them."
        )
    return files


def files_in(path: str, kind: Kind) -> list[str]:
    """Return the files of examples in a folder, or the file that the path is.

    Files that are ignored are logged.

    Raises:
        DataError: the path does not exist.
    """
    if os.path.isdir(path):
        examples, others, odd = find_examples(Path(path), kind)
        for text in odd:
            LOG.warning(text)
        if others:
            count = sum(others.values())
            what = (
                f"file that is no {kind.ONE} is"
                if count == 1
                else f"files that are no {kind.MANY} are"
            )
            LOG.warning(f"{path}: {count} {what} ignored")
        return list(map(str, examples))
    ending = os.path.splitext(path)[1].lower()
    if kind.CELLS and ending in kind.UNREAD:  # as a text, its markup would be taken for words
        raise DataError(f"{path} is no {kind.ONE} that is read.{kind.said_of_unread({ending})}")
    if os.path.lexists(path):  # a broken link gives an error when it is read
        return [path]
    raise DataError(f"{path} does not exist. Expected {kind.MANY}, or folders of them.")


def read_folder(
    folder: Path, source: str, judging: bool = False, kind: Kind | None = None
) -> Found:
    """Find the images in class folders.

    If the class folders lie in folders that are named like parts, the parts are kept exactly as
    they are. Otherwise the images are not divided into parts.

    Args:
        source: the folder as it was given, for messages.
        judging: whether nothing will be trained, so that no part to train on is needed.
        kind: what the files are; None: the first kind that has a file there.

    Raises:
        NoClassFoldersError: there are no images, or photos without class folders.
        DataError: two folders are the same part, or folders can't be classes.
    """
    inner, notes, inside = folder, [], []
    possible = [*KINDS.values()] if kind is None else [kind]
    kind = kind or find_kind(folder)
    parts = find_parts(folder, source, kind, judging)
    if not parts and (inner := unwrapped(folder, kind)) != folder:
        notes.append(f"The class folders are in {inner.relative_to(folder).as_posix()}/.")
        parts = find_parts(inner, source, kind, judging)
    if parts:
        tops = [(part, classes, classes) for part, top in parts for classes in subfolders(top)]
        notes += _said_of_parts(inner, parts, kind)
        for _, top in parts:
            check_kinds(subfolders(top), source, kind)
        loose = [folder, inner, *(top for _, top in parts)]
    else:
        classes = [top for top in subfolders(inner) if has_examples(top, kind)]
        bare = [top for top in subfolders(inner) if top not in classes]
        tops, loose = [("", top, top) for top in (*classes, *bare)], [inner]
        if inside := parts_in_classes(classes, kind):
            tops = [*inside, *(("", top, top) for top in bare)]
            notes.append("The parts are inside the class folders, and are kept as they are.")
        else:
            check_classes(classes, source, kind)
    paths: list[Path] = []
    names: list[str] = []
    splits: list[str] = []
    others: Counter[str] = Counter()
    empty, below = [], {}
    for part, class_folder, top in tops:
        examples, strange, closed = find_examples(top, kind)
        notes += closed
        others += strange
        paths += examples
        names += [class_folder.name] * len(examples)
        splits += [part] * len(examples)
        place = top.relative_to(folder).as_posix()
        below[place] = Counter(levels(top, examples))
        if not examples:
            empty.append(f"{place}/")
    stray = _loose(loose, others, kind)
    if not paths:
        raise NoClassFoldersError(
            _nothing(source, stray, others, folder=folder, kind=kind, possible=possible)
        )
    if len(set(names)) == 1 and not judging:
        hint = hint_of_tables(folder) + hint_of_names(paths)
        if hint or is_kept(names[0]):
            raise NoClassFoldersError(
                f"{source}: all {kind.MANY} are in one folder, {names[0]}/, as one class. Expected "
                f"a folder for each class.{hint}"
            )
    notes += said_of_devices(names, kind)
    notes += said_of_folders(below, source)
    notes += check_companions(paths, source, kind)
    notes += said_of_series([path.stem for path in paths], splits if parts or inside else None)
    dotted = [
        entry.relative_to(folder).as_posix()
        for place in dict.fromkeys(loose)
        for entry in entries(place)
        if hidden_by_dot(entry.name) and entry.is_dir() and has_examples(entry, kind)
    ]
    notes += said_of_dotted(dotted)
    if stray:
        named = shown([path.relative_to(folder).as_posix() for path in stray])
        notes.append(f"Left out, because they are in no class folder: {named}.")
    if empty:
        notes.append(f"Folders without {kind.MANY}, which are left out: {shown(empty)}.")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        count = sum(others.values())
        what = f"file that is no {kind.ONE}" if count == 1 else f"files that are no {kind.MANY}"
        if kind.UNREAD & set(others) or others[AWAY]:
            what = "other file" if count == 1 else "other files"
        notes.append(f"Ignored: {count} {what} ({kinds}).{_said_of_unread(others, kind)}")
    files = [path.relative_to(folder).as_posix() for path in paths]
    kept = list(map(os.fspath, paths))  # a Path takes five times the memory
    return Found(
        files=files,
        names=names,
        read=lambda i: read_regular(kept[i]),
        source=source,
        splits=splits if parts or inside else None,
        notes=tuple(notes),
        paths=kept,
        kind_name=kind.NAME,
    )


def _said_of_parts(folder: Path, parts: Sequence[tuple[str, Path]], kind: Kind) -> list[str]:
    """Return notes on which folder is which part, and on folders that are not parts."""
    tops = [folder / top.relative_to(folder).parts[0] for _, top in parts]
    named = [
        f"{top.name}/ is {part}"
        for (part, _), top in zip(parts, tops, strict=True)
        if top.name.casefold() != part
    ]
    left = [f"{entry.name}/" for entry in subfolders(folder) if entry not in tops]
    notes = [f"By the names of the folders: {', '.join(named)}."] if named else []
    if left:
        notes.append(
            "Left out, because they are not train, validation or test with class folders: "
            f"{shown(left)}."
        )
    classes = {entry.name for _, top in parts for entry in subfolders(top)}
    for entry in subfolders(folder):
        same = sorted(classes & {inner.name for inner in subfolders(entry)})
        if entry not in tops and same and has_examples(entry, kind):
            notes.append(
                f"{entry.name}/ holds the same folders as a part ({shown(same)}). Is it a part? "
                "Then call it train, validation or test."
            )
    return notes


def walk_files(
    top: Path, others: Counter[str] | None = None, closed: list[str] | None = None
) -> Iterator[Path]:
    """Yield the files below a folder, except hidden ones and those of runs and exports.

    Args:
        others: counts the hidden files and folders.
        closed: gets a note for each folder that can't be listed.
    """
    return map(Path, walk_paths(top, others, closed))


def walk_paths(
    top: Path, others: Counter[str] | None = None, closed: list[str] | None = None
) -> Iterator[str]:
    """Yield what `walk_files` does as text, which is faster for very many files.

    The function keeps a list of folders instead of calling itself, since folders may be nested
    thousands deep.
    """
    others = Counter() if others is None else others
    closed = [] if closed is None else closed
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
            closed.append(f"Left out, because {folder} can't be listed: {error.strerror or error}.")
            continue
        if is_made({entry.name for entry in entries}):
            continue
        for entry in entries:
            folded = is_folder(entry)
            if hidden(entry.name):
                others[_hidden_as(entry.name, folded)] += 1
            elif folded:
                waiting.append(entry.path)
            else:
                yield entry.path


def _loose(folders: list[Path], others: Counter[str], kind: Kind) -> list[Path]:
    """Return the images that lie directly in `folders`, and count the other files there."""
    examples = []
    for folder in folders:
        for entry in entries(folder):
            if entry.is_dir():
                continue
            if hidden(entry.name):
                others[_hidden_as(entry.name)] += 1
            elif is_example(entry, kind):
                examples.append(entry)
            else:
                others[entry.suffix.lower() or entry.name] += 1
    return examples


def _hidden_as(name: str, folder: bool = False) -> str:
    """Return the name under which a hidden file or folder is counted."""
    if name.endswith(AWAY):
        return AWAY
    return name if folder else "hidden"


def _said_of_unread(others: Counter[str], kind: Kind) -> str:
    """Return advice on images that are not read, or "" if there is none.

    Their format is not read, or they are not on this machine.
    """
    advice = kind.said_of_unread(set(others))
    if away := others[AWAY]:
        advice += f" {away} files are only in iCloud ({AWAY}): download them first."
    return advice


def _nothing(
    source: str,
    stray: list[Path],
    others: Counter[str],
    *,
    folder: Path,
    kind: Kind,
    possible: Sequence[Kind],
) -> str:
    """Return the error for a folder without examples in class folders.

    Args:
        possible: all kinds that the folder could hold.
    """
    layout = LAYOUT.format(many=kind.MANY, ending=Path(kind.FILE).suffix)
    if stray:
        return (
            f"{source}: {len(stray)} {kind.MANY}, but no class folders, so that nothing says what "
            f"they show.{hint_of_tables(folder)}{hint_of_names(stray)} Expected a folder for each "
            f"class, with its name:{layout}"
        )
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
    held = f"{sum(others.values())} other files: {kinds}" if others else "the folder is empty"
    packed = " Unpack the archives first." if PACKED & set(others) else ""
    formats = kind.formats()
    if len(possible) > 1:
        formats = "; ".join(f"{each.MANY} as {each.formats()}" for each in possible)
    return (
        f"{source}: no {kind.MANY} found ({held}).{packed} Formats that are read: {formats}."
        f"{''.join(_said_of_unread(others, one) for one in possible)}"
        f"{_hint_of_plain(folder, possible)} "
        f"Expected a folder for each class:{layout}"
    )


def _hint_of_plain(folder: Path, kinds: Sequence[Kind]) -> str:
    """Return a question if all files are plain text, such as .md; "" if they are not."""
    files = list(islice(walk_files(folder), MOST_OPENED))
    known = NO_EXAMPLES.union(*(kind.UNREAD for kind in kinds))
    if not files or any(file.suffix.lower() in known for file in files):
        return ""
    if not all(_is_plain(file) for file in files):
        return ""
    texts = next((kind for kind in kinds if kind.CELLS), None)
    if texts is None:
        return ""
    name = files[0].stem.rstrip(".") + Path(texts.FILE).suffix
    return f" Are these {texts.MANY}? Then rename them: {files[0].name} to {name}."


def _is_plain(file: Path) -> bool:
    """Return whether a file begins like text."""
    try:
        with open_regular(file) as opened:
            head = opened.read(HEAD)
    except OSError:
        return False
    return head.strip() != b"" and not BINARY.search(head)
