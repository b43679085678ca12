"""Split images into train, validation and test (70, 15 and 15 %) by a hash of their content.

A hash of the seed and the content gives each image a fixed position between 0 and 1. Within a class
the images with the lowest positions become the test part, the next ones validation, and the rest
train. So file names and the order in the folder do not matter, each class is divided in the same
way, and no random numbers are drawn.

A fixed threshold on the position would never move an image to another part, but it would give a
class of 20 images anything from 0 to 8 test images. Ranking keeps the shares, and one more image
moves at most one other image from each part to the next.

Identical images have the same position, and all images of a group (a person, a plant) have the
position of the name of the group, so that they stay together.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeVar

from tfxfer.errors import DataError

SMALLEST = 3  # units of images that can be divided among all parts
SHARE = 0.15  # the share of test, and that of validation
# Characters of a class name in a message. A quote too many in a table can make half the file one
# name.
LONGEST_NAME = 60
Value = TypeVar("Value", str, int)


def split(
    names: Sequence[str],
    digests: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
    source: str = "",
    hint: str = "",
) -> list[str]:
    """Return "train", "validation" or "test" for each image.

    A unit is an image, a set of identical images or a group. A class with at least three units has
    images in all three parts; a class with two units has images in train and test.

    Args:
        names: the class of each image.
        digests: the hash of each image's content.
        groups: the group of each image, or None. Images of one group stay in the same part.
        hint: a sentence for the error that a class is too small.

    Raises:
        DataError: a class has only one unit, or a class is left without training images.
    """
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for unit in units_of(digests, groups):
        by_class[_most_frequent(sorted(names[i] for i in unit))].append(unit)
    result = ["train"] * len(names)
    for name, units in sorted(by_class.items()):
        if len(units) == 1:
            said = _too_small(name, list(names).count(name), groups is not None, source=source)
            raise DataError(f"{said} {hint}".strip())
        units.sort(key=lambda unit: _place(seed, groups[unit[0]] if groups else digests[unit[0]]))
        _share_out(units, result)
    if bare := sorted(
        set(names) - {name for name, part in zip(names, result, strict=True) if part == "train"}
    ):
        raise DataError(
            f"{source}: after the split no training example of the class '{bare[0]}' is left, "
            "because its groups also hold other classes. Give the parts in a column split."
        )
    return result


def split_strata(
    strata: Sequence[int],
    digests: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
    source: str = "",
) -> list[str]:
    """Return the part of each image, where images have no class but a number for their like.

    Each part gets its share of each number, as of classes in `split`. Numbers of fewer than
    `SMALLEST` units are taken together with the most frequent one.

    Raises:
        DataError: there are fewer than `SMALLEST` units of images.
    """
    units = units_of(digests, groups)
    if len(units) < SMALLEST:
        raise DataError(
            f"{source} has {len(units)} different examples or groups, too few to be split into "
            f"train, validation and test. Expected at least {SMALLEST}, better 100."
        )
    own = [_most_frequent(sorted(strata[i] for i in unit)) for unit in units]
    most = _most_frequent(own)
    kept = {number for number, count in Counter(own).items() if count >= SMALLEST}
    names = [""] * len(strata)
    for unit, number in zip(units, own, strict=True):
        for i in unit:
            names[i] = str(number if number in kept else most)
    if not kept:
        names = [""] * len(strata)
    return split(names, digests, groups, seed=seed, source=source)


def _most_frequent(values: Sequence[Value]) -> Value:
    """Return the value that is there most often; of several, the one that comes first."""
    counts = Counter(values)
    return max(counts, key=lambda value: counts[value])


def _share_out(units: list[list[int]], result: list[str]) -> None:
    """Fill test and then validation up to their shares, and leave the rest for train.

    Each part gets at least one unit; with two units, validation gets none.

    Args:
        units: the indices of the images of each unit, in the order of their positions.
        result: the part of each image, which the function changes.
    """
    total = sum(len(unit) for unit in units)
    want = max(1, int(SHARE * total + 0.5))
    parts = ("test", "validation") if len(units) > 2 else ("test",)
    at = 0
    for number, part in enumerate(parts):
        last = len(units) - (len(parts) - number)  # the parts that follow need one unit each
        held = 0
        while at < last and (not held or held + len(units[at]) / 2 <= want):
            for i in units[at]:
                result[i] = part
            held += len(units[at])
            at += 1


def units_of(digests: Sequence[str], groups: Sequence[str] | None) -> list[list[int]]:
    """Return the indices of images that must stay together, a list for each unit.

    Images stay together if they have the same content or group, directly or through other images.
    """
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


def _too_small(name: str, count: int, grouped: bool, source: str) -> str:
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    tied = (
        "of one group, or tied to other classes by their groups"
        if grouped
        else "the same, or the same as examples of other classes"
    )
    return (
        f"{source}: the class '{name}' has "
        f"{'1 example' if count == 1 else f'{count} examples, but all {tied}'}, and the data has "
        "to be split into train, validation and test. Expected at least 2, better 10. Add more, "
        f"remove the class, or make the parts yourself: train/{name}/, test/{name}/."
    )
