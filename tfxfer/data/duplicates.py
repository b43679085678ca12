"""Identical files: across splits a leak, within a split only worth a word when their labels differ."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

SHOWN = 3
RANK = {
    "test": 0,
    "validation": 1,
    "train": 2,
}  # a copy is kept where it judges, and dropped where it teaches


def leaks(
    files: Sequence[str], digests: Sequence[str], splits: Sequence[str]
) -> tuple[list[int], list[str]]:
    """The positions to drop, so that no content is in two splits, and what to say about it. Test is kept before validation, validation before train."""
    home: dict[str, int] = {}
    for i, digest in enumerate(digests):
        if digest not in home or RANK[splits[i]] < RANK[splits[home[digest]]]:
            home[digest] = i
    drop = [i for i, digest in enumerate(digests) if splits[i] != splits[home[digest]]]
    notes = []
    for part in ("train", "validation"):
        if gone := [i for i in drop if splits[i] == part]:
            examples = [f"{files[i]} = {files[home[digests[i]]]}" for i in gone]
            notes.append(
                f"{counted(len(gone), 'image')} dropped from {part}: identical to one in another split, where it is kept ({shown(examples)})."
            )
    return drop, notes


def conflicts(files: Sequence[str], digests: Sequence[str], names: Sequence[str]) -> list[str]:
    """What to say about identical images with different labels, if there are any. They are kept, for nobody but the user knows which label is right."""
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for file, digest, name in zip(files, digests, names, strict=True):
        labels[digest].setdefault(name, file)
    if odd := [
        " = ".join(f"{file} as {name!r}" for name, file in found.items())
        for found in labels.values()
        if len(found) > 1
    ]:
        return [
            f"{counted(len(odd), 'image')} found under more than one label ({shown(odd)}). Each "
            "counts under each; give a photo the label that matters most."
        ]
    return []


def firsts(digests: Sequence[str], labels: Sequence[Hashable]) -> list[int]:
    """The positions of images that are no copy of an earlier one with the same label."""
    first: dict[tuple[str, Hashable], int] = {}
    for i, image in enumerate(zip(digests, labels, strict=True)):
        first.setdefault(image, i)
    return list(first.values())


def copies(digests: Sequence[str], names: Sequence[str], splits: Sequence[str]) -> list[str]:
    """What to say about images that are there more than once within a part, if there are any."""
    notes = []
    for part in RANK:
        mine = [i for i, split in enumerate(splits) if split == part]
        different = len(firsts([digests[i] for i in mine], [names[i] for i in mine]))
        if many := len(mine) - different:
            notes.append(
                f"{many} of {len(mine)} {part} images are copies of others there. Each image "
                f"counts once in the {part} figures: n = {different}."
            )
    return notes


def counted(number: int, noun: str) -> str:
    """ "1 image was", "2 images were"."""
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"


def shown(items: Sequence[str], most: int = SHOWN) -> str:
    """The first few, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
