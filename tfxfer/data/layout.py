"""Find out which folders are classes, parts, wrappers or something else.

The names of the folders and their content decide.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.parts import WORD, part_in, part_of
from tfxfer.data.pieces import check_pieces
from tfxfer.errors import DataError, NoClassFoldersError
from tfxfer.files import open_regular
from tfxfer.inputs import DEFAULT, KINDS, Kind

MORE = 2  # times as many files of another kind, from which on it is asked which kind is meant
MOST_OPENED = 20  # files of a folder that are opened to see whether they are images
DEEPEST = 8  # the most nested folders around the class folders that are searched
# Names of folders that say how images were kept, not what they show.
KEPT = {"image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "original"}
KEPT |= {"originals", "augmented", "augmentation", "aug", "raw", "jpg", "jpeg", "png", "data"}
READABLE_TABLES = (".csv", ".tsv")
TABLES = {*READABLE_TABLES, ".xlsx"}
# Folders that operating systems and file servers make.
SYSTEM = {"__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found"}
SYSTEM |= {"@eadir", "#recycle", "@recycle"}
# Hidden folders in which programs keep copies or states of files.
PROGRAMS = {".ipynb_checkpoints", ".thumbnails", ".git", ".cache", ".trashes", ".trash"}
PROGRAMS |= {".@__thumb", ".appledouble", ".dvc", ".svn", ".hg", ".venv", ".github", ".vscode"}
PROGRAMS |= {".idea", ".picasaoriginals", ".stversions", ".stfolder", ".spotlight-v100"}
PROGRAMS |= {".fseventsd", ".temporaryitems", ".documentrevisions-v100"}
LAST_NUMBER = re.compile(r"[-_. ]*\(?\d+\)?$")  # 7_12, cat.0, dog (3)
# Folders of images that show where something is in the photos, and are not photos.
DRAWN = {"mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots"}
DRAWN |= {"segmentation", "segmentations", "groundtruth", "ground_truth", "gt"}
# Words that mean the same in a longer name, such as gt_masks, if photos lie beside the folder.
DRAWN_WORDS = {"mask", "masks", "annotation", "annotations", "segmentation", "trimap", "trimaps"}

# Folders that cameras, phones and cloud services make: 100APPLE, 101_PANA, 202301__, 2023-07-14,
# Photos from 2023.
MADE_BY_DEVICES = re.compile(
    r"[1-9]\d\d(?=[0-9_]*[A-Z])[A-Z0-9_]{5}|20\d{4}_[_a-z]|(19|20)\d\d[-_.]\d\d[-_.]\d\d"
    r"|(?i:(photos|fotos|foto)\b.* (19|20)\d\d)"
    r"|(?i:dcim|camera[ _](roll|uploads)|whatsapp images|(google|icloud) photos|takeout)"
)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: the folder can't be listed.
    """
    return [entry for entry in entries(folder) if entry.is_dir() and not hidden(entry.name)]


