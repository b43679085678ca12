"""The frozen model against the tuned one: heads are fitted, rates are tried, the best is tuned from there (LP-FT, Kumar 2022), and the guard decides."""

import gc
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer import dataservice
from tfxfer.backbone import Backbone, Precision
from tfxfer.errors import DistributeError, TuningError
from tfxfer.features import Features
from tfxfer.multiworker import MultiWorkerModel
from tfxfer.optimizers import hold, layerwise
from tfxfer.probe import Candidate, Choice, Fitted, choose, paired, temperature
from tfxfer.probe.fitted import Array
from tfxfer.tuning.guard import STEPS, Plan, Verdict, better, between, verdict
from tfxfer.tuning.task import Task
from tfxfer.tuning.training import (
    HeldOut,
    History,
    Show,
    Trained,
    assign,
    learnt,
    losses_of,
    nothing,
    ready,
    train,
)
from tfxfer.workers import Strategy, chiefs, place, unshareable

LOG = logging.getLogger(__name__)
RATES = (2e-3, 1e-2)  # of the last stage and the head
SHORT = 4  # a rate is tried for one epoch in so many
DECAY = 0.9  # of the rate, a stage: with 0.75 the first of 16 would have 1 % of the last one's
MOMENTUM, CLIP, SMOOTHING, PULL = 0.9, 1.0, 0.1, 0.01
PATIENCE = 5  # epochs


@dataclass(frozen=True, eq=False)
class Competition:
    """What came out.

    verdict: the comparison.
    fitted: the head of the frozen winner, or the one that the tuned winner started from.
    model: the tuned winner, from pixels to calibrated logits; None where the frozen one won.
    positions, probabilities: examples that were held out, and what models like the winner said of them, calibrated.
    candidates: which of the judged examples each candidate got right, bool.
    settings: what was picked on the way.
    history: of the tuned model, also where the frozen one won, a dict an epoch; the mean of the folds where there are some and no final model.
    """

    verdict: Verdict
    fitted: Fitted
    model: keras.Model | None
    positions: np.ndarray
    probabilities: np.ndarray
    candidates: dict[str, np.ndarray]
    settings: dict[str, Any]
    history: History


