"""Check what a source found, and make `Examples` from it.

Every file is read, hashed and checked once, in threads. Then examples that are in several parts are
dropped from all but one or, if there are no parts, the examples are split.
"""

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from tfxfer import tasks
from tfxfer.cache import Cache
from tfxfer.data.checked import Checked
from tfxfer.data.class_names import check_class_names, notes_on, with_plain_names
from tfxfer.data.duplicates import counted, find_conflicts, find_copies, find_leaks, shown
from tfxfer.data.examples import SPLITS, Examples, Found
from tfxfer.data.label_notes import hint_of_numbers, notes_on_groups, notes_on_labels
from tfxfer.data.split import LONGEST_NAME, Listed, split, split_strata, units_of
from tfxfer.errors import DataError, ImageError, MissingExtraError
from tfxfer.inputs import Kind
from tfxfer.process.cores import cores
from tfxfer.process.parts import map_in_parts
from tfxfer.tasks import multilabel
from tfxfer.tasks.cells import LabelError

LOG = logging.getLogger(__name__)
SAY_EVERY = 5.0  # seconds between two lines of progress

IMBALANCE = 5  # the ratio of training images of two classes above which a note says so


@dataclass(frozen=True)
class Looked:
    """The properties of one file that were found.

    Args:
        digest: the SHA-256 of the content as the decoder gets it; "" if the file can't be read.
        essence: the SHA-256 of what counts when copies are looked for.
        problem: why the file can't be decoded or is left out, or None.
        damage: what is wrong with an image that is damaged but can be decoded, or None.
        plain: whether the decoder gets the bytes as they are on disk.
        missing: the error that an optional package is needed, or None.
    """

    digest: str = ""
    essence: str = ""
    problem: str | None = None
    damage: str | None = None
    plain: bool = False
    missing: MissingExtraError | None = None


