"""Which pixels a network expects: found in its graph, or tried."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from savedmodels import save_reusable, tiny_network

from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.data import load
from tfxfer.features import Extractor
from tfxfer.heads import ranges

MEAN, VARIANCE = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]


class Caffe(keras.layers.Layer):
    """RGB to BGR, less a mean, as ResNet50 of Keras has it."""

    def call(self, x):
        return x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)


class Own(keras.layers.Layer):
    """A layer that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.call = function


FIRST = {
    "1/255": (lambda: [keras.layers.Rescaling(1 / 255)], (0, 255)),
    "1/127.5 - 1": (lambda: [keras.layers.Rescaling(1 / 127.5, offset=-1)], (0, 255)),
    "2 x - 1": (lambda: [keras.layers.Rescaling(2.0, offset=-1)], (0, 1)),
    "255 x": (lambda: [keras.layers.Rescaling(255.0)], (0, 1)),
    "x / 2 + 1/2": (lambda: [keras.layers.Rescaling(0.5, offset=0.5)], (-1, 1)),
    "ImageNet of 0 to 1": (
        lambda: [keras.layers.Normalization(mean=MEAN, variance=VARIANCE)],
        (0, 1),
    ),
    "ImageNet of 0 to 255": (
        lambda: [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Normalization(mean=MEAN, variance=VARIANCE),
        ],
        (0, 255),
    ),
    "Caffe": (lambda: [Caffe()], (0, 255)),
    "behind a resize and a border": (
        lambda: [
            keras.layers.Resizing(48, 48),
            keras.layers.Rescaling(1 / 255),
            keras.layers.ZeroPadding2D(3),
        ],
        (0, 255),
    ),
    "cut off at 0 and 1": (lambda: [Own(lambda x: ops.clip(x, 0, 1))], (0, 1)),
    "cut off at 0 and 255": (lambda: [Own(lambda x: ops.clip(x, 0, 255) / 255)], (0, 255)),
    "rounded": (lambda: [Own(lambda x: ops.round(x) / 255)], (0, 255)),
    "rounded behind 255 x": (lambda: [Own(lambda x: ops.round(x * 255) / 255)], (0, 1)),
    "x - 1/2": (lambda: [keras.layers.Rescaling(1.0, offset=-0.5)], (0, 1)),
    "1/255 - 1/2": (lambda: [keras.layers.Rescaling(1 / 255, offset=-0.5)], (0, 255)),
    "digits of 0 to 1": (lambda: [Own(lambda x: (x - 0.1307) / 0.3081)], (0, 1)),
    "a deviation alone, of 0 to 255": (lambda: [Own(lambda x: x / 58.8)], (0, 255)),
    "made smaller with antialias": (
        lambda: [Own(lambda x: tf.image.resize(x, (16, 16), antialias=True) / 255)],
        (0, 255),
    ),
    "checked, and never below 0": (
        lambda: [Own(lambda x: tf.nn.relu(tf.debugging.check_numerics(x, "pixels")) / 255)],
        (0, 255),
    ),
    "the mean of the colours": (
        lambda: [Own(lambda x: ops.repeat(ops.mean(x, -1, keepdims=True), 3, -1) / 255)],
        (0, 255),
    ),
    "a BatchNorm that learned nothing": (lambda: [keras.layers.BatchNormalization()], None),
    "as rows": (
        lambda: [
            keras.layers.Reshape((1024, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Reshape((32, 32, 3)),
        ],
        (0, 255),
    ),
    "behind a random flip": (
        lambda: [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)],
        (0, 255),
    ),
    "made smaller": (
        lambda: [keras.layers.AveragePooling2D(2), keras.layers.Rescaling(1 / 127.5, offset=-1)],
        (0, 255),
    ),
    "each image by its own mean": (
        lambda: [Own(tf.image.per_image_standardization)],
        None,
    ),
    "nothing": (lambda: [], None),
    "a factor that is none of these": (lambda: [keras.layers.Rescaling(0.37)], None),
}


def network(first: list, folder) -> str:
    convolution = keras.layers.Conv2D(8, 3, strides=2, activation="relu")
    layers = [keras.Input((32, 32, 3)), *first, convolution, keras.layers.GlobalAveragePooling2D()]
    return save_reusable(keras.Sequential(layers), folder)


@pytest.mark.long
@pytest.mark.parametrize("name", FIRST)
def test_the_graph_tells_the_range(name, tmp_path):
    make, expected = FIRST[name]
    layer = Backbone(network(make(), tmp_path / "m"), trainable=False)
    assert layer.range_from == ("assumed" if expected is None else "graph")
    assert layer.value_range == (expected or (0, 1))


def test_the_graph_tells_the_range_of_a_network_of_patches(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            Own(lambda x: ops.reshape(ops.image.extract_patches(x, 8), (-1, 16, 192))),
            layers.Dense(8),
            layers.GlobalAveragePooling1D(),
        ]
    )
    layer = Backbone(save_reusable(model, tmp_path / "m"), trainable=False)
    assert (layer.value_range, layer.range_from) == ((0, 255), "graph")