def entries(folder: Path) -> list[Path]:
    """Return the paths of everything in a folder, sorted.

    Raises:
        DataError: the folder can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} can't be listed: {error.strerror or error}.") from error


def hidden(name: str) -> bool:
    """Return whether a file manager would not show a file or folder of this name."""
    return name.startswith(".") or name.casefold() in SYSTEM


def hidden_by_dot(name: str) -> bool:
    """Return whether a folder is hidden only because its name begins with a dot, as .NET."""
    if not name.startswith(".") or not name.strip("."):
        return False
    # The trash of other disks ends in the number of a user: .Trash-1000.
    return name.casefold() not in PROGRAMS and not name.casefold().startswith(".trash-")


def said_of_dotted(names: Sequence[str]) -> list[str]:
    """Return a note on hidden folders that hold examples.

    Args:
        names: their names, which begin with a dot.
    """
    if not names:
        return []
    return [
        f"Left out, because their names begin with a dot: {shown([f'{name}/' for name in names])}. "
        "Such folders are hidden. If one holds examples of a class, rename it."
    ]


def unwrapped(folder: Path, kind: Kind, part: str = "") -> Path:
    """Return the folder that holds the class folders.

    This is `folder` itself or, if it has only one folder with images, that one, and so on.
    Downloaded archives often have one or two folders around the class folders.

    Args:
        part: the part that `folder` is; a folder in it may have the name of the same part.
    """
    for _ in range(DEEPEST):
        below = [entry for entry in subfolders(folder) if has_examples(entry, kind)]
        if len(below) != 1 or has_examples(folder, kind, deep=False):
            break
        if not any(has_examples(entry, kind) for entry in subfolders(below[0])):
            break  # that folder is a class
        if part_of(below[0].name) not in (None, part):
            break
        folder = below[0]
    return folder


def find_kind(folder: Path) -> Kind:
    """Return the first kind of example that a folder holds; the default if it holds none.

    Raises:
        DataError: there are far more examples of another kind, such as mails with a few pictures.
    """
    held = (kind for kind in KINDS.values() if has_examples(folder, kind))
    first = next(held, None)
    if first is None:
        return KINDS[DEFAULT]
    endings = count_endings(folder)
    for kind in KINDS.values():
        own, others = (sum(endings[end] for end in one.ENDINGS) for one in (first, kind))
        # Files without a known ending may be of the first kind, too.
        if kind is not first and others and others >= MORE * (endings.total() - others):
            raise DataError(
                f"{folder} holds {own:,} {first.MANY} and {others:,} {kind.MANY}. Which of them "
                "are the examples? Leave only these in the folder."
            )
    return first


def is_example(path: str | os.PathLike[str], kind: Kind) -> bool:
    """Return whether a file is an example of a kind, by its ending or its first bytes.

    The first bytes decide if the ending is unknown. The names of photos from the web end in
    `.jpg?w=300`, `.jpg!d`, or have no ending.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in kind.ENDINGS:
        return True
    if ending in kind.OTHERS or ending in kind.UNREAD:
        return False
    try:
        with open_regular(Path(path)) as file:
            return kind.begins_one(file.read(64))
    except OSError:
        return False


def has_examples(folder: Path, kind: Kind, deep: bool = True) -> bool:
    """Return whether there are examples in a folder or, if `deep`, anywhere below it."""
    waiting, seen = [os.fspath(folder)], set()
    while waiting:
        place = waiting.pop()
        try:
            about = os.stat(place)
            content = list(os.scandir(place))
        except OSError:
            continue  # `find_examples` makes a note on it
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        if is_made({entry.name for entry in content}):
            continue
        unknown = 0
        for entry in content:
            if hidden(entry.name):
                continue
            if is_folder(entry):
                if deep:
                    waiting.append(entry.path)
                continue
            if os.path.splitext(entry.name)[1].lower() in kind.ENDINGS:
                return True
            unknown += 1
            if unknown <= MOST_OPENED and is_example(entry.path, kind):
                return True
    return False


def is_made(names: Set[str]) -> bool:
    """Return whether a folder is a run or an export, by the names of what it holds."""
    return names >= {"settings.json", "manifest.json"} or "saved_model.pb" in names


def count_endings(folder: Path) -> Counter[str]:
    """Return how many files below a folder have each ending, in lower case; hidden ones apart."""
    counts = Counter[str]()
    for _, folders, files in os.walk(folder):
        if is_made({*folders, *files}):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not hidden(name)]
        counts.update(os.path.splitext(file)[1].lower() for file in files if not hidden(file))
    return counts


