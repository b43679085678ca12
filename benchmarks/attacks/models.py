"""SavedModels that were changed at random: read, and asked for one answer.

A model is either refused with an error of tfxfer's own, or it is read. Some of them carry an
operation that writes a file, which must never appear.
"""

import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from savedmodels import save_reusable, tiny_network, vision_transformer
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfxfer import savedmodel
from tfxfer.errors import TfxferError
from tfxfer.savedmodel.operations import ALLOWED, CHECKPOINT

SIZE = 16
OPERATIONS = sorted(ALLOWED | CHECKPOINT)


def prepare(folder: Path) -> Path:
    """Write the models that are changed, and the folder that nobody may touch."""
    save_reusable(tiny_network(SIZE, dropout=0.3), folder / "network")
    save_reusable(vision_transformer(SIZE, patch=4, width=8, depth=1), folder / "transformer")
    save_with_table(folder)
    (folder / "canary").mkdir()
    return folder


def save_with_table(folder: Path) -> None:
    """A network with a look-up table that is filled from a file, and a branch."""
    (folder / "words.txt").write_text("a\nb\n")
    root = tf.Module()
    index = tf.lookup.TextFileIndex
    file = tf.lookup.TextFileInitializer(
        str(folder / "words.txt"), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )
    root.table = tf.lookup.StaticVocabularyTable(file, 1)
    root.weight = tf.Variable(tf.ones((3, 4)))

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
    def call(images):
        row = tf.reduce_mean(images, [1, 2]) @ root.weight
        return tf.cond(tf.reduce_sum(row) > 0, lambda: row + 1.0, lambda: row - 1.0)

    root.__call__ = call
    tf.saved_model.save(root, str(folder / "table"))


def attack(folder: Path, number: int, seed: int) -> str:
    """Change one model and read it; returns what went wrong, or nothing."""
    draw = random.Random(f"{seed} {number}")
    source = folder / draw.choice(["network", "transformer", "table"])
    model = folder / "changed"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(source, model)
    change = draw.choice([change_bytes, change_weights, *[change_graph] * 8])
    change(model, folder / "canary" / f"{number}", draw)
    try:
        pretrained = savedmodel.read(model)
        answer(pretrained)
    except TfxferError:
        pass
    written = sorted(path.name for path in (folder / "canary").iterdir())
    return f"wrote {written}" if written else ""


def answer(pretrained: savedmodel.Pretrained) -> None:
    """One answer, of the network as it is used: as a graph of constants."""
    from tfxfer.backbone import Backbone

    network = Backbone(pretrained, trainable=False)
    np.asarray(network(np.zeros((2, *pretrained.input_shape), np.float32)))


# --- changes ---


def change_bytes(model: Path, target: Path, draw: random.Random) -> None:
    """Flip, cut or repeat bytes of saved_model.pb."""
    spoil(model / "saved_model.pb", draw)


def change_weights(model: Path, target: Path, draw: random.Random) -> None:
    """Flip, cut or repeat bytes of the checkpoint."""
    spoil(draw.choice(sorted((model / "variables").iterdir())), draw)


def spoil(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes()) or bytearray(1)
    kind = draw.choice(["flip", "flip", "cut", "repeat", "zeros"])
    at = draw.randrange(len(content))
    if kind == "flip":
        for _ in range(draw.choice([1, 1, 3, 20])):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "repeat":
        content[at:at] = content[at : at + draw.randrange(1, 5000)]
    else:
        content[at : at + 64] = bytes(64)
    path.write_bytes(bytes(content))


def change_graph(model: Path, target: Path, draw: random.Random) -> None:
    """Change some nodes, functions or objects of the graph; sometimes one also writes a file."""
    path = model / "saved_model.pb"
    proto = SavedModel.FromString(path.read_bytes())
    for _ in range(draw.choice([1, 1, 2, 5])):
        draw.choice(GRAPH_CHANGES)(proto, draw)
    if draw.random() < 0.25:
        write_file(proto, target, draw)
    try:
        path.write_bytes(proto.SerializeToString())
    except (DecodeError, ValueError):
        spoil(path, draw)


