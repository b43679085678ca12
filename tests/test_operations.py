"""What a SavedModel's graph may hold.

Every operation of TensorFlow is tried, in every place where one can hide.
"""

import functools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from modelscan.modelscan import ModelScan
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.tools import saved_model_cli

from tfxfer import savedmodel
from tfxfer.backbone import Backbone
from tfxfer.errors import DeniedOperationError, SavedModelError
from tfxfer.savedmodel.check import refused_in
from tfxfer.savedmodel.operations import ALLOWED, CHECKPOINT, FROM_ASSET

REFUSED = frozenset((Path(__file__).parent / "refused_operations.txt").read_text().split())


# Another test may have loaded KerasHub, which adds the operations of tensorflow_text.
REGISTERED = """
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session
buffer = pywrap_tf_session.TF_GetAllOpList()
definitions = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(buffer))
print(*(definition.name for definition in definitions.op))
"""


@functools.cache
def registered() -> set[str]:
    """The names of all operations of TensorFlow alone, also those that `tf.raw_ops` leaves out."""
    words = [python(), "-c", REGISTERED]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def read_meta(folder) -> MetaGraphDef:
    """The graph of a SavedModel."""
    return SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes()).meta_graphs[0]


def write_meta(folder: Path, *metas: MetaGraphDef) -> Path:
    """Put graphs into a SavedModel's place."""
    proto = SavedModel(saved_model_schema_version=1, meta_graphs=metas)
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    return folder


def a_copy(folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A SavedModel with a branch, a look-up table filled from an asset, and a custom gradient."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "words.txt").write_text("a\nb\n")
    file = tf.lookup.TextFileInitializer(
        str(folder / "words.txt"),
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    root = tf.Module()
    root.table = tf.lookup.StaticVocabularyTable(file, 1)
    root.weight = tf.Variable(tf.ones((3, 4)))

    @tf.custom_gradient
    def clipped(x):
        return x, lambda slope: tf.clip_by_value(slope, -1.0, 1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None,), tf.string)])
    def call(x, words):
        y = clipped(x) @ root.weight
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: tf.sin(y), lambda: tf.cos(y))
        return y + tf.cast(root.table.lookup(words), tf.float32)[:, None]

    root.__call__ = call
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(root, str(folder / "model"), options=options)
    return folder / "model"


def save_branching(folder: Path, branch) -> Path:
    """A network of images with a branch and a custom gradient, which is read."""

    @tf.custom_gradient
    def clipped(x):
        return x, lambda slope: tf.clip_by_value(slope, -1.0, 1.0)

    root = tf.train.Checkpoint(weight=tf.Variable(tf.ones((3, 4))))

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3))])
    def call(x):
        y = clipped(tf.reduce_mean(x, [1, 2])) @ root.weight
        return tf.cond(tf.reduce_sum(y) > 0, lambda: branch(y), lambda: y)

    root.__call__ = call
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(root, str(folder), options=options)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return save_branching(tmp_path_factory.mktemp("branching") / "model", tf.sin)


# --- the table ---


def test_every_operation_of_tensorflow_is_allowed_or_refused():
    known = ALLOWED | REFUSED | CHECKPOINT | FROM_ASSET.keys()
    new = sorted(registered() - known)
    assert not new, "put each of these into operations.py, or into tests/refused_operations.txt"


def test_no_operation_is_both_allowed_and_refused():
    assert not ALLOWED & REFUSED
    assert not (ALLOWED | REFUSED) & (CHECKPOINT | FROM_ASSET.keys())


def test_only_operations_that_exist_are_allowed():
    assert registered() >= ALLOWED | CHECKPOINT | FROM_ASSET.keys()


# --- every refused operation, in every place where one can hide ---


def function_with(meta: MetaGraphDef, part: str):
    """The function whose name holds `part`."""
    return next(f for f in meta.graph_def.library.function if part in f.signature.name)


def put_into(part: str):
    """Hide an operation in the function whose name holds `part`."""

    def hide(meta: MetaGraphDef, node: NodeDef) -> None:
        function_with(meta, part).node_def.append(node)

    return hide


def put_into_graph(meta: MetaGraphDef, node: NodeDef) -> None:
    meta.graph_def.node.append(node)


