"""A SavedModel read as a pure function: `output, updates = f(x, weights)`. The one room with TensorFlow's private parts.

The folder is loaded once, its call is traced for inference and for training, all functions are inlined, every variable READ becomes an
argument (a placeholder `weight_<i>`) and every variable WRITE (BatchNorm statistics, dropout seeds) becomes a result. No state is left and no
handle, so that whoever owns the weights' values (a Keras layer) owns all there is.

A graph that can't be taken apart so (variables read inside a While or If body, embedding look-ups) is frozen instead: its values become
constants, it extracts features, and `Pretrained.reason` says why it can't be fine-tuned.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import convert_to_constants

from tfxfer import stages
from tfxfer.errors import DeniedOperationError, SavedModelError

READS = frozenset({"ReadVariableOp"})
WRITES = {"AssignVariableOp": None, "AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
PASSES = frozenset({"Identity", "Squeeze", "Reshape", "StopGradient", "PreventGradient"})
BIG_CONSTANT = 64 * 1024  # bytes; larger constants are kept as frozen weights, so that a graph stays small

DENIED = frozenset(
    """ReadFile WriteFile MatchingFiles ShardedFilename PyFunc PyFuncStateless EagerPyFunc PrintV2 Print DebugIdentity DebugIdentityV2 DebugNumericSummary
    SaveDataset SaveDatasetV2 LoadDataset SnapshotDataset SnapshotDatasetV2 TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset
    FixedLengthRecordDatasetV2 SqlDataset ExperimentalSqlDataset LMDBDataset ExperimentalLMDBDataset CSVDataset CSVDatasetV2 WholeFileReader WholeFileReaderV2
    TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2 FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader IdentityReader
    IdentityReaderV2 CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent WriteSummary DatasetToTFRecord ExperimentalDatasetToTFRecord
    LoadAndRemapMatrix GenerateVocabRemapping DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset
    RegisterDatasetV2 RpcCall RpcClient RpcServer RpcServerStart RpcServerRegister _Send _Recv _HostSend _HostRecv Send Recv CollectiveGather
    XlaSendToHost XlaRecvFromHost Abort ImmutableConst FixedUnigramCandidateSampler CacheDataset CacheDatasetV2 DebugIdentityV3 DebugNanCount
    DebugNumericSummaryV2 DumpTensor MatchingFilesDataset ExperimentalMatchingFilesDataset ExperimentalCSVDataset CalibrationStatisticsSaver DistributedSave
    Skipgram RemoteCall XlaCustomCall XlaCustomCallV2 XlaCallModule RecordInput SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader
    ListSnapshotChunksDataset FileSystemSetConfiguration SummaryWriter WriteAudioSummary WriteGraphSummary WriteHistogramSummary WriteImageSummary
    WriteRawProtoSummary WriteScalarSummary FlushSummaryWriter CloseSummaryWriter DTensorRestoreV2 Copy CopyHost CollectiveReduce CollectiveReduceV2
    CollectiveReduceV3 CollectiveBcastSend CollectiveBcastRecv CollectiveBcastSendV2 CollectiveBcastRecvV2 CollectiveGatherV2 CollectiveAllToAllV2
    CollectiveAllToAllV3 CollectiveInitializeCommunicator NcclAllReduce NcclBroadcast NcclReduce InitializeTableFromTextFile
    InitializeTableFromTextFileV2""".split()
)
CHECKPOINT = frozenset({"Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints"})


@dataclass(frozen=True)
class Weight:
    """A variable of the SavedModel: name, value as an array, and whether its author marked it trainable."""

    name: str
    value: np.ndarray
    trainable: bool


@dataclass(frozen=True)
class PureGraph:
    """One call as a pure graph: `output` and `updates` from `input` (None for a regularization loss) and the placeholders `weight_<i>`."""

    graph: GraphDef
    input: str | None
    output: str
    weights: tuple[int, ...]
    updates: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Pretrained:
    """A SavedModel taken apart.

    Args:
        inference, training: the pure graphs; `training` is None where the model has one behaviour only.
        regularization: the pure graph of the sum of the model's regularization losses, or None.
        weights: every variable that a graph reads.
        stages: from input to output; each holds names `weight_<i>`.
        last_map: the tensor whose spatial mean is the output, or the output itself.
        image_size: (height, width) that the graphs were traced for.
        features: width of the output.
        reason: why the weights can't be trained, "" where they can.
    """

    inference: PureGraph
    training: PureGraph | None
    regularization: PureGraph | None
    weights: tuple[Weight, ...]
    stages: tuple[stages.Stage, ...]
    last_map: str
    image_size: tuple[int, int]
    features: int
    reason: str = ""

    @cached_property
    def stage_shapes(self) -> list[tuple[int, ...]]:
        """Shape of the last tensor of each stage, without the batch."""
        return [shape or () for shape in shapes_of(self.inference, self.image_size, [stage.cut for stage in self.stages])]


def read(folder: str | os.PathLike, *, image_size: tuple[int, int] | None = None, arguments: dict[str, Any] | None = None, trust: bool = False) -> Pretrained:
    """Read a TF2 SavedModel of an image feature extractor as pure functions.

    Args:
        folder: holds `saved_model.pb`; its call takes float32 images [B, H, W, 3] and returns float32 features [B, F].
        image_size: (H, W) in pixels, needed where the graph doesn't fix it.
        arguments: further arguments of the model's call, such as `{"batch_norm_momentum": 0.99}`.
        trust: also read graphs that hold denied operations (files, Python, network).

    Raises:
        SavedModelError: TF1 format, damaged files, other inputs or outputs, unknown arguments.
        DeniedOperationError: a denied operation, by name.
    """
    folder = Path(folder)
    denied = frozenset() if trust else DENIED
    check_library(folder, denied)
    loaded = load(folder)
    call, kind = callable_of(loaded, folder)
    arguments = arguments or {}
    if "training" in arguments:
        raise ValueError("Expected arguments without `training`, which Keras decides in each call. Received: arguments=" + repr(arguments))
    spec = input_spec(call, image_size, folder)
    inference = trace(call, spec, arguments, False, folder)
    output_of(inference, folder)
    training = trace(call, spec, arguments, True, folder) if kind == "call" else None
    variables = {id(v.handle): v for v in variables_of(loaded)}
    marked = getattr(loaded, "trainable_variables", None)
    trainable = {id(v.handle) for v in (variables.values() if marked is None else marked) if marked is not None or v.trainable} if kind == "call" else set()
    losses = [loss for loss in getattr(loaded, "regularization_losses", ()) or () if callable(loss)]
    try:
        weights = Weights(variables, trainable)
        graphs = [purify(concrete, weights) if concrete else None for concrete in (inference, training, sum_of(losses))]
        reason = (
            "" if trainable else "it has signatures only, which hold no training graph" if kind == "signature" else "its author marked no weight as trainable"
        )
    except NotPure as error:
        weights = Weights({}, set())
        graphs = [frozen(inference, weights), None, None]
        reason = str(error)
    for graph in filter(None, graphs):
        check_graph(graph.graph, denied | CHECKPOINT if denied else denied, str(folder))
    pretrained = assemble(graphs, weights.found, inference, reason)
    checked = [(concrete, graph, bound) for concrete, graph, bound in zip((training, inference), (graphs[1], graphs[0]), (1e-2, 1e-4), strict=True) if graph]
    # The training call comes first: it moves the loaded object's variables, and the values in `weights` are those of before.
    doubtful = [] if reason else [check for check in checked if marked_gradient(check[0])]
    if not all(same_gradient(concrete, graph, bound, pretrained, weights, spec) for concrete, graph, bound in doubtful):
        pretrained = assemble(graphs, weights.found, inference, "it holds a custom gradient that can't be kept (its gradients would be wrong)")
    return pretrained


def assemble(graphs: list[PureGraph | None], weights: list[Weight], inference: Any, reason: str) -> Pretrained:
    pure, training, regularization = graphs
    assert pure is not None
    _, height, width, _ = inference.inputs[0].shape
    size, features = (int(height), int(width)), int(inference.outputs[0].shape[-1])
    last_map = mean_of(pure)
    (shape,) = shapes_of(pure, size, [last_map])
    if shape is None or shape[-1] != features:
        last_map = pure.output
    ranks = {f"weight_{i}": weights[i].value.ndim for i in pure.weights}
    found = stages.find(pure.graph, node_of(pure.input or ""), node_of(last_map), ranks)
    # Where a block ends in a tensor that is not one row an example (tokens of a batch merged into one axis), it goes on with the next.
    found = stages.merged(found, [shape is not None for shape in shapes_of(pure, size, [stage.cut for stage in found])])
    if reason:
        weights = [Weight(w.name, w.value, False) for w in weights]
    return Pretrained(pure, training, regularization, tuple(weights), found, last_map, size, features, reason)


class NotPure(Exception):
    """Why a graph can't be taken apart; caught in `read`."""


