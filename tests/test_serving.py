"""Predict, evaluate and export: one graph from bytes to probabilities."""

import csv
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
from tfxfer.data import load
from tfxfer.errors import DataError, ImageError, RunError, ServingError
from tfxfer.run import Run

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
assert "tfxfer" not in sys.modules
print(json.dumps({"classes": [[c.decode() for c in row] for row in answer["classes"].numpy()], "scores": answer["scores"].numpy().tolist()}))
"""


def load_photo():
    return Image.fromarray(load_sample_image("china.jpg")).resize((100, 67))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory) -> Path:
    """One photo in every format, orientation and mode that is served."""
    folder = tmp_path_factory.mktemp("kinds")
    photo = load_photo()
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


def write_run(folder, model, *, classes=CLASSES, data="photos") -> Path:
    run = Run(folder, options={"data": str(data)})
    backbone = next(layer for layer in model.layers if isinstance(layer, Backbone))
    run.record(image_size=backbone.image_size, value_range=backbone.value_range)
    run.write_text("labels.txt", "".join(f"{name}\n" for name in classes))
    run.write("model.keras", model.save)
    run.finish()
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
@pytest.mark.parametrize(
    ("name", "widths"), [("serving_default", {"classes": 3, "scores": 3}), ("tensor", {"probabilities": 3}), ("features", {"features": 16})]
)
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


def test_decoding_is_kept_apart_from_the_network(exported):
    # With the loop over images in the same graph TensorFlow folds no BatchNorm: 105 images a second instead of 155.
    functions = SavedModel.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def.library.function
    apart = [function for function in functions if function.attr["_noinline"].b]
    assert len(apart) == 1 and any("While" in node.op for node in apart[0].node_def)


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
        with pytest.raises(
            ServingError, match=r"the export to .*serving failed: .*File too large.* Nothing was left there; make room, or choose another folder\."
        ):
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
        serving.load_model(tmp_path / "model.keras")


def test_a_layer_that_is_not_imported_is_named(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((2,)), Mine()]).save(tmp_path / "model.keras")
    with pytest.raises(ServingError, match=r"can't be loaded: Could not locate class 'Mine'\. Import the file that defines it first\."):
        serving.load_model(tmp_path / "model.keras")


def test_labels_that_do_not_fit_the_model_are_refused(tiny_savedmodel, tmp_path):
    folder = write_run(tmp_path / "run", heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), SIZE))
    with pytest.raises(ServingError, match=r"gives \(None, 2\); expected \(None, 32, 32, 3\) and \(None, 3\), as settings\.json and labels\.txt say"):
        serving.open_model(folder)


# --- predict ----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(photos, tmp_path) -> Path:
    """Photos two folders deep, hidden files and notes beside them."""
    folder = tmp_path / "mixed"
    (folder / "deep/er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(("b.jpg", "a.JPG", "deep/er/c.jpeg", ".d.jpg", ".hidden/e.jpg")):
        (folder / name).write_bytes((photos / f"china/china{i:02d}.jpg").read_bytes())
    (folder / "notes.txt").write_text("no image")
    return folder


def test_folders_are_searched_and_files_are_named_as_found_or_given(run_folder, mixed):
    said = []
    given = f"{mixed}/deep/../b.jpg"
    rows = list(serving.predict(run_folder, [given, mixed], log=said.append))
    assert [row.file for row in rows] == [given, f"{mixed}/a.JPG", f"{mixed}/b.jpg", f"{mixed}/deep/er/c.jpeg"]
    assert rows[0][1:] == rows[2][1:] and {row.predicted for row in rows} <= set(CLASSES)
    assert said == [f"{mixed}: 3 files that are no images are passed over"]


def test_the_size_of_a_batch_changes_nothing(run_folder, photos):
    several, one = ({row.file: row for row in serving.predict(run_folder, [photos], batch_size=n)} for n in (64, 7))
    assert list(several) == list(one) and len(one) == 60
    np.testing.assert_allclose([row.probability for row in several.values()], [row.probability for row in one.values()], atol=1e-6)


def test_bad_files_are_named_after_all_others_were_predicted(run_folder, mixed):
    whole = (mixed / "a.JPG").read_bytes()
    (mixed / "bad.jpg").write_text("this is text")
    (mixed / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed / "sick.png").write_bytes(encoded(Image.new("RGB", (90, 90)), "PNG").replace(b"IDAT", b"IDAT\xff\xff\xff", 1))
    rows, found = [], serving.predict(run_folder, [mixed], batch_size=2, log=lambda _: None)
    with pytest.raises(ImageError) as error:
        rows.extend(found)
    assert [Path(row.file).name for row in rows] == ["a.JPG", "b.jpg", "c.jpeg"]
    text = str(error.value)
    assert text.startswith(f"3 of 6 files can't be predicted, the others were predicted: {mixed}/bad.jpg is no image, it begins with b'this is text'; ")
    assert "short.jpg is a JPEG that is truncated: its end is missing" in text and "sick.png" in text


def test_an_image_that_only_decoding_finds_damaged_is_named(run_folder, tmp_path, photos):
    (tmp_path / "good.jpg").write_bytes((photos / "china/china00.jpg").read_bytes())
    (tmp_path / "sick.webp").write_bytes(encoded(Image.new("RGB", (9, 9)), "WEBP", lossless=True)[:-8] + bytes(8))
    png = bytearray(encoded(load_photo(), "PNG"))
    png[200:300] = bytes(100)
    (tmp_path / "sick.png").write_bytes(png)
    rows = []
    with pytest.raises(ImageError, match=r"sick\.png can't be decoded: "):
        rows.extend(serving.predict(run_folder, [tmp_path]))
    assert any(row.file.endswith("good.jpg") for row in rows)


def test_a_path_that_does_not_exist_is_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jpg does not exist\. Expected image files, or folders of them\."):
        serving.predict(tmp_path / "no run", [tmp_path / "nowhere.jpg"])


def test_a_folder_without_images_is_refused(run_folder, tmp_path):
    with pytest.raises(DataError, match=r"there is no image to predict\. Expected image files, or folders of them\."):
        serving.predict(run_folder, [tmp_path])


def test_predictions_are_written_as_csv(tmp_path):
    rows = [serving.Prediction('a "b",\n.jpg', "café", 0.123456789), serving.Prediction("\udcff.jpg", "x", 1.0)]
    serving.write_csv(rows, tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert text.startswith("file,predicted,probability\n")
    assert list(csv.reader(io.StringIO(text)))[1:] == [['a "b",\n.jpg', "café", "0.123457"], ["\udcff.jpg", "x", "1.000000"]]


def test_rows_before_an_error_are_in_the_csv(tmp_path):
    def rows():
        yield serving.Prediction("a.jpg", "x", 0.5)
        raise ImageError("b.jpg is bad")

    with pytest.raises(ImageError, match=r"b\.jpg is bad"):
        serving.write_csv(rows(), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "file,predicted,probability\na.jpg,x,0.500000\n"


def test_a_csv_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServingError, match=r"file/out\.csv can't be written: Not a directory\. Choose another file with --to\."):
        serving.write_csv([], tmp_path / "file/out.csv")


# --- evaluate ---------------------------------------------------------------------------------------------------------------------------------


def copied(photos, folder, places):
    for i, place in enumerate(places):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"{i}.jpg").write_bytes(sorted((photos / Path(place).name).iterdir())[i].read_bytes())
    return folder


def test_all_images_of_other_data_are_judged(run_folder, photos):
    said = []
    found = serving.evaluate(run_folder, photos, log=said.append)
    right = sum(Path(row.file).parent.name == row.predicted for row in serving.predict(run_folder, [photos]))
    assert (found["n"], found["accuracy"]) == (60, right / 60)
    assert said == [f"{photos}: all images, 60 of 60"]


def test_of_data_with_a_test_part_that_part_is_judged(run_folder, photos, tmp_path):
    said = []
    folder = copied(photos, tmp_path, ["train/china", "train/flower", "test/china"])
    assert serving.evaluate(run_folder, folder, log=said.append)["classes"]["china"]["n"] == 1
    assert said == [f"{folder}: the test part, 1 of 3"]


def test_of_the_runs_own_data_the_test_part_of_its_split_is_judged(tiny_savedmodel, photos, tmp_path):
    model = heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), SIZE)
    folder = write_run(tmp_path / "run", model, classes=("china", "flower"), data=photos)
    assert serving.evaluate(folder, photos, log=lambda _: None)["n"] == len(load(photos).where("test"))


def test_one_class_alone_can_be_judged(run_folder, photos, tmp_path):
    found = serving.evaluate(run_folder, copied(photos, tmp_path, ["flower"]), log=lambda _: None)
    assert found["n"] == 1 and found["classes"]["china"]["recall"] is None


def test_classes_that_the_model_does_not_know_are_named(run_folder, photos, tmp_path):
    copied(photos, tmp_path, ["china", "flower"])
    (tmp_path / "flower").rename(tmp_path / "rose")
    with pytest.raises(DataError, match=r"has classes that the model doesn't know: rose\. It knows: china, flower, none <of> these\."):
        serving.evaluate(run_folder, tmp_path, log=lambda _: None)


def test_images_that_can_not_be_judged_are_named(run_folder, photos, tmp_path):
    (copied(photos, tmp_path, ["china", "flower"]) / "china/0.jpg").write_text("text")
    with pytest.raises(ImageError, match=r"1 of 2 images can't be judged: china/0\.jpg is no image, it begins with b'text'\. Repair or remove them\."):
        serving.evaluate(run_folder, tmp_path, log=lambda _: None)


def test_data_that_is_none_is_refused(run_folder, tmp_path):
    with pytest.raises(DataError, match=r"nothing is no labelled data\. Expected a folder with a folder for each class"):
        serving.evaluate(run_folder, tmp_path / "nothing")
