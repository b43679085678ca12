"""Which of a network's inputs takes images."""

from collections.abc import Sequence
from os import PathLike

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.limits import MOST_PIXELS

# The types of pixels that networks take, those before the others where there are several. All are
# given float32, which is cast in front of the network.
TAKEN = (tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.uint8)


def input_spec(
    offered: Sequence[Sequence[tf.TensorSpec]],
    image_size: tuple[int, int] | None,
    folder: str | PathLike[str],
) -> tf.TensorSpec | None:
    """Return the spec of the one image input, with a fixed height and width; see `Kind.spec`."""
    maps = [
        c[0]
        for c in offered
        if len(c) == 1 and c[0].dtype in TAKEN and c[0].shape.rank in (4, None)
    ]
    inputs = [spec for spec in maps if spec.shape.rank == 4 and spec.shape[-1] in (3, None)]
    if maps and not inputs:
        raise SavedModelError(said_of_other(maps[0], str(folder)))
    if not inputs:
        return None
    dtype = min((spec.dtype for spec in inputs), key=TAKEN.index)
    inputs = [spec for spec in inputs if spec.dtype == dtype]
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
    return tf.TensorSpec((None, *image_size, 3), dtype, name="images")


def said_of_other(spec: tf.TensorSpec, name: str) -> str:
    """Return what is wrong with a network of other images than RGB, and what to do."""
    shape = spec.shape
    if shape.rank is None:
        return (
            f"{name} takes {spec.dtype.name} of an unknown shape; expected [batch, height, width, "
            "3]. Export it again with an input_signature that gives the shape."
        )
    begin = (
        f"{name} takes images of shape {tuple(shape)}; expected RGB images, "
        "[batch, height, width, 3]. "
    )
    wrap = (
        "In Python, give a Keras model around it: x = keras.Input((height, width, 3)), then "
        "keras.Model(x, network({}(x))), where network is the Keras model; for a SavedModel, it is "
        'keras.layers.TFSMLayer(folder, call_endpoint="serving_default").'
    )
    if shape[1] == 3:
        return f"{begin}Its channels come first. {wrap.format('keras.layers.Permute((3, 1, 2))')}"
    if shape[-1] == 1:
        return f"{begin}It takes grey images. {wrap.format('keras.ops.image.rgb_to_grayscale')}"
    return (
        f"{begin}Wrap it in a Keras model that turns RGB into {shape[-1]} channels, or choose "
        "another network."
    )
