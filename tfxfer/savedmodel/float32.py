"""Turn a graph of another precision, such as that of a Keras model in mixed_float16, into float32.

Features, and the activations at the ends of stages, are float32 in all of tfxfer. A weight of
float16 or bfloat16 keeps its value; one of float64 is rounded.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.graph import PureGraph, Weight
from tfxfer.savedmodel.mixed import FAST
from tfxfer.savedmodel.pure import rename_functions
from tfxfer.savedmodel.stages import nodes_of

OTHERS = frozenset(one.as_datatype_enum for one in (tf.float16, tf.bfloat16, tf.float64))
FLOAT32 = tf.float32.as_datatype_enum


def is_other_precision(graph: GraphDef) -> bool:
    """Return whether convolutions or products of a graph compute in another precision."""
    return any(node.op in FAST and node.attr["T"].type in OTHERS for node in nodes_of(graph))


def convert_to_float32(pure: PureGraph) -> PureGraph:
    """Return the same graph with all floating-point numbers as float32, with the same names."""
    graph = GraphDef()
    graph.CopyFrom(pure.graph)
    for node in nodes_of(graph):
        convert_node(node)
    for one in graph.library.function:
        for argument in (*one.signature.input_arg, *one.signature.output_arg):
            if argument.type in OTHERS:
                argument.type = FLOAT32
    rename_functions(graph)
    return replace(pure, graph=graph)


def convert_weights(weights: Sequence[Weight]) -> list[Weight]:
    """Return weights of float32 in place of other floating-point numbers."""
    return [
        replace(one, value=one.value.astype(np.float32))
        if tf.as_dtype(one.value.dtype).as_datatype_enum in OTHERS
        else one
        for one in weights
    ]


def convert_node(node: NodeDef) -> None:
    """Change the types of a node, and its value if it is a constant."""
    for value in node.attr.values():
        if value.type in OTHERS:
            value.type = FLOAT32
        if any(one in OTHERS for one in value.list.type):
            types = [FLOAT32 if one in OTHERS else one for one in value.list.type]
            value.list.type[:] = types
        if value.tensor.dtype in OTHERS:
            array = tf.make_ndarray(value.tensor).astype(np.float32)
            value.tensor.CopyFrom(tf.make_tensor_proto(array))
    if node.op == "Cast" and node.attr["SrcT"].type == node.attr["DstT"].type:
        # An Identity is looked through where the mean of a map is looked for.
        kind = node.attr["SrcT"].type
        node.op = "Identity"
        node.ClearField("attr")
        node.attr["T"].type = kind
