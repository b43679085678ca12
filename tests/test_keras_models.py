"""Keras models as backbones: the same features, gradients and updates as the model's own."""

import hashlib
import inspect
import logging
import os
import re
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from loaded import python
from savedmodels import moved_by_training, tiny_network

import tfxfer
from tfxfer.cli import main
from tfxfer.errors import HandleError, SavedModelError
from tfxfer.features.engines import tensorflow_engine
from tfxfer.handles import keras_applications, keras_names

X = np.random.default_rng(0).random((4, 32, 32, 3), dtype=np.float32)


def with_map(dropout: float = 0.0) -> keras.Model:
    """A small network whose output is a map, as with `include_top=False`."""
    network = tiny_network(dropout=dropout)
    last_map = next(
        layer.output for layer in reversed(network.layers) if len(layer.output.shape) == 4
    )
    return keras.Model(network.input, last_map, name="with_map")


@pytest.mark.long
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_features_gradients_and_updates_are_those_of_the_model(dropout):
    network = tiny_network(dropout=dropout)
    layer = tfxfer.Backbone(network, batch_norm="train")
    np.testing.assert_allclose(layer(X), network(X, training=False), atol=1e-6)
    gradients, states = [], []
    for call in (network, layer):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(tf.constant(X), training=True) ** 2)
        trained = [variable.value for variable in call.trainable_weights]
        gradients.append(ordered(tape.gradient(loss, trained)))
        states.append(ordered(v for v in call.weights if "float" in v.dtype))
    scale = max(float(np.abs(gradient).max()) for gradient in gradients[0])
    for theirs, mine in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * scale)
    for theirs, mine in zip(*states, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def ordered(values) -> list[np.ndarray]:
    """Values of the same weights in the same order, whatever order a layer has them in."""
    return sorted((np.asarray(v) for v in values), key=lambda v: (v.shape, float(np.sum(v))))


@pytest.mark.long
def test_the_model_itself_stays_as_it_is():
    network = tiny_network()
    before = [variable.numpy() for variable in network.variables]
    layer = tfxfer.Backbone(network)
    model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((4, 2)), verbose=0)
    for value, variable in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


@pytest.mark.long
def test_a_map_is_pooled_and_its_maximum_is_a_tap():
    network = with_map()
    last_map = network(X, training=False).numpy()
    layer = tfxfer.Backbone(network, trainable=False)
    np.testing.assert_allclose(layer(X), last_map.mean((1, 2)), atol=1e-6)
    taps = layer.tapped(1)(X).numpy()
    np.testing.assert_allclose(
        taps, np.concatenate([last_map.mean((1, 2)), last_map.max((1, 2))], 1), atol=1e-6
    )


@pytest.mark.long
def test_one_of_several_outputs_is_chosen_by_its_name():
    network = with_map()
    named = keras.Model(
        network.input,
        {
            "tokens": network.output,
            "pooled": keras.layers.GlobalMaxPooling2D()(network.output),
        },
        name="two_heads",
    )
    with pytest.raises(SavedModelError, match="two_heads.*pooled.*tokens"):
        tfxfer.Backbone(named)
    with pytest.raises(SavedModelError, match="pooled, tokens|tokens, pooled"):
        tfxfer.Backbone(named, output="mean")
    layer = tfxfer.Backbone(named, output="pooled", trainable=False)
    np.testing.assert_allclose(layer(X), named(X, training=False)["pooled"], atol=1e-6)


@pytest.mark.long
def test_a_command_chooses_one_of_several_outputs(tmp_path):
    network = with_map()
    vector = keras.layers.GlobalMaxPooling2D()(network.output)[:, :5]
    outputs = {"map": network.output, "vector": vector}
    keras.Model(network.input, outputs).save(path := str(tmp_path / "two.keras"))
    done = CliRunner().invoke(main, ["inspect", path], catch_exceptions=False)
    assert done.exit_code == 1 and "vector" in done.output
    words = ["inspect", path, "--backbone-output", "vector"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0 and re.search(r"features +5\b", done.output), done.output


@pytest.mark.long
def test_partial_unfreezing_moves_only_its_stages():
    layer = tfxfer.Backbone(with_map())
    layer.unfreeze(1)
    moved = moved_by_training(layer, X)
    weights = layer.pretrained.weights
    assert moved and moved <= {weights[i].name for i in layer.stages[-1].weights}


def test_a_model_that_was_frozen_for_keras_can_be_trained_here():
    network = tiny_network()
    network.trainable = False
    assert tfxfer.Backbone(network).trainable_weights


@pytest.mark.parametrize("frozen", [False, True])
def test_a_penalty_on_weights_is_kept(frozen):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    expected = sum(network.losses)
    network.trainable = not frozen
    layer = tfxfer.Backbone(network)
    layer(tf.constant(X))
    (loss,) = layer.losses
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_model_whose_gradients_cannot_be_kept_stays_as_it_is():
    @tf.custom_gradient
    def reverse(x):
        return x, lambda upstream: -upstream

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="silu")(inputs))
    x = keras.layers.Lambda(reverse, output_shape=lambda shape: shape)(x)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    before = [variable.numpy() for variable in network.variables]
    layer = tfxfer.Backbone(network, trainable=False)
    assert "custom gradient" in layer.why_frozen
    for value, variable in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_training_is_no_argument(tmp_path):
    with_map().save(path := tmp_path / "network.keras")
    for handle in (tiny_network(), path):
        with pytest.raises(ValueError, match="training"):
            tfxfer.Backbone(handle, arguments={"training": True})


