"""Export: one graph from bytes to probabilities, as TensorFlow Serving asks for it."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from runs import CLASSES, SIZE, write_kinds, write_run
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfxfer import heads, savedmodel, serving
from tfxfer.backbone import Backbone
from tfxfer.errors import RunError, ServingError
from tfxfer.evaluate import doubt
from tfxfer.inputs.image import decode as preprocess
from tfxfer.serving.model import open_network
from tfxfer.serving.place import move

pytestmark = pytest.mark.usefixtures("opened_once")

# What a server runs: TensorFlow and the folder, nothing else.
ALONE = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = sys.argv[2:]
batch = tf.constant([open(file, "rb").read() for file in files])
answer = model.signatures["serving_default"](inputs=batch)
assert "tfxfer" not in sys.modules
print(json.dumps({"classes": [[c.decode() for c in row] for row in answer["classes"].numpy()], \
"scores": answer["scores"].numpy().tolist()}))
"""


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory) -> Path:
    """50 files of every kind that is served."""
    return write_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel) -> Path:
    """A finished run of a head with random weights."""
    keras.utils.set_random_seed(1)
    backbone = Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    head = keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(len(CLASSES))])
    return write_run(
        tmp_path_factory.mktemp("runs") / "frozen-1", heads.join(backbone, head, (*SIZE, 3))
    )


@pytest.fixture(scope="module")
def model(run_folder) -> keras.Model:
    return keras.models.load_model(run_folder / "model.keras")


@pytest.fixture(scope="module")
def pixels(all_kinds) -> tf.Tensor:
    """The files as the network of the run takes them."""
    return tf.stack([preprocess.pixels(one, SIZE, (-1, 1)) for one in read(all_kinds)])


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory) -> Path:
    return serving.export(run_folder, tmp_path_factory.mktemp("serving") / "photos")


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def graph_of(folder):
    return SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def read(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


# --- export ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_process_with_tensorflow_alone_answers_as_predict_does(run_folder, exported, all_kinds):
    predicted = list(serving.predict(run_folder, [all_kinds], batch_size=3))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, exported, *(row.file for row in predicted)],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert [row.predicted for row in predicted] == [classes[0] for classes in answer["classes"]]
    np.testing.assert_allclose(
        [row.probability for row in predicted], np.array(answer["scores"])[:, 0], atol=1e-5
    )


@pytest.mark.long
def test_served_answers_are_those_of_the_keras_model(model, signatures, all_kinds, pixels):
    expected = tf.nn.softmax(model(pixels)).numpy()
    answer = signatures["serving_default"](inputs=tf.constant(read(all_kinds)))
    columns = [[CLASSES.index(name.decode()) for name in row] for row in answer["classes"].numpy()]
    np.testing.assert_allclose(
        np.take_along_axis(expected, np.array(columns), 1), answer["scores"], atol=1e-5
    )


@pytest.mark.long
def test_predict_python_and_the_served_model_agree_on_files_of_every_kind(
    run_folder, model, signatures, all_kinds, pixels
):
    files = sorted(all_kinds.iterdir())
    assert len(files) == 50
    python = tf.nn.softmax(model(pixels)).numpy()
    served = signatures["probabilities"](inputs=tf.constant(read(all_kinds)))[
        "probabilities"
    ].numpy()
    rows = list(serving.predict(run_folder, files, top_k=3))
    predicted = np.array(
        [
            [{row.predicted: row.probability, **dict(row.others)}[name] for name in CLASSES]
            for row in rows
        ]
    )
    assert np.abs(served - python).max() <= 1e-5 and np.abs(predicted - python).max() <= 1e-5


@pytest.mark.long
def test_scores_are_sorted_and_add_up_to_one(signatures, all_kinds):
    scores = signatures["serving_default"](inputs=tf.constant(read(all_kinds)))["scores"].numpy()
    assert scores.shape == (50, 3) and (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)


@pytest.mark.long
def test_tensor_signature_takes_pixels_in_the_value_range_of_the_backbone(
    model, signatures, pixels
):
    np.testing.assert_allclose(
        signatures["tensor"](inputs=pixels)["probabilities"],
        tf.nn.softmax(model(pixels)),
        atol=1e-6,
    )


