"""Heads: every one passes the same tests.

Joined with a backbone, each is an ordinary Keras model.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxfer import heads
from tfxfer.heads import gaussian, linear, prototype, ridge, threads
from tfxfer.heads.layers import (
    MLP,
    Cosine,
    Flip,
    Standardisation,
    TakeColumns,
    TapNormalization,
    join,
)

WIDTHS, CLASSES = (4, 6, 8), 3


def examples(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 18] of three classes that overlap a little, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % CLASSES
    return np.maximum(
        rng.normal(0.5, 1, (CLASSES, sum(WIDTHS)))[labels] + rng.normal(0, 0.7, (n, sum(WIDTHS))), 0
    ).astype(np.float32), labels


def fitted(fit) -> keras.layers.Layer:
    """The layer of a head that was fitted."""
    features, labels = examples()
    return fit(features, labels, CLASSES, WIDTHS).layer()


HEADS = {
    "MLP": lambda: MLP(CLASSES, hidden=8),
    "Cosine": lambda: Cosine(CLASSES, scale=4.0),
    "gaussian": lambda: fitted(gaussian),
    "linear": lambda: fitted(linear),
    "ridge": lambda: fitted(ridge),
    "prototype": lambda: fitted(prototype),
    "a layer of one's own": lambda: keras.layers.Dense(CLASSES),
}


def check_head(head: keras.layers.Layer, folder) -> None:
    """Check all that a head needs to be one.

    That is build, shape, gradient, config, `.keras` in safe mode and export.
    """
    x, _ = examples(12)
    assert head.compute_output_shape((None, x.shape[1])) == (None, CLASSES)
    model = keras.Sequential([keras.Input((x.shape[1],)), head])
    logits = model(x, training=False).numpy()
    assert (
        logits.shape == (12, CLASSES) and logits.dtype == np.float32 and np.isfinite(logits).all()
    )

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert gradients and all(np.isfinite(gradient).all() for gradient in gradients)

    again = head.__class__.from_config(head.get_config())
    assert again.compute_output_shape((None, x.shape[1])) == (None, CLASSES)
    assert again.get_config() == head.get_config()

    model.save(folder / "head.keras")
    loaded = keras.models.load_model(folder / "head.keras", safe_mode=True)
    logits = model(x, training=False).numpy()
    np.testing.assert_array_equal(loaded(x, training=False).numpy(), logits)

    model.export(folder / "export", verbose=False)
    # A name has to hold it, or its variables are gone before it is called.
    exported = tf.saved_model.load(str(folder / "export"))
    np.testing.assert_allclose(exported.serve(x).numpy(), logits, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", HEADS)
def test_a_head_builds_learns_saves_and_exports(name, tmp_path):
    check_head(HEADS[name](), tmp_path)


def test_each_tap_has_length_one_and_a_tap_of_zeros_stays_zero():
    out = TapNormalization([2, 1, 2])(np.array([[3.0, 4.0, -7.0, 0.0, 0.0]], np.float32)).numpy()
    np.testing.assert_allclose(out, [[0.6, 0.8, -1.0, 0.0, 0.0]], atol=1e-6)


def test_tap_normalization_says_how_many_columns_it_expects():
    with pytest.raises(
        ValueError, match=r"expected 5 columns, the sum of widths=\(2, 3\). Received: 4 columns"
    ):
        TapNormalization([2, 3])(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("widths", [[], [3, 0]])
def test_tap_normalization_refuses_widths_that_are_none(widths):
    with pytest.raises(ValueError, match=r"one positive width a tap. Received: widths="):
        TapNormalization(widths)


@pytest.mark.parametrize("make", [MLP, Cosine])
def test_a_head_of_one_class_is_refused(make):
    with pytest.raises(ValueError, match=r"expected classes >= 2.*Received: classes=1"):
        make(1)


def test_a_cosine_does_not_depend_on_the_length_of_the_features():
    head, (x, _) = Cosine(CLASSES), examples()
    np.testing.assert_allclose(head(x).numpy(), head(10 * x).numpy(), atol=1e-4)
    assert np.abs(head(x).numpy()).max() <= 16.001


def test_standardisation_is_not_changed_by_training():
    assert Standardisation().trainable_variables == []
    layer = Standardisation()
    layer.build((None, 2))
    assert layer.trainable_variables == []
    layer.set_weights([np.array([1.0, 2.0]), np.array([2.0, 4.0])])
    np.testing.assert_allclose(layer(np.array([[3.0, 10.0]], np.float32)).numpy(), [[1.0, 2.0]])


class Columns(keras.layers.Layer):
    """A backbone for tests: the mean colour of the left and of the right half."""

    def call(self, x):
        half = x.shape[2] // 2
        return tf.concat(
            [tf.reduce_mean(x[:, :, :half], [1, 2]), tf.reduce_mean(x[:, :, half:], [1, 2])], -1
        )

    def compute_output_shape(self, shape):
        return (shape[0], 6)


def test_joined_the_model_goes_from_pixels_to_logits():
    head = keras.layers.Dense(2)
    model = join(Columns(), head, (8, 10, 3))
    x = np.random.default_rng(0).random((3, 8, 10, 3), np.float32)
    assert model.input_shape == (None, 8, 10, 3) and model.output_shape == (None, 2)
    np.testing.assert_allclose(model(x).numpy(), head(Columns()(x)).numpy(), atol=1e-6)


def test_with_mirror_an_image_and_its_mirror_image_get_the_same_logits():
    model = join(Columns(), keras.layers.Dense(2), (8, 10, 3), mirror=True)
    x = np.random.default_rng(0).random((3, 8, 10, 3), np.float32)
    np.testing.assert_allclose(model(x).numpy(), model(x[:, :, ::-1]).numpy(), atol=1e-6)
    assert not np.allclose(model(x).numpy(), model(x[:, ::-1, :, ::-1] * 0.5).numpy(), atol=1e-3)


def test_a_joined_model_with_mirror_saves_and_loads(tmp_path):
    backbone = keras.Sequential(
        [keras.Input((8, 10, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()]
    )
    model = join(backbone, keras.layers.Dense(2), (8, 10, 3), mirror=True)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((3, 8, 10, 3), np.float32)
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras")(x).numpy(), model(x).numpy()
    )


def test_flip_mirrors_left_and_right():
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(Flip()(x).numpy(), x[:, :, ::-1])


def test_columns_are_some_neighbouring_ones():
    row = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_array_equal(TakeColumns(0, 2)(row), row[:, :2])
    np.testing.assert_array_equal(TakeColumns(-3, 3)(row), row[:, 3:])
    np.testing.assert_array_equal(TakeColumns(-3, 2)(row), row[:, 3:5])


@pytest.mark.parametrize(("start", "count"), [(0, 0), (-1, 2)])
def test_columns_that_are_not_there_are_refused(start, count):
    with pytest.raises(ValueError, match=f"start={start}, count={count}"):
        TakeColumns(start, count)


def test_a_head_has_the_same_bits_on_one_core_and_on_several(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = rng.standard_normal((300, 96)).astype(np.float32)
    features += np.eye(3, 96, dtype=np.float32)[labels]
    found = []
    for cores in (1, 2, 16):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        choice = heads.choose(features, labels, 3, (32, 64))
        parts = [choice.out_of_fold, *(one.kernel for one in choice.fitted.members)]
        found.append(b"".join(part.tobytes() for part in parts))
    assert found[0] == found[1] == found[2]
