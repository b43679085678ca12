"""Check that a SavedModel only computes, unless the user trusts it.

The graphs are looked at before anything is loaded, since loading runs some of them. See
`operations` for what is allowed.
"""

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path, PurePosixPath

from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import dtypes, op_def_registry

from tfxfer.errors import UNSAFE_MODEL, DeniedOperationError, SavedModelError
from tfxfer.limits import MOST_CONSTANTS
from tfxfer.savedmodel.operations import ALLOWED, CHECKPOINT, FROM_ASSET
from tfxfer.savedmodel.tf_text import OPERATIONS, SENTENCEPIECE, load_operations

# Constants of these dtypes are not numbers: they can hold a program, or a handle to variables of
# another model.
NO_NUMBERS = frozenset({types_pb2.DT_VARIANT, types_pb2.DT_RESOURCE})


def check_saved_model(folder: Path, *, trust: bool = False) -> set[str]:
    """Refuse a folder that TensorFlow must not load, and return the names of its operations.

    Args:
        folder: the folder that holds `saved_model.pb`.
        trust: whether operations may reach files, Python and the internet.

    Raises:
        SavedModelError: the file can't be read, is in the TF1 format, or holds more than one graph.
        DeniedOperationError: the graph holds an operation that is not allowed; names it.
        MissingExtraError: the graph needs TensorFlow Text.
    """
    path = folder / "saved_model.pb"
    try:
        proto = SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise SavedModelError(
            f"{path} can't be read ({error.strerror or error}). "
            "A SavedModel is a folder with saved_model.pb and variables/."
        ) from error
    except DecodeError as error:
        raise SavedModelError(
            f"{path} is damaged: it is not a SavedModel ({error}). Fetch or export it again."
        ) from error
    if not proto.meta_graphs:
        raise SavedModelError(f"{path} is damaged: it holds no graph. Fetch or export it again.")
    if not proto.meta_graphs[0].object_graph_def.nodes:
        raise SavedModelError(
            f"{folder} is a TF1-format SavedModel (written by tf.compat.v1), which "
            "can't be fine-tuned. Look for a TF2 version of the model, or export it again with "
            "tf.saved_model.save."
        )
    # With several graphs, TensorFlow uses the loader of TF1, which runs unchecked graphs.
    if len(proto.meta_graphs) > 1:
        raise SavedModelError(
            f"{path} holds {len(proto.meta_graphs)} graphs; expected one. Export the model again "
            "with tf.saved_model.save."
        )
    check_constants(proto.meta_graphs[0].graph_def, folder)
    if not trust:
        refuse(refused_in(proto.meta_graphs[0], folder), str(folder))
    found = {node.op for node in all_nodes(proto.meta_graphs[0].graph_def)}
    load_operations(found, str(folder))
    return found


def check_constants(graph: GraphDef, where: Path | str) -> None:
    """Refuse a graph whose constants are small in the file and too large in memory.

    Raises:
        SavedModelError: says how large they are.
    """
    count = sum(bytes_of(tensor) for node in all_nodes(graph) for tensor in constants(node))
    if count > MOST_CONSTANTS:
        raise SavedModelError(
            f"{where} holds constants of {count / 2**30:,.1f} GiB in memory; expected at most "
            f"{MOST_CONSTANTS / 2**30:,.1f} GiB. Is it damaged? Large values belong into variables."
        )


def bytes_of(tensor: TensorProto) -> int:
    """The number of bytes of a constant in memory, which may be more than in the file."""
    elements = prod(max(dimension.size, 0) for dimension in tensor.tensor_shape.dim)
    return elements * (dtypes.as_dtype(tensor.dtype).size or 1) if tensor.dtype else 0


def constants(node: NodeDef) -> Iterator[TensorProto]:
    """The constants in all attributes of a node."""
    for value in node.attr.values():
        yield from tensors(value)


def check_graph(graph: GraphDef, where: str, held: set[str] | None = None) -> None:
    """Refuse a graph that holds an operation that is not allowed, in its body or in its functions.

    Args:
        held: names of the operations in the file that the graph was traced from. Other operations
            were added by this process, as `tf.debugging.enable_check_numerics` does, and are
            allowed.

    Raises:
        DeniedOperationError: names all operations that are not allowed.
    """
    functions = {function.signature.name for function in graph.library.function}
    nodes = [node for node in all_nodes(graph) if held is None or node.op in held]
    refuse({name for node in nodes for name in refused(node, functions)}, where)


def refused_in(meta: MetaGraphDef, folder: Path) -> set[str]:
    """The names of operations and assets in a SavedModel's graph that are not allowed."""
    graph = meta.graph_def
    functions = {function.signature.name for function in graph.library.function}
    keeping = checkpoint_functions(meta)
    names: set[str] = set()
    # TensorFlow 2 never runs the graph's own nodes. They name the two functions of the checkpoint.
    for node in graph.node:
        names |= refused(node, functions) - CHECKPOINT
    for function in graph.library.function:
        allowed_here = CHECKPOINT if function.signature.name in keeping else frozenset[str]()
        for node in function.node_def:
            if node.op in FROM_ASSET and reads_asset(node, function, meta):
                continue
            names |= refused(node, functions) - allowed_here
    return names | {f"asset {name!r}" for name in assets_outside(meta, folder)}