def has_ending_of_example(name: str) -> bool:
    """Return whether a file is an example of any kind by the ending of its name."""
    ending = os.path.splitext(name)[1].lower()
    return any(ending in kind.ENDINGS for kind in KINDS.values())


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def find_parts(
    folder: Path, source: str, kind: Kind, judging: bool = False
) -> list[tuple[str, Path]]:
    """Find the parts of a folder that is divided into parts such as train/ and test/.

    A folder is a part if its name, or a word of its name, is that of a part, and if it holds class
    folders. If `train/` holds photos and lies beside `bus/` and `car/`, it is a class of trains.

    Folders that are not parts may lie beside parts. But if only one part is found, and the word is
    only one of several in its name, such as `seg_train`, no other folders may lie beside it.

    Args:
        source: the folder as it was given, for messages.
        judging: whether nothing will be trained, so that no part to train on is needed.

    Returns:
        For each part its name ("train", "validation" or "test") and the folder with its class
        folders; empty if the folder is not divided into parts.

    Raises:
        DataError: two folders are the same part, or there is no part to train on.
    """
    beside = [entry for entry in subfolders(folder) if has_examples(entry, kind)]
    check_flat_parts(beside, source, kind)
    parts: dict[str, Path] = {}
    for entry in beside:
        part = part_in(entry.name)
        if part and class_folders(entry, kind):
            if part in parts:
                raise DataError(
                    f"{source}: {parts[part].name}/ and {entry.name}/ both mean {part}. "
                    "Expected one of them: rename or move the other one."
                )
            parts[part] = entry
    if "train" not in parts and not (judging and parts):
        if parts and len(parts) == len(beside):
            raise DataError(
                f"{source}: there is {shown([top.name + '/' for top in parts.values()])}, but no "
                "train/. Expected train/ with a folder for each class."
            )
        return []
    plain = all(part_of(top.name) for top in parts.values())
    others = [top for top in beside if part_in(top.name) is None]
    if others and len(parts) == 1 and not plain:
        return []
    order = ("train", "validation", "test")
    return [(part, unwrapped(parts[part], kind, part)) for part in order if part in parts]


def class_folders(folder: Path, kind: Kind) -> bool:
    """Return whether a part holds class folders, which are folders with images.

    A single folder with a name such as `images`, or with that of a part, is not a class folder.
    """
    below = [entry for entry in subfolders(folder) if has_examples(entry, kind)]
    if len(below) == 1 and (is_kept(below[0].name) or part_in(below[0].name)):
        return class_folders(below[0], kind)
    return bool(below)


def check_flat_parts(folders: Sequence[Path], source: str, kind: Kind) -> None:
    """Check that folders are not all parts by their names without class folders in them.

    Raises:
        NoClassFoldersError: they are. The message lists the folders, and a table beside them if
            there is one.
    """
    parts = {part_in(folder.name) for folder in folders}
    if None in parts or len(parts) < 2 or any(class_folders(folder, kind) for folder in folders):
        return
    raise NoClassFoldersError(
        f"{source}: {shown([folder.name + '/' for folder in folders])} have the names of parts "
        "of the data, but hold no class folders, so that nothing says what they show. "
        f"Expected a folder for each class in each part, such as train/cats/ and train/dogs/."
        f"{hint_of_tables(folders[0].parent)}{hint_of_names(examples_in(folders, kind))}"
        f"{hint_of_boxes([folders[0].parent, *folders], kind)}"
    )


def hint_of_boxes(folders: Sequence[Path], kind: Kind) -> str:
    """Return a note on folders without images, such as labels/, beside the images; or ""."""
    places = [entry for folder in folders for entry in subfolders(folder)]
    drawings = [
        f"{entry.name}/"
        for entry in places
        if is_drawn(entry.name) and not has_examples(entry, kind)
    ]
    if not drawings:
        return ""
    return (
        f" The files in {drawings[0]} may mark places in the images; tfxfer learns one class for a "
        "whole image."
    )


def examples_in(folders: Sequence[Path], kind: Kind) -> list[Path]:
    """Return the examples that lie directly in some folders."""
    return [
        entry
        for folder in folders
        for entry in entries(folder)
        if not entry.is_dir() and not hidden(entry.name) and is_example(entry, kind)
    ]


def hint_of_names(examples: Sequence[Path]) -> str:
    """Return advice if image names seem to begin with a class, such as cat.0.jpg; else ""."""
    names = Counter(LAST_NUMBER.sub("", example.stem) for example in examples)
    names.pop("", None)  # names that are only numbers
    if len(names) < 2 or 2 * len(names) > sum(names.values()):
        return ""
    return (
        f" The file names begin with {shown(sorted(names))}. If these are the classes, put each "
        "into a folder of its own, or write a .csv table with the columns path and label."
    )


