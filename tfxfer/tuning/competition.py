"""Compare the frozen model with the tuned one, and keep the one that the guard chooses.

Training starts from logistic regression on the network's own output (LP-FT, Kumar 2022). Short
trainings show how many stages should train, and how fast. The frozen model is then compared with
the tuned one or with the mean of both, whichever predicts better.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer import dataservice, mirrors
from tfxfer.backbone import Precision
from tfxfer.errors import DistributeError, TuningError
from tfxfer.features import Features
from tfxfer.probe import (
    Averaged,
    Candidate,
    Choice,
    Fitted,
    choose,
    paired,
    temperature,
)
from tfxfer.tuning.answers import answers_of, least_loss
from tfxfer.tuning.guard import Plan, Verdict, between, verdict
from tfxfer.tuning.picking import pick_setting
from tfxfer.tuning.setting import (
    EPOCHS,
    Fold,
    Setting,
    Way,
    epochs_for,
    prepared,
    trained,
    weights_before,
)
from tfxfer.tuning.task import Task, multiply_logits
from tfxfer.tuning.training import (
    HeldOut,
    History,
    Show,
    Trained,
    assign,
    learnt,
    nothing,
)
from tfxfer.workers import Strategy, chiefs, place, unshareable

RATES = (1e-3, 3e-4)  # learning rates of the last stage and the head that are tried
PATIENCE = 5  # epochs


@dataclass(frozen=True, eq=False)
class Competition:
    """The result of the comparison.

    verdict: the comparison in numbers.
    fitted: the head of the frozen winner, or the one that the tuned winner started from.
    mirror: whether the frozen winner, or its part of a mean, sees mirror images, too.
    model: the tuned winner, from pixels to calibrated logits; None where the frozen one won.
    positions: positions of examples that were held out.
    probabilities: [len(positions), C], calibrated, by models like the winner.
    candidates: for each candidate, which of the judged examples it got right, bool.
    settings: the settings that were picked on the way.
    history: one dict for each epoch of the tuned model, also where the frozen one won. It is the
        mean of the folds where there are several and no final model.
    """

    verdict: Verdict
    fitted: Fitted | Averaged
    mirror: bool
    model: keras.Model | None
    positions: np.ndarray
    probabilities: np.ndarray
    candidates: dict[str, np.ndarray]
    settings: dict[str, Any]
    history: History


@dataclass(frozen=True, eq=False)
class Frozen:
    """The frozen model of some examples.

    mirror: whether it sees the mean of the features of a photo and its mirror image.
    """

    choice: Choice
    mirror: bool

    def logits(self, features: Features) -> np.ndarray:
        """Return calibrated logits [n, C] of examples, given all their extracted features."""
        return self.choice.fitted.logits(features if self.mirror else features.one_side)


def compete(
    tasks: Sequence[Task],
    features: Features,
    plan: Plan,
    *,
    head: str = "auto",
    gradual: bool = False,
    epochs: int | None = None,
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
    """Fit heads, fine-tune from there, and judge both by `plan` (see `tfxfer.tuning.guard`).

    Args:
        tasks: what may train, from few stages to many. More stages are trained as long as short
            trainings show a gain.
        features: features from all taps, of all examples. With two views, mirror images are tried
            for the frozen model, as in the recipe frozen. The model that is tuned sees none.
        head: head of the frozen model, as in `tfxfer.probe.choose`.
        gradual: train the last stage first, then one more at a time.
        epochs: number of epochs of a training. With None, `epochs_for` gives it, and twice as many
            are tried.
        rate: learning rate of the last stage. With None, a few are tried in short trainings.
        folder: folder where unfinished work is kept. What is finished there is not done again.
        minutes: time from now on, after which each training ends with its epoch and a final model
            is not begun. Where the final model is missing, the frozen one is kept.
        show: called with each epoch of the tuned model.
        strategy: the tf.distribute strategy that trains and divides each batch; one device by
            default.
        precision: precision of the training, "mixed" for a GPU or a TPU. The model that is returned
            computes in float32.

    Raises:
        TuningError: the loss does not stay finite at a learning rate, or memory is too small for
            one image at a time.
        DistributeError: a tf.data service no longer answers.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas, several = strategy.num_replicas_in_sync, place(strategy)[1] > 1
    if batch_size < replicas:
        raise TuningError(unshareable(batch_size, replicas))
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    longest = epochs or EPOCHS[1]
    if epochs is None:
        views = max(task.views for task in tasks)
        epochs = epochs_for(len(plan.everything), batch_size, views)
    # A run that was killed goes on with the batch size that fitted into memory.
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
            longest,
        )
        try:
            rates = RATES if rate is None else (rate,)
            return competed(tasks, rates, features, plan, way, head, gradual)
        except tf.errors.ResourceExhaustedError as error:
            if several:  # the other workers do not know of it, and wait
                raise TuningError(
                    f"out of memory: use --global-batch {max(batch_size // 2, replicas)} "
                    "for all workers, or unfreeze fewer stages."
                ) from error
            if batch_size <= replicas:
                raise TuningError(
                    "memory is too small to train on one image at a time. "
                    "Unfreeze fewer stages, or take a smaller backbone."
                ) from error
            batch_size = max(batch_size // 2, replicas)
            (folder / f"batch-{batch_size}").mkdir(parents=True, exist_ok=True)
            log(f"out of memory: once more with {batch_size} images at a time")
        except tf.errors.OpError as error:
            if dataservice.SILENT in str(error):
                raise DistributeError(dataservice.SILENT) from error
            raise
        gc.collect()  # models are cycles of references, which hold the memory that was too small


def competed(
    tasks: Sequence[Task],
    rates: Sequence[float],
    features: Features,
    plan: Plan,
    way: Way,
    head: str,
    gradual: bool,
) -> Competition:
    """Compare the models at one batch size."""
    log, both_sides, features = way.log, features, features.one_side

    def fit(rows: np.ndarray, log: Callable[..., None] = nothing) -> Frozen:
        return chiefs(
            way.strategy,
            lambda: fitted_on(both_sides, rows, head=head, seed=way.seed, log=log),
            (Frozen, Choice, Candidate, Fitted, Averaged),
        )

    def start(rows: np.ndarray) -> Fitted:
        return chiefs(
            way.strategy,
            lambda: start_of(features, rows, seed=way.seed),
            (Choice, Candidate, Fitted),
        )

    log("The frozen model:")
    first = fit(plan.folds[0][0], log)
    settings = [Setting(task, steps_of(task, gradual), rates[0]) for task in tasks]
    setting, plan = pick_setting(settings, rates, features, plan, way, start)
    rivals = [
        first if i == 0 and plan.first else fit(seen) for i, (seen, _) in enumerate(plan.folds)
    ]
    starts = [start(seen) for seen, _ in plan.folds]
    before = [
        weights_before(setting, way, fitted, *rows, f"tune-{i}-before", log=log)
        for i, (fitted, rows) in enumerate(zip(starts, plan.folds, strict=True))
    ]
    way.keep_models_of(setting)
    folds = [
        prepared(setting, way, fitted, *rows).starting_from(weights)
        for fitted, rows, weights in zip(starts, plan.folds, before, strict=True)
    ]
    truth = features.examples.labels[plan.judged]
    frozen = np.concatenate(
        [
            rival.logits(both_sides.take(held))
            for rival, (_, held) in zip(rivals, plan.folds, strict=True)
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
    # Examples that pick: for each group all others, and for the final model all.
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
        "epochs": folds[0].epochs,
        "views": setting.task.views,
        "batch_size": way.batch_size,
        "learning_rate": setting.rate,
        "share": answer.share,
        "weight": answer.weight,
        "folds": len(folds),
    }
    if not found.tuned_wins and way.late():
        found = replace(found, cut=True)
    splits, final = len(folds), None if ended is None else folds[0]
    if found.tuned_wins and (ended is None or plan.taken):
        log(
            f"The tuned model is better. It is trained once more, on all training photos: {setting}"
        )
        if not way.late():
            rows = plan.everything, plan.everything[:0]
            fitted = start(plan.everything)
            if setting.before is not None:  # the models of both settings take much memory
                folds.clear()
                way.keep_models_of(None)
            weights = weights_before(setting, way, fitted, *rows, "final-before", log=log)
            way.keep_models_of(setting)
            again = prepared(setting, way, fitted, *rows).starting_from(weights)
            epochs = again.epochs if ended is None else best_epoch(ended.history)
            result = trained(again, "final", epochs, log=log, show=way.show)
            lacks_start = setting.before is not None and weights is None
            if len(result.history) == epochs and not lacks_start:
                final, ended = again, result
        if final is None or ended is None:
            found = replace(found, late=True)
        elif not len(final.held):
            history = history if splits == 1 else ended.history
        else:
            log("The time was up, so the model is kept that has not seen the photos that judged it")
    if not found.tuned_wins:
        kept = fit(plan.everything) if plan.taken or splits > 1 else rivals[0]
        return Competition(
            found,
            kept.choice.fitted,
            kept.mirror,
            None,
            plan.everything,
            kept.choice.out_of_fold,
            right,
            picks,
            history,
        )
    assert ended is not None and final is not None
    weights = between(final.first, ended.weights[-1], answer.share)
    assign(learnt(final.model), weights)
    if way.precision == "mixed" and len(final.held):
        rough = final.logits(weights)
        final.backbone.precision = "float32"
        log(rounding("tuned", rough, final.logits(weights), truth))
    rival = rivals[0] if len(final.held) else fit(plan.everything)
    value = temperature(tuned, truth)
    cooling = answer.cooling(reached[-1], truth) * value
    return Competition(
        found,
        final.fitted,
        rival.mirror and answer.weight < 1,
        served(setting.task, final, rival, answer.weight, cooling, value),
        plan.judged,
        softmax(tuned / value, 1),
        right,
        picks,
        history,
    )


def best_epoch(history: History) -> int:
    """Return the number of the epoch with the smallest loss on held-out examples."""
    watched = [epoch for epoch in history if "val_loss" in epoch]
    return int(min(watched, key=lambda epoch: epoch["val_loss"])["epoch"])


def served(
    task: Task,
    final: Fold,
    frozen: Frozen,
    weight: float,
    cooling: float,
    value: float,
) -> keras.Model:
    """Return the tuned model, or its mean with the frozen one, from pixels to calibrated logits.

    Args:
        weight: weight of the tuned model.
        cooling: the logits of the tuned model are divided by it.
        value: the logits of the frozen model are divided by it.
    """
    if weight < 1:
        part = frozen.choice.fitted.cooled(value / (1 - weight))
        return task.average(final.model, final.fitted, part, weight / cooling, frozen.mirror)
    model = task.finish(final.model, final.fitted)
    multiply_logits(model.get_layer(final.fitted.name), 1 / cooling)
    return model


def steps_of(task: Task, gradual: bool) -> tuple[int | str, ...]:
    """Return the argument of `Backbone.unfreeze` for each of several trainings in a row."""
    if gradual and isinstance(task.unfreeze, int):
        return tuple(range(1, task.unfreeze + 1))
    return (task.unfreeze,)


def rounding(model: str, rough: np.ndarray, exact: np.ndarray, truth: np.ndarray) -> str:
    """Return one sentence on how mixed precision changes a model's predictions.

    Args:
        rough: logits [n, C] in mixed precision.
        exact: logits [n, C] in float32.
        truth: int [n], the labels.
    """
    right, before = rough.argmax(1) == truth, exact.argmax(1) == truth
    gain, error = paired(right, before)
    found = (
        f"{right.mean():.3f} against {before.mean():.3f} in float32, n = {len(truth)} "
        f"({100 * gain:+.1f} ± {100 * error:.1f} points)"
    )
    return (
        f"mixed precision: the {model} model's accuracy on held-out images is {found}; "
        "the model that is kept computes in float32"
    )


def fitted_on(
    features: Features, rows: np.ndarray, *, head: str, seed: int, log: Callable[..., None]
) -> Frozen:
    """Return the frozen model that the recipe frozen would find for the examples at `rows`."""
    part = features.take(rows)
    choice, used = mirrors.choose_head("auto", part, head=head, seed=seed, log=log)
    return Frozen(choice, len(used.views) > 1)


def start_of(features: Features, rows: np.ndarray, *, seed: int) -> Fitted:
    """Fit the head that training starts from: logistic regression on the network's own output.

    A head on many taps fits the training examples perfectly, and leaves nothing to learn.
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


def tune_once(
    fold: Fold, pickers: Sequence[np.ndarray], truth: np.ndarray
) -> tuple[np.ndarray, Trained | None, History]:
    """Train on one split.

    Returns:
        Logits [pickers, steps, n, C]; the training, whose last weights are those that all judged
        examples pick; and its history.
    """
    way, setting = fold.way, fold.setting
    way.log(f"tuning {setting}")
    held_out = HeldOut(
        lambda model: setting.task.answers(model, fold.held, way.batch_size),
        truth,
        tuple(pickers),
        PATIENCE,
    )
    ended = trained(fold, "tune", fold.epochs, held_out=held_out, log=way.log, show=way.show)
    reached = [fold.on_the_way(weights) for weights in ended.weights]
    return np.stack(reached), ended, ended.history


def tune_folds(
    folds: Sequence[Fold], groups: Sequence[np.ndarray], pickers: int
) -> tuple[np.ndarray, Trained | None, History]:
    """Train on each fold.

    Returns:
        Logits [pickers, steps, n, C], the same for every picker; None, because there is no final
        model yet; and the mean history of the folds.
    """
    judged = sum(len(group) for group in groups)
    histories = []
    reached = np.zeros((len(folds[0].shares), judged, folds[0].fitted.classes))
    for i, (fold, group) in enumerate(zip(folds, groups, strict=True)):
        way = fold.way
        if way.late():
            way.log(
                f"fold {i + 1} of {len(folds)}: the time was up before training, so the network "
                "is used as it was before"
            )
            reached[:, group] = fold.logits(fold.first)
            continue
        way.log(f"fold {i + 1} of {len(folds)}: tuning {fold.setting}")
        result = trained(
            fold,
            f"tune-{i}",
            fold.epochs,
            log=way.log,
            show=partial(tagged, way.show, f"fold {i + 1}"),
        )
        reached[:, group] = fold.on_the_way(result.weights[0])
        histories.append(result.history)
    # The histories differ in length where the time was up.
    mean = tuple(
        epochs[0]
        | {name: float(np.mean([epoch[name] for epoch in epochs])) for name in ("loss", "accuracy")}
        for epochs in zip(*histories, strict=False)
    )
    return np.stack([reached] * pickers), None, mean


def tagged(show: Show, name: str, epoch: int, values: dict[str, float]) -> None:
    """Show an epoch's figures under the name of its fold."""
    show(epoch, {f"{name}/{figure}": value for figure, value in values.items()})
