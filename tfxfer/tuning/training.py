"""Train with Keras' own `fit`, epoch by epoch. After a kill it can go on, with the same result.

A checkpoint holds all that decides the next step: the weights, the optimizer, the seeds of dropout,
the metrics, the place in the data, the learning rate, and the best weights so far. The data depend
on the epoch and on how many batches are done, and the learning rate depends on the step.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from tfxfer.tasks import Task
from tfxfer.tuning import checkpoint
from tfxfer.tuning.optimizers import warm_up_cosine

LOG = logging.getLogger(__name__)
EVERY = 30.0  # seconds between checkpoints
# With several workers, asking whether to save takes a millisecond: they ask every so many steps.
ASK = 8
# If the loss is not finite: how many times to go back to the beginning of the epoch, and by what to
# multiply the learning rate each time.
RETREATS, SLOWER = 3, 0.3

History = tuple[dict[str, float], ...]  # the figures of each epoch
# (number of an epoch that is done, its figures)
Show = Callable[[int, dict[str, float]], None]
# (epoch, batches that are done) -> the remaining batches, each (inputs, codes of the task), as
# `workers.make_batches` makes them
Batches = Callable[[int, int], Any]
Answers = Callable[[keras.Model], np.ndarray]  # a model -> its outputs, float64 [n, K]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out examples on which a training is watched.

    answers: a model -> its outputs for them.
    targets: their labels, as `Task.losses` takes them.
    watch: groups of positions among them. For each group the weights of the epoch with the smallest
        loss are kept.
    patience: training stops after so many epochs in which no group had a new smallest loss.
    """

    answers: Answers
    targets: np.ndarray
    task: Task
    watch: tuple[np.ndarray, ...]
    patience: int


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training.

    weights: with `held_out`, for each watched group the weights of its best epoch; otherwise one
        entry, the weights of the last epoch (see `model_variables`).
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
    task: Task,
    targets: np.ndarray,
) -> list[np.ndarray]:
    """Compile a model, build all that `fit` would build, and return the state to start from.

    That is the values of `training_variables` before any step. One step of `fit` runs so that it is
    traced; `train` then sets the model back. `train_on_batch` would trace a second function, at the
    same cost.

    Args:
        batches: data set as for `fit`; one of its batches is trained on.
        smoothing: share of each label that is divided among all answers.
        task: what an answer is, which gives the loss.
        targets: those of all training examples.
    """
    before = [v.numpy() for v in model.variables]
    with model.distribute_strategy.scope():
        model.compile(
            optimizer,
            task.training_loss(smoothing, targets),
            metrics=[task.training_score(targets)],
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


@dataclass
class TrainingState:
    """The progress of a training; the variables of its model are kept apart.

    saved: number of checkpoints written so far.
    epoch: epochs that are done.
    step: steps of the next epoch that are done.
    scale: factor of the learning rate, below 1 after a loss that was not finite.
    retreats: how often that happened.
    stale: epochs since any group had a new smallest loss.
    done: whether the training has ended.
    history: the figures of each epoch.
    best: the smallest loss of each group that is watched.
    best_weights: the weights of that epoch, for each group.
    good: all variables at the beginning of the epoch.
    """

    best: list[float]
    best_weights: list[list[np.ndarray]]
    good: list[np.ndarray]
    saved: int = 0
    epoch: int = 0
    step: int = 0
    scale: float = 1.0
    retreats: int = 0
    stale: int = 0
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, folder: Path, variables: Sequence[np.ndarray]) -> None:
        """Keep the state on disk, with the values of all variables."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        arrays = [*variables, *(value for weights in self.best_weights for value in weights)]
        # At the beginning of an epoch the good variables are the present ones.
        checkpoint.save(folder, self.saved, [*arrays, *(self.good if self.step else [])], numbers)

    def restore(
        self, arrays: Sequence[np.ndarray], numbers: dict[str, Any], variables: Sequence[Any]
    ) -> None:
        """Take over what `save` kept, and give the variables their values."""
        for name in NUMBERS:
            setattr(self, name, numbers[name])
        rest = iter(arrays)
        assign(variables, [next(rest) for _ in variables])
        self.best_weights = [[next(rest) for _ in weights] for weights in self.best_weights]
        self.good = list(rest)


# The fields of a state that are kept as JSON.
NUMBERS = ("saved", "epoch", "step", "scale", "retreats", "stale", "done", "history", "best")


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

    It goes on from the checkpoint in `folder`; if that is complete, nothing is trained.

    Args:
        start: the state to start from, see `prepare_training`.
        steps, examples: batches and images in an epoch.
        rate: the largest learning rate.
        until: training stops at the end of the first epoch that ends after this value of
            time.monotonic().
        level: logging level of its lines.
        show: called with each epoch's figures, for TensorBoard.

    Raises:
        TuningError: the loss is still not finite after three smaller learning rates.
        Preempted: a SIGTERM came; the state is kept.
    """
    variables, strategy = training_variables(model), model.distribute_strategy
    groups = () if held_out is None else held_out.watch
    assign(variables, start)
    state = TrainingState(
        best=[math.inf] * len(groups),
        best_weights=[values_of(model_variables(model)) for _ in groups],
        good=[],
    )
    kept = broadcast_from_chief(strategy, lambda: checkpoint.load(folder))
    if kept is not None:
        state.restore(*kept, variables)

    def keep() -> None:
        state.saved += 1
        values = values_of(variables)  # on all workers: metrics are summed over them
        if not place(strategy)[0]:
            state.save(folder, values)

    while not state.done:
        if not state.step:
            state.good = values_of(variables)
        began, skipped = time.monotonic(), state.step
        schedule = partial(warm_up_cosine, rate * state.scale, steps=epochs * steps)
        name = f"epoch {state.epoch + 1} of {epochs}"
        keeper = Keeper(state, keep, schedule, steps=steps, model=model, name=name)
        figures = fit_epoch(model, batches, steps, state=state, keeper=keeper)
        if not is_finite(figures, model):
            retreat(state, variables, rate, level=level)
            continue
        if held_out is not None:
            figures |= watch_epoch(model, held_out, state)
        seconds = max(time.monotonic() - began, 1e-9)
        state.epoch, state.step = state.epoch + 1, 0
        state.history.append({"epoch": state.epoch, **figures})
        speed = examples * (1 - skipped / steps) / seconds
        LOG.log(level, describe_epoch(state, epochs, examples, speed=speed))
        show(state.epoch, figures)
        late = broadcast_from_chief(strategy, lambda: time.monotonic() > until)
        stale = held_out is not None and state.stale >= held_out.patience
        if late and state.epoch < epochs:
            LOG.log(level, "the time is up: training stops here")
        if stale and state.epoch < epochs:
            halves = ", neither on all of them nor on a half" if len(groups) > 1 else ""
            LOG.log(
                level,
                f"training stops here: for {state.stale} epochs the loss on held-out examples has "
                f"not become smaller{halves}",
            )
        state.done = late or stale or state.epoch == epochs
        if state.done:
            keep()
        else:
            keeper.keep_if_due()
    weights = state.best_weights or [values_of(model_variables(model))]
    return Trained(weights=tuple(weights), history=tuple(state.history))