class Weights:
    """The variables met so far, numbered in the order in which the graphs read them."""

    def __init__(self, variables: dict[int, tf.Variable], trainable: set[int]):
        self.variables, self.trainable = variables, trainable
        self.found: list[Weight] = []
        self.numbers: dict[int, int] = {}

    def number(self, handle: Any) -> int:
        key = id(handle)
        if key not in self.numbers:
            if key not in self.variables:
                raise NotPure(f"it uses a resource that is not a variable ({handle.name!r}), such as a look-up table")
            variable = self.variables[key]
            self.numbers[key] = self.add(variable.name.split(":")[0], variable.numpy(), key in self.trainable)
        return self.numbers[key]

    def add(self, name: str, value: np.ndarray, trainable: bool) -> int:
        taken = {weight.name for weight in self.found}
        name = name.replace("/", ".")
        unique = name if name not in taken else next(n for k in range(1, len(taken) + 2) if (n := f"{name}.{k}") not in taken)
        self.found.append(Weight(unique, np.asarray(value), trainable))
        return len(self.found) - 1


# --- reading a folder -------------------------------------------------------------------------------------------------------------------------


def check_library(folder: Path, denied: frozenset[str]) -> None:
    """Look for denied operations before anything is loaded, since loading runs initializers."""
    path = folder / "saved_model.pb"
    try:
        proto = SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise SavedModelError(f"{path} can't be read ({error.strerror or error}). A SavedModel is a folder with saved_model.pb and variables/.") from error
    except Exception as error:  # protobuf's DecodeError has another home in each implementation
        if type(error).__name__ != "DecodeError":
            raise
        raise SavedModelError(f"{path} is damaged: it is not a SavedModel ({error}). Fetch or export it again.") from error
    if not proto.meta_graphs:
        raise SavedModelError(f"{path} is damaged: it holds no graph. Fetch or export it again.")
    graph = proto.meta_graphs[0]
    if not graph.object_graph_def.nodes:
        raise SavedModelError(
            f"{folder} is a TF1-format SavedModel (written by tf.compat.v1), which can't be fine-tuned. "
            "Look for a TF2 version of the model, or export it again with tf.saved_model.save."
        )
    if denied:
        # Only what belongs to an object can run. The two functions that save and restore the checkpoint belong to none: Python does their work on loading.
        everywhere = {node.op for function in graph.graph_def.library.function for node in function.node_def} | {node.op for node in graph.graph_def.node}
        refuse(everywhere & (denied - {"ShardedFilename"}), str(folder))
        refuse(called_operations(graph.graph_def, set(graph.object_graph_def.concrete_functions)) & CHECKPOINT, str(folder))


