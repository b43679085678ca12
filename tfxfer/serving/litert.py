"""Export a finished run's model as LiteRT files, in float32, float16 and int8.

The accuracy that each file keeps is measured.
"""

import importlib
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfxfer import savedmodel
from tfxfer.data import Examples
from tfxfer.data.decoding import Alteration
from tfxfer.data.folds import few
from tfxfer.errors import DataError, MissingExtraError, ServingError
from tfxfer.features import Decoder
from tfxfer.features.computation import augment_batch
from tfxfer.heads.layers import seen_by_head
from tfxfer.inputs import AppInput, Input
from tfxfer.inputs.image import ImageInput
from tfxfer.process.quiet import quiet
from tfxfer.run import Finished, open_run
from tfxfer.serving import metadata
from tfxfer.serving.export import check_accuracy, extras
from tfxfer.serving.judge import load_own_examples
from tfxfer.serving.model import input_of, load_model
from tfxfer.serving.place import check_place, placed
from tfxfer.tasks import Task

LOG = logging.getLogger(__name__)
# Training examples from which int8 gets its ranges, and the lines of `corrected`.
CALIBRATION = 400
JUDGED = 1000  # the most examples that accuracy is compared on
DROP = 0.02
BATCH = 32  # examples that the float model answers at once
# Number of the altered copies that are judged. Copies for training have numbers from 0 on, so the
# model has seen none of these.
UNSEEN = -1


@dataclass(frozen=True)
class Lite:
    """One file: its content, and its accuracy on the examples that it was judged on."""

    kind: str
    content: bytes
    accuracy: float


def export_litert(
    folder: str | os.PathLike,
    to: str | os.PathLike,
    *,
    version: int | None = None,
    require_accuracy: float | None = None,
    max_accuracy_drop: float = DROP,
    data: Examples | None = None,
    data_dir: str | os.PathLike | None = None,
    trust: bool = False,
) -> Path:
    """Write a finished run's model as LiteRT files to `<to>/<version>/`.

    The files are `model.float32.tflite`, `model.float16.tflite`, `model.int8.tflite` and
    `labels.txt`.

    Each model gives probabilities, float32 [1, C], in the order of labels.txt. It has built-in
    operations only.

    A model of images takes pixels in the backbone's value range, float32 [1, height, width, 3]. Its
    metadata holds the labels and the normalisation, too; where the answers are numbers, it has
    none. In int8, the head stays in float, and each column of the features is corrected by a line
    (slope and offset) before the head. The lines are fitted on training images and bring the
    features back to those of the float network.

    A model of texts takes the numbers that its tokenizer makes of them, int32 [1, length] each, and
    has its weights alone in int8. Beside it lie the vocabulary and a description of the tokenizer.

    Args:
        max_accuracy_drop: refuse the export if a file's accuracy is below the float model's by more
            than this. It is measured on validation; where the run has none, on altered copies of
            training examples, since the float model knows the examples themselves by heart.
        data: the run's examples, where they were made in Python; otherwise they are read again.
        data_dir: where TensorFlow Datasets keeps its files.

    Other Args, Returns: as for `export`.

    Raises:
        RunError, DataError: the folder does not hold a finished run, or its examples are gone.
        ServingError: the model can't be loaded or converted or loses too much accuracy, no app
            could make its input, the version exists, or the folder can't be written.
        MissingExtraError: LiteRT is not installed.
    """
    litert("interpreter")  # that it is missing is said before the work, and not after it
    check_place(to, version)
    run = open_run(folder)
    check_accuracy(run, require_accuracy)
    model, classes = load_model(run.path("model.keras"), trust), run.classes()
    takes = input_of(run, model)
    judging = prepare_judging(run, takes, data, data_dir=data_dir)
    app = run.kind().for_app(takes, judging.some_contents())
    entry = entry_of(takes, app)
    before = judging.score_of_floats(model)
    settings, described = run.settings(), b""
    # The metadata say that there are probabilities.
    if isinstance(takes, ImageInput) and run.task().OUTPUT == "probabilities":
        described = metadata.of_image_classifier(
            f"{settings['recipe']['value']} on {settings['data']['value']}",
            classes,
            *normalisation(takes.value_range),
        )
    files = []
    for kind, content in convert_all(
        model,
        entry,
        judging.calibration_examples,
        task=run.task(),
        calibrated=app.calibrated,
    ):
        whole = content
        if described:
            whole = metadata.archived(with_metadata(content, described), classes)
        files.append(Lite(kind, whole, judging.score(kind, content, entry, size=len(whole))))
    check_loss(files, before, judging, allowed=max_accuracy_drop)
    if app.note:
        LOG.info(app.note)

    def write(aside: Path) -> None:
        for lite in files:
            (aside / f"model.{lite.kind}.tflite").write_bytes(lite.content)
        (aside / metadata.LABELS).write_bytes(metadata.as_lines(classes))
        for name, content in app.files.items():
            (aside / name).write_bytes(content)
        extras(run, aside)

    return placed(to, version, write)


