"""From encoded images to probabilities: `predict`, `evaluate` and `export` share one graph, so that they agree by construction.

    encoded bytes ─preprocess.pixels─> pixels ─network, one graph of constants─> features ─head─> logits ─softmax─> probabilities

The weights become constants, since TensorFlow then folds BatchNorm into the convolutions and answers about a third faster.
"""

import csv
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from uuid import uuid4

import keras
import numpy as np
import tensorflow as tf

from tfxfer import data as data_room
from tfxfer import evaluate as evaluate_room
from tfxfer import backbone, heads, preprocess, savedmodel  # noqa: F401  (backbone and heads register their layers with Keras)
from tfxfer.errors import DataError, ImageError, ServingError
from tfxfer.run import open_run

# Images decoded at once: enough for the cores of a server, and few enough that a batch of large photos doesn't fill its memory.
PARALLEL = 8
WARMUP = "tf_serving_warmup_requests"
SHOWN = 10


class Prediction(NamedTuple):
    """One line of `tfxfer predict`: the file as given or found, its class, and that class's calibrated probability."""

    file: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Served:
    """A run's model, ready to answer.

    Args:
        classes: names, in the order of the columns of the probabilities.
        labels: the run's file of names, one a line.
        probabilities: encoded images, string [B], to float32 [B, C].
        tensor: pixels in the backbone's value range, float32 [B, height, width, 3], to float32 [B, C].
        features: encoded images, string [B], to what the head sees, float32 [B, F]; None where the model has no such tensor.
        image_size: (height, width) in pixels.
    """

    classes: tuple[str, ...]
    labels: Path
    probabilities: Callable[[tf.Tensor], tf.Tensor]
    tensor: Callable[[tf.Tensor], tf.Tensor]
    features: Callable[[tf.Tensor], tf.Tensor] | None
    image_size: tuple[int, int]