def test_a_keras_file_may_be_named_with_its_hash(tmp_path):
    with_map().save(path := tmp_path / "network.keras")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert tfxfer.Backbone(f"{path}#sha256={digest}", trainable=False).sha256 == digest
    with pytest.raises(HandleError, match=digest):
        tfxfer.Backbone(f"{path}#sha256={'0' * 64}", trainable=False)


def test_what_keras_applies_to_pixels_becomes_part_of_the_network():
    network = tiny_network()
    preprocess = keras.applications.resnet50.preprocess_input
    layer = tfxfer.Backbone(network, preprocess=preprocess, value_range=(0, 255), trainable=False)
    expected = network(preprocess(tf.constant(255 * X)), training=False)
    np.testing.assert_allclose(layer(255 * X), expected, rtol=1e-5, atol=1e-5)
    assert layer.value_range == (0.0, 255.0)


@pytest.mark.long
def test_a_file_with_it_is_loaded_where_the_model_is_not(tmp_path):
    layer = tfxfer.Backbone(with_map(), trainable=False)
    model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import keras, numpy as np, sys, tfxfer; "
        "print(keras.models.load_model(sys.argv[1] + '/model.keras')(np.load(sys.argv[1] + "
        "'/x.npy')).numpy().tolist())"
    )
    done = subprocess.run(
        [python(), "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(eval(done.stdout), model(X), atol=1e-6)


@pytest.mark.long
def test_it_is_fitted_exported_and_transferred_from_again(tmp_path):
    data = tfxfer.data.load("demo").take(slice(0, None, 20))
    fitted = tfxfer.Transfer(with_map(), value_range=(0.0, 1.0)).fit(data)
    folder = fitted.export(tmp_path / "again", format="reusable")
    again = tfxfer.Backbone(folder, trainable=False)
    np.testing.assert_allclose(again(X), tfxfer.Backbone(with_map(), trainable=False)(X), atol=1e-5)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(SavedModelError, match="Input"):
        tfxfer.Backbone(keras.Sequential([keras.layers.Conv2D(3, 3)]))


def test_preprocess_is_refused_for_a_savedmodel(tiny_savedmodel):
    with pytest.raises(ValueError, match="preprocess"):
        tfxfer.Backbone(tiny_savedmodel, preprocess=abs)


@pytest.mark.long
def test_a_network_of_keras_applications_is_found_by_its_name():
    found = keras_applications.load("mobilenetv2", (32, 32), weights=None)
    layer = tfxfer.Backbone(found.model, preprocess=found.preprocess, value_range=(0, 255))
    assert (layer.image_size, layer.feature_size) == ((32, 32), 1280)
    expected = found.model(keras.applications.mobilenet_v2.preprocess_input(255 * X))
    np.testing.assert_allclose(
        layer(255 * X), np.mean(expected, (1, 2)), rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


def test_all_networks_of_keras_applications_are_listed():
    found = {name for name, one in vars(keras.applications).items() if inspect.isfunction(one)}
    assert found == set(keras_names.SIZES)


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(HandleError, match="EfficientNetV2B0"):
        tfxfer.Backbone("keras:efficientnetv2-b0")


@pytest.mark.long
def test_weights_that_cannot_be_fetched_are_told(tmp_path):
    environment = os.environ | {
        "https_proxy": "http://127.0.0.1:9",
        "KERAS_HOME": str(tmp_path),
    }
    code = "import tfxfer; tfxfer.Backbone('keras:MobileNetV2')"
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "HandleError: the weights of keras:MobileNetV2" in done.stderr


@pytest.mark.long
def test_a_keras_file_is_a_backbone(tmp_path):
    with_map().save(path := tmp_path / "network.keras")
    layer = tfxfer.Backbone(path, trainable=False)
    np.testing.assert_allclose(layer(X), tfxfer.Backbone(with_map(), trainable=False)(X), atol=1e-6)
    assert layer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    words = ["run", "frozen", "--backbone", str(path), "--out", str(tmp_path / "run")]
    few = tmp_path / "few"
    for name, value in (("dark", 40), ("light", 200)):
        (few / name).mkdir(parents=True)
        for i in range(12):
            noise = np.random.default_rng(i).integers(0, 40, (32, 32, 3))
            keras.utils.save_img(few / name / f"{i}.png", np.uint8(value + noise), scale=False)
    done = CliRunner().invoke(main, [*words, "--data", str(few)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.long
def test_the_model_of_a_run_can_be_a_backbone_in_its_turn(tiny_savedmodel, tmp_path):
    inner = tfxfer.Backbone(tiny_savedmodel, value_range=(-1, 1))
    model = keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(5)])
    model.save(tmp_path / "model.keras")
    layer = tfxfer.Backbone(tmp_path / "model.keras", trainable=False)
    assert (layer.value_range, layer.range_from) == ((-1, 1), "layer")
    x = 2 * X - 1
    np.testing.assert_allclose(tensorflow_engine(layer.prefix())(x), model(x), atol=1e-5)
    scaled = [keras.Input((32, 32, 3)), keras.layers.Rescaling(2 / 255, offset=-1), inner]
    found = tfxfer.Backbone(keras.Sequential(scaled))
    assert (found.value_range, found.range_from) == ((0, 255), "graph")


def test_a_folder_of_keras_files_says_what_to_use(tmp_path):
    with_map().save(tmp_path / "network.keras")
    with pytest.raises(HandleError, match="network.keras"):
        tfxfer.Backbone(tmp_path)
    tfxfer.Backbone(tmp_path / "network.keras")
    for name in ("manifest.json", "model.keras"):
        (tmp_path / name).touch()
    with pytest.raises(HandleError, match="tfxfer export"):
        tfxfer.Backbone(tmp_path)


def test_weights_are_loaded_into_the_same_network_made_again(tmp_path):
    def made() -> keras.Model:
        layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
        network = keras.Sequential([keras.Input((32, 32, 3)), *layers])
        return keras.Sequential([keras.Input((32, 32, 3)), tfxfer.Backbone(network)])

    model, again = made(), made()  # Keras gives their layers other numbers
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(again(X), model(X), atol=1e-6)


def test_a_damaged_keras_file_is_named(tmp_path):
    (tmp_path / "network.keras").write_bytes(b"PK not really")
    with pytest.raises(SavedModelError, match="network.keras"):
        tfxfer.Backbone(tmp_path / "network.keras")


@pytest.mark.parametrize("trained", [False, True])
def test_random_weights_are_told(trained, caplog):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3)(inputs))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    if trained:
        network.get_layer("norm").gamma.assign_add(np.full(4, 0.01))
    with caplog.at_level(logging.WARNING, logger="tfxfer"):
        tfxfer.Backbone(network, trainable=False)
    assert ("random weights" in caplog.text) != trained


def plain_network(dtype: str) -> keras.Model:
    """A small network with a head convolution, in another precision."""
    inputs = keras.Input((32, 32, 3), dtype="float32")
    x = keras.layers.Conv2D(6, 3, activation="silu", dtype=dtype)(inputs)
    x = keras.layers.BatchNormalization(beta_initializer="random_normal", dtype=dtype)(x)
    x = keras.layers.Conv2D(8, 3, activation="silu", dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype=dtype)(x))


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_a_model_in_another_precision_computes_in_float32(dtype, tmp_path):
    network, same = plain_network(dtype), plain_network("float32")
    same.set_weights(network.get_weights())
    layer = tfxfer.Backbone(network, batch_norm="train")
    expected = same(X, training=False)
    np.testing.assert_allclose(layer(X), expected, atol=1e-5)
    taps = layer.tapped(2)(X).numpy()
    np.testing.assert_allclose(taps[:, 12:20], expected, atol=1e-5)
    assert taps.dtype == np.float32 and taps.shape == (4, 28)
    assert {variable.dtype for variable in layer.weights} == {"float32"}
    model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((4, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)


def test_a_model_of_bytes_is_trained_on_0_to_255():
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, bias_initializer="random_normal")(x)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    layer, pixels = tfxfer.Backbone(network), np.round(255 * X)
    assert layer.value_range == (0.0, 255.0)
    np.testing.assert_allclose(layer(pixels), network(pixels.astype("uint8")), atol=1e-5)
    assert moved_by_training(layer, pixels) == {one.name for one in layer.pretrained.weights}


