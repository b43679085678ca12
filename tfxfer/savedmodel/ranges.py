"""Tell which pixel values a network expects from what its graph does before its first convolution.

Networks that take 0 to 255 divide or subtract first. Those that take 0 to 1 or -1 to 1 mostly do
nothing, which tells nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.stages import data_inputs, node_of, reach

RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
# The values that black and white have before the first convolution of published networks, as
# (lowest, highest) for each of the two.
AFTER = (
    ((-0.05, 0.05), (0.9, 1.1)),  # 0 to 1
    ((-1.1, -0.9), (0.9, 1.1)),  # -1 to 1
    ((-0.55, -0.45), (0.45, 0.55)),  # -0.5 to 0.5
    ((-2.7, -1.2), (1.8, 3.2)),  # a mean and a standard deviation of each channel
    ((-0.6, -0.2), (2.2, 3.2)),  # the same for dark images, such as those of digits
    ((-0.05, 0.05), (3.5, 5.0)),  # a standard deviation alone
    ((-1.0, 1.0), (250.0, 260.0)),  # 0 to 255
    ((-135.0, -85.0), (115.0, 170.0)),  # 0 to 255 less a mean, as Caffe had it
)
SAME = 0.001  # tolerance: a BatchNorm of mean 0 and variance 1 changes values by less
# Operations that change each value by itself, or move values without mixing those of different
# positions. They turn an image of one value into images of one value.
PLAIN = {"Identity", "Cast", "Mul", "Sub", "Add", "AddV2", "BiasAdd", "RealDiv", "Div", "Neg"}
PLAIN |= {"Minimum", "Maximum", "ClipByValue", "Round", "Floor", "Rint", "Quantize", "Dequantize"}
PLAIN |= {"FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "QuantizeAndDequantizeV2"}
PLAIN |= {"ReverseV2", "StridedSlice", "Slice", "GatherV2", "ConcatV2", "Split", "Unpack", "Pack"}
PLAIN |= {"Pad", "PadV2", "MirrorPad", "Squeeze", "ExpandDims", "Transpose", "FusedBatchNormV3"}
PLAIN |= {"ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor", "StopGradient", "Reshape"}
PLAIN |= {"ExtractImagePatches", "SpaceToDepth", "SpaceToBatchND", "BatchToSpaceND", "AvgPool"}
PLAIN |= {"MaxPool", "Tile", "Select", "SelectV2", "IdentityN", "AddN", "DivNoNan", "MulNoNan"}
PLAIN |= {"CheckNumerics", "Abs", "Relu", "Relu6", "Roll", "FloorMod", "Mean", "ResizeArea"}
PLAIN |= {"ScaleAndTranslate"}
ROUNDS = {"Cast", "ClipByValue", "Identity", "Maximum", "Minimum", "Round"}
FIRST = {"Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum"}
FIRST |= {"BatchMatMulV3", "_FusedConv2D", "Conv3D"}


def range_of(pretrained: Pretrained) -> tuple[float, float] | None:
    """Return the lowest and highest value of a pixel that a network expects.

    Returns: None where the graph of the network does not tell.
    """
    if takes_bytes(pretrained):
        return RANGES[-1]
    levels = sorted({level for low, high in RANGES for level in (low, (low + high) / 2, high)})
    answers = first_layer(pretrained, levels)
    if answers is None:
        return None
    seen = dict(zip(levels, answers, strict=True))
    if all(np.allclose(answer, level, rtol=SAME, atol=SAME) for level, answer in seen.items()):
        return None  # it does nothing with them
    for low, high in RANGES:
        black, grey, white = seen[low], seen[(low + high) / 2], seen[high]
        if not np.isfinite([black, grey, white]).all():
            continue  # such as black, divided by its largest value
        # Values that are cut off or rounded to whole numbers on the way are not on a line.
        is_line = np.allclose(grey, (black + white) / 2, atol=0.01 * np.abs(white - black).max())
        if not is_line or (white <= black).any():
            continue
        # The mean of the channels, since the range is that of all of them together.
        ends = float(np.mean(black)), float(np.mean(white))
        for (least, most), (lowest, highest) in AFTER:
            if least <= ends[0] <= most and lowest <= ends[1] <= highest:
                return low, high
    return None


def takes_bytes(pretrained: Pretrained) -> bool:
    """Return whether a network makes whole numbers from 0 to 255 of its inputs, to begin with."""
    nodes = {node.name: node for node in pretrained.inference.graph.node}
    users: dict[str, list[str]] = {}
    for node in pretrained.inference.graph.node:
        for name in data_inputs(node):
            users.setdefault(name, []).append(node.name)
    plain = reach(
        [node_of(pretrained.inference.input or "")],
        lambda name: [one for one in users.get(name, []) if nodes[one].op in ROUNDS],
    )
    casts = [nodes[name] for name in plain if nodes[name].op == "Cast"]
    return any(node.attr["DstT"].type == tf.uint8.as_datatype_enum for node in casts)


def first_layer(pretrained: Pretrained, levels: Sequence[float]) -> list[np.ndarray] | None:
    """Return the input of the first convolution or product, for images of one value each.

    Args:
        levels: the values of the images.

    Returns: float64 [channels] for each level; None where other operations come first.
    """
    graph = tf.Graph()
    with graph.as_default():
        inputs = tf.compat.v1.placeholder(tf.float32, (1, *pretrained.input_shape))
        feed = {node_of(pretrained.inference.input or ""): inputs} | {
            f"weight_{i}": tf.constant(pretrained.weights[i].value)
            for i in pretrained.inference.weights
        }
        tf.graph_util.import_graph_def(pretrained.inference.graph, input_map=feed, name="")
    tensor = next(read_first(inputs), None)
    if tensor is None or not tensor.dtype.is_floating:
        return None
    with tf.compat.v1.Session(
        graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    ) as session:
        batches = [np.full((1, *pretrained.input_shape), level) for level in levels]
        answers = [session.run(tensor, {inputs: batch}) for batch in batches]
    return [in_the_middle(answer.astype(np.float64)) for answer in answers]


def in_the_middle(answer: np.ndarray) -> np.ndarray:
    """The values [channels] at the position in the middle of a map.

    It is far from borders that a network adds.
    """
    if answer.ndim == 4:
        return answer[0, answer.shape[1] // 2, answer.shape[2] // 2]
    places = answer.reshape(-1, answer.shape[-1])
    return places[len(places) // 2]


def read_first(inputs: tf.Tensor) -> Iterator[tf.Tensor]:
    """Yield the tensors that convolutions or products read directly after the plain operations.

    Between the pixels and these tensors there are only operations of `PLAIN`.
    """
    waiting, seen = [inputs], {inputs.ref()}
    while waiting:
        tensor = waiting.pop(0)
        for operation in tensor.consumers():
            if operation.type in FIRST and operation.inputs[0] is tensor:
                yield tensor
            if operation.type in PLAIN:
                fresh = [out for out in operation.outputs if out.ref() not in seen]
                seen |= {out.ref() for out in fresh}
                waiting += fresh
