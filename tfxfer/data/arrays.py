"""Arrays and `tf.data` datasets -> Examples.

Images become PNG files, in memory or on disk, so that the one definition of a pixel holds for them too. TensorFlow itself is not needed here.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfxfer.data.assemble import assemble
from tfxfer.data.examples import SPLITS, Examples, Found
from tfxfer.data.png import COLOUR, png


class Spool:
    """Files one behind the other in a nameless temporary file ($TMPDIR), so that no dataset has to fit into memory."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as its readers
        self.ends = [0]

    def append(self, data: bytes) -> None:
        self.file.write(data)
        self.ends.append(self.ends[-1] + len(data))

    def close(self) -> None:
        """Writing is over. The file itself goes with the last reader."""
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
) -> Examples:
    """Images and labels from memory.

    Args:
        images: [n, h, w] or [n, h, w, 1 to 4]; uint8, or floats in [0, 1], which are rounded to 8 bits.
        labels: [n], integers.
        classes: the name of each label; "0", "1", ... by default.
        splits: "train", "validation" or "test" for each image; None: split by content, 70 / 15 / 15.
        groups: what a split may not tear apart; only without `splits`.

    Raises:
        ValueError: shapes, types or values that don't fit.
        DataError: see `load`.
    """
    images, numbers = np.asarray(images), np.asarray(labels)
    if (
        images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[-1] not in COLOUR)
        or 0 in images.shape
    ):
        raise ValueError(
            f"Expected images of shape [n, h, w] or [n, h, w, 1 to 4]. Received: images.shape={images.shape}"
        )
    if numbers.shape != images.shape[:1] or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"Expected {len(images)} integer labels. Received: labels.shape={numbers.shape}, labels.dtype={numbers.dtype}"
        )
    if splits is not None and (len(splits) != len(images) or set(splits) - set(SPLITS)):
        raise ValueError(
            f"Expected {len(images)} splits out of {SPLITS}. Received: {len(splits)} of {sorted(set(splits))}"
        )
    names = _names(numbers.tolist(), classes)
    files = [f"{i:0{len(str(len(images)))}d}" for i in range(len(images))]
    found = Found(
        files,
        names[1],
        lambda i: png(_bytes(images[i])),
        "arrays",
        splits,
        groups if splits is None else None,
        names[0],
    )
    return assemble(found, seed=seed)


def from_dataset(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Examples:
    """`tf.data` datasets of (image, label), batched or not.

    Images as in `from_arrays`, or encoded files as strings; labels are integers or one-hot rows. With `train` alone the images are split by content,
    70 / 15 / 15; otherwise the parts stay as they are. Each dataset is read once, into a temporary file.

    Raises:
        ValueError: elements of another structure.
        DataError, ImageError: see `load`.
    """
    spool, labels, splits, files = Spool(), [], [], []
    for part, dataset in (("train", train), ("validation", validation), ("test", test)):
        for i, (data, label) in enumerate(_elements(dataset) if dataset is not None else ()):
            spool.append(data)
            labels.append(label)
            splits.append(part)
            files.append(f"{part}/{i:06d}")
    spool.close()
    order, names = _names(labels, classes)
    alone = validation is None and test is None
    return assemble(
        Found(files, names, spool.read, "tf.data", None if alone else splits, classes=order),
        seed=seed,
    )


def _elements(dataset: Any) -> Iterator[tuple[bytes, int]]:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise ValueError(f"Expected a dataset of (image, label). Received: element_spec={spec}")
    image, label = spec[:2]
    rank = image.shape.rank
    batched = (
        rank == 4
        or (image.dtype.name == "string" and rank == 1)
        or (rank == 3 and label.shape.rank == 1 and not label.dtype.is_floating)
    )
    for element in (dataset.unbatch() if batched else dataset).as_numpy_iterator():
        data, number = element[0], np.asarray(element[1])
        if number.ndim > 1 or (number.ndim == 0 and number.dtype.kind not in "iu"):
            raise ValueError(
                f"Expected integer or one-hot labels. Received: shape {number.shape}, type {number.dtype}"
            )
        yield (
            (data if isinstance(data, bytes) else png(_bytes(np.asarray(data)))),
            int(number if number.ndim == 0 else number.argmax()),
        )


def _names(numbers: Sequence[int], classes: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """(classes in order, the class of each label)."""
    order = (
        [str(i) for i in range(max(numbers, default=-1) + 1)]
        if classes is None
        else [str(name) for name in classes]
    )
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(order):
        raise ValueError(
            f"Expected labels from 0 to {len(order) - 1}. Received: {min(numbers)} to {max(numbers)}"
        )
    if len(set(order)) < len(order):
        raise ValueError(f"Expected each class name once. Received: classes={order}")
    return order, [order[i] for i in numbers]


def _bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"Expected images of uint8, or floats from 0 to 1. Received: {image.dtype} from {image.min()} to {image.max()}"
        )
    return np.round(image * 255).astype(np.uint8)
