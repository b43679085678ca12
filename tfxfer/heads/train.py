"""Train a Keras head on cached features with ordinary `compile` and `fit`, and calibrate it."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfxfer.data.folds import deal
from tfxfer.distribute.multiworker import MultiWorkerModel
from tfxfer.distribute.workers import Strategy, make_batches, order, steps_option
from tfxfer.heads.fitted import Array
from tfxfer.tasks import CLASSIFY, Task

LOG = logging.getLogger(__name__)
# Bytes of features, activations or images that are held in memory. Where there are more, every
# batch is read from disk.
LOADED = 2**30
RATE, DECAY = 1e-3, 1e-3  # of AdamW: the learning rate at the start, and the weight decay
FOLDS = 5  # without validation, one part in five is held out to calibrate on


@dataclass(frozen=True, eq=False)
class Trained:
    """A head that was trained.

    head: Keras layer from features [B, F] to calibrated logits [B, C].
    history: one dict for each epoch with "epoch", "loss" and the score, such as "accuracy"; and
        with "val_loss" and the score, such as "val_accuracy", where there is validation.
    positions: positions of the examples that the head was calibrated on and had not seen. They are
        the validation examples, or without these a stratified fifth of the training examples; then
        the head was first trained, in the same way, on the rest.
    probabilities: float64 [len(positions), C], the calibrated probabilities that the head gave at
        that time.
    temperature: the logits are divided by it, a number or [C].
    """

    head: keras.Sequential
    history: tuple[dict[str, float], ...]
    positions: np.ndarray
    probabilities: np.ndarray
    temperature: float | np.ndarray


def reader(features: Array, rows: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from places in `rows`, int64 [B], to features, float32 [B, F]."""
    width = features.shape[1]
    if 4 * len(rows) * width <= LOADED:
        # The features are read once, so that `fit` only gathers rows in memory. The tensor is made
        # on the CPU, whatever other devices there are.
        with tf.device("/CPU:0"):
            loaded = tf.constant(np.asarray(features[rows], np.float32))
        return lambda at: tf.gather(loaded, at)

    def read(at: tf.Tensor) -> tf.Tensor:
        batch = tf.numpy_function(
            lambda i: np.asarray(features[rows[i]], np.float32), [at], tf.float32
        )
        return tf.ensure_shape(batch, [None, width])

    return read