def refused(node: NodeDef, functions: set[str]) -> set[str]:
    """Return what is not allowed in a node: its operation, or a constant that is not a number.

    A node may call one of the graph's functions by name; these functions are checked like all
    others. A function that has the name of an operation counts as that operation.
    """
    names = set()
    calls_function = node.op in functions and op_def_registry.get(node.op) is None
    if node.op not in ALLOWED | OPERATIONS and not calls_function:
        names.add(node.op)
    if any(tensor.dtype in NO_NUMBERS for tensor in constants(node)):
        names.add(f"{node.op} of a value that is no number")
    return names


def tensors(value: AttrValue) -> Iterator[TensorProto]:
    """Yield the constants in an attribute of a node.

    The attributes of a function that the attribute names are included.
    """
    if value.HasField("tensor"):
        yield value.tensor
    yield from value.list.tensor
    for function in ([value.func] if value.HasField("func") else []) + list(value.list.func):
        for inner in function.attr.values():
            yield from tensors(inner)


def all_nodes(graph: GraphDef) -> Iterator[NodeDef]:
    """The nodes of a graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def named_functions(nodes: Iterable[NodeDef]) -> Iterator[str]:
    """The functions that nodes may call: as their operation, or through any attribute."""
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            for function in value.list.func:
                yield function.name


def checkpoint_functions(meta: MetaGraphDef) -> set[str]:
    """The two functions that save and restore the weights, if nothing else can call them.

    TensorFlow 2 does their work in Python when it loads a SavedModel. A function that an object or
    another function calls is therefore not one of them, whatever the file says.
    """
    saver = meta.saver_def
    ends = {saver.save_tensor_name.split(":")[0], saver.restore_op_name.split(":")[0]}
    named = {node.attr["f"].func.name for node in meta.graph_def.node if node.name in ends}
    return named - called_otherwise(meta, ends)


def called_otherwise(meta: MetaGraphDef, ends: set[str]) -> set[str]:
    """Every function that an object, another function or a node outside `ends` can call."""
    graph, objects = meta.graph_def, meta.object_graph_def
    names = set(named_functions(node for node in graph.node if node.name not in ends))
    names |= called_by_functions(graph)
    names |= set(objects.concrete_functions)
    for node in objects.nodes:
        names |= set(node.function.concrete_functions)
        names.add(node.bare_concrete_function.concrete_function_name)
    return names


def called_by_functions(graph: GraphDef) -> set[str]:
    """Every function that another function can call, directly or as its gradient."""
    names = {name for f in graph.library.function for name in named_functions(f.node_def)}
    for gradient in graph.library.gradient:
        names |= {gradient.function_name, gradient.gradient_func}
    return names


def reads_asset(node: NodeDef, function: FunctionDef, meta: MetaGraphDef) -> bool:
    """Whether the file that a node reads is certainly one of the folder's assets.

    The name of the file must be an argument that the object graph binds to an asset. No other
    function may call this function, since it could pass another file name.
    """
    name = function.signature.name
    if name not in meta.object_graph_def.concrete_functions:
        return False
    if name in called_by_functions(meta.graph_def):
        return False
    arguments = [argument.name for argument in function.signature.input_arg]
    source = node.input[FROM_ASSET[node.op]] if len(node.input) > FROM_ASSET[node.op] else ""
    if source not in arguments:
        return False
    bound = meta.object_graph_def.concrete_functions[name].bound_inputs
    place = arguments.index(source) - (len(arguments) - len(bound))
    if place < 0 or not 0 <= bound[place] < len(meta.object_graph_def.nodes):
        return False
    return meta.object_graph_def.nodes[bound[place]].WhichOneof("kind") == "asset"


def assets_outside(meta: MetaGraphDef, folder: Path) -> list[str]:
    """The assets that would be read from somewhere other than the folder's own assets/."""
    names = {asset.filename for asset in meta.asset_file_def}
    return sorted(name for name in names if not inside(name, folder / "assets"))


def inside(name: str, folder: Path) -> bool:
    """Whether a file name leads to something in the folder, after following symbolic links."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())


def refuse(names: set[str], where: str) -> None:
    """Refuse operations that are not allowed.

    Raises:
        DeniedOperationError: there are some; names them.
    """
    if names and names <= SENTENCEPIECE:
        raise DeniedOperationError(
            f"{where} cuts texts by a SentencePiece model ({', '.join(sorted(names))}). "
            f"{UNSAFE_MODEL}"
        )
    if names:
        raise DeniedOperationError(
            f"{where} holds {', '.join(sorted(names))}, which networks do not need and which could "
            "read or write files, run Python or use the internet. A graph is code: use --trust "
            "(trust=True) only if you know who made it."
        )
