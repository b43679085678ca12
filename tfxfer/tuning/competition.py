"""Compare the frozen model with the tuned one, and keep the one that the verdict chooses.

Training starts from logistic regression on the network's own output (LP-FT, Kumar 2022). Short
trainings show how many stages should train, and how fast. The frozen model is then compared with
the tuned one or with the mean of both, whichever predicts better.
"""

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Precision
from tfxfer.distribute import dataservice
from tfxfer.distribute.workers import (
    Strategy,
    broadcast_from_chief,
    explain_unshareable,
    forget_step,
    place,
)
from tfxfer.errors import DistributeError, TuningError
from tfxfer.features import Features
from tfxfer.heads import Averaged, Fitted, SideBySide
from tfxfer.tasks import Task, paired, said_of_gain
from tfxfer.tuning.answers import Answer, answers_of, least_loss
from tfxfer.tuning.folds import Final, prepare_folds, train_final, tune_folds, tune_once
from tfxfer.tuning.frozen import Frozen, Heads
from tfxfer.tuning.guard import Plan, Verdict, interpolate_weights, verdict
from tfxfer.tuning.input_source import forget_decoded
from tfxfer.tuning.picking import pick_setting
from tfxfer.tuning.setting import EPOCHS, Fold, Routine, Setting, epochs_for
from tfxfer.tuning.source import Source, multiply_logits
from tfxfer.tuning.training import History, Show, assign, ignore, model_variables

LOG = logging.getLogger(__name__)
RATES = (1e-3, 3e-4)  # learning rates of the last stage and the head that are tried


@dataclass(frozen=True, eq=False)
class Competition:
    """The result of the comparison.

    verdict: the comparison in numbers.
    fitted: the head of the frozen winner, or the one that the tuned winner started from.
    mirror: whether the frozen winner, or its part of a mean, sees mirror images, too.
    model: the tuned winner, from pixels to calibrated logits; None where the frozen one won.
    positions: positions of examples that were held out.
    probabilities: calibrated, [len(positions), C], from models like the winner that had not seen
        these examples.
    candidates: for each candidate, the scores of the judged examples, float.
    settings: the settings that were picked on the way.
    history: one dict for each epoch of the tuned model, also where the frozen one won. With several
        folds and no final model, it is their mean.
    """

    verdict: Verdict
    fitted: Fitted | Averaged | SideBySide
    mirror: bool
    model: keras.Model | None
    positions: np.ndarray
    probabilities: np.ndarray
    candidates: dict[str, np.ndarray]
    settings: dict[str, Any]
    history: History


