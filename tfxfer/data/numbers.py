"""Convert labels and pixels from Python: a whole number for each image, 8 bits for each value."""

from typing import Any

import numpy as np

from tfxfer.data.duplicates import shown
from tfxfer.inputs.image.heic import pixels_of

BRIGHTEST = 255
ROUNDING = 1e-4  # the share of white by which floats may be below 0 or above white
NEARLY_WHITE = 2  # if no float is above this, white may be 1 (see `brightest_of`)
DIM = 127  # if no image has a brighter pixel, their white may not be 255


def label_of(label: Any) -> int:
    """Return the class number of one label.

    Args:
        label: a whole number, a row with one whole number, or a one-hot row.

    Raises:
        ValueError: the label is something else, such as a row with two ones or with fractions.
    """
    array = np.asarray(label)
    if array.dtype.kind not in "iufb" or array.ndim > 1 or array.size == 0:
        raise ValueError(
            "Expected labels that are whole numbers, [n] or [n, 1], or one-hot rows [n, classes]. "
            f"Received: one of shape {array.shape} and type {array.dtype}.{_cure_of_label(array)}"
        )
    if array.size == 1:
        number = array.reshape(()).item()
        if not float(number).is_integer():
            cure = "" if np.isnan(number) else ' To predict numbers, give task="regress".'
            raise ValueError(f"Expected labels that are whole numbers. Received: {number}.{cure}")
        return int(number)
    if np.count_nonzero(array) != 1 or array.max() != 1:
        several = np.isin(array, (0, 1)).all()
        cure = (
            'several labels, give task="multilabel"' if several else 'numbers, give task="regress"'
        )
        raise ValueError(
            "Expected one-hot rows, with 1 for the class and 0 for the others. Received: "
            f"{np.array2string(array, threshold=10)}. If an image may have {cure}."
        )
    return int(array.argmax())


def _cure_of_label(label: np.ndarray) -> str:
    if label.dtype.kind not in "USO":
        return ""
    return (
        " To turn names into numbers: classes, numbers = numpy.unique(names, return_inverse=True). "
        "Then give the numbers as labels, and classes=classes."
    )


def images_of(images: Any) -> np.ndarray:
    """Return images from memory as one array; True becomes white (255) and False black (0).

    Images of Pillow become what a file of them is read as.

    Raises:
        ValueError: the images have several sizes, are not numbers, or are masked in part.
    """
    check_mask(images, "images", "Fill in what is masked: images.filled(0).")
    images = _without_pillow(images)
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(
            "Expected images of one size. Received: several sizes. Resize the images, or give "
            "them one by one, as a dataset, to tfxfer.data.from_dataset."
        ) from error
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * BRIGHTEST
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"Expected images of numbers. Received: type {array.dtype}. Files are read from a "
            "folder or a .csv table: see tfxfer.data.load."
        )
    return array


def _without_pillow(images: Any) -> Any:
    """Return images, in which those of Pillow are arrays of 8 bits, with as many channels each.

    NumPy would read the numbers of a palette as greys, and the black of CMYK as transparency.
    """
    # A series of a data frame has objects, too. What has numbers may be too large to look through.
    listed = list(images) if np.dtype(object) == getattr(images, "dtype", object) else []
    if not any(_is_of_pillow(image) for image in listed):
        return images
    arrays = [_read_as_file(image) if _is_of_pillow(image) else image for image in listed]
    depths = {np.shape(array)[2:] for array in arrays}
    if len(depths) == 1 or not depths <= {(), (1,), (3,), (4,)}:
        return arrays
    return [_with_channels(np.asarray(array), *max(depths)) for array in arrays]


def _is_of_pillow(image: Any) -> bool:
    """Return whether it is an image of Pillow, which need not be installed."""
    return any(base.__module__ == "PIL.Image" for base in type(image).__mro__)


def _read_as_file(image: Any) -> np.ndarray:
    """Return an image of Pillow as an array, mostly of 8 bits."""
    if image.mode in ("I", "F"):  # numbers of 32 bits, whose range is checked as that of an array
        return np.asarray(image)
    pixels = pixels_of(image)
    if pixels.dtype == np.uint16:  # white is 65535, as in a file
        return np.round(pixels / (65535 / BRIGHTEST)).astype(np.uint8)
    return pixels


