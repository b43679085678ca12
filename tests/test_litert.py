"""LiteRT files: one model in three kinds, which report what they lose and what they are."""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.schema_py_generated import BuiltinOperator
from logs import logged
from runs import SIZE, write_kinds, write_run

from tfxfer import data, heads, serving
from tfxfer.backbone import Backbone
from tfxfer.errors import DataError, ServingError
from tfxfer.features import Decoder
from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image import decode as preprocess
from tfxfer.recipes.frozen import frozen
from tfxfer.run import Run
from tfxfer.savedmodel import with_built_in_operations
from tfxfer.serving.litert import (
    Entry,
    Judging,
    check_built_in,
    explained,
    export_litert,
    in_float,
    in_int8,
    normalisation,
    open_interpreter,
    rows_of,
    run_lite,
)

PAGE = Path(__file__).parent.parent / "docs" / "serving.md"
CLASSES = ("china", "flower")
KINDS = ("float32", "float16", "int8")

# What a phone runs: LiteRT, NumPy and the file, nothing else.
ALONE = """
import json, sys, zipfile
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
assert image["dtype"] == output["dtype"] == np.float32
answers = []
for pixels in np.load(sys.argv[2]):
    interpreter.set_tensor(image["index"], pixels[None])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(output["index"])[0].tolist())
assert not {"tensorflow", "tfxfer"} & set(sys.modules)
print(json.dumps([zipfile.ZipFile(sys.argv[1]).read("labels.txt").decode().splitlines(), answers]))
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel, photos) -> Path:
    """A run whose head, random as it is, sees all taps at length one."""
    keras.utils.set_random_seed(1)
    backbone = Backbone(tiny_savedmodel, trainable=False, taps=3, value_range=(-1, 1))
    head = keras.Sequential([heads.TapNormalization(backbone.tap_widths), keras.layers.Dense(2)])
    return write_run(
        tmp_path_factory.mktemp("runs") / "run",
        heads.join(backbone, head, (*SIZE, 3)),
        classes=CLASSES,
        data=photos,
    )


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory, said) -> Path:
    with logged() as lines:
        folder = export_litert(run_folder, tmp_path_factory.mktemp("lite"), max_accuracy_drop=0.5)
    said += [line for line in lines if "accuracy" in line]
    return folder


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> np.ndarray:
    """50 files of every kind that is served."""
    files = sorted(write_kinds(tmp_path_factory.mktemp("kinds")).iterdir())
    return np.stack([preprocess.pixels(path.read_bytes(), SIZE, (-1, 1)) for path in files])


@pytest.mark.long
@pytest.mark.parametrize(("kind", "bound"), [("float32", 1e-4), ("float16", 1e-2), ("int8", 0.2)])
def test_a_process_with_litert_alone_answers_as_keras_does(
    run_folder, exported, pixels, tmp_path, kind, bound
):
    np.save(tmp_path / "pixels.npy", pixels)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, exported / f"model.{kind}.tflite", tmp_path / "pixels.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    labels, answers = json.loads(done.stdout)
    assert labels == list(CLASSES)
    expected = tf.nn.softmax(keras.models.load_model(run_folder / "model.keras")(pixels)).numpy()
    assert np.abs(np.array(answers) - expected).max() <= bound


@pytest.mark.long
def test_each_file_says_what_it_keeps(exported, said):
    assert (
        len(said) == 4
        and said[0].startswith("float model: accuracy 0.")
        and said[0].endswith("on 10 validation photos")
    )
    for line, kind in zip(said[1:], KINDS, strict=True):
        assert line.startswith(f"{kind}: accuracy 0.") and " 10 validation photos" in line
        assert line.endswith("ms a photo on one thread")


@pytest.mark.long
def test_the_labels_lie_beside_the_files(exported):
    assert (exported / "labels.txt").read_text("utf-8").splitlines() == list(CLASSES)


@pytest.mark.long
def test_the_client_in_the_docs_answers_as_predict_does(run_folder, exported, photos, tmp_path):
    (script,) = [
        text
        for text in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
        if "ai_edge_litert" in text
    ]
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "1").symlink_to(exported)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dogs").symlink_to(photos / "flower")
    done = subprocess.run(
        [sys.executable, "-c", script.replace("low, high = 0, 1 ", "low, high = -1, 1 ")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = serving.predict(run_folder, [photos / "flower" / line[0] for line in lines])
    compared = 0
    for (_, label, *probabilities), row in zip(lines, rows, strict=True):
        if row.probability > 0.52:  # of two classes, so nearer to a half either may come first
            assert label == row.predicted
            compared += 1
        assert max(map(float, probabilities)) == pytest.approx(row.probability, abs=0.02)
    assert compared


@pytest.mark.long
def test_examples_that_only_python_has_are_passed_on(tiny_savedmodel, photos, tmp_path):
    pixels = np.stack(
        [preprocess.pixels(file.read_bytes(), SIZE) for file in photos.rglob("*.jpg")]
    )
    labels = [CLASSES.index(file.parent.name) for file in photos.rglob("*.jpg")]
    examples = data.from_arrays(pixels, labels, classes=CLASSES)
    frozen(Run(tmp_path / "run"), data=examples, backbone=tiny_savedmodel, head="gaussian")
    with pytest.raises(DataError, match="data=examples"):
        export_litert(tmp_path / "run", tmp_path / "out")
    options = {"max_accuracy_drop": 1}
    found = export_litert(tmp_path / "run", tmp_path / "out", data=examples, **options)
    assert {f"model.{kind}.tflite" for kind in KINDS} < {path.name for path in found.iterdir()}


@pytest.mark.long
def test_only_built_in_operations_are_in_it(exported):
    for kind in KINDS:
        codes = {
            code.builtinCode
            for code in open_interpreter(
                (exported / f"model.{kind}.tflite").read_bytes()
            ).operatorCodes
        }
        assert BuiltinOperator.CUSTOM not in codes


def traced(call: Callable, *shape: int | None) -> Any:
    function = tf.function(call, input_signature=[tf.TensorSpec(shape, tf.int64)], autograph=False)
    return function.get_concrete_function()


def count(x: tf.Tensor, *, weights: tf.Tensor, binary: bool) -> tf.Tensor:
    return tf.raw_ops.DenseBincount(
        input=tf.cast(x, tf.int32), size=9, weights=weights, binary_output=binary
    )


ROW = np.array([[3, 1, 3, 5]])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: tf.concat(tf.split(x, 2, 1)[::-1], 1),
        lambda x: count(x, weights=tf.constant([[1.0, 2, 3, 4]]), binary=False),
    ],
)
def test_operations_that_count_words_are_written_with_others(call):
    concrete = traced(call, 1, 4)
    plain = with_built_in_operations(concrete)
    assert plain is not concrete
    answer, _ = run_lite(in_float(plain), ROW, Entry(("x",), "int64", ROW[0].shape))
    np.testing.assert_array_equal(answer, concrete(tf.constant(ROW)))


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: tf.split(x, 2, 0), (2, 4)),
        (lambda x: tf.split(x, 2, 1), (1, None)),
        (lambda x: tf.split(x, 2, 1), (1, 4, 3)),
        (lambda x: count(x, weights=tf.constant([], tf.float32), binary=False), (1, 4)),
        (lambda x: count(x, weights=tf.ones((1, 4)), binary=True), (1, 4)),
        (lambda x: count(x, weights=tf.ones((1, 4), tf.int32), binary=False), (1, 4)),
        (lambda x: count(x, weights=tf.ones(4), binary=False), (4,)),
    ],
)
def test_operations_that_do_not_count_words_stay_as_they_are(call, shape):
    concrete = traced(call, *shape)
    assert with_built_in_operations(concrete) is concrete


def test_no_image_is_read_for_an_app(photos, tmp_path):
    examples = data.load(shutil.copytree(photos, tmp_path / "photos"))
    takes, rows = ImageInput(SIZE, (0.0, 1.0)), np.arange(len(examples))
    judging = Judging(Decoder(examples, takes, 8), rows, rows, is_altered=False)
    shutil.rmtree(tmp_path / "photos")
    assert examples.kind.for_app(takes, judging.some_contents()).names == ("image",)


def test_an_operation_that_is_not_built_in_is_refused_by_name():
    call = tf.function(lambda x: tf.math.erfinv(x), input_signature=[tf.TensorSpec((1, 4))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.allow_custom_ops = True
    with pytest.raises(ServingError, match="Erfinv"):
        check_built_in(converter.convert(), "float32")


def table(data: bytes, at: int, *path: int) -> int:
    """Return where in a flatbuffer the table, vector or string behind these fields lies.

    The first element of a vector is field -1.
    """
    for number in path:
        if number == -1:
            at += 4
        else:
            vtable = at - struct.unpack_from("<i", data, at)[0]
            at += struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        at += struct.unpack_from("<I", data, at)[0]
    return at


@pytest.mark.long
def test_the_metadata_have_labels_and_normalisation(exported):
    for kind in KINDS:
        model = open_interpreter((exported / f"model.{kind}.tflite").read_bytes())
        (entry,) = [
            entry
            for entry in model.metadata
            if entry.name in (b"TFLITE_METADATA", "TFLITE_METADATA")
        ]
        data = bytes(model.buffers[entry.buffer].data)
        assert data[4:8] == b"M001"
        # ModelMetadata.subgraph_metadata[0].input_tensor_metadata[0].process_units[0].options,
        # a NormalizationOptions.
        root = struct.unpack_from("<I", data)[0]
        normalization = table(data, root, 3, -1, 2, -1, 4, -1, 1)
        mean, std = (
            struct.unpack_from("<f", data, table(data, normalization, number) + 4)[0]
            for number in (0, 1)
        )
        assert (mean, std) == (127.5, 127.5)
        # ... .output_tensor_metadata[0].associated_files[0].name
        name = table(data, root, 3, -1, 3, -1, 6, -1, 0)
        assert data[name + 4 : name + 4 + struct.unpack_from("<I", data, name)[0]] == b"labels.txt"


@pytest.mark.long
def test_a_mirrored_run_keeps_its_answers_in_int8(tiny_savedmodel, photos, pixels, tmp_path):
    keras.utils.set_random_seed(1)
    backbone = Backbone(tiny_savedmodel, trainable=False, taps=3, value_range=(-1, 1))
    head = keras.Sequential([heads.TapNormalization(backbone.tap_widths), keras.layers.Dense(2)])
    folder = write_run(
        tmp_path / "run",
        heads.join(backbone, head, (*SIZE, 3), mirror=True),
        classes=CLASSES,
        data=photos,
    )
    content = (
        export_litert(folder, tmp_path / "out", max_accuracy_drop=1) / "model.int8.tflite"
    ).read_bytes()
    expected = tf.nn.softmax(keras.models.load_model(folder / "model.keras")(pixels)).numpy()
    assert np.abs(run_lite(content, pixels)[0] - expected).max() <= 0.2


@pytest.fixture(scope="module")
def small_network() -> Callable:
    """A function of one image, whose result has one row, through a single number."""
    rng = np.random.default_rng(0)
    kernel = tf.constant(rng.normal(size=(3, 3, 3, 8)), tf.float32)

    def call(image):
        maps = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
        return tf.reduce_mean(maps / tf.reduce_max(maps), [1, 2])

    spec = tf.TensorSpec((1, 16, 16, 3), tf.float32)
    return tf.function(call, input_signature=[spec]).get_concrete_function()


def test_an_int8_file_is_that_of_tensorflows_own_debugger(small_network):
    images = list(np.random.default_rng(0).uniform(size=(8, 16, 16, 3)).astype(np.float32))
    content = in_int8(small_network, lambda: iter(images))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([small_network])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_nodes=rows_of(in_float(small_network))
    )
    with explained():  # hides what the converter prints
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=converter.representative_dataset,
            debug_options=options,
        )
        assert content == debugger.get_nondebug_quantized_model()
    expected = np.concatenate([small_network(tf.constant(image[None])) for image in images])
    np.testing.assert_allclose(run_lite(content, images)[0], expected, atol=0.02)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_normalisation_brings_bytes_into_the_value_range(value_range):
    mean, std = normalisation(value_range)
    assert ((0 - mean) / std, (255 - mean) / std) == pytest.approx(value_range)


@pytest.mark.long
def test_a_file_that_loses_too_much_is_not_written(run_folder, tmp_path):
    text = (
        "too much accuracy is lost on 10 validation photos, in points: float32 .*; "
        r"at most -200 were allowed\. Nothing was exported\."
    )
    with pytest.raises(ServingError, match=text):
        export_litert(run_folder, tmp_path / "out", max_accuracy_drop=-2)
    assert not (tmp_path / "out").exists()


@keras.saving.register_keras_serializable(package="tests")
class Digamma(keras.layers.Layer):
    """An operation that LiteRT doesn't have."""

    def call(self, x):
        return tf.math.digamma(x + 10)


