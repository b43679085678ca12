"""Make `Examples` from arrays and `tf.data` datasets.

The images become PNG files, in memory or on disk, so that they are decoded in the same way as all
other images. Texts become files in UTF-8. This module itself does not need TensorFlow.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from tfxfer.data.assemble import assemble
from tfxfer.data.cells import FEW, look_like_files
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import SPLITS, Examples, Found
from tfxfer.data.numbers import (
    brightest_of,
    check_mask,
    check_range,
    eight_bits,
    images_of,
    label_of,
    labels_of,
    masked_in,
    said_of_dim,
)
from tfxfer.data.strings import HOLDER, as_content, contents_of, kind_of, strings_in
from tfxfer.errors import DataError
from tfxfer.inputs import DEFAULT, Kind
from tfxfer.inputs import find as find_kind
from tfxfer.inputs.image.png import COLOUR, png
from tfxfer.tasks import CLASSIFY, TASKS, Task, find
from tfxfer.tasks.cells import texts_of

ENDLESS = -1  # tf.data.INFINITE_CARDINALITY
PATIENCE = 5.0  # seconds before a progress bar is shown
# If so many images of a dataset do not show whether white is 1 or 255, it is taken to be 1.
LOOKED_AT = 256
# A dataset counts as endless after more than FEWEST_REPEATED images in a row that were all there
# before, if these are also more than MOST_ROUNDS times the number of different images.
FEWEST_REPEATED = 1000
MOST_ROUNDS = 20
ENDLESS_TEXT = (
    "Expected a dataset with an end. Received: {}, which repeats without end. Leave out repeat()."
)


class Spool:
    """A list of files in one temporary file, so that a dataset need not fit into memory.

    The temporary file is in $TMPDIR and has no name.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as its readers
        self.ends = [0]

    def append(self, data: bytes) -> None:
        self.file.write(data)
        self.ends.append(self.ends[-1] + len(data))

    def close(self) -> None:
        """Finish writing. The file itself is removed when nothing reads from it any more."""
        self.file.flush()

    def read(self, i: int) -> bytes:
        return os.pread(self.file.fileno(), self.ends[i + 1] - self.ends[i], self.ends[i])


def from_arrays(
    images: Any,
    labels: Any,
    *,
    classes: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    task: str = CLASSIFY.NAME,
) -> Examples:
    """Make `Examples` from images or texts in memory, and their labels.

    Args:
        images: an array of shape [n, h, w] or [n, h, w, 1 to 4], or a list of Pillow images; uint8,
            or numbers from 0 to 1 or from 0 to 255, which are rounded to 8 bits. If a value is
            above 1, white is 255. Or n texts, as str or bytes, in a list, an array or a series of
            a data frame.
        labels: whole numbers of shape [n] or [n, 1], or one-hot rows of shape [n, classes]. For the
            task multilabel 0 or 1, [n, labels]; for regress numbers, [n] or [n, numbers]. In both,
            not-a-number (NaN) or a mask (`numpy.ma`) stands for what is not known.
        classes: the name of each label; "0", "1", ... by default.
        splits: "train", "validation" or "test" for each image, in the order of the images; None:
            the images are split by content, 70 / 15 / 15.
        groups: the group of each image, in their order. Images of one group stay in the same part.
            An image whose group is None, "", NaN or masked is a group of its own. Only without
            `splits`.
        seed: the seed of the split.
        task: name of the kind of answer, see `tfxfer.tasks`.

    Raises:
        ValueError: a shape, dtype or value is not as described above.
        DataError, ImageError: see `load`.
    """
    found = find_in_arrays(images, labels, classes=classes, task=task_named(task))
    count = len(found.files)
    parts = None if splits is None else _parts(splits, count)
    units = None if groups is None else _in_order(groups, "groups")
    if units is not None and (splits is not None or len(units) != count):
        raise ValueError(
            f"Expected {count} groups, and no splits beside them. Received: {len(units)} "
            f"groups, splits={'None' if splits is None else 'given'}"
        )
    if units is not None:  # an image without a group is a group of its own, as in a table
        units = [f"\0{i}" if _is_unknown(unit) else str(unit) for i, unit in enumerate(units)]
    found = replace(found, splits=parts, groups=units, task=task)
    return assemble(found, seed=seed)


