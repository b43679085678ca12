"""What all kinds of data become: `Examples`, a frozen list of labelled images that are read one at a time."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfxfer.data.duplicates import firsts

SPLITS = ("train", "validation", "test")
IN_MEMORY = ("arrays", "tf.data")  # sources that `load` can't read again
LISTED = 40  # classes that a table lists one by one


@dataclass(frozen=True)
class Found:
    """What a source holds, before anything was read, checked or split.

    Args:
        names: the class name of each file.
        read: position -> the file's bytes; called from several threads.
        splits: the part each file belongs to; None where the source is one pile that has to be split.
        groups: what must not be torn apart by a split: files of the same person, plant, scene; None where there are no groups.
        classes: the order of the classes; None for the order of their names.
        notes: what the source left out.
        paths: of each file on disk; None where there are none.
    """

    files: Sequence[str]
    names: Sequence[str]
    read: Callable[[int], bytes]
    source: str
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    paths: Sequence[os.PathLike] | None = None


@dataclass(frozen=True, repr=False)
class Examples:
    """Labelled images, in a fixed order. The bytes stay where they are until `read` is called.

    Args:
        files: a name for each image, as found or given: relative to the folder, as in the CSV; predictions are listed under it.
        labels: int32 [n], positions in `classes`.
        splits: "train", "validation" or "test" for each image.
        classes: the names of the classes, in the order of the model's outputs.
        digests: the SHA-256, in hexadecimal, of each file's content.
        read: position -> the encoded bytes; may be called from several threads.
        source: where the data came from, as given.
        notes: what was left out, dropped or looks odd, a sentence each.
        units: int [n]; examples of the same number, of one group or identical, may not be torn apart by folds. None where each stands for itself.
        paths: where each file lies, for who reads it without Python; "" where what is read is not the file as it is. None where there are no files.
        left_out: files that can't be read or decoded, and what is wrong with each.
        damaged: files that are read although a part of the image is missing, and what their decoder
            says.
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

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        """One line, however many files there are."""
        counts = ", ".join(f"{part} {self.splits.count(part):,}" for part in SPLITS)
        what = f"{len(self):,} images of {len(self.classes):,} classes"
        return f"Examples({what} from {self.source!r}: {counts})"

    @property
    def origin(self) -> str:
        """The source that a run's settings name: what `load` takes, or words for examples that only
        Python has.
        """
        if self.source not in IN_MEMORY:
            return self.source
        return f"{len(self):,} images of {len(self.classes):,} classes from {self.source}"

    def where(self, split: str) -> np.ndarray:
        """The positions of one split, int64, ascending; empty where the data has no such part."""
        if split not in SPLITS:
            raise ValueError(f"Expected one of {SPLITS}. Received: split={split!r}")
        return np.flatnonzero(np.array(self.splits) == split)

    def distinct(self, positions: np.ndarray) -> np.ndarray:
        """Some positions, int64 in their order, without copies: each content counts once a label.

        A part that holds an image many times would else promise more than it knows: n counts files,
        and the interval takes them for independent.
        """
        at = np.asarray(positions, np.int64)
        return at[firsts([self.digests[i] for i in at], self.labels[at].tolist())]

    def take(self, positions: Any) -> "Examples":
        """The same data, only these positions, in this order."""
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
        """A hash of classes, names, contents, labels and splits: the same for the same data, wherever it lies."""
        rows = [
            self.classes,
            *zip(self.files, self.digests, self.labels.tolist(), self.splits, strict=True),
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def counts(self) -> dict[str, np.ndarray]:
        """For each split the number of images of each class, int64 [classes]."""
        return {
            split: np.bincount(self.labels[self.where(split)], minlength=len(self.classes))
            for split in SPLITS
        }

    def table(self) -> str:
        """Images and classes of each split as aligned text; of many classes only the smallest ten are listed."""
        counts = self.counts()
        order = range(len(self.classes))
        listed = (
            list(order)
            if len(order) <= LISTED
            else sorted(order, key=lambda c: (counts["train"][c], c))[:10]
        )
        rows: list[tuple[str, ...]] = [("class", *SPLITS)]
        rows += [
            (self.classes[c], *(str(counts[s][c]) if counts[s].any() else "-" for s in SPLITS))
            for c in listed
        ]
        if len(listed) < len(order):
            rows.append((f"(the 10 smallest of {len(order)})", "", "", ""))
        total = f"all {len(order):,} classes"
        rows.append((total, *(str(counts[s].sum()) if counts[s].any() else "-" for s in SPLITS)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]
            ).rstrip()
            for row in rows
        ]
        lacking = [
            f"{part} has photos of {np.count_nonzero(counts[part]):,} of them"
            for part in SPLITS
            if counts[part].any() and not counts[part].all()
        ]
        if lacking:
            lines.append("; ".join(lacking))
        return "\n".join(lines)
