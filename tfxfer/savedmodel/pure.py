"""Turn a concrete function into a pure graph.

Reads of variables become arguments, and writes become results. TensorFlow's private API is used
here.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import convert_to_constants

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel import sentencepiece, stages, tables
from tfxfer.savedmodel.graph import PureGraph, Weight, needed
from tfxfer.savedmodel.stages import nodes_of, with_port
from tfxfer.savedmodel.tf_text import WITH_MODEL

READS = frozenset({"ReadVariableOp"})
GATHERS = frozenset({"ResourceGather"})  # rows of a variable, such as embeddings
WRITES = {"AssignVariableOp": None, "AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
# All operations that may take a variable or another resource.
TAKES = READS | GATHERS | set(WRITES) | tables.READS | WITH_MODEL | {"Identity", "NoOp"}
# Constants of more bytes are kept as frozen weights, so that a graph stays small.
BIG_CONSTANT = 64 * 1024


class NotPure(Exception):
    """The reason why a graph can't be taken apart; `trace` catches it."""


class Weights:
    """The variables met so far, numbered in the order in which the graphs read them.

    Args:
        trainable, names, makers: see `Opened`.
        big_constants: whether large constants are kept as frozen weights, so that a graph stays
            small; not in networks for texts, since the tables of a tokenizer are constants.
    """

    def __init__(
        self,
        variables: dict[int, tf.Variable],
        trainable: set[int],
        names: Mapping[int, str] | None = None,
        *,
        makers: Mapping[int, Callable] | None = None,
        big_constants: bool = True,
    ):
        self.makers = makers or {}
        self.big_constants = big_constants
        self.variables, self.trainable = variables, trainable
        self.names = names or {}
        self.found: list[Weight] = []
        self.numbers: dict[int, int] = {}

    def number(self, handle: Any) -> int:
        """Return the number of the variable with this handle; a new one gets the next number.

        Raises:
            NotPure: it is the handle of another resource, such as a look-up table.
        """
        key = id(handle)
        if key not in self.numbers:
            if key not in self.variables:
                raise NotPure(
                    f"it uses a resource that is not a variable ({handle.name!r}), such as a "
                    "look-up table"
                )
            variable = self.variables[key]
            name = self.names.get(key, variable.name.split(":")[0])
            self.numbers[key] = self.add(name, variable.numpy(), key in self.trainable)
        return self.numbers[key]

    def add(self, name: str, value: np.ndarray, trainable: bool) -> int:
        """Add a weight under a name that no other one has, and return its number."""
        taken = {weight.name for weight in self.found}
        name = name.replace("/", ".")
        unique = (
            name
            if name not in taken
            else next(n for k in range(1, len(taken) + 2) if (n := f"{name}.{k}") not in taken)
        )
        self.found.append(Weight(unique, np.asarray(value), trainable))
        return len(self.found) - 1