@pytest.mark.long
def test_features_signature_gives_what_the_head_sees(model, signatures, all_kinds, pixels):
    backbone = next(layer for layer in model.layers if isinstance(layer, Backbone))
    np.testing.assert_allclose(
        signatures["features"](inputs=tf.constant(read(all_kinds)))["features"],
        backbone(pixels),
        atol=1e-5,
    )


@pytest.mark.long
def test_features_of_a_mirrored_run_are_the_mean_of_both_sides(
    tiny_savedmodel, tmp_path, all_kinds
):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    folder = write_run(
        tmp_path / "run", heads.join(backbone, keras.layers.Dense(3), (*SIZE, 3), mirror=True)
    )
    pixels = tf.stack([preprocess.pixels(one, SIZE) for one in read(all_kinds)])
    expected = (backbone(pixels) + backbone(pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(
        open_network(folder).answer(tf.constant(read(all_kinds)))["features"], expected, atol=1e-5
    )


def examples(files):
    """Serialized tf.Examples, as the Classify call sends them."""
    values = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[file])) for file in files]
    return [
        tf.train.Example(
            features=tf.train.Features(feature={"image/encoded": value})
        ).SerializeToString()
        for value in values
    ]


SHAPES = {
    "serving_default": {"classes": (3,), "scores": (3,)},
    "classify": {"classes": (3,), "scores": (3,)},
    "probabilities": {"probabilities": (3,), "unknown": ()},
    "tensor": {"probabilities": (3,)},
    "features": {"features": (16,)},
}


@pytest.mark.long
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_every_output_has_the_batch_as_dimension_0(signatures, all_kinds, name, n):
    files = read(all_kinds)[:n]
    inputs = (
        tf.zeros((n, *SIZE, 3))
        if name == "tensor"
        else tf.constant(examples(files) if name == "classify" else files, tf.string, (n,))
    )
    assert {key: tuple(value.shape) for key, value in signatures[name](inputs=inputs).items()} == {
        key: (n, *width) for key, width in SHAPES[name].items()
    }


@pytest.mark.long
def test_classify_takes_examples_and_says_what_the_default_signature_says(
    exported, signatures, all_kinds
):
    files = read(all_kinds)[:7]
    expected, found = (
        signatures["serving_default"](inputs=tf.constant(files)),
        signatures["classify"](inputs=tf.constant(examples(files))),
    )
    assert found["classes"].numpy().tolist() == expected["classes"].numpy().tolist()
    np.testing.assert_array_equal(found["scores"], expected["scores"])
    # What TensorFlow Serving's Classify call asks of a signature (classifier.cc).
    (signature,) = [d for name, d in graph_of(exported).signature_def.items() if name == "classify"]
    assert signature.method_name == "tensorflow/serving/classify"
    assert (set(signature.inputs), set(signature.outputs)) == ({"inputs"}, {"classes", "scores"})


