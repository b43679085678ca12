"""Predict, evaluate and export: one graph from bytes to probabilities."""

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfxfer import heads, preprocess, savedmodel, serving
from tfxfer.backbone import Backbone
from tfxfer.errors import DataError, ImageError, RunError, ServingError

CLASSES = ("china", "flower", "none <of> these")
SIZE = (32, 32)

# What a server does: TensorFlow and the folder, nothing else.
ALONE = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = sys.argv[2:]
batch = tf.constant([open(file, "rb").read() for file in files])
answer = model.signatures["serving_default"](inputs=batch)
assert not {"keras", "tfxfer"} & set(sys.modules)
print(json.dumps({"classes": [[c.decode() for c in row] for row in answer["classes"].numpy()], "scores": answer["scores"].numpy().tolist()}))
"""


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory) -> Path:
    """One photo in every format, orientation and mode that is served."""
    folder = tmp_path_factory.mktemp("kinds")
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((100, 67))
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    for name, image, kind, options in (
        ("colour.jpg", photo, "JPEG", {}),
        ("grey.jpg", photo.convert("L"), "JPEG", {}),
        ("cmyk.jpg", photo.convert("CMYK"), "JPEG", {}),
        ("turned.jpg", photo, "JPEG", {"exif": turned}),
        ("colour.png", photo, "PNG", {}),
        ("deep.png", deep, "PNG", {}),
        ("palette.png", photo.quantize(16), "PNG", {}),
        ("alpha.png", alpha, "PNG", {}),
        ("first.gif", photo.quantize(64), "GIF", {}),
        ("colour.bmp", photo, "BMP", {}),
        ("colour.webp", photo, "WEBP", {}),
    ):
        (folder / name).write_bytes(encoded(image, kind, **options))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel) -> Path:
    """A finished run of a head with random weights."""
    keras.utils.set_random_seed(1)
    backbone = Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    head = keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(len(CLASSES))])
    return write_run(tmp_path_factory.mktemp("runs") / "frozen-1", heads.join(backbone, head, SIZE))


def write_run(folder, model, classes=CLASSES) -> Path:
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(classes) + "\n")
    backbone = next(layer for layer in model.layers if isinstance(layer, Backbone))
    settings = {"image_size": SIZE, "value_range": backbone.value_range}
    (folder / "settings.json").write_text(json.dumps({name: {"value": value, "origin": "derived"} for name, value in settings.items()}))
    return folder


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory) -> Path:
    return serving.export(run_folder, tmp_path_factory.mktemp("serving") / "photos")


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def read(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


# --- export -----------------------------------------------------------------------------------------------------------------------------------


def test_a_process_with_tensorflow_alone_answers_as_predict_does(run_folder, exported, all_kinds):
    predicted = list(serving.predict(run_folder, [all_kinds], batch_size=3))
    done = subprocess.run([sys.executable, "-c", ALONE, exported, *(row.file for row in predicted)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert [row.predicted for row in predicted] == [classes[0] for classes in answer["classes"]]
    np.testing.assert_allclose([row.probability for row in predicted], np.array(answer["scores"])[:, 0], atol=1e-5)


def test_served_answers_are_those_of_the_keras_model(run_folder, signatures, all_kinds):
    model = keras.models.load_model(run_folder / "model.keras")
    pixels = tf.stack([preprocess.pixels(one, SIZE, (-1, 1)) for one in read(all_kinds)])
    expected = tf.nn.softmax(model(pixels)).numpy()
    answer = signatures["serving_default"](inputs=tf.constant(read(all_kinds)))
    columns = [[CLASSES.index(name.decode()) for name in row] for row in answer["classes"].numpy()]
    np.testing.assert_allclose(np.take_along_axis(expected, np.array(columns), 1), answer["scores"], atol=1e-5)


def test_scores_are_sorted_and_add_up_to_one(signatures, all_kinds):
    scores = signatures["serving_default"](inputs=tf.constant(read(all_kinds)))["scores"].numpy()
    assert scores.shape == (11, 3) and (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)


def test_tensor_signature_takes_pixels_in_the_value_range_of_the_backbone(run_folder, signatures, all_kinds):
    model = keras.models.load_model(run_folder / "model.keras")
    pixels = tf.stack([preprocess.pixels(one, SIZE, (-1, 1)) for one in read(all_kinds)])
    np.testing.assert_allclose(signatures["tensor"](inputs=pixels)["probabilities"], tf.nn.softmax(model(pixels)), atol=1e-6)


def test_features_signature_gives_what_the_head_sees(run_folder, signatures, all_kinds):
    backbone = next(layer for layer in keras.models.load_model(run_folder / "model.keras").layers if isinstance(layer, Backbone))
    pixels = tf.stack([preprocess.pixels(one, SIZE, (-1, 1)) for one in read(all_kinds)])
    np.testing.assert_allclose(signatures["features"](inputs=tf.constant(read(all_kinds)))["features"], backbone(pixels), atol=1e-5)


def test_features_of_a_mirrored_run_are_the_mean_of_both_sides(tiny_savedmodel, tmp_path, all_kinds):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    folder = write_run(tmp_path / "run", heads.join(backbone, keras.layers.Dense(3), SIZE, mirror=True))
    pixels = tf.stack([preprocess.pixels(one, SIZE) for one in read(all_kinds)])
    expected = (backbone(pixels) + backbone(pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(serving.open_model(folder).features(tf.constant(read(all_kinds))), expected, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize(("name", "widths"), [("serving_default", {"classes": 3, "scores": 3}), ("tensor", {"probabilities": 3}), ("features", {"features": 16})])
def test_every_output_has_the_batch_as_dimension_0(signatures, all_kinds, name, widths, n):
    inputs = tf.zeros((n, *SIZE, 3)) if name == "tensor" else tf.constant(read(all_kinds)[:n], tf.string, (n,))
    assert {key: tuple(value.shape) for key, value in signatures[name](inputs=inputs).items()} == {key: (n, width) for key, width in widths.items()}


def test_labels_are_an_asset(exported):
    assert (exported / "assets/labels.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assets = SavedModel.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs[0].asset_file_def
    assert [asset.filename for asset in assets] == ["labels.txt"]


def test_warm_up_requests_are_predict_logs_that_the_signatures_answer(exported, signatures):
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(exported / "assets.extra/tf_serving_warmup_requests"))]
    requests = [log.predict_log.request for log in logs]
    assert [request.model_spec.signature_name for request in requests] == ["serving_default", "tensor", "features"]
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        for output in signatures[request.model_spec.signature_name](**inputs).values():
            assert output.shape[0] == 1


def test_export_holds_no_denied_operation(exported):
    savedmodel.check_library(exported, savedmodel.DENIED)


def test_the_first_version_is_1(exported):
    assert exported.name == "1" and os.listdir(exported.parent) == ["1"]


def test_version_is_the_largest_plus_one_and_foreign_files_are_left_alone(tmp_path):
    for name in ("1", "7", "12.old", "x", ".export-a"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert serving.move(tmp_path / ".export-a", tmp_path) == tmp_path / "8"
    assert sorted(os.listdir(tmp_path)) == ["1", "12.old", "7", "8", "notes.txt", "x"]


def test_two_exports_that_finish_at_once_get_two_versions(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/theirs").touch()
    (tmp_path / ".export-a").mkdir()
    listed = iter([[], ["1"]])  # theirs appears between the listing and the renaming
    monkeypatch.setattr(os, "listdir", lambda folder: next(listed))
    assert serving.move(tmp_path / ".export-a", tmp_path) == tmp_path / "2"


def test_an_output_path_below_a_file_is_refused(run_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServingError, match=r"file/serving can't be written: Not a directory\. Choose a folder that exists or can be made\."):
        serving.export(run_folder, tmp_path / "file" / "serving")


def test_a_full_disk_leaves_nothing_behind(run_folder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ServingError, match=r"the export to .*serving failed: .*File too large.* Nothing was left there; make room, or choose another folder\."):
            serving.export(run_folder, tmp_path / "serving")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "serving") == []


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(RunError):
        serving.export(tmp_path, tmp_path / "serving")


def test_a_damaged_model_is_named(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK damaged")
    with pytest.raises(ServingError, match=r"model\.keras can't be loaded: .*It seems damaged: run it again\."):
        serving.load(tmp_path / "model.keras")


def test_a_layer_that_is_not_imported_is_named(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((2,)), Mine()]).save(tmp_path / "model.keras")
    with pytest.raises(ServingError, match=r"can't be loaded: Could not locate class 'Mine'\. Import the file that defines it first\."):
        serving.load(tmp_path / "model.keras")


def test_labels_that_do_not_fit_the_model_are_refused(tiny_savedmodel, tmp_path):
    folder = write_run(tmp_path / "run", heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), SIZE))
    with pytest.raises(ServingError, match=r"gives \(None, 2\); expected \(None, 32, 32, 3\) and \(None, 3\), as settings\.json and labels\.txt say"):
        serving.open_model(folder)
