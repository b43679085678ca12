"""BatchNorm in inference mode as a part of the convolution before it, where a network trains."""

import numpy as np
import pytest
import tensorflow as tf

from tfxfer import savedmodel
from tfxfer.savedmodel.folded import folded

SHAPES = {"convolution": (3, 3, 3, 6), "depthwise": (3, 3, 3, 2)}
WIDTH = 6


def network(kind: str, norm: str, folder) -> savedmodel.Pretrained:
    """A convolution, a BatchNorm as older SavedModels have it, and what `norm` adds to them."""
    rng, root = np.random.default_rng(0), tf.train.Checkpoint()

    def vector(low: float = -1.0) -> tf.Variable:
        return tf.Variable(rng.uniform(low, 1, WIDTH).astype(np.float32))

    root.filters = tf.Variable(rng.normal(size=SHAPES[kind]).astype(np.float32))
    root.scale, root.offset, root.mean, root.variance = vector(), vector(), vector(), vector(0.1)
    root.trainable_variables = [root.filters, root.scale, root.offset]

    @tf.function(input_signature=[tf.TensorSpec((None, 9, 9, 3), tf.float32)])
    def call(x):
        y = (
            tf.nn.conv2d(x, root.filters, 2, "VALID")
            if kind == "convolution"
            else tf.nn.depthwise_conv2d(x, root.filters, [1, 1, 1, 1], "SAME")
        )
        own = norm == "training"
        z, mean, _ = tf.compat.v1.nn.fused_batch_norm(
            y,
            root.scale,
            root.offset,
            None if own else root.mean,
            None if own else root.variance,
            epsilon=0.02,
            is_training=own,
        )
        features = tf.reduce_mean(tf.nn.relu6(z), [1, 2])
        if norm == "shared":
            return features + tf.reduce_mean(y, [1, 2])
        return features + mean if norm == "moments" else features

    root.__call__ = call
    tf.saved_model.save(root, str(folder))
    return savedmodel.read(str(folder))


def norms(graph) -> int:
    return sum(node.op == "FusedBatchNormV3" for node in graph.node)


def outputs_and_gradients(pretrained, fast: bool) -> list[tf.Tensor]:
    graph = pretrained.inference
    function = savedmodel.function(graph, pretrained.weights, pretrained.input_shape, fast=fast)
    x = tf.constant(np.random.default_rng(1).random((4, 9, 9, 3), dtype=np.float32))
    weights = [tf.constant(pretrained.weights[i].value) for i in graph.weights]
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        output = function(x, *weights)[0]
        loss = tf.reduce_sum(output**2)
    return [output, *tape.gradient(loss, [x, *weights])]


@pytest.mark.parametrize("kind", SHAPES)
def test_outputs_and_gradients_stay_the_same(kind, tmp_path):
    pretrained = network(kind, "inference", tmp_path / "model")
    graph = pretrained.inference
    assert (norms(graph.graph), norms(folded(graph.graph, [graph.output]))) == (1, 0)
    slow, quick = (outputs_and_gradients(pretrained, fast) for fast in (False, True))
    numbers = [weight.trainable for weight in pretrained.weights]
    assert [gradient is not None for gradient in quick[2:]] == numbers
    assert sum(numbers) == 3  # the mean and the variance have no gradient
    for before, after in zip(slow, quick, strict=True):
        if before is None:
            assert after is None
            continue
        bound = 1e-6 * float(tf.reduce_max(tf.abs(before)))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("norm", ["training", "shared", "moments"])
def test_what_something_else_reads_is_not_folded(norm, tmp_path):
    """Nor is a BatchNorm that computes its statistics from the batch."""
    graph = network("convolution", norm, tmp_path / "model").inference
    assert norms(folded(graph.graph, [graph.output])) == norms(graph.graph) == 1


def test_a_convolution_that_is_asked_for_is_not_folded(tmp_path):
    graph = network("convolution", "inference", tmp_path / "model").inference
    (convolution,) = [node.name for node in graph.graph.node if node.op == "Conv2D"]
    assert norms(folded(graph.graph, [f"{convolution}:0", graph.output])) == 1