def called_operations(graph: GraphDef, roots: set[str]) -> set[str]:
    """The operations of some functions and of all that these call, through any attribute."""
    functions = {function.signature.name: function for function in graph.library.function}

    def calls(name: str) -> list[str]:
        attributes = [value for node in functions[name].node_def for value in node.attr.values()]
        named = (
            {value.func.name for value in attributes}
            | {f.name for value in attributes for f in value.list.func}
            | {node.op for node in functions[name].node_def}
        )
        named |= {gradient.gradient_func for gradient in graph.library.gradient if gradient.function_name == name}
        return sorted(named & functions.keys())

    return {node.op for name in stages.reach(roots & functions.keys(), calls) for node in functions[name].node_def}


def check_graph(graph: GraphDef, denied: frozenset[str], where: str) -> None:
    """Refuse a graph that holds one of the `denied` operations, in its body or in its functions."""
    refuse(({node.op for node in graph.node} | {node.op for function in graph.library.function for node in function.node_def}) & denied, where)


def refuse(found: set[str], where: str) -> None:
    if found:
        raise DeniedOperationError(
            f"{where} holds {', '.join(sorted(found))}, which can read or write files, run Python or open the network. "
            "A graph is code: use --trust (trust=True) only if you know who made it."
        )


def load(folder: Path) -> Any:
    """`tf.saved_model.load` outside any strategy scope; files of the Keras 2 era need tf_keras in the process."""
    if tf.distribute.has_strategy():
        raise SavedModelError("a SavedModel must be read outside the strategy's scope: read it first, and make the layer inside the scope.")
    try:
        try:
            return tf.saved_model.load(str(folder))
        except AttributeError as error:
            # Optimizer slots of the Keras 2 era: only tf_keras registers the type that holds them.
            if "add_slot" not in str(error):
                raise
            importlib.import_module("tf_keras")
            return tf.saved_model.load(str(folder))
    except ImportError as error:
        raise SavedModelError(f"{folder} was written by Keras 2 with its optimizer. Install tf_keras to read it: pip install tf_keras") from error
    except (tf.errors.OpError, OSError, ValueError, LookupError, AttributeError, AssertionError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SavedModelError(f"{folder} can't be loaded, it seems damaged: {first} Fetch or export it again.") from error


def callable_of(loaded: Any, folder: Path) -> tuple[Callable, str]:
    if callable(loaded) and hasattr(loaded.__call__, "concrete_functions"):
        return loaded, "call"
    signatures = dict(getattr(loaded, "signatures", {}))
    for name in ("serving_default", "default", *signatures):
        if name in signatures:
            return signatures[name], "signature"
    raise SavedModelError(f"{folder} has neither a call nor a signature. A feature extractor is a tf.Module with `__call__(images, training=False)`.")


def input_spec(call: Any, image_size: tuple[int, int] | None, folder: Path) -> tf.TensorSpec:
    """The one image input, with a fixed height and width."""
    if hasattr(call, "structured_input_signature"):
        candidates = [list(call.structured_input_signature[1].values())]
    else:
        candidates = [
            [a for a in tf.nest.flatten(c.structured_input_signature[0][:1]) if isinstance(a, tf.TensorSpec)] for c in call.__call__.concrete_functions
        ]
    inputs = [c[0] for c in candidates if len(c) == 1 and c[0].dtype == tf.float32 and c[0].shape.rank == 4 and c[0].shape[-1] == 3]
    if not inputs:
        raise SavedModelError(f"{folder} takes {candidates[0]}; expected one input of float32 images with shape [batch, height, width, 3].")
    sizes = sorted({(s.shape[1], s.shape[2]) for s in inputs if None not in (s.shape[1], s.shape[2])})
    if all(s.shape[0] is not None for s in inputs):
        raise SavedModelError(
            f"{folder} takes batches of exactly {inputs[0].shape[0]}; expected any batch size. Export it again with a batch dimension of None."
        )
    if sizes and all(None not in s.shape[1:3] for s in inputs):
        if image_size is not None and image_size not in sizes:
            raise SavedModelError(f"{folder} takes images of {sizes[0][0]} x {sizes[0][1]}, not {image_size[0]} x {image_size[1]}. Leave --image-size out.")
        image_size = image_size or sizes[0]
    if image_size is None:
        raise SavedModelError(f"{folder} takes images of any size and none is known for it. Choose one with --image-size 224 (image_size=224).")
    return tf.TensorSpec((None, *image_size, 3), tf.float32, name="images")


def trace(call: Any, spec: tf.TensorSpec, arguments: dict[str, Any], training: bool, folder: Path) -> Any:
    """The concrete function of one call; None where the model takes no `training=True`."""
    if hasattr(call, "structured_input_signature"):
        (name,) = call.structured_input_signature[1]
        return tf.function(lambda images: call(**{name: images})).get_concrete_function(spec)
    errors = []
    for extra in ({"training": training}, {}) if not training else ({"training": True},):
        try:
            return tf.function(lambda images, extra=extra: call(images, **extra, **arguments)).get_concrete_function(spec)
        except (ValueError, TypeError) as error:
            errors.append(error)
    if training:
        return None
    names = sorted({name for c in call.__call__.concrete_functions for name in c.structured_input_signature[1]})
    detail = f"Received arguments {sorted(arguments)}; its call takes {names or 'images only'}." if arguments else str(errors[-1]).strip().splitlines()[0]
    raise SavedModelError(f"{folder} can't be called on images of {spec.shape[1]} x {spec.shape[2]}. {detail}") from errors[-1]


def output_of(concrete: Any, folder: Path) -> None:
    """Refuse what is not one float32 output [B, F]."""
    outputs = concrete.structured_outputs
    if isinstance(outputs, dict) and len(outputs) > 1:
        listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(outputs.items()))
        raise SavedModelError(
            f"{folder} has several outputs ({listed}); expected one. Wrap it in a tf.Module whose __call__ returns the features, and save that."
        )
    if len(concrete.outputs) != 1:
        raise SavedModelError(f"{folder} has {len(concrete.outputs)} outputs; expected one. Wrap it in a tf.Module whose __call__ returns the features.")
    (output,) = concrete.outputs
    if output.dtype != tf.float32 or output.shape.rank != 2 or output.shape[-1] is None:
        raise SavedModelError(f"{folder} returns {output.dtype.name} with shape {output.shape}; expected float32 features with shape [batch, features].")