def test_an_export_that_augments_is_refused_and_its_model_is_not(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 5, bias_initializer="random_normal")(
        keras.layers.RandomFlip()(inputs)
    )
    network = keras.Model(inputs, keras.layers.Flatten()(x))
    network.export(tmp_path / "export", verbose=False)
    with pytest.raises(SavedModelError, match="StatelessRandomUniform"):
        tfxfer.Backbone(tmp_path / "export", trainable=False)
    layer = tfxfer.Backbone(network, trainable=False)
    np.testing.assert_allclose(layer(X), network(X, training=False), atol=1e-5)


class OfKeras2:
    """A class whose module is that of a model of Keras 2, which need not be installed."""

    __module__ = "tf_keras.src.engine.training"


NO_HANDLES = {
    "nothing": (lambda folder: None, "NoneType"),
    "bytes": (lambda folder: folder.encode(), "bytes"),
    "a layer": (lambda folder: keras.layers.Dense(3), "keras.Input"),
    "what was loaded": (tf.saved_model.load, "folder of the SavedModel"),
    "a model of Keras 2": (lambda folder: OfKeras2(), "Keras 2"),
}


@pytest.mark.parametrize("name", NO_HANDLES)
def test_what_is_no_handle_is_named(name, tiny_savedmodel):
    make, word = NO_HANDLES[name]
    with pytest.raises(ValueError, match=word):
        tfxfer.Backbone(make(tiny_savedmodel))
