"""The input of a network of images for one example."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.inputs.image import decode as images
from tfxfer.limits import MOST_PIXELS


@dataclass(frozen=True)
class ImageInput:
    """Pixels of one size, in the range that a network expects.

    Args:
        size: height and width in pixels.
        value_range: the values of black and white.
    """

    KIND: ClassVar[str] = "image"
    TOGETHER: ClassVar[int] = 1
    padded: ClassVar[int] = 0

    size: tuple[int, int]
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        return (*self.size, 3)

    def decode(self, content: tf.Tensor) -> tf.Tensor:
        """Decode the content of a file; see `tfxfer.inputs.image.pixels`."""
        return images.pixels(content, self.size, self.value_range)

    def decode_many(self, contents: tf.Tensor) -> tf.Tensor:
        """Decode the contents of files one after the other."""
        return tf.map_fn(self.decode, contents, fn_output_signature=tf.float32)

    def decode_unless_large(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode it only where it is not large; see `pixels_unless_large`."""
        return images.pixels_unless_large(content, self.size, self.value_range)

    def pack(self, decoded: tf.Tensor) -> tf.Tensor:
        """Return pixels as whole numbers from 0 to 255, uint8."""
        low, high = self.value_range
        whole = tf.round((decoded - low) * (255 / (high - low)))
        return tf.cast(tf.clip_by_value(whole, 0, 255), tf.uint8)

    def unpack(self, packed: tf.Tensor) -> tf.Tensor:
        """Return whole numbers from 0 to 255 as pixels, float32."""
        low, high = self.value_range
        return low + (high - low) / 255 * tf.cast(packed, tf.float32)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the pixels besides the file, as JSON values."""
        return images.fingerprint(self.size, self.value_range)

    def settings(self) -> dict[str, Any]:
        """Return what settings.json holds."""
        return {"image_size": self.size, "value_range": self.value_range}

    def apart(self) -> bytes:
        """Return nothing: the settings hold all."""
        return b""

    def described(self) -> str:
        """Return size and range, and what is done with photos of other sizes."""
        (height, width), (low, high) = self.size, self.value_range
        return (
            f"RGB images of {height} x {width} pixels, values {low} to {high}; photos are turned "
            "upright, made to cover that and cropped"
        )

    def sample(self) -> bytes:
        """Return a grey image of this size, as a JPEG."""
        return tf.io.encode_jpeg(tf.fill(self.shape, tf.constant(128, tf.uint8))).numpy()


def input_spec(
    offered: Sequence[Sequence[tf.TensorSpec]],
    image_size: tuple[int, int] | None,
    folder: str | PathLike[str],
) -> tf.TensorSpec | None:
    """Return the spec of the one image input, with a fixed height and width; see `Kind.spec`."""
    inputs = [
        c[0]
        for c in offered
        if len(c) == 1 and c[0].dtype == tf.float32 and c[0].shape.rank == 4 and c[0].shape[-1] == 3
    ]
    if not inputs:
        return None
    sizes = sorted(
        {(s.shape[1], s.shape[2]) for s in inputs if None not in (s.shape[1], s.shape[2])}
    )
    if all(s.shape[0] is not None for s in inputs):
        raise SavedModelError(
            f"{folder} takes batches of exactly {inputs[0].shape[0]}; expected any batch size. "
            "Export it again with a batch dimension of None."
        )
    if sizes and all(None not in s.shape[1:3] for s in inputs):
        if image_size is not None and image_size not in sizes:
            raise SavedModelError(
                f"{folder} takes images of {sizes[0][0]} x {sizes[0][1]}, not "
                f"{image_size[0]} x {image_size[1]}. Leave --image-size out."
            )
        image_size = image_size or sizes[0]
    if image_size and image_size[0] * image_size[1] > MOST_PIXELS:
        raise SavedModelError(
            f"{folder} takes images of {image_size[0]} x {image_size[1]} pixels, more than the "
            f"{MOST_PIXELS // 10**6} million that are read. Is the folder damaged?"
        )
    if image_size is None:
        raise SavedModelError(
            f"{folder} takes images of any size and none is known for it. Choose one with "
            "--image-size 224 (image_size=224)."
        )
    return tf.TensorSpec((None, *image_size, 3), tf.float32, name="images")
