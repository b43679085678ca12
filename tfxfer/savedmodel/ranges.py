"""Which pixels a network expects, told by what its graph does with them before its first
convolution.

Networks that take 0 to 255 divide or subtract first; those that take 0 to 1 or -1 to 1 mostly do
nothing, which
tells nothing.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfxfer.savedmodel.graph import Pretrained, node_of

RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
# What black and white become, as (lowest, highest) for each, in the first layers of published
# networks.
AFTER = (
    ((-0.05, 0.05), (0.9, 1.1)),  # 0 to 1
    ((-1.1, -0.9), (0.9, 1.1)),  # -1 to 1
    ((-2.7, -1.2), (1.8, 3.2)),  # a mean and a standard deviation of each channel
    ((-1.0, 1.0), (250.0, 260.0)),  # 0 to 255
    ((-135.0, -85.0), (115.0, 170.0)),  # 0 to 255 less a mean, as Caffe had it
)
# Operations that move values without mixing those of different places.
PLAIN = {"Identity", "Cast", "Mul", "Sub", "Add", "AddV2", "BiasAdd", "RealDiv", "Div", "Neg"}
PLAIN |= {"ReverseV2", "StridedSlice", "GatherV2", "ConcatV2", "Split", "Unpack", "Pack"}
PLAIN |= {"Pad", "PadV2", "MirrorPad", "Squeeze", "ExpandDims", "Transpose", "FusedBatchNormV3"}
PLAIN |= {"ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor", "StopGradient"}
FIRST = {"Conv2D", "DepthwiseConv2dNative"}
WHITE = 255.0


def range_of(pretrained: Pretrained) -> tuple[float, float] | None:
    """The lowest and highest value of a pixel that a network expects; None where its graph does not
    tell.
    """
    mapped = first_layer(pretrained)
    if mapped is None:
        return None
    black, slope = mapped
    if np.allclose(slope, 1.0) and np.allclose(black, 0.0):
        return None
    for low, high in RANGES:
        # The channels' mean: what is told by all of them together.
        ends = (float(np.mean(black + slope * low)), float(np.mean(black + slope * high)))
        for (least, most), (lowest, highest) in AFTER:
            if least <= ends[0] <= most and lowest <= ends[1] <= highest:
                return low, high
    return None


def first_layer(pretrained: Pretrained) -> tuple[np.ndarray, np.ndarray] | None:
    """What the first convolution gets of a pixel p: black + slope * p, each float64 [channels];
    None where it isn't so.
    """
    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, (1, *pretrained.input_shape))
        feed = {node_of(pretrained.inference.input or ""): pixels} | {
            f"weight_{i}": tf.constant(pretrained.weights[i].value)
            for i in pretrained.inference.weights
        }
        tf.graph_util.import_graph_def(pretrained.inference.graph, input_map=feed, name="")
    tensor = next(read_first(pixels), None)
    if tensor is None or tensor.shape.rank != 4 or None in tensor.shape.as_list()[1:]:
        return None
    _, height, width, _ = tensor.shape.as_list()
    with tf.compat.v1.Session(
        graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    ) as session:
        black, one, white = (
            session.run(tensor, {pixels: np.full((1, *pretrained.input_shape), value)})[
                0, height // 2, width // 2
            ].astype(np.float64)
            for value in (0.0, 1.0, WHITE)
        )
    slope = one - black
    is_line = np.allclose(white, black + WHITE * slope, rtol=1e-3, atol=1e-3)
    return (black, slope) if is_line and (slope > 0).all() else None


def read_first(pixels: tf.Tensor) -> Iterator[tf.Tensor]:
    """The tensors that convolutions read, of those that come from the pixels through plain
    operations alone.
    """
    waiting, seen = [pixels], {pixels.ref()}
    while waiting:
        tensor = waiting.pop(0)
        for operation in tensor.consumers():
            if operation.type in FIRST and operation.inputs[0] is tensor:
                yield tensor
            if operation.type in PLAIN:
                fresh = [out for out in operation.outputs if out.ref() not in seen]
                seen |= {out.ref() for out in fresh}
                waiting += fresh