def put_into_unlisted(meta: MetaGraphDef, node: NodeDef) -> None:
    """Add a function that is in no list, but that an object calls by name."""
    function = meta.graph_def.library.function.add()
    function.signature.name = f"unlisted_{node.op}"
    function.node_def.append(node)
    meta.object_graph_def.nodes[0].function.concrete_functions.append(function.signature.name)


def put_into_gradient(meta: MetaGraphDef, node: NodeDef) -> None:
    """Add a function that is the gradient of another."""
    function = meta.graph_def.library.function.add()
    function.signature.name = f"slope_{node.op}"
    function.node_def.append(node)
    gradient = function.signature.name
    meta.graph_def.library.gradient.add(function_name="some", gradient_func=gradient)


PLACES = {
    "call": put_into("__inference_call"),
    "branch": put_into("cond_true"),
    "other branch": put_into("cond_false"),
    "signature": put_into("signature_wrapper"),
    "initializer": put_into("__inference__initializer"),
    "creator": put_into("__inference__creator"),
    "destroyer": put_into("__inference__destroyer"),
    "custom gradient": put_into("internal_grad_fn"),
    "gradient": put_into_gradient,
    "unlisted function": put_into_unlisted,
    "save": put_into("traced_save"),
    "restore": put_into("traced_restore"),
    "graph": put_into_graph,
}


@pytest.mark.parametrize("place", PLACES)
def test_each_refused_operation_is_found_wherever_it_hides(place, model):
    meta = read_meta(model)
    assert refused_in(meta, model) == set()
    for name in sorted(REFUSED):
        PLACES[place](meta, NodeDef(name="hidden", op=name))
    assert refused_in(meta, model) == REFUSED


@pytest.mark.parametrize("place", sorted(PLACES.keys() - {"save", "restore", "graph"}))
def test_the_checkpoints_operations_are_refused_everywhere_else(place, model):
    meta = read_meta(model)
    for name in sorted(CHECKPOINT):
        PLACES[place](meta, NodeDef(name="hidden", op=name))
    assert refused_in(meta, model) == CHECKPOINT


def test_a_refused_operation_is_found_in_a_graph_and_in_its_functions():
    for name in sorted(REFUSED | CHECKPOINT | FROM_ASSET.keys()):
        in_body, in_function = GraphDef(), GraphDef()
        in_body.node.append(NodeDef(name="hidden", op=name))
        in_function.library.function.add().node_def.append(NodeDef(name="hidden", op=name))
        for graph in (in_body, in_function):
            with pytest.raises(DeniedOperationError, match=rf"\b{name}\b"):
                savedmodel.check_graph(graph, "here")


# --- ways around it ---


def test_a_function_with_the_name_of_an_operation_counts_as_that_operation(model):
    meta = read_meta(model)
    meta.graph_def.library.function.add().signature.name = "ReadFile"
    put_into("__inference_call")(meta, NodeDef(name="hidden", op="ReadFile"))
    assert refused_in(meta, model) == {"ReadFile"}


@pytest.mark.parametrize("kind", [types_pb2.DT_VARIANT, types_pb2.DT_RESOURCE])
@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_constant_that_is_no_number_is_refused(kind, place, model):
    meta = read_meta(model)
    node = NodeDef(name="hidden", op="Const")
    node.attr["value"].tensor.dtype = kind
    PLACES[place](meta, node)
    (found,) = refused_in(meta, model)
    assert found.startswith("Const")


@pytest.mark.parametrize("caller", ["function", "object", "gradient", "branch"])
def test_a_checkpoint_function_that_something_else_can_call_is_none(caller, model):
    meta = read_meta(model)
    name = function_with(meta, "traced_restore").signature.name
    if caller == "function":
        put_into("__inference_call")(meta, NodeDef(name="hidden", op=name))
    elif caller == "object":
        meta.object_graph_def.nodes[0].bare_concrete_function.concrete_function_name = name
    elif caller == "gradient":
        meta.graph_def.library.gradient.add(function_name="some", gradient_func=name)
    else:
        node = NodeDef(name="hidden", op="If")
        node.attr["then_branch"].func.name = name
        put_into("__inference_call")(meta, node)
    assert refused_in(meta, model) == {"RestoreV2"}