@dataclass(frozen=True)
class Entry:
    """What a file takes, for one example: inputs of one shape, which are the parts of the example.

    shape: the shape of each of them, without the batch.
    """

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """The specs of all inputs."""
        return [tf.TensorSpec((1, *self.shape), self.dtype, name=name) for name in self.names]

    def join(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the example as the network takes it, float32."""
        values = [tf.cast(one, tf.float32) for one in inputs]
        return values[0] if len(values) == 1 else tf.concat(values, 1)

    def split(self, example: np.ndarray) -> list[np.ndarray]:
        """Return the inputs of one example."""
        return [part[None].astype(self.dtype) for part in np.split(example, len(self.names))]


def entry_of(takes: Input, app: AppInput) -> Entry:
    """Return what the files of a network take."""
    first, *rest = takes.shape
    return Entry(app.names, app.dtype, (first // len(app.names), *rest))


@dataclass(frozen=True, eq=False)
class Judging:
    """The examples on which the files are judged, and those that calibrate int8.

    calibration, judged: positions of the examples.
    is_altered: whether altered copies are judged, because the model has trained on these examples.
    """

    decoder: Decoder
    calibration: np.ndarray
    judged: np.ndarray
    is_altered: bool

    @property
    def examples(self) -> Examples:
        """All examples."""
        return self.decoder.examples

    @property
    def where(self) -> str:
        """What the judged examples are, in words."""
        many = self.examples.kind.MANY
        return f"altered training {many}" if self.is_altered else f"validation {many}"

    @property
    def truth(self) -> np.ndarray:
        """The targets of the judged examples."""
        return self.examples.labels[self.judged]

    def some_contents(self) -> Iterator[bytes]:
        """Yield the contents of the judged examples, as they are, each read when it is needed."""
        return (self.decoder.read(int(i)) for i in self.judged)

    def calibration_examples(self) -> Iterator[np.ndarray]:
        """Yield the examples that calibrate int8, float32, without the batch."""
        return self.decoder.each(self.calibration)

    @property
    def alter(self) -> Alteration | None:
        """How contents are altered before they are decoded; None where they are not."""
        kind = self.examples.kind
        if not (self.is_altered and kind.ALTERS_CONTENTS):
            return None
        return Alteration(kind.AS_NEW, UNSEEN)

    def judged_examples(self) -> Iterator[np.ndarray]:
        """Yield the judged examples, float32, without the batch."""
        kind = self.examples.kind
        decoder = Decoder(self.examples, self.decoder.takes, BATCH, self.alter)
        decoded = decoder.each(self.judged)
        if not self.is_altered or kind.ALTERS_CONTENTS:
            return decoded
        digests = [self.examples.digests[i] for i in self.judged]
        augment = partial(augment_batch, kind=kind, names=kind.AS_NEW, number=UNSEEN)
        starts = range(0, len(digests), BATCH)
        return (
            example
            for start, batch in zip(starts, batches_of(decoded), strict=True)
            for example in augment(batch, digests[start : start + BATCH])
        )

    def score_of_floats(self, model: keras.Model) -> float:
        """Return the accuracy of the Keras model."""
        task = self.examples.task
        score = task.scores(predict_each(model, self.judged_examples()), self.truth).mean()
        LOG.info(f"float model: {task.SCORE} {score:.3f} on {len(self.truth):,} {self.where}")
        return float(score)

    def score(self, kind: str, content: bytes, entry: Entry, *, size: int) -> float:
        """Return the accuracy of a file, and log it.

        Args:
            size: the number of bytes of the file with its metadata.
        """
        answers, milliseconds = run_lite(content, self.judged_examples(), entry)
        task, one = self.examples.task, self.examples.kind.ONE
        score = float(task.prediction_scores(answers, self.truth).mean())
        LOG.info(
            f"{kind}: {task.SCORE} {score:.3f} on {len(self.truth):,} {self.where}, "
            f"{size / 1e6:.2f} MB, {milliseconds:.1f} ms a {one} on one thread"
        )
        return score


def prepare_judging(
    run: Finished,
    takes: Input,
    data: Examples | None,
    *,
    data_dir: str | os.PathLike | None,
) -> Judging:
    """Choose the examples on which the files are judged, and those that calibrate int8.

    Raises:
        DataError: the run's examples are gone.
        ImageError: some of them can't be decoded, and are not to be left out.
    """
    try:
        examples = load_own_examples(run, data_dir, data)
    except DataError as error:
        raise DataError(
            f"LiteRT files are judged, and int8 is calibrated, on the run's own "
            f"{run.kind().MANY}: {error}"
        ) from error
    settings = run.settings()
    decoder, seed = Decoder(examples, takes, 32), settings["seed"]["value"]
    train, validation = examples.where("train"), examples.where("validation")
    calibration = draw_sample(examples, train, CALIBRATION, seed=seed)
    rest = np.setdiff1d(train, calibration)
    others = rest if len(rest) else train
    judged = draw_sample(examples, validation if len(validation) else others, JUDGED, seed=seed)
    bad: dict[int, str] = {}
    skip = bad if settings["skip_bad_images"]["value"] else None
    for _ in decoder.batches(np.union1d(calibration, judged).tolist(), skip):
        pass  # examples that can't be decoded are found before anything is converted
    return Judging(
        decoder=decoder,
        calibration=np.setdiff1d(calibration, [*bad]),
        judged=np.setdiff1d(judged, [*bad]),
        is_altered=not len(validation),
    )


def check_loss(files: list[Lite], before: float, judging: Judging, *, allowed: float) -> None:
    """Refuse files that lose too much accuracy.

    Args:
        before: the accuracy of the float model.
        allowed: how much may be lost. A difference of one example is chance, however few there are.

    Raises:
        ServingError: names the files.
    """
    count = len(judging.truth)
    most = max(allowed, 1.5 / count) if allowed >= 0 else allowed
    lost = [lite for lite in files if before - lite.accuracy > most]
    if lost:
        named = ", ".join(f"{lite.kind} {100 * (before - lite.accuracy):.1f}" for lite in lost)
        raise ServingError(
            f"too much accuracy is lost on {count:,} {judging.where}, in points: {named}; at most "
            f"{100 * allowed:g} were allowed. Nothing was exported. Allow more with "
            "--max-accuracy-drop, or take another backbone."
        )


def draw_sample(examples: Examples, positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return about `count` positions, each class in its share.

    If there are more classes than `count`, only some of them are drawn.
    """
    return positions[few(examples.strata[positions], count, seed)]


def normalisation(value_range: tuple[float, float]) -> tuple[float, float]:
    """Return mean and std for which (x - mean) / std maps 0 to 255 to the value range."""
    low, high = value_range
    return -255 * low / (high - low), 255 / (high - low)


# --- conversion ---


def convert_all(
    model: keras.Model,
    entry: Entry,
    calibration: Callable[[], Iterable[np.ndarray]],
    *,
    task: Task,
    calibrated: bool,
) -> Iterator[tuple[str, bytes]]:
    """Yield the three files, each as its name and its bytes without metadata.

    Args:
        calibration: returns training examples, float32 without the batch, anew with each call.
        calibrated: whether int8 also applies to maps, with ranges from these examples; otherwise to
            weights alone.
    """
    probabilities = trace_model(lambda x: task.prediction_tensor(model(x, training=False)), entry)

    def smallest() -> bytes:
        if not calibrated:
            return in_int8_weights(probabilities)
        better = corrected(model, entry, calibration, task=task) or probabilities
        return in_int8(better, calibration)

    files: dict[str, Callable[[], bytes]] = {
        "float32": lambda: in_float(probabilities),
        "float16": lambda: in_float(probabilities, tf.float16),
        "int8": smallest,
    }
    for kind, convert in files.items():
        LOG.info("Converting the model to LiteRT, %s", kind)
        content = convert()
        check_built_in(content, kind)
        yield kind, content


def check_built_in(content: bytes, kind: str) -> None:
    """Refuse a file with an operation that is not built into LiteRT.

    A phone would need extra code for it.

    Raises:
        ServingError: names the operations.
    """
    custom = litert("schema_py_generated").BuiltinOperator.CUSTOM
    codes = [
        code for code in open_interpreter(content).operatorCodes or [] if code.builtinCode == custom
    ]
    if codes:
        names = sorted({(code.customCode or b"?").decode(errors="replace") for code in codes})
        raise ServingError(
            f"the {kind} file would hold {', '.join(names)}, which LiteRT does not have built in. "
            "Use a head of other operations, or export a SavedModel."
        )


def trace_model(call: Callable[[tf.Tensor], tf.Tensor], entry: Entry) -> Any:
    """Return a concrete function of one example, with all weights as constants."""
    function = tf.function(
        lambda *inputs: call(entry.join(inputs)), input_signature=entry.specs, autograph=False
    )
    constant = savedmodel.with_constants(function.get_concrete_function())
    return savedmodel.with_built_in_operations(constant)


def in_float(function: Any, kind: Any = None) -> bytes:
    """Convert to float32, or to weights in float16 if `kind` says so."""
    with explained():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if kind is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [kind]
        return converter.convert()


def in_int8_weights(function: Any) -> bytes:
    """Convert to weights in int8.

    The rows that they are multiplied with are rounded to int8 one by one, each with a range of its
    own. All other numbers stay in float.
    """
    with explained():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def in_int8(function: Any, calibration: Callable[[], Iterable[np.ndarray]]) -> bytes:
    """Convert to weights and maps in int8, with ranges from the calibration images.

    Tensors that are one row for the image stay in float, since pooled features differ in scale from
    column to column.
    """
    with explained():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration())
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
        quantizer = Quantizer(converter=converter)
        quantizer.options = tf.lite.experimental.QuantizationDebugOptions(
            denylisted_nodes=rows_of(quantizer.calibrated_model)
        )
        return quantizer.get_nondebug_quantized_model()


