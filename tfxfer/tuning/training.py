"""Train with Keras' own `fit`, epoch by epoch, so that a kill at any moment changes no result.

A checkpoint holds all that decides the next step: the weights, the optimizer, the seeds of dropout,
the metrics, the place in the data, the learning rate, and the best weights so far. The data depend
on the epoch and on how many batches are done, and the learning rate depends on the step.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfxfer.distribute.preemption import Notice, Preempted, awaited
from tfxfer.distribute.workers import broadcast_from_chief, gather_from_workers, place, steps_option
from tfxfer.errors import TuningError
from tfxfer.features import Progress
from tfxfer.process import memory
from tfxfer.tuning import checkpoint
from tfxfer.tuning.optimizers import warm_up_cosine

LOG = logging.getLogger(__name__)
EVERY = 30.0  # seconds between checkpoints
# Steps after which several workers ask each other whether to keep a state: to ask takes a
# millisecond.
ASK = 8
# How often a training whose loss is not finite starts again from its last good epoch, and the
# factor of its learning rate each time.
RETREATS, SLOWER = 3, 0.3

History = tuple[dict[str, float], ...]  # the figures of each epoch
# (number of an epoch that is done, its figures)
Show = Callable[[int, dict[str, float]], None]
# (epoch, number of batches that are done) -> the other batches, (inputs, one-hot labels), divided
# as by `workers.make_batches`
Batches = Callable[[int, int], Any]
Answers = Callable[[keras.Model], np.ndarray]  # a model -> its logits, float64 [n, C]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out examples on which a training is watched.

    answers: a model -> its logits on them.
    labels: int [n].
    watch: groups of positions among them. For each group the weights of the epoch with the smallest
        loss are kept.
    patience: epochs without a smaller loss of any group after which training stops.
    """

    answers: Answers
    labels: np.ndarray
    watch: tuple[np.ndarray, ...]
    patience: int


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training.

    weights: the weights (see `model_variables`) of its last epoch, or for each group that was
        watched those of its best epoch.
    history: one dict for each epoch.
    """

    weights: tuple[list[np.ndarray], ...]
    history: History


def ignore(*told: Any) -> None:
    """Ignore all arguments: for log lines and figures that nobody needs."""


def prepare_training(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    batches: Any,
    smoothing: float,
) -> list[np.ndarray]:
    """Compile a model, build all that `fit` would build, and return the state to start from.

    That is `state(model)` as it was before. A step is traced by `fit` itself: another one, traced
    by `train_on_batch`, would take as much time and memory again.

    Args:
        batches: data set as for `fit`; one of its batches is trained on.
    """
    before = [v.numpy() for v in model.variables]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    with model.distribute_strategy.scope():
        model.compile(
            optimizer,
            loss,
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            jit_compile=False,
        )
        optimizer.build(model.trainable_variables)
    start = [*before, *(v.numpy() for v in optimizer.variables)]
    with memory.forgotten_gradients():
        model.fit(batches, epochs=1, steps_per_epoch=1, shuffle=False, verbose=0)
    model.reset_metrics()
    return [*start, *(v.numpy() for v in model.metrics_variables)]


def training_variables(model: keras.Model) -> list[Any]:
    """Return all variables that a step changes."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def model_variables(model: keras.Model) -> list[Any]:
    """Return all variables that define the model: weights and moving statistics.

    The seeds of dropout are not among them.
    """
    return [variable for variable in model.variables if variable.dtype.startswith("float")]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Give variables new values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@awaited()