def purify(concrete: Any, weights: Weights) -> PureGraph:
    """Turn reads of variables into placeholders and writes into results.

    Raises:
        NotPure: variables are used by other operations than reads and writes, or the nodes form a
            cycle.
    """
    graph = inline_functions(concrete)
    first = len(concrete.inputs) - len(concrete.captured_inputs)
    handles = {
        p.op.name: h for p, h in zip(concrete.inputs[first:], concrete.captured_inputs, strict=True)
    }
    nodes = {node.name: node for node in graph.node}
    resources = {
        name for name, handle in handles.items() if handle.dtype == tf.resource and name in nodes
    }
    resource_of = {
        node.name: variable
        for node in graph.node
        if (variable := source(node.name, nodes, resources))
    }
    for node in graph.node:
        if node.op in (
            "If",
            "While",
            "StatelessIf",
            "StatelessWhile",
            "Case",
            "PartitionedCall",
            "StatefulPartitionedCall",
        ) and any(name in resource_of for name in stages.data_inputs(node)):
            raise NotPure(f"it reads variables inside a {node.op} ({node.name!r})")
        if node.op not in TAKES and any(name in resource_of for name in stages.data_inputs(node)):
            raise NotPure(f"it uses a variable in {node.op} ({node.name!r})")
    try:
        extra = tables.hold_tables(nodes, resource_of, handles)
        extra += sentencepiece.hold_models(nodes, resource_of, handles, makers=weights.makers)
    except LookupError as error:
        raise NotPure(f"it uses {error}, and nothing says what that holds") from error
    except tf.errors.OpError as error:
        raise NotPure(f"it uses a table that can't be copied ({error.message})") from error
    order = stages.execution_order(graph)  # also the order of the variables' reads and writes
    if len(order) < len(nodes):
        raise NotPure("its graph has a loop")
    numbers: dict[str, int] = {}
    written: dict[str, str] = {}
    for name in order:
        node = nodes[name]
        if node.op in READS | GATHERS or node.op in WRITES:
            resource = resource_of[stages.data_inputs(node)[0]]
            if resource not in numbers:
                numbers[resource] = weights.number(handles[resource])
        if node.op in READS:
            value = written.get(resource, f"weight_{numbers[resource]}")
            dtype = node.attr["dtype"].type
            node.Clear()
            node.name, node.op = name, "Identity"
            node.input.append(value)
            node.attr["T"].type = dtype
        elif node.op in GATHERS:
            value = written.get(resource, f"weight_{numbers[resource]}")
            gather(node, value, extra=extra)
        elif node.op in WRITES:
            delta = next(i for i in list(node.input)[1:] if not i.startswith("^"))
            written[resource] = after_write(
                node, delta, written.get(resource, f"weight_{numbers[resource]}"), extra=extra
            )
    output = output_node(concrete, graph)
    result = finish(
        graph, extra, handles, weights=weights, fetches=[output, *(w for w in written.values())]
    )
    inputs = [p.op.name for p in concrete.inputs[:first]]
    used = {node.name for node in result.node}
    numbered = tuple(i for i in range(len(weights.found)) if f"weight_{i}" in used)
    updates = tuple((numbers[resource], with_port(value)) for resource, value in written.items())
    return PureGraph(
        graph=result,
        input=f"{inputs[0]}:0" if inputs else None,
        output=with_port(output),
        weights=numbered,
        updates=updates,
    )


def inline_functions(concrete: Any) -> GraphDef:
    """Return the graph of a concrete function with all nested functions inlined.

    Keras 3 marks grouped convolutions `_noinline` and `_XlaMustCompile`. Both marks would keep them
    from being inlined, so they are removed. The mark of `tf.switch_case` that would turn it into
    internal operations of TensorFlow is removed, too; for `tf.cond` TensorFlow does so itself.
    """
    graph = concrete.graph
    unmarked = remove_marks(graph.as_graph_def())
    # The function was traced a moment ago, so no other code calls `as_graph_def` meanwhile.
    graph.as_graph_def = lambda *args, **kwargs: unmarked
    try:
        return convert_to_constants._run_inline_graph_optimization(concrete, False, False)
    finally:
        del graph.as_graph_def


def remove_marks(graph: GraphDef) -> GraphDef:
    """Remove the marks that keep functions from being inlined; changes and returns the graph."""
    nodes = list(nodes_of(graph))
    for holder in [*nodes, *graph.library.function]:
        for mark in ("_noinline", "_XlaMustCompile"):
            if mark in holder.attr:
                del holder.attr[mark]
    for node in nodes:
        if node.op in ("Case", "StatelessCase") and "_lower_using_switch_merge" in node.attr:
            del node.attr["_lower_using_switch_merge"]
    return graph


def source(name: str, nodes: dict[str, NodeDef], resources: set[str]) -> str | None:
    """The name of the resource placeholder behind a chain of Identity nodes.

    None where there is no such placeholder.
    """
    while name not in resources and name in nodes and nodes[name].op == "Identity":
        name = nodes[name].input[0].split(":")[0].lstrip("^")
    return name if name in resources else None


def gather(node: NodeDef, value: str, extra: list[NodeDef]) -> None:
    """Turn a `ResourceGather` into a `GatherV2` of the value of its variable."""
    batch = node.attr["batch_dims"].i
    name = node.name
    _, indices = (one for one in node.input if not one.startswith("^"))
    dtype, kind = node.attr["dtype"].type, node.attr["Tindices"].type
    axis = NodeDef(name=f"{name}_axis", op="Const")
    axis.attr["value"].CopyFrom(node_value(tf.constant(batch)))
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    extra.append(axis)
    node.Clear()
    node.name, node.op = name, "GatherV2"
    node.input.extend([value, indices, axis.name])
    node.attr["batch_dims"].i = batch
    node.attr["Tparams"].type, node.attr["Tindices"].type = dtype, kind
    node.attr["Taxis"].type = tf.int32.as_datatype_enum


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
    """The name of the only output after inlining; the last Identity if it was renamed."""
    name = concrete.outputs[0].name
    names = {node.name for node in graph.node}
    return (
        name
        if name.split(":")[0] in names
        else [node.name for node in graph.node if node.op == "Identity"][-1]
    )


