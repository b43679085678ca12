"""Which folders are classes, and which are parts, wrappers or something else: told by their names
and by what lies below.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.images import ENDINGS, OTHERS, UNREAD, kind
from tfxfer.data.parts import WORD, part_in, part_of
from tfxfer.data.pieces import check_pieces
from tfxfer.errors import DataError
from tfxfer.files import open_regular

MOST_OPENED = 20  # files of a folder, to see whether there are images among them
DEEPEST = 8  # folders around the class folders that are looked through
# Folders below a class that say how its images were kept, not what they show.
KEPT = {"image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "original"}
KEPT |= {"originals", "augmented", "augmentation", "aug", "raw", "jpg", "jpeg", "png", "data"}
TABLES = {".csv", ".tsv", ".xlsx"}
# Folders that operating systems and file servers make.
SYSTEM = {"__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found"}
SYSTEM |= {"@eadir", "#recycle", "@recycle"}
LAST_NUMBER = re.compile(r"[-_. ]*\(?\d+\)?$")  # 7_12, cat.0, dog (3)
# Folders of images that say where something is: answers, not photos.
DRAWN = {"mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots"}
DRAWN |= {"segmentation", "segmentations", "groundtruth", "ground_truth", "gt"}
# Words that say so in a longer name, such as gt_masks, where photos lie beside it.
DRAWN_WORDS = {"mask", "masks", "annotation", "annotations", "segmentation", "trimap", "trimaps"}


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: it can't be listed.
    """
    return [entry for entry in entries(folder) if entry.is_dir() and not hidden(entry.name)]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted.

    Raises:
        DataError: it can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} can't be listed: {error.strerror or error}.") from error


def hidden(name: str) -> bool:
    """Whether a file manager would not show it."""
    return name.startswith(".") or name.casefold() in SYSTEM


def unwrapped(folder: Path, part: str = "") -> Path:
    """The folder that holds the class folders: this one, or the only one of its folders with
    images, and so on.

    Downloaded archives often have one or two folders around the class folders.

    Args:
        part: that the folder is; a folder in it may have the same name.
    """
    for _ in range(DEEPEST):
        below = [entry for entry in subfolders(folder) if has_images(entry)]
        if len(below) != 1 or has_images(folder, deep=False):
            break
        if not any(has_images(entry) for entry in subfolders(below[0])):
            break  # it is a class
        if part_of(below[0].name) not in (None, part):
            break
        folder = below[0]
    return folder


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image by its ending or, where the ending says nothing, by its first
    bytes: photos from the web end in `.jpg?w=300`, `.jpg!d` or nothing.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in ENDINGS:
        return True
    if ending in OTHERS or ending in UNREAD:
        return False
    try:
        with open_regular(Path(path)) as file:
            return kind(file.read(64)) is not None
    except OSError:
        return False


def has_images(folder: Path, deep: bool = True) -> bool:
    """Whether images are in a folder, or, `deep`, below it."""
    waiting, seen = [os.fspath(folder)], set()
    while waiting:
        place = waiting.pop()
        try:
            about = os.stat(place)
            found = list(os.scandir(place))
        except OSError:
            continue  # `find_images` says so
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        unknown = 0
        for entry in found:
            if hidden(entry.name):
                continue
            if is_folder(entry):
                if deep:
                    waiting.append(entry.path)
                continue
            if os.path.splitext(entry.name)[1].lower() in ENDINGS:
                return True
            unknown += 1
            if unknown <= MOST_OPENED and is_image(entry.path):
                return True
    return False


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Also behind a link."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def find_parts(folder: Path, source: str, judging: bool = False) -> list[tuple[str, Path]]:
    """(part, the folder with its class folders), for a folder that is laid out in parts; empty
    where it is not.

    A folder is a part where its name, or a word of it, says so, and it holds class folders:
    `train/` full of photos
    beside `bus/` and `car/` is a class of trains. Where one folder has the plain name of a part,
    others may lie
    beside it; where all have it only as one word of several, each must have one.

    Args:
        judging: nothing is trained, so no part for that is needed.

    Raises:
        DataError: two folders for one part, or no part to train on.
    """
    beside = [entry for entry in subfolders(folder) if has_images(entry)]
    check_flat_parts(beside, source)
    found: dict[str, Path] = {}
    for entry in beside:
        part = part_in(entry.name)
        if part and class_folders(entry):
            if part in found:
                raise DataError(
                    f"{source}: {found[part].name}/ and {entry.name}/ both mean {part}. "
                    "Expected one of them: rename or move the other one."
                )
            found[part] = entry
    if "train" not in found and not (judging and found):
        if found and len(found) == len(beside):
            raise DataError(
                f"{source}: there is {shown([top.name + '/' for top in found.values()])}, but no "
                "train/. "
                "Expected train/ with a folder for each class."
            )
        return []
    plain = all(part_of(top.name) for top in found.values())
    others = [top for top in beside if part_in(top.name) is None]
    if others and len(found) == 1 and not plain:
        return []
    order = ("train", "validation", "test")
    return [(part, unwrapped(found[part], part)) for part in order if part in found]


