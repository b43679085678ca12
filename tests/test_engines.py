"""Engines: the same features as the layer, whatever the batch."""

import keras
import numpy as np
import openvino
import pytest
import tensorflow as tf

from tfxfer import serving
from tfxfer.backbone import Backbone, Prefix
from tfxfer.errors import EngineError
from tfxfer.features.engines import (
    ENGINES,
    fold_batch_norm,
    needed,
    openvino_engine,
    tensorflow_engine,
)
from tfxfer.inputs.image import ImageInput


@pytest.fixture(scope="module")
def backbone(tiny_savedmodel) -> Backbone:
    return Backbone(tiny_savedmodel, trainable=False, taps=3)


@pytest.fixture(scope="module")
def prefix(backbone) -> Prefix:
    return backbone.prefix(3)


def images(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).random((n, size, size, 3), np.float32)


def close(one, other) -> bool:
    return float(np.abs(one - other).max()) < 2e-5 * float(np.abs(other).max())


@pytest.mark.long
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_engine_agrees_with_the_layer(engine, backbone, prefix):
    x = images(19)
    found = ENGINES[engine](prefix, "float32")(x)
    assert found.shape == (19, prefix.width) and found.dtype == np.float32
    assert close(found, backbone(x).numpy())


@pytest.mark.long
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_image_gets_the_same_bytes_wherever_it_stands(engine, prefix):
    run, x, order = (
        ENGINES[engine](prefix, "float32"),
        images(16),
        np.random.default_rng(1).permutation(16),
    )
    alone = np.zeros_like(x)
    alone[11] = x[11]
    found = run(x)
    assert run(x[order]).tobytes() == found[order].tobytes()
    assert run(alone)[11].tobytes() == found[11].tobytes()
    assert run(x).tobytes() == found.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_what_an_engine_returned_is_not_overwritten(engine, prefix):
    run = ENGINES[engine](prefix, "float32")
    first = run(images(4))
    kept = first.copy()
    run(1 - images(4))
    np.testing.assert_array_equal(first, kept)


def test_what_the_features_do_not_need_is_left_out(prefix):
    assert [node.op for node in needed(prefix).node].count("Placeholder") == 1


def normalised(kind: str) -> Prefix:
    """A convolution and a BatchNorm in inference mode, as older SavedModels have it."""
    rng, graph = np.random.default_rng(0), tf.Graph()
    width = 6 if kind == "depthwise" else 5

    def vector(low: float = -1.0) -> np.ndarray:
        return rng.uniform(low, 1, width).astype(np.float32)

    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3), name="pixels")
        if kind == "depthwise":
            y = tf.nn.depthwise_conv2d(
                x, rng.normal(size=(3, 3, 3, 2)).astype(np.float32), [1, 1, 1, 1], "SAME"
            )
        else:
            y = tf.nn.conv2d(x, rng.normal(size=(3, 3, 3, width)).astype(np.float32), 1, "SAME")
        if kind == "bias":
            y = tf.nn.bias_add(y, vector())
        scale = x[0, 0, 0, :1] * np.ones(width, np.float32) if kind == "computed" else vector()
        z = tf.compat.v1.nn.fused_batch_norm(
            y, scale, vector(), vector(), vector(0.1), epsilon=0.02, is_training=False
        )[0]
        tf.reduce_mean(
            tf.nn.relu6(z) + y if kind == "shared" else tf.nn.relu6(z), [1, 2], name="features"
        )
    return Prefix(
        graph=graph.as_graph_def(),
        input="pixels:0",
        output="features:0",
        takes=ImageInput((16, 16)),
        width=width,
        feature_size=width,
        tap_widths=(),
        fingerprint=kind,
    )