def compete(
    sources: Sequence[Source],
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
    show: Show = ignore,
    strategy: Strategy | None = None,
    precision: Precision = "float32",
) -> Competition:
    """Fit heads, fine-tune from there, and judge both by `plan` (see `tfxfer.tuning.guard`).

    Args:
        sources: what may train, from few stages to many. More stages are trained as long as short
            trainings show a gain.
        features: features from all taps, of all examples. With two views, mirror images are tried
            for the frozen model, as in the recipe frozen. The model that is tuned sees none.
        head: head of the frozen model, as in `tfxfer.heads.choose`.
        gradual: train the last stage first, then one more at a time.
        epochs: number of epochs of a training. None: that of `epochs_for`; twice as many are also
            tried where at most 5 stages train and the double is at most 20.
        rate: learning rate of the last stage. With None, a few are tried in short trainings.
        folder: folder where unfinished work is kept. What is finished there is not done again.
        minutes: the time limit from now. After it, training stops at the end of the epoch, and no
            final training starts. With several folds the frozen model is then kept; with one split
            the tuned model that was judged may win.
        show: called with each epoch of the tuned model.
        strategy: the tf.distribute strategy that trains and divides each batch; one device by
            default.
        precision: precision of the training, "mixed" for a GPU or a TPU. The model that is returned
            computes in float32.

    Raises:
        TuningError: `batch_size` is smaller than the number of replicas, the loss does not stay
            finite at a learning rate, or memory is too small, even for one example on each device.
        DistributeError: a tf.data service no longer answers.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise TuningError(explain_unshareable(batch_size, replicas))
    longest = epochs or EPOCHS[1]
    if epochs is None:
        views = max(source.views for source in sources)
        epochs = epochs_for(len(plan.everything), batch_size, views)
    routine = Routine(
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        folder=folder,
        until=math.inf if minutes is None else time.monotonic() + 60 * minutes,
        show=show,
        strategy=strategy,
        precision=precision,
        longest=longest,
    )
    heads = Heads(features=features, head=head, seed=seed, strategy=strategy)
    rates = RATES if rate is None else (rate,)

    def run(batch_size: int) -> Competition:
        part = folder / f"batch-{batch_size}"
        fresh = replace(routine, batch_size=batch_size, folder=part, made={})
        return compare_models(sources, rates, heads, plan=plan, routine=fresh, gradual=gradual)

    try:
        return with_smaller_batches(run, batch_size, folder, strategy=strategy)
    finally:
        forget_decoded()


def with_smaller_batches(
    run: Callable[[int], Competition],
    batch_size: int,
    folder: Path,
    strategy: Strategy,
) -> Competition:
    """Run with ever smaller batches, until one fits into memory.

    The folder tells which batch sizes were tried, so a run that was killed goes on with the
    smallest one.

    Raises:
        TuningError: memory is too small: for one example on each device or, with several workers,
            for the first batch.
        DistributeError: a tf.data service no longer answers.
    """
    replicas, several = strategy.num_replicas_in_sync, place(strategy)[1] > 1

    def tried() -> list[int]:
        names = [path.name.removeprefix("batch-") for path in folder.glob("batch-*")]
        return [int(name) for name in names if name.isdecimal() and int(name) >= replicas]

    batch_size = min([batch_size, *broadcast_from_chief(strategy, tried)])
    while True:
        try:
            return run(batch_size)
        except tf.errors.ResourceExhaustedError as error:
            if several:  # the other workers do not know of it, and wait
                raise TuningError(
                    f"out of memory: use --global-batch {max(batch_size // 2, replicas)} "
                    "for all workers, or unfreeze fewer stages."
                ) from error
            if batch_size <= replicas:
                raise TuningError(
                    "memory is too small to train on one example at a time on each device. "
                    "Unfreeze fewer stages, or take a smaller backbone."
                ) from error
            batch_size = max(batch_size // 2, replicas)
            (folder / f"batch-{batch_size}").mkdir(parents=True, exist_ok=True)
            LOG.info(f"out of memory: once more with {batch_size} examples at a time")
        except tf.errors.OpError as error:
            if dataservice.SILENT in str(error):
                raise DistributeError(dataservice.SILENT) from error
            raise
        gc.collect()  # the failed model is a cycle of references, which still holds its memory


def compare_models(
    sources: Sequence[Source],
    rates: Sequence[float],
    heads: Heads,
    plan: Plan,
    routine: Routine,
    gradual: bool,
) -> Competition:
    """Compare the models at one batch size."""
    first_frozen = heads.frozen(plan.folds[0][0])
    LOG.info("The frozen model:")
    examples = heads.features.examples
    for line in first_frozen.choice.said(examples.task.label_columns(examples.classes)):
        LOG.info(line)
    settings = [Setting(source, steps_of(source, gradual), rates[0]) for source in sources]
    setting, plan = pick_setting(
        settings, rates, heads.features, plan=plan, routine=routine, start=heads.start
    )
    frozen_models = [
        first_frozen if i == 0 and plan.first else heads.frozen(seen)
        for i, (seen, _) in enumerate(plan.folds)
    ]
    folds = prepare_folds(setting, routine, heads, plan=plan)
    truth = heads.features.examples.labels[plan.judged]
    frozen = np.concatenate(
        [
            model.logits(heads.features.take(held))
            for model, (_, held) in zip(frozen_models, plan.folds, strict=True)
        ]
    )
    # After an earlier training, the first weights are not the frozen ones.
    if routine.precision == "mixed" and setting.before is None:
        LOG.info(describe_frozen_rounding(folds[0], heads.features.one_side, truth))
    # The examples outside a group make its choices, and all examples those for the final model.
    pickers = [*(plan.others(i) for i in range(len(plan.groups))), np.arange(len(truth))]
    reached, ended, history = (
        tune_once(folds[0], pickers, truth)
        if len(folds) == 1
        else tune_folds(folds, plan.groups, len(pickers))
    )
    task = setting.source.task
    answers = answers_of(folds[0].shares)
    # Workers whose processors differ must not choose differently.
    judged = broadcast_from_chief(
        routine.strategy,
        lambda: judge(answers, reached, frozen, truth=truth, plan=plan, pickers=pickers, task=task),
        known=(Answer, Judged, Verdict),
    )
    settings_picked = {
        "trains_from": setting.source.inputs,
        "unfreeze": setting.unfreeze[-1],
        "epochs": folds[0].epochs,
        "views": setting.source.views,
        "batch_size": routine.batch_size,
        "learning_rate": setting.rate,
        "share": judged.answer.share,
        "weight": judged.answer.weight,
        "folds": len(folds),
    }
    if judged.verdict.tuned_wins:
        final = train_final(setting, heads, plan, folds=folds, ended=ended)
        if final is not None:
            trained_on_all = not len(final.fold.held)
            if trained_on_all and len(plan.folds) > 1:
                history = final.training.history
            return finish_tuned(
                final,
                lambda: heads.frozen(plan.everything) if trained_on_all else frozen_models[0],
                judged,
                truth=truth,
                plan=plan,
                settings=settings_picked,
                history=history,
            )
        judged = replace(judged, verdict=replace(judged.verdict, late=True))
    elif routine.late():
        judged = replace(judged, verdict=replace(judged.verdict, cut=True))
    kept = heads.frozen(plan.everything) if plan.taken or len(plan.folds) > 1 else frozen_models[0]
    return Competition(
        verdict=judged.verdict,
        fitted=kept.choice.fitted,
        mirror=kept.mirror,
        model=None,
        positions=plan.everything,
        probabilities=kept.choice.out_of_fold,
        candidates=judged.candidates,
        settings=settings_picked,
        history=history,
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """How the tuned models did on the examples that judge.

    answer: the one with the smallest loss on all judged examples; the final model uses it.
    tuned: logits [n, C]. For each group they come from the answer with the smallest loss on the
        other groups.
    own_temperature: temperature that calibrates the tuned model of `answer` alone.
    candidates: for each candidate, the scores of the judged examples, float [n].
    """

    verdict: Verdict
    answer: Answer
    tuned: np.ndarray
    own_temperature: float | np.ndarray
    candidates: dict[str, np.ndarray]


def judge(
    answers: Sequence[Answer],
    reached: np.ndarray,
    frozen: np.ndarray,
    truth: np.ndarray,
    plan: Plan,
    pickers: Sequence[np.ndarray],
    task: Task,
) -> Judged:
    """Compare tuned and frozen. No example judges an answer that it helped to pick.

    Args:
        answers: the ways to predict with a tuned model.
        reached: logits [pickers, shares, n, C] of the tuned models.
        frozen: calibrated logits [n, C] of the frozen models.
        truth: labels, int [n].
        pickers: indices of the examples that pick, for each group and for the final model.
    """
    tuned = np.zeros_like(frozen, np.float64)
    for i, group in enumerate(plan.groups):
        logits = np.stack(
            [one.logits(reached[i], frozen, truth, task, pickers[i]) for one in answers]
        )
        tuned[group] = logits[least_loss(logits, truth, pickers[i], task)][group]
    logits = np.stack(
        [one.logits(reached[-1], frozen, truth, task, pickers[-1]) for one in answers]
    )
    answer = answers[least_loss(logits, truth, pickers[-1], task)]
    candidates = {"frozen": frozen, "tuned": tuned}
    candidates |= {str(one): said for one, said in zip(answers, logits, strict=True)}
    return Judged(
        verdict=replace(
            verdict(tuned, frozen, truth, folds=len(plan.folds), task=task), weight=answer.weight
        ),
        answer=answer,
        tuned=tuned,
        own_temperature=answer.own_temperature(reached[-1], truth, task),
        candidates={name: task.scores(said, truth) for name, said in candidates.items()},
    )


def finish_tuned(
    final: Final,
    fit_frozen: Callable[[], Frozen],
    judged: Judged,
    truth: np.ndarray,
    plan: Plan,
    settings: dict[str, Any],
    history: History,
) -> Competition:
    """Return the result where the tuned model, or a mean with it, has won.

    Args:
        fit_frozen: returns the frozen model; called only where the answer is a mean with it.
    """
    fold, answer = final.fold, judged.answer
    weights = interpolate_weights(fold.first, final.training.weights[-1], answer.share)
    assign(model_variables(fold.model), weights)
    if fold.routine.precision == "mixed" and len(fold.held):
        rough = fold.logits(weights)
        fold.backbone.precision = "float32"
        forget_step(fold.model)  # it was traced in mixed precision
        LOG.info(
            describe_rounding(
                "tuned", rough, fold.logits(weights), truth=truth, task=fold.setting.source.task
            )
        )
    task = fold.setting.source.task
    temperature = task.temperature(judged.tuned, truth)
    frozen = fit_frozen() if answer.weight < 1 else None
    model = build_served_model(
        fold,
        frozen,
        answer.weight,
        divisor=judged.own_temperature * temperature,
        temperature=temperature,
    )
    return Competition(
        verdict=judged.verdict,
        fitted=fold.fitted,
        mirror=frozen is not None and frozen.mirror,
        model=model,
        positions=plan.judged,
        probabilities=task.predictions(judged.tuned / temperature),
        candidates=judged.candidates,
        settings=settings,
        history=history,
    )


def build_served_model(
    fold: Fold, frozen: Frozen | None, weight: float, divisor: Any, temperature: Any
) -> keras.Model:
    """Return the tuned model, or its mean with the frozen one, from pixels to calibrated logits.

    Args:
        frozen: None where the tuned model stands alone.
        weight: weight of the tuned model.
        divisor: what the logits of the tuned model are divided by: its own temperature, times
            `temperature`.
        temperature: that of the final answer; it divides the logits of the frozen model, too.
    """
    source, fitted = fold.setting.source, fold.fitted
    if frozen is not None:
        part = frozen.choice.fitted.cooled(temperature / (1 - weight))
        return source.average(fold.model, fitted, part, weight / divisor, frozen.mirror)
    model = source.finish(fold.model, fitted)
    multiply_logits(model.get_layer(fitted.name), 1 / divisor)
    return model


def steps_of(source: Source, gradual: bool) -> tuple[int | str, ...]:
    """Return the argument of `Backbone.unfreeze` for each of several trainings in a row."""
    if gradual and isinstance(source.unfreeze, int):
        return tuple(range(1, source.unfreeze + 1))
    return (source.unfreeze,)


def describe_frozen_rounding(fold: Fold, features: Features, truth: np.ndarray) -> str:
    """Return one sentence on how mixed precision changes the predictions of the frozen network."""
    exact = fold.fitted.logits(features.take(fold.held).output)
    return describe_rounding(
        "frozen",
        fold.logits(fold.first),
        exact,
        truth=truth[: len(fold.held)],
        task=fold.setting.source.task,
    )


def describe_rounding(
    model: str, rough: np.ndarray, exact: np.ndarray, *, truth: np.ndarray, task: Task
) -> str:
    """Return one sentence on how mixed precision changes a model's predictions.

    Args:
        rough: logits [n, C] in mixed precision.
        exact: logits [n, C] in float32.
        truth: int [n], the labels.
    """
    scores, before = task.scores(rough, truth), task.scores(exact, truth)
    gain, error = paired(scores, before)
    figures = (
        f"{scores.mean():.3f} against {before.mean():.3f} in float32, n = {len(truth)} "
        f"({said_of_gain(gain, error, percent=task.PERCENT)})"
    )
    return (
        f"mixed precision: the {model} model's {task.SCORE} on held-out examples is {figures}; "
        "the model that is kept computes in float32"
    )