def _parts(splits: Any, count: int) -> list[str]:
    """Return the part of each image.

    Raises:
        ValueError: there are more or fewer than images, or one is no part. The message says where.
    """
    parts = _in_order(splits, "splits")
    strange = [
        f"{part!r} at position {i}"
        for i, part in enumerate(parts)
        if not isinstance(part, str) or part not in SPLITS
    ]
    if len(parts) != count or strange:
        received = shown(strange) if strange else f"{len(parts)} splits"
        raise ValueError(f"Expected {count} splits out of {SPLITS}. Received: {received}")
    return [str(part) for part in parts]


def _in_order(values: Any, name: str) -> list[Any]:
    """Return the values of a list, an array or a series of a data frame, in their order.

    A series is not indexed: an index would be looked up among the labels of its rows, and these
    are in another order once the data frame was shuffled or filtered.

    Args:
        name: the argument, for errors.

    Raises:
        ValueError: it is one string, or it has no order.
    """
    if isinstance(values, str | bytes | Mapping | Set):
        raise ValueError(
            f"Expected {name} as a list, an array or a series, with one for each image. Received: "
            f"a {type(values).__name__}"
        )
    return list(values)


def _is_unknown(group: Any) -> bool:
    """Return whether a group is None, "", masked, or one of the signs of data frames for that."""
    if isinstance(group, str):
        return group == ""
    return group is np.ma.masked or str(group) in ("None", "nan", "NaT", "<NA>")


def find_in_arrays(
    images: Any, labels: Any, *, classes: Sequence[str] | None = None, task: Task = CLASSIFY
) -> Found:
    """List examples and labels in memory, which are not checked further and not split.

    Args:
        images, labels, classes: as for `from_arrays`.
        task: what the labels are.

    Raises:
        ValueError: a shape, dtype or value is not as described there.
    """
    labels = as_array(labels, task)
    kind, said = find_kind(DEFAULT), list[str]()
    if strings_in(images) is not None:
        kind = HOLDER
    else:
        checked, white = checked_images(images)
        images, said = checked, said_of_dim(float(checked.max()), white)
    read, count = as_files(images, kind)
    if labels.shape[:1] != (count,) or labels.ndim > 2:
        raise ValueError(
            f"Expected {count} labels, whole numbers or one-hot rows. Received: "
            f"labels.shape={labels.shape}"
        )
    if task.CLASSES:
        order, names = _names(labels_of(labels), classes)
    else:
        order, names = _columns(labels, classes), texts_of(labels)
    files = [f"{i:0{len(str(count))}d}" for i in range(count)]
    read, said_of_all = kind.read_together(read, files)
    return Found(
        files=files,
        names=names,
        read=read,
        source="arrays",
        classes=order,
        notes=(*said, *said_of_all),
        kind_name=kind.NAME,
    )


def as_files(images: Any, kind: Kind) -> tuple[Callable[[int], bytes], int]:
    """Return a function from the index of an example to a file, and the number of examples.

    Args:
        images: as for `from_arrays`.
        kind: what they must be.

    Raises:
        ValueError: a shape, dtype or value is not as described there, or of another kind.
    """
    if kind.CELLS:
        contents = contents_of(images)
        return contents.__getitem__, len(contents)
    checked, white = checked_images(images)
    return lambda i: png(eight_bits(checked[i], white)), len(checked)