def assemble(
    found: Found,
    *,
    seed: int = 0,
    skip_bad_images: bool = False,
    cache: Cache | None = None,
    fewest_classes: int = 2,
) -> Examples:
    """Check what a source found, and make the examples of a run from it.

    Args:
        skip_bad_images: whether to leave out images that can't be decoded, and note them.
        cache: stores which files are not damaged, so that each content is checked only once.
        fewest_classes: 1 where the examples are added to those of other classes.

    Raises:
        DataError: there are no images or only one class, or a class can't be split or has no
            training images.
        ImageError: files can't be decoded, and `skip_bad_images` is False.
        MissingExtraError: there are HEIC, AVIF or TIFF files, and the extra is not installed.
    """
    if not found.files:
        raise DataError(
            f"{found.source}: no {found.kind.MANY} found. Expected a folder of {found.kind.MANY} "
            "for each class, such as cats/ and dogs/."
        )
    task, said = tasks.find(found.task), list[str]()
    if task.CLASSES:
        check_class_names(found.names if found.classes is None else found.classes, found.source)
        found, said = with_plain_names(found)
        said = [*said, *notes_on(found.names)]
    else:
        targets, classes = encode(task, found.names, found)  # before the files are read
        said = notes_on_labels(task, found, targets, classes)
    said += notes_on_groups(found.groups or ())
    kind, many = found.kind, found.kind.MANY
    looked = _inspect(found, skip_bad_images, Checked(kind, cache))
    digests = [each.digest for each in looked]
    essences = [each.essence for each in looked]
    problems = [each.problem for each in looked]
    notes = [*found.notes, *said]
    bad = [i for i, text in enumerate(problems) if text]
    if bad:
        texts = [f"{found.files[i]} {problems[i]}" for i in bad]
        empty = any(problems[i] == "is empty" for i in bad)
        if not skip_bad_images:
            missing = [one.missing for one in looked if one.missing is not None]
            broken = [text for i, text in zip(bad, texts, strict=True) if looked[i].missing is None]
            if missing and not broken:
                raise missing[0]
            raise ImageError(
                f"{found.source}: {len(bad)} of {len(found.files)} {many} can't be read: "
                f"{shown(broken, 5)}. "
                "Repair or remove them, or leave them out with --skip-bad-images."
                + (" A cloud drive may not have fetched the empty ones yet." if empty else "")
                + (f" {missing[0]}" if missing else "")
            )
        notes.append(f"{counted(len(bad), kind)} left out (--skip-bad-images): {'; '.join(texts)}.")
    damaged = {
        file: each.damage for file, each in zip(found.files, looked, strict=True) if each.damage
    }
    if damaged:
        notes.append(_said_of_damage(damaged, kind))
    at = [i for i, text in enumerate(problems) if not text]
    if not at:
        raise DataError(f"{found.source}: none of the {len(found.files)} {many} can be read.")
    names = [found.names[i] for i in at]
    digests, essences = [digests[i] for i in at], [essences[i] for i in at]
    if found.splits is None:
        groups = [found.groups[i] for i in at] if found.groups is not None else None
        if task.CLASSES:
            _need_classes(names, found.source, fewest_classes, kind)
            listed = Listed(
                found.source,
                files=[found.files[i] for i in at],
                lines=None if found.lines is None else [found.lines[i] for i in at],
                hint=hint_of_numbers(names),
            )
            splits = split(names, essences, groups, seed=seed, listed=listed)
        else:
            strata = task.strata(encode(task, names, found)[0]).tolist()
            splits = split_strata(strata, essences, groups, seed=seed, source=found.source)
    else:
        splits = [found.splits[i] for i in at]
        drop, said = find_leaks([found.files[i] for i in at], essences, splits, kind)
        notes += said
        stay = sorted(set(range(len(at))) - set(drop))
        if "train" in splits and not any(splits[i] == "train" for i in stay):
            raise DataError(
                f"{found.source}: every training {kind.ONE} is also in validation or test, so "
                f"that nothing is left to train on. Expected other {many} in each part."
            )
        at, names, digests, essences, splits = (
            [at[i] for i in stay],
            [names[i] for i in stay],
            [digests[i] for i in stay],
            [essences[i] for i in stay],
            [splits[i] for i in stay],
        )
        if task.CLASSES:
            _check_splits(names, splits, found.source, fewest_classes, kind)
    files = [found.files[i] for i in at]
    labels, classes = encode(task, names, found)
    task = tasks.find(task.named(classes))
    said_labels = [task.said_of_target(label, classes) for label in labels]
    notes += find_conflicts(files, digests, said_labels, kind, several=task is multilabel)
    notes += find_copies(digests, said_labels, splits, kind)
    if task.CLASSES:
        used = set(names)
        if gone := [repr(name) for name in found.classes or () if name not in used]:
            what = "this class" if len(gone) == 1 else "these classes"
            notes.append(
                f"There is no {kind.ONE} of {shown(gone)}: the model will not know {what}."
            )
        notes += _oddities(names, splits, classes, kind)
    else:
        notes += check_targets(task, labels, splits, classes=classes, source=found.source)
    return Examples(
        files=tuple(files),
        labels=labels,
        splits=tuple(splits),
        classes=classes,
        kind_name=found.kind_name,
        task_name=task.named(classes),
        digests=tuple(digests),
        read=lambda position: kind.readable(found.read(at[position]), files[position]),
        source=found.source,
        notes=tuple(notes),
        units=_numbered(
            units_of(essences, [found.groups[i] for i in at] if found.groups is not None else None),
            len(files),
        ),
        paths=None
        if found.paths is None
        else tuple(absolute(found.paths[i]) if looked[i].plain else "" for i in at),
        left_out={found.files[i]: problems[i] or "" for i in bad},
        damaged=damaged,
    )


def absolute(path: str) -> str:
    """Return an absolute path: the same string where it is one, which takes no more memory."""
    found = os.path.abspath(path)
    return path if path == found else found