def a_function(proto: SavedModel, draw: random.Random):
    """Return a function of the model, seldom one of the checkpoint.

    A change to the checkpoint's functions is noticed at once.
    """
    functions = proto.meta_graphs[0].graph_def.library.function
    own = [f for f in functions if "traced" not in f.signature.name] or functions
    return draw.choice(own if draw.random() < 0.95 else functions)


def a_node(proto: SavedModel, draw: random.Random) -> NodeDef:
    function = a_function(proto, draw)
    return draw.choice(function.node_def) if function.node_def else function.node_def.add()


def other_operation(proto: SavedModel, draw: random.Random) -> None:
    a_node(proto, draw).op = draw.choice(OPERATIONS)


def other_operation_of_its_kind(proto: SavedModel, draw: random.Random) -> None:
    """An operation that takes as many inputs, so that the graph is often still one."""
    node = a_node(proto, draw)
    for kind in KINDS:
        if node.op in kind:
            node.op = draw.choice(kind)


def other_numbers(proto: SavedModel, draw: random.Random) -> None:
    """Other numbers in a constant: axes, sizes, paddings, seeds."""
    constants = [node for node in a_function(proto, draw).node_def if node.op == "Const"]
    if not constants:
        return
    tensor = draw.choice(constants).attr["value"].tensor
    numbers = [-(2**31), -1, 0, 1, 2, 3, 7, 40_000, 2**31 - 1]
    if tensor.tensor_content:
        tensor.tensor_content = bytes(draw.randrange(256) for _ in tensor.tensor_content)
    elif tensor.int_val:
        tensor.int_val[0] = draw.choice(numbers)
    elif tensor.float_val:
        tensor.float_val[0] = draw.choice([float("nan"), float("inf"), -1e38, 0.0])
    elif tensor.string_val:
        tensor.string_val[0] = draw.choice([b"", b"\xff" * 1000, b"words.txt"])


def other_input(proto: SavedModel, draw: random.Random) -> None:
    node, other = a_node(proto, draw), a_node(proto, draw)
    if node.input:
        place = draw.randrange(len(node.input))
        node.input[place] = draw.choice(
            [other.name, "", f"{other.name}:0", f"^{other.name}", "x:y:9"]
        )


def fewer_inputs(proto: SavedModel, draw: random.Random) -> None:
    node = a_node(proto, draw)
    if node.input:
        del node.input[draw.randrange(len(node.input))]


def other_attribute(proto: SavedModel, draw: random.Random) -> None:
    node = a_node(proto, draw)
    if not node.attr:
        return
    value: AttrValue = node.attr[draw.choice(sorted(node.attr))]
    kind = draw.choice(["type", "int", "shape", "text", "list", "none"])
    if kind == "type":
        value.type = draw.randrange(1, 24)
    elif kind == "int":
        value.i = draw.choice([-1, 0, 1, 2**31, 2**62, -(2**63)])
    elif kind == "shape":
        value.shape.dim.add(size=draw.choice([-1, 0, 2**40]))
    elif kind == "text":
        value.s = b"\xff" * draw.choice([0, 1, 1000])
    elif kind == "list":
        del value.list.i[:]
        value.list.i.extend([draw.choice([-1, 0, 2**40])] * draw.randrange(6))
    else:
        value.Clear()


def large_constant(proto: SavedModel, draw: random.Random) -> None:
    """A constant of few bytes and many numbers."""
    constants = [
        node
        for function in proto.meta_graphs[0].graph_def.library.function
        for node in function.node_def
        if node.op == "Const"
    ]
    tensor = draw.choice(constants).attr["value"].tensor
    del tensor.tensor_shape.dim[:]
    for _ in range(draw.randrange(1, 4)):
        tensor.tensor_shape.dim.add(size=draw.choice([1, 40_000, 2**31, 2**40, -1]))