def hint_of_tables(folder: Path) -> str:
    """Return a question on tables in a folder or in its subfolders, or "" if there are none."""
    tables = [
        entry.relative_to(folder).as_posix()
        for place in (folder, *subfolders(folder))
        for entry in entries(place)
        if entry.suffix.lower() in TABLES and not hidden(entry.name)
    ]
    if not tables:
        return ""
    return f" Does {shown(tables)} say what these are? Then give that table."


def find_only_table(folder: Path) -> Path | None:
    """Return the only .csv or .tsv table that lies directly in a folder; None if there are more."""
    tables = [
        entry
        for entry in entries(folder)
        if entry.suffix.lower() in READABLE_TABLES and not hidden(entry.name) and entry.is_file()
    ]
    return tables[0] if len(tables) == 1 else None


def parts_in_classes(tops: Sequence[Path], kind: Kind) -> list[tuple[str, Path, Path]]:
    """Find the parts in class folders that hold nothing but parts, such as cats/train/, cats/test/.

    Returns:
        For each part of each class the part, the class folder, and the folder with its images;
        empty if the class folders are not divided into parts.
    """
    class_parts = []
    for top in tops:
        if has_examples(top, kind, deep=False):
            return []
        for entry in subfolders(top):
            part = part_in(entry.name)
            if part is None or class_folders(entry, kind):
                return []
            class_parts.append((part, top, entry))
    parts = {part for part, _, _ in class_parts}
    return class_parts if "train" in parts and len(parts) > 1 else []


def check_classes(tops: Sequence[Path], source: str, kind: Kind) -> None:
    """Check that folders can be the classes.

    Raises:
        DataError: two of them hold the same folders, one holds drawings on the photos of another,
            or one is a whole set of class folders. The message lists the folders and what to do.
    """
    # If a class folder holds only one folder, such as images/, the content of that one is compared.
    inner = {top: unwrapped(top, kind) for top in tops}
    below = {
        top: {entry.name for entry in subfolders(inner[top]) if has_examples(entry, kind)}
        for top in tops
    }
    check_kinds(tops, source, kind)
    for top, names in below.items():
        for name in sorted(names):
            if part_of(name) and class_folders(inner[top] / name, kind):
                raise DataError(
                    f"{source}: {(inner[top] / name).relative_to(top.parent).as_posix()}/ has "
                    "the name of a part of the data and holds class folders, so "
                    f"{top.name}/ is not a class. Give one set alone, such as {top}."
                )
        beside = sorted({other.name for other in tops if other != top} & names)
        if beside and 2 * len(beside) >= len(names):
            raise DataError(
                f"{source}: {top.name}/ holds folders with the same names as those beside "
                f"it ({shown([name + '/' for name in beside])}), so it is not a class, and may be "
                "a copy of everything. Move it elsewhere, or give it alone."
            )
    for one, other in alike(below):
        shared = sorted(
            n for n in below[one] & below[other] if not is_kept(n) and fold(n) not in DRAWN
        )
        if len(shared) >= 2 and 2 * len(shared) >= min(len(below[one]), len(below[other])):
            listed = shown([name + "/" for name in shared])
            raise DataError(
                f"{source}: {one.name}/ and {other.name}/ hold the same folders ({listed}), so "
                f"these may be the classes. If they are, and {one.name}/ and {other.name}/ are "
                f"parts of the data, rename those to train/, validation/ or test/, or give only "
                f"one of them, such as {one}. If they are not, or if some of the folders say whose "
                "examples these are, list them in a .csv table with the columns path, label "
                "and group."
            )


