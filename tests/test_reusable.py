"""A network out again as a reusable SavedModel: what `read` reads, and others fine-tune."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from runs import SIZE, write_run
from savedmodels import save_reusable, tiny_network

from tfxfer import heads, savedmodel, serving
from tfxfer.backbone import Backbone
from tfxfer.errors import ServingError

# The program of somebody who has TensorFlow Hub and Keras 2, and no tfxfer.
HUB = """
import json, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow_hub as hub, tf_keras
layer = hub.KerasLayer(sys.argv[1], trainable=True)
model = tf_keras.Sequential([tf_keras.Input((32, 32, 3)), layer, tf_keras.layers.Dense(2)])
images, labels = np.random.default_rng(0).uniform(size=(16, 32, 32, 3)).astype("float32"), \
np.arange(16) % 2
frozen = layer(images[:2]).numpy()
before = [w.numpy() for w in layer.trainable_weights]
model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
losses = model.fit(images, labels, epochs=2, verbose=0).history["loss"]
moved = sum(bool(np.any(w.numpy() != b)) for w, b in zip(layer.trainable_weights, before))
assert "tfxfer" not in sys.modules
print(json.dumps({"features": frozen.tolist(), "losses": losses, "moved": moved, \
"of": len(before), "regularization": len(layer.losses)}))
"""


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(16, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> str:
    """With dropout, BatchNorm and a regularization loss."""
    model = tiny_network(dropout=0.3)
    kernel = model.get_layer("head_conv").kernel
    return save_reusable(
        model,
        tmp_path_factory.mktemp("original") / "model",
        losses=[lambda: 1e-3 * tf.reduce_sum(tf.square(kernel._value))],
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, original, images):
    """A run whose backbone was trained, BatchNorm statistics too, and reads pixels from -1 to 1."""
    keras.utils.set_random_seed(0)
    backbone = Backbone(original, value_range=(-1, 1), batch_norm="train")
    model = heads.join(backbone, keras.layers.Dense(3), (*SIZE, 3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(2 * images - 1, np.arange(16) % 3, epochs=2, verbose=0)
    return backbone, write_run(tmp_path_factory.mktemp("run") / "run", model)


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory):
    return serving.export_reusable(tuned[1], tmp_path_factory.mktemp("network"))


@pytest.mark.long
def test_what_was_tuned_is_what_is_transferred_from(tuned, exported, images):
    again = Backbone(exported, trainable=False)  # in [0, 1], as every reusable SavedModel of images
    np.testing.assert_allclose(again(images), tuned[0](2 * images - 1), atol=1e-5)
    assert [stage.name for stage in again.stages] == [stage.name for stage in tuned[0].stages]
    assert not np.allclose(
        again(images),
        Backbone(tuned[0].handle, trainable=False, value_range=(-1, 1))(2 * images - 1),
        atol=1e-3,
    )


@pytest.mark.long
def test_it_is_unfrozen_in_part_and_tuned_again(exported, images):
    backbone = Backbone(exported, batch_norm="inference")
    backbone.unfreeze(1)
    before = {v.path: v.numpy() for v in backbone.variables}
    model = heads.join(backbone, keras.layers.Dense(2), (*SIZE, 3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(16) % 2, verbose=0)
    moved = {v.path for v in backbone.variables if np.any(v.numpy() != before[v.path])}
    assert moved and moved == {v.path for v in backbone.trainable_variables}


@pytest.mark.long
def test_it_trains_as_the_original_does(original, tmp_path, images):
    first = savedmodel.read(original)
    tf.saved_model.save(savedmodel.reusable(first), str(tmp_path / "again"))
    second = savedmodel.read(tmp_path / "again")
    assert (second.reason, second.features, len(second.weights)) == (
        "",
        first.features,
        len(first.weights),
    )
    assert sum(w.trainable for w in second.weights) == sum(w.trainable for w in first.weights)
    results = []
    for pretrained in (first, second):
        keras.utils.set_random_seed(0)
        model = heads.join(
            Backbone(pretrained, batch_norm="train"),
            keras.layers.Dense(2, kernel_initializer="ones"),
            (*SIZE, 3),
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        results.append(
            model.fit(images, np.arange(16) % 2, epochs=3, shuffle=False, verbose=0).history["loss"]
        )
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)
    assert second.regularization is not None and second.training is not None


@pytest.mark.long
def test_tensorflow_hub_fine_tunes_it_under_keras_2(tuned, exported):
    images = np.random.default_rng(0).uniform(size=(16, 32, 32, 3)).astype(np.float32)
    done = subprocess.run(
        [sys.executable, "-c", HUB, exported],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found["features"], tuned[0](2 * images[:2] - 1), atol=1e-5)
    assert found["moved"] == found["of"] > 0 and found["regularization"] == 1
    assert np.isfinite(found["losses"]).all()


def test_a_model_without_a_backbone_has_nothing_to_transfer_from(tiny_savedmodel, tmp_path):
    folder = write_run(
        tmp_path / "run",
        heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(3), (*SIZE, 3)),
    )
    keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    ).save(folder / "model.keras")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(
        ServingError,
        match=r"has no Backbone among its layers, so that there is nothing to transfer from",
    ):
        serving.export_reusable(folder, tmp_path / "out")