@dataclass(frozen=True)
class Way:
    """How each training is done."""

    unfreeze: tuple[int | str, ...]
    epochs: int
    batch_size: int
    seed: int
    folder: Path
    until: float
    log: Callable[[str], None]
    show: Show
    strategy: Strategy
    precision: Precision = "float32"

    def late(self) -> bool:
        """Whether the time is up, by the chief's clock."""
        return chiefs(self.strategy, lambda: time.monotonic() > self.until)

    def shared(self, epochs: int) -> list[int]:
        """The epochs of each of the trainings after each other: one at least, and more for those in which more trains."""
        phases = len(self.unfreeze)
        return [max(1, epochs // phases + (i >= phases - epochs % phases)) for i in range(phases)]


@dataclass(frozen=True, eq=False)
class Fold:
    """A model that is ready to train, the head that it starts from, the examples that it sees and those that it is judged on."""

    task: Task
    way: Way
    fitted: Fitted
    seen: np.ndarray
    held: np.ndarray
    model: keras.Model
    backbone: Backbone
    start: list[np.ndarray]

    @property
    def first(self) -> list[np.ndarray]:
        """The weights that training starts from: the frozen model's."""
        start = {
            id(variable): value
            for variable, value in zip(self.model.variables, self.start, strict=False)
        }
        return [start[id(variable)] for variable in learnt(self.model)]

    @property
    def shares(self) -> tuple[float, ...]:
        """How far to go from the frozen to the tuned weights: between them, weights make sense with frozen statistics alone."""
        return STEPS if self.backbone.batch_norm == "inference" else (0.0, 1.0)

    def logits(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """[n, C] of the examples that it is judged on."""
        assign(learnt(self.model), weights)
        return self.task.answers(self.model, self.held, self.way.batch_size)

    def on_the_way(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [steps, n, C] from the frozen weights to these."""
        LOG.info("Judging the training on held-out photos")
        return np.stack([self.logits(between(self.first, weights, share)) for share in self.shares])


def compete(
    task: Task,
    features: Features,
    plan: Plan,
    *,
    head: str = "auto",
    unfreeze: Sequence[int | str] = ("all",),
    epochs: int = 12,
    rate: float | None = None,
    batch_size: int = 32,
    seed: int = 0,
    folder: Path,
    minutes: float | None = None,
    log: Callable[[str], None] = print,
    show: Show = nothing,
    strategy: Strategy | None = None,
    precision: Precision = "float32",
) -> Competition:
    """Fit heads, tune from there, and judge both by `plan` (see `tfxfer.tuning.guard`).

    Args:
        features: of all taps, of all examples.
        head: as in `tfxfer.probe.choose`.
        unfreeze: what `Backbone.unfreeze` is told, one training after the other.
        rate: the learning rate of the last stage; a few are tried on a short run where it is None.
        folder: where half-done work is kept: what is done there is not done again.
        minutes: from now on, after which each training ends with its epoch and a final model is not begun; the frozen model is kept where that is lacking.
        show: is called with each epoch of the tuned model.
        strategy: what trains, and shares out each batch; one device by default.
        precision: that training computes in, "mixed" for a GPU or a TPU; what comes out computes in float32.

    Raises:
        TuningError: a learning rate explodes, or memory is too small for one image at a time.
        DistributeError: a tf.data service has fallen silent.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas, several = strategy.num_replicas_in_sync, place(strategy)[1] > 1
    if batch_size < replicas:
        raise TuningError(unshareable(batch_size, replicas))
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    # A run that was killed goes on with the batches that fitted into memory.
    batch_size = min(
        [
            batch_size,
            *chiefs(
                strategy,
                lambda: [
                    int(number)
                    for path in folder.glob("batch-*")
                    if (number := path.name.removeprefix("batch-")).isdecimal()
                    and int(number) >= replicas
                ],
            ),
        ]
    )
    while True:
        way = Way(
            tuple(unfreeze),
            epochs,
            batch_size,
            seed,
            folder / f"batch-{batch_size}",
            until,
            log,
            show,
            strategy,
            precision,
        )
        try:
            return competed(task, features, plan, way, head, RATES if rate is None else (rate,))
        except tf.errors.ResourceExhaustedError as error:
            if several:  # the others know nothing of it, and wait
                raise TuningError(
                    f"out of memory: use --global-batch {max(batch_size // 2, replicas)} for all workers, or unfreeze fewer stages."
                ) from error
            if batch_size <= replicas:
                raise TuningError(
                    "memory is too small to train on one image at a time. Unfreeze fewer stages, or take a smaller backbone."
                ) from error
            batch_size = max(batch_size // 2, replicas)
            (folder / f"batch-{batch_size}").mkdir(parents=True, exist_ok=True)
            log(f"out of memory: once more with {batch_size} images at a time")
        except tf.errors.OpError as error:
            if dataservice.SILENT in str(error):
                raise DistributeError(dataservice.SILENT) from error
            raise
        gc.collect()  # models are circles, and hold the memory that was too small


def competed(
    task: Task, features: Features, plan: Plan, way: Way, head: str, rates: Sequence[float]
) -> Competition:
    """The competition at one batch size."""
    log = way.log

    def fit(rows: np.ndarray, log: Callable[..., None] = nothing, taps: bool = True) -> Choice:
        return chiefs(
            way.strategy,
            lambda: fitted_on(features, rows, taps, head=head, seed=way.seed, log=log),
            (Choice, Candidate, Fitted),
        )

    def start(rows: np.ndarray, rival: Choice | None = None) -> Fitted:
        return (rival or fit(rows)).fitted if task.taps else fit(rows, taps=False).fitted

    log(
        f"on {len(plan.folds[0][0]):,} training photos"
        + (f", the first of {len(plan.folds)} folds:" if len(plan.folds) > 1 else ":")
    )
    choices = [fit(seen, log=log if not i else nothing) for i, (seen, _) in enumerate(plan.folds)]
    folds = [
        prepared(task, way, start(rows[0], choice), *rows)
        for choice, rows in zip(choices, plan.folds, strict=True)
    ]
    truth = features.examples.labels[plan.judged]
    frozen = np.concatenate(
        [
            choice.fitted.logits(features.take(held))
            for choice, (_, held) in zip(choices, plan.folds, strict=True)
        ]
    )
    if way.precision == "mixed":
        held = folds[0].held
        log(
            rounding(
                "frozen",
                folds[0].logits(folds[0].first),
                folds[0].fitted.logits(seen_from(features.take(held), task.taps)),
                truth[: len(held)],
            )
        )
    tried = try_rates(folds, rates, truth) if len(rates) > 1 else np.zeros((1, *frozen.shape))
    # Who picks: for each group all others, and for the final model everybody.
    pickers = [*(plan.others(i) for i in range(len(plan.groups))), np.arange(len(truth))]
    picked = [rates[better(*marks(tried, truth, places))] for places in pickers]
    reached, ended, history = (
        tune_once(folds[0], pickers, picked, truth)
        if len(folds) == 1
        else tune_folds(folds, plan.groups, picked, truth)
    )
    shares = [
        better(*marks(one, truth, places)) for one, places in zip(reached, pickers, strict=True)
    ]
    tuned = np.zeros_like(frozen, np.float64)
    for i, group in enumerate(plan.groups):
        tuned[group] = reached[i, shares[i]][group]
    right = {"frozen": frozen.argmax(1) == truth, "tuned": tuned.argmax(1) == truth}
    found = verdict(right["tuned"], right["frozen"], len(folds))
    right |= {
        f"{share:.0%} of the way to tuned": one.argmax(1) == truth
        for share, one in zip(folds[0].shares[1:], reached[-1, 1:], strict=True)
    }
    right |= {
        f"learning rate {each:g}, short": one.argmax(1) == truth
        for each, one in zip(rates, tried, strict=False)
        if len(rates) > 1
    }
    settings: dict[str, Any] = {
        "trains_from": task.source,
        "batch_size": way.batch_size,
        "learning_rate": picked[-1],
        "share": folds[0].shares[shares[-1]],
        "folds": len(folds),
    }
    cut = way.late()
    if not found.tuned_wins and cut:
        found = replace(found, cut=True)
    if not any(shares) and not cut:
        log(
            "Training did not help: on held-out photos, the network was best as it was before. "
            "A smaller --learning-rate may help."
        )
    final = folds[0]
    if found.tuned_wins and ended is None:
        log(
            "The tuned model is better. It is trained once more, on all training photos, at a "
            f"learning rate of {picked[-1]:g}"
        )
        if not way.late():
            final = prepared(
                task, way, start(plan.everything), plan.everything, plan.everything[:0]
            )
            ended = trained(final, "final", picked[-1], way.epochs, log=log, show=way.show)
        if ended is None or len(ended.history) < sum(way.shared(way.epochs)):
            found = replace(found, late=True)
    if not found.tuned_wins:
        choice = fit(plan.everything) if plan.taken or len(folds) > 1 else choices[0]
        return Competition(
            found,
            choice.fitted,
            None,
            plan.everything,
            choice.out_of_fold,
            right,
            settings,
            history,
        )
    assert ended is not None
    value = temperature(tuned, truth)
    kept = between(final.first, ended.weights[-1], settings["share"])
    assign(learnt(final.model), kept)
    log(f"kept: {settings['share']:.0%} of what training changed in the weights")
    if way.precision == "mixed" and len(final.held):
        rough = final.logits(kept)
        final.backbone.precision = "float32"
        log(rounding("tuned", rough, final.logits(kept), truth))
    model = cooled(task.finish(final.model, final.fitted), final.fitted.name, value)
    return Competition(
        found,
        final.fitted,
        model,
        plan.judged,
        softmax(tuned / value, 1),
        right,
        settings,
        ended.history,
    )


def rounding(model: str, rough: np.ndarray, exact: np.ndarray, truth: np.ndarray) -> str:
    """One sentence on what mixed precision changes in a model's answers: logits [n, C] in mixed precision and in float32."""
    right, before = rough.argmax(1) == truth, exact.argmax(1) == truth
    gain, error = paired(right, before)
    found = f"{right.mean():.3f} against {before.mean():.3f} in float32, n = {len(truth)} ({100 * gain:+.1f} ± {100 * error:.1f} points)"
    return f"mixed precision: the {model} model's accuracy on held-out images is {found}; the model that is kept computes in float32"


def fitted_on(
    features: Features,
    rows: np.ndarray,
    taps: bool,
    *,
    head: str,
    seed: int,
    log: Callable[..., None],
) -> Choice:
    """The head of some examples, as `frozen` fits it; without `taps` on the network's own output alone."""
    part = features.take(rows)
    examples = part.examples
    widths = features.tap_widths if taps and features.tap_widths else (features.feature_size,)
    return choose(
        seen_from(part, taps),
        examples.labels,
        len(examples.classes),
        widths,
        head=head,
        units=examples.units,
        seed=seed,
        log=log,
    )


def seen_from(features: Features, taps: bool) -> Array:
    """What a head with taps, or one without, is fitted on."""
    return features if taps else features.output


def prepared(task: Task, way: Way, fitted: Fitted, seen: np.ndarray, held: np.ndarray) -> Fold:
    """A model with that head folded in, ready for the first of its trainings."""
    LOG.info("Building the model that is trained")
    with way.strategy.scope():
        model, backbone = task.build(fitted)
        backbone.precision = way.precision
        model = (
            model
            if way.strategy.num_replicas_in_sync == 1
            else MultiWorkerModel(model.inputs, model.outputs[0])
        )
    return Fold(
        task,
        way,
        fitted,
        seen,
        held,
        model,
        backbone,
        compiled(task, way, model, backbone, seen, way.unfreeze[0]),
    )


def compiled(
    task: Task,
    way: Way,
    model: keras.Model,
    backbone: Backbone,
    seen: np.ndarray,
    unfreeze: int | str,
) -> list[np.ndarray]:
    """Compile for one training; returns the state to start from."""
    hold(model, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning to compile anew: that is what follows
        backbone.unfreeze(unfreeze)
    hold(model, PULL)
    batch = next(
        iter(task.batches(seen, way.batch_size, way.seed, tf.distribute.get_strategy())(0, 0))
    )
    with way.strategy.scope():
        optimizer = layerwise(
            keras.optimizers.SGD,
            base=0.0,
            decay=DECAY,
            backbone=backbone,
            momentum=MOMENTUM,
            global_clipnorm=CLIP,
        )
    return ready(model, optimizer, batch, SMOOTHING)


def trained(
    fold: Fold,
    name: str,
    rate: float,
    epochs: int,
    *,
    held_out: HeldOut | None = None,
    log: Callable[..., None] = nothing,
    show: Show = nothing,
) -> Trained:
    """Train one fold's model from its start; its trainings after each other share the epochs, and only the last one is watched."""
    way, start, done = fold.way, fold.start, 0
    history: History = ()
    every = fold.task.batches(fold.seen, way.batch_size, way.seed, way.strategy)
    for i, (unfreeze, count) in enumerate(zip(way.unfreeze, way.shared(epochs), strict=True)):
        last = i == len(way.unfreeze) - 1
        if i and not last and way.late():
            continue
        if len(way.unfreeze) > 1:
            log(f"unfrozen: {unfreeze}")
            if not i:
                assign(fold.model.variables, start[: len(fold.model.variables)])
            start = compiled(fold.task, way, fold.model, fold.backbone, fold.seen, unfreeze)
        result = train(
            fold.model,
            partial(later, every, done),
            math.ceil(len(fold.seen) / way.batch_size),
            start,
            examples=len(fold.seen),
            epochs=count,
            rate=rate,
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


def try_rates(folds: Sequence[Fold], rates: Sequence[float], truth: np.ndarray) -> np.ndarray:
    """Logits [rates, n, C] of the judged examples after a short run at each rate."""
    way = folds[0].way
    found: list[np.ndarray] = []
    short = max(1, way.epochs // SHORT)
    epochs = sum(way.shared(short))
    for rate in rates:
        ends: list[Trained] = []
        for i, fold in enumerate(folds):
            if ends and way.late():
                break
            name = f"trying {rate:g}" + (f", fold {i + 1}" if len(folds) > 1 else "")
            LOG.info("Training: %s", name)
            ends.append(
                trained(
                    fold,
                    f"rate-{rate:g}-{i}",
                    rate,
                    short,
                    log=lambda line, name=name: way.log(f"{name}: {line}"),
                )
            )
        late = way.late()
        if late:
            way.log(f"learning rate {rate:g}: the time was up before it was tried to the end")
        if late and found:
            break
        # Folds that were not reached stand as they are.
        weights = [end.weights[0] for end in ends] + [fold.first for fold in folds[len(ends) :]]
        LOG.info("Judging the training on held-out photos")
        found.append(
            np.concatenate([fold.logits(each) for fold, each in zip(folds, weights, strict=True)])
        )
        if late:
            break
        way.log(
            f"learning rate {rate:g}: {np.mean(found[-1].argmax(1) == truth):.3f} after {epochs} epoch{'s' if epochs > 1 else ''}"
        )
    return np.stack(found)


def tune_once(
    fold: Fold, pickers: Sequence[np.ndarray], picked: Sequence[float], truth: np.ndarray
) -> tuple[np.ndarray, Trained | None, History]:
    """On one split: logits [pickers, steps, n, C], the training whose last weights are everybody's pick, and its history."""
    way, reached, ended = fold.way, [np.zeros(0)] * len(pickers), None
    for rate in sorted(set(picked)):
        way.log(f"tuning at a learning rate of {rate:g}")
        asks = [i for i, each in enumerate(picked) if each == rate]
        held_out = HeldOut(
            lambda model: fold.task.answers(model, fold.held, way.batch_size),
            truth,
            tuple(pickers[i] for i in asks),
            PATIENCE,
        )
        result = trained(
            fold,
            f"tune-{rate:g}",
            rate,
            way.epochs,
            held_out=held_out,
            log=way.log,
            show=way.show if rate == picked[-1] else nothing,
        )
        for i, weights in zip(asks, result.weights, strict=True):
            reached[i] = fold.on_the_way(weights)
        ended = result if rate == picked[-1] else ended
    return np.stack(reached), ended, ended.history if ended else ()


def tune_folds(
    folds: Sequence[Fold], groups: Sequence[np.ndarray], picked: Sequence[float], truth: np.ndarray
) -> tuple[np.ndarray, Trained | None, History]:
    """By folds: logits [pickers, steps, n, C], the same for every picker, and the mean history; there is no final model yet."""
    histories, reached = [], np.zeros((len(folds[0].shares), len(truth), folds[0].fitted.bias.size))
    for i, (fold, group) in enumerate(zip(folds, groups, strict=True)):
        way = fold.way
        if way.late():
            way.log(
                f"fold {i + 1} of {len(folds)}: the time was up before training, so the frozen "
                "network is used here"
            )
            reached[:, group] = fold.logits(fold.first)
            continue
        way.log(f"fold {i + 1} of {len(folds)}: tuning at a learning rate of {picked[i]:g}")
        result = trained(
            fold,
            f"tune-{i}",
            picked[i],
            way.epochs,
            log=way.log,
            show=partial(tagged, way.show, f"fold {i + 1}"),
        )
        reached[:, group] = fold.on_the_way(result.weights[0])
        histories.append(result.history)
    # Folds are of different lengths where the time was up.
    mean = tuple(
        epochs[0]
        | {name: float(np.mean([epoch[name] for epoch in epochs])) for name in ("loss", "accuracy")}
        for epochs in zip(*histories, strict=False)
    )
    return np.stack([reached] * len(picked)), None, mean


def tagged(show: Show, name: str, epoch: int, values: dict[str, float]) -> None:
    """An epoch's figures, apart from those of other folds."""
    show(epoch, {f"{name}/{figure}": value for figure, value in values.items()})


def marks(
    logits: np.ndarray, labels: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What `better` asks for: which of `places` each candidate, logits [candidates, n, C], got right, and their losses."""
    return np.stack([one[places].argmax(1) == labels[places] for one in logits]), np.stack(
        [losses_of(one[places], labels[places]) for one in logits]
    )


def cooled(model: keras.Model, head: str, value: float) -> keras.Model:
    """The model with the logits of its head divided by a temperature, within the last layer."""
    logits = model.get_layer(head).get_layer("logits")
    logits.set_weights([weight / np.float32(value) for weight in logits.get_weights()])
    return model