def variables_of(root: Any) -> Iterator[tf.Variable]:
    """Every variable below `root`, seed states too, which `root.variables` leaves out."""
    seen, todo = set[int](), [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            yield node
        elif hasattr(node, "_trackable_children"):
            todo += list(node._trackable_children().values())


def sum_of(losses: list[Callable]) -> Any:
    return tf.function(lambda: tf.add_n([tf.reduce_sum(loss()) for loss in losses])).get_concrete_function() if losses else None


# --- purity -----------------------------------------------------------------------------------------------------------------------------------


def inlined(concrete: Any) -> GraphDef:
    """The graph of a concrete function with all nested functions inlined.

    Keras 3 marks grouped convolutions `_noinline` and `_XlaMustCompile`; both would keep them closed.
    """
    graph = concrete.graph
    unmarked = without_marks(graph.as_graph_def())
    # Traced here a moment ago, so nobody else sees that it hands out another graph.
    graph.as_graph_def = lambda *args, **kwargs: unmarked
    try:
        return convert_to_constants._run_inline_graph_optimization(concrete, False, False)
    finally:
        del graph.as_graph_def


def without_marks(graph: GraphDef) -> GraphDef:
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for holder in [*nodes, *graph.library.function]:
        for mark in ("_noinline", "_XlaMustCompile"):
            if mark in holder.attr:
                del holder.attr[mark]
    return graph


def purify(concrete: Any, weights: Weights) -> PureGraph:
    """Turn reads of variables into placeholders and writes into results."""
    graph = inlined(concrete)
    first = len(concrete.inputs) - len(concrete.captured_inputs)
    handles = {p.op.name: h for p, h in zip(concrete.inputs[first:], concrete.captured_inputs, strict=True)}
    nodes = {node.name: node for node in graph.node}
    resources = {name for name, handle in handles.items() if handle.dtype == tf.resource and name in nodes}
    owner = {node.name: found for node in graph.node if (found := source(node.name, nodes, resources))}
    for node in graph.node:
        if node.op in ("If", "While", "StatelessIf", "StatelessWhile", "Case", "PartitionedCall", "StatefulPartitionedCall") and any(
            name in owner for name in stages.data_inputs(node)
        ):
            raise NotPure(f"it reads variables inside a {node.op} ({node.name!r})")
        if any(name in owner for name in stages.data_inputs(node)) and node.op not in READS | set(WRITES) | {"Identity", "NoOp"}:
            raise NotPure(f"it uses a variable in {node.op} ({node.name!r})")
    order = execution_order(graph, nodes)
    numbers: dict[str, int] = {}
    written: dict[str, str] = {}
    extra: list[NodeDef] = []
    for name in order:
        node = nodes[name]
        if node.op in READS or node.op in WRITES:
            resource = owner[stages.data_inputs(node)[0]]
            if resource not in numbers:
                numbers[resource] = weights.number(handles[resource])
        if node.op in READS:
            value = written.get(resource, f"weight_{numbers[resource]}")
            dtype = node.attr["dtype"].type
            node.Clear()
            node.name, node.op = name, "Identity"
            node.input.append(value)
            node.attr["T"].type = dtype
        elif node.op in WRITES:
            delta = next(i for i in list(node.input)[1:] if not i.startswith("^"))
            written[resource] = after_write(node, delta, written.get(resource, f"weight_{numbers[resource]}"), extra)
    output = output_node(concrete, graph)
    result = finish(graph, extra, handles, weights, [output, *(w for w in written.values())])
    inputs = [p.op.name for p in concrete.inputs[:first]]
    used = {node.name for node in result.node}
    numbered = tuple(i for i in range(len(weights.found)) if f"weight_{i}" in used)
    updates = tuple((numbers[resource], value if ":" in value else f"{value}:0") for resource, value in written.items())
    return PureGraph(result, f"{inputs[0]}:0" if inputs else None, output if ":" in output else f"{output}:0", numbered, updates)


def source(name: str, nodes: dict[str, NodeDef], resources: set[str]) -> str | None:
    """The resource placeholder behind a chain of Identity nodes."""
    while name not in resources and name in nodes and nodes[name].op == "Identity":
        name = nodes[name].input[0].split(":")[0].lstrip("^")
    return name if name in resources else None


def execution_order(graph: GraphDef, nodes: dict[str, NodeDef]) -> list[str]:
    """Topological order over data and control edges: the order in which reads and writes of one variable happen."""
    before = {n.name: {i.lstrip("^").split(":")[0] for i in n.input} & nodes.keys() for n in graph.node}
    after: dict[str, list[str]] = {name: [] for name in before}
    for name, inputs in before.items():
        for i in sorted(inputs):
            after[i].append(name)
    order = stages.topological([name for name, inputs in before.items() if not inputs], before, after)
    if len(order) < len(before):
        raise NotPure("its graph has a loop")
    return order


def after_write(node: NodeDef, value: str, current: str, extra: list[NodeDef]) -> str:
    """The name of the value that a variable has after a write."""
    op = WRITES[node.op]
    if op is None:
        return value
    result = NodeDef(name=f"{node.name}_pure", op=op)
    result.input.extend([current, value])
    result.attr["T"].type = node.attr["dtype"].type
    extra.append(result)
    return result.name


def output_node(concrete: Any, graph: GraphDef) -> str:
    """The inlined name of the function's one output."""
    name = concrete.outputs[0].name
    names = {node.name for node in graph.node}
    return name if name.split(":")[0] in names else [node.name for node in graph.node if node.op == "Identity"][-1]


def finish(graph: GraphDef, extra: list[NodeDef], handles: dict[str, Any], weights: Weights, fetches: list[str]) -> GraphDef:
    """Add the placeholders, drop control edges and custom-gradient marks, keep what the fetches need, lift large constants out."""
    result = GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if node.name in handles:
            handle = handles[node.name]
            if handle.dtype == tf.resource:
                continue
            # A captured plain tensor is a constant of the model.
            node = NodeDef(name=node.name, op="Const", attr={"value": node_value(handle), "dtype": node.attr["dtype"]})
        result.node.append(node)
    result.node.extend(extra)
    for i, weight in enumerate(weights.found):
        result.node.append(placeholder(f"weight_{i}", weight.value))
    for node in result.node:
        kept = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(kept)
        # Names of functions in the process that traced them, and of devices it had.
        node.ClearField("experimental_debug_info")
        node.ClearField("device")
        # The mark points into the process that traced the function; without it, the gradient is the one of the forward graph.
        if "_gradient_op_type" in node.attr:
            del node.attr["_gradient_op_type"]
    result = needed(result, fetches)
    rename_functions(result)
    for node in result.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > BIG_CONSTANT:
            value = tf.make_ndarray(node.attr["value"].tensor)
            i = weights.add(node.name, value, False)
            shape, name = placeholder(f"weight_{i}", value), node.name
            node.Clear()
            node.name, node.op = name, "Identity"
            node.input.append(shape.name)
            node.attr["T"].CopyFrom(shape.attr["dtype"])
            result.node.append(shape)
    return result


def rename_functions(graph: GraphDef) -> None:
    """Keep the functions that the graph calls (bodies of While and If), named f0, f1, ... as first used: their own names change with the process."""
    functions = {function.signature.name: function for function in graph.library.function}
    names: dict[str, str] = {}

    def rename(nodes: Iterable[NodeDef]) -> None:
        for node in nodes:
            attributes = [node.attr[key] for key in sorted(node.attr)]
            for holder in [value.func for value in attributes if value.HasField("func")] + [f for value in attributes for f in value.list.func]:
                if holder.name in functions and holder.name not in names:
                    names[holder.name] = f"f{len(names)}"
                    rename(functions[holder.name].node_def)
                holder.name = names.get(holder.name, holder.name)

    rename(graph.node)
    kept = [functions[name] for name in names]
    for function in kept:
        function.signature.name = names[function.signature.name]
    graph.library.CopyFrom(FunctionDefLibrary(function=kept))


def needed(graph: GraphDef, fetches: list[str]) -> GraphDef:
    """The part of a graph that the fetches need, in its order."""
    nodes = {node.name: node for node in graph.node}
    kept = stages.reach([node_of(fetch) for fetch in fetches], lambda name: stages.data_inputs(nodes[name]))
    return GraphDef(versions=graph.versions, library=graph.library, node=[node for node in graph.node if node.name in kept])


def node_value(tensor: Any) -> Any:
    return tf.compat.v1.AttrValue(tensor=tf.make_tensor_proto(tensor.numpy()))


def placeholder(name: str, value: np.ndarray) -> NodeDef:
    dtype = tf.as_dtype(value.dtype).as_datatype_enum
    node = NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return node


def with_constants(concrete: Any, **options: Any) -> Any:
    """A concrete function whose variables became constants: TensorFlow's own conversion."""
    return convert_to_constants.convert_variables_to_constants_v2(concrete, **options)


def frozen(concrete: Any, weights: Weights) -> PureGraph:
    """A graph whose variables became constants, in While and If bodies too."""
    try:
        constant = with_constants(concrete, lower_control_flow=False)
    except (ValueError, tf.errors.OpError) as error:
        raise SavedModelError(f"the graph can't be frozen: {str(error).strip().splitlines()[0]}") from error
    if left := [t for t in constant.inputs[1:] if t.dtype == tf.resource]:
        raise SavedModelError(f"the graph uses a look-up table or another resource ({left[0].name!r}), as text models do; expected a model of images alone.")
    graph = constant.graph.as_graph_def()
    result = finish(graph, [], {}, weights, [constant.outputs[0].name])
    numbered = tuple(range(len(weights.found)))
    return PureGraph(result, constant.inputs[0].name, constant.outputs[0].name, numbered)


# --- what the graph is like -------------------------------------------------------------------------------------------------------------------


def node_of(tensor: str) -> str:
    return tensor.split(":")[0]


def mean_of(pure: PureGraph) -> str:
    """The map whose mean over all positions is the output; the output itself where there is none."""
    nodes = {node.name: node for node in pure.graph.node}
    name = node_of(pure.output)
    while nodes[name].op in PASSES:
        name = stages.data_inputs(nodes[name])[0]
    if nodes[name].op != "Mean":
        return pure.output
    inner = node_of(nodes[name].input[0])
    axes = nodes.get(node_of(nodes[name].input[1]))
    while axes is not None and axes.op == "Identity":
        axes = nodes.get(node_of(axes.input[0]))
    if axes is None or axes.op != "Const":
        return pure.output
    found = sorted(int(a) for a in np.atleast_1d(tf.make_ndarray(axes.attr["value"].tensor)))
    return f"{inner}:0" if found in ([1, 2], [1], [-3, -2], [-2]) else pure.output


def function(pure: PureGraph, weights: tuple[Weight, ...], size: tuple[int, int], taps: tuple[str, ...] | None = None) -> Any:
    """A differentiable function (x, *weights) -> (output, *updates).

    With `taps`, names of maps from input to output, the output is [B, F]: each one's mean, then its maximum over all positions, in one pass.
    """
    fetch = [*(taps if taps is not None else (pure.output,)), *(name for _, name in pure.updates)]

    # `import_graph_def` alone is not seen by a GradientTape; wrapped in a function, it is.
    def call(*arguments):
        feed = dict(zip(([node_of(pure.input)] if pure.input else []) + [f"weight_{i}" for i in pure.weights], arguments, strict=True))
        found = tf.graph_util.import_graph_def(pure.graph, input_map=feed, return_elements=fetch, name="")
        n = len(fetch) - len(pure.updates)
        return [pooled(found[:n]) if taps is not None else found[0], *found[n:]]

    specs = [tf.TensorSpec((None, *size, 3), tf.float32)] if pure.input else []
    specs += [tf.TensorSpec(weights[i].value.shape, tf.as_dtype(weights[i].value.dtype)) for i in pure.weights]
    return tf.compat.v1.wrap_function(call, specs)


def constant_graph(pretrained: Pretrained, values: list[np.ndarray], taps: tuple[str, ...] | None) -> GraphDef:
    """The inference graph with every weight a constant, from `pixels:0` to `features:0` (with `taps`, pooled as in `function`)."""
    pure, graph = pretrained.inference, tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, *pretrained.image_size, 3), name="pixels")
        feed = {node_of(pure.input or ""): x} | {f"weight_{i}": tf.constant(values[i]) for i in pure.weights}
        found = tf.graph_util.import_graph_def(pure.graph, input_map=feed, return_elements=list(taps or (pure.output,)), name="")
        tf.identity(pooled(found) if taps else found[0], name="features")
    return graph.as_graph_def()


