"""Make BatchNorms in inference mode a part of the convolutions before them.

With fixed statistics, a BatchNorm multiplies each channel by a factor and adds a number to it. The
convolution can do both: its filter is multiplied by the factor, and the number is its bias (Jacob
et al. 2018, arXiv 1712.05877, section 3.2). Then neither the map between the two nor its gradient
has to be computed (benchmarks/partial.py, benchmarks/LOG.md).

The weights stay what they are. Outputs and gradients differ by rounding: numbers are added up in
another order. Where that moves a number across the kink of a ReLU, gradients can differ by some
1e-4 of the largest one.

Keras 3 writes a BatchNorm out as a product and a sum. Older SavedModels have one operation for it,
which is written out first.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.stages import node_of, with_port
from tfxfer.savedmodel.tables import constant

FLOAT = tf.float32.as_datatype_enum
INTEGER = tf.int32.as_datatype_enum
NHWC = (b"", b"NHWC")
# How many of the last axes of a filter [rows, columns, inputs, outputs], or of a depthwise filter
# [rows, columns, inputs, multiplier], belong to the channels of the map.
AXES = {"Conv2D": 1, "DepthwiseConv2dNative": 2}


def fold_batch_norms(graph: GraphDef, fetched: Collection[str]) -> GraphDef:
    """Return a copy of the graph in which convolutions have taken in their BatchNorm.

    The last operation of a BatchNorm that was taken in is a BiasAdd of the same name. A graph
    without such convolutions is returned as it is, and so is one with a loop of the old kind, since
    what is added would stand outside the loop.

    Args:
        fetched: names of the tensors that will be asked for; they keep their values.
    """
    operations = {node.op for node in graph.node}
    if not operations & AXES.keys() or "Enter" in operations:
        return graph
    result = write_out_batch_norms(graph, fetched)
    nodes, reads = {node.name: node for node in result.node}, count_reads(result, fetched)
    with tf.Graph().as_default() as shaped:
        tf.graph_util.import_graph_def(result, name="")

    def shape(tensor: str) -> tf.TensorShape:
        return shaped.get_tensor_by_name(with_port(tensor)).shape

    def map_and_vector(node: NodeDef, operation: str) -> tuple[str, str] | None:
        """Return the map and the vector that this operation multiplies or adds."""
        if node.op != operation or node.attr["T"].type != FLOAT or len(node.input) != 2:
            return None
        for one, other in (node.input, reversed(node.input)):
            sides = shape(one)
            if sides.rank == 4 and sides[3] and shape(other) in ([sides[3]], [1, 1, 1, sides[3]]):
                return one, other
        return None

    for norm in list(nodes.values()):
        added = map_and_vector(norm, "AddV2")
        if added is None or reads[with_port(added[0])] != 1:
            continue
        multiplied = map_and_vector(nodes[node_of(added[0])], "Mul")
        if multiplied is None:
            continue
        chain = find_convolution(multiplied[0], nodes, reads)
        if chain and (filters := shape(chain[0].input[1])).is_fully_defined():
            channels = filters[4 - AXES[chain[0].op] :].as_list()
            take_in(result, chain, norm, factor=multiplied[1], bias=added[1], shape=channels)
    return result


def write_out_batch_norms(graph: GraphDef, fetched: Collection[str]) -> GraphDef:
    """Return a copy of the graph in which BatchNorms behind convolutions are products and sums."""
    result = GraphDef()
    result.CopyFrom(graph)
    nodes, reads = {node.name: node for node in result.node}, count_reads(graph, fetched)
    for norm in list(result.node):
        if (
            norm.op == "FusedBatchNormV3"
            and len(norm.input) == 5
            and norm.attr["T"].type == norm.attr["U"].type == FLOAT
            and norm.attr["data_format"].s in NHWC
            and not norm.attr["is_training"].b
            and find_convolution(norm.input[0], nodes, reads)
            and not any(reads[f"{norm.name}:{port}"] for port in range(1, 6))
        ):
            write_out(result, norm)
    return result


def find_convolution(
    tensor: str, nodes: dict[str, NodeDef], reads: Counter[str]
) -> tuple[NodeDef, ...]:
    """Return the convolution that computes a tensor, and the BiasAdd behind it if there is one.

    Returns: nothing where something else computes the tensor, or where others read it, too.
    """
    chain: tuple[NodeDef, ...] = ()
    while reads[with_port(tensor)] == 1 and node_of(tensor) in nodes:
        node = nodes[node_of(tensor)]
        if node.op not in (*AXES, "BiasAdd") or len(node.input) != 2 or len(chain) == 2:
            return ()
        if node.attr["T"].type != FLOAT or node.attr["data_format"].s not in NHWC:
            return ()
        chain = (node, *chain)
        if node.op in AXES:
            return chain
        tensor = node.input[0]
    return ()


def write_out(graph: GraphDef, norm: NodeDef) -> None:
    """Turn a BatchNorm into a product of the map and its factor, and the sum of that and a bias."""
    values, scale, offset, mean, variance = norm.input

    def add(name: str, operation: str, *inputs: str) -> str:
        return add_node(graph, f"{norm.name}/written_out/{name}", operation, inputs=inputs, T=FLOAT)

    # TensorFlow computes no gradient of fixed statistics. StopGradient keeps that.
    mean, variance = add("mean", "StopGradient", mean), add("variance", "StopGradient", variance)
    epsilon = constant(f"{norm.name}/written_out/epsilon", np.float32(norm.attr["epsilon"].f))
    graph.node.append(epsilon)
    deviation = add("rsqrt", "Rsqrt", add("sum", "AddV2", variance, epsilon.name))
    factor = add("factor", "Mul", scale, deviation)
    bias = add("bias", "Sub", offset, add("shift", "Mul", mean, factor))
    product = add("product", "Mul", values, factor)
    norm.CopyFrom(NodeDef(name=norm.name, op="AddV2", input=[product, bias]))
    norm.attr["T"].type = FLOAT


def take_in(
    graph: GraphDef,
    chain: tuple[NodeDef, ...],
    norm: NodeDef,
    *,
    factor: str,
    bias: str,
    shape: Sequence[int],
) -> None:
    """Multiply a convolution's filter and its bias by the factor, and turn the sum into a BiasAdd.

    Args:
        chain: the convolution, and its BiasAdd if it has one, which nothing reads any more then.
        shape: the last axes of the filter, which belong to the channels.
    """
    name = f"{norm.name}/taken_in"

    def reshape(tensor: str, what: str, sides: Sequence[int]) -> str:
        target = constant(f"{name}/{what}/shape", np.array(sides, np.int32))
        graph.node.append(target)
        inputs = [tensor, target.name]
        return add_node(graph, f"{name}/{what}", "Reshape", inputs=inputs, T=FLOAT, Tshape=INTEGER)

    convolution, *biased = chain
    filters = [convolution.input[1], reshape(factor, "factor", shape)]
    convolution.input[1] = add_node(graph, f"{name}/filter", "Mul", inputs=filters, T=FLOAT)
    bias = reshape(bias, "bias", [-1])
    for node in biased:
        product = [node.input[1], reshape(factor, "vector", [-1])]
        own = add_node(graph, f"{name}/own_bias", "Mul", inputs=product, T=FLOAT)
        bias = add_node(graph, f"{name}/biases", "AddV2", inputs=[own, bias], T=FLOAT)
    norm.CopyFrom(NodeDef(name=norm.name, op="BiasAdd", input=[convolution.name, bias]))
    norm.attr["T"].type = FLOAT


def add_node(
    graph: GraphDef, name: str, operation: str, *, inputs: Sequence[str], **types: int
) -> str:
    """Add an operation to the graph, and return its name."""
    node = graph.node.add(name=name, op=operation, input=inputs)
    for attribute, number in types.items():
        node.attr[attribute].type = number
    return name


def count_reads(graph: GraphDef, fetched: Collection[str]) -> Counter[str]:
    """Return how often each tensor is read by an operation, or asked for."""
    reads = Counter(with_port(tensor) for node in graph.node for tensor in node.input)
    reads.update(with_port(tensor) for tensor in fetched)
    return reads
