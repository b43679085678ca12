"""A network that comes as a Keras model, and not as a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

# Is called with a file that anybody may have written; it raises an error for what could do harm.
Check = Callable[[Path], None]


@dataclass(frozen=True, eq=False)
class KerasNetwork:
    """A Keras model, and how images must be prepared for it.

    Args:
        preprocess: what is applied to its inputs, in TensorFlow operations. It expects pixels in
            [0, 255].
        size: height and width of the images that it was trained on; None where the model says it.
        output: the name of the output with the features; None if there is only one.
    """

    model: keras.Model
    preprocess: Callable
    size: tuple[int, int] | None = None
    output: str | None = None