def train(
    model: keras.Model,
    batches: Batches,
    steps: int,
    start: Sequence[np.ndarray],
    *,
    examples: int,
    epochs: int,
    rate: float,
    folder: Path,
    held_out: HeldOut | None = None,
    until: float = math.inf,
    level: int = logging.INFO,
    show: Show = ignore,
) -> Trained:
    """Train from `start` on batches, at a rate with a warm-up and a cosine decay.

    Training goes on from the checkpoint in `folder`, and returns at once where that is finished.

    Args:
        start: the state to start from, see `prepare_training`.
        steps, examples: batches and images in an epoch.
        rate: the largest learning rate.
        until: value of time.monotonic() after which training ends with its epoch.
        level: logging level of its lines.
        show: called with each epoch's figures, for TensorBoard.

    Raises:
        TuningError: the loss is not finite, again and again.
        Preempted: a SIGTERM came; the state is kept.
    """
    variables, watch, strategy = (
        training_variables(model),
        () if held_out is None else held_out.watch,
        model.distribute_strategy,
    )
    count, size = len(variables), len(model_variables(model))
    assign(variables, start)
    now: dict[str, Any] = {
        "saved": 0,
        "epoch": 0,
        "step": 0,
        "scale": 1.0,
        "retreats": 0,
        "history": [],
        "stale": 0,
        "done": False,
    }
    now["best"] = [math.inf] * len(watch)
    best = [[v.numpy() for v in model_variables(model)] for _ in watch]
    good: list[np.ndarray] = []  # the state at the beginning of the epoch
    if (found := broadcast_from_chief(strategy, lambda: checkpoint.load(folder))) is not None:
        arrays, now = found
        assign(variables, arrays[:count])
        best = [arrays[count + i * size : count + (i + 1) * size] for i in range(len(watch))]
        good = arrays[count + len(watch) * size :]

    def keep() -> None:
        now["saved"] += 1
        arrays = [v.numpy() for v in variables]  # on all workers: metrics are summed over them
        if not place(strategy)[0]:
            checkpoint.save(
                folder,
                now["saved"],
                [*arrays, *(w for some in best for w in some), *(good if now["step"] else [])],
                state=now,
            )

    while not now["done"]:
        good = good if now["step"] else [v.numpy() for v in variables]
        began, skipped = time.monotonic(), now["step"]
        keeper = Keeper(
            now,
            keep,
            partial(warm_up_cosine, rate * now["scale"], steps=epochs * steps),
            steps,
            model,
            f"epoch {now['epoch'] + 1} of {epochs}",
        )
        epoch, left = now["epoch"], steps_option(strategy, steps - skipped)
        with memory.forgotten_gradients():
            done = model.fit(
                batches(epoch, skipped),
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=0,
                callbacks=[keeper],
                shuffle=False,
                **left,
            )
        values = {name: float(done.history[name][0]) for name in ("loss", "accuracy")}
        if not math.isfinite(values["loss"]) or not all(
            np.isfinite(v.numpy()).all() for v in model_variables(model)
        ):
            assign(variables, good)
            now |= {"step": 0, "scale": now["scale"] * SLOWER, "retreats": now["retreats"] + 1}
            if now["retreats"] > RETREATS:
                raise TuningError(
                    f"the loss is not finite at a learning rate of {rate:g}, "
                    f"nor at {rate * now['scale'] / SLOWER:.1g}. "
                    f"Try --learning-rate {rate / 100:g}."
                )
            LOG.log(
                level,
                f"epoch {now['epoch'] + 1}: the loss is not finite; back to the last good state, "
                f"at a learning rate of {rate * now['scale']:g}",
            )
            continue
        if held_out is not None:
            values |= watch_epoch(model, held_out, now, best=best)
        speed = examples * (1 - skipped / steps) / max(time.monotonic() - began, 1e-9)
        now["history"].append({"epoch": now["epoch"] + 1, **values})
        now |= {"epoch": now["epoch"] + 1, "step": 0}
        # Keras names the figures of training images just "loss" and "accuracy". The log says which
        # images they are of.
        called = {"loss": "training loss", "accuracy": "training accuracy"}
        figures = "  ".join(
            f"{called.get(name, name)} {value:.4f}" for name, value in values.items()
        )
        LOG.log(
            level,
            f"epoch {now['epoch']:>{len(str(epochs))}}/{epochs}  {figures}  {speed:.0f} images/s, "
            f"{(epochs - now['epoch']) * examples / speed:.0f} s left",
        )
        show(now["epoch"], values)
        late, stale = (
            broadcast_from_chief(strategy, lambda: time.monotonic() > until),
            held_out is not None and now["stale"] >= held_out.patience,
        )
        if late and now["epoch"] < epochs:
            LOG.log(level, "the time is up: training stops here")
        if stale and now["epoch"] < epochs:
            halves = ", nor on a half of them that is watched," if len(watch) > 1 else ""
            LOG.log(
                level,
                f"no smaller loss on held-out examples{halves} for {now['stale']} epochs: "
                "training stops here",
            )
        now["done"] = late or stale or now["epoch"] == epochs
        if now["done"]:
            keep()
        else:
            keeper.keep_if_due()
    weights = best or [[v.numpy() for v in model_variables(model)]]
    return Trained(tuple(weights), tuple(now["history"]))