@pytest.mark.long
def test_a_head_that_litert_can_not_hold_is_named(tiny_savedmodel, photos, tmp_path):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False),
        keras.Sequential([Digamma(), keras.layers.Dense(2)]),
        (*SIZE, 3),
    )
    folder = write_run(tmp_path / "run", model, classes=CLASSES, data=photos)
    with pytest.raises(
        ServingError,
        match=(
            r"the model can't be a LiteRT file: LiteRT has no tf\.Digamma\. "
            "Use a head of other operations"
        ),
    ):
        export_litert(folder, tmp_path / "out")
    assert serving.export(folder, tmp_path / "out").name == "1"


def test_images_that_are_gone_are_said(tiny_savedmodel, tmp_path):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), (*SIZE, 3)
    )
    folder = write_run(tmp_path / "run", model, classes=CLASSES, data=tmp_path / "gone")
    with pytest.raises(
        DataError,
        match=(
            "LiteRT files are judged, and int8 is calibrated, on the run's own photos: "
            ".*gone does not exist"
        ),
    ):
        export_litert(folder, tmp_path / "out")
    assert not os.path.exists(tmp_path / "out")


@pytest.mark.long
def test_the_file_is_a_zip_archive_too(exported):
    with zipfile.ZipFile(io.BytesIO((exported / "model.int8.tflite").read_bytes())) as archive:
        assert archive.namelist() == ["labels.txt"]