def checked_images(images: Any) -> tuple[np.ndarray, float]:
    """Return images as an array, and the value of white in it, 1 or 255.

    Raises:
        ValueError: a shape, dtype or value is not as described in `from_arrays`.
    """
    images = images_of(images)
    if (
        images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[-1] not in COLOUR)
        or 0 in images.shape
    ):
        first = images.ndim == 4 and images.shape[1] in COLOUR
        cure = ". Put the colours last: numpy.moveaxis(images, 1, -1)" if first else ""
        raise ValueError(
            "Expected images of shape [n, h, w] or [n, h, w, 1 to 4]. Received: "
            f"images.shape={images.shape}{cure}"
        )
    if images.dtype == np.uint8:
        return images, 255.0
    white = brightest_of(images) or 1.0
    check_range(images, white)
    return images, white


def from_dataset(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    task: str = CLASSIFY.NAME,
) -> Examples:
    """Make `Examples` from `tf.data` datasets of (image, label) or (text, label), batched or not.

    Images, texts and labels are as in `from_arrays`, or the images are encoded files as strings.
    Datasets of `keras.utils.image_dataset_from_directory` and `text_dataset_from_directory` fit,
    with any of their label modes for one label. Each dataset is read once, into a temporary file.

    Args:
        train: the dataset to train on. If it is the only one, its images are split by content,
            70 / 15 / 15; otherwise the parts stay as they are.
        validation: the dataset for validation, or None.
        test: the dataset for the test, or None.
        classes: the name of each label; by default the names that Keras found if it made the
            dataset, else "0", "1", ...
        seed: the seed of the split.
        task: name of the kind of answer, see `tfxfer.tasks`.

    Raises:
        ValueError: the elements have another structure, labels are of several classes, or a dataset
            does not end.
        DataError, ImageError: see `load`.
    """
    alone = validation is None and test is None
    parts = {"train": train, "validation": validation, "test": test}
    found = find_in_datasets(parts, classes=classes, task=task_named(task))
    found = replace(found, task=task, splits=None if alone else found.splits)
    return assemble(found, seed=seed)


def find_in_datasets(
    parts: Mapping[str, Any], *, classes: Sequence[str] | None = None, task: Task = CLASSIFY
) -> Found:
    """List examples and labels of datasets, which are not checked further.

    Args:
        parts: the dataset of each part, or None; other Args and Raises are those of `from_dataset`.
        task: what the labels are.
    """
    read = label_of if task.CLASSES else np.asarray
    given = {part: dataset for part, dataset in parts.items() if dataset is not None}
    if classes is None:
        classes = getattr(next(iter(given.values())), "class_names", None)
    _check_class_names(given)
    spool, notes = Spool(), list[str]()
    labels, splits, files = list[Any](), list[str](), list[str]()
    kind: Kind | None = None
    for part, dataset in given.items():
        before = len(files)
        for i, (data, label) in enumerate(_elements(dataset, part, notes, read)):
            kind = kind or kind_of(data)
            spool.append(as_content(data, f"{i} of {part}") if kind.CELLS else data)
            labels.append(label)
            splits.append(part)
            files.append(f"{part}/{i:06d}")
        if len(files) == before:
            raise ValueError(f"Expected a dataset of images. Received: {part}, which is empty")
    spool.close()
    if kind is HOLDER and look_like_files([spool.read(i) for i in range(min(FEW, len(files)))]):
        raise ValueError(
            "Expected the contents of files. Received: names of files, such as "
            f"{spool.read(0).decode('utf-8', 'replace')!r}. Read them with Dataset.map, or give a "
            "folder or a .csv table to tfxfer.data.load."
        )
    if task.CLASSES:
        order, names = _names(labels, classes)
    else:
        rows = as_array(labels, task)
        order, names = _columns(rows, classes), texts_of(rows)
    kind = kind or find_kind(DEFAULT)
    read_one, said = kind.read_together(spool.read, files)
    return Found(
        files=files,
        names=names,
        read=read_one,
        source="tf.data",
        splits=splits,
        classes=order,
        notes=(*notes, *said),
        kind_name=kind.NAME,
    )