def values_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return the values of variables."""
    return [variable.numpy() for variable in variables]


def fit_epoch(
    model: keras.Model, batches: Batches, steps: int, *, state: TrainingState, keeper: "Keeper"
) -> dict[str, float]:
    """Train on what is left of an epoch, and return its loss and its score."""
    left = steps_option(model.distribute_strategy, steps - state.step)
    with memory.forgotten_gradients():
        done = model.fit(
            batches(state.epoch, state.step),
            initial_epoch=state.epoch,
            epochs=state.epoch + 1,
            verbose=0,
            callbacks=[keeper],
            shuffle=False,
            **left,
        )
    names = sorted(done.history, key=lambda name: name != "loss")
    return {name: float(done.history[name][0]) for name in names}


def is_finite(figures: dict[str, float], model: keras.Model) -> bool:
    """Whether the loss and all weights are finite."""
    weights = values_of(model_variables(model))
    return math.isfinite(figures["loss"]) and all(np.isfinite(value).all() for value in weights)


def retreat(state: TrainingState, variables: Sequence[Any], rate: float, *, level: int) -> None:
    """Go back to the beginning of the epoch, with a smaller learning rate.

    Raises:
        TuningError: that was done too often.
    """
    assign(variables, state.good)
    state.step = 0
    state.scale *= SLOWER
    state.retreats += 1
    if state.retreats > RETREATS:
        raise TuningError(
            f"the loss is not finite at a learning rate of {rate:g}, and not at "
            f"{rate * state.scale / SLOWER:.2g} either. Try --learning-rate {rate / 100:g}."
        )
    LOG.log(
        level,
        f"epoch {state.epoch + 1}: the loss is not finite; back to the last good state, "
        f"at a learning rate of {rate * state.scale:g}",
    )


def describe_epoch(state: TrainingState, epochs: int, examples: int, *, speed: float) -> str:
    """Return one line on the epoch that was done last; `speed` is in images a second."""
    # Keras names the figures of training images just "loss" and "accuracy". The log says which
    # images they are of.
    figures = "  ".join(
        f"{name if name.startswith('val_') else f'training {name}'} {value:.4f}"
        for name, value in state.history[-1].items()
        if name != "epoch"
    )
    left = (epochs - state.epoch) * examples / speed
    number = f"{state.epoch:>{len(str(epochs))}}/{epochs}"
    return f"epoch {number}  {figures}  {speed:.0f} examples/s, {left:.0f} s left"


def watch_epoch(model: keras.Model, held_out: HeldOut, state: TrainingState) -> dict[str, float]:
    """Return loss and score on held-out examples, and keep the best weights.

    They are kept for each group that has a new smallest loss.
    """
    task, outputs = held_out.task, held_out.answers(model)
    # By these the workers decide together when the training ends.
    losses = broadcast_from_chief(
        model.distribute_strategy, lambda: task.losses(outputs, held_out.targets)
    )
    state.stale += 1
    for i, group in enumerate(held_out.watch):
        loss = float(losses[group].mean())
        if loss < state.best[i]:
            state.best[i], state.stale = loss, 0
            state.best_weights[i] = values_of(model_variables(model))
    return {
        "val_loss": float(losses.mean()),
        f"val_{task.SCORE}": float(task.scores(outputs, held_out.targets).mean()),
    }


class Keeper(keras.callbacks.Callback):
    """Set the learning rate of each step, and keep checkpoints inside an epoch."""

    last = 0.0  # time when any training of this process last kept a checkpoint

    def __init__(
        self,
        state: TrainingState,
        keep: Callable[[], None],
        rate: Callable[[int], float],
        *,
        steps: int,
        model: keras.Model,
        name: str,
    ):
        super().__init__()
        self.state, self.keep, self.rate, self.steps = state, keep, rate, steps
        self.strategy = model.distribute_strategy
        self.skipped, self.metrics = state.step, model.metrics_variables
        self.values = values_of(self.metrics)
        self.progress = Progress(
            steps - self.skipped, not place(self.strategy)[0], name, unit="steps", quick=True
        )

    def on_epoch_begin(self, epoch, logs=None):
        if self.skipped:  # `fit` has set the metrics of the part that is done to zero
            assign(self.metrics, self.values)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.rate(
            self.state.epoch * self.steps + self.skipped + batch
        )

    def on_train_batch_end(self, batch, logs=None):
        self.state.step = self.skipped + batch + 1
        self.progress.update(1)
        alone = place(self.strategy)[1] == 1
        if (
            self.state.step < self.steps
            and math.isfinite(float(np.mean(logs["loss"])))
            and (alone or self.state.step % ASK == 0)
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
