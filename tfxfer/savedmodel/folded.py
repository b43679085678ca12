"""Fold BatchNorm layers in inference mode into the convolutions before them.

With fixed statistics, a BatchNorm multiplies each channel by a factor and adds a bias. So does the
convolution before it, where its filter is multiplied by the factor (Jacob et al. 2018, arXiv
1712.05877, section 3.2). A gradient then needs neither the map between the two nor another pass
over it, and a prediction fewer passes (benchmarks/partial.py, benchmarks/LOG.md). The weights stay
what they are, and so do the outputs and the gradients, except for the order of sums.

Keras 3 writes a BatchNorm out as a product and a sum. Older SavedModels have one operation for it,
which is written out first.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.mixed import canonical

FLOAT = tf.float32.as_datatype_enum
INTEGER = tf.int32.as_datatype_enum
NHWC = (b"", b"NHWC")
# How many of the last axes of a filter [rows, columns, inputs, outputs], or of a depthwise filter
# [rows, columns, inputs, multiplier], belong to the channels of the map.
AXES = {"Conv2D": 1, "DepthwiseConv2dNative": 2}


def folded(graph: GraphDef, fetched: Collection[str]) -> GraphDef:
    """Return a copy of the graph in which convolutions have taken in their BatchNorm.

    The last operation of a BatchNorm that was taken in is a BiasAdd of the same name.

    Args:
        fetched: names of the tensors that will be asked for; they keep their values.
    """
    result = written_out(graph, fetched)
    nodes, reads = {node.name: node for node in result.node}, read_counts(result, fetched)
    with tf.Graph().as_default() as shaped:
        tf.graph_util.import_graph_def(result, name="")

    def shape(tensor: str) -> tf.TensorShape:
        return shaped.get_tensor_by_name(canonical(tensor)).shape

    def map_and_vector(node: NodeDef, operation: str) -> tuple[str, str] | None:
        """What a product or a sum of a map and a number for each of its channels is made of."""
        if node.op != operation or node.attr["T"].type != FLOAT:
            return None
        for one, other in (node.input, reversed(node.input)):
            sides = shape(one)
            if sides.rank == 4 and sides[3] and shape(other) in ([sides[3]], [1, 1, 1, sides[3]]):
                return one, other
        return None

    for norm in list(nodes.values()):
        added = map_and_vector(norm, "AddV2")
        if added is None or reads[canonical(added[0])] != 1:
            continue
        multiplied = map_and_vector(nodes[owner(added[0])], "Mul")
        if multiplied is None or reads[canonical(multiplied[0])] != 1:
            continue
        convolution = nodes[owner(multiplied[0])]
        if foldable(convolution) and (filters := shape(convolution.input[1])).is_fully_defined():
            channels = filters[4 - AXES[convolution.op] :].as_list()
            take_in(result, convolution, norm, factor=multiplied[1], bias=added[1], shape=channels)
    return result


def written_out(graph: GraphDef, fetched: Collection[str]) -> GraphDef:
    """Return a copy of the graph in which BatchNorms behind convolutions are products and sums."""
    result = GraphDef()
    result.CopyFrom(graph)
    nodes, reads = {node.name: node for node in graph.node}, read_counts(graph, fetched)
    for norm in list(result.node):
        if (
            norm.op == "FusedBatchNormV3"
            and norm.attr["T"].type == norm.attr["U"].type == FLOAT
            and norm.attr["data_format"].s in NHWC
            and not norm.attr["is_training"].b
            and foldable(nodes[owner(norm.input[0])])
            and reads[canonical(norm.input[0])] == 1
            and not any(reads[f"{norm.name}:{port}"] for port in range(1, 6))
        ):
            write_out(result, norm)
    return result


def foldable(node: NodeDef) -> bool:
    """Whether an operation is a convolution that can take in a BatchNorm."""
    return node.op in AXES and node.attr["T"].type == FLOAT and node.attr["data_format"].s in NHWC


def write_out(graph: GraphDef, norm: NodeDef) -> None:
    """Turn a BatchNorm into the sum of its bias and a product of the map and its factor."""
    values, scale, offset, mean, variance = norm.input

    def add(name: str, operation: str, *inputs: str) -> str:
        return add_node(graph, f"{norm.name}/written_out/{name}", operation, inputs=inputs, T=FLOAT)

    # TensorFlow gives statistics that are not those of the batch no gradient, and nor do we.
    mean, variance = add("mean", "StopGradient", mean), add("variance", "StopGradient", variance)
    epsilon = constant(
        graph, f"{norm.name}/written_out/epsilon", np.float32(norm.attr["epsilon"].f)
    )
    factor = add(
        "factor", "Mul", scale, add("rsqrt", "Rsqrt", add("sum", "AddV2", variance, epsilon))
    )
    bias = add("bias", "Sub", offset, add("shift", "Mul", mean, factor))
    norm.CopyFrom(
        NodeDef(name=norm.name, op="AddV2", input=[add("product", "Mul", values, factor), bias])
    )
    norm.attr["T"].type = FLOAT


def take_in(
    graph: GraphDef,
    convolution: NodeDef,
    norm: NodeDef,
    *,
    factor: str,
    bias: str,
    shape: Sequence[int],
) -> None:
    """Multiply a convolution's filter by the factor, and turn the sum into a BiasAdd.

    Args:
        shape: the last axes of the filter, which belong to the channels.
    """
    name = f"{norm.name}/taken_in"

    def reshape(tensor: str, what: str, sides: Sequence[int]) -> str:
        target = constant(graph, f"{name}/{what}/shape", np.array(sides, np.int32))
        inputs = [tensor, target]
        return add_node(graph, f"{name}/{what}", "Reshape", inputs=inputs, T=FLOAT, Tshape=INTEGER)

    filters = [convolution.input[1], reshape(factor, "factor", shape)]
    convolution.input[1] = add_node(graph, f"{name}/filter", "Mul", inputs=filters, T=FLOAT)
    summed = [convolution.name, reshape(bias, "bias", [-1])]
    norm.CopyFrom(NodeDef(name=norm.name, op="BiasAdd", input=summed))
    norm.attr["T"].type = FLOAT


def add_node(
    graph: GraphDef, name: str, operation: str, *, inputs: Sequence[str], **types: int
) -> str:
    """Add an operation to the graph, and return its name."""
    node = graph.node.add(name=name, op=operation, input=inputs)
    for attribute, number in types.items():
        node.attr[attribute].type = number
    return name


def constant(graph: GraphDef, name: str, value: Any) -> str:
    """Add a constant to the graph, and return its name."""
    node = graph.node.add(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return name


def read_counts(graph: GraphDef, fetched: Collection[str]) -> Counter[str]:
    """How often each tensor is read by an operation, or asked for."""
    reads = Counter(canonical(tensor) for node in graph.node for tensor in node.input)
    reads.update(canonical(tensor) for tensor in fetched)
    return reads


def owner(tensor: str) -> str:
    return tensor.split(":")[0]