def shapes_of(pure: PureGraph, size: tuple[int, int], tensors: list[str]) -> list[tuple[int, ...] | None]:
    """Shapes without the batch; None for a tensor that has not one row an example, or whose shape is not known beforehand."""
    rows = 3
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (rows, *size, 3))
        found = tf.graph_util.import_graph_def(pure.graph, input_map={node_of(pure.input or ""): x}, return_elements=tensors, name="")
    shapes = [t.shape.as_list() if t.shape.is_fully_defined() else [] for t in found]
    return [tuple(shape[1:]) if len(shape) > 1 and shape[0] == rows else None for shape in shapes]


def pooled(maps: list[tf.Tensor]) -> tf.Tensor:
    """[B, F]: the mean, then the maximum of each map over its positions; a tensor [B, D] stays as it is."""
    parts = []
    for tap in maps:
        axes = list(range(1, tap.shape.rank - 1))
        parts += [tf.reduce_mean(tap, axes), tf.reduce_max(tap, axes)] if axes else [tap]
    return tf.concat(parts, axis=-1) if len(parts) > 1 else parts[0]


def marked_gradient(concrete: Any) -> bool:
    graph = concrete.graph.as_graph_def()
    return any("_gradient_op_type" in n.attr for n in graph.node) or any("_gradient_op_type" in n.attr for f in graph.library.function for n in f.node_def)