@pytest.mark.parametrize(
    ("kind", "left"), [("plain", 0), ("bias", 0), ("depthwise", 0), ("shared", 1), ("computed", 1)]
)
def test_batch_norm_is_folded_where_that_is_right(kind, left):
    """It isn't where something else reads the convolution, or where the scale is no constant."""
    prefix, x = normalised(kind), images(3, 16)
    assert (
        sum(node.op.startswith("FusedBatchNorm") for node in fold_batch_norm(needed(prefix)).node)
        == left
    )
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        expected = session.run(
            tf.graph_util.import_graph_def(prefix.graph, return_elements=["features:0"], name=""),
            {"pixels:0": x},
        )[0]
    assert close(tensorflow_engine(prefix)(x), expected)


@pytest.mark.long
def test_bf16_deviates_a_little(prefix):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="this CPU can't compute in bf16"):
            openvino_engine(prefix, "bf16")
        return
    found = openvino_engine(prefix, "bf16")(images(8))
    full = openvino_engine(prefix)(images(8))
    assert 0 < np.abs(found - full).mean() < 0.1 * np.abs(full).mean()


def test_bf16_with_tensorflow_says_why_not(prefix):
    with pytest.raises(
        EngineError,
        match=(
            "supports float32 only, received bf16 .*not faster on a CPU.*Try --engine openvino "
            "--engine-precision bf16"
        ),
    ):
        tensorflow_engine(prefix, "bf16")


@pytest.mark.long
def test_openvino_names_what_it_can_not_take(prefix):
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 32, 32, 3), name="pixels")
        tf.identity(
            tf.raw_ops.MatrixLogarithm(input=tf.cast(x[:, :3, :3, 0], tf.complex64)),
            name="features",
        )
    odd = Prefix(
        graph=graph.as_graph_def(),
        input="pixels:0",
        output="features:0",
        takes=ImageInput((32, 32)),
        width=9,
        feature_size=9,
        tap_widths=(),
        fingerprint="odd",
    )
    with pytest.raises(
        EngineError, match=r"OpenVINO can't take this backbone: .*Use --engine tensorflow"
    ):
        openvino_engine(odd)


def loops(way: str) -> tf.Module:
    """A network with a loop or a branch, as a SavedModel holds it."""
    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32))

    def convolved(x):
        return tf.nn.relu(tf.nn.conv2d(x, module.w, 2, "SAME"))

    def call(x):
        if way == "map_fn":
            maps = convolved(tf.map_fn(tf.image.per_image_standardization, x))
        elif way == "while_loop":
            _, maps = tf.while_loop(
                lambda i, _: i < 3, lambda i, maps: (i + 1, maps * 1.1), (0, convolved(x))
            )
        elif way == "cond":
            maps = tf.cond(
                tf.reduce_mean(module.w) > -1, lambda: convolved(x), lambda: 2 * convolved(x)
            )
        else:
            maps = convolved(x)
            branches = [lambda: maps, lambda: 2 * maps, lambda: 3 * maps]
            maps = tf.switch_case(tf.cast(tf.reduce_mean(x), tf.int32), branches)
        return tf.reduce_mean(maps, [1, 2])

    spec = tf.TensorSpec((None, 32, 32, 3))
    module.__call__ = tf.function(call, input_signature=[spec])
    return module


@pytest.mark.parametrize("way", ["map_fn", "while_loop", "cond", "switch_case"])
def test_networks_with_loops_and_branches(way, tmp_path):
    module, x = loops(way), images(5)
    tf.saved_model.save(module, str(tmp_path / "network"))
    layer, expected = Backbone(tmp_path / "network", trainable=False), module.__call__(x)
    np.testing.assert_allclose(tensorflow_engine(layer.prefix())(x), expected, rtol=1e-4)
    stages = len(layer.stages)
    tapped = tensorflow_engine(layer.prefix(stages))(x)
    assert tapped.shape == (5, sum(layer.prefix(stages).tap_widths))
    model = keras.Sequential([keras.Input((32, 32, 3)), layer])
    model.save(tmp_path / "model.keras")
    again = serving.load_model(tmp_path / "model.keras")  # its operations are allowed ones
    np.testing.assert_allclose(again(x), expected, rtol=1e-4)
