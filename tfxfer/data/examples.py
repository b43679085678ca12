"""`Examples`, a frozen list of labelled images, which all kinds of data become."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfxfer import inputs, tasks
from tfxfer.data.duplicates import find_firsts

SPLITS = ("train", "validation", "test")
IN_MEMORY = ("arrays", "tf.data")  # sources that `load` can't read again
LISTED = 40  # a table lists every class if there are at most so many


@dataclass(frozen=True)
class Found:
    """What a source holds, before anything is read, checked or split.

    Args:
        files: a name for each image.
        names: the label of each file as text, such as the name of its class (see
            `tfxfer.tasks.cells` for labels in several columns).
        read: a function from the index of a file to its bytes; called from several threads.
        source: the source as it was given, for messages.
        splits: the part of each file; None if the images must be split.
        groups: the group of each file. Files of one group, such as those of the same person, plant
            or scene, must stay in the same part. None if there are no groups.
        classes: the order of the classes, or the names of the columns of labels; None for the order
            of their names.
        notes: notes for the user, such as on what the source left out.
        paths: the path of each file on disk; None if the images are not files.
        kind_name: name of the kind of example, see `tfxfer.inputs`.
        task: name of the kind of answer, see `tfxfer.tasks`.
        lines: the line of each file in its table, for messages; None where there is no table.
    """

    files: Sequence[str]
    names: Sequence[str]
    read: Callable[[int], bytes]
    source: str
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    paths: Sequence[str] | None = None
    kind_name: str = inputs.DEFAULT
    task: str = tasks.CLASSIFY.NAME
    lines: Sequence[int] | None = None

    @property
    def kind(self) -> inputs.Kind:
        """The kind of example that the files are."""
        return inputs.find(self.kind_name)

    def place(self, i: int) -> str:
        """Return where the label of a file stands, for messages."""
        if self.lines is None:
            return f"{self.source}, {self.kind.ONE} {self.files[i]},"
        return f"{self.source}, line {self.lines[i]},"


@dataclass(frozen=True, repr=False)
class Examples:
    """Labelled images in a fixed order. Their bytes are read only when `read` is called.

    Args:
        files: a name for each image, such as its path relative to the folder, or its path as in the
            CSV table. Predictions are listed under it.
        labels: the targets of the task, [n, ...]; for classes int32 [n], indices into `classes`.
        splits: "train", "validation" or "test" for each image.
        classes: the names of the model's outputs in their order, such as classes.
        digests: the SHA-256 of each file's content, in hexadecimal.
        read: a function from the index of an image to its encoded bytes; it may be called from
            several threads.
        source: where the data came from, as given.
        notes: what was left out, was dropped or looks odd, one sentence each.
        units: int [n]. Images with the same number are identical or of one group, and must stay in
            the same fold. None if every image may be in any fold.
        paths: the path of each file, for code that reads it without Python; "" if `read` does not
            give the file as it is on disk. None if there are no files.
        left_out: files that can't be read or decoded, and what is wrong with each.
        damaged: files that are used although a part of the image is missing, and what their decoder
            says.
        kind_name: name of the kind of example, see `tfxfer.inputs`.
        task_name: name of the kind of answer, see `tfxfer.tasks`.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    digests: tuple[str, ...]
    read: Callable[[int], bytes]
    source: str
    notes: tuple[str, ...] = ()
    units: np.ndarray | None = None
    paths: tuple[str, ...] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    kind_name: str = inputs.DEFAULT
    task_name: str = tasks.CLASSIFY.NAME

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        """Return one line, even if there are many files."""
        counts = ", ".join(f"{part} {self.splits.count(part):,}" for part in SPLITS)
        return f"Examples({self._described()} from {self.source!r}: {counts})"

    def _described(self) -> str:
        """Return how many there are, and of what."""
        examples = inputs.how_many(len(self), self.kind)
        if self.task.CLASSES:
            plural = "class" if len(self.classes) == 1 else "classes"
            return f"{examples} of {len(self.classes):,} {plural}"
        plural = "" if len(self.classes) == 1 else "s"
        return f"{examples} with {len(self.classes):,} {self.task.NOUN}{plural}"

    @property
    def kind(self) -> inputs.Kind:
        """The kind of example that they are."""
        return inputs.find(self.kind_name)

    @property
    def task(self) -> tasks.Task:
        """The kind of answer that the examples ask for."""
        return tasks.find(self.task_name)

    @property
    def strata(self) -> np.ndarray:
        """The group of each example, int [n]; parts and folds get their share of each."""
        return self.task.strata(self.labels)

    @property
    def origin(self) -> str:
        """The source for the settings of a run.

        It is what `load` takes, or a description if the examples were made in Python.
        """
        if self.source not in IN_MEMORY:
            return self.source
        return f"{self._described()} from {self.source}"

    def where(self, split: str) -> np.ndarray:
        """Return the indices of one split, int64, ascending; empty if there is no such part."""
        if split not in SPLITS:
            raise ValueError(f"Expected one of {SPLITS}. Received: split={split!r}")
        return np.flatnonzero(np.array(self.splits) == split)

    def distinct(self, positions: np.ndarray) -> np.ndarray:
        """Return `positions` without copies: each content stays once for each label.

        If a part held an image many times, its figures would look more certain than they are,
        because n counts files, and the interval takes them for independent.

        Args:
            positions: int64, the indices of images.

        Returns:
            int64, some of `positions`, in the same order.
        """
        at = np.asarray(positions, np.int64)
        labels = [label.tobytes() for label in self.labels[at]]
        return at[find_firsts([self.digests[i] for i in at], labels)]

    def take(self, positions: Any) -> "Examples":
        """Return the examples at these indices, in this order."""
        at = [int(i) for i in np.arange(len(self))[positions]]
        read = self.read
        return replace(
            self,
            files=tuple(self.files[i] for i in at),
            labels=self.labels[at],
            splits=tuple(self.splits[i] for i in at),
            digests=tuple(self.digests[i] for i in at),
            units=None if self.units is None else self.units[at],
            paths=None if self.paths is None else tuple(self.paths[i] for i in at),
            read=lambda i: read(at[i]),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of classes, file names, contents, labels and splits.

        It is the same for the same data in another folder.
        """
        rows = [
            self.classes,
            *zip(self.files, self.digests, self.labels.tolist(), self.splits, strict=True),
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def dataset(
        self,
        split: str,
        network: Any,
        *,
        batch_size: int = 32,
        shuffle: bool | None = None,
        seed: int = 0,
    ) -> Any:
        """Return the images and labels of one split as a `tf.data.Dataset`, for `model.fit`.

        Args:
            split: "train", "validation" or "test".
            network: a `tfxfer.Backbone`, or anything whose `takes` says what goes in.
            shuffle: whether each epoch has an order of its own; by default only that of train.
            seed: seed of these orders.

        Returns:
            batches of images, float32 [B, H, W, 3] in the network's range, and labels, int32 [B].
            `class_names` are the classes, as in `keras.utils.image_dataset_from_directory`.
        """
        # TensorFlow is loaded only here: examples are also read without it.
        decoding = importlib.import_module("tfxfer.data.decoding")
        return decoding.as_dataset(
            self,
            split,
            network,
            batch_size=batch_size,
            shuffle=split == "train" if shuffle is None else shuffle,
            seed=seed,
        )

    def counts(self) -> dict[str, np.ndarray]:
        """Return the number of examples of each class for each split, int64 [classes].

        Of labels and numbers, it is the number of examples that have the label or the number.
        """
        return {
            split: self.task.count(self.labels[self.where(split)], len(self.classes))
            for split in SPLITS
        }

    def table(self) -> str:
        """Return the number of examples of each class in each split, as aligned text.

        If there are more than 40 classes, only the ten with the fewest training ones are listed.
        """
        counts = self.counts()
        order = range(len(self.classes))
        listed = (
            list(order)
            if len(order) <= LISTED
            else sorted(order, key=lambda c: (counts["train"][c], c))[:10]
        )
        noun = self.task.NOUN
        rows: list[tuple[str, ...]] = [(noun, *SPLITS)]
        rows += [
            (self.classes[c], *(str(counts[s][c]) if counts[s].any() else "-" for s in SPLITS))
            for c in listed
        ]
        if len(listed) < len(order):
            rows.append((f"(the 10 smallest of {len(order)})", "", "", ""))
        total = f"all {self.kind.MANY}"
        if noun == "class":
            total = "1 class" if len(order) == 1 else f"all {len(order):,} classes"
        sizes = [self.splits.count(split) for split in SPLITS]
        rows.append((total, *(str(size) if size else "-" for size in sizes)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]
            ).rstrip()
            for row in rows
        ]
        lacking = [
            f"{part} has {self.kind.MANY} of {np.count_nonzero(counts[part]):,} of them"
            for part in SPLITS
            if counts[part].any() and not counts[part].all()
        ]
        if lacking:
            lines.append("; ".join(lacking))
        return "\n".join(lines)
