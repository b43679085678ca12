"""Make notes on labels that are no classes, and on groups, which a person should check."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from tfxfer.data.class_names import (
    ANSWERS,
    NOTHING,
    group_names,
    measured,
    plain_name,
    said_of_alike,
)
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.odd_cells import find_odd
from tfxfer.tasks import Task, columns, multilabel, regress
from tfxfer.tasks.cells import split_cells

SIGNS = ("|", ";", ",")  # signs that people write between labels
INSIDE = ("/", "+", "&", " ")  # what may as well be a part of one name: Sci-Fi & Fantasy
FLOAT = re.compile(r"(-?\d+)\.0")  # a whole number as programs write it that take it for a float


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
    notes = said_of_alike(names, "labels")
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


def seeming_lists(names: Sequence[str], *, alone: bool) -> list[str]:
    """Return the names that seem to be lists of labels.

    A part of such a name is a label by itself, or all its parts are parts of others. Where the sign
    between them may be a part of one name, all parts are labels by themselves. Words between blanks
    are looked at only if no example has two labels.
    """
    single, lists = set(names), set[str]()
    for sign in (*SIGNS, *INSIDE):
        if sign == " " and not alone:
            continue
        split = {name: {part.strip() for part in name.split(sign)} - {""} for name in names}
        used = Counter(part for parts in split.values() for part in parts)
        for name, parts in split.items():
            shared = bool(parts & single) or all(used[part] > 1 for part in parts)
            if len(parts) > 1 and (parts <= single if sign in INSIDE else shared):
                lists.add(name)
    return sorted(lists)


def notes_on_groups(groups: Iterable[str]) -> list[str]:
    """Return a note on groups that are written almost the same, but are different ones.

    Names of groups are often numbers of persons or things, of which each sign matters.

    Args:
        groups: the group of each example. One that begins with a zero byte stands for no group.
    """
    alike = group_names((group for group in groups if not group.startswith("\0")), _form_of)
    if not alike:
        return []
    pairs = shown([" and ".join(map(repr, group)) for group in alike])
    return [
        f"These groups have almost the same names, but count as different groups, so that a split "
        f"may separate them: {pairs}. If they are the same, give them one name."
    ]


def _form_of(group: str) -> str:
    """Return a key of a group without capitals, further blanks and the .0 of a whole number."""
    form = plain_name(plain_name(group).casefold())
    whole = FLOAT.fullmatch(form)
    return form if whole is None else whole[1]


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
