"""A network that comes as a Keras model, and not as a folder."""

from collections.abc import Callable
from dataclasses import dataclass

import keras


@dataclass(frozen=True, eq=False)
class KerasNetwork:
    """A Keras model, and how images must be prepared for it.

    Args:
        preprocess: what is applied to its inputs, in TensorFlow operations.
        value_range: the lowest and highest pixel value that `preprocess` expects.
        output: the name of the output with the features; None if there is only one.
    """

    model: keras.Model
    preprocess: Callable
    value_range: tuple[float, float]
    output: str | None = None
