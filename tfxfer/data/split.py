"""One pile of images -> train, validation and test (70, 15 and 15 in 100), by a hash of the content, class by class.

A hash of seed and content gives each image a fixed place between 0 and 1. Within a class the images with the lowest places are the test part, the next
ones validation, the rest train. So the name and the folder's order don't matter, each class is shared out alike, and nothing is drawn. A bare
threshold on the place would never move an image, but gives a class of 20 anything from 0 to 8 test images; ranking keeps the shares, and one image
more moves at most one other from each part to the next. Identical images have the same place, and a group (a person, a plant) takes that of its name: both
stay together.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from tfxfer.errors import DataError

SHARE = 0.15  # of test, and of validation
LONGEST_NAME = 60  # characters of a class name in a message: a stray quote makes one of half a file


def split(
    names: Sequence[str],
    digests: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
    source: str = "",
) -> list[str]:
    """A split for each image.

    Every class with at least three units (images, identical images, groups) gets all three parts, one with two gets train and test.

    Args:
        names: the class of each image.
        digests: the hash of each image's content.
        groups: what may not be torn apart, or None.

    Raises:
        DataError: a class has only one unit, or a class is left without training images.
    """
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for unit in units_of(digests, groups):
        held = sorted(names[i] for i in unit)
        by_class[max(held, key=held.count)].append(unit)
    result = ["train"] * len(names)
    for name, units in sorted(by_class.items()):
        if len(units) == 1:
            raise DataError(_too_small(name, list(names).count(name), groups is not None, source))
        units.sort(key=lambda unit: _place(seed, groups[unit[0]] if groups else digests[unit[0]]))
        _share_out(units, result)
    if bare := sorted(
        set(names) - {name for name, part in zip(names, result, strict=True) if part == "train"}
    ):
        raise DataError(
            f"{source}: after the split no training image of the class '{bare[0]}' is left, for its groups hold other classes too. Name the split in a column."
        )
    return result


def _share_out(units: list[list[int]], result: list[str]) -> None:
    """Fill test, then validation, up to their shares; at least one unit each, and one is left for train."""
    total = sum(len(unit) for unit in units)
    want = max(1, int(SHARE * total + 0.5))
    parts = ("test", "validation") if len(units) > 2 else ("test",)
    at = 0
    for number, part in enumerate(parts):
        last = len(units) - (len(parts) - number)  # what the parts that follow need
        held = 0
        while at < last and (not held or held + len(units[at]) / 2 <= want):
            for i in units[at]:
                result[i] = part
            held += len(units[at])
            at += 1


def units_of(digests: Sequence[str], groups: Sequence[str] | None) -> list[list[int]]:
    """Positions that have to stay together: the same content or the same group, directly or through others."""
    parent = list(range(len(digests)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, digest in enumerate(digests):
        for key in [("content", digest)] + ([("group", groups[i])] if groups else []):
            parent[root(i)] = root(first.setdefault(key, i))
    units: dict[int, list[int]] = defaultdict(list)
    for i in range(len(digests)):
        units[root(i)].append(i)
    return list(units.values())


def _place(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _too_small(name: str, images: int, grouped: bool, source: str) -> str:
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    tied = (
        "of one group, or tied to other classes by their groups"
        if grouped
        else "the same, or the same as images of other classes"
    )
    return (
        f"{source}: the class '{name}' has {'1 image' if images == 1 else f'{images} images, but all {tied}'}, and the data has to be split into train, "
        f"validation and test. Expected at least 2, better 10. Add images, remove the class, or make the parts yourself: train/{name}/, test/{name}/."
    )