def test_what_the_user_says_counts(tmp_path):
    folder = network([keras.layers.Rescaling(1 / 255)], tmp_path / "m")
    layer = Backbone(folder, trainable=False, value_range=(0, 1))
    assert layer.value_range == (0, 1) and layer.range_from == "given"


@pytest.mark.long
def test_a_range_that_nothing_tells_is_tried_and_said(photos, tmp_path, said):
    # A sigmoid in the wrong place saturates: with 0 to 1 all images look alike to it.
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Lambda(lambda x: keras.ops.sigmoid((x - 128) / 8))(inputs)
    model = keras.Model(inputs, tiny_network(32)(x))
    layer = Backbone(save_reusable(model, tmp_path / "m"), trainable=False)
    assert layer.range_from == "assumed"
    ranges.settle(layer, load(photos), Extractor(Cache(tmp_path / "c")), seed=0)
    assert layer.value_range == (0, 255)
    assert "0 to 255" in said[-1] and "--value-range" in said[-1]


def test_a_batch_far_outside_the_range_warns_once(tiny_savedmodel):
    layer = Backbone(tiny_savedmodel, trainable=False)
    with pytest.warns(UserWarning, match="from 0 to 1"):
        layer(np.full((2, 32, 32, 3), 200, np.float32))
    layer(np.full((2, 32, 32, 3), 200, np.float32))


@pytest.mark.long
@pytest.mark.parametrize("loop", ["fit", "evaluate", "predict", "train_on_batch"])
@pytest.mark.parametrize("eagerly", [False, True])
def test_keras_loops_warn_of_a_batch_far_outside_the_range(loop, eagerly, tiny_savedmodel):
    model = classifier(tiny_savedmodel, run_eagerly=eagerly)
    photos, labels = np.full((4, 32, 32, 3), 200, np.float32), np.zeros(4)
    run = getattr(model, loop)
    with pytest.warns(UserWarning, match="from 200 to 200; .* from 0 to 1"):
        run(photos) if loop == "predict" else run(photos, labels)


def test_keras_loops_say_nothing_where_pixels_are_as_expected(tiny_savedmodel, recwarn):
    model = classifier(tiny_savedmodel)
    photos, labels = np.full((4, 32, 32, 3), 0.5, np.float32), np.zeros(4)
    model.fit(photos, labels, verbose=0)
    model.predict(photos, verbose=0)
    assert not [one for one in recwarn if "pixels" in str(one.message)]


@pytest.mark.long
def test_a_step_that_xla_compiles_still_runs(tiny_savedmodel):
    model = classifier(tiny_savedmodel, jit_compile=True)
    losses = model.fit(np.full((4, 32, 32, 3), 200, np.float32), np.zeros(4), verbose=0).history
    assert np.isfinite(losses["loss"]).all()


@pytest.mark.long
def test_an_exported_model_does_not_call_python(tiny_savedmodel, tmp_path):
    model = classifier(tiny_savedmodel)
    model.fit(np.full((4, 32, 32, 3), 0.5, np.float32), np.zeros(4), verbose=0)
    model.export(tmp_path / "m", verbose=False)
    graph = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"].graph
    names = {node.op for node in graph.as_graph_def().node}
    names |= {n.op for f in graph.as_graph_def().library.function for n in f.node_def}
    assert not names & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


def classifier(handle: str, **how) -> keras.Model:
    layer = Backbone(handle, trainable=False)
    model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **how)
    return model


@pytest.mark.long
@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (lambda x: (x * 255).astype("uint8"), (0, 1)),
        (lambda x: (x * 65535).astype("uint16"), (0, 1)),
        (lambda x: x, (-1, 1)),  # black would be gray
        (lambda x: np.where(x > 0.9, np.nan, x), (0, 1)),
    ],
)
@pytest.mark.parametrize("how", ["call", "predict"])
def test_pixels_of_other_types_and_scales_are_warned_of(how, scale, expected, tiny_savedmodel):
    layer = Backbone(tiny_savedmodel, value_range=expected)
    model = keras.Sequential([keras.Input((32, 32, 3)), layer])
    pixels = scale(np.random.default_rng(0).random((4, 32, 32, 3), np.float32))
    with pytest.warns(UserWarning, match="expects them from"):
        layer(pixels) if how == "call" else model.predict(pixels, verbose=0)


@pytest.mark.parametrize("pixels", [(0.2, 1.0), (-1.0, 0.3), (0.0, 0.5)])
def test_bright_and_dark_images_are_on_the_scale(pixels, tiny_savedmodel, recwarn):
    layer = Backbone(tiny_savedmodel, value_range=(-1, 1))
    layer(np.random.default_rng(0).uniform(*pixels, (4, 32, 32, 3)).astype("float32"))
    assert not [one for one in recwarn if "pixels" in str(one.message)]


@pytest.mark.parametrize("wrong", [(1, 0), (0, 0), "0,1", (0, 1, 2), (0, float("nan")), (None, 1)])
def test_what_is_no_range_is_refused(wrong, tiny_savedmodel):
    with pytest.raises(ValueError, match="the smaller one first"):
        Backbone(tiny_savedmodel, value_range=wrong)
