"""The frozen model against the tuned one, and the guard decides.

Training starts from logistic regression on the network's own output (LP-FT, Kumar 2022). How many
stages train, and how fast, is tried on a short run. What is compared with the frozen model is the
tuned one, or the mean of both, whichever predicts better.
"""

import gc
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from tfxfer.optimizers import layerwise
from tfxfer.probe import (
    Averaged,
    Candidate,
    Choice,
    Fitted,
    choose,
    log_loss,
    paired,
    temperature,
)
from tfxfer.tuning.guard import STEPS, Plan, Verdict, between, verdict
from tfxfer.tuning.task import Task, multiply_logits
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
from tfxfer.workers import Strategy, chiefs, place, unshareable

LOG = logging.getLogger(__name__)
RATES = (1e-3, 3e-4)  # of the last stage and the head
SHORT = 2  # a setting is tried for one epoch in so many
LOOK = 2, 40  # the epochs and the steps that a first look at the whole network has at least
FURTHER = 1 / 3  # of the rate, where training goes on with all stages
DECAY = 0.9  # of the rate, a stage: with 0.75 the first of 16 would have 1 % of the last one's
WEIGHT_DECAY, CLIP, SMOOTHING = 0.01, 1.0, 0.1
PATIENCE = 5  # epochs
WEIGHTS = (
    1 / 3,
    1 / 2,
    2 / 3,
)  # of the tuned model, where its answers and the frozen one's are averaged


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
    fitted: Fitted | Averaged
    model: keras.Model | None
    positions: np.ndarray
    probabilities: np.ndarray
    candidates: dict[str, np.ndarray]
    settings: dict[str, Any]
    history: History


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, in which steps, and how fast.

    unfreeze: what `Backbone.unfreeze` is told, one training after the other.
    rate: the learning rate of the last stage.
    before: how fewer stages are trained first; what that comes to is where this training begins.
    """

    task: Task
    unfreeze: tuple[int | str, ...]
    rate: float
    before: "Setting | None" = None

    def __str__(self) -> str:
        last = self.unfreeze[-1]
        what = f"the last {last} stages" if isinstance(last, int) else f"{last} stages"
        if last == 1:
            what = "the last stage"
        how = f"{what} at a learning rate of {self.rate:g}"
        return how if self.before is None else f"{self.before}, then {how}"

    @property
    def name(self) -> str:
        """Of a folder."""
        name = f"{self.unfreeze[-1]}-{self.rate:g}"
        return name if self.before is None else f"{self.before.name}-{name}"

    def further(self, before: "Setting") -> "Setting":
        """More stages, from where another setting has come to: more slowly, for it is near."""
        return replace(self, rate=before.rate * FURTHER, before=before)


@dataclass(frozen=True)
class Way:
    """How each training is done."""

    epochs: int
    batch_size: int
    seed: int
    folder: Path
    until: float
    log: Callable[[str], None]
    show: Show
    strategy: Strategy
    precision: Precision = "float32"

    @property
    def fewer(self) -> int:
        """Epochs of a training that begins where another one ended."""
        return max(1, self.epochs // 2)

    def look(self, images: int) -> int:
        """Epochs of a first look at the whole network."""
        epochs, steps = LOOK
        return min(self.fewer, max(epochs, math.ceil(steps * self.batch_size / images)))

    def late(self) -> bool:
        """Whether the time is up, by the chief's clock."""
        return chiefs(self.strategy, lambda: time.monotonic() > self.until)

    def shared(self, epochs: int, phases: int) -> list[int]:
        """The epochs of each of the trainings after each other: one at least, and more for those in which more trains."""
        return [max(1, epochs // phases + (i >= phases - epochs % phases)) for i in range(phases)]


@dataclass(frozen=True, eq=False)
class Fold:
    """A model that is ready to train, the head that it starts from, the examples that it sees and those that it is judged on.

    start: the state that training begins from, see `training.ready`.
    size: images of a step; a batch may be several steps.
    seconds: of a step, as measured.
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
    seconds: float

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
        epochs = self.way.epochs if self.setting.before is None else self.way.fewer
        return sum(self.way.shared(epochs, len(self.setting.unfreeze)))

    @property
    def shares(self) -> tuple[float, ...]:
        """How far to go from the frozen to the tuned weights: between them, weights make sense with frozen statistics alone."""
        return STEPS if self.backbone.batch_norm == "inference" else (0.0, 1.0)

    def logits(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """[n, C] of the examples that it is judged on."""
        assign(learnt(self.model), weights)
        return self.setting.task.answers(self.model, self.held, self.way.batch_size)

    def on_the_way(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [steps, n, C] from the frozen weights to these."""
        LOG.info("Judging the training on held-out photos")
        return np.stack([self.logits(between(self.first, weights, share)) for share in self.shares])


def compete(
    tasks: Sequence[Task],
    features: Features,
    plan: Plan,
    *,
    head: str = "auto",
    gradual: bool = False,
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
        tasks: what may train, from few stages to many; as many are taken as pay on a short run.
        head: of the frozen model, as in `tfxfer.probe.choose`.
        gradual: train the last stage first, then one more at a time.
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
            rates = RATES if rate is None else (rate,)
            return competed(tasks, rates, features, plan, way, head, gradual)
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
    tasks: Sequence[Task],
    rates: Sequence[float],
    features: Features,
    plan: Plan,
    way: Way,
    head: str,
    gradual: bool,
) -> Competition:
    """The competition at one batch size."""
    log = way.log

    def fit(rows: np.ndarray, log: Callable[..., None] = nothing) -> Choice:
        return chiefs(
            way.strategy,
            lambda: fitted_on(features, rows, head=head, seed=way.seed, log=log),
            (Choice, Candidate, Fitted, Averaged),
        )

    def start(rows: np.ndarray) -> Fitted:
        return chiefs(
            way.strategy,
            lambda: start_of(features, rows, seed=way.seed),
            (Choice, Candidate, Fitted),
        )

    log("The frozen model:")
    choice = fit(plan.folds[0][0], log)
    settings = [Setting(task, steps_of(task, gradual), rates[0]) for task in tasks]
    setting, plan = pick_setting(settings, rates, features, plan, way, start)
    choices = [
        choice if i == 0 and plan.first else fit(seen) for i, (seen, _) in enumerate(plan.folds)
    ]
    folds = [prepared(setting, way, start(rows[0]), *rows) for rows in plan.folds]
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
                folds[0].fitted.logits(features.take(held).output),
                truth[: len(held)],
            )
        )
    # Who picks: for each group all others, and for the final model everybody.
    pickers = [*(plan.others(i) for i in range(len(plan.groups))), np.arange(len(truth))]
    reached, ended, history = (
        tune_once(folds[0], pickers, truth)
        if len(folds) == 1
        else tune_folds(folds, plan.groups, len(pickers))
    )
    answers = answers_of(folds[0].shares, setting.before is not None)
    tuned = np.zeros_like(frozen, np.float64)
    for i, group in enumerate(plan.groups):
        said = np.stack([one.logits(reached[i], frozen, truth, pickers[i]) for one in answers])
        tuned[group] = said[least_loss(said, truth, pickers[i])][group]
    said = np.stack([one.logits(reached[-1], frozen, truth, pickers[-1]) for one in answers])
    answer = answers[least_loss(said, truth, pickers[-1])]
    found = replace(verdict(tuned, frozen, truth, len(folds)), weight=answer.weight)
    right = {"frozen": frozen.argmax(1) == truth, "tuned": tuned.argmax(1) == truth}
    right |= {
        str(one): logits.argmax(1) == truth for one, logits in zip(answers, said, strict=True)
    }
    picks: dict[str, Any] = {
        "trains_from": setting.task.source,
        "unfreeze": setting.unfreeze[-1],
        "batch_size": way.batch_size,
        "learning_rate": setting.rate,
        "share": answer.share,
        "weight": answer.weight,
        "folds": len(folds),
    }
    if not found.tuned_wins and way.late():
        found = replace(found, cut=True)
    final = folds[0]
    if found.tuned_wins and ended is None:
        log(
            f"The tuned model is better. It is trained once more, on all training photos: {setting}"
        )
        if not way.late():
            final = prepared(
                setting, way, start(plan.everything), plan.everything, plan.everything[:0]
            )
            final = begun(final, "final-before", way.epochs, log)
            ended = trained(final, "final", final.epochs, log=log, show=way.show)
        if ended is None or len(ended.history) < final.epochs:
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
            picks,
            history,
        )
    assert ended is not None
    kept = between(final.first, ended.weights[-1], answer.share)
    assign(learnt(final.model), kept)
    if way.precision == "mixed" and len(final.held):
        rough = final.logits(kept)
        final.backbone.precision = "float32"
        log(rounding("tuned", rough, final.logits(kept), truth))
    frozen_head = choices[0].fitted if len(folds) == 1 else fit(plan.everything).fitted
    value = temperature(tuned, truth)
    cooling = answer.cooling(reached[-1], truth) * value
    return Competition(
        found,
        final.fitted,
        served(setting.task, final, frozen_head, answer.weight, cooling, value),
        plan.judged,
        softmax(tuned / value, 1),
        right,
        picks,
        ended.history,
    )


