"""Find identical files, which leak from one split to another or have different labels."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

from tfxfer.inputs import Kind

SHOWN = 3
# A copy is kept in the part of the lowest rank, so that it is used to judge and not to train.
RANK = {"test": 0, "validation": 1, "train": 2}


def find_leaks(
    files: Sequence[str], digests: Sequence[str], splits: Sequence[str], kind: Kind
) -> tuple[list[int], list[str]]:
    """Find the examples to drop so that no content is in two splits.

    A copy in test is kept before one in validation, and one in validation before one in train.

    Returns:
        The indices of the examples to drop, and notes about them.
    """
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
                f"{counted(len(gone), kind)} dropped from {part}: identical to one in another "
                f"split, where it is kept ({shown(examples)})."
            )
    return drop, notes


def find_conflicts(
    files: Sequence[str],
    digests: Sequence[str],
    names: Sequence[str],
    kind: Kind,
    *,
    several: bool = False,
) -> list[str]:
    """Return a note if identical examples have different labels.

    They are kept, because only the user knows which label is right.

    Args:
        several: whether an example may have several labels.
    """
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for file, digest, name in zip(files, digests, names, strict=True):
        labels[digest].setdefault(name, file)
    if odd := [
        " = ".join(f"{file} as {name!r}" for name, file in copies.items())
        for copies in labels.values()
        if len(copies) > 1
    ]:
        cure = f"give a {kind.ONE} the label that matters most"
        if several:
            cure = f"write all labels of a {kind.ONE} into one row"
        return [
            f"{counted(len(odd), kind)} found under more than one label ({shown(odd)}). Each "
            f"counts under each; {cure}."
        ]
    return []


def find_firsts(digests: Sequence[str], labels: Sequence[Hashable]) -> list[int]:
    """Return the indices of examples that are no copy of an earlier one with the same label."""
    first: dict[tuple[str, Hashable], int] = {}
    for i, one in enumerate(zip(digests, labels, strict=True)):
        first.setdefault(one, i)
    return list(first.values())


def find_copies(
    digests: Sequence[str], names: Sequence[str], splits: Sequence[str], kind: Kind
) -> list[str]:
    """Return a note for each part in which examples are there more than once."""
    notes = []
    for part in RANK:
        mine = [i for i, split in enumerate(splits) if split == part]
        different = len(find_firsts([digests[i] for i in mine], [names[i] for i in mine]))
        if many := len(mine) - different:
            are = "is a copy of another" if many == 1 else "are copies of others"
            further = "; when classifiers are compared, copies count, too" * (part == "train")
            notes.append(
                f"{many} of {len(mine)} {part} {kind.MANY} {are} there. Each "
                f"{kind.ONE} counts once in the {part} figures: n = {different}{further}."
            )
    return notes


def counted(number: int, kind: Kind) -> str:
    """Return a number with its noun and verb: "1 photo was" or "2 photos were"."""
    return f"{number} {kind.ONE} was" if number == 1 else f"{number} {kind.MANY} were"


def shown(items: Sequence[str], most: int = SHOWN) -> str:
    """Return the first few items as text, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