def open_model(folder: str | os.PathLike) -> Served:
    """Load a finished run's model as one graph of constants from encoded images to probabilities.

    Raises:
        RunError: the folder is not a finished run.
        ServingError: its model can't be loaded, or doesn't fit its labels.
    """
    run = open_run(folder)
    settings, classes = run.settings(), tuple(run.classes())
    image_size = tuple(settings["image_size"]["value"])
    value_range = tuple(settings["value_range"]["value"])
    model = load(run.path("model.keras"))
    if tuple(model.output_shape[1:]) != (len(classes),) or tuple(model.input_shape[1:]) != (*image_size, 3):
        raise ServingError(
            f"{run.path('model.keras')} takes {model.input_shape} and gives {model.output_shape}; expected (None, {image_size[0]}, {image_size[1]}, 3) and "
            f"(None, {len(classes)}), as settings.json and labels.txt say. The run folder was changed: run it again."
        )
    network = constant(model, image_size)

    encoded = tf.TensorSpec((None,), tf.string, name="inputs")

    @tf.function(input_signature=[encoded])
    def decode(inputs: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec((*image_size, 3), tf.float32)
        return tf.map_fn(lambda one: preprocess.pixels(one, image_size, value_range), inputs, fn_output_signature=spec, parallel_iterations=PARALLEL)

    pixels = tf.TensorSpec((None, *image_size, 3), tf.float32, name="inputs")
    return Served(
        classes,
        run.path("labels.txt"),
        tf.function(lambda inputs: network(decode(inputs))[0], input_signature=[encoded]),
        tf.function(lambda inputs: network(inputs)[0], input_signature=[pixels]),
        tf.function(lambda inputs: network(decode(inputs))[1], input_signature=[encoded]) if len(network.outputs) > 1 else None,
        image_size,
    )


def load(path: Path) -> keras.Model:
    """`keras.models.load_model`, with its many errors as one sentence."""
    try:
        return keras.models.load_model(path, compile=False)
    except (TypeError, ValueError, OSError, KeyError, AttributeError) as error:
        # Keras wraps the reason, with all of the model's config, once a level.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip() or type(error).__name__
        first = reason.splitlines()[0].split(". Make sure custom")[0].rstrip(".")
        hint = "Import the file that defines it first." if "locate" in first else "It seems damaged: run it again."
        raise ServingError(f"{path} can't be loaded: {first}. {hint}") from error


def constant(model: keras.Model, image_size: tuple[int, int]) -> Any:
    """The model in inference mode as a function of pixels: [probabilities [B, C], features [B, F] where it has them], weights as constants."""
    outputs = [model.outputs[0]] + [found for found in [features_of(model)] if found is not None]
    both = keras.Model(model.inputs, outputs)

    @tf.function(input_signature=[tf.TensorSpec((None, *image_size, 3), tf.float32)])
    def call(pixels):
        n = tf.shape(pixels)[0]
        # TensorFlow's fused convolutions fail on an empty batch: it answers for a black image, of which nothing is kept.
        logits, *features = both(tf.cond(n > 0, lambda: pixels, lambda: tf.zeros((1, *image_size, 3))), training=False)
        return [tf.nn.softmax(tf.cast(logits, tf.float32))[:n], *(tf.cast(f, tf.float32)[:n] for f in features)]

    return savedmodel.convert_to_constants.convert_variables_to_constants_v2(call.get_concrete_function())


def features_of(model: keras.Model) -> Any | None:
    """What the head sees: the first tensor [B, F] that all data passes through, the head's own output aside."""
    for layer in model.layers:
        try:
            tensor = layer.output
            if len(tensor.shape) == 2 and tensor is not model.outputs[0]:
                keras.Model(tensor, model.outputs)
                return tensor
        except (AttributeError, ValueError):  # a layer that is called twice or not at all, or a tensor that data passes by
            continue
    return None


# --- predict and evaluate ---------------------------------------------------------------------------------------------------------------------


def predict(folder: str | os.PathLike, paths: Iterable[str | os.PathLike], *, batch_size: int = 32, log: Callable[[str], None] = print) -> Iterator[Prediction]:
    """Predict image files, and those below folders, with a finished run's model.

    Yields a `Prediction` a file, in the order given, sorted within a folder; hidden files and files that are no images are passed by in folders.

    Raises:
        RunError, ServingError: the run can't be used.
        DataError: a path does not exist, or there is no image at all.
        ImageError: files that can't be decoded; raised after all others were predicted.
    """
    files = found(paths, log)
    return predictions(open_model(folder), files, batch_size)


def predictions(model: Served, files: list[str], batch_size: int) -> Iterator[Prediction]:
    bad = []
    for i, answer in answers(model, lambda i: Path(files[i]).read_bytes(), len(files), batch_size):
        if isinstance(answer, str):
            bad.append(f"{files[i]} ({answer})")
        else:
            best = int(answer.argmax())
            yield Prediction(files[i], model.classes[best], float(answer[best]))
    if bad:
        more = f", and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise ImageError(f"{len(bad)} of {len(files)} files can't be predicted, the others were: {'; '.join(bad[:SHOWN])}{more}.")


def found(paths: Iterable[str | os.PathLike], log: Callable[[str], None]) -> list[str]:
    """Image files as given, or found in folders."""
    files = []
    for path in map(os.fspath, paths):
        if os.path.isdir(path):
            files += sorted(str(one) for one in Path(path).rglob("*") if one.is_file())
        else:
            files.append(path)
    return files


def answers(model: Served, read: Callable[[int], bytes], n: int, batch_size: int) -> Iterator[tuple[int, np.ndarray | str]]:
    """Probabilities [C] of each of `n` encoded images in order, or why there are none. Two batches at a time: one is read while the other computes."""
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1. Received: batch_size={batch_size}")

    def batch(first: int) -> list[np.ndarray | str]:
        several = [attempt(lambda i=i: read(i)) for i in range(first, min(first + batch_size, n))]
        good = [i for i, one in enumerate(several) if isinstance(one, bytes)]
        try:
            rows = list(model.probabilities(tf.constant([several[i] for i in good], tf.string)).numpy())
        except tf.errors.InvalidArgumentError:
            # One bad image fails the whole batch: find it by asking one by one.
            rows = [attempt(lambda i=i: model.probabilities(tf.constant([several[i]])).numpy()[0]) for i in good]
        for i, row in zip(good, rows, strict=True):
            several[i] = row
        return several

    with ThreadPoolExecutor(2) as pool:
        waiting: deque = deque()
        try:
            for first in range(0, n, batch_size):
                waiting.append((first, pool.submit(batch, first)))
                if len(waiting) > 2:
                    start, future = waiting.popleft()
                    yield from enumerate(future.result(), start)
            for start, future in waiting:
                yield from enumerate(future.result(), start)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def attempt(call: Callable[[], Any]) -> Any:
    """What a call returns, or in a few words why an image can't be read or decoded."""
    try:
        return call()
    except OSError as error:
        return error.strerror or str(error)
    except tf.errors.InvalidArgumentError:
        return "not an image that can be decoded"


def evaluate(folder: str | os.PathLike, data: Any, *, data_dir: str | os.PathLike | None = None, batch_size: int = 32, log: Callable[[str], None] = print) -> dict[str, Any]:
    raise NotImplementedError


def write_csv(rows: Iterable[Prediction], to: str | os.PathLike | None = None) -> None:
    """Columns `file`, `predicted`, `probability`; to standard output where `to` is None. Rows are written as they come; an `ImageError` at their end
    leaves all the others written."""
    if to is None:
        return write_rows(rows, sys.stdout)
    try:
        with open(to, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write_rows(rows, file)
    except OSError as error:
        raise ServingError(f"{os.fspath(to)} can't be written: {error.strerror or error}. Choose another file with --to.") from error


def write_rows(rows: Iterable[Prediction], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows((row.file, row.predicted, f"{row.probability:.6f}") for row in rows)
    file.flush()


# --- export -----------------------------------------------------------------------------------------------------------------------------------


def export(folder: str | os.PathLike, to: str | os.PathLike, *, log: Callable[[str], None] = print) -> Path:
    """Write a finished run's model as a SavedModel that TensorFlow Serving serves, to `<to>/<version>/`; version = the largest there is + 1.

    Signatures, the batch as dimension 0 of all:
        serving_default: `inputs`, encoded images, string [B], to `classes`, string [B, C], and `scores`, float32 [B, C], the most probable class first.
        tensor: `inputs`, pixels in the backbone's value range, float32 [B, height, width, 3], to `probabilities`, float32 [B, C], in the order of
            `assets/labels.txt`.
        features: `inputs`, encoded images, string [B], to `features`, float32 [B, F], what the head sees.

    Returns: the folder of the version. It appears under its name when it is whole.

    Raises:
        RunError: not a finished run.
        ServingError: the model can't be loaded, or the folder can't be written.
    """
    open_run(folder)
    to = Path(to)
    aside = to / f".export-{uuid4().hex}"
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ServingError(f"{to} can't be written: {error.strerror or error}. Choose a folder that exists or can be made.") from error
    try:
        write(open_model(folder), aside)
        return move(aside, to)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().splitlines()[0]
        raise ServingError(f"the export to {to} failed: {reason}. Nothing was left there; make room, or choose another folder.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write(model: Served, folder: Path) -> None:
    module = tf.Module(name="tfxfer")
    module.labels = tf.saved_model.Asset(str(model.labels))
    encoded = tf.TensorSpec((None,), tf.string, name="inputs")

    @tf.function(input_signature=[encoded])
    def best_first(inputs):
        scores, order = tf.math.top_k(model.probabilities(inputs), k=len(model.classes))
        return {"classes": tf.gather(tf.constant(model.classes), order), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec((None, *model.image_size, 3), tf.float32, name="inputs")])
    def tensor(inputs):
        return {"probabilities": model.tensor(inputs)}

    signatures = {"serving_default": best_first, "tensor": tensor}
    if model.features is not None:
        signatures["features"] = tf.function(lambda inputs: {"features": model.features(inputs)}, input_signature=[encoded])
    tf.saved_model.save(module, str(folder), signatures=signatures)
    extra = folder / "assets.extra"
    extra.mkdir()
    # Loaded models answer their first request late, since TensorFlow optimises a graph when it first runs: the server asks these before it says ready.
    image = tf.io.encode_jpeg(tf.fill((*model.image_size, 3), tf.constant(128, tf.uint8))).numpy()
    pixels = tf.compat.v1.make_tensor_proto(0.0, tf.float32, shape=(1, *model.image_size, 3))
    with tf.io.TFRecordWriter(str(extra / WARMUP)) as records:
        for name in signatures:
            records.write(prediction_log(name, pixels if name == "tensor" else tf.make_tensor_proto([image])))


def prediction_log(signature: str, inputs: Any) -> bytes:
    """A `tensorflow.serving.PredictionLog` of one PredictRequest, in protobuf's wire format (tensorflow_serving/apis/prediction_log.proto, predict.proto).

    Written by hand: the package that defines it is needed for nothing else.
    """
    spec = field(3, signature.encode())  # ModelSpec.signature_name
    entry = field(1, b"inputs") + field(2, inputs.SerializeToString())  # an entry of a map: key, value
    request = field(1, spec) + field(2, entry)  # PredictRequest.model_spec, .inputs
    return field(6, field(1, request))  # PredictionLog.predict_log, PredictLog.request


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field: its key, the length as a varint, the bytes."""
    length, key = len(value), bytes([number << 3 | 2])
    while length > 127:
        key += bytes([length & 127 | 128])
        length >>= 7
    return key + bytes([length]) + value


def move(aside: Path, to: Path) -> Path:
    """Make what was written durable, then give it the next free version."""
    for path in (aside, *aside.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    while True:
        version = to / str(1 + max((int(name) for name in os.listdir(to) if name.isascii() and name.isdigit()), default=0))
        try:
            aside.rename(version)
            break
        except OSError:
            if not version.exists():  # otherwise another export took the number in between
                raise
    descriptor = os.open(to, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return version
