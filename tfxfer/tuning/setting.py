"""The settings and the routine of trainings, and a model that is ready to train.

These are `Setting`, `Routine` and `Fold`.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfxfer.backbone import Backbone, Precision
from tfxfer.distribute.multiworker import MultiWorkerModel
from tfxfer.distribute.workers import Strategy, broadcast_from_chief
from tfxfer.heads import Fitted
from tfxfer.process import memory
from tfxfer.tuning.guard import STEPS, interpolate_weights
from tfxfer.tuning.optimizers import layerwise
from tfxfer.tuning.source import Source, count_pieces
from tfxfer.tuning.training import (
    HeldOut,
    History,
    Show,
    Trained,
    assign,
    ignore,
    model_variables,
    prepare_training,
    train,
)

LOG = logging.getLogger(__name__)
# The fewest and the most epochs of a training where the user does not say how many. With 20 or more
# altered copies there are more epochs, one for each set of copies (`epochs_for`).
EPOCHS = 6, 20
ENOUGH_STEPS = 200  # after so many steps, more epochs than the fewest gain little
FURTHER = 1 / 3  # factor of the learning rate where training goes on with all stages
# A first look at the whole network takes at least so many epochs and steps, but no more than half
# of the epochs.
LOOK = 2, 40
# Factor of the learning rate from each stage to the one before it: with 0.75 the first of 16 stages
# would have 1 % of the last one's rate.
DECAY = 0.9
WEIGHT_DECAY, CLIP, SMOOTHING = 0.01, 1.0, 0.1


def epochs_for(count: int, batch_size: int, views: int = 0) -> int:
    """Return the default number of epochs: the fewer examples there are, the more epochs.

    There are 6 to 20, or `views` + 1 if that is more.

    Args:
        views: number of altered copies of each example. An epoch uses the examples themselves or
            one set of copies.
    """
    fewest, most = EPOCHS
    needed = math.ceil(ENOUGH_STEPS * batch_size / max(count, 1))
    return max(fewest, min(needed, most), views + 1)


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, in which steps, and how fast.

    unfreeze: arguments of `Backbone.unfreeze`, one for each of the trainings in a row.
    rate: the learning rate of the last stage.
    times: factor by which the epochs of `Routine` are multiplied. Not used if `before` is set.
    before: the setting that trains fewer stages first. This training begins with its result.
    """

    source: Source
    unfreeze: tuple[int | str, ...]
    rate: float
    before: "Setting | None" = None
    times: int = 1

    def __str__(self) -> str:
        last = self.unfreeze[-1]
        what = f"the last {last} stages" if isinstance(last, int) else f"{last} stages"
        if last == 1:
            what = "the last stage"
        how = f"{what} at a learning rate of {self.rate:g}"
        if self.source.views:
            copies = "altered copy" if self.source.views == 1 else "altered copies"
            how += f", with {self.source.views} {copies} of each example"
        if self.times > 1:
            how += f", for {self.times} times as many epochs"
        return how if self.before is None else f"{self.before}, then {how}"

    @property
    def name(self) -> str:
        """The name of the folder of this setting."""
        name = f"{self.unfreeze[-1]}-{self.rate:g}-{self.source.views}-{self.times}"
        return name if self.before is None else f"{self.before.name}-{name}"

    def further(self, before: "Setting") -> "Setting":
        """Return a copy of this setting that starts from the weights that another one has trained.

        The learning rate is lower, because these weights are already well trained.
        """
        return replace(self, rate=before.rate * FURTHER, before=before, times=1)