def test_a_second_graph_is_refused_because_another_loader_would_run_it(model, tmp_path):
    folder = a_copy(str(model), tmp_path)
    meta = read_meta(folder)
    with pytest.raises(SavedModelError, match=r"\b2 graphs"):
        savedmodel.check_saved_model(write_meta(folder, meta, meta))


def test_a_graph_hidden_in_a_constant_does_not_run(tmp_path):
    target = tmp_path / "written"
    with (
        tf.Graph().as_default() as hidden,
        tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(target), contents="x")]),
    ):
        dataset = tf.raw_ops.TensorDataset(components=[tf.constant(1.0)], output_shapes=[()])
        tf.identity(dataset, name="last")
    text = hidden.as_graph_def()
    root = tf.train.Checkpoint()

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3))])
    def call(x):
        node = tf.raw_ops.DatasetFromGraph(graph_def=text.SerializeToString())
        one = tf.raw_ops.DatasetToSingleElement(
            dataset=node, output_types=[tf.float32], output_shapes=[()]
        )
        return tf.reduce_mean(x, [1, 2]) + one[0]

    root.__call__ = call
    tf.saved_model.save(root, str(tmp_path / "m"))
    with pytest.raises(DeniedOperationError, match=r"\bDatasetFromGraph\b"):
        savedmodel.read(tmp_path / "m")
    assert not target.exists()


# --- other people's scanners ---


def calling(operation):
    """Return a call that also runs an operation."""

    def call(x):
        with tf.control_dependencies([operation()]):
            return tf.reduce_mean(x, [1, 2])

    return call


def in_a_branch(operation):
    def call(x):
        y = tf.reduce_mean(x, [1, 2])
        return tf.cond(tf.reduce_sum(y) > 0, lambda: calling(operation)(x), lambda: y)

    return call


MALICIOUS = {
    "WriteFile": lambda: tf.raw_ops.WriteFile(filename="written", contents="x"),
    "ReadFile": lambda: tf.raw_ops.ReadFile(filename="/etc/passwd"),
    "PrintV2": lambda: tf.raw_ops.PrintV2(input="x", output_stream="file://written"),
}


@pytest.mark.parametrize("place", [calling, in_a_branch])
@pytest.mark.parametrize("name", MALICIOUS)
def test_what_scanners_call_malicious_is_refused(name, place, tmp_path, capsys):
    root = tf.train.Checkpoint()
    root.__call__ = tf.function(
        place(MALICIOUS[name]), input_signature=[tf.TensorSpec((None, 4, 4, 3))]
    )
    tf.saved_model.save(root, str(tmp_path / "m"))
    saved_model_cli.scan_meta_graph_def(read_meta(tmp_path / "m"), saved_model_cli._OP_DENYLIST)
    assert name in capsys.readouterr().out
    if name != "PrintV2":  # modelscan does not know that it can write a file
        issues = ModelScan().scan(tmp_path / "m")["issues"]
        assert [name in issue["description"] for issue in issues] == [True]
    with pytest.raises(DeniedOperationError, match=rf"\b{name}\b"):
        savedmodel.read(tmp_path / "m")


def test_what_is_read_has_no_issues_for_the_scanners(tiny_savedmodel, capsys):
    savedmodel.check_saved_model(Path(tiny_savedmodel))
    saved_model_cli.scan_meta_graph_def(read_meta(tiny_savedmodel), saved_model_cli._OP_DENYLIST)
    assert "does not contain" in capsys.readouterr().out
    assert ModelScan().scan(Path(tiny_savedmodel))["issues"] == []


# --- damage ---


def change_gradient(meta: MetaGraphDef) -> None:
    """Give the gradient of the call other arguments than the call has."""
    node = next(n for n in function_with(meta, "__inference_call").node_def if n.op == "IdentityN")
    node.attr["_gradient_op_type"].s = b"CustomGradient-0"
    slope = function_with(meta, "internal_grad_fn").signature
    slope.input_arg.add(name="more", type=types_pb2.DT_FLOAT)


def enlarge_constant(meta: MetaGraphDef) -> None:
    nodes = function_with(meta, "__inference_call").node_def
    tensor = next(n for n in nodes if n.op == "Const").attr["value"].tensor
    tensor.tensor_shape.dim.add(size=40_000)
    tensor.tensor_shape.dim.add(size=40_000)


