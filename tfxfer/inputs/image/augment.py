"""Make augmented views of images in pure TensorFlow.

Each view depends only on the content of the image and on a number.
"""

from typing import Any

import tensorflow as tf

KINDS = ("flip", "crop")
SMALLEST = 0.7  # side of the smallest crop, as a share of the image's


def augment_images(images: tf.Tensor, seeds: tf.Tensor, kinds: tuple[str, ...]) -> tf.Tensor:
    """A random view of each image.

    Args:
        images: float32 [B, H, W, 3], of known H and W.
        seeds: int32 [B, 2].
        kinds: any of "flip" (left and right exchanged, for every other image) and "crop" (a square
            part of 0.7 to 1 of the side, enlarged again).

    Returns:
        float32 [B, H, W, 3].

    Raises:
        ValueError: an unknown kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"Expected kinds from {', '.join(KINDS)}. Received: {unknown[0]!r}")
    draws = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([4], seed), seeds, fn_output_signature=tf.float32
    )
    if "crop" in kinds:
        images = crop(images, draws[:, 0], draws[:, 1:3])
    if "flip" in kinds:
        images = tf.where(draws[:, 3, None, None, None] < 0.5, images, images[:, :, ::-1])
    return images


def crop(images: tf.Tensor, size: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """A part of each image, enlarged to the image's own size, bilinear.

    Args:
        size: numbers from 0 to 1, [B], that choose the size of the part.
        place: numbers from 0 to 1, [B, 2], that choose its place.
    """
    side = SMALLEST + (1 - SMALLEST) * size[:, None]
    start = place * (1 - side)
    boxes: Any = tf.concat([start, start + side], 1)
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), images.shape[1:3])
