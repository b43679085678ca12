"""The front door in Python: fit on all kinds of data, predict, evaluate, report, save, export."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import crops

import tfxfer
from tfxfer.errors import RunError
from tfxfer.run import open_run

pytestmark = pytest.mark.usefixtures("opened_once")

CLASSES = ["china", "flower"]


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """60 small photos and their labels."""
    images = [
        np.asarray(photo.resize((48, 48)))
        for name, seed in zip(CLASSES, (1, 2), strict=True)
        for photo in crops(f"{name}.jpg", 30, seed)
    ]
    return np.stack(images), np.repeat([0, 1], 30)


@pytest.fixture(scope="module")
def fitted(arrays, tiny_centred) -> tfxfer.Transfer:
    model = tfxfer.Transfer(tiny_centred, head="linear", seed=3)
    return model.fit(*arrays, classes=CLASSES)


@pytest.mark.long
def test_arrays_are_predicted_as_the_keras_model_says(fitted, arrays):
    images, _ = arrays
    found = fitted.predict(images[:4])
    pixels, expected_range = tfxfer.inputs.image.pixels, fitted.run.takes().value_range
    encoded = [tfxfer.data.from_arrays(images, arrays[1]).read(i) for i in range(4)]
    logits = fitted.model(np.stack([pixels(one, (32, 32), expected_range) for one in encoded]))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    assert [one.predicted for one in found] == [CLASSES[i] for i in expected.argmax(1)]
    np.testing.assert_allclose([one.probability for one in found], expected.max(1), atol=1e-5)


@pytest.mark.long
def test_only_figures_are_printed(arrays, tiny_centred, capfd):
    made = tfxfer.Transfer(tiny_centred, head="gaussian").fit(*arrays)
    made.predict(arrays[0][:2])
    out, err = capfd.readouterr()
    assert "accuracy" in out and str(made.run.folder) not in out
    assert "WARNING" not in err and "AutoGraph" not in err


def test_files_and_folders_are_predicted(fitted, photos):
    (one,) = fitted.predict(next((photos / "flower").iterdir()), top_k=2)
    assert {one.predicted, one.others[0][0]} == set(CLASSES)
    assert len(fitted.predict([str(photos / "china"), photos / "flower"])) == 60


@pytest.mark.long
def test_a_folder_and_a_dataset_of_keras_are_fitted_to_the_same_photos(photos, tiny_centred):
    folder = tfxfer.Transfer(tiny_centred, head="gaussian").fit(photos)
    batches = keras.utils.image_dataset_from_directory(photos, image_size=(48, 48), verbose=False)
    dataset = tfxfer.Transfer(tiny_centred, head="gaussian").fit(batches)
    assert folder.classes == dataset.classes == CLASSES
    for one in (folder, dataset):
        assert one.run.metrics()["test"]["n"] == 10


@pytest.mark.long
def test_it_is_judged_on_the_test_part_or_on_all_given_arrays(fitted, arrays, photos):
    assert fitted.evaluate(*arrays)["n"] == 60
    assert fitted.evaluate(photos)["n"] == 60
    own = tfxfer.data.from_arrays(*arrays, classes=CLASSES, seed=3)
    assert fitted.evaluate(own)["accuracy"] == fitted.run.metrics()["test"]["accuracy"]


@pytest.mark.long
def test_labels_mean_the_same_in_fit_and_in_evaluate(arrays, tiny_centred):
    images, labels = arrays
    made = tfxfer.Transfer(tiny_centred, head="gaussian").fit(images, 2 * labels + 1)
    assert made.classes == ["1", "3"]
    figures = made.evaluate(images[30:], 2 * labels[30:] + 1)
    assert figures["classes"]["3"]["n"] == 30 and figures["classes"]["1"]["n"] == 0


@pytest.mark.long
def test_all_images_of_a_dataset_are_judged(fitted, arrays):
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(7)
    assert fitted.evaluate(batches)["n"] == 60


@pytest.mark.long
def test_photos_of_a_program_alone_calibrate_a_file_for_phones(fitted, tmp_path):
    folder = fitted.export(tmp_path / "phone", format="litert", max_accuracy_drop=1)
    assert (folder / "model.int8.tflite").is_file()


@pytest.mark.long
def test_a_layer_as_head_is_not_trained_itself(arrays, tiny_centred):
    head = keras.layers.Dense(2)
    tfxfer.Transfer(tiny_centred, head=head).fit(*arrays, epochs=1)
    assert not head.built
    with pytest.raises(ValueError, match="2 outputs. Received: 7"):
        tfxfer.Transfer(tiny_centred, head=keras.layers.Dense(7)).fit(*arrays, epochs=1)


def test_a_head_that_a_recipe_can_not_use_is_refused_at_once(arrays):
    for head in ("mlp", keras.layers.Dense):
        with pytest.raises(ValueError, match="gaussian"):
            tfxfer.Transfer("somewhere", head=head).fit(*arrays, recipe="partial")
    with pytest.raises(TypeError, match="sed"):
        tfxfer.Transfer("somewhere", sed=1)


def test_one_image_is_not_taken_for_many(fitted, arrays):
    with pytest.raises(ValueError, match="image\\[None\\]"):
        fitted.predict(arrays[0][0])


@pytest.mark.long
def test_the_folder_lives_as_long_as_the_run(arrays, tiny_centred):
    run = tfxfer.Transfer(tiny_centred, head="gaussian").fit(*arrays).run
    assert run.metrics()["test"]["n"] > 0


def test_a_report_of_a_stranger_is_not_copied(fitted, tmp_path):
    folder = Path(shutil.copytree(fitted.run.folder, tmp_path / "theirs"))
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(tmp_path / "private.txt")
    (tmp_path / "private.txt").write_text("mine")
    kept = tfxfer.load(folder).save(tmp_path / "kept")
    assert "mine" not in (kept / "report.html").read_text()
    assert not open_run(kept).is_own()


@pytest.mark.long
def test_what_is_saved_is_a_run_like_any_other(fitted, arrays, tmp_path):
    made = tfxfer.load(fitted.run.folder)
    folder = made.save(tmp_path / "kept")
    assert open_run(folder).is_own()
    again = tfxfer.load(folder)
    first, second = fitted.predict(arrays[0][:3]), again.predict(arrays[0][:3])
    assert [one.probability for one in first] == [one.probability for one in second]
    assert again.report() == folder / "report.html"
    with pytest.raises(RunError, match="kept"):
        again.save(folder)


def test_it_is_exported(fitted, tmp_path):
    folder = fitted.export(tmp_path / "served")
    assert (folder / "saved_model.pb").is_file()
    with pytest.raises(ValueError, match="onnx"):
        fitted.export(tmp_path / "other", format="onnx")


@pytest.mark.long
@pytest.mark.parametrize(
    "head", [keras.layers.Dense, lambda classes: keras.layers.Dense(classes, name="mine")]
)
def test_a_head_of_your_own_is_an_argument(head, arrays, tiny_centred):
    made = tfxfer.Transfer(tiny_centred, head=head).fit(*arrays, epochs=2)
    assert made.run.metrics()["test"]["n"] > 0
    assert made.run.settings()["epochs"] == {"value": 2, "origin": "given"}


@pytest.mark.long
def test_another_recipe_tunes_the_network(arrays, tiny_centred):
    made = tfxfer.Transfer(tiny_centred).fit(*arrays, recipe="partial", epochs=1, views=0)
    assert made.run.settings()["chosen"]["value"] in ("frozen", "tuned", "averaged")


def test_the_report_says_how_it_was_made(fitted):
    call = open_run(fitted.run.folder).settings()["call"]["value"]
    compile(call, "call", "exec")
    assert "tfxfer.Transfer(" in call and "seed=3" in call and "head='linear'" in call
    assert call in (fitted.run.folder / "MODEL_CARD.md").read_text()


def test_a_notebook_shows_the_figures(fitted):
    html = fitted._repr_html_()
    assert f"{fitted.run.metrics()['test']['n']} test photos" in html
    assert "not fitted" in tfxfer.Transfer("somewhere")._repr_html_()


def test_nothing_is_predicted_before_it_is_fitted(arrays):
    with pytest.raises(RunError, match="fit"):
        tfxfer.Transfer("somewhere").predict(arrays[0])


def test_data_of_no_known_kind_are_named():
    with pytest.raises(ValueError, match="ndarray"):
        tfxfer.Transfer("somewhere").fit(np.zeros((4, 8, 8, 3)))


@pytest.mark.long
def test_a_run_that_is_no_longer_used_leaves_no_folder(arrays, tiny_centred):
    made = tfxfer.Transfer(tiny_centred, head="gaussian").fit(*arrays)
    folder = Path(made.run.folder)
    assert folder.is_dir()
    del made
    assert not folder.exists()
