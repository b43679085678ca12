"""A model.keras that a stranger made: what it would read, run or take is refused without --trust."""

import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from runs import CLASSES, SIZE

from tfxfer import heads, serving
from tfxfer.backbone import Backbone
from tfxfer.errors import TfxferError

WEIGHTS = "model.weights.h5"
DOES = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
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
    heads.join(network, keras.layers.Dense(len(CLASSES)), SIZE).save(path)
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


def refused(path: Path, secret: Path) -> str:
    """The error with which a file is refused; nothing is run, and the secret is not opened."""
    global heard
    before = sorted(os.listdir(secret.parent))
    heard = []
    try:
        with pytest.raises(TfxferError) as error:
            serving.load_model(path)
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