def same_gradient(concrete: Any, graph: PureGraph, bound: float, pretrained: Pretrained, weights: Weights, spec: tf.TensorSpec) -> bool:
    """Whether a pure graph's gradients, of weights and pixels, are those of the loaded object, on one random batch; relative to the largest of all."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((2, *spec.shape[1:]), dtype=np.float32))
    direction = tf.constant(rng.standard_normal(pretrained.features), tf.float32)
    variables = {number: weights.variables[handle] for handle, number in weights.numbers.items()}
    for number, variable in variables.items():
        variable.assign(weights.found[number].value)
    numbers = [i for i in graph.weights if pretrained.weights[i].trainable and i in variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(concrete(x) * direction)
    expected = tape.gradient(loss, [x, *(variables[i] for i in numbers)], unconnected_gradients="zero")
    values = {i: tf.constant(pretrained.weights[i].value) for i in graph.weights}
    pure = function(graph, pretrained.weights, pretrained.image_size)
    with tf.GradientTape() as tape:
        tape.watch([x, *(values[i] for i in numbers)])
        loss = tf.reduce_sum(pure(x, *values.values())[0] * direction)
    found = tape.gradient(loss, [x, *(values[i] for i in numbers)], unconnected_gradients="zero")
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
    worst = max(float(tf.reduce_max(tf.abs(tf.convert_to_tensor(a) - tf.convert_to_tensor(b)))) for a, b in zip(expected, found, strict=True))
    return worst <= bound * max(largest, 1e-30)
