"""Add labelled examples to those that a model was made from: to its classes, or as new ones."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from os import PathLike, fspath

import numpy as np

from tfxfer.cache import Cache
from tfxfer.data import find_source, no_source
from tfxfer.data.assemble import assemble
from tfxfer.data.duplicates import counted, shown
from tfxfer.data.examples import Examples
from tfxfer.errors import DataError
from tfxfer.inputs import Kind


def load_more(
    data: str | PathLike[str] | Examples,
    *,
    kind: Kind,
    data_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    skip_bad_images: bool = False,
    cache: str | PathLike[str] | None = None,
    labels: Sequence[str] = (),
) -> Examples:
    """Load examples as `tfxfer.data.load` does; one class is enough.

    Args:
        kind: what the files of a folder or table are.
        labels: the name of the column of labels in a table, if it has this column.

    Raises:
        The errors of `tfxfer.data.load`.
    """
    if isinstance(data, Examples):
        return data
    source = fspath(data)
    found = find_source(source, data_dir, judging=True, kind=kind, labels=labels)
    if found is None:
        raise no_source(source)
    return assemble(
        found,
        seed=seed,
        skip_bad_images=skip_bad_images,
        cache=None if cache is None else Cache(cache),
        fewest_classes=1,
    )


def leave_out_copies(new: Examples, known: Collection[str]) -> Examples:
    """Return the new examples without those whose content a model knows; a note names them.

    Args:
        known: the SHA-256 of each content that was used before, in any part.

    Raises:
        DataError: no training example is left, or none of a class.
    """
    copies = [i for i, digest in enumerate(new.digests) if digest in known]
    if not copies:
        return new
    many = new.kind.MANY
    named = shown([new.files[i] for i in copies])
    note = (
        f"{counted(len(copies), new.kind)} left out: the run knows the same content already "
        f"({named}). A label is changed by a run on all {many} anew, not by adding."
    )
    left = np.setdiff1d(np.arange(len(new)), copies)
    rest = new.take(left)
    trained = {new.classes[label] for label in rest.labels[rest.where("train")]}
    if not trained:
        raise DataError(
            f"{new.source}: the run knows {len(copies):,} of {len(new):,} {many} already, and no "
            f"new {new.kind.ONE} is left to train on. Expected other {many}."
        )
    if bare := sorted({new.classes[label] for label in rest.labels} - trained):
        raise DataError(
            f"{new.source}: without the {len(copies):,} {many} that the run knows already, the "
            f"class '{bare[0]}' has no training {new.kind.ONE}. Add {many} of it."
        )
    return replace(rest, notes=(*rest.notes, note))


def join_classes(old: Sequence[str], new: Examples) -> tuple[str, ...]:
    """Return the old classes, and after them those of the new examples that are not among them."""
    used = {new.classes[label] for label in new.labels}
    return (*old, *(name for name in new.classes if name in used and name not in old))


def with_classes(examples: Examples, classes: Sequence[str]) -> Examples:
    """Return the same examples with labels in another list of classes, which has all of theirs."""
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[examples.classes[label]] for label in examples.labels]
    return replace(examples, classes=tuple(classes), labels=np.array(labels, np.int32))


def add_examples(old: Examples, new: Examples) -> Examples:
    """Return the old examples and after them the new ones, each in its part.

    Copies of old examples are left out. A file whose name is taken is listed with its source before
    its name.

    Raises:
        DataError: they are of another kind or task, or nothing new is left.
    """
    if (old.kind_name, old.task_name) != (new.kind_name, new.task_name):
        raise DataError(
            f"{new.source} holds examples of the kind {new.kind_name} for the task "
            f"{new.task_name}; expected {old.kind_name} for {old.task_name}, as in {old.source}."
        )
    new = leave_out_copies(new, set(old.digests))
    classes = join_classes(old.classes, new)
    before, after = with_classes(old, classes), with_classes(new, classes)
    count, taken = len(old), set(old.files)
    files = [name if name not in taken else f"{new.source}/{name}" for name in new.files]
    units = np.concatenate([numbers_of(old), numbers_of(new) + 1 + numbers_of(old).max()])
    paths = None
    if old.paths is not None or new.paths is not None:
        paths = (*(old.paths or [""] * count), *(new.paths or [""] * len(new)))

    def read(i: int) -> bytes:
        return old.read(i) if i < count else new.read(i - count)

    return replace(
        before,
        files=(*old.files, *files),
        labels=np.concatenate([before.labels, after.labels]),
        splits=(*old.splits, *new.splits),
        digests=(*old.digests, *new.digests),
        read=read,
        source=f"{old.source} and {new.source}",
        notes=(*old.notes, *new.notes),
        units=units,
        paths=paths,
        left_out={**old.left_out, **new.left_out},
        damaged={**old.damaged, **new.damaged},
    )


def numbers_of(examples: Examples) -> np.ndarray:
    """Return the number of each example's unit; each is its own where there are none."""
    return np.arange(len(examples)) if examples.units is None else examples.units