def forget_branch(meta: MetaGraphDef) -> None:
    library = meta.graph_def.library
    library.function.remove(function_with(meta, "cond_true"))


def bind_to_nothing(meta: MetaGraphDef) -> None:
    name = function_with(meta, "__inference_call").signature.name
    meta.object_graph_def.concrete_functions[name].bound_inputs.append(10**6)


def call_itself(meta: MetaGraphDef) -> None:
    function = function_with(meta, "__inference_call")
    function.node_def.add(name="again", op=function.signature.name)


@pytest.mark.long
@pytest.mark.parametrize(
    "change", [change_gradient, enlarge_constant, forget_branch, bind_to_nothing, call_itself]
)
def test_a_damaged_graph_is_an_error_with_the_folders_name(change, network, tmp_path):
    folder = a_copy(str(network), tmp_path)
    assert savedmodel.read(folder).features == 4
    meta = read_meta(folder)
    change(meta)
    with pytest.raises(SavedModelError, match=str(folder)):
        savedmodel.read(write_meta(folder, meta))


@pytest.mark.long
def test_two_networks_with_branches_of_their_own_live_in_one_process(tmp_path):
    networks = [
        Backbone(str(save_branching(tmp_path / branch.__name__, branch)), trainable=False)
        for branch in (tf.sin, tf.cos)
    ]
    answers = [float(network(tf.ones((1, 4, 4, 3)))[0, 0]) for network in networks]
    np.testing.assert_allclose(answers, [np.sin(3.0), np.cos(3.0)], rtol=1e-5)


# --- assets ---


def test_a_table_may_be_filled_from_an_asset_inside_the_folder(model):
    savedmodel.check_saved_model(model)


@pytest.mark.parametrize(
    "name", ["../saved_model.pb", "/etc/passwd", "a/../../x", "..\\x", "C:/x", "file:///etc/passwd"]
)
def test_an_asset_outside_the_folder_is_refused(name, model, tmp_path):
    folder = a_copy(str(model), tmp_path)
    meta = read_meta(folder)
    meta.asset_file_def[0].filename = name
    with pytest.raises(DeniedOperationError, match="asset"):
        savedmodel.check_saved_model(write_meta(folder, meta))


def test_an_asset_that_is_a_link_out_of_the_folder_is_refused(model, tmp_path):
    folder = a_copy(str(model), tmp_path)
    (folder / "assets" / "words.txt").unlink()
    (folder / "assets" / "words.txt").symlink_to("/etc/passwd")
    with pytest.raises(DeniedOperationError, match=r"words\.txt"):
        savedmodel.check_saved_model(folder)


def change_file_to_constant(meta: MetaGraphDef) -> None:
    function = function_with(meta, "__inference__initializer")
    constant = NodeDef(name="file", op="Const")
    constant.attr["dtype"].type = types_pb2.DT_STRING
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    function.node_def.append(constant)
    node = next(node for node in function.node_def if node.op in FROM_ASSET)
    node.input[1] = "file:output:0"


def bind_file_to_other_object(meta: MetaGraphDef) -> None:
    name = function_with(meta, "__inference__initializer").signature.name
    meta.object_graph_def.concrete_functions[name].bound_inputs[0] = 0


def leave_file_unbound(meta: MetaGraphDef) -> None:
    name = function_with(meta, "__inference__initializer").signature.name
    del meta.object_graph_def.concrete_functions[name].bound_inputs[0]


def forget_function(meta: MetaGraphDef) -> None:
    del meta.object_graph_def.concrete_functions[
        function_with(meta, "__inference__initializer").signature.name
    ]


def call_from_elsewhere(meta: MetaGraphDef) -> None:
    name = function_with(meta, "__inference__initializer").signature.name
    put_into("__inference_call")(meta, NodeDef(name="hidden", op=name))


@pytest.mark.parametrize(
    "change",
    [
        change_file_to_constant,
        bind_file_to_other_object,
        leave_file_unbound,
        forget_function,
        call_from_elsewhere,
    ],
)
def test_a_table_filled_from_any_other_file_is_refused(change, model):
    meta = read_meta(model)
    change(meta)
    assert refused_in(meta, model) == {"InitializeTableFromTextFileV2"}