def without_function(proto: SavedModel, draw: random.Random) -> None:
    library = proto.meta_graphs[0].graph_def.library
    del library.function[draw.randrange(len(library.function))]


def other_name(proto: SavedModel, draw: random.Random) -> None:
    a_function(proto, draw).signature.name = a_function(proto, draw).signature.name


def other_arguments(proto: SavedModel, draw: random.Random) -> None:
    signature = a_function(proto, draw).signature
    arguments = draw.choice([signature.input_arg, signature.output_arg])
    if arguments and draw.random() < 0.5:
        del arguments[draw.randrange(len(arguments))]
    else:
        arguments.add(name=f"more{draw.randrange(9)}", type=draw.randrange(1, 20))


def other_gradient(proto: SavedModel, draw: random.Random) -> None:
    library = proto.meta_graphs[0].graph_def.library
    names = [function.signature.name for function in library.function]
    library.gradient.add(function_name=draw.choice(names), gradient_func=draw.choice(names))
    node = a_node(proto, draw)
    node.attr["_gradient_op_type"].s = draw.choice(["CustomGradient-1", *names]).encode()


def other_object(proto: SavedModel, draw: random.Random) -> None:
    objects = proto.meta_graphs[0].object_graph_def
    one = draw.choice(objects.nodes)
    kind = draw.choice(["children", "copy", "shape", "bound", "function"])
    if kind == "children":
        one.children.add(node_id=draw.choice([0, 1, -1, 10**6]), local_name=draw.choice(["v", ""]))
    elif kind == "copy":
        one.CopyFrom(draw.choice(objects.nodes))
    elif kind == "shape":
        one.variable.shape.dim.add(size=draw.choice([-1, 40_000, 2**40]))
    elif kind == "bound":
        name = draw.choice(sorted(objects.concrete_functions))
        bound = objects.concrete_functions[name].bound_inputs
        bound.append(draw.randrange(-2, len(objects.nodes) + 2))
    else:
        names = [f.signature.name for f in proto.meta_graphs[0].graph_def.library.function]
        one.bare_concrete_function.concrete_function_name = draw.choice([*names, "nobody"])


KINDS = [
    ["Relu", "Sigmoid", "Exp", "Log", "Sqrt", "Rsqrt", "Erfinv", "CheckNumerics", "MatrixInverse"],
    [
        "Mean",
        "Sum",
        "Max",
        "All",
        "ArgMax",
        "Cumsum",
        "ReverseV2",
        "Reshape",
        "Tile",
        "Fill",
        "Where",
    ],
    [
        "AddV2",
        "Mul",
        "MatMul",
        "RealDiv",
        "Pow",
        "Xdivy",
        "Complex",
        "BroadcastTo",
        "GatherNd",
        "Pad",
    ],
    ["Conv2D", "DepthwiseConv2dNative", "Dilation2D", "MatMul", "Conv"],
]

GRAPH_CHANGES = [
    other_operation,
    *[other_operation_of_its_kind] * 4,
    *[other_numbers] * 6,
    other_input,
    fewer_inputs,
    other_attribute,
    large_constant,
    without_function,
    other_name,
    other_arguments,
    other_gradient,
    other_object,
]


def write_file(proto: SavedModel, target: Path, draw: random.Random) -> None:
    """Let a function write a file, with one of the operations that can."""
    function = a_function(proto, draw)
    add_constant(function, "attack_name", str(target))
    add_constant(function, "attack_text", "x")
    function.node_def.append(
        NodeDef(
            name="attack", op="WriteFile", input=["attack_name:output:0", "attack_text:output:0"]
        )
    )
    function.control_ret["attack"] = "attack"
    function.signature.control_output.append("attack")
    function.signature.is_stateful = True


def add_constant(function, name: str, value: str) -> None:
    fill_constant(function.node_def.add(name=name, op="Const"), value)


def fill_constant(node: NodeDef, value: str) -> None:
    tensor = tf.make_tensor_proto(value)
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
