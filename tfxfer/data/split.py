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

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError

SMALLEST = 3  # units of images that can be divided among all parts
SHARE = 0.15  # the share of test, and that of validation
# Characters of a class name in a message. A quote too many in a table can make half the file one
# name.
LONGEST_NAME = 60
ALIKE = 0.7  # similarity of two names from which one may be a misspelling of the other
Value = TypeVar("Value", str, int)


@dataclass(frozen=True)
class Listed:
    """The files and lines of the examples that are split; messages name them.

    source: the source as it was given.
    files: the name of each image.
    lines: the line of each image in its table; None where there is no table.
    hint: a sentence for the error that a class is too small.
    """

    source: str = ""
    files: Sequence[str] = ()
    lines: Sequence[int] | None = None
    hint: str = ""


def split(
    names: Sequence[str],
    digests: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
    listed: Listed | None = None,
) -> list[str]:
    """Return "train", "validation" or "test" for each image.

    A unit is an image, a set of identical images or a group. A class with at least three units has
    images in all three parts; a class with two units has images in train and test.

    Args:
        names: the class of each image.
        digests: the hash of each image's content.
        groups: the group of each image, or None. Images of one group stay in the same part.

    Raises:
        DataError: classes have only one unit, or a class is left without training images.
    """
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for unit in units_of(digests, groups):
        by_class[_most_frequent(sorted(names[i] for i in unit))].append(unit)
    result = ["train"] * len(names)
    listed = listed or Listed()
    if small := sorted(name for name, units in by_class.items() if len(units) == 1):
        raise DataError(_too_small(small, names, digests, groups is not None, listed=listed))
    for _, units in sorted(by_class.items()):
        units.sort(key=lambda unit: _place(seed, groups[unit[0]] if groups else digests[unit[0]]))
        _share_out(units, result)
    if bare := sorted(
        set(names) - {name for name, part in zip(names, result, strict=True) if part == "train"}
    ):
        raise DataError(_left_without(bare[0], names, digests, listed=listed))
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
    return split(names, digests, groups, seed=seed, listed=Listed(source))


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


def _too_small(
    small: Sequence[str],
    names: Sequence[str],
    digests: Sequence[str],
    grouped: bool,
    *,
    listed: Listed,
) -> str:
    """Return the error that classes have only one unit each.

    Args:
        small: these classes.
        names: the class of each image.
        grouped: whether there are groups.
    """
    said = [_said_of_size(name, names, digests, grouped, listed=listed) for name in small]
    what, each = "the class", ""
    if len(small) > 1:
        what, each = f"{len(small)} classes have too few examples:", " of each"
    parts = "make the parts yourself: train/ and test/, each with a folder for each class"
    if len(small) == 1:
        parts = f"make the parts yourself: train/{_cut(small[0])}/, test/{_cut(small[0])}/"
    if listed.lines is not None:
        parts = "give the parts in a column split"
    remedy = f"Add more, remove {'the class' if len(small) == 1 else 'these classes'}, or {parts}."
    typos = [] if listed.hint else _typos(small, set(names) - set(small))
    if typos:
        remedy = f"{' '.join(typos)} Then correct it. Otherwise a{remedy[1:]}"
    return (
        f"{listed.source}: {what} {shown(said, 5)}, and the data has to be split into train, "
        f"validation and test. Expected at least 2{each}, better 10. {remedy} {listed.hint}"
    ).strip()


def _said_of_size(
    name: str,
    names: Sequence[str],
    digests: Sequence[str],
    grouped: bool,
    *,
    listed: Listed,
) -> str:
    """Return how many examples a class has, and in which lines, or what ties them together."""
    own = [i for i, other in enumerate(names) if other == name]
    if len(own) == 1:
        place = "" if listed.lines is None else f" (line {listed.lines[own[0]]})"
        return f"'{_cut(name)}' has 1 example{place}"
    tied = "the same, or the same as examples of other classes"
    if grouped:
        tied = "of one group, or tied to other classes by their groups"
    copies = _copies(own, names, digests, listed.files)
    also = f" ({shown(copies)})" if copies else ""
    return f"'{_cut(name)}' has {len(own)} examples, but all {tied}{also}"


def _left_without(
    name: str, names: Sequence[str], digests: Sequence[str], *, listed: Listed
) -> str:
    """Return the error that a class has no training images after the split.

    Args:
        name: the class.
        names: the class of each image.
    """
    own = [i for i, other in enumerate(names) if other == name]
    nothing = f"no training example of the class '{_cut(name)}' is left"
    if copies := _copies(own, names, digests, listed.files):
        return (
            f"{listed.source}: {shown(copies)}, but of another class. Copies stay together in one "
            f"part, and after the split {nothing}. Remove each copy from the class that is wrong, "
            f"or add other examples of '{_cut(name)}'."
        )
    return (
        f"{listed.source}: after the split {nothing}, because its groups also hold other classes. "
        "Give the parts in a column split."
    )


def _copies(
    own: Sequence[int], names: Sequence[str], digests: Sequence[str], files: Sequence[str]
) -> list[str]:
    """Return a sentence on each example of a class that is a copy of one of another class.

    Args:
        own: the positions of the examples of the class.
    """
    if not files:
        return []
    name, wanted = names[own[0]], {digests[i] for i in own}
    others: dict[str, int] = {}
    for i, digest in enumerate(digests):
        if digest in wanted and names[i] != name:
            others.setdefault(digest, i)
    return [
        f"{files[i]} is the same as {files[others[digests[i]]]}"
        for i in own
        if digests[i] in others
    ]


def _typos(small: Sequence[str], others: set[str]) -> list[str]:
    """Return a question for each small class that may be a misspelling of another class.

    Names with digits are left out: one of them says nothing about the others.
    """
    plain = {other.casefold(): other for other in sorted(others)}
    questions = []
    for name in small:
        if any(character.isdigit() for character in name) or len(name) > LONGEST_NAME:
            continue
        for near in difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=ALIKE):
            questions.append(f"Is '{name}' a misspelling of '{_cut(plain[near])}'?")
    return questions


def _cut(name: str) -> str:
    """Return the beginning of a name that is too long for a message."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