def watch_epoch(
    model: keras.Model, held_out: HeldOut, now: dict[str, Any], best: list[list[np.ndarray]]
) -> dict[str, float]:
    """Return loss and accuracy on held-out examples, and keep the best weights.

    They are kept for each group whose loss is smaller than ever before.
    """
    logits = held_out.answers(model)
    losses = losses_of(logits, held_out.labels)
    now["stale"] += 1
    for i, group in enumerate(held_out.watch):
        if (loss := float(losses[group].mean())) < now["best"][i]:
            now["best"][i], now["stale"] = loss, 0
            best[i] = [v.numpy() for v in model_variables(model)]
    return {
        "val_loss": float(losses.mean()),
        "val_accuracy": float((logits.argmax(1) == held_out.labels).mean()),
    }


def losses_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log p of the true class of each row."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


class Keeper(keras.callbacks.Callback):
    """Set the learning rate of each step, and keep checkpoints inside an epoch."""

    last = 0.0  # time when any training of this process last kept a checkpoint

    def __init__(
        self,
        now: dict[str, Any],
        keep: Callable[[], None],
        rate: Callable[[int], float],
        steps: int,
        model: keras.Model,
        name: str,
    ):
        super().__init__()
        self.now, self.keep, self.rate, self.steps, self.strategy = (
            now,
            keep,
            rate,
            steps,
            model.distribute_strategy,
        )
        self.skipped, self.metrics = now["step"], model.metrics_variables
        self.values = [v.numpy() for v in self.metrics]
        self.progress = Progress(
            steps - self.skipped, not place(self.strategy)[0], name, unit="steps", quick=True
        )

    def on_epoch_begin(self, epoch, logs=None):
        if self.skipped:  # `fit` has set the metrics of the part that is done to zero
            assign(self.metrics, self.values)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.rate(
            self.now["epoch"] * self.steps + self.skipped + batch
        )

    def on_train_batch_end(self, batch, logs=None):
        self.now["step"] = self.skipped + batch + 1
        self.progress.update(1)
        alone = place(self.strategy)[1] == 1
        if (
            self.now["step"] < self.steps
            and math.isfinite(float(np.mean(logs["loss"])))
            and (alone or self.now["step"] % ASK == 0)
        ):
            self.keep_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self.progress.close()

    def keep_if_due(self):
        words = gather_from_workers(
            self.strategy, np.array([Notice.came, time.monotonic() - Keeper.last > EVERY])
        )
        # Any worker may ask to stop; the clock is that of the main worker.
        stop, due = words[:, 0].any(), words[0, 1]
        if stop or due:
            self.keep()
            Keeper.last = time.monotonic()
        if stop:
            raise Preempted(
                "stopped by SIGTERM"
                if Notice.came
                else "stopped, since another worker got a SIGTERM"
            )