def task_named(name: str) -> Task:
    """Return a kind of answer by its name.

    Raises:
        DataError: there is none of that name.
    """
    try:
        return find(name)
    except ValueError as error:
        raise DataError(f"--task {name}: expected one of {', '.join(TASKS)}.") from error


def as_array(labels: Any, task: Task) -> np.ndarray:
    """Return labels as an array; numbers that are masked become not-a-number (NaN).

    Raises:
        ValueError: the labels are rows of several lengths, so that some images have more labels
            than others; or a class is masked.
    """
    if len(masked_in(labels)) and not task.CLASSES:
        masked = np.ma.asarray(labels)
        if masked.dtype.kind in "iufb":
            return np.ma.filled(masked.astype(np.float64), np.nan)
    check_mask(labels, "labels", "Leave these images out, together with their labels.")
    try:
        return np.asarray(labels)
    except ValueError as error:
        raise ValueError(
            "Expected one label for each image, or one-hot rows of one length. Received: rows of "
            "several lengths"
        ) from error


def _check_class_names(datasets: dict[str, Any]) -> None:
    """Check that the datasets that Keras made have the same classes.

    Keras numbers the classes of each dataset by the folders that it finds.

    Raises:
        ValueError: two datasets have different classes. The message lists both.
    """
    classes = {
        part: list(names)
        for part, dataset in datasets.items()
        if (names := getattr(dataset, "class_names", None))
    }
    for part, names in classes.items():
        first = next(iter(classes))
        if names != classes[first]:
            raise ValueError(
                f"Expected the same classes in {first} and {part}, so that a label means one "
                f"thing. Received: {first}.class_names={classes[first]}, "
                f"{part}.class_names={names}. Make {part} with class_names={first}.class_names, "
                "and a folder for each."
            )


def _elements(
    dataset: Any, part: str, notes: list[str], read: Callable[[Any], Any]
) -> Iterator[tuple[bytes, Any]]:
    """Yield (the content of an image file, the label) for each element of a dataset.

    A progress bar is shown if it takes long.

    Args:
        notes: a list to which notes for the user are added.
        read: turns a label of the dataset into one of the task.
    """
    spec = getattr(dataset, "element_spec", None)
    if spec is None:
        raise ValueError(
            f"Expected a tf.data.Dataset of (image, label). Received: {part}, a "
            f"{type(dataset).__name__}. Give arrays to tfxfer.data.from_arrays."
        )
    if not isinstance(spec, tuple) or len(spec) < 2 or not _is_pair(*spec[:2]):
        raise ValueError(
            "Expected a dataset of (image, label), each a dense tensor; Dataset.map can make them. "
            f"Received: element_spec={spec}"
        )
    if len(spec) > 2:
        notes.append(
            f"Of {part}, only image and label are used: what comes after them in its elements, "
            "such as weights, is not."
        )
    size = int(dataset.cardinality())
    if size == ENDLESS:
        raise ValueError(ENDLESS_TEXT.format(part))
    if None in (spec[0].shape.rank, spec[1].shape.rank):  # only an element shows its shape
        spec = next(iter(dataset), spec)
    batched = _is_batched(*spec[:2])
    if batched and ((spec[0].shape.rank or 0) > 4 or spec[1].shape.rank == 0):
        raise ValueError(
            "Expected images of shape [h, w] or [h, w, 1 to 4], in batches or not, with a label "
            f"each. Received: element_spec={spec}"
        )
    one_by_one = dataset.unbatch() if batched else dataset
    elements = tqdm(
        one_by_one.as_numpy_iterator(), desc=f"reading {part}", unit="img", delay=PATIENCE
    )
    undecided: list[tuple[np.ndarray, Any]] = []  # images whose white may be 1 or 255
    brightest = 0.0
    white: float | None = None
    repeated = Repeated() if size < 0 else None
    for element in elements:
        data, label = element[0], read(element[1])
        if repeated is not None and repeated.is_endless(data):
            raise ValueError(ENDLESS_TEXT.format(part))
        if isinstance(data, bytes):
            yield data, label
            continue
        image = np.asarray(data)
        _check_image(image)
        brightest = max(brightest, float(image.max(initial=0)))
        white = white or (255.0 if image.dtype == np.uint8 else brightest_of(image))
        undecided.append((image, label))
        if white is None:
            if len(undecided) < LOOKED_AT:
                continue
            white = 1.0
        yield from ((png(eight_bits(one, white or 1.0)), number) for one, number in undecided)
        undecided = []
    yield from ((png(eight_bits(one, white or 1.0)), number) for one, number in undecided)
    notes += said_of_dim(brightest, white or 1.0)