class Quantizer(tf.lite.experimental.QuantizationDebugger):
    """TensorFlow's debugger of quantized models, without the model that it debugs.

    The debugger is the only public way to leave operations in float. Its own model takes as long to
    make as the one that is wanted. Both methods are private: they make and read that model.
    """

    def _init_from_converter(self, *arguments: Any, **options: Any) -> None:
        pass

    def _initialize_stats(self) -> None:
        pass


def corrected(
    model: keras.Model,
    entry: Entry,
    calibration: Callable[[], Iterable[np.ndarray]],
    *,
    task: Task,
) -> Any | None:
    """Return the model with a correction for int8 between the network and the head.

    The correction is a line (slope and offset) for each column of the network's features, which
    undoes what int8 does to them. It is the line of least squares from the int8 network's features
    to those of the float network. It makes the features of noisy columns small, and with them the
    logits, so the logits are scaled back by one number.

    Returns: None where the model has no place between network and head.
    """
    if (tensor := seen_by_head(model)) is None:
        return None
    # The features may be the mean of those of the image and those of its mirror image.
    made_by = tensor._keras_history.operation
    sides = made_by.input if isinstance(made_by, keras.layers.Average) else [tensor]
    network, head = keras.Model(model.inputs, sides), keras.Model(tensor, model.outputs)
    parts = apart(
        trace_model(
            lambda x: [
                tf.cast(side, tf.float32) for side in tf.nest.flatten(network(x, training=False))
            ],
            entry,
        )
    )
    each = len(parts.outputs) // len(sides)

    def features(outputs: list[Any]) -> list[Any]:
        """The mean of the sides (image and mirror image), part by part."""
        return [sum(outputs[i::each]) / len(sides) for i in range(each)]

    both, _ = run_lite(in_int8(parts, calibration), calibration())
    exact = np.mean(tf.nest.flatten(predict_each(network, calibration())), 0)
    rough = both.reshape(len(both), len(sides), -1).mean(1)
    x, y = rough - rough.mean(0), exact - exact.mean(0)
    slope = (x * y).sum(0) / np.maximum((x * x).sum(0), 1e-12)
    offset = exact.mean(0) - slope * rough.mean(0)
    shrunk, wanted = (
        logits - logits.mean(1, keepdims=True)
        for logits in (np.asarray(head(rough * slope + offset)), np.asarray(head(exact)))
    )
    scale = float((shrunk * wanted).sum() / max((shrunk * shrunk).sum(), 1e-12))
    ends = np.cumsum([part.shape[-1] for part in parts.outputs[:each]])[:-1]
    lines = list(zip(np.split(slope, ends), np.split(offset, ends), strict=True))

    def call(image: tf.Tensor) -> tf.Tensor:
        seen = tf.concat(
            [part * a + b for part, (a, b) in zip(features(parts(image)), lines, strict=True)], -1
        )
        return task.prediction_tensor(scale * tf.cast(head(seen), tf.float32))

    return trace_model(call, entry)