def check_kinds(tops: Sequence[Path], source: str, kind: Kind) -> None:
    """Check that folders are not photos and drawings on them, or pieces of one download.

    Their names decide. The check is made with and without parts.

    Raises:
        DataError: the folders are of this kind. The message lists them.
    """
    names = sorted(top.name for top in tops)
    if any(is_drawn(name) for name in names) and any(is_kept(name) for name in names):
        raise NoClassFoldersError(
            f"{source}: {shown([name + '/' for name in names])} are photos and drawings on them, "
            "not classes. Expected a folder for each class, or a .csv table with the columns path "
            "and label."
            f"{hint_of_names(examples_in([top for top in tops if is_kept(top.name)], kind))}"
        )
    for name in names:
        # The word mask can mean a mask that is worn: face/ and face_mask/ can be classes.
        plain = words_of(name) - (DRAWN_WORDS - {"mask"})
        drawn_on = [other for other in names if plain and words_of(other) == plain]
        if plain < words_of(name) and drawn_on:
            raise DataError(
                f"{source}: by its name, {name}/ holds drawings on the photos in {drawn_on[0]}/, "
                "and is not a class. Move it elsewhere."
            )
    below = {
        top: []
        if has_examples(top, kind, deep=False)
        else [entry.name for entry in subfolders(top) if has_examples(entry, kind)]
        for top in tops
    }
    if tops:
        check_pieces(below, source, hint_of_tables(tops[0].parent))


def said_of_devices(classes: Iterable[str], kind: Kind) -> list[str]:
    """Return a note on classes that have the names of folders that a camera or a service makes."""
    made = sorted({name for name in classes if MADE_BY_DEVICES.fullmatch(name.strip())})
    if not made:
        return []
    return [
        f"Read as classes: {shown([f'{name}/' for name in made])}. By their names, a camera, a "
        f"phone or a cloud service made these folders. If they do not say what the {kind.MANY} "
        "show, make a folder for each class, and sort them into these."
    ]


def said_of_folders(classes: Mapping[str, Counter[str]], source: str) -> list[str]:
    """Return a note on the folders below the class folders.

    Args:
        classes: for each class folder the number of images in each folder below it. The key "" is
            for images that are in the class folder itself.

    Raises:
        DataError: a folder below a class holds drawings on its images, such as masks.
    """
    said = []
    for name, counts in classes.items():
        examples_too = any(not is_drawn(below) for below in counts)
        for below in counts:
            if fold(below) in DRAWN or (is_drawn(below) and examples_too):
                raise DataError(
                    f"{source}: by its name, {name}/{below}/ holds drawings, and not photos to "
                    f"learn from: {counts[below]} images. Move such folders elsewhere, or list the "
                    "photos in a .csv table with the columns path and label."
                )
        if len(counts) == 1 and is_kept(next(iter(counts))):
            continue  # all images are in images/ or a folder of that kind
        if set(counts) - {""}:
            listed = [
                f"{below + '/' if below else 'beside them'} {n}" for below, n in counts.items()
            ]
            said.append(f"{name}/ has subfolders: {shown(listed, 5)}")
    if not said:
        return []
    return [
        f"{shown(said)}; all of these files count. If each folder is a person or a place, or "
        "some files are altered copies of others, keep those together in one part: use a .csv "
        "table with the column group."
    ]


def alike(below: Mapping[Path, set[str]]) -> Iterator[tuple[Path, Path]]:
    """Yield pairs of folders that hold a folder of the same name.

    The first of a pair is the first folder that holds a folder of that name.
    """
    first: dict[str, Path] = {}
    for top, names in below.items():
        yield from dict.fromkeys((first[name], top) for name in sorted(names) if name in first)
        first = dict.fromkeys(names, top) | first


def is_kept(name: str) -> bool:
    """Return whether the name of a folder only says how images were kept, such as `JPEGImages`."""
    words = words_of(name)
    return fold(name) in KEPT or (bool(words) and words <= KEPT)


def words_of(name: str) -> set[str]:
    """Return the words of a name, in lower case."""
    return {word.casefold() for word in WORD.findall(name)}


def is_drawn(name: str) -> bool:
    """Return whether the name of a folder says that it holds drawings on photos."""
    return fold(name) in DRAWN or bool(words_of(name) & DRAWN_WORDS)


def fold(name: str) -> str:
    """Return the name of a folder in a form to compare: lower case, with _ for blanks and -."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def levels(folder: Path, paths: Sequence[Path]) -> Iterator[str]:
    """Yield for each image the folder below its class folder, or "" if there is none.

    If that folder is images/ or of that kind, the name of the next folder is added.
    """
    for path in paths:
        inner = path.relative_to(folder).parts[:-1]
        yield "/".join(inner[: 2 if inner and is_kept(inner[0]) else 1])
