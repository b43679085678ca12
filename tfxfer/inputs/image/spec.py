"""Which of a network's inputs takes images."""

from collections.abc import Sequence
from os import PathLike

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.limits import MOST_PIXELS


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