def served(
    task: Task,
    final: Fold,
    frozen: Fitted | Averaged,
    weight: float,
    cooling: float,
    value: float,
) -> keras.Model:
    """From pixels to calibrated logits: the tuned model, or its weighted mean with the frozen one.

    Args:
        weight: of the tuned model.
        cooling: what its logits are divided by.
        value: what the frozen model's are divided by.
    """
    if weight < 1:
        part = frozen.cooled(value / (1 - weight))
        return task.average(final.model, final.fitted, part, weight / cooling)
    model = task.finish(final.model, final.fitted)
    multiply_logits(model.get_layer(final.fitted.name), 1 / cooling)
    return model


def steps_of(task: Task, gradual: bool) -> tuple[int | str, ...]:
    """What is unfrozen in each of the trainings after each other."""
    if gradual and isinstance(task.unfreeze, int):
        return tuple(range(1, task.unfreeze + 1))
    return (task.unfreeze,)


def pick_setting(
    settings: Sequence[Setting],
    rates: Sequence[float],
    features: Features,
    plan: Plan,
    way: Way,
    start: Callable[[np.ndarray], Fitted],
) -> tuple[Setting, Plan]:
    """The rate that is best where the fewest stages train, then more stages as far as they pay.

    Each is trained for a short while, and judged by the log loss of examples that are not judged
    again: those of the first fold, or where there is one split only, a fifth of what it trains on.
    The whole network goes on from the best of these, for a first look of two epochs.

    Returns:
        The setting, and the plan without the examples that picked it.
    """
    if len(settings) == len(rates) == 1 or len(plan.folds) == 2:
        return settings[0], plan
    seen, held, plan = plan.for_picking(features.examples, way.seed)
    truth, short = features.examples.labels[held], max(1, way.epochs // SHORT)
    head = start(seen)
    LOG.info("Measuring how long training takes")
    folds = {one.task: prepared(one, way, head, seen, held) for one in settings}
    costs = Costs({task: fold.seconds / fold.size for task, fold in folds.items()}, plan, way)

    def loss_of(setting: Setting) -> float:
        LOG.info("Trying %s", setting)
        epochs = short
        fold = replace(folds[setting.task], setting=setting)
        if setting.before is not None:
            fold, epochs = begun(fold, f"try-{setting.before.name}", short), way.look(len(seen))
        end = trained(fold, f"try-{setting.name}", epochs)
        logits = fold.logits(end.weights[0])
        loss = log_loss(logits / temperature(logits, truth), truth)
        accuracy = float((logits.argmax(1) == truth).mean())
        way.log(f"{setting}: accuracy {accuracy:.3f}, log loss {loss:.3f} on held-out photos")
        return loss

    way.log(costs.said(settings, rates, len(seen), short))
    way.log(f"Trained for {short} of {way.epochs} epochs on {len(seen):,} photos, to choose how:")
    tried = {settings[0]: loss_of(settings[0])}
    for rate in rates[1:]:
        if way.late():
            break
        setting = replace(settings[0], rate=rate)
        tried[setting] = loss_of(setting)
    best = min(tried, key=lambda setting: tried[setting])
    depths = [one for one in settings[1:] if one.task.unfreeze != "all"]
    for setting in depths:
        deeper = replace(setting, rate=best.rate)
        if not costs.fits(deeper, len(seen) * short):
            way.log(f"not tried, for there is no time for it: {deeper}")
            break
        tried[deeper] = loss_of(deeper)
        if tried[deeper] >= tried[best]:
            break
        best = deeper
    for setting in settings[1 + len(depths) :]:
        whole = setting.further(best)
        if not costs.fits(whole, len(seen) * way.look(len(seen))):
            way.log(f"not tried, for there is no time for it: {whole}")
        elif loss_of(whole) < tried[best]:
            best = whole
        else:
            way.log("a first look at the whole network shows no gain: it is not trained further")
    if way.late():
        way.log("the time was up before everything was tried")
    way.log(f"chosen: {best}")
    return best, plan


@dataclass(frozen=True)
class Costs:
    """How long trainings take.

    seconds: of one image, by task, as measured.
    """

    seconds: Mapping[Task, float]
    plan: Plan
    way: Way

    def training(self, setting: Setting, images: int) -> float:
        """Seconds of one training."""
        if setting.before is None:
            return images * self.way.epochs * self.seconds[setting.task]
        more = images * self.way.fewer * self.seconds[setting.task]
        return self.training(setting.before, images) + more

    def judged(self, setting: Setting) -> float:
        """Seconds of the trainings that are judged, and of the final one."""
        sizes = [len(seen) for seen, _ in self.plan.folds]
        if len(sizes) > 1:
            sizes.append(len(self.plan.everything))
        return sum(self.training(setting, images) for images in sizes)

    def fits(self, setting: Setting, images: int) -> bool:
        """Whether there is time to try a setting on so many images, and to train it then."""
        needed = images * self.seconds[setting.task] + self.judged(setting)
        until = self.way.until
        return chiefs(self.way.strategy, lambda: time.monotonic() + needed < until)

    def said(
        self, settings: Sequence[Setting], rates: Sequence[float], images: int, short: int
    ) -> str:
        """One sentence on how long everything takes."""
        least = len(rates) * images * short * self.seconds[settings[0].task]
        tries = sum(images * short * self.seconds[one.task] for one in settings[1:])
        ends = [self.judged(one) for one in settings]
        if len(settings) > 1 and settings[-1].task.unfreeze == "all":
            ends[-1] = self.judged(settings[-1].further(settings[-2]))
        low, high = least + min(ends), least + tries + max(ends)
        return (
            f"Training takes {said_seconds(low, high)} on this machine, as it is used now. "
            "--time-limit ends it earlier."
        )


def said_seconds(low: float, high: float) -> str:
    """A range of times in words."""
    few, many = round(low / 60), round(high / 60)
    if many < 1:
        return "less than a minute"
    if few == many:
        return f"about {many} minute{'s' * (many > 1)}"
    return f"{max(few, 1)} to {many} minutes"


@dataclass(frozen=True)
class Answer:
    """What is made of a tuned model.

    share: how far its weights go from where training began to where it ended (WiSE-FT).
    weight: of its log-probabilities; the rest is the frozen model's.
    """

    share: float
    weight: float
    place: int

    def __str__(self) -> str:
        if self.weight < 1:
            return f"mean of {self.weight:.0%} tuned and {1 - self.weight:.0%} frozen"
        return f"{self.share:.0%} of the way to tuned"

    def cooling(
        self, reached: np.ndarray, truth: np.ndarray, places: np.ndarray | slice = slice(None)
    ) -> float:
        """What the tuned model's logits are divided by before they are averaged."""
        return temperature(reached[self.place][places], truth[places])

    def logits(
        self, reached: np.ndarray, frozen: np.ndarray, truth: np.ndarray, places: np.ndarray
    ) -> np.ndarray:
        """Logits [n, C], calibrated on some places.

        Args:
            reached: logits [shares, n, C] from the first weights to the last ones.
            frozen: calibrated logits [n, C] of the frozen model.
        """
        tuned = reached[self.place] / self.cooling(reached, truth, places)
        mean = self.weight * tuned + (1 - self.weight) * frozen
        return mean / temperature(mean[places], truth[places])


def answers_of(shares: Sequence[float], tuned_before: bool = False) -> list[Answer]:
    """The tuned models on the line of weights, then the means of the last one and the frozen one.

    Args:
        tuned_before: that line begins at a tuned model, not at the frozen one.
    """
    alone = [
        Answer(share, 1.0, place) for place, share in enumerate(shares) if share > 0 or tuned_before
    ]
    return [*alone, *(Answer(1.0, weight, len(shares) - 1) for weight in WEIGHTS)]


def least_loss(logits: np.ndarray, truth: np.ndarray, places: np.ndarray) -> int:
    """Which of some candidates, logits [candidates, n, C], predicts best on some places."""
    return int(np.argmin([log_loss(one[places], truth[places]) for one in logits]))


def rounding(model: str, rough: np.ndarray, exact: np.ndarray, truth: np.ndarray) -> str:
    """One sentence on what mixed precision changes in a model's answers: logits [n, C] in mixed precision and in float32."""
    right, before = rough.argmax(1) == truth, exact.argmax(1) == truth
    gain, error = paired(right, before)
    found = f"{right.mean():.3f} against {before.mean():.3f} in float32, n = {len(truth)} ({100 * gain:+.1f} ± {100 * error:.1f} points)"
    return f"mixed precision: the {model} model's accuracy on held-out images is {found}; the model that is kept computes in float32"


def fitted_on(
    features: Features, rows: np.ndarray, *, head: str, seed: int, log: Callable[..., None]
) -> Choice:
    """The head of some examples, as `frozen` fits it."""
    part = features.take(rows)
    return choose(
        part,
        part.examples.labels,
        len(part.examples.classes),
        features.tap_widths or (features.feature_size,),
        head=head,
        units=part.examples.units,
        seed=seed,
        log=log,
    )


def start_of(features: Features, rows: np.ndarray, *, seed: int) -> Fitted:
    """The head that training starts from: logistic regression on the network's own output.

    A head on many taps knows the training examples by heart, and leaves nothing to learn.
    """
    part = features.take(rows)
    found = choose(
        part.output,
        part.examples.labels,
        len(part.examples.classes),
        (features.feature_size,),
        head="linear",
        units=part.examples.units,
        seed=seed,
        log=nothing,
    )
    assert isinstance(found.fitted, Fitted)
    return found.fitted


def prepared(
    setting: Setting, way: Way, fitted: Fitted, seen: np.ndarray, held: np.ndarray
) -> Fold:
    """A model with that head, ready for the first of its trainings."""
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
    start, seconds = compiled(task, way, model, backbone, seen, setting.unfreeze[0])
    return Fold(setting, way, fitted, seen, held, model, backbone, start, size, seconds)


def begun(fold: Fold, name: str, epochs: int, log: Callable[..., None] = nothing) -> Fold:
    """The fold with the weights that the setting before it comes to, where there is one.

    Args:
        name: of that training's checkpoints; where it is done, it is not done again.
        epochs: of that training.
    """
    before = fold.setting.before
    if before is None:
        return fold
    first = prepared(before, fold.way, fold.fitted, fold.seen, fold.held)
    log(f"first {before}")
    assign(learnt(first.model), trained(first, name, epochs, log=log).weights[-1])
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
) -> tuple[list[np.ndarray], float]:
    """Compile for one training; returns the state to start from, and the seconds that a step takes."""
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
    start = ready(model, optimizer, batch, SMOOTHING)
    began = time.monotonic()
    model.train_on_batch(*batch)
    return start, time.monotonic() - began


