"""Turn a float32 graph into one in mixed precision.

Convolutions and products, and the operations between them, compute in bfloat16. Sums, exponentials
and all weights stay in float32.

The operations are sorted as by Micikevicius 2018 (arXiv 1710.03740) and by TensorFlow's own
rewriter for GPUs. bfloat16 has the range of float32, so that no loss has to be scaled. TensorFlow's
rewriter can't be used for a single layer of a process, and does not support TPUs.
"""

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry

from tfxfer.savedmodel import stages
from tfxfer.savedmodel.stages import with_port

LOW, HIGH = tf.bfloat16, tf.float32
FAST = frozenset("Conv2D DepthwiseConv2dNative MatMul BatchMatMulV2 Einsum".split())
# These have the precision of their first input. A fused BatchNorm computes in float32 inside.
FOLLOW = frozenset(
    "AvgPool BiasAdd ExpandDims FusedBatchNormV3 Identity LeakyRelu MaxPool MirrorPad Pad PadV2 "
    "Relu Relu6 Reshape Sigmoid Slice Squeeze StridedSlice Tanh Transpose".split()
)
# These compute in bfloat16 only where all their inputs are bfloat16: a BatchNorm that is written
# out as products and sums with weights (float32) would lose its small differences in bfloat16.
JOIN = frozenset("Add AddV2 ConcatV2 Maximum Minimum Mul Sub".split())


def convert_to_mixed(graph: GraphDef) -> GraphDef:
    """Return the same graph in mixed precision, with the same names.

    What is fed to it stays float32. A tensor that is fetched from it may be bfloat16.
    """
    nodes = {node.name: node for node in graph.node}
    result = GraphDef(versions=graph.versions, library=graph.library)
    low: set[str] = set()  # names of tensors in bfloat16
    casts: set[str] = set()
    for name in stages.execution_order(graph):
        node = NodeDef()
        node.CopyFrom(nodes[name])
        takes = typed(node, op_def_registry.get(node.op).input_arg)
        given = [with_port(node.input[i]) in low for i in sorted(takes)]
        lowered = (
            node.op in FAST or (node.op in FOLLOW and given[0]) or (node.op in JOIN and all(given))
        )
        lowered = lowered and node.attr["T"].type == HIGH.as_datatype_enum
        for i, tensor in enumerate(node.input):
            if (with_port(tensor) in low) != (wanted := lowered and i in takes):
                node.input[i] = cast(result, with_port(tensor), wanted, made=casts)
        if lowered:
            node.attr["T"].type = LOW.as_datatype_enum
            low |= {f"{name}:{i}" for i in typed(node, op_def_registry.get(node.op).output_arg)}
        result.node.append(node)
    return result


def typed(node: NodeDef, arguments) -> set[int]:
    """The positions of an operation's inputs, or outputs, whose dtype is its attribute T."""
    positions, at = set(), 0
    for argument in arguments:
        count = node.attr[argument.number_attr].i if argument.number_attr else 1
        positions |= set(range(at, at + count)) if argument.type_attr == "T" else set()
        at += count
    return positions


def cast(graph: GraphDef, tensor: str, down: bool, made: set[str]) -> str:
    """Return the name of a tensor in the other precision: bfloat16 if `down`, else float32.

    The operation that casts it is added to the graph where `made` does not name it yet.
    """
    source, target = (HIGH, LOW) if down else (LOW, HIGH)
    name = f"{tensor.replace(':', '/')}/{target.name}"
    if name not in made:
        made.add(name)
        node = graph.node.add(name=name, op="Cast", input=[tensor])
        node.attr["SrcT"].type, node.attr["DstT"].type = (
            source.as_datatype_enum,
            target.as_datatype_enum,
        )
    return name
