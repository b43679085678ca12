"""Gradients of convolutions that a CPU computes faster than TensorFlow's own.

There is one for 1 x 1 filters, and one for wide depthwise filters on small maps. With them,
training the last two stages of EfficientNet-Lite0 from activations is 8 % faster
(benchmarks/partial.py, benchmarks/LOG.md). Their results are the same as TensorFlow's except for
the order of sums.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

NAMES = {"Conv2D": "TfxferConv2D", "DepthwiseConv2dNative": "TfxferDepthwiseConv2dNative"}
PLACES = 64  # positions of a map; with more, the products of all pairs cost more than they save
KERNEL = 5  # width of a filter; TensorFlow has a fast gradient for narrower depthwise filters
PLAIN: dict[str, Any] = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def marked(graph: GraphDef) -> GraphDef:
    """Return a copy of the graph that uses these gradients when this process differentiates it.

    The copy must not be saved, since the marks mean nothing in another process.
    """
    result = GraphDef()
    result.CopyFrom(graph)
    for node in result.node:
        if node.op in NAMES and plain(node.attr):
            node.attr["_gradient_op_type"].s = NAMES[node.op].encode()
    return result


def plain(attributes: Any) -> bool:
    """Whether a convolution has these gradients: float32, NHWC, stride 1 and no dilation.

    Its padding must be SAME, so that the output has the size of the input.
    """
    return (
        attributes["padding"].s == b"SAME"
        and attributes["data_format"].s in (b"", b"NHWC")
        and set(attributes["strides"].list.i) == {1}
        and set(attributes["dilations"].list.i) <= {1}
        and attributes["T"].type == tf.float32.as_datatype_enum
    )


@tf.RegisterGradient(NAMES["Conv2D"])
def of_convolution(op: Any, upstream: tf.Tensor) -> list[tf.Tensor]:
    """Return the gradients of a convolution with respect to the pixels and the filter.

    The gradient of a 1 x 1 filter is one product of matrices. All other gradients are TensorFlow's.
    """
    values, filters = op.inputs
    of_values = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(values), filter=filters, out_backprop=upstream, **PLAIN
    )
    height, width, inputs, outputs = filters.shape
    if (height, width) != (1, 1) or inputs != values.shape[-1]:
        return [
            of_values,
            tf.raw_ops.Conv2DBackpropFilter(
                input=values, filter_sizes=tf.shape(filters), out_backprop=upstream, **PLAIN
            ),
        ]
    product = tf.matmul(
        tf.reshape(values, (-1, inputs)), tf.reshape(upstream, (-1, outputs)), transpose_a=True
    )
    return [of_values, tf.reshape(product, filters.shape)]


@tf.RegisterGradient(NAMES["DepthwiseConv2dNative"])
def of_depthwise_convolution(op: Any, upstream: tf.Tensor) -> list[tf.Tensor]:
    """Return the gradients of a depthwise convolution with respect to the pixels and the filter.

    The gradient of the pixels is a convolution with the filter turned around. The gradient of the
    filter is computed from the products of all pairs of positions, added up by their distance. For
    large maps and for narrow filters, both gradients are TensorFlow's.
    """
    values, filters = op.inputs
    (height, width, channels), (rows, columns, _, multiplier) = values.shape[1:], filters.shape
    if (
        None in (height, width, channels)
        or height * width > PLACES
        or min(rows, columns) < KERNEL
        or not rows % 2
        or not columns % 2
        or multiplier != 1
    ):
        of_values = tf.nn.depthwise_conv2d_backprop_input(
            tf.shape(values), filters, upstream, **PLAIN
        )
        return [
            of_values,
            tf.nn.depthwise_conv2d_backprop_filter(values, tf.shape(filters), upstream, **PLAIN),
        ]
    flat = (-1, height * width, channels)
    pairs = tf.einsum("nxc,nyc->cxy", tf.reshape(values, flat), tf.reshape(upstream, flat))
    summed = tf.reshape(pairs, (channels, -1)) @ tf.constant(
        distances(height, width, rows, columns=columns)
    )
    of_filters = tf.reshape(tf.transpose(summed), (rows, columns, channels, 1))
    return [tf.nn.depthwise_conv2d(upstream, tf.reverse(filters, [0, 1]), **PLAIN), of_filters]


@lru_cache
def distances(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Return which element of the filter takes the first position of a pair to the second.

    Returns: float32 [(height * width)^2, rows * columns], 1 for that element and 0 for all others.
    """
    down = (
        np.arange(height)[:, None, None] - np.arange(height)[:, None] == np.arange(rows) - rows // 2
    )
    right = (
        np.arange(width)[:, None, None] - np.arange(width)[:, None]
        == np.arange(columns) - columns // 2
    )
    return (
        np.einsum("abi,cdj->acbdij", down, right)
        .reshape((height * width) ** 2, rows * columns)
        .astype(np.float32)
    )
