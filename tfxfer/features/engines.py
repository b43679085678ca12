"""Run the frozen network as fast as this machine can: one function for each engine.

Each function takes a prefix and returns an engine: a function from pixels to features. An engine
gives an image the same bytes wherever it is in a batch, and whatever other images are in that
batch. It may be called from several threads at once.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tfxfer import savedmodel
from tfxfer.backbone import Prefix
from tfxfer.errors import EngineError, MissingExtraError
from tfxfer.features.padding import Engine, without_padding

# Images that TensorFlow takes at a time. The maps of 8 stay in the processor's cache: this is 1.48
# times as fast as plain inference, against 1.37 times with 32.
TOGETHER = 8
LARGE = 64 * 1024  # bytes of a constant


def tensorflow_engine(prefix: Prefix, precision: str = "float32") -> Engine:
    """Run the network with TensorFlow.

    BatchNorm is folded into the convolutions, so that TensorFlow's optimizer fuses convolution,
    bias and activation.

    Returns:
        a function from float32 [B, *takes.shape] to float32 [B, width].

    Raises:
        EngineError: another precision than float32 was asked for.
    """
    if precision != "float32":
        raise EngineError(
            f"--engine tensorflow supports float32 only, received {precision} "
            "(TensorFlow's own bf16 is not faster on a CPU). "
            f"Try --engine openvino --engine-precision {precision}, "
            "or leave --engine-precision out."
        )
    takes, graph = prefix.takes, fold_batch_norm(needed(prefix))
    held: dict[str, tf.Tensor] = {}
    if takes.padded:
        graph, held = without_weights(graph)

    def features(inputs: tf.Tensor) -> tf.Tensor:
        feed = {prefix.input: inputs} | {name: tf.identity(each) for name, each in held.items()}
        return tf.graph_util.import_graph_def(
            graph, input_map=feed, return_elements=[prefix.output], name=""
        )[0]

    shape = (None,) if takes.padded else takes.shape
    # `wrap_function` keeps the functions of the graph (loops and branches); `tf.function` does not.
    call = tf.compat.v1.wrap_function(features, [tf.TensorSpec((None, *shape), tf.float32)])

    # Two threads in one graph cause segmentation faults in oneDNN's cache of primitives (TensorFlow
    # 2.21), in one process of four.
    one_at_a_time = Lock()
    if takes.padded:

        def locked(rows: tf.Tensor) -> tf.Tensor:
            with one_at_a_time:
                return call(rows)

        return without_padding(locked, takes)

    def run(batch: np.ndarray) -> np.ndarray:
        pieces = [batch[i : i + TOGETHER] for i in range(0, len(batch), TOGETHER)]
        # An image alone is doubled: for a batch of one, oneDNN may reuse a kernel that this process
        # made for a layer whose weights are not constants, and the last bits would differ.
        if len(pieces[-1]) == 1:
            pieces[-1] = np.repeat(pieces[-1], 2, axis=0)
        with one_at_a_time:
            features = np.concatenate([call(tf.constant(piece)).numpy() for piece in pieces])
        return features[: len(batch)]

    return run


def openvino_engine(prefix: Prefix, precision: str = "float32") -> Engine:
    """Run the network with OpenVINO.

    Each request has one example, and as many requests run at once as the processor has room for.

    Returns:
        a function from float32 [B, *shape of an example] to float32 [B, width].

    Raises:
        MissingExtraError: OpenVINO isn't installed.
        EngineError: this CPU has no bf16, or OpenVINO can't take the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("--engine openvino", "openvino") from error
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            "this CPU can't compute in bf16 (it has neither AVX512_BF16 nor AMX). "
            "Leave --engine-precision out."
        )
    shape = [1, *prefix.takes.shape]
    graph = tf.Graph()
    with graph.as_default():
        inputs = tf.compat.v1.placeholder(tf.float32, shape, name="one_image")
        tf.graph_util.import_graph_def(needed(prefix), input_map={prefix.input: inputs}, name="")
    options = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    try:
        model = openvino.convert_model(graph, input=[(inputs.name, shape)], output=[prefix.output])
        compiled = core.compile_model(model, "CPU", options)
    except Exception as error:  # OpenVINO raises RuntimeError and errors of its own
        raise EngineError(
            "OpenVINO can't take this backbone: "
            f"{str(error).strip().splitlines()[0].rstrip('.')}. Use --engine tensorflow."
        ) from error

    streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    free: SimpleQueue = SimpleQueue()
    for _ in range(streams):
        free.put(compiled.create_infer_request())
    # One thread for each request, instead of OpenVINO's AsyncInferQueue: its callbacks need
    # Python's lock, and have blocked for ever while other threads ran.
    pool = ThreadPoolExecutor(streams)

    def one(example: np.ndarray) -> np.ndarray:
        request = free.get()
        try:
            # The array outlives the call, so it is shared: a copy of it costs 3 % of the time.
            request.infer({0: example}, share_inputs=True)
            return request.get_output_tensor(0).data[0].copy()
        finally:
            free.put(request)

    return lambda batch: np.stack(
        list(pool.map(one, (batch[i : i + 1] for i in range(len(batch)))))
    )