def _is_pair(image: Any, label: Any) -> bool:
    """Return whether the specs of the first two parts of an element may be an image and a label."""
    return hasattr(image, "shape") and type(label).__name__ == "TensorSpec"


def _check_image(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in COLOUR):
        raise ValueError(
            f"Expected images of shape [h, w] or [h, w, 1 to 4]. Received: {image.shape}"
        )


class Repeated:
    """Detects a dataset that repeats for ever where TensorFlow does not know whether it ends.

    TensorFlow does not know it after a filter or a generator, for example.
    """

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.since = 0  # images since the last new one

    def is_endless(self, data: Any) -> bool:
        """Return whether there was no new image for very long; call this with each image."""
        content = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        before = len(self.seen)
        self.seen.add(hashlib.sha256(content).digest())
        self.since = self.since + 1 if len(self.seen) == before else 0
        return self.since > max(FEWEST_REPEATED, MOST_ROUNDS * before)


def _is_batched(image: Any, label: Any) -> bool:
    """Return whether the elements are batches, by their shapes.

    If the last axis of an image has a length of 1, 3 or 4, it is taken for the colour channels.
    """
    rank = image.shape.rank
    if image.dtype.name == "string":
        return rank == 1
    if rank == 3 and image.shape[-1] not in (1, 3, 4):
        return label.shape.rank != 0
    return (rank or 0) >= 4


def _columns(labels: np.ndarray, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the columns of an array of labels that are no classes.

    Raises:
        ValueError: they are not numbers, or there is not one name for each column.
    """
    if labels.dtype.kind not in "iufb":
        raise ValueError(f"Expected labels that are numbers. Received: type {labels.dtype}")
    count = labels.shape[1] if labels.ndim > 1 else 1
    names = [str(i) for i in range(count)] if classes is None else [str(name) for name in classes]
    if len(names) != count or len(set(names)) < count:
        raise ValueError(
            f"Expected {count} different names, one for each column of labels. Received: "
            f"classes={names}"
        )
    return names


def _names(numbers: Sequence[int], classes: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the classes in order, and the class name of each label.

    Raises:
        ValueError: a label is not one of the classes, or `classes` is not a list of different
            names.
    """
    if classes is None:
        if (least := min(numbers, default=0)) < 0:
            raise ValueError(f"Expected labels from 0 on. Received: {least}")
        return [str(number) for number in sorted(set(numbers))], [str(i) for i in numbers]
    if isinstance(classes, str | bytes | Mapping | Set):
        raise ValueError(
            "Expected classes as a list of names, with the name of label 0 first. Received: a "
            f"{type(classes).__name__}"
        )
    order = [str(name) for name in classes]
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(order):
        raise ValueError(
            f"Expected labels from 0 to {len(order) - 1}. Received: "
            f"{min(numbers)} to {max(numbers)}"
        )
    if len(set(order)) < len(order):
        raise ValueError(f"Expected each class name once. Received: classes={order}")
    return order, [order[i] for i in numbers]
