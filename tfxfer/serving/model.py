"""Load a finished run's model as a graph of constants, or an export of it as it was written.

The weights become constants. TensorFlow then computes only once what depends on weights alone, such
as the filters that have taken in their BatchNorm.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

# backbone and heads register their layers with Keras.
from tfxfer import savedmodel
from tfxfer.backbone import Backbone
from tfxfer.data.decoding import FEW, decode_small
from tfxfer.errors import ServingError, TfxferError
from tfxfer.evaluate import doubt
from tfxfer.evaluate.doubt import Doubt
from tfxfer.handles.folder import plain_path
from tfxfer.heads import layers
from tfxfer.inputs import Input, Kind, find
from tfxfer.process.cores import cores
from tfxfer.run import Finished, open_run, read_labels
from tfxfer.serving.kind import TASK, decision_of, kind_of, task_of
from tfxfer.serving.place import EXTRA, latest
from tfxfer.tasks import CLASSIFY, Task

LOG = logging.getLogger(__name__)
# So many images are decoded at once: enough for the cores of a server, and few enough that a batch
# of large photos doesn't fill its memory.
PARALLEL = 8
Bad = Literal["error", "null"]
DAMAGED = "It seems damaged: run it again."


@dataclass(frozen=True)
class Served:
    """A model that is ready to answer.

    Args:
        kind: which kind of example it takes.
        classes: names, in the order of the columns of the probabilities.
        answer: encoded images, string [B], to "probabilities", float32 [B, C] (in their place,
            where the task has no probabilities, its predictions), and, where the run knows it,
            "unknown", float32 [B]: how far an image is from every class.
        doubt: thresholds for both; None where there are none.
        says: the names of what it answers.
        task: which kind of answer it gives.
        decision: what turns its predictions into answers (see `Task.decide`).
    """

    kind: Kind
    classes: tuple[str, ...]
    answer: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    doubt: Doubt | None
    says: tuple[str, ...]
    task: Task = CLASSIFY
    decision: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A run's model in parts.

    Args:
        takes: what goes into the network, for one example.
        decode: encoded images, string [B], to pixels in the backbone's value range, float32 [n,
            height, width, 3], and their positions in the batch, int32 [n].
        call: pixels to {"probabilities": float32 [B, C]}; where the model has them, also
            "features", float32 [B, F], which is what the head sees, and "unknown".
        has: the names of what `call` returns.
    """

    classes: tuple[str, ...]
    takes: Input
    decode: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    call: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    has: tuple[str, ...]
    doubt: Doubt | None
    task: Task = CLASSIFY
    decision: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what `call` returns, with one row for each encoded image.

        The row of an image that was left out is zeros.
        """
        decoded, places = self.decode(encoded)
        count = tf.shape(encoded)[:1]
        return {
            name: tf.scatter_nd(places[:, None], rows, tf.concat([count, tf.shape(rows)[1:]], 0))
            for name, rows in self.call(decoded).items()
        }


def open_model(folder: str | os.PathLike, *, trust: bool = False, features: bool = False) -> Served:
    """Load a finished run's model, or an export of it.

    Args:
        folder: the folder of a run, of one version of an export, or of all versions, of which the
            latest is loaded.
        trust: also load a graph that can reach files, Python or the internet.
        features: also answer "features", float32 [B, F], which is what the head sees, where the
            folder is a run and its model has them.

    Raises:
        RunError: the run is not finished, or its files are missing or were changed.
        ServingError: the folder is neither a run nor an export, or its model can't be loaded or
            doesn't fit its labels.
        DeniedOperationError: an export holds an operation that is not allowed.
    """
    folder = Path(folder)
    if not (folder / "settings.json").is_file():
        version = folder if (folder / "saved_model.pb").is_file() else latest(folder)
        if version is not None:
            return open_export(version, trust)
        what = "is neither a run's folder nor an export"
        if not folder.exists():
            what = "does not exist"
        elif any(folder.glob("*.tflite")):
            what = "holds LiteRT files, which LiteRT runs"
        raise ServingError(
            f"{folder} {what}. Expected the folder of a finished run, of tfxfer export RUN FOLDER, "
            "or one version of it."
        )
    network = open_network(folder, trust=trust)
    names = [name for name in network.has if features or name != "features"]

    answered = 0

    # Decoder and network are functions of their own. To join them in one more takes seconds, and so
    # does the graph of the decoder, which many images are worth.
    def answer(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        nonlocal answered
        encoded = tf.convert_to_tensor(encoded)
        answered += len(encoded)
        few = len(encoded) > 0 and answered <= FEW and network.takes.TOGETHER == 1
        outputs = (
            network.call(decode_each(network.takes, encoded)) if few else network.answer(encoded)
        )
        return {name: outputs[name] for name in names}

    return Served(
        kind=find(network.takes.KIND),
        classes=network.classes,
        answer=answer,
        doubt=network.doubt,
        says=tuple(names),
        task=network.task,
        decision=network.decision,
    )


def open_export(folder: Path, trust: bool) -> Served:
    """Load one version of an export, in the form in which a server has it."""
    LOG.info("Loading the model")
    savedmodel.check_saved_model(folder, trust=trust)
    with explained(folder, "Export it again."):
        loaded = tf.saved_model.load(str(plain_path(folder)))
        signatures = dict(loaded.signatures)
    task = task_of(folder)
    if task.OUTPUT not in signatures:
        raise ServingError(
            f"{folder} has the signatures {', '.join(signatures) or 'none'}, and no head to "
            "predict with; expected tfxfer export RUN FOLDER."
        )
    classes = tuple(read_labels(folder / "assets" / "labels.txt"))
    check_outputs(task, classes, folder / EXTRA / TASK)
    thresholds = folder / EXTRA / "doubt.npz"
    signature = signatures[task.OUTPUT]
    check_signature(folder, signature, len(classes), output=task.OUTPUT)

    # The signature lives only as long as the object that it was loaded with.
    def answer(encoded: tf.Tensor, loaded: Any = loaded) -> dict[str, tf.Tensor]:
        outputs = dict(signature(inputs=encoded))
        outputs["probabilities"] = outputs.pop(task.OUTPUT)
        check_rows(folder, outputs, len(encoded), classes=len(classes))
        return outputs

    return Served(
        kind=kind_of(folder),
        classes=classes,
        answer=answer,
        doubt=doubt.load(thresholds) if thresholds.is_file() else None,
        says=tuple(signature.structured_outputs),
        task=task,
        decision=decision_of(folder, len(classes)),
    )


def check_outputs(task: Task, classes: Sequence[str], path: Path) -> None:
    """Refuse a task that can't have as many outputs as labels.txt has names.

    Raises:
        ServingError: names the file that says the task.
    """
    if not task.has(len(classes)):
        raise ServingError(
            f"{path} has the task {task.NAME!r}, but labels.txt has {len(classes)} names. Expected "
            "the files of one run. Run it again."
        )


@contextmanager
def explained(path: Path, hint: str) -> Iterator[None]:
    """Turn what TensorFlow and Keras raise for a file into one sentence.

    They may raise any error, since anybody may have written the file.

    Raises:
        ServingError: names the file and the reason.
    """
    try:
        yield
    except TfxferError:
        raise
    except Exception as error:
        first = savedmodel.reason_of(error)
        if "locate" in first:
            hint = "Import the file that defines it first."
        elif "--trust" in first:
            hint = ""
        raise ServingError(f"{path} can't be loaded: {first}. {hint}") from error


def check_signature(folder: Path, signature: Any, count: int, *, output: str) -> None:
    """Refuse an export that does not turn encoded images into a probability of each class.

    Args:
        output: the name of the probabilities, or of the numbers in their place.

    Raises:
        ServingError: says what it takes and gives.
    """
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    takes = inputs.keys() == {"inputs"} and inputs["inputs"].dtype == tf.string
    gives = (
        isinstance(outputs, dict)
        and output in outputs
        and outputs[output].dtype == tf.float32
        and outputs[output].shape.is_compatible_with((None, count))
        and ("unknown" not in outputs or outputs["unknown"].shape.is_compatible_with((None,)))
    )
    if not (takes and gives):
        raise ServingError(
            f"{folder} takes {inputs} and gives {outputs}; expected encoded "
            f"{kind_of(folder).MANY}, and {output} for the {count} names in "
            "labels.txt. Export it again."
        )


def check_rows(folder: Path, outputs: dict[str, tf.Tensor], rows: int, classes: int) -> None:
    """Refuse answers that do not have one row for each image.

    Raises:
        ServingError: names the output.
    """
    for name, shape in (("probabilities", (rows, classes)), ("unknown", (rows,))):
        if name in outputs and tuple(outputs[name].shape) != shape:
            raise ServingError(
                f"{folder} answers {rows} examples with {name} {tuple(outputs[name].shape)}; "
                f"expected {shape}. Export it again."
            )


def open_network(folder: str | os.PathLike, *, trust: bool = False, bad: Bad = "error") -> Network:
    """Load a finished run's model as one graph of constants from pixels, and a decoder of images.

    The decoder fails at a bad image, or leaves it out if `bad` is "null".

    Raises:
        RunError: the run is not finished, or its files are missing or were changed.
        ServingError: the model can't be loaded, or doesn't fit the settings and labels of the run.
    """
    run = open_run(folder)
    classes = tuple(run.classes())
    model = load_model(run.path("model.keras"), trust)
    takes = input_of(run, model)
    check_outputs(run.task(), classes, run.path("settings.json"))
    shapes = (model.input_shape, model.output_shape)
    if shapes != ((None, *takes.shape), (None, len(classes))):
        raise ServingError(
            f"{run.path('model.keras')} takes {model.input_shape} and gives {model.output_shape}; "
            f"expected {(None, *takes.shape)} and (None, {len(classes)}), as "
            "settings.json and labels.txt say. The run folder was changed: run it again."
        )
    thresholds = doubt.load(run.path("doubt.npz")) if run.path("doubt.npz").is_file() else None
    with explained(run.path("model.keras"), DAMAGED):
        call, has = constant(model, takes.shape, thresholds, task=run.task())
    return Network(
        classes=classes,
        takes=takes,
        decode=decoder(takes, bad),
        call=call,
        has=has,
        doubt=thresholds,
        task=run.task(),
        decision=run.decision(),
    )


def input_of(run: Finished, model: keras.Model) -> Input:
    """Return the input of a run's model; a tokenizer is in the model and not in the settings.

    Raises:
        ServingError: the settings say another tokenizer.
    """
    noted = run.takes()
    networks = [layer for layer in model._flatten_layers() if isinstance(layer, Backbone)]
    with_tokenizer = (one.takes for one in networks if one.tokenizer is not None)
    found = next(with_tokenizer, noted)
    if found != noted:
        raise ServingError(
            f"{run.path('model.keras')} takes {found.described()}, by another tokenizer than "
            "settings.json says. The run folder was changed: run it again."
        )
    return found


def load_model(path: Path, trust: bool = False) -> keras.Model:
    """Call `keras.models.load_model` after the file was checked.

    Its many kinds of errors become one sentence.

    Raises:
        ServingError: the file can't be loaded, names what no network needs (see
            `tfxfer.savedmodel.config`), or would take far more memory than the values in it.
        SavedModelError: see `weigh`.
    """
    LOG.info("Loading the model")
    with explained(path, DAMAGED):
        return savedmodel.load_file(path, trust=trust)


def constant(
    model: keras.Model, shape: tuple[int, ...], thresholds: Doubt | None, *, task: Task
) -> tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tuple[str, ...]]:
    """Return the model in inference mode as a function of pixels, and the names of what it gives.

    The weights are constants. For the names see `Network`.
    """
    features = layers.seen_by_head(model)
    names, outputs = ["probabilities"], [model.outputs[0]]
    if features is None:
        thresholds = None
    else:
        names.append("features")
        outputs.append(features)
        if thresholds is not None and features.shape[-1] < thresholds.tail:
            thresholds = None
    if thresholds is not None:
        names.append("unknown")
    network = keras.Model(model.inputs, outputs)
    trained = [variable.numpy() for variable in network.trainable_variables]
    others = [variable.numpy() for variable in network.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32)], autograph=False)
    def call(decoded):
        n = tf.shape(decoded)[0]
        # TensorFlow's fused convolutions fail on an empty batch. It is replaced by a black image,
        # whose answer is dropped.
        (logits, *seen), _ = network.stateless_call(
            [tf.constant(values) for values in trained],
            [tf.constant(values) for values in others],
            tf.cond(n > 0, lambda: decoded, lambda: tf.zeros((1, *shape))),
            training=False,
        )
        answers = [task.prediction_tensor(logits)]
        answers += [tf.cast(values, tf.float32) for values in seen]
        if thresholds is not None:
            answers.append(strangeness(answers[1], thresholds))
        return [values[:n] for values in answers]

    function = call.get_concrete_function()
    if function.captured_inputs:  # variables that Keras doesn't know, or that a layer traced before
        function = savedmodel.with_constants(function)
    return lambda decoded: dict(zip(names, function(decoded), strict=True)), tuple(names)


def strangeness(features: tf.Tensor, thresholds: Doubt) -> tf.Tensor:
    """Compute `Unknown.scores` in TensorFlow.

    Args:
        features: what the head sees, float32 [B, F].

    Returns: float32 [B].
    """
    unknown = thresholds.unknown
    own = features[:, -thresholds.tail :][:, : len(unknown.mean)]
    z = tf.matmul(tf.math.l2_normalize(own, -1, layers.EPSILON**2) - unknown.mean, unknown.project)
    return tf.reduce_sum(tf.matmul(z, unknown.quadratic) * z, 1) + tf.reduce_min(
        unknown.offsets - unknown.slopes * z, 1
    )


def decode_each(takes: Input, encoded: tf.Tensor) -> tf.Tensor:
    """Decode images, string [B], one by one in threads; large ones one after the other.

    Returns: float32 [B, height, width, 3]; the same bits as those of `decoder`.

    Raises:
        tf.errors.OpError: an image can't be decoded.
    """
    with ThreadPoolExecutor(min(PARALLEL, cores())) as pool:
        decoded = list(pool.map(partial(decode_small, takes), encoded))
    with tf.device("/CPU:0"):
        return tf.stack(
            [
                takes.decode(one) if values is None else values
                for one, values in zip(encoded, decoded, strict=True)
            ]
        )


def decoder(takes: Input, bad: Bad) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return a function from encoded images, string [B], to pixels and their positions.

    See `Network` for both.
    """

    spec = tf.TensorSpec(takes.shape, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def decode_one(one: tf.Tensor) -> tf.Tensor:
        return takes.decode(one)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def unless_large(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return takes.decode_unless_large(one)

    def every(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        examples, large = tf.map_fn(
            unless_large,
            inputs,
            fn_output_signature=(spec, tf.TensorSpec((), tf.bool)),
            parallel_iterations=PARALLEL,
        )

        def completed() -> tf.Tensor:  # large images, one after the other
            left = tf.where(large)
            large_ones = tf.map_fn(
                decode_one,
                tf.gather_nd(inputs, left),
                fn_output_signature=spec,
                parallel_iterations=1,
            )
            return tf.tensor_scatter_nd_update(examples, left, large_ones)

        whole = tf.cond(tf.reduce_any(large), completed, lambda: examples)
        return whole, tf.range(tf.size(inputs))

    def good(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode the images, and leave out those that can't be decoded.

        This needs a tf.data pipeline, since nothing else goes on after an error. A last image is
        added and dropped again, since a pipeline can't give an empty batch.
        """
        count = tf.size(inputs)
        numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), inputs))

        def load(place: tf.Tensor, one: tf.Tensor) -> tuple[tf.Tensor, ...]:
            example, large = unless_large(one)
            return place, example, tf.cond(large, lambda: one, lambda: b"")

        def complete(place: tf.Tensor, one: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return place, tf.cond(left == b"", lambda: one, lambda: decode_one(left))

        # The second step decodes what `load` leaves, one image at a time.
        decoded = numbered.map(load, num_parallel_calls=PARALLEL).map(complete)
        last = tf.data.Dataset.from_tensors((count, tf.zeros(takes.shape)))
        places, examples = (
            decoded.ignore_errors()
            .concatenate(last)
            .batch(tf.cast(count, tf.int64) + 1)
            .get_single_element()
        )
        return tf.ensure_shape(examples, (None, *takes.shape))[:-1], places[:-1]

    # The decoder is not inlined: with its loop in the same graph, TensorFlow folds nothing, and the
    # network takes 40 % longer (measured).
    signature: list[Any] = [tf.TensorSpec((None,), tf.string, name="inputs")]
    return tf.function(
        every if bad == "error" else good,
        input_signature=signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
