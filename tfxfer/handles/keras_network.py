"""A network that comes as a Keras model, and not as a folder."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras


class Check(NamedTuple):
    """Checks of files that anybody may have written.

    file: is called with each of them, and raises an error for what could do harm.
    bounded: refuses variables that are together far larger than so many bytes, in a `with` block.
    trust: whether files may be read by libraries that are not safe with every file.
    """

    file: Callable[[Path], None]
    bounded: Callable[[int], AbstractContextManager]
    trust: bool = False


@dataclass(frozen=True, eq=False)
class KerasNetwork:
    """A Keras model, and how examples must be prepared for it.

    Args:
        preprocess: what is applied to its inputs, in TensorFlow operations. It expects pixels in
            [0, 255], or strings.
        size: height and width of the images to use; None if the model itself has a fixed size.
        takes: the kind of example.
    """

    model: keras.Model
    preprocess: Callable
    size: tuple[int, int] | None = None
    takes: str = "image"
