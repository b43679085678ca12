"""Train one model for each fold, and then the final model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfxfer.tuning.frozen import Heads
from tfxfer.tuning.guard import Plan
from tfxfer.tuning.setting import Fold, Routine, Setting, prepare_fold, train_before, train_fold
from tfxfer.tuning.training import HeldOut, History, Show, Trained

LOG = logging.getLogger(__name__)
PATIENCE = 5  # epochs
JUDGING = "Judging the training on held-out examples"


def prepare_folds(setting: Setting, routine: Routine, heads: Heads, plan: Plan) -> list[Fold]:
    """Return a model for each fold that is ready to train with this setting.

    `setting.before` is trained for all folds first, so that only one model is in memory at a time.
    """
    starts = [heads.start(seen) for seen, _ in plan.folds]
    before = [
        train_before(setting, routine, start, seen=seen, held=held, name=f"tune-{i}-before")
        for i, (start, (seen, held)) in enumerate(zip(starts, plan.folds, strict=True))
    ]
    routine.free_other_models(setting)
    return [
        prepare_fold(setting, routine, start, seen=seen, held=held).starting_from(weights)
        for start, (seen, held), weights in zip(starts, plan.folds, before, strict=True)
    ]


def tune_once(
    fold: Fold, pickers: Sequence[np.ndarray], truth: np.ndarray
) -> tuple[np.ndarray, Trained | None, History]:
    """Train on one split.

    Returns:
        Logits [pickers, shares, n, C]; the training, whose `weights[-1]` are those of the epoch
        with the smallest loss on all judged examples; and its history.
    """
    routine, setting = fold.routine, fold.setting
    LOG.info(f"tuning {setting}")
    held_out = HeldOut(
        answers=lambda model: setting.source.answers(model, fold.held, routine.batch_size),
        targets=truth,
        task=setting.source.task,
        watch=tuple(pickers),
        patience=PATIENCE,
    )
    ended = train_fold(fold, "tune", fold.epochs, held_out=held_out, show=routine.show)
    LOG.info(JUDGING)
    reached = [fold.on_the_way(weights) for weights in ended.weights]
    return np.stack(reached), ended, ended.history


def tune_folds(
    folds: Sequence[Fold], groups: Sequence[np.ndarray], pickers: int
) -> tuple[np.ndarray, Trained | None, History]:
    """Train on each fold.

    Returns:
        Logits [pickers, shares, n, C], the same for every picker; None, because there is no final
        model yet; and the mean history of the folds.
    """
    judged = sum(len(group) for group in groups)
    histories = []
    reached = np.zeros((len(folds[0].shares), judged, folds[0].fitted.classes))
    for i, (fold, group) in enumerate(zip(folds, groups, strict=True)):
        routine = fold.routine
        if routine.late():
            LOG.info(
                f"fold {i + 1} of {len(folds)}: no time was left for this training, so the network "
                "is judged as it was before it"
            )
            reached[:, group] = fold.logits(fold.first)
            continue
        LOG.info(f"fold {i + 1} of {len(folds)}: tuning {fold.setting}")
        result = train_fold(
            fold,
            f"tune-{i}",
            fold.epochs,
            show=partial(show_tagged, routine.show, f"fold {i + 1}"),
        )
        LOG.info(JUDGING)
        reached[:, group] = fold.on_the_way(result.weights[0])
        histories.append(result.history)
    # The histories differ in length where the time was up.
    mean = tuple(
        {name: float(np.mean([epoch[name] for epoch in epochs])) for name in epochs[0]}
        | {"epoch": epochs[0]["epoch"]}
        for epochs in zip(*histories, strict=False)
    )
    return np.stack([reached] * pickers), None, mean


def show_tagged(show: Show, name: str, epoch: int, values: dict[str, float]) -> None:
    """Show an epoch's figures under the name of its fold."""
    show(epoch, {f"{name}/{figure}": value for figure, value in values.items()})


@dataclass(frozen=True, eq=False)
class Final:
    """The tuned model that is kept, and its training."""

    fold: Fold
    training: Trained


def train_final(
    setting: Setting,
    heads: Heads,
    plan: Plan,
    folds: list[Fold],
    ended: Trained | None,
) -> Final | None:
    """Train the winner on all of train, if no tuned model has seen all of it yet.

    With one split, it stops after the epoch that was best there.

    Args:
        folds: the models that were judged. With several folds the list is emptied to free memory if
            `setting.before` has to train first.
        ended: the training of the one split; None with several folds.

    Returns:
        The final model. If the time was up: with one split the model that was judged, with several
        folds None.
    """
    routine = folds[0].routine
    judged = None if ended is None else Final(folds[0], ended)
    if judged is not None and not plan.taken:
        return judged
    if not routine.late():
        LOG.info(
            "The tuned model is better. It is trained once more, on all training examples: "
            f"{setting}"
        )
        rows = plan.everything, plan.everything[:0]
        start = heads.start(plan.everything)
        if setting.before is not None:  # the models of both settings take much memory
            folds.clear()
            routine.free_other_models(None)
        weights = train_before(setting, routine, start, *rows, "final-before")
        routine.free_other_models(setting)
        fold = prepare_fold(setting, routine, start, *rows).starting_from(weights)
        epochs = fold.epochs if ended is None else best_epoch(ended.history)
        # If the time was up early in several trainings in a row, the best epoch may lie before the
        # last of them begins. That one gets an epoch anyway.
        earlier = routine.shared(fold.epochs, len(setting.unfreeze))[:-1]
        epochs = max(epochs, sum(earlier) + 1)
        training = train_fold(fold, "final", fold.epochs, stop=epochs, show=routine.show)
        lacks_start = setting.before is not None and weights is None
        if len(training.history) == epochs and not lacks_start:
            return Final(fold, training)
    if judged is not None:
        LOG.info(
            "The time was up before the final training had ended, so the model that was judged is "
            "kept. It was not trained on the examples that judged it."
        )
    return judged


def best_epoch(history: History) -> int:
    """Return the number of the epoch with the smallest loss on held-out examples."""
    watched = [epoch for epoch in history if "val_loss" in epoch]
    return int(min(watched, key=lambda epoch: epoch["val_loss"])["epoch"])