def class_folders(folder: Path) -> bool:
    """Whether a part holds folders with images: its classes.

    A single folder that is called `images` or like a part is none.
    """
    below = [entry for entry in subfolders(folder) if has_images(entry)]
    if len(below) == 1 and (is_kept(below[0].name) or part_in(below[0].name)):
        return class_folders(below[0])
    return bool(below)


def check_flat_parts(folders: Sequence[Path], source: str) -> None:
    """Refuse folders that are parts by their names, all of them, and hold no class folders.

    Raises:
        DataError: names the folders, and a table beside them.
    """
    parts = {part_in(folder.name) for folder in folders}
    if None in parts or len(parts) < 2 or any(class_folders(folder) for folder in folders):
        return
    raise DataError(
        f"{source}: {shown([folder.name + '/' for folder in folders])} are parts by their names, "
        "and there are no class folders in them, so that nothing says what the images show. "
        f"Expected a folder for each class in each part, such as train/cats/ and train/dogs/."
        f"{hint_of_tables(folders[0].parent)}{hint_of_names(images_in(folders))}"
        f"{hint_of_boxes([folders[0].parent, *folders])}"
    )


def hint_of_boxes(folders: Sequence[Path]) -> str:
    """A note on folders such as labels/, beside the images, that hold no images; "" where
    there is none.
    """
    places = [entry for folder in folders for entry in subfolders(folder)]
    found = [f"{entry.name}/" for entry in places if is_drawn(entry.name) and not has_images(entry)]
    if not found:
        return ""
    return (
        f" What is in {found[0]} may mark places in the images; tfxfer learns one class for a "
        "whole image."
    )


def images_in(folders: Sequence[Path]) -> list[Path]:
    """The images that lie in some folders themselves."""
    return [
        entry
        for folder in folders
        for entry in entries(folder)
        if not entry.is_dir() and not hidden(entry.name) and is_image(entry)
    ]


def hint_of_names(images: Sequence[Path]) -> str:
    """Advice where the names of images seem to begin with their class, such as cat.0.jpg; "" where
    they do not.
    """
    names = Counter(LAST_NUMBER.sub("", image.stem) for image in images)
    names.pop("", None)  # numbers alone
    if len(names) < 2 or 2 * len(names) > sum(names.values()):
        return ""
    return (
        f" The file names begin with {shown(sorted(names))}. If these are the classes, put each "
        "into a folder of its own, or write a .csv table with the columns path and label."
    )


def hint_of_tables(folder: Path) -> str:
    """A question about tables in a folder or in one of its folders; "" where there are none."""
    tables = [
        entry.relative_to(folder).as_posix()
        for place in (folder, *subfolders(folder))
        for entry in entries(place)
        if entry.suffix.lower() in TABLES and not hidden(entry.name)
    ]
    if not tables:
        return ""
    return f" Does {shown(tables)} say what the images show? Then give that table."