@pytest.mark.long
def test_unknown_is_the_score_that_the_run_fitted(run_folder, signatures, all_kinds):
    features = signatures["features"](inputs=tf.constant(read(all_kinds)))["features"].numpy()
    expected = doubt.load(run_folder / "doubt.npz").unknown.scores(features)
    np.testing.assert_allclose(
        signatures["probabilities"](inputs=tf.constant(read(all_kinds)))["unknown"],
        expected,
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.long
def test_labels_are_an_asset(exported):
    assert (exported / "assets/labels.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert [asset.filename for asset in graph_of(exported).asset_file_def] == ["labels.txt"]


@pytest.mark.long
def test_warm_up_requests_are_logs_that_the_signatures_answer(exported, signatures):
    logs = [
        PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(
            str(exported / "assets.extra/tf_serving_warmup_requests")
        )
    ]
    asked = set()
    for log in logs:
        if log.HasField("classify_log"):
            request = log.classify_log.request
            inputs = {
                "inputs": tf.constant(
                    [example.SerializeToString() for example in request.input.example_list.examples]
                )
            }
        else:
            request = log.predict_log.request
            inputs = {
                name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()
            }
        asked.add((request.model_spec.signature_name, log.WhichOneof("log_type")))
        for output in signatures[request.model_spec.signature_name](**inputs).values():
            assert output.shape[0] == 1
    assert asked == {
        (name, "classify_log" if name == "classify" else "predict_log") for name in SHAPES
    }


def test_the_batching_config_sets_what_tensorflow_serving_knows(exported):
    # session_bundle_config.proto: BatchingParameters, whose numbers are wrapped.
    found = dict(
        re.findall(
            r"^(\w+) \{ value: (\d+) \}$",
            (exported / "assets.extra/batching.config").read_text(),
            re.MULTILINE,
        )
    )
    assert found == {
        "max_batch_size": "32",
        "batch_timeout_micros": "2000",
        "max_enqueued_batches": "100",
        "num_batch_threads": "2",
    }


@pytest.mark.long
def test_a_request_over_grpc_is_answered_by_its_signature(signatures, all_kinds):
    # What a client writes, and what TensorFlow Serving makes of it: the tensors of the request
    # become those of the signature.
    request = PredictRequest()
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(read(all_kinds)[:2], shape=(2,)))
    again = PredictRequest.FromString(request.SerializeToString())
    answer = signatures["serving_default"](
        inputs=tf.constant(tf.make_ndarray(again.inputs["inputs"]))
    )
    assert answer["scores"].shape == (2, 3)


@pytest.fixture(scope="module")
def forgiving(run_folder, tmp_path_factory) -> Path:
    return serving.export(run_folder, tmp_path_factory.mktemp("null"), on_bad_image="null")


@pytest.fixture(scope="module")
def forgiving_signatures(forgiving):
    return tf.saved_model.load(str(forgiving)).signatures


# What the program saved_model_cli does.
TOOL = "from tensorflow.python.tools.saved_model_cli import main; main()"


@pytest.mark.long
@pytest.mark.parametrize("where", ["exported", "forgiving"])
def test_saved_model_cli_shows_it_and_finds_no_denied_operation(request, where):
    tool, folder = [python(), "-c", TOOL], request.getfixturevalue(where)
    shown = subprocess.run(
        [*tool, "show", "--dir", folder, "--tag_set", "serve"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f'SignatureDef key: "{name}"' in shown for name in SHAPES)
    scanned = subprocess.run(
        [*tool, "scan", "--dir", folder], capture_output=True, text=True, check=True
    ).stdout
    assert "does not contain the default denylisted ops" in scanned
    savedmodel.check_saved_model(folder)


@pytest.mark.long
def test_a_bad_image_fails_its_request_with_a_clear_error(signatures, all_kinds):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="it is no image. Expected JPEG, JPEG XL, PNG, GIF, BMP, WebP",
    ):
        signatures["serving_default"](inputs=tf.constant([*read(all_kinds)[:2], b"this is text"]))


@pytest.mark.long
def test_a_bad_image_gets_an_empty_answer_where_that_was_asked_for(
    forgiving_signatures, signatures, all_kinds
):
    good = read(all_kinds)
    found = forgiving_signatures["serving_default"](
        inputs=tf.constant([b"this is text", *good, b"", good[0][:40]])
    )
    bad, rest = [0, len(good) + 1, len(good) + 2], slice(1, len(good) + 1)
    assert (
        np.unique(found["classes"].numpy()[bad]).tolist() == [b""]
        and not found["scores"].numpy()[bad].any()
    )
    expected = signatures["serving_default"](inputs=tf.constant(good))
    assert found["classes"].numpy()[rest].tolist() == expected["classes"].numpy().tolist()
    np.testing.assert_allclose(found["scores"].numpy()[rest], expected["scores"], atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("files", [[], [b"this is text"], [b"", b"text"]])
def test_a_request_of_nothing_but_bad_images_is_answered(forgiving_signatures, files):
    found = forgiving_signatures["serving_default"](
        inputs=tf.constant(files, tf.string, (len(files),))
    )
    assert found["scores"].shape == (len(files), 3) and not found["scores"].numpy().any()


def test_the_first_version_is_1(exported):
    assert exported.name == "1" and os.listdir(exported.parent) == ["1"]


def test_decoding_is_kept_apart_from_the_network(exported):
    # With the loop over images in the same graph, TensorFlow folds no BatchNorm: 105 images a
    # second instead of 155.
    functions = graph_of(exported).graph_def.library.function
    apart = [function for function in functions if function.attr["_noinline"].b]
    decoding = [each for each in apart if "every" in each.signature.name]
    assert len(decoding) == 1 and any("While" in node.op for node in decoding[0].node_def)


def test_version_is_the_largest_plus_one_and_foreign_files_are_left_alone(tmp_path):
    for name in ("1", "7", "12.old", "x", ".export-a"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert move(tmp_path / ".export-a", tmp_path) == tmp_path / "8"
    assert sorted(os.listdir(tmp_path)) == ["1", "12.old", "7", "8", "notes.txt", "x"]


def test_two_exports_that_finish_at_once_get_two_versions(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/theirs").touch()
    (tmp_path / ".export-a").mkdir()
    listed = iter([[], ["1"]])  # the other export appears after the first listing
    monkeypatch.setattr(os, "listdir", lambda folder: next(listed))
    assert move(tmp_path / ".export-a", tmp_path) == tmp_path / "2"


def test_a_version_can_be_chosen_and_is_never_written_over(run_folder, tmp_path):
    assert serving.export(run_folder, tmp_path, version=7).name == "7"
    with pytest.raises(
        ServingError,
        match=(
            r"7 exists already\. Leave --version out for the next free one \(8\), "
            r"or choose another\."
        ),
    ):
        serving.export(run_folder, tmp_path, version=7)


@pytest.mark.parametrize("version", [None, 3])
def test_an_export_is_not_written_among_other_files(run_folder, tmp_path, version):
    (tmp_path / "0").mkdir()
    (tmp_path / "0/zero.jpg").touch()
    with pytest.raises(ServingError, match="holds 0, and no export"):
        serving.export(run_folder, tmp_path, version=version)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


METRICS = {
    "test": {"accuracy": 0.86, "low": 0.79, "high": 0.91, "n": 120},
    "validation": {"accuracy": 0.95, "low": 0.9, "high": 0.98, "n": 100},
}


@pytest.mark.long
def test_a_model_that_is_not_accurate_enough_is_not_exported(tiny_savedmodel, tmp_path):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(3), (*SIZE, 3)
    )
    run = write_run(tmp_path / "run", model, metrics=METRICS)
    text = (
        r"has accuracy 0\.860 on test \(95 % interval 0\.790 to 0\.910, n = 120\); "
        r"0\.9 is required\. Nothing was exported\."
    )
    with pytest.raises(ServingError, match=text):
        serving.export(run, tmp_path / "out", require_accuracy=0.9)
    assert not (tmp_path / "out").exists()
    assert serving.export(run, tmp_path / "out", require_accuracy=0.86).name == "1"
    blind = write_run(tmp_path / "blind", model, metrics={"test": None, "validation": None})
    with pytest.raises(
        ServingError,
        match=(
            "has no held-out examples, so that nothing is known of its accuracy; "
            r"0\.1 is required"
        ),
    ):
        serving.export(blind, tmp_path / "out", require_accuracy=0.1)


def test_an_output_path_below_a_file_is_refused(run_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ServingError,
        match=(
            r"file/serving can't be written: Not a directory\. "
            r"Choose a folder that exists or can be made\."
        ),
    ):
        serving.export(run_folder, tmp_path / "file" / "serving")


def test_a_full_disk_leaves_nothing_behind(run_folder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            ServingError,
            match=(
                "the export to .*serving failed: .*File too large.* Nothing was left there; "
                r"make room, or choose another folder\."
            ),
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
    with pytest.raises(
        ServingError, match=r"model\.keras can't be loaded: .*It seems damaged: run it again\."
    ):
        serving.load_model(tmp_path / "model.keras")


def test_a_layer_that_is_not_imported_is_named(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((2,)), Mine()]).save(tmp_path / "model.keras")
    with pytest.raises(
        ServingError,
        match=(
            r"can't be loaded: Could not locate class 'Mine'\. "
            r"Import the file that defines it first\."
        ),
    ):
        serving.load_model(tmp_path / "model.keras")


def test_labels_that_do_not_fit_the_model_are_refused(tiny_savedmodel, tmp_path):
    folder = write_run(
        tmp_path / "run",
        heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), (*SIZE, 3)),
    )
    with pytest.raises(
        ServingError,
        match=(
            r"gives \(None, 2\); expected \(None, 32, 32, 3\) and \(None, 3\), "
            r"as settings\.json and labels\.txt say"
        ),
    ):
        serving.open_model(folder)