def add_codes(
    features: Array, codes: Callable[[np.ndarray], np.ndarray], outputs: int, rows: np.ndarray
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return a function from places in `rows`, int64 [B], to their features and codes.

    Codes are what the loss compares outputs with. They are made for each batch, because with many
    outputs those of all examples would not fit into memory.

    Args:
        codes: returns the codes at some positions, see `Task.codes`.
    """
    read = reader(features, rows)

    def labelled(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = tf.numpy_function(lambda i: codes(rows[i]), [at], tf.float32)
        return read(at), tf.ensure_shape(y, (None, outputs))

    return labelled


def compile_head(model: keras.Model, task: Task, targets: np.ndarray, steps: int) -> None:
    """Compile a model for `fit`, with AdamW and the loss of the task."""
    model.compile(
        keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        task.training_loss(0.0, targets),
        metrics=[task.training_score(targets)],
        jit_compile=False,
        # A step on features takes less time than Python takes to start it, so several are started
        # at once. Keras 3 can't do that under a strategy.
        steps_per_execution=1 if tf.distribute.has_strategy() else min(steps, 32),
    )


def fit_epochs(
    model: keras.Model,
    read: Callable[[tf.Tensor], Any],
    count: int,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    score: str,
    validation: Any = None,
) -> list[dict]:
    """Call `fit` on `count` examples, and return one dict for each epoch.

    Each epoch has an order of its own, and the learning rate falls along a cosine.
    """
    history: list[dict] = []
    strategy = model.distribute_strategy
    for epoch in range(epochs):
        model.optimizer.learning_rate = RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        data = make_batches(
            strategy,
            order(np.arange(count), epoch, seed),
            batch_size,
            examples=tf.data.Dataset.from_tensor_slices,
            then=read,
        )
        length = steps_option(strategy, math.ceil(count / batch_size))
        logs = model.fit(
            data,
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=validation,
            verbose=0,
            shuffle=False,
            **length,
        ).history
        values = {
            name: float(logs[name][0])
            for name in ("loss", score, "val_loss", f"val_{score}")
            if name in logs
        }
        history.append({"epoch": epoch + 1, **values})
        # Keras does not say in its names that the figures are of training images.
        figures = "  ".join(
            f"{name if name.startswith('val_') else f'training {name}'} {value:.4f}"
            for name, value in values.items()
        )
        LOG.info("epoch %*d/%d  %s", len(str(epochs)), epoch + 1, epochs, figures)
    return history


def fit_head(
    head: keras.layers.Layer,
    features: Array,
    labels: np.ndarray,
    train_rows: np.ndarray,
    validation_rows: np.ndarray | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    task: Task = CLASSIFY,
    units: np.ndarray | None = None,
    seed: int = 0,
    strategy: Strategy | None = None,
) -> Trained:
    """Train a Keras head on features and calibrate it with one temperature.

    Args:
        head: any layer from [B, F] to logits [B, C].
        features: anything with `shape` and `[positions]` -> float32 [m, F]. Up to 1 GiB is held in
            memory.
        labels: the targets; for classes int [n], 0 .. C - 1.
        train_rows, validation_rows: positions. Without validation, no training examples are lost:
            the head is first trained on four fifths of them, calibrated on the last fifth, and then
            trained anew on all.
        epochs, batch_size: as for `fit`.
        task: what the answer is.
        units: int [n]; examples with the same number are on the same side when a part is held out.
            None where each example stands for itself.
        seed: seed of the shuffling, and of layers that are built or draw random numbers from here
            on. It sets the global seed of Keras, NumPy and Python. A layer draws its own seeds when
            it is made, so set the seed before that too, as a run does.
        strategy: the tf.distribute strategy that trains and divides each batch; one device by
            default.

    Raises:
        ValueError: the head does not give one logit for each class.
    """
    labels, train_rows = np.asarray(labels), np.asarray(train_rows)
    width = features.shape[1]
    classes = labels.shape[1] if labels.ndim > 1 else int(labels[train_rows].max()) + 1
    sizes = task.units(labels[train_rows])
    if sizes is not None:  # what training changes is of size one, whatever the unit of the targets
        middle = task.constant(labels[train_rows], classes)
        head = in_units(head, sizes, middle)
    outputs = count_outputs(head, width, classes)
    split = divide(task.strata(labels), train_rows, validation_rows, units, seed=seed)

    def codes(rows: np.ndarray) -> np.ndarray:
        return task.codes(labels[rows], outputs)

    held_out, seen = split.held_out, split.seen
    keras.utils.set_random_seed(seed)
    strategy = strategy or tf.distribute.get_strategy()
    model = keras.Sequential([keras.Input((width,)), head])
    trained = distribute_head(
        model,
        head,
        strategy,
        task=task,
        targets=labels[train_rows],
        steps=math.ceil(len(seen) / batch_size),
    )
    variables = [*trained.variables, *trained.optimizer.variables]
    start = [keras.ops.convert_to_numpy(variable) for variable in variables]
    validation = None
    if split.twice:
        LOG.info(
            "training twice: first on %s examples, to judge it on the other %s, then on all",
            f"{len(seen):,}",
            f"{len(held_out):,}",
        )
    else:
        validation = make_batches(
            strategy,
            np.arange(len(held_out)),
            1024,
            examples=tf.data.Dataset.from_tensor_slices,
            then=add_codes(features, codes, outputs, held_out),
        )
    fit = partial(
        fit_epochs, trained, epochs=epochs, batch_size=batch_size, seed=seed, score=task.SCORE
    )
    history = fit(add_codes(features, codes, outputs, seen), len(seen), validation=validation)
    logits = predict_logits(trained, features, held_out, classes=outputs)
    value = task.temperature(logits, labels[held_out])
    if split.twice:
        # The same model is set back to its start, so that the step that `fit` has traced is used
        # again. A new model would be traced anew.
        for variable, before in zip(variables, start, strict=True):
            variable.assign(before)
        history = fit(add_codes(features, codes, outputs, train_rows), len(train_rows))
    if trained is not model:
        model.set_weights(trained.get_weights())
    shift = task.offset(logits / value, labels[held_out])
    rescaled = keras.layers.Rescaling(as_list(1 / value), as_list(shift), name="temperature")
    calibrated = keras.Sequential([keras.Input((width,)), head, rescaled], name="head")
    return Trained(
        head=calibrated,
        history=tuple(history),
        positions=held_out,
        probabilities=task.predictions(logits.astype(np.float64) / value + shift),
        temperature=value,
    )


def as_list(value: Any) -> Any:
    """Return an array as a list, which a layer can be saved with; a number as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def in_units(head: keras.layers.Layer, units: np.ndarray, middle: np.ndarray) -> keras.Sequential:
    """Return a head whose outputs are multiplied by the size of the targets, and begin at 0.

    Args:
        units: float32 [K], the size of each target.
        middle: float64 [K], the mean of each target.
    """
    rescaled = keras.layers.Rescaling(units.tolist(), middle.tolist(), name="unit")
    return keras.Sequential([head, rescaled], name="in_units")


def count_outputs(head: keras.layers.Layer, width: int, classes: int) -> int:
    """Return how many logits a head gives for features of this width.

    Raises:
        ValueError: it does not give one for each class.
    """
    shape = head.compute_output_shape((None, width))
    if len(shape) != 2 or (shape[1] or 0) < classes:
        raise ValueError(
            f"head: expected logits [B, C] with C >= {classes}, one a class, "
            f"from features [B, {width}]. Received: output shape {tuple(shape)}"
        )
    return int(shape[1])


@dataclass(frozen=True, eq=False)
class Divided:
    """Which examples a head is trained on first, and which ones it is judged and calibrated on.

    twice: whether it is then trained anew, on all training examples.
    """

    seen: np.ndarray
    held_out: np.ndarray
    twice: bool


def divide(
    labels: np.ndarray,
    train_rows: np.ndarray,
    validation_rows: np.ndarray | None,
    units: np.ndarray | None,
    *,
    seed: int,
) -> Divided:
    """Hold out the validation examples or, without these, a fifth of the training examples."""
    if validation_rows is not None and len(validation_rows):
        return Divided(seen=train_rows, held_out=np.asarray(validation_rows), twice=False)
    own_units = None if units is None else units[train_rows]
    folds = deal(labels[train_rows], FOLDS, seed, units=own_units)
    return Divided(seen=train_rows[folds != 0], held_out=train_rows[folds == 0], twice=True)


def distribute_head(
    model: keras.Model,
    head: keras.layers.Layer,
    strategy: Strategy,
    *,
    task: Task,
    targets: np.ndarray,
    steps: int,
) -> keras.Model:
    """Return a compiled model that trains the head on all replicas.

    Args:
        model: a model of the head alone, which is returned itself where there is one replica.
        targets: those of the training examples.
        steps: steps of an epoch.
    """
    trained = model
    with strategy.scope():
        if strategy.num_replicas_in_sync > 1:
            inputs = keras.Input((model.input_shape[-1],))
            trained = MultiWorkerModel(inputs, type(head).from_config(head.get_config())(inputs))
            trained.set_weights(model.get_weights())
        compile_head(trained, task, targets, steps)
        trained.optimizer.build(trained.trainable_variables)
    return trained


def predict_logits(
    model: keras.Model, features: Array, rows: np.ndarray, classes: int
) -> np.ndarray:
    """Return logits, float32 [len(rows), classes]."""
    out = [
        keras.ops.convert_to_numpy(
            model(np.asarray(features[rows[i : i + 1024]], np.float32), training=False)
        )
        for i in range(0, len(rows), 1024)
    ]
    return np.concatenate(out) if out else np.zeros((0, classes), np.float32)
