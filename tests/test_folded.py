"""BatchNorm in inference mode as a part of the convolution before it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from savedmodels import save_reusable

from tfxfer import savedmodel
from tfxfer.savedmodel.folded import fold_batch_norms

SHAPES = {"convolution": (3, 3, 3, 6), "depthwise": (3, 3, 3, 2)}
WIDTH = 6


def network(kind: str, norm: str, folder) -> savedmodel.Pretrained:
    """A convolution, a BatchNorm as older SavedModels have it, and what `norm` adds to them."""
    rng, root = np.random.default_rng(0), tf.train.Checkpoint()

    def vector(name: str, low: float = -1.0) -> tf.Variable:
        return tf.Variable(rng.uniform(low, 1, WIDTH).astype(np.float32), name=name)

    root.filters = tf.Variable(rng.normal(size=SHAPES[kind]).astype(np.float32), name="filters")
    root.scale, root.offset = vector("scale"), vector("offset")
    root.mean, root.variance = vector("mean"), vector("variance", 0.1)
    root.trainable_variables = [root.filters, root.scale, root.offset]

    @tf.function(input_signature=[tf.TensorSpec((None, 9, 9, 3), tf.float32)])
    def call(x):
        y = (
            tf.nn.conv2d(x, root.filters, 2, "VALID")
            if kind == "convolution"
            else tf.nn.depthwise_conv2d(x, root.filters, [1, 1, 1, 1], "SAME")
        )
        z, mean, _ = tf.compat.v1.nn.fused_batch_norm(
            y,
            root.scale,
            root.offset,
            root.mean,
            root.variance,
            epsilon=0.02,
            is_training=False,
        )
        features = tf.reduce_mean(tf.nn.relu6(z), [1, 2])
        if norm == "shared":
            return features + tf.reduce_mean(y, [1, 2])
        return features + mean if norm == "moments" else features

    root.__call__ = call
    tf.saved_model.save(root, str(folder))
    return savedmodel.read(str(folder))


def of_keras(axis: int, folder) -> savedmodel.Pretrained:
    """Three convolutions, each with a BatchNorm as Keras 3 writes it out. The last has a bias."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((9, 9, 3))
    for layer in (
        keras.layers.Conv2D(WIDTH, 3, use_bias=False),
        keras.layers.DepthwiseConv2D(3, use_bias=False),
        keras.layers.Conv2D(WIDTH, 3, bias_initializer="random_normal"),
    ):
        norm = keras.layers.BatchNormalization(
            axis=axis, moving_mean_initializer="random_normal", gamma_initializer="random_normal"
        )
        x = keras.layers.ReLU(6)(norm(layer(x)))
    return savedmodel.read(
        save_reusable(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), folder)
    )


def taken_in(graph: savedmodel.PureGraph, *fetched: str) -> int:
    """How many BatchNorms are a part of a convolution."""
    nodes = fold_batch_norms(graph.graph, [graph.output, *fetched]).node
    return sum(node.name.endswith("/taken_in/filter") for node in nodes)


def check(pretrained: savedmodel.Pretrained, folder) -> None:
    """Outputs and gradients are those of the object that TensorFlow loads."""
    original, graph = tf.saved_model.load(str(folder)), pretrained.inference
    x = tf.constant(np.random.default_rng(1).random((4, 9, 9, 3), dtype=np.float32))
    theirs = list(original.trainable_variables)
    with tf.GradientTape() as tape:
        expected = original(x)
        loss = tf.reduce_sum(expected**2)
    gradients = tape.gradient(loss, theirs)
    largest = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in gradients)
    assert largest > 0
    values = {i: tf.constant(pretrained.weights[i].value) for i in graph.weights}
    for fast in (False, True):
        call = savedmodel.function(
            graph, pretrained.weights, pretrained.input_shape, fold=True, fast=fast
        )
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = call(x, *values.values())[0]
            loss = tf.reduce_sum(output**2)
        named = {pretrained.weights[i].name: g for i, g in tape.gradient(loss, values).items()}
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
        for variable, gradient in zip(theirs, gradients, strict=True):
            mine = named.pop(variable.name.split(":")[0].replace("/", "."))
            np.testing.assert_allclose(mine, gradient, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.long
@pytest.mark.parametrize("kind", SHAPES)
def test_outputs_and_gradients_stay_the_same(kind, tmp_path):
    pretrained = network(kind, "inference", tmp_path / "model")
    assert taken_in(pretrained.inference) == 1
    check(pretrained, tmp_path / "model")


@pytest.mark.long
@pytest.mark.parametrize("axis", [-1, 3])
def test_so_do_those_of_networks_that_keras_saves(axis, tmp_path):
    pretrained = of_keras(axis, tmp_path / "model")
    assert taken_in(pretrained.inference) == 3
    check(pretrained, tmp_path / "model")


@pytest.mark.long
@pytest.mark.parametrize("norm", ["shared", "moments"])
def test_what_something_else_reads_is_not_folded(norm, tmp_path):
    graph = network("convolution", norm, tmp_path / "model").inference
    assert taken_in(graph) == 0


def test_a_batch_norm_with_statistics_of_the_batch_is_not_folded():
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 9, 9, 3), name="pixels")
        y = tf.nn.conv2d(x, tf.ones((1, 1, 3, 3)), 1, "SAME")
        ones = tf.ones(3)
        z = tf.compat.v1.nn.fused_batch_norm(y, ones, ones, is_training=True)[0]
        tf.identity(z, name="output")
    read = graph.as_graph_def()
    found = fold_batch_norms(read, ["output:0"])
    assert [node.op for node in found.node] == [node.op for node in read.node]


def test_a_convolution_that_is_asked_for_is_not_folded(tmp_path):
    graph = network("convolution", "inference", tmp_path / "model").inference
    (convolution,) = [node.name for node in graph.graph.node if node.op == "Conv2D"]
    assert taken_in(graph, f"{convolution}:0") == 0


@pytest.mark.parametrize("before", ["relu", "pixels"])
def test_a_graph_without_anything_to_fold_stays_the_same(before):
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 9, 9, 3), name="pixels")
        y = tf.nn.relu(tf.nn.conv2d(x, tf.ones((1, 1, 3, 3)), 1, "SAME")) if before == "relu" else x
        ones = tf.ones(3)
        z = tf.compat.v1.nn.fused_batch_norm(y, ones, ones, ones, ones, is_training=False)[0]
        tf.nn.conv2d(z, tf.ones((1, 1, 3, 3)), 1, "SAME", name="output")
    read = graph.as_graph_def()
    kept = read.SerializeToString(deterministic=True)
    found = fold_batch_norms(read, ["output:0"])
    assert [node.op for node in found.node] == [node.op for node in read.node]
    assert read.SerializeToString(deterministic=True) == kept