def encode(
    task: tasks.Task, names: Sequence[str], found: Found
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the targets, and the names of the outputs; see `Task.encode`.

    Raises:
        DataError: a label is none of its kind, or a name of an output is no line of text.
    """
    try:
        targets, classes = task.encode(names, found.classes)
    except LabelError as error:
        raise DataError(f"{found.place(error.index)} {error}.") from error
    except ValueError as error:
        raise DataError(f"{found.source} {error}.") from error
    if not classes:
        raise DataError(f"{found.source} has no {task.NOUN}s. Expected at least one.")
    check_class_names(classes, found.source)
    return targets, classes


def check_targets(
    task: tasks.Task,
    targets: np.ndarray,
    splits: Sequence[str],
    *,
    classes: Sequence[str],
    source: str,
) -> list[str]:
    """Return notes on targets that are no classes.

    Raises:
        DataError: there are no training examples, or what they say can't be learnt.
    """
    train = np.array(splits) == "train"
    if not train.any():
        raise DataError(f"{source} has no training examples. Expected some in the part train.")
    try:
        return task.check(targets, train, classes)
    except ValueError as error:
        raise DataError(f"{source} {error}.") from error


def _numbered(units: Sequence[Sequence[int]], count: int) -> np.ndarray:
    numbers = np.zeros(count, np.int64)
    for number, unit in enumerate(units):
        numbers[list(unit)] = number
    return numbers


def _said_of_damage(damaged: Mapping[str, str], kind: Kind) -> str:
    listed = ", ".join(f"{file} ({reason})" for file, reason in damaged.items())
    one, several = f"{kind.ONE} is damaged, its", f"{kind.MANY} are damaged, their"
    are = one if len(damaged) == 1 else several
    return (
        f"{len(damaged)} {are} decoder guessed what is missing: {listed}. "
        "Repair or remove such files, or leave them out with --skip-bad-images."
    )


def _inspect(found: Found, skip_bad_images: bool, checked: Checked) -> list[Looked]:
    """Read and check each file once, in threads.

    Raises:
        MissingExtraError: a file needs the extra `heic`, and `skip_bad_images` is False.
    """

    kind = found.kind

    def look(i: int) -> Looked:
        try:
            data = kind.readable(raw := found.read(i), found.files[i])
        except OSError as error:
            return Looked(problem=f"can't be read: {error.strerror or error}")
        except ImageError as error:
            return Looked(problem=str(error).removeprefix(found.files[i]).lstrip())
        except MissingExtraError as error:
            return Looked(problem=f"needs an extra: {error}", missing=error)
        digest = hashlib.sha256(data).hexdigest()
        if text := kind.problem(data):
            return Looked(digest, problem=text)
        own = kind.essence(data)
        essence = digest if own is data else hashlib.sha256(own).hexdigest()
        damage = checked.find(data, digest)
        if damage is None:
            return Looked(digest, essence, plain=data is raw)
        if not damage.readable:
            return Looked(digest, problem=f"is a {kind.format_of(data)} that {damage.reason}")
        if skip_bad_images:
            said = f"is a {kind.format_of(data)} that is damaged: {damage.reason}"
            return Looked(digest, problem=said)
        return Looked(digest, essence, damage=damage.reason, plain=data is raw)

    count, looked, said = len(found.files), [], time.monotonic()
    LOG.info(f"Checking {count:,} {kind.MANY}")
    with ThreadPoolExecutor(min(8, 2 * cores())) as pool:
        for some in map_in_parts(pool, look, count):
            looked += some
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                LOG.info(f"Checked: {len(looked):,} of {count:,} {kind.MANY}")
    checked.save()
    return looked


def drop_undecodable(examples: Examples, bad: dict[str, str]) -> Examples:
    """Leave out examples that proved to be damaged only when they were decoded.

    The rest is checked as in `assemble`. A class that has lost all its examples is dropped, and a
    note says so.

    Args:
        bad: what is wrong with each content, by its digest.

    Raises:
        ImageError: no example is left.
        DataError: fewer than two classes are left, or a class is left without training examples.
    """
    left_out = [i for i, digest in enumerate(examples.digests) if digest in bad]
    if not left_out:
        return examples
    texts = [f"{examples.files[i]}: {bad[examples.digests[i]]}" for i in left_out]
    if len(left_out) == len(examples):
        raise ImageError(
            f"none of the {len(examples)} {examples.kind.MANY} can be decoded: {shown(texts, 5)}"
        )
    kept = examples.take([i for i, digest in enumerate(examples.digests) if digest not in bad])
    notes = [
        f"left out {len(left_out)} files that can't be decoded:\n"
        + "\n".join(f"  {text}" for text in texts)
    ]
    source = f"{examples.source}, without {len(left_out)} files that can't be decoded"
    lost = {examples.files[i]: bad[examples.digests[i]] for i in left_out}
    all_left_out = {**examples.left_out, **lost}
    if not examples.task.CLASSES:
        said = check_targets(
            examples.task, kept.labels, kept.splits, classes=kept.classes, source=source
        )
        notes = [*examples.notes, *notes, *(text for text in said if text not in examples.notes)]
        return replace(kept, notes=tuple(notes), left_out=all_left_out)
    names = [examples.classes[label] for label in kept.labels]
    trained_before = "train" in examples.splits
    if trained_before:
        _check_splits(names, kept.splits, source, 2, examples.kind)
    used = set(names)
    classes = tuple(name for name in examples.classes if name in used)
    if gone := [repr(name) for name in examples.classes if name not in used]:
        notes.append(
            f"Dropped, because none of its {examples.kind.MANY} can be decoded: the class "
            f"{', '.join(gone)}."
        )
    number = {name: i for i, name in enumerate(classes)}
    return replace(
        kept,
        classes=classes,
        labels=np.array([number[name] for name in names], np.int32),
        notes=(*examples.notes, *notes),
        left_out=all_left_out,
    )


def _need_classes(names: Sequence[str], source: str, fewest: int, kind: Kind) -> None:
    if len(set(names)) < fewest:
        raise DataError(
            f"{source}: all {kind.MANY} are of one class, '{names[0][:LONGEST_NAME]}'. Expected at "
            "least two classes, a folder for each."
        )


def _check_splits(
    names: Sequence[str], splits: Sequence[str], source: str, fewest_classes: int, kind: Kind
) -> None:
    trained = {name for name, part in zip(names, splits, strict=True) if part == "train"}
    if not trained:
        raise DataError(
            f"{source}: no training {kind.MANY}. Expected a folder train/ with a folder for each "
            "class."
        )
    for part in ("validation", "test"):
        if strange := sorted(
            {name for name, at in zip(names, splits, strict=True) if at == part} - trained
        ):
            raise DataError(
                f"{source}: the class {strange[0][:LONGEST_NAME]!r} is in {part} but not in "
                "train, so that it could never be predicted. "
                "In train: "
                f"{shown([repr(name[:LONGEST_NAME]) for name in sorted(trained)], 10)}. Add "
                f"training {kind.MANY}, or remove it from {part}."
            )
    _need_classes(
        [name for name, part in zip(names, splits, strict=True) if part == "train"],
        source,
        fewest_classes,
        kind,
    )


def _oddities(
    names: Sequence[str], splits: Sequence[str], classes: Sequence[str], kind: Kind
) -> list[str]:
    """Return notes on things that are unusual but not wrong.

    These are classes of very different sizes, and parts without examples of some classes.
    """
    notes = []
    counts = {
        part: Counter(name for name, at in zip(names, splits, strict=True) if at == part)
        for part in SPLITS
    }
    most, least = (
        max(classes, key=lambda name: counts["train"][name]),
        min(classes, key=lambda name: counts["train"][name]),
    )
    if counts["train"][most] > IMBALANCE * counts["train"][least]:
        notes.append(
            f"The classes are unequal: {counts['train'][most]} training {kind.MANY} of '{most}', "
            f"{counts['train'][least]} of '{least}', more than {IMBALANCE} to 1. "
            "Look at the balanced accuracy."
        )
    for part in ("validation", "test"):
        if counts[part] and (lacking := [name for name in classes if not counts[part][name]]):
            notes.append(
                f"{part.capitalize()} has no {kind.ONE} of "
                f"{shown([repr(name) for name in lacking])}: nothing is "
                "known about how well it is recognised."
            )
    return notes