def trained(
    fold: Fold,
    name: str,
    epochs: int,
    *,
    held_out: HeldOut | None = None,
    log: Callable[..., None] = nothing,
    show: Show = nothing,
) -> Trained:
    """Train one fold's model from its start; its trainings after each other share the epochs, and only the last one is watched."""
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
            start, _ = compiled(setting.task, way, fold.model, fold.backbone, fold.seen, unfreeze)
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


def tune_once(
    fold: Fold, pickers: Sequence[np.ndarray], truth: np.ndarray
) -> tuple[np.ndarray, Trained | None, History]:
    """On one split: logits [pickers, steps, n, C], the training whose last weights are everybody's pick, and its history."""
    way, setting = fold.way, fold.setting
    way.log(f"tuning {setting}")
    held_out = HeldOut(
        lambda model: setting.task.answers(model, fold.held, way.batch_size),
        truth,
        tuple(pickers),
        PATIENCE,
    )
    fold = begun(fold, "tune-before", way.epochs, way.log)
    ended = trained(fold, "tune", fold.epochs, held_out=held_out, log=way.log, show=way.show)
    reached = [fold.on_the_way(weights) for weights in ended.weights]
    return np.stack(reached), ended, ended.history


def tune_folds(
    folds: Sequence[Fold], groups: Sequence[np.ndarray], pickers: int
) -> tuple[np.ndarray, Trained | None, History]:
    """By folds: logits [pickers, steps, n, C], the same for every picker, and the mean history; there is no final model yet."""
    judged = sum(len(group) for group in groups)
    histories = []
    reached = np.zeros((len(folds[0].shares), judged, folds[0].fitted.classes))
    for i, (fold, group) in enumerate(zip(folds, groups, strict=True)):
        way = fold.way
        if way.late():
            way.log(
                f"fold {i + 1} of {len(folds)}: the time was up before training, so the frozen "
                "network is used here"
            )
            reached[:, group] = fold.logits(fold.first)
            continue
        way.log(f"fold {i + 1} of {len(folds)}: tuning {fold.setting}")
        fold = begun(fold, f"tune-{i}-before", way.epochs, way.log)
        result = trained(
            fold,
            f"tune-{i}",
            fold.epochs,
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
    return np.stack([reached] * pickers), None, mean


def tagged(show: Show, name: str, epoch: int, values: dict[str, float]) -> None:
    """An epoch's figures, apart from those of other folds."""
    show(epoch, {f"{name}/{figure}": value for figure, value in values.items()})
