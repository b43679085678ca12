"""Make notes on labels that are no classes, and on groups, which a person should check."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from tfxfer.data.class_names import ANSWERS, COPY, NOTHING, look_of, measured
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.odd_cells import find_odd
from tfxfer.tasks import Task, columns, multilabel, regress
from tfxfer.tasks.cells import split_cells

SIGNS = ("|", ";", ",", "/", "+", "&")  # signs that people write between labels


def notes_on_labels(
    task: Task, found: Found, targets: np.ndarray, classes: Sequence[str]
) -> list[str]:
    """Return notes on labels that are no classes.

    Args:
        targets: those of `found`, as its task reads them.
        classes: the names of the outputs.
    """
    if task is multilabel:
        # Names that head columns are not made of cells.
        alone = bool(((targets == 1).sum(1) < 2).all())
        return [] if found.classes is not None else notes_on_label_names(classes, alone=alone)
    if task is regress:
        kinds, names = [regress.NAME] * len(classes), list(classes)
    elif isinstance(task, columns.Columns):
        kinds, names = list(task.kinds), list(found.classes or ())
    else:
        return []
    rows = [split_cells(text) or [text] for text in found.names]
    notes = []
    for place, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        if kind == regress.NAME:
            notes += regress.notes_on_rounding([row[place] for row in rows], name)
    return notes


def notes_on_label_names(names: Sequence[str], *, alone: bool) -> list[str]:
    """Return notes on names of labels that were found in cells.

    Args:
        alone: whether no example has two labels.
    """
    notes = [
        f"The labels {' and '.join(map(repr, group))} look almost the same. Are they one? Then "
        "give them one name."
        for group in look_alike(names)
    ]
    if lists := seeming_lists(names, alone=alone):
        notes.append(
            f"Some labels seem to be several: {shown(list(map(repr, lists)))}. Each counts as one "
            "label. Write one of | ; , between the labels of an example, the same in all rows."
        )
    if empty := [repr(name) for name in names if name.casefold() in NOTHING]:
        what = "its name, the label" if len(empty) == 1 else "their names, the labels"
        notes.append(
            f"By {what} {', '.join(empty)} may mean that nothing is known. If so, remove it."
        )
    answers = [repr(name) for name in names if name.casefold() in ANSWERS]
    if answers and alone:
        what = "its name, the label" if len(answers) == 1 else "their names, the labels"
        notes.append(
            f"By {what} {', '.join(answers)} may be an answer. If so, make a column for each "
            "label: its name in the first row, yes or no below."
        )
    return notes


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that look like the same name to a person."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(look_of(name), []).append(name)
    # Names that are all numbered, such as cow (1) and cow (2), are not copies.
    return [
        group for group in groups.values() if len(group) > 1 and not all(map(COPY.search, group))
    ]


def seeming_lists(names: Sequence[str], *, alone: bool) -> list[str]:
    """Return the names that seem to be lists of labels.

    A part of such a name is a label by itself, or all its parts are parts of others. Words between
    blanks are looked at only if all of them are parts of others, and if no example has two labels.
    """
    single, lists = set(names), set[str]()
    for sign in (*SIGNS, *((" ",) if alone else ())):
        pattern = re.escape(sign)
        split = {name: {part.strip() for part in re.split(pattern, name)} - {""} for name in names}
        used = Counter(part for parts in split.values() for part in parts)
        for name, parts in split.items():
            if len(parts) < 2:
                continue
            shared = all(used[part] > 1 for part in parts)
            if shared or (sign != " " and parts & single):
                lists.add(name)
    return sorted(lists)


def notes_on_groups(groups: Iterable[str]) -> list[str]:
    """Return a note on groups that look alike, but are different ones.

    Args:
        groups: the group of each example. One that begins with a zero byte stands for no group.
    """
    alike = look_alike(group for group in groups if not group.startswith("\0"))
    if not alike:
        return []
    pairs = shown([" and ".join(map(repr, group)) for group in alike])
    return [
        f"These groups have almost the same names, but count as different groups, so that a split "
        f"may separate them: {pairs}. If they are the same, give them one name."
    ]


def hint_of_numbers(names: Sequence[str]) -> str:
    """Return advice where classes seem to be measured numbers, as a sentence; "" otherwise.

    Args:
        names: the class of each example.
    """
    counts = Counter(names)
    classes = list(counts)
    odd = set(find_odd(classes, lambda name: regress.is_number(name.replace(",", ".", 1))))
    numbers = [name for i, name in enumerate(classes) if i not in odd]
    once = sum(counts[name] == 1 for name in numbers)
    many = columns.kind_of(numbers) == regress.NAME and 2 * once > len(numbers)
    if not many and not measured(numbers):
        return ""
    what = "Nearly all classes" if odd else "All classes"
    return f"{what} are numbers. If they measure something, add --task regress."