@dataclass(frozen=True)
class Routine:
    """How each training is done.

    epochs, longest: the epochs of a training, and the largest number of epochs that is tried.
    made: for each source, the first fold that was prepared; later folds reuse its model.
    """

    epochs: int
    batch_size: int
    seed: int
    folder: Path
    until: float
    show: Show
    strategy: Strategy
    precision: Precision = "float32"
    longest: int = 0
    made: dict[Source, "Fold"] = field(default_factory=dict)

    @property
    def fewer(self) -> int:
        """Epochs of a training that begins where another one ended."""
        return max(1, self.epochs // 2)

    def free_other_models(self, setting: Setting | None) -> None:
        """Free the models of all sources but that of a setting; with None, of all sources."""
        for source in list(self.made):
            if setting is None or source != setting.source:
                del self.made[source]
        memory.give_back()

    def look(self, count: int) -> int:
        """Return the epochs of a first look at the whole network."""
        epochs, steps = LOOK
        return min(self.fewer, max(epochs, math.ceil(steps * self.batch_size / count)))

    def late(self) -> bool:
        """Whether the time is up, by the clock of the main worker."""
        return broadcast_from_chief(self.strategy, lambda: time.monotonic() > self.until)

    def shared(self, epochs: int, phases: int) -> list[int]:
        """Divide epochs among trainings in a row; the last ones get the remainder.

        Each gets at least one, so the sum may be larger.
        """
        return [max(1, epochs // phases + (i >= phases - epochs % phases)) for i in range(phases)]


@dataclass(frozen=True, eq=False)
class Fold:
    """A model that is ready to train, the head that it starts from, and its examples.

    seen, held: positions of the examples that it trains on, and of those that it is judged on.
    start: the state that training begins from, see `training.prepare_training`.
    size: images that are computed at once; the gradients of several such steps add up to one batch.
    """

    setting: Setting
    routine: Routine
    fitted: Fitted
    seen: np.ndarray
    held: np.ndarray
    model: keras.Model
    backbone: Backbone
    start: list[np.ndarray]
    size: int

    @property
    def first(self) -> list[np.ndarray]:
        """The weights that training starts from."""
        start = {
            id(variable): value
            for variable, value in zip(self.model.variables, self.start, strict=False)
        }
        return [start[id(variable)] for variable in model_variables(self.model)]

    @property
    def epochs(self) -> int:
        """The number of epochs of all its trainings together."""
        routine, setting = self.routine, self.setting
        epochs = routine.epochs * setting.times if setting.before is None else routine.fewer
        return sum(routine.shared(epochs, len(setting.unfreeze)))

    @property
    def shares(self) -> tuple[float, ...]:
        """How far to go from the first to the tuned weights.

        Weights between them make sense only where the statistics of BatchNorm stay the same. The
        first weights themselves are tried only where an earlier training led to them.
        """
        steps = STEPS if self.backbone.batch_norm == "inference" else (0.0, 1.0)
        return steps if self.setting.before is not None else steps[1:]

    def starting_from(self, weights: Sequence[np.ndarray] | None) -> "Fold":
        """Return the same fold with other weights to start from; None changes nothing.

        Args:
            weights: those of `Model.get_weights`.
        """
        if weights is None:
            return self
        self.model.set_weights(weights)
        start = [variable.numpy() for variable in self.model.variables]
        return replace(self, start=[*start, *self.start[len(start) :]])

    def logits(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Return logits [n, C] of the examples that it is judged on, with these weights."""
        assign(model_variables(self.model), weights)
        return self.setting.source.answers(self.model, self.held, self.routine.batch_size)

    def on_the_way(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Return logits [shares, n, C] with weights between the first ones and these."""
        return np.stack(
            [self.logits(interpolate_weights(self.first, weights, share)) for share in self.shares]
        )


def prepare_fold(
    setting: Setting, routine: Routine, fitted: Fitted, seen: np.ndarray, held: np.ndarray
) -> Fold:
    """Return a fold whose model is built and compiled for the first of its trainings.

    Folds of one source share their model, because tracing one training step takes seconds and
    0.3 GB of memory.
    """
    if (made := routine.made.get(setting.source)) is not None:
        fresh = [variable.numpy() for variable in setting.source.build(fitted)[0].variables]
        start = [*fresh, *made.start[len(fresh) :]]
        return replace(made, setting=setting, fitted=fitted, seen=seen, held=held, start=start)
    LOG.info("Building the model that is trained")
    source = setting.source
    with routine.strategy.scope():
        model, backbone = source.build(fitted)
        backbone.precision = routine.precision
        model = (
            model
            if routine.strategy.num_replicas_in_sync == 1
            else MultiWorkerModel(model.inputs, model.outputs[0])
        )
    size = math.ceil(
        routine.batch_size / count_pieces(source.at_once, routine.batch_size, routine.strategy)
    )
    start = compile_for_stages(
        source, routine, model, backbone=backbone, seen=seen, unfreeze=setting.unfreeze[0]
    )
    fold = Fold(
        setting=setting,
        routine=routine,
        fitted=fitted,
        seen=seen,
        held=held,
        model=model,
        backbone=backbone,
        start=start,
        size=size,
    )
    if len(setting.unfreeze) == 1:  # otherwise each of its trainings is compiled anew
        routine.made[source] = fold
    return fold


def train_before(
    setting: Setting,
    routine: Routine,
    fitted: Fitted,
    seen: np.ndarray,
    held: np.ndarray,
    name: str,
    *,
    epochs: int | None = None,
    level: int = logging.INFO,
) -> list[np.ndarray] | None:
    """Train `setting.before`, and then return the weights of the whole model.

    Two models take much memory, so call this first, then `Routine.free_other_models`, and then
    `prepare_fold`.

    Args:
        name: how the names of its checkpoint folders begin. If the training is finished there, it
            is not done again.
        epochs: its epochs; by default as many as its setting has.

    Returns:
        The weights, or None if `setting.before` is None or there is no time for it.
    """
    before = setting.before
    if before is None or routine.late():
        return None
    fold = prepare_fold(before, routine, fitted, seen=seen, held=held)
    LOG.log(level, "training first: %s", before)
    ended = train_fold(fold, name, epochs or fold.epochs, level=level)
    assign(model_variables(fold.model), ended.weights[-1])
    return before.source.finish(fold.model, fitted).get_weights()


def compile_for_stages(
    source: Source,
    routine: Routine,
    model: keras.Model,
    backbone: Backbone,
    seen: np.ndarray,
    unfreeze: int | str,
) -> list[np.ndarray]:
    """Compile for one training, and return the state to start from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning asks to compile again, which is done below
        backbone.unfreeze(unfreeze)
    pieces = count_pieces(source.at_once, routine.batch_size, routine.strategy)
    size = math.ceil(routine.batch_size / pieces)
    batches = source.batches(seen, size, routine.seed, routine.strategy)(0, 0)
    with routine.strategy.scope():
        optimizer = layerwise(
            keras.optimizers.AdamW,
            base=0.0,
            decay=DECAY,
            backbone=backbone,
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=CLIP,
            gradient_accumulation_steps=None if pieces == 1 else pieces,
        )
    return prepare_training(
        model,
        optimizer,
        batches,
        smoothing=SMOOTHING,
        task=source.task,
        targets=source.examples.labels[seen],
    )


def train_fold(
    fold: Fold,
    name: str,
    epochs: int,
    *,
    stop: int | None = None,
    held_out: HeldOut | None = None,
    level: int = logging.INFO,
    show: Show = ignore,
) -> Trained:
    """Train one fold's model from its start.

    If there are several trainings in a row, `epochs` are divided among them, and only the last one
    uses `held_out`.

    Args:
        stop: the epoch after which to stop; the last training is then shorter.
    """
    memory.give_back()
    routine, setting, start, done = fold.routine, fold.setting, fold.start, 0
    history: History = ()
    batches = setting.source.batches(fold.seen, fold.size, routine.seed, routine.strategy)
    phases = len(setting.unfreeze)
    shared = routine.shared(epochs, phases)
    if stop is not None:
        shared[-1] = stop - sum(shared[:-1])
    for i, (unfreeze, count) in enumerate(zip(setting.unfreeze, shared, strict=True)):
        last = i == phases - 1
        if i and not last and routine.late():
            continue
        if phases > 1:
            LOG.log(level, "unfrozen: %s", unfreeze)
            if not i:
                assign(fold.model.variables, start[: len(fold.model.variables)])
            start = compile_for_stages(
                setting.source,
                routine,
                fold.model,
                backbone=fold.backbone,
                seen=fold.seen,
                unfreeze=unfreeze,
            )
        result = train(
            fold.model,
            partial(with_earlier_epochs, batches, done),
            math.ceil(len(fold.seen) / fold.size),
            start=start,
            examples=len(fold.seen),
            epochs=count,
            rate=setting.rate,
            folder=routine.folder / f"{name}-{i}",
            held_out=held_out if last else None,
            until=routine.until,
            level=level,
            show=partial(with_earlier_epochs, show, done),
        )
        history = (
            *history,
            *(epoch | {"epoch": done + epoch["epoch"]} for epoch in result.history),
        )
        done += len(result.history)
    return replace(result, history=history)


def with_earlier_epochs(
    function: Callable[[int, Any], Any], done: int, epoch: int, rest: Any
) -> Any:
    """Call `function` with an epoch that is counted over all trainings in a row.

    Args:
        done: how many epochs the earlier trainings had.
        epoch: the epoch in this training, counted as the function counts: `Batches` from 0, `Show`
            from 1.
        rest: the function's other argument.
    """
    return function(done + epoch, rest)
