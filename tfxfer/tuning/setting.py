"""One training of a fold: the stages that train, the rate, and the head that it starts from."""

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
import tensorflow as tf

from tfxfer import memory
from tfxfer.backbone import Backbone, Precision
from tfxfer.multiworker import MultiWorkerModel
from tfxfer.optimizers import layerwise
from tfxfer.probe import Fitted
from tfxfer.tuning.guard import STEPS, between
from tfxfer.tuning.task import Task
from tfxfer.tuning.training import (
    HeldOut,
    History,
    Show,
    Trained,
    assign,
    learnt,
    nothing,
    ready,
    train,
)
from tfxfer.workers import Strategy, chiefs

LOG = logging.getLogger(__name__)
EPOCHS = 6, 20  # the fewest and the most that a training has where nobody says how many
ENOUGH_STEPS = 200  # after which more epochs than the fewest gain little
FURTHER = 1 / 3  # of the rate, where training goes on with all stages
LOOK = 2, 40  # the epochs and the steps that a first look at the whole network has at least
DECAY = 0.9  # of the rate, a stage: with 0.75 the first of 16 would have 1 % of the last one's
WEIGHT_DECAY, CLIP, SMOOTHING = 0.01, 1.0, 0.1


def epochs_for(images: int, batch_size: int, views: int = 0) -> int:
    """How many epochs a training has where nobody says it: few images are seen more often.

    Args:
        views: augmented views of each image, which take turns with the images themselves.
    """
    fewest, most = EPOCHS
    needed = math.ceil(ENOUGH_STEPS * batch_size / max(images, 1))
    return max(fewest, min(needed, most), views + 1)


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, in which steps, and how fast.

    unfreeze: what `Backbone.unfreeze` is told, one training after the other.
    rate: the learning rate of the last stage.
    times: how many times the epochs of `Way` it trains for.
    before: how fewer stages are trained first; what that comes to is where this training begins.
    """

    task: Task
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
        if self.task.views:
            how += f", with {self.task.views} altered copies of each photo"
        if self.times > 1:
            how += f", for {self.times} times as many epochs"
        return how if self.before is None else f"{self.before}, then {how}"

    @property
    def name(self) -> str:
        """Of a folder."""
        name = f"{self.unfreeze[-1]}-{self.rate:g}-{self.task.views}-{self.times}"
        return name if self.before is None else f"{self.before.name}-{name}"

    def further(self, before: "Setting") -> "Setting":
        """More stages, from where another setting has come to: more slowly, for it is near."""
        return replace(self, rate=before.rate * FURTHER, before=before, times=1)


@dataclass(frozen=True)
class Way:
    """How each training is done.

    epochs: of a training, and `longest` the most that are tried.
    made: the first fold of each task, whose model the other ones use.
    """

    epochs: int
    batch_size: int
    seed: int
    folder: Path
    until: float
    log: Callable[[str], None]
    show: Show
    strategy: Strategy
    precision: Precision = "float32"
    longest: int = 0
    made: dict[Task, "Fold"] = field(default_factory=dict)

    @property
    def fewer(self) -> int:
        """Epochs of a training that begins where another one ended."""
        return max(1, self.epochs // 2)

    def keep_models_of(self, setting: Setting | None) -> None:
        """Delete all models but those of a setting and of the one before it."""
        kept = [] if setting is None else [setting.task]
        if setting is not None and setting.before is not None:
            kept.append(setting.before.task)
        for task in [task for task in self.made if task not in kept]:
            del self.made[task]
        memory.give_back()

    def look(self, images: int) -> int:
        """Epochs of a first look at the whole network."""
        epochs, steps = LOOK
        return min(self.fewer, max(epochs, math.ceil(steps * self.batch_size / images)))

    def late(self) -> bool:
        """Whether the time is up, by the chief's clock."""
        return chiefs(self.strategy, lambda: time.monotonic() > self.until)

    def shared(self, epochs: int, phases: int) -> list[int]:
        """The epochs of each of some trainings in a row: one at least, more for the last ones."""
        return [max(1, epochs // phases + (i >= phases - epochs % phases)) for i in range(phases)]


@dataclass(frozen=True, eq=False)
class Fold:
    """A model that is ready to train, the head that it starts from, and its examples.

    seen, held: positions of the examples that it trains on, and is judged on.
    start: the state that training begins from, see `training.ready`.
    size: images of a step; a batch may be several steps.
    """

    setting: Setting
    way: Way
    fitted: Fitted
    seen: np.ndarray
    held: np.ndarray
    model: keras.Model
    backbone: Backbone
    start: list[np.ndarray]
    size: int

    @property
    def first(self) -> list[np.ndarray]:
        """The weights that training starts from: the frozen model's."""
        start = {
            id(variable): value
            for variable, value in zip(self.model.variables, self.start, strict=False)
        }
        return [start[id(variable)] for variable in learnt(self.model)]

    @property
    def epochs(self) -> int:
        """Of all its trainings, one after the other."""
        way, setting = self.way, self.setting
        epochs = way.epochs * setting.times if setting.before is None else way.fewer
        return sum(way.shared(epochs, len(setting.unfreeze)))

    @property
    def shares(self) -> tuple[float, ...]:
        """How far to go from the first to the tuned weights.

        Weights between them make sense only where BatchNorm's statistics stay.
        """
        return STEPS if self.backbone.batch_norm == "inference" else (0.0, 1.0)

    def logits(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """[n, C] of the examples that it is judged on."""
        assign(learnt(self.model), weights)
        return self.setting.task.answers(self.model, self.held, self.way.batch_size)

    def on_the_way(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [steps, n, C] from the frozen weights to these."""
        LOG.info("Judging the training on held-out photos")
        return np.stack([self.logits(between(self.first, weights, share)) for share in self.shares])


def prepared(
    setting: Setting, way: Way, fitted: Fitted, seen: np.ndarray, held: np.ndarray
) -> Fold:
    """A model with that head, ready for the first of its trainings.

    Folds of one task share their model: to trace a step takes seconds, and 0.3 GB of memory.
    """
    if (made := way.made.get(setting.task)) is not None:
        fresh = [variable.numpy() for variable in setting.task.build(fitted)[0].variables]
        start = [*fresh, *made.start[len(fresh) :]]
        return replace(made, setting=setting, fitted=fitted, seen=seen, held=held, start=start)
    LOG.info("Building the model that is trained")
    task = setting.task
    with way.strategy.scope():
        model, backbone = task.build(fitted)
        backbone.precision = way.precision
        model = (
            model
            if way.strategy.num_replicas_in_sync == 1
            else MultiWorkerModel(model.inputs, model.outputs[0])
        )
    size = math.ceil(way.batch_size / task.pieces(way.batch_size, way.strategy))
    start = compiled(task, way, model, backbone, seen, setting.unfreeze[0])
    fold = Fold(setting, way, fitted, seen, held, model, backbone, start, size)
    if len(setting.unfreeze) == 1:  # else each of its trainings is compiled anew
        way.made[task] = fold
    return fold


def begun(
    fold: Fold, name: str, epochs: int | None = None, log: Callable[..., None] = nothing
) -> Fold:
    """The fold with the weights that the setting before it comes to, where there is one.

    Args:
        name: of that training's checkpoints; where it is done, it is not done again.
        epochs: of that training; as many as its setting has where it is None.
    """
    before = fold.setting.before
    if before is None:
        return fold
    first = prepared(before, fold.way, fold.fitted, fold.seen, fold.held)
    log(f"first {before}")
    assign(learnt(first.model), trained(first, name, epochs or first.epochs, log=log).weights[-1])
    fold.model.set_weights(before.task.finish(first.model, fold.fitted).get_weights())
    start = [variable.numpy() for variable in fold.model.variables]
    return replace(fold, start=[*start, *fold.start[len(start) :]])


def compiled(
    task: Task,
    way: Way,
    model: keras.Model,
    backbone: Backbone,
    seen: np.ndarray,
    unfreeze: int | str,
) -> list[np.ndarray]:
    """Compile for one training; returns the state to start from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning to compile anew: that is what follows
        backbone.unfreeze(unfreeze)
    pieces = task.pieces(way.batch_size, way.strategy)
    size = math.ceil(way.batch_size / pieces)
    batch = next(iter(task.batches(seen, size, way.seed, tf.distribute.get_strategy())(0, 0)))
    with way.strategy.scope():
        optimizer = layerwise(
            keras.optimizers.AdamW,
            base=0.0,
            decay=DECAY,
            backbone=backbone,
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=CLIP,
            gradient_accumulation_steps=None if pieces == 1 else pieces,
        )
    return ready(model, optimizer, batch, SMOOTHING)


def trained(
    fold: Fold,
    name: str,
    epochs: int,
    *,
    held_out: HeldOut | None = None,
    log: Callable[..., None] = nothing,
    show: Show = nothing,
) -> Trained:
    """Train one fold's model from its start.

    Several trainings in a row share the epochs, and only the last one is watched.
    """
    memory.give_back()
    way, setting, start, done = fold.way, fold.setting, fold.start, 0
    history: History = ()
    every = setting.task.batches(fold.seen, fold.size, way.seed, way.strategy)
    phases = len(setting.unfreeze)
    shared = way.shared(epochs, phases)
    for i, (unfreeze, count) in enumerate(zip(setting.unfreeze, shared, strict=True)):
        last = i == phases - 1
        if i and not last and way.late():
            continue
        if phases > 1:
            log(f"unfrozen: {unfreeze}")
            if not i:
                assign(fold.model.variables, start[: len(fold.model.variables)])
            start = compiled(setting.task, way, fold.model, fold.backbone, fold.seen, unfreeze)
        result = train(
            fold.model,
            partial(later, every, done),
            math.ceil(len(fold.seen) / fold.size),
            start,
            examples=len(fold.seen),
            epochs=count,
            rate=setting.rate,
            folder=way.folder / f"{name}-{i}",
            held_out=held_out if last else None,
            until=way.until,
            log=log,
            show=partial(later, show, done),
        )
        history = (
            *history,
            *(epoch | {"epoch": done + epoch["epoch"]} for epoch in result.history),
        )
        done += count
    return replace(result, history=history)


def later(function: Callable[[int, Any], Any], done: int, epoch: int, rest: Any) -> Any:
    """What a function of an epoch says, where so many were done by earlier trainings."""
    return function(done + epoch, rest)
