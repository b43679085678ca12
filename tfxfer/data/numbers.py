"""Labels and pixels as Python users have them -> a whole number for each image, and 8 bits for each
value.
"""

from typing import Any

import numpy as np

BRIGHTEST = 255
ROUNDING = 1e-4  # of white, by which floats may be off
NEARLY_WHITE = 2  # numbers with decimals up to here: is white 1, or 255?
DIM = 127  # where no image has a brighter pixel, 255 may not be their white


def label_of(label: Any) -> int:
    """The class that one label names: a whole number, alone or as the only one of a row, or a
    one-hot row.

    Raises:
        ValueError: it is none of these, such as a row with two ones or with shares.
    """
    found = np.asarray(label)
    if found.dtype.kind not in "iufb" or found.ndim > 1 or found.size == 0:
        raise ValueError(
            "Expected labels that are whole numbers, [n] or [n, 1], or one-hot rows [n, classes]. "
            f"Received: one of shape {found.shape} and type {found.dtype}.{_cure_of_label(found)}"
        )
    if found.size == 1:
        number = found.reshape(()).item()
        if not float(number).is_integer():
            raise ValueError(f"Expected labels that are whole numbers. Received: {number}")
        return int(number)
    if np.count_nonzero(found) != 1 or found.max() != 1:
        raise ValueError(
            "Expected one-hot rows, a 1 for the class and else 0: tfxfer gives each image one "
            "label. "
            f"Received: {np.array2string(found, threshold=10)}"
        )
    return int(found.argmax())


def _cure_of_label(found: np.ndarray) -> str:
    if found.dtype.kind not in "USO":
        return ""
    return (
        " Names become numbers with classes, numbers = numpy.unique(names, return_inverse=True); "
        "give these as labels and classes=classes."
    )


def images_of(images: Any) -> np.ndarray:
    """Images from memory as one array, and black and white where they are True and False.

    Raises:
        ValueError: they have several sizes, or are no numbers.
    """
    try:
        found = np.asarray(images)
    except ValueError as error:
        raise ValueError(
            "Expected images of one size. Received: images of several. Resize them, or give "
            "them one by one, as a dataset, to tfxfer.data.from_dataset."
        ) from error
    if found.dtype.kind == "b":
        return found.astype(np.uint8) * BRIGHTEST
    if found.dtype.kind not in "iuf":
        raise ValueError(
            f"Expected images of numbers. Received: type {found.dtype}. Files are read from a "
            "folder or a .csv table: see tfxfer.data.load."
        )
    return found


def labels_of(labels: np.ndarray) -> list[int]:
    """`label_of` each, [n], [n, 1] or [n, classes]."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return labels.tolist()
    return [label_of(row) for row in labels]


def eight_bits(image: np.ndarray, brightest: float) -> np.ndarray:
    """uint8 of the same shape, rounded; white is `brightest`, 1 or 255.

    Raises:
        ValueError: see `check_range`.
    """
    if image.dtype == np.uint8:
        return image
    check_range(image, brightest)
    whole = np.round(image.astype(np.float64) * (BRIGHTEST / brightest))
    return np.clip(whole, 0, BRIGHTEST).astype(np.uint8)


def check_range(image: np.ndarray, brightest: float) -> None:
    """Refuse what is no image of numbers from 0 to `brightest`.

    Raises:
        ValueError: a value is below 0 or above white, or is no number.
    """
    lowest, highest = image.min(), image.max()
    off = ROUNDING * brightest if image.dtype.kind == "f" else 0
    if image.dtype.kind not in "iuf" or not (lowest >= -off and highest <= brightest + off):
        raise ValueError(
            "Expected images of uint8, or numbers from 0 to 1 or from 0 to 255. Received: "
            f"{image.dtype} from {lowest} to {highest}.{_cure(lowest, highest)}"
        )


def _cure(lowest: float, highest: float) -> str:
    """Advice for images with values from `lowest` to `highest`; "" where there is none."""
    if not np.isfinite([lowest, highest]).all():
        return " Some values are no numbers (NaN or infinite)."
    for white in (1, BRIGHTEST):
        if -0.1 * white <= lowest and 0.5 * white < highest <= 1.1 * white:
            return f" If white is {white}: numpy.clip(x, 0, {white})."
    if -1 <= lowest < 0 and highest <= 1:
        return " Values from -1 to 1 become (x + 1) / 2."
    if lowest < 0:
        return " Undo what was subtracted, and what it was divided by."
    if highest <= 65535:
        return " Divide by the value of white: 65535 for 16 bits, 4095 for 12 bits."
    return ""


def brightest_of(image: np.ndarray) -> float | None:
    """The value of white: 255 where the image has a value above 1, None where it may be 1.

    Of whole numbers 2 is above 1; of others it may be 1 and what resizing adds.
    """
    most = NEARLY_WHITE if image.dtype.kind == "f" else 1
    return float(BRIGHTEST) if image.max(initial=0) > most else None


def said_of_dim(highest: float, white: float) -> list[str]:
    """A note where no image is bright, so that white may be another value than was taken.

    Args:
        highest: value of all images.
    """
    if white != BRIGHTEST or highest > DIM or highest <= 0:
        return []
    return [
        f"No image has a value above {highest:g}, where white is {white:g}, so that all are dark. "
        f"If white is {highest:g}, multiply them by 255 / {highest:g} first."
    ]
