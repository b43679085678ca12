"""Small pictures of images for a report."""

import numpy as np
import tensorflow as tf

from tfxfer.inputs.image import decode
from tfxfer.inputs.image.occlusion import GRID
from tfxfer.inputs.input import TELLING

SIDE, QUALITY = 112, 80  # of a small picture: side in pixels, quality of the JPEG


def preview(content: bytes, heat: np.ndarray | None = None) -> bytes:
    """Return the middle of an image, as the model sees it, as a JPEG.

    Args:
        heat: what `occlusion` returned; the picture is dark where covering it changes little.
    """
    pixels = decode.pixels(tf.constant(content), (SIDE, SIDE), (0.0, 255.0))
    pixels = pixels if heat is None else pixels * light(heat)[..., None]
    return tf.io.encode_jpeg(
        tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8), quality=QUALITY
    ).numpy()


def light(heat: np.ndarray) -> np.ndarray:
    """Return a weight from 0 to 1 for each pixel, highest where covering costs the most."""
    share = tf.constant(heat / max(float(heat.max()), TELLING), tf.float32, (GRID, GRID, 1))
    weight = 0.2 + 0.8 * tf.image.resize(share, (SIDE, SIDE), "bicubic")[..., 0]
    return np.clip(weight.numpy(), 0.2, 1.0)