def _with_channels(image: np.ndarray, count: int) -> np.ndarray:
    """Return an image of 8 bits with 3 or 4 channels; a new fourth one is opaque."""
    if image.ndim == 2 or image.shape[-1] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=-1)
    if image.shape[-1] < count:
        opaque = np.full((*image.shape[:2], 1), BRIGHTEST, np.uint8)
        image = np.concatenate([image, opaque], axis=-1)
    return image


def masked_in(values: Any) -> np.ndarray:
    """Return the positions at which something is masked (`numpy.ma`), int64; mostly empty.

    `numpy.asarray` forgets what is masked, and takes the values below.
    """
    if isinstance(values, np.ma.MaskedArray):
        mask = np.atleast_1d(np.ma.getmaskarray(values))
        return np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
    if not isinstance(values, list | tuple):
        return np.zeros(0, np.int64)
    of_each = [isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value) for value in values]
    return np.flatnonzero(of_each)


def check_mask(values: Any, name: str, cure: str) -> None:
    """Check that nothing is masked.

    Args:
        name: the argument, for errors.
        cure: what to do about it.

    Raises:
        ValueError: something is masked. The message says where.
    """
    if len(places := masked_in(values)):
        raise ValueError(
            f"Expected {name} of which none is masked. Received: masked ones at the positions "
            f"{shown([str(place) for place in places])}. {cure}"
        )


def labels_of(labels: np.ndarray) -> list[int]:
    """Return `label_of` each label of an array of shape [n], [n, 1] or [n, classes]."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return labels.tolist()
    return [label_of(row) for row in labels]


def eight_bits(image: np.ndarray, brightest: float) -> np.ndarray:
    """Return an image as uint8 of the same shape, rounded.

    Args:
        brightest: the value of white, 1 or 255.

    Raises:
        ValueError: see `check_range`.
    """
    if image.dtype == np.uint8:
        return image
    check_range(image, brightest)
    whole = np.round(image.astype(np.float64) * (BRIGHTEST / brightest))
    return np.clip(whole, 0, BRIGHTEST).astype(np.uint8)


def check_range(image: np.ndarray, brightest: float) -> None:
    """Check that an image holds numbers from 0 to `brightest`.

    Raises:
        ValueError: a value is below 0 or above `brightest`, or is not a number.
    """
    lowest, highest = image.min(), image.max()
    off = ROUNDING * brightest if image.dtype.kind == "f" else 0
    if image.dtype.kind not in "iuf" or not (lowest >= -off and highest <= brightest + off):
        raise ValueError(
            "Expected images of uint8, or numbers from 0 to 1 or from 0 to 255. Received: "
            f"{image.dtype} from {lowest} to {highest}.{_cure(lowest, highest)}"
        )


def _cure(lowest: float, highest: float) -> str:
    """Return advice on images with values from `lowest` to `highest`, or "" if there is none."""
    if not np.isfinite([lowest, highest]).all():
        return " Some values are not numbers (NaN), or are infinite."
    for white in (1, BRIGHTEST):
        if -0.1 * white <= lowest and 0.5 * white < highest <= 1.1 * white:
            return f" If white is {white}, use numpy.clip(x, 0, {white})."
    if -1 <= lowest < 0 and highest <= 1:
        return " For values from -1 to 1, use (x + 1) / 2."
    if lowest < 0:
        return " Undo the normalisation: multiply by the divisor, and add what was subtracted."
    if highest <= 65535:
        return " Divide by the value of white: 65535 for 16 bits, 4095 for 12 bits."
    return ""


def brightest_of(image: np.ndarray) -> float | None:
    """Return 255 as the value of white if the image shows that, or None if white may be 1.

    Whole numbers show it with any value above 1, floats only with a value above 2: resizing can
    give floats above 1 even if white is 1.
    """
    most = NEARLY_WHITE if image.dtype.kind == "f" else 1
    return float(BRIGHTEST) if image.max(initial=0) > most else None


def said_of_dim(highest: float, white: float) -> list[str]:
    """Return a note if no image is bright, so that white may have another value than assumed.

    Args:
        highest: the highest value in all images.
        white: the assumed value of white.
    """
    if white != BRIGHTEST or highest > DIM or highest <= 0:
        return []
    return [
        f"No image has a value above {highest:g}, where white is {white:g}, so that all are dark. "
        f"If white is {highest:g}, multiply them by 255 / {highest:g} first."
    ]