def parts_in_classes(tops: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """(part, class folder, folder with its images of that part), where each class folder holds
    nothing but parts: cats/train/, cats/test/; empty where it isn't so.
    """
    found = []
    for top in tops:
        if has_images(top, deep=False):
            return []
        for entry in subfolders(top):
            part = part_in(entry.name)
            if part is None or class_folders(entry):
                return []
            found.append((part, top, entry))
    parts = {part for part, _, _ in found}
    return found if "train" in parts and len(parts) > 1 else []


def check_classes(tops: Sequence[Path], source: str) -> None:
    """Refuse folders that can't be the classes: two hold the same folders, or one holds drawings
    of the other, or is a set of its own.

    Raises:
        DataError: names the folders, and what to do.
    """
    # Where a class folder holds one folder alone, such as images/, that one's are compared.
    inner = {top: unwrapped(top) for top in tops}
    below = {
        top: {entry.name for entry in subfolders(inner[top]) if has_images(entry)} for top in tops
    }
    check_kinds(tops, source)
    for top, names in below.items():
        for name in sorted(names):
            if part_of(name) and class_folders(inner[top] / name):
                raise DataError(
                    f"{source}: {(inner[top] / name).relative_to(top.parent).as_posix()}/ is a "
                    "part with class folders by its name, so "
                    f"{top.name}/ is no class. Give one set alone, such as {top}."
                )
        beside = sorted({other.name for other in tops if other != top} & names)
        if beside and 2 * len(beside) >= len(names):
            raise DataError(
                f"{source}: {top.name}/ holds folders that are called like those beside it "
                f"({shown([name + '/' for name in beside])}), so it is no class, and may be a copy "
                "of all. Move it elsewhere, or give it alone."
            )
    for one, other in alike(below):
        shared = sorted(
            n for n in below[one] & below[other] if not is_kept(n) and fold(n) not in DRAWN
        )
        if len(shared) >= 2 and 2 * len(shared) >= min(len(below[one]), len(below[other])):
            listed = shown([name + "/" for name in shared])
            raise DataError(
                f"{source}: {one.name}/ and {other.name}/ hold the same folders ({listed}), so "
                "these may be the classes. If they are: call the folders around them train/, "
                f"validation/ or test/ if they are parts, or give one of them, such as {one}. If "
                f"not, or if some of the folders say whose photos these are: list the photos in a "
                ".csv table with the columns path, label and group."
            )


def check_kinds(tops: Sequence[Path], source: str) -> None:
    """Refuse folders that are photos and drawings on them, or pieces of one download, by their
    names: in a pile and in a part alike.

    Raises:
        DataError: names the folders.
    """
    names = sorted(top.name for top in tops)
    if any(is_drawn(name) for name in names) and any(is_kept(name) for name in names):
        raise DataError(
            f"{source}: {shown([name + '/' for name in names])} are photos and drawings on them, "
            "no classes. "
            "Expected a folder for each class, or a .csv table with the columns path and label."
            f"{hint_of_names(images_in([top for top in tops if is_kept(top.name)]))}"
        )
    for name in names:
        # A mask alone may be worn: face/ and face_mask/ can be classes.
        plain = words_of(name) - (DRAWN_WORDS - {"mask"})
        photos = [other for other in names if plain and words_of(other) == plain]
        if plain < words_of(name) and photos:
            raise DataError(
                f"{source}: {name}/ holds drawings on the photos in {photos[0]}/ by its name, and "
                "is no class. Move it elsewhere."
            )
    below = {
        top: []
        if has_images(top, deep=False)
        else [entry.name for entry in subfolders(top) if has_images(entry)]
        for top in tops
    }
    if tops:
        check_pieces(below, source, hint_of_tables(tops[0].parent))


def said_of_folders(classes: Mapping[str, Counter[str]], source: str) -> list[str]:
    """A note on what lies below the class folders.

    Args:
        classes: for each class folder the number of images by the folder below it; "" for those
            beside such folders.

    Raises:
        DataError: below a class lie drawings of its images, such as masks.
    """
    said = []
    for name, counts in classes.items():
        photos_too = any(not is_drawn(below) for below in counts)
        for below in counts:
            if fold(below) in DRAWN or (is_drawn(below) and photos_too):
                raise DataError(
                    f"{source}: {name}/{below}/ holds {counts[below]} images that are no photos "
                    "to learn from, by "
                    "its name. Move such folders elsewhere, or list the photos in a .csv table "
                    "with the "
                    "columns path and label."
                )
        if len(counts) == 1 and is_kept(next(iter(counts))):
            continue  # all of them are in images/, or the like
        if set(counts) - {""}:
            listed = [
                f"{below + '/' if below else 'beside them'} {n}" for below, n in counts.items()
            ]
            said.append(f"{name}/ has subfolders: {shown(listed, 5)}")
    if not said:
        return []
    return [
        f"{shown(said)}; all of these images count. If each folder is a person or a place, or "
        "some images are altered copies of others, keep those together in one part: with a .csv "
        "table and its column group."
    ]


def alike(below: Mapping[Path, set[str]]) -> Iterator[tuple[Path, Path]]:
    """Folders that hold a folder of the same name: each with the first one that does."""
    first: dict[str, Path] = {}
    for top, names in below.items():
        yield from dict.fromkeys((first[name], top) for name in sorted(names) if name in first)
        first = dict.fromkeys(names, top) | first


def is_kept(name: str) -> bool:
    """Whether a folder's name says how its images were kept, and nothing else: `JPEGImages`."""
    words = words_of(name)
    return fold(name) in KEPT or (bool(words) and words <= KEPT)


def words_of(name: str) -> set[str]:
    """The words of a name, in lower case."""
    return {word.casefold() for word in WORD.findall(name)}


def is_drawn(name: str) -> bool:
    """Whether a folder's name says that it holds drawings on photos."""
    return fold(name) in DRAWN or bool(words_of(name) & DRAWN_WORDS)


def fold(name: str) -> str:
    """A folder's name without what does not matter."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def levels(folder: Path, paths: Sequence[Path]) -> Iterator[str]:
    """The folder below a class folder that each of its images lies in, "" for none; where it is
    images/, or the like, with the folder below that.
    """
    for path in paths:
        inner = path.relative_to(folder).parts[:-1]
        yield "/".join(inner[: 2 if inner and is_kept(inner[0]) else 1])