ENGINES: dict[str, Callable[[Prefix, str], Engine]] = {
    "tensorflow": tensorflow_engine,
    "openvino": openvino_engine,
}


Started: TypeAlias = dict[str, Engine]


def engine_of(prefix: Prefix, name: str, precision: str, started: Started | None = None) -> Engine:
    """Return the engine of a prefix.

    Args:
        started: engines that were started before; a new one is added. It takes a second or two to
            start one, and it holds all weights. None: nothing is kept.

    Raises:
        EngineError, MissingExtraError: the engine can't run here.
    """
    if started is None:
        return ENGINES[name](prefix, precision)
    key = f"{prefix.fingerprint} {prefix.takes.fingerprint()} {name} {precision}"
    if key not in started:
        started[key] = ENGINES[name](prefix, precision)
    return started[key]


def without_weights(graph: GraphDef) -> tuple[GraphDef, dict[str, tf.Tensor]]:
    """Return a graph that lacks its large constants, and these by their names.

    TensorFlow's optimizer takes seconds for the 90 MB of a network for texts. There is nothing to
    fold in them, as there is in convolutions.
    """
    result, held = GraphDef(versions=graph.versions, library=graph.library), {}
    for node in graph.node:
        value = node.attr["value"].tensor if node.op == "Const" else TensorProto()
        if value.dtype == tf.float32 and value.ByteSize() > LARGE:
            held[f"{node.name}:0"] = tf.constant(tf.make_ndarray(value))
        else:
            result.node.append(node)
    return result, held


def needed(prefix: Prefix) -> GraphDef:
    """The nodes that the features depend on, and no other."""
    return savedmodel.needed(prefix.graph, [prefix.output])


def owner(tensor: str) -> str:
    """The name of the node that a tensor or control edge comes from."""
    return tensor.split(":")[0].lstrip("^")


def fold_batch_norm(graph: GraphDef) -> GraphDef:
    """The graph with each BatchNorm in inference mode folded into the convolution before it.

    A BiasAdd takes the place of the BatchNorm. Convolution and BatchNorm together compute

    y = (w * x + b - mean) scale / sqrt(variance + epsilon) + offset.

    With k = scale / sqrt(variance + epsilon), the new filter is w k, and the new bias is
    (b - mean) k + offset. This is done only if filter and statistics are constants, and nothing
    else reads the convolution.
    """
    result = GraphDef()
    result.CopyFrom(graph)
    nodes = {node.name: node for node in result.node}
    readers = Counter(owner(name) for node in result.node for name in node.input)
    for norm in [node for node in result.node if node.op.startswith("FusedBatchNorm")]:
        if (
            norm.attr["is_training"].b
            or norm.attr["data_format"].s != b"NHWC"
            or norm.attr["T"].type != tf.float32.as_datatype_enum
        ):
            continue
        before = [nodes[owner(norm.input[0])]]
        if before[0].op == "BiasAdd":
            before.append(nodes[owner(before[0].input[0])])
        convolution = before[-1]
        if convolution.op not in ("Conv2D", "DepthwiseConv2dNative") or any(
            readers[node.name] != 1 for node in before
        ):
            continue
        values = [
            value(nodes, name)
            for name in (
                convolution.input[1],
                *norm.input[1:5],
                *(node.input[1] for node in before[:-1]),
            )
        ]
        known = [v for v in values if v is not None]
        if len(known) == len(values):
            fold(result, norm, convolution, values=known)
    return result


def fold(graph: GraphDef, norm: NodeDef, convolution: NodeDef, values: list[np.ndarray]) -> None:
    """Fold one BatchNorm of `graph`, which is changed.

    Args:
        values: filter, scale, offset, mean, variance, and the bias if there is one.
    """
    weight, scale, offset, mean, variance, *bias = (v.astype(np.float64) for v in values)
    k = scale / np.sqrt(variance + norm.attr["epsilon"].f)
    bias_value = (sum(bias) - mean) * k + offset
    folded = {
        "filter": weight * (k if convolution.op == "Conv2D" else k.reshape(weight.shape[2:])),
        "bias": bias_value,
    }
    for what, array in folded.items():
        constant = graph.node.add(name=f"{norm.name}/folded_{what}", op="Const")
        constant.attr["dtype"].type = tf.float32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array.astype(np.float32)))
    convolution.input[1] = f"{norm.name}/folded_filter"
    # The new bias includes the old one, so a BiasAdd between the two nodes is bypassed.
    norm.input[:] = [convolution.name, f"{norm.name}/folded_bias"]
    norm.op = "BiasAdd"
    norm.attr.clear()
    norm.attr["T"].type = tf.float32.as_datatype_enum
    norm.attr["data_format"].s = b"NHWC"


def value(nodes: dict[str, NodeDef], name: str) -> np.ndarray | None:
    """The value of a constant, also behind Identity nodes; None for any other node."""
    node = nodes[owner(name)]
    while node.op == "Identity":
        node = nodes[owner(node.input[0])]
    return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None