def finish(
    graph: GraphDef,
    extra: list[NodeDef],
    handles: dict[str, Any],
    weights: Weights,
    fetches: list[str],
) -> GraphDef:
    """Complete a pure graph.

    The placeholders are added, control edges and marks of custom gradients are dropped, only what
    the fetches need is kept, and large constants become weights. The edges that make nodes wait for
    a table are kept.
    """
    result = GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if node.name in handles:
            handle = handles[node.name]
            if handle.dtype == tf.resource:
                continue
            # A captured plain tensor is a constant of the model.
            node = NodeDef(
                name=node.name,
                op="Const",
                attr={"value": node_value(handle), "dtype": node.attr["dtype"]},
            )
        result.node.append(node)
    result.node.extend(extra)
    for i, weight in enumerate(weights.found):
        result.node.append(placeholder(f"weight_{i}", weight.value))
    for node in result.node:
        kept = [
            name for name in node.input if not name.startswith("^") or name.endswith(tables.FILLED)
        ]
        del node.input[:]
        node.input.extend(kept)
        # These name functions and devices of the process that traced the graph.
        node.ClearField("experimental_debug_info")
        node.ClearField("device")
        # The mark means something only to the process that traced the function. Without it,
        # TensorFlow differentiates the forward operations; `same_gradient` checks whether that
        # gives the same.
        if "_gradient_op_type" in node.attr:
            del node.attr["_gradient_op_type"]
    result = needed(result, fetches)
    rename_functions(result)
    for node in result.node if weights.big_constants else ():
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
    """Keep the functions that the graph calls (bodies of While and If), each named by its content.

    Their own names change from process to process. Also, two networks in one process must not use
    the same name for two functions, since TensorFlow keeps the functions of all graphs in one list.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    names: dict[str, str] = {}

    def rename(nodes: Iterable[NodeDef]) -> None:
        for node in nodes:
            for key in sorted(node.attr):
                value = node.attr[key]
                for holder in [value.func] if value.HasField("func") else value.list.func:
                    if holder.name in functions and holder.name not in names:
                        names[holder.name] = name_of(functions[holder.name])
                    holder.name = names.get(holder.name, holder.name)

    def name_of(function: FunctionDef) -> str:
        rename(function.node_def)
        function.signature.name = ""
        content = function.SerializeToString(deterministic=True)
        return f"f_{hashlib.sha256(content).hexdigest()[:16]}"

    rename(graph.node)
    kept = {}
    for old, new in names.items():
        functions[old].signature.name = new
        kept[new] = functions[old]
    graph.library.CopyFrom(FunctionDefLibrary(function=kept.values()))


def node_value(tensor: Any) -> Any:
    return tf.compat.v1.AttrValue(tensor=tf.make_tensor_proto(tensor.numpy()))


def placeholder(name: str, value: np.ndarray) -> NodeDef:
    """Return a placeholder node with the dtype and the shape of a value."""
    dtype = tf.as_dtype(value.dtype).as_datatype_enum
    node = NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return node


def with_constants(concrete: Any, **options: Any) -> Any:
    """Return a concrete function whose variables became constants.

    This is TensorFlow's own conversion.
    """
    return convert_to_constants.convert_variables_to_constants_v2(concrete, **options)


def freeze_variables(concrete: Any, weights: Weights) -> PureGraph:
    """Return a graph whose variables became constants, in While and If bodies too.

    Raises:
        SavedModelError: the graph can't be frozen, or uses a resource that is not a variable.
    """
    try:
        constant = with_constants(concrete, lower_control_flow=False)
    except (ValueError, tf.errors.OpError) as error:
        raise SavedModelError(
            f"the graph can't be frozen: {str(error).strip().splitlines()[0]}"
        ) from error
    if left := [t for t in constant.inputs[1:] if t.dtype == tf.resource]:
        raise SavedModelError(
            f"the graph uses a look-up table or another resource ({left[0].name!r}), as text "
            "models do. Expected a model that takes images only."
        )
    graph = constant.graph.as_graph_def()
    result = finish(graph, [], {}, weights=weights, fetches=[constant.outputs[0].name])
    numbered = tuple(range(len(weights.found)))
    return PureGraph(
        graph=result,
        input=constant.inputs[0].name,
        output=constant.outputs[0].name,
        weights=numbered,
    )