def predict_each(model: keras.Model, examples: Iterable[np.ndarray]) -> Any:
    """Return what a Keras model answers to examples, [n, K] or a list of such arrays."""
    parts, count = [], 0
    for batch in batches_of(examples):
        # The model would be traced once more for a smaller batch.
        filled = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]))])
        parts.append(model.predict_on_batch(filled.astype(np.float32)))
        count += len(batch)
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[:count], *parts)


def batches_of(rows: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield rows in batches; the last batch may have fewer."""
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        yield np.stack(batch)


def apart(function: Any) -> Any:
    """Return the function with the parts of concatenated outputs as separate outputs.

    int8 uses one scale for all tensors that are concatenated, back to the maps that they were
    pooled from.
    """
    parts: list[Any] = []
    for output in function.outputs:
        operation = output.op
        while operation.type == "Identity":
            operation = operation.inputs[0].op
        parts += list(operation.inputs)[:-1] if operation.type == "ConcatV2" else [output]
    return function.prune(function.inputs, parts)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the converter's errors into a sentence, and hide its own messages."""
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    except Exception as error:
        # The class is private, and is another one in each version.
        if type(error).__name__ != "ConverterError":
            raise
        operations = sorted(set(re.findall(r"\btf\.[A-Z]\w+", str(error))))
        raise ServingError(
            "the model can't be a LiteRT file: LiteRT has no "
            f"{', '.join(operations) or str(error).strip().splitlines()[0]}. "
            "Use a head of other operations, or export a SavedModel."
        ) from error
    finally:
        logging.disable(disabled)


def rows_of(content: bytes) -> list[str]:
    """Return the names of all results that are one row for the image: [1, columns]."""
    (graph,) = open_interpreter(content).subgraphs
    results = [graph.tensors[i] for operator in graph.operators for i in operator.outputs]
    return [
        tensor.name.decode()
        for tensor in results
        # The calibrator leaves out the shape of a single number.
        if tensor.shape is not None and len(tensor.shape) == 2 and tensor.shape[0] == 1
    ]


def with_metadata(content: bytes, described: bytes) -> bytes:
    model, tools = open_interpreter(content), litert("tools.flatbuffer_utils")
    schema = litert("schema_py_generated")
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(described, np.uint8)
    entry.name, entry.buffer = metadata.NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(tools.convert_object_to_bytearray(model))


def open_interpreter(content: bytes) -> Any:
    return litert("tools.flatbuffer_utils").read_model_from_bytearray(bytearray(content))


# --- running ---


def run_lite(
    content: bytes, examples: Iterable[np.ndarray], entry: Entry | None = None
) -> tuple[np.ndarray, float]:
    """Run a file on examples, one by one.

    Args:
        entry: what the file takes, where it has several inputs, or others than float32.

    Returns: the outputs [n, C], and the median of the milliseconds for an example.
    """
    with quiet():
        interpreter = litert("interpreter").Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    inputs = {one["name"]: one["index"] for one in interpreter.get_input_details()}
    outputs = interpreter.get_output_details()
    names = [*inputs] if entry is None else entry.names
    rows: list[np.ndarray] = []
    seconds: list[float] = []
    for example in examples:
        parts = [example[None]] if entry is None else entry.split(example)
        for name, part in zip(names, parts, strict=True):
            interpreter.set_tensor(inputs[name], part)
        began = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - began)
        rows.append(
            np.concatenate([interpreter.get_tensor(output["index"])[0] for output in outputs])
        )
    return np.stack(rows), 1e3 * float(np.median(seconds))


def litert(module: str) -> Any:
    """Import a module of the optional package ai_edge_litert."""
    try:
        return importlib.import_module(f"ai_edge_litert.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtraError("A LiteRT file", "litert") from error
