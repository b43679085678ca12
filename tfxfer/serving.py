"""From encoded images to probabilities: `predict`, `evaluate` and `export` share one graph, so that they agree by construction.

    encoded bytes ─preprocess.pixels─> pixels ─network, one graph of constants─> features ─head─> logits ─softmax─> probabilities

The weights become constants, since TensorFlow then folds BatchNorm into the convolutions and answers about a third faster.
"""

import csv
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from uuid import uuid4

import keras
import numpy as np
import tensorflow as tf

from tfxfer import backbone, heads, preprocess, savedmodel  # noqa: F401  (backbone and heads register their layers with Keras)
from tfxfer.data import Examples, Found, find_images, find_source, load, readable
from tfxfer.data.images import problem
from tfxfer.errors import DataError, ImageError, ServingError, TfxferError
from tfxfer.evaluate import score
from tfxfer.features import reason
from tfxfer.run import Finished, open_run

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


def open_model(folder: str | os.PathLike, *, trust: bool = False) -> Served:
    """Load a finished run's model as one graph of constants from encoded images to probabilities.

    `trust` also loads a graph that can reach files, Python or the network.

    Raises:
        RunError: the folder is not a finished run.
        ServingError: its model can't be loaded, or doesn't fit its labels.
    """
    run = open_run(folder)
    settings, classes = run.settings(), tuple(run.classes())
    image_size = tuple(settings["image_size"]["value"])
    value_range = tuple(settings["value_range"]["value"])
    model = load_model(run.path("model.keras"), trust)
    if tuple(model.output_shape[1:]) != (len(classes),) or tuple(model.input_shape[1:]) != (*image_size, 3):
        raise ServingError(
            f"{run.path('model.keras')} takes {model.input_shape} and gives {model.output_shape}; expected (None, {image_size[0]}, {image_size[1]}, 3) and "
            f"(None, {len(classes)}), as settings.json and labels.txt say. The run folder was changed: run it again."
        )
    network = constant(model, image_size)

    encoded = tf.TensorSpec((None,), tf.string, name="inputs")

    # Kept apart: with its loop in the same graph TensorFlow folds nothing, and the network takes 40 % longer (measured).
    @tf.function(input_signature=[encoded], autograph=False, experimental_attributes={"_noinline": True})
    def decode(inputs: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec((*image_size, 3), tf.float32)
        return tf.map_fn(lambda one: preprocess.pixels(one, image_size, value_range), inputs, fn_output_signature=spec, parallel_iterations=PARALLEL)

    pixels = tf.TensorSpec((None, *image_size, 3), tf.float32, name="inputs")
    return Served(
        classes,
        run.path("labels.txt"),
        tf.function(lambda inputs: network(decode(inputs))[0], input_signature=[encoded], autograph=False),
        tf.function(lambda inputs: network(inputs)[0], input_signature=[pixels], autograph=False),
        tf.function(lambda inputs: network(decode(inputs))[1], input_signature=[encoded], autograph=False) if len(network.outputs) > 1 else None,
        image_size,
    )


def load_model(path: Path, trust: bool = False) -> keras.Model:
    """`keras.models.load_model`, with its many errors as one sentence."""
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except (TypeError, ValueError, OSError, KeyError, AttributeError) as error:
        # Keras wraps the reason, with all of the model's config, once a level.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip() or type(error).__name__
        first = reason.splitlines()[0].split(". Make sure custom")[0].rstrip(".")
        hint = "Import the file that defines it first." if "locate" in first else "" if "--trust" in first else "It seems damaged: run it again."
        raise ServingError(f"{path} can't be loaded: {first}. {hint}") from error


def constant(model: keras.Model, image_size: tuple[int, int]) -> Any:
    """The model in inference mode as a function of pixels: [probabilities [B, C], features [B, F] where it has them], weights as constants."""
    outputs = [model.outputs[0]] + [found for found in [heads.seen_by_head(model)] if found is not None]
    both = keras.Model(model.inputs, outputs)

    @tf.function(input_signature=[tf.TensorSpec((None, *image_size, 3), tf.float32)])
    def call(pixels):
        n = tf.shape(pixels)[0]
        # TensorFlow's fused convolutions fail on an empty batch: it answers for a black image, of which nothing is kept.
        logits, *features = both(tf.cond(n > 0, lambda: pixels, lambda: tf.zeros((1, *image_size, 3))), training=False)
        return [tf.nn.softmax(tf.cast(logits, tf.float32))[:n], *(tf.cast(f, tf.float32)[:n] for f in features)]

    return savedmodel.with_constants(call.get_concrete_function())


# --- predict and evaluate ---------------------------------------------------------------------------------------------------------------------


def predict(
    folder: str | os.PathLike, paths: Iterable[str | os.PathLike], *, batch_size: int = 32, trust: bool = False, log: Callable[[str], None] = print
) -> Iterator[Prediction]:
    """Predict image files, and those below folders, with a finished run's model.

    Yields a `Prediction` a file, in the order given, sorted within a folder; in folders, hidden files and those that are no images are passed over.

    Raises:
        RunError, ServingError: the run can't be used.
        DataError: a path does not exist, or there is no image at all.
        ImageError: files that can't be decoded; raised after all others were predicted.
    """
    files = find(paths, log)
    return predictions(open_model(folder, trust=trust), files, batch_size)


def predictions(model: Served, files: list[str], batch_size: int) -> Iterator[Prediction]:
    bad = []
    for file, answer in zip(files, answers(model, lambda i: Path(files[i]).read_bytes(), files, batch_size), strict=True):
        if isinstance(answer, str):
            bad.append(answer)
        else:
            best = int(answer.argmax())
            yield Prediction(file, model.classes[best], float(answer[best]))
    if bad:
        others = "the others were predicted" if len(bad) < len(files) else "no file was"
        raise ImageError(f"{len(bad)} of {len(files)} files can't be predicted, {others}: {listed(bad)}")


def listed(texts: list[str]) -> str:
    return "; ".join(texts[:SHOWN]) + (f"; and {len(texts) - SHOWN} more." if len(texts) > SHOWN else ".")


def find(paths: Iterable[str | os.PathLike], log: Callable[[str], None]) -> list[str]:
    """Image files as given, or found in folders."""
    files: list[str] = []
    for path in (os.fspath(path) for path in paths):
        if os.path.isdir(path):
            images, others = find_images(Path(path))
            files += map(str, images)
            if others:
                log(f"{path}: {sum(others.values())} files that are no images are passed over")
        elif os.path.exists(path):
            files.append(path)
        else:
            raise DataError(f"{path} does not exist. Expected image files, or folders of them.")
    if not files:
        raise DataError("there is no image to predict. Expected image files, or folders of them.")
    return files


def answers(model: Served, read: Callable[[int], bytes], files: Sequence[str], batch_size: int) -> Iterator[np.ndarray | str]:
    """Probabilities [C] of each file in order, or a sentence on why there are none. Batches are computed one by one, off the caller's thread."""
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1. Received: batch_size={batch_size}")

    def ready(i: int) -> bytes:
        encoded = readable(read(i), files[i])
        if found := problem(encoded):
            raise ImageError(f"{files[i]} {found}")
        return encoded

    def ask(several: list[bytes]) -> list[np.ndarray]:
        return list(model.probabilities(tf.constant(several, tf.string)).numpy())

    def batch(positions: range) -> list[np.ndarray | str]:
        found: dict[int, Any] = {i: attempt(files[i], partial(ready, i)) for i in positions}
        good = {i: encoded for i, encoded in found.items() if isinstance(encoded, bytes)}
        try:
            found |= zip(good, ask(list(good.values())), strict=True)
        except tf.errors.InvalidArgumentError:
            # One bad image fails the whole batch: find it by asking one by one.
            for i, encoded in good.items():
                rows = attempt(files[i], partial(ask, [encoded]))
                found[i] = rows if isinstance(rows, str) else rows[0]
        return list(found.values())

    waiting: deque[Future] = deque()
    # One thread: two in TensorFlow's fused convolutions crash, see tfxfer.engines.
    with ThreadPoolExecutor(1) as pool:
        try:
            for first in range(0, len(files), batch_size):
                waiting.append(pool.submit(batch, range(first, min(first + batch_size, len(files)))))
                if len(waiting) > 2:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def attempt(file: str, call: Callable[[], Any]) -> Any:
    """What a call returns, or a sentence on why this image can't be read or decoded."""
    try:
        return call()
    except ImageError as error:
        return str(error)
    except (OSError, TfxferError) as error:
        return f"{file} can't be read: {getattr(error, 'strerror', None) or error}"
    except tf.errors.InvalidArgumentError as error:
        return f"{file} can't be decoded: {reason(error)}"


def evaluate(
    folder: str | os.PathLike,
    data: str | os.PathLike | Examples,
    *,
    data_dir: str | os.PathLike | None = None,
    batch_size: int = 32,
    trust: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judge a finished run's model on labelled images: figures as in metrics.json (see `tfxfer.evaluate.score`).

    What is judged: of the run's own data its test part, as the run split it; of other data the test part where there is one, else every image.
    Classes are matched by name; those that the data lacks count for nothing.

    Raises:
        RunError, ServingError: the run can't be used.
        DataError: no images, or classes that the model doesn't know.
        ImageError: files that can't be decoded.
    """
    run = open_run(folder)
    found = labelled(run, data, data_dir)
    own = "test" in (found.splits or ())
    chosen = [i for i, split in enumerate(found.splits or [""] * len(found.files)) if split == "test" or not own]
    model = open_model(folder, trust=trust)
    if unknown := sorted({found.names[i] for i in chosen} - set(model.classes)):
        raise DataError(f"{found.source} has classes that the model doesn't know: {', '.join(unknown[:SHOWN])}. It knows: {', '.join(model.classes[:SHOWN])}.")
    log(f"{found.source}: {'the test part' if own else 'all images'}, {len(chosen):,} of {len(found.files):,}")
    rows = list(answers(model, lambda i: found.read(chosen[i]), [found.files[i] for i in chosen], batch_size))
    if bad := [row for row in rows if isinstance(row, str)]:
        raise ImageError(f"{len(bad)} of {len(rows)} images can't be judged: {listed(bad)} Repair or remove them.")
    return score(np.array([model.classes.index(found.names[i]) for i in chosen]), np.stack(rows), model.classes)


def labelled(run: Finished, data: str | os.PathLike | Examples, data_dir: str | os.PathLike | None) -> Found:
    """Labelled images as they are, without a split that nobody asked for; the run's own data as the run split it."""
    settings = run.settings()
    source = data if isinstance(data, Examples) else os.fspath(data)
    if source == settings["data"]["value"]:
        source = load(source, data_dir=data_dir, seed=settings["seed"]["value"], skip_bad_images=settings["skip_bad_images"]["value"])
    if isinstance(source, Examples):
        return Found(source.files, [source.classes[i] for i in source.labels], source.read, source.source, source.splits)
    if (found := find_source(source, data_dir)) is None:
        raise DataError(
            f"{source} is no labelled data. Expected a folder with a folder for each class, a .csv file with the columns path and label, tfds:NAME, or demo."
        )
    return found


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


def export(folder: str | os.PathLike, to: str | os.PathLike, *, trust: bool = False, log: Callable[[str], None] = print) -> Path:
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
    settings = open_run(folder).settings()
    if "served_difference" in settings:
        found, engine = settings["served_difference"]["value"], settings["engine"]["value"]
        log(f"the run's figures are of features by {engine}; probabilities by TensorFlow, as exported, differed from them by at most {found:.1e}")
    to = Path(to)
    aside = to / f".export-{uuid4().hex}"
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ServingError(f"{to} can't be written: {error.strerror or error}. Choose a folder that exists or can be made.") from error
    try:
        write(open_model(folder, trust=trust), aside)
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
