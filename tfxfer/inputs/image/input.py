"""The input of a network of images for one example."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfxfer.inputs.image import decode as images


@dataclass(frozen=True)
class ImageInput:
    """Pixels of one size, in the range that a network expects.

    Args:
        size: height and width in pixels.
        value_range: the values of black and white.
    """

    size: tuple[int, int]
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        return (*self.size, 3)

    def decode(self, content: tf.Tensor) -> tf.Tensor:
        """Decode the content of a file; see `tfxfer.inputs.image.pixels`."""
        return images.pixels(content, self.size, self.value_range)

    def decode_unless_large(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode it only where it is not large; see `pixels_unless_large`."""
        return images.pixels_unless_large(content, self.size, self.value_range)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the pixels besides the file, as JSON values."""
        return images.fingerprint(self.size, self.value_range)
