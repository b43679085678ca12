"""Images as a kind of example; see `tfxfer.inputs.kind`.

TensorFlow is loaded only by what needs it: folders of images are also listed without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from os import PathLike
from typing import Any

import numpy as np

from tfxfer.inputs import image
from tfxfer.inputs.defaults import (
    alter,
    essence,
    excerpt,
    fit_plain,
    parts,
    read_together,
    said_of_read,
)
from tfxfer.inputs.image import damage, occlusion
from tfxfer.inputs.image.check import ENDINGS, EXTRA, OTHERS, READ, UNREAD, problem
from tfxfer.inputs.image.check import kind as format_of
from tfxfer.inputs.image.damage import find_damage
from tfxfer.inputs.image.heic import readable
from tfxfer.inputs.image.odd import find_odd
from tfxfer.inputs.image.odd import said_of_many as said_of_odd
from tfxfer.inputs.input import AppInput, Input

__all__ = [
    "ALTERATION",
    "ALTERS_CONTENTS",
    "AS_NEW",
    "AUGMENTATIONS",
    "BESIDE",
    "CELLS",
    "CLASSIFIER",
    "DAMAGE_KEY",
    "ELSEWHERE",
    "ENDINGS",
    "FEATURE",
    "FILE",
    "MANY",
    "MIRROR",
    "NAME",
    "NETWORK",
    "ONE",
    "OTHERS",
    "PLAIN",
    "SIMILAR",
    "TAG",
    "TWINS",
    "UNREAD",
    "VALUES",
    "alter",
    "augment",
    "begins_one",
    "can_hide_damage",
    "essence",
    "excerpt",
    "explain",
    "find_damage",
    "find_odd",
    "fit_plain",
    "for_app",
    "format_of",
    "formats",
    "mirror",
    "parts",
    "plain",
    "preview",
    "problem",
    "read_together",
    "readable",
    "restore",
    "said_of_odd",
    "said_of_read",
    "said_of_unread",
    "spec",
    "takes",
]

NAME = "image"
ONE, MANY = "photo", "photos"
CLASSIFIER = "An image classifier"
TAG = "image-classification"
FILE = "photo.jpg"
VALUES = "raw pixels"
# Measured with efficientnet-lite0 on photos of ants and bees: different photos reached 0.69 at
# most, and of copies that were cropped to 90 % of each side 99 in 100 had 0.76 or more.
SIMILAR = 0.75
TWINS = "two frames of one video"
ELSEWHERE = "another camera, place or day"
NETWORK = "efficientnet-lite0"
PLAIN = "raw_pixels"
CELLS: Sequence[Sequence[str]] = ()
FEATURE = "image/encoded"  # as TensorFlow's own classifiers call it
# Phones and cameras write these beside a JPEG of the same photo.
BESIDE: Set[str] = EXTRA | {".webp", ".jxl"}
DAMAGE_KEY: dict[str, Any] | None = damage.KEY
AUGMENTATIONS: tuple[str, ...] = ("flip", "crop")
AS_NEW: tuple[str, ...] = ("crop",)
ALTERS_CONTENTS = False
ALTERATION = 0
MIRROR: str | None = "flip"
SMALL = (32, 32)  # size of the images on which a baseline is fitted
MOST_SIDE = 2**13


def begins_one(head: bytes) -> bool:
    """Return whether the first bytes are those of an image."""
    return format_of(head) is not None


def formats() -> str:
    """Return the formats that are read, and those that need an extra package."""
    read = ", ".join(sorted(ending.removeprefix(".") for ending in READ))
    more = ", ".join(sorted(ending.removeprefix(".") for ending in EXTRA))
    return f"{read}; with tfxfer[heic] also {more}"


def said_of_unread(endings: Set[str]) -> str:
    """Return advice on images of other formats; "" if there are none."""
    unread = sorted(UNREAD & endings)
    if not unread:
        return ""
    return f" Images of these formats are not read: {', '.join(unread)}. Convert them to .png."


def can_hide_damage(content: bytes) -> bool:
    """Return whether it is a JPEG or WebP file, whose decoders guess what is missing."""
    return format_of(content) in damage.LOOKED_AT


def spec(
    offered: Sequence[Sequence[Any]], size: tuple[int, int] | None, folder: str | PathLike[str]
) -> Any | None:
    """Return the spec of images [None, height, width, 3]; see `Kind.spec`."""
    return image.input_spec(offered, size, folder)


def takes(shape: tuple[int, ...], value_range: tuple[float, float], tokenizer: Any) -> Input | None:
    """Return the input of images of that shape; None for another shape than [h, w, 3]."""
    if tokenizer is not None or len(shape) != 3 or shape[-1] != 3:
        return None
    return image.ImageInput((shape[0], shape[1]), value_range)


def restore(values: Mapping[str, Any], apart: bytes = b"") -> Input:
    """Return the input of the size and range in `values`.

    Raises:
        ValueError: one of them is not allowed.
    """
    size, value_range = values.get("image_size"), values.get("value_range")
    if size is None or not is_size(size):
        raise ValueError(
            f"has image_size {str(size)[:200]}; expected the height and the width in pixels"
        )
    if value_range is None or not is_range(value_range):
        raise ValueError(
            f"has value_range {str(value_range)[:200]}; expected two numbers, the smaller one first"
        )
    (height, width), (low, high) = size, value_range
    return image.ImageInput((height, width), (float(low), float(high)))


def is_size(value: Any) -> bool:
    """Return whether a value can be the height and width of images."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(type(side) is int and 0 < side < MOST_SIDE for side in value)
    )


def is_range(value: Any) -> bool:
    """Return whether a value can be the range of pixels."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(type(end) in (int, float) and abs(end) < 1e30 for end in value)
        and value[0] < value[1]
    )


def plain() -> Input:
    """Return small images, in [0, 1]."""
    return image.ImageInput(SMALL)


def augment(batch: Any, seeds: Any, names: tuple[str, ...]) -> Any:
    """Return a random view of each image; see `augment_images`."""
    return image.augment_images(batch, seeds, names)


def mirror(batch: np.ndarray) -> np.ndarray:
    """Return the images with left and right exchanged."""
    return batch[:, :, ::-1]


def for_app(takes: Input, contents: Iterable[bytes]) -> AppInput:
    """Return that an app gives pixels; the metadata of the file say in which range."""
    return AppInput(names=("image",), dtype="float32", files={}, note="", calibrated=True)


def preview(content: bytes, weight: np.ndarray | None = None) -> bytes | None:
    """Return a small picture of an image; see `tfxfer.inputs.image.picture`."""
    return image.preview(content, weight)


def explain(
    answers: Callable[[np.ndarray], np.ndarray], takes: Input, content: bytes, column: int
) -> np.ndarray | None:
    """Return how much the probability falls where a part is covered; see `occlusion`."""
    decoded = np.asarray(takes.decode(content))
    return occlusion.occlusion(answers, decoded, column)
