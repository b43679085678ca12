"""Training a Keras head on cached features by ordinary `compile` and `fit`, and calibrating it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer.multiworker import MultiWorkerModel
from tfxfer.probe.fitted import Array, temperature
from tfxfer.probe.folds import deal
from tfxfer.workers import Strategy, batched, exactly, order

LOADED = (
    2**30
)  # bytes of features, activations or images that are held in memory; above that every batch is read from disk
RATE, DECAY = 1e-3, 1e-3  # of AdamW: the rate at first, weight decay
FOLDS = 5  # without validation, one part in five is held out to calibrate on
# Keras calls the figures of the images that are trained on so; these are no held-out ones.
CALLED = {"loss": "training loss", "accuracy": "training accuracy"}


@dataclass(frozen=True, eq=False)
class Trained:
    """A head that was trained.

    head: Keras layer from features [B, F] to calibrated logits [B, C].
    history: a dict an epoch: "epoch", "loss", "accuracy", and "val_loss", "val_accuracy" where there is validation.
    positions: the examples that it was calibrated on and had not seen: validation, or else a stratified fifth of training, when it was first trained, in
        the same way, on the rest.
    probabilities: float64 [len(positions), C], calibrated, of the head as it was then.
    temperature: what the logits are divided by.
    """

    head: keras.Sequential
    history: tuple[dict[str, float], ...]
    positions: np.ndarray
    probabilities: np.ndarray
    temperature: float


def reader(features: Array, rows: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Places among `rows`, int64 [B], to their features, float32 [B, F]."""
    width = features.shape[1]
    if 4 * len(rows) * width <= LOADED:
        # Read once: what `fit` then asks for is a gather in memory. A tensor made on the CPU, whatever else is there.
        with tf.device("/CPU:0"):
            loaded = tf.constant(np.asarray(features[rows], np.float32))
        return lambda at: tf.gather(loaded, at)

    def read(at: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(
            lambda i: np.asarray(features[rows[i]], np.float32), [at], tf.float32
        )
        return tf.ensure_shape(found, [None, width])

    return read


def labelled(
    features: Array, labels: np.ndarray, rows: np.ndarray
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Places among `rows`, int64 [B], to their features and labels."""
    read, y = reader(features, rows), tf.constant(labels[rows], tf.int32)
    return lambda at: (read(at), tf.gather(y, at))


def compiled(model: keras.Model, steps: int) -> None:
    """Ready for `fit`: AdamW, cross-entropy on logits."""
    model.compile(
        keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
        # A step on features takes less time than Python takes to start it. Keras 3 can't do several at once under a strategy.
        steps_per_execution=1 if tf.distribute.has_strategy() else min(steps, 32),
    )


def run(
    model: keras.Model,
    read: Callable[[tf.Tensor], Any],
    count: int,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Any = None,
    log: Callable[[str], None] | None = None,
) -> list[dict]:
    """`fit` over `count` places, each epoch in an order of its own, while the rate falls along a cosine. Returns a dict an epoch."""
    history: list[dict] = []
    strategy = model.distribute_strategy
    for epoch in range(epochs):
        model.optimizer.learning_rate = RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        data = batched(
            strategy,
            order(np.arange(count), epoch, seed),
            batch_size,
            tf.data.Dataset.from_tensor_slices,
            read,
        )
        length = exactly(strategy, math.ceil(count / batch_size))
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
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
            if name in logs
        }
        history.append({"epoch": epoch + 1, **values})
        if log:
            log(
                f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}  "
                + "  ".join(
                    f"{CALLED.get(name, name)} {value:.4f}" for name, value in values.items()
                )
            )
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
    units: np.ndarray | None = None,
    seed: int = 0,
    strategy: Strategy | None = None,
    log: Callable[[str], None] = print,
) -> Trained:
    """Train a Keras head on features and calibrate it by one temperature.

    Args:
        head: any layer from [B, F] to logits [B, C].
        features: anything with `shape` and `[positions]` -> float32 [m, F]. Up to 1 GiB is held in memory.
        labels: int [n], 0 .. C - 1.
        train_rows, validation_rows: positions. Without validation nothing is taken away from training: the head is trained on four fifths
            first, calibrated on the last fifth, and then trained anew on all.
        epochs, batch_size: of `fit`.
        units: int [n]; examples of the same number are on the same side when a part is held out. None where each stands for itself.
        seed: of the shuffling and of layers that are built or draw from here on; sets the global seed of Keras, NumPy and Python. A layer draws its own
            seeds when it is made, so seed before that too, as a run does.
        strategy: what trains, and shares out each batch; one device by default.
        log: is called with a line an epoch.

    Raises:
        ValueError: the head does not give one logit a class.
    """
    labels, width = np.asarray(labels), features.shape[1]
    train_rows = np.asarray(train_rows)
    classes = int(labels[train_rows].max()) + 1
    shape = head.compute_output_shape((None, width))
    if len(shape) != 2 or (shape[1] or 0) < classes:
        raise ValueError(
            f"head: expected logits [B, C] with C >= {classes}, one a class, from features [B, {width}]. Received: output shape {tuple(shape)}"
        )
    held_out, seen = (
        (train_rows[:0], train_rows)
        if validation_rows is None
        else (np.asarray(validation_rows), train_rows)
    )
    twice = not len(held_out)
    if twice:
        folds = deal(labels[train_rows], FOLDS, seed, None if units is None else units[train_rows])
        held_out, seen = train_rows[folds == 0], train_rows[folds != 0]
    keras.utils.set_random_seed(seed)
    strategy = strategy or tf.distribute.get_strategy()
    model = trained = keras.Sequential([keras.Input((width,)), head])
    with strategy.scope():
        if strategy.num_replicas_in_sync > 1:
            inputs = keras.Input((width,))
            trained = MultiWorkerModel(inputs, type(head).from_config(head.get_config())(inputs))
            trained.set_weights(model.get_weights())
        compiled(trained, math.ceil(len(seen) / batch_size))
        trained.optimizer.build(trained.trainable_variables)
    start = [
        (v, keras.ops.convert_to_numpy(v))
        for v in [*trained.variables, *trained.optimizer.variables]
    ]
    if twice:
        log(
            f"training twice: first on {len(seen):,} photos, to judge it on the other "
            f"{len(held_out):,}, then on all"
        )
    held = (
        None
        if twice
        else batched(
            strategy,
            np.arange(len(held_out)),
            1024,
            tf.data.Dataset.from_tensor_slices,
            labelled(features, labels, held_out),
        )
    )
    fit = partial(run, trained, epochs=epochs, batch_size=batch_size, seed=seed)
    history = fit(
        labelled(features, labels, seen), len(seen), validation=held, log=None if twice else log
    )
    logits = predicted(trained, features, held_out, int(shape[1]))
    value = temperature(logits, labels[held_out])
    if twice:
        # The same model set back to its start, not a new one, so that what `fit` has traced serves again.
        for variable, before in start:
            variable.assign(before)
        history = fit(labelled(features, labels, train_rows), len(train_rows), log=log)
    if trained is not model:
        model.set_weights(trained.get_weights())
    calibrated = keras.Sequential(
        [keras.Input((width,)), head, keras.layers.Rescaling(1 / value, name="temperature")],
        name="head",
    )
    return Trained(
        calibrated, tuple(history), held_out, softmax(logits.astype(np.float64) / value, 1), value
    )


def predicted(model: keras.Model, features: Array, rows: np.ndarray, classes: int) -> np.ndarray:
    """Logits, float32 [len(rows), classes]."""
    out = [
        keras.ops.convert_to_numpy(
            model(np.asarray(features[rows[i : i + 1024]], np.float32), training=False)
        )
        for i in range(0, len(rows), 1024)
    ]
    return np.concatenate(out) if out else np.zeros((0, classes), np.float32)
