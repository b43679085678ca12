"""A model.keras that a stranger made.

What it would read, run or take is refused without --trust.
"""

import base64
import io
import json
import os
import stat
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from runs import CLASSES, SIZE, write_run
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer import heads, savedmodel, serving
from tfxfer.backbone import Backbone
from tfxfer.distribute import parcel
from tfxfer.errors import TfxferError
from tfxfer.run import listed
from tfxfer.savedmodel.kept import digest_of

WEIGHTS = "model.weights.h5"
OLD = Path(__file__).parent / "old" / "backbone-format-1.keras"
DOES = {
    "os.exec",
    "os.posix_spawn",
    "os.system",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
}
heard: list[tuple[str, Any]] | None = None


def listen(event: str, arguments: tuple) -> None:
    if heard is not None and (event in DOES or event == "open"):
        heard.append((event, arguments[0]))


sys.addaudithook(listen)


@pytest.fixture(scope="module")
def honest(tiny_savedmodel, tmp_path_factory) -> dict[str, bytes]:
    """The members of an honest file."""
    path = tmp_path_factory.mktemp("honest") / "model.keras"
    network = Backbone(tiny_savedmodel, trainable=False)
    heads.join(network, keras.layers.Dense(len(CLASSES)), (*SIZE, 3)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file of the person's, which no model may read."""
    (tmp_path / "secret.txt").write_text("one\ntwo\n")
    return tmp_path / "secret.txt"


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refused(path: Path, secret: Path, open_it=serving.load_model) -> str:
    """The error with which a file is refused; nothing is run, and the secret is not opened."""
    global heard
    before = sorted(os.listdir(secret.parent))
    heard = []
    try:
        with pytest.raises(TfxferError) as error:
            open_it(path)
    finally:
        events, heard = heard, None
    assert not [event for event in events if event[0] in DOES]
    assert not [event for event in events if str(event[1]) == str(secret)]
    assert sorted(os.listdir(secret.parent)) == before
    return str(error.value)


# --- layers ---


def layer(name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": name, "config": config}


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


LAYERS = {
    "a SavedModel": lambda secret: layer("TFSMLayer", filepath=str(secret.parent)),
    "Python code": lambda secret: {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": keras.layers.Lambda(lambda x: x).get_config(),
    },
    "a class of os": lambda secret: {"module": "os", "class_name": "system", "config": {}},
    "a class of subprocess": lambda secret: {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", str(secret.parent / "written")]},
    },
    "an activation of os": lambda secret: layer(
        "Dense", units=3, activation=function("os", "system")
    ),
    "a download": lambda secret: {
        "module": "keras.utils",
        "class_name": "get_file",
        "config": {"fname": str(secret.parent / "written"), "origin": secret.as_uri()},
    },
    "an initializer that downloads": lambda secret: layer(
        "Dense",
        units=3,
        kernel_initializer={
            "module": "keras.utils",
            "class_name": "get_file",
            "config": {"fname": str(secret.parent / "written"), "origin": secret.as_uri()},
        },
    ),
    "another model": lambda secret: {
        "module": "keras.saving",
        "class_name": "load_model",
        "config": {"filepath": str(secret)},
    },
    "words of a file": lambda secret: layer("StringLookup", vocabulary=str(secret)),
    "numbers of a file": lambda secret: layer("IntegerLookup", vocabulary=str(secret)),
    "a vocabulary of a file": lambda secret: layer("TextVectorization", vocabulary=str(secret)),
    "very many units": lambda secret: layer("Dense", units=10**9),
    "very many rows": lambda secret: layer("Embedding", input_dim=10**9, output_dim=64),
    "a large answer": lambda secret: layer("RepeatVector", n=10**9),
    "very large images": lambda secret: layer("Resizing", height=10**6, width=10**6),
    "a large shape": lambda secret: layer("Reshape", target_shape=[10**6, 10**6]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_reads_runs_or_takes_too_much_is_refused(name, honest, secret, tmp_path):
    config = json.loads(honest["config.json"])
    last = config["config"]["layers"][-1]
    last |= {"registered_name": None, "build_config": None} | LAYERS[name](secret)
    last["config"] = {"name": last["name"], **last["config"]}
    members = honest | {"config.json": json.dumps(config).encode()}
    assert "model.keras" in refused(pack(tmp_path / "model.keras", members), secret)


DOWNLOADS = function("keras.applications.imagenet_utils", "decode_predictions")
LITERAL = {"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}
HUGE = {"class_name": "__numpy__", "config": {"value": "x", "dtype": "S2000000000"}}

# What is beside the network is built, too. The second value is a word that the error must hold.
BESIDE = {
    "a layer that calls a download": (layer("Lambda", function=DOWNLOADS), "decode_predictions"),
    "an activation that downloads": (
        layer("Activation", activation=DOWNLOADS),
        "decode_predictions",
    ),
    "an activation that reads": (
        layer("Activation", activation=function("keras.utils", "load_img")),
        "load_img",
    ),
    "a regularizer that draws": (
        layer("Dense", units=1, kernel_regularizer=function("keras.utils", "plot_model")),
        "plot_model",
    ),
    "a network with weights elsewhere": (
        {
            "module": "keras.applications.resnet50",
            "class_name": "ResNet50",
            "config": {"weights": "imagenet"},
        },
        "ResNet50",
    ),
    "a setting of Keras": (
        layer("Lambda", function=function("keras.config", "set_floatx")),
        "set_floatx",
    ),
    "a layer of Keras 2": ({"class_name": "Lambda", "config": {"function": DOWNLOADS}}, "Lambda"),
    "a layer of Torch": (layer("TorchModuleWrapper", module="gAR9lC4="), "TorchModuleWrapper"),
    "a layer of JAX": (layer("JaxLayer", call_fn=DOWNLOADS), "JaxLayer"),
    "a layer of another package": (
        {"module": "keras_hub.tokenizers", "class_name": "Tokenizer", "config": {}},
        "keras_hub.tokenizers.Tokenizer",
    ),
    "a layer under an inner name": (
        {
            "module": "keras.src.export.tfsm_layer",
            "class_name": "TFSMLayer",
            "config": {"filepath": "/"},
        },
        "TFSMLayer",
    ),
    "very many words": (
        layer("StringLookup", vocabulary=["a"], num_oov_indices=10**9),
        "StringLookup",
    ),
    "steps that are unrolled": (layer("LSTM", units=1, unroll=True), "unroll"),
    "a constant of one huge word": (layer("Rescaling", scale=HUGE), "S2000000000"),
    "a constant of text": (
        layer(
            "Rescaling",
            scale={"class_name": "__tensor__", "config": {"value": "x", "dtype": "string"}},
        ),
        "'string'",
    ),
    "a class of a function where it is built": (
        layer("Dense", units=1)
        | {
            "build_config": {"a": {"module": "keras.utils", "class_name": "get_file", "config": {}}}
        },
        "get_file",
    ),
    "a large shape where it is built": (
        layer("MultiHeadAttention", num_heads=1, key_dim=1)
        | {"build_config": {"shapes_dict": {"query_shape": [1, 10**5, 10**5]}}},
        "100000",
    ),
    "an optimizer of a layer": (
        layer("Sequential", layers=[])
        | {
            "module": "keras",
            "compile_config": {
                "optimizer": {"module": "keras.utils", "class_name": "get_file", "config": {}}
            },
        },
        "get_file",
    ),
}


def put_beside(config: dict[str, Any], extra: dict[str, Any], *calls: dict[str, Any]) -> None:
    """Add a layer that the network does not use."""
    config["config"]["layers"].append(
        {"registered_name": None, "build_config": None, "name": "extra", "inbound_nodes": [*calls]}
        | extra
        | {"config": {"name": "extra", **extra["config"]}}
    )


def with_config(honest: dict[str, bytes], config: Any) -> dict[str, bytes]:
    return honest | {"config.json": json.dumps(config).encode()}


@pytest.mark.parametrize("name", BESIDE)
def test_a_layer_beside_the_network_is_looked_at(name, honest, secret, tmp_path):
    config = json.loads(honest["config.json"])
    extra, word = BESIDE[name]
    put_beside(config, extra)
    text = refused(pack(tmp_path / "model.keras", with_config(honest, config)), secret)
    assert "model.keras" in text and word in text


def test_with_trust_a_layer_may_hold_words(honest, tmp_path):
    config = json.loads(honest["config.json"])
    put_beside(config, layer("StringLookup", vocabulary=["a"]))
    path = pack(tmp_path / "model.keras", with_config(honest, config))
    assert serving.load_model(path, trust=True).output_shape == (None, len(CLASSES))


SYMBOL = {
    "class_name": "__keras_tensor__",
    "config": {"shape": [None, 16], "dtype": "float32", "keras_history": ["backbone", 0, 0]},
}
CALLS = {
    "nothing": {"args": [], "kwargs": {}},
    "a constant": {"args": [LITERAL], "kwargs": {}},
    "a named constant": {"args": [], "kwargs": {"inputs": LITERAL}},
    "an output that is dropped": {"args": [LITERAL], "kwargs": {"training": SYMBOL}},
    "an output elsewhere": {"args": [LITERAL], "kwargs": {}, "more": SYMBOL},
    "an output in a constant": {
        "args": [{"class_name": "__tensor__", "config": LITERAL["config"] | {"more": SYMBOL}}],
        "kwargs": {},
    },
    "the format of Keras 2": [["pixels", 0, 0, {}]],
}


@pytest.mark.parametrize("name", CALLS)
def test_no_layer_is_called_while_a_file_is_opened(name, honest, secret, tmp_path):
    config = json.loads(honest["config.json"])
    put_beside(config, layer("RepeatVector", n=10**8), CALLS[name])
    text = refused(pack(tmp_path / "model.keras", with_config(honest, config)), secret)
    assert "'extra'" in text


def test_what_networks_of_images_are_made_of_is_loaded(tiny_savedmodel, tmp_path):
    inputs = keras.Input((*SIZE, 3))
    x = Backbone(tiny_savedmodel, trainable=False)(inputs)
    x = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)])(x)
    x = keras.layers.Dense(8, activation=keras.ops.relu, kernel_regularizer="l2")(x)
    x = keras.layers.Dense(
        8, activation=keras.layers.LeakyReLU(), bias_constraint=keras.constraints.NonNeg()
    )(x)
    x = keras.ops.reshape(x * np.float32(2) + np.ones(8, "float32"), (-1, 4, 2))
    x = keras.layers.MultiHeadAttention(1, 2)(query=x, value=x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(2))(x)
    x = keras.layers.Lambda(keras.ops.tanh, output_shape=(4,))(x)
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="mixed_float16")(x))
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(), ["accuracy"])
    model.save(tmp_path / "model.keras")
    loaded = serving.load_model(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).uniform(size=(2, *SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


# --- the network's own graphs ---


def change_kept(members: dict[str, bytes], change) -> dict[str, bytes]:
    """Change what lies beside the weights, with a digest in the config that fits.

    Args:
        change: the values of the network, as `savedmodel.keep` packs them, to others.
    """
    buffer = io.BytesIO(members[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        place = place_of_graphs(file)
        content = parcel.pack(change(parcel.unpack(zlib.decompress(file[place][()].tobytes()))))
        del file[place]
        file[place] = np.frombuffer(zlib.compress(content), np.uint8)
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["digest"] = digest_of(content)
    return with_config(members, config) | {WEIGHTS: buffer.getvalue()}


def place_of_graphs(file: h5py.File) -> str:
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.endswith(savedmodel.GRAPHS) else None)
    (place,) = found
    return place


def change_graph(members: dict[str, bytes], change, part: str) -> dict[str, bytes]:
    """Change a graph of the network."""

    def changed(values: dict[str, Any]) -> dict[str, Any]:
        graph = GraphDef.FromString(values[part]["graph"].tobytes())
        change(graph)
        return values | {part: values[part] | {"graph": as_bytes(graph)}}

    return change_kept(members, changed)


def as_bytes(graph: GraphDef) -> np.ndarray:
    return np.frombuffer(graph.SerializeToString(), np.uint8)


def change_graph_of_format_1(members: dict[str, bytes], change, part: str) -> dict[str, bytes]:
    """The same in a config as tfxfer 0.1 wrote it, which holds the graphs."""
    with zipfile.ZipFile(OLD) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read(WEIGHTS)
    graphs = config["config"]["layers"][1]["config"]["graphs"]
    graph = GraphDef.FromString(zlib.decompress(base64.b64decode(graphs[part]["graph"])))
    change(graph)
    graphs[part]["graph"] = base64.b64encode(zlib.compress(graph.SerializeToString())).decode()
    said = sorted((key, repr(value)) for key, value in graphs.items() if key != "digest")
    graphs["digest"] = digest_of(repr(said).encode())
    return with_config(members, config) | {WEIGHTS: weights}


def reading() -> GraphDef:
    graph = GraphDef()
    graph.node.add(name="hidden", op="ReadFile")
    return graph


def in_body(graph: GraphDef) -> None:
    graph.node.add(name="hidden", op="ReadFile")


def in_function(graph: GraphDef) -> None:
    added = graph.library.function.add()
    added.signature.name = "never_called"
    added.node_def.add(name="hidden", op="ReadFile")


def in_function_of_its_name(graph: GraphDef) -> None:
    graph.library.function.add().signature.name = "ReadFile"
    in_body(graph)


def in_constant(graph: GraphDef) -> None:
    text = graph.node.add(name="text", op="Const")
    text.attr["dtype"].type = text.attr["value"].tensor.dtype = types_pb2.DT_STRING
    text.attr["value"].tensor.string_val.append(reading().SerializeToString())
    graph.node.add(name="hidden", op="DatasetFromGraph", input=["text"])


def in_variant(graph: GraphDef) -> None:
    node = graph.node.add(name="hidden", op="Const")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = types_pb2.DT_VARIANT


def large_constant(graph: GraphDef) -> None:
    node = graph.node.add(name="hidden", op="Const")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = types_pb2.DT_FLOAT
    node.attr["value"].tensor.tensor_shape.dim.add(size=2**34)
    node.attr["value"].tensor.float_val.append(1.0)


GRAPHS = {
    in_body: "ReadFile",
    in_function: "ReadFile",
    in_function_of_its_name: "ReadFile",
    in_constant: "DatasetFromGraph",
    in_variant: "Const",
    large_constant: "64.0 GiB",
}


@pytest.mark.parametrize("where", [change_graph, change_graph_of_format_1])
@pytest.mark.parametrize("part", ["inference", "training"])
@pytest.mark.parametrize("change", GRAPHS)
def test_a_graph_of_the_network_that_does_more_than_compute_is_refused(
    change, part, where, honest, secret, tmp_path
):
    path = pack(tmp_path / "model.keras", where(honest, change, part))
    assert GRAPHS[change] in refused(path, secret)


# Keras goes on after the error, and warns of the places where it looks next.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("change", GRAPHS)
def test_keras_refuses_such_a_graph_too(change, honest, secret, tmp_path):
    path = pack(tmp_path / "model.keras", change_graph(honest, change, "inference"))

    def load(path: Path) -> None:
        try:
            keras.models.load_model(path)
        except Exception as error:
            raise TfxferError(str(error)) from error

    assert GRAPHS[change] in refused(path, secret, load)


KEPT = {
    "a zip bomb": (np.frombuffer(zlib.compress(bytes(2**28), 9), np.uint8), "unpacks to more"),
    "cut short": (np.frombuffer(zlib.compress(bytes(2**10))[:-1], np.uint8), "cut short"),
    "no bytes": (np.zeros(4, "float32"), "expected bytes"),
    "rows of bytes": (np.zeros((4, 4), "uint8"), "expected bytes"),
    "not compressed": (np.zeros(4, "uint8"), "damaged"),
    "no parcel": (np.frombuffer(zlib.compress(b"[]"), np.uint8), "damaged"),
    "another parcel": (np.frombuffer(zlib.compress(parcel.pack([1])), np.uint8), "damaged"),
    "a parcel of something else": (
        np.frombuffer(zlib.compress(parcel.pack({"inference": {"graph": "x"}})), np.uint8),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_graphs_that_are_none_are_refused(name, honest, secret, tmp_path):
    content, word = KEPT[name]
    buffer = io.BytesIO(honest[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        place = place_of_graphs(file)
        del file[place]
        file[place] = content
    members = honest | {WEIGHTS: buffer.getvalue()}
    assert word in refused(pack(tmp_path / "model.keras", members), secret)


CHANGES = {
    "no inference graph": lambda values: values | {"inference": None},
    "another width": lambda values: values | {"features": 17},
    "huge weights": lambda values: (
        values | {"weights": [[w[0], [10**6, 10**6], *w[2:]] for w in values["weights"]]}
    ),
    "weights of text": lambda values: (
        values | {"weights": [[w[0], w[1], "S9", w[3]] for w in values["weights"]]}
    ),
    "no graph": lambda values: (
        values | {"inference": values["inference"] | {"graph": np.frombuffer(b"x" * 9, np.uint8)}}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_network_that_is_none_is_refused(name, honest, secret, tmp_path):
    refused(pack(tmp_path / "model.keras", change_kept(honest, CHANGES[name])), secret)


OUTLINES = {
    "a zip bomb": base64.b64encode(zlib.compress(bytes(2**28), 9)).decode(),
    "no base64": "*",
    "a number": 1,
    "nested": base64.b64encode(
        zlib.compress((10**5).to_bytes(8, "little") + b"[" * 10**5)
    ).decode(),
    "huge weights": base64.b64encode(
        zlib.compress(
            parcel.pack(
                [["w"], [[10**6, 10**6]], ["float32"], [True], [0], ["s"], [32, 32, 3], 16, ""]
            )
        )
    ).decode(),
}


@pytest.mark.parametrize("name", OUTLINES)
def test_an_outline_that_is_none_is_refused(name, honest, secret, tmp_path):
    config = json.loads(honest["config.json"])
    config["config"]["layers"][1]["config"] |= {"outline": OUTLINES[name], "digest": "0" * 64}
    refused(pack(tmp_path / "model.keras", with_config(honest, config)), secret)


def test_graphs_elsewhere_in_the_weights_are_looked_at(honest, secret, tmp_path):
    hidden = change_graph(honest, in_body, "inference")[WEIGHTS]
    buffer = io.BytesIO(honest[WEIGHTS])
    with h5py.File(buffer, "r+") as file, h5py.File(io.BytesIO(hidden)) as other:
        file[f"elsewhere/{savedmodel.GRAPHS}"] = other[place_of_graphs(other)][()]
    members = honest | {WEIGHTS: buffer.getvalue()}
    assert "ReadFile" in refused(pack(tmp_path / "model.keras", members), secret)


# --- a whole run folder ---


@pytest.fixture(scope="module")
def strangers_run(tiny_savedmodel, tmp_path_factory) -> Path:
    """A run of which only the model was changed, with a manifest that fits."""
    folder = tmp_path_factory.mktemp("stranger") / "run"
    network = Backbone(tiny_savedmodel, trainable=False)
    write_run(folder, heads.join(network, keras.layers.Dense(len(CLASSES)), (*SIZE, 3)))
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    put_beside(config, layer("Lambda", function=DOWNLOADS))
    pack(folder / "model.keras", with_config(members, config))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model.keras"] = listed(folder / "model.keras")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "signature").unlink(missing_ok=True)
    return folder


WAYS = {
    "open": lambda run, target: serving.open_model(run),
    "predict": lambda run, target: serving.predict(run, [run / "labels.txt"]),
    "export": lambda run, target: serving.export(run, target),
    "export reusable": lambda run, target: serving.export_reusable(run, target),
    "export litert": lambda run, target: serving.export_litert(run, target),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_open_a_strangers_run_looks_at_its_model(way, strangers_run, secret, tmp_path):
    (tmp_path / "target").mkdir()
    text = refused(strangers_run, secret, lambda run: WAYS[way](run, tmp_path / "target"))
    assert "model.keras" in text and "decode_predictions" in text


def test_how_a_model_was_compiled_is_not_looked_at(honest, secret, tmp_path):
    config = json.loads(honest["config.json"])
    config["compile_config"] = {
        "optimizer": {"module": "os", "class_name": "system", "config": {"command": "false"}},
        "loss": function("os", "system"),
    }
    members = honest | {"config.json": json.dumps(config).encode()}
    model = serving.load_model(pack(tmp_path / "model.keras", members))
    assert not model.compiled


CONFIGS = {
    "nested": b"[" * 100_000,
    "zeros": bytes(100 * 1024**2),
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "empty": b"{}",
    "no layers": b'{"module": "keras", "class_name": "Functional", "config": {}}',
    "no model": b'{"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_none_is_refused(name, honest, secret, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in (honest | {"config.json": CONFIGS[name]}).items():
            archive.writestr(member, content)
    (tmp_path / "model.keras").write_bytes(buffer.getvalue())
    assert "model.keras" in refused(tmp_path / "model.keras", secret)


# --- weights ---


def external_link(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(str(secret), "/x")


def soft_link(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.SoftLink("/nowhere")


def external_storage(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file.create_dataset(name, (2,), "f4", external=[(str(secret), 0, 8)])


def virtual(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(2,))
    file.create_virtual_dataset(name, layout)


def packed_zeros(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file.create_dataset(name, data=np.zeros((2000, 2000), "f4"), compression="gzip")


def never_written(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file.create_dataset(name, (40_000, 40_000), "f4")


@pytest.mark.parametrize(
    "change",
    [external_link, soft_link, external_storage, virtual, packed_zeros, never_written],
)
def test_weights_that_are_not_in_the_file_are_refused(change, honest, secret, tmp_path):
    buffer = io.BytesIO(honest[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if name.endswith("/0") else None)
        change(file, found[0], secret)
    members = honest | {WEIGHTS: buffer.getvalue()}
    assert WEIGHTS in refused(pack(tmp_path / "model.keras", members), secret)


# --- the archive ---


@pytest.mark.parametrize("name", ["../written", "/written", "more.py", "assets/../../written"])
def test_a_member_that_keras_does_not_write_is_refused(name, honest, secret, tmp_path):
    path = pack(tmp_path / "model.keras", honest | {name: b"x"})
    refused(path, secret)
    assert not (tmp_path / "written").exists()


def test_a_member_that_stands_twice_is_refused(honest, secret, tmp_path):
    path = pack(tmp_path / "model.keras", honest)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", honest["config.json"])
    refused(path, secret)


def test_a_link_in_an_archive_is_not_followed(honest, secret, tmp_path):
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = pack(tmp_path / "model.keras", honest)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(secret))
    assert "assets/link" in refused(path, secret)


def test_a_pipe_in_the_place_of_a_model_is_refused(secret, tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    assert "pipe" in refused(tmp_path / "model.keras", secret)
