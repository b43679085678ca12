"""Choose between the frozen and the tuned model.

Both are judged on examples that neither was fitted on, and the tuned model is chosen only for a
gain that is more than chance.

Where there are at least 300 validation examples, they are halved. Each half makes the choices for
the other half: which epoch, how far to go from the first to the tuned weights, and whether to
average with the frozen model. With fewer validation examples, or where groups can't be halved,
train is divided into three folds. Each fold judges a model that was fitted without it, and the
other folds pick for it. How many stages train, and how fast, is picked on examples that judge
nothing, such as the first of three folds (see `Plan.for_picking`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tfxfer.data import Examples
from tfxfer.data.folds import deal
from tfxfer.errors import TuningError
from tfxfer.tasks import Task, chance_error, paired, said_of_gain

NUMBERS = {2: "two", 3: "three"}
# With fewer validation examples three folds are used: the standard error of an accuracy near 0.5
# would be about 3 points or more.
ENOUGH = 300
# One example in so many is held out of train: to judge where there is no validation part, and to
# pick settings.
ONE_IN = 5
# Shares of the way from the first weights to the tuned ones (WiSE-FT, Wortsman 2022).
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which examples models are fitted on, and which ones judge them.

    folds: (positions to fit on, positions to judge): one split, or two or three folds of train.
    groups: the judged examples of all folds are numbered, fold after fold. A group is an array of
        such numbers. Choices for a group are made on the other groups.
    everything: positions of all training examples. The final model is fitted on all of them.
    taken: whether the user has given no validation part, so that a part of train took its place.
        With several folds, examples of train judge in any case.
    first: False if the first fold was used for picking, and removed.
    """

    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    groups: tuple[np.ndarray, ...]
    everything: np.ndarray
    taken: bool
    first: bool = True

    @property
    def judged(self) -> np.ndarray:
        """Positions of all judged examples, in the order that `groups` counts."""
        return np.concatenate([held for _, held in self.folds])

    def others(self, group: int) -> np.ndarray:
        """Return the indices of the judged examples that pick for a group."""
        return np.concatenate([places for i, places in enumerate(self.groups) if i != group])

    def for_picking(self, examples: Examples, seed: int) -> tuple[np.ndarray, np.ndarray, "Plan"]:
        """Divide the plan so that settings are picked on examples that do not judge.

        With one split, a fifth of its training examples picks, and the plan stays as it is.
        Otherwise the first fold picks, and the plan goes on without it.

        Returns:
            Positions to try settings on, positions to judge them on, and the remaining plan.
        """
        if len(self.folds) == 1:
            seen, _ = self.folds[0]
            units = None if examples.units is None else examples.units[seen]
            held = deal(examples.strata[seen], ONE_IN, seed, units=units) == 0
            return seen[~held], seen[held], self
        first, *others = self.folds
        ends = np.cumsum([0, *(len(held) for _, held in others)])
        groups = tuple(np.arange(a, b) for a, b in pairwise(ends))
        return *first, Plan(
            folds=tuple(others),
            groups=groups,
            everything=self.everything,
            taken=self.taken,
            first=False,
        )


def plan(examples: Examples, seed: int) -> Plan:
    """Plan how models are judged.

    They are judged on the validation part, or on a fifth of train where there is none. With fewer
    than 300 of these, or if they can't be halved evenly, three folds of train judge instead. A
    validation part that was given does not judge then.

    Raises:
        TuningError: there are too few training examples to make two folds.
    """
    train, validation = examples.where("train"), examples.where("validation")
    taken = not len(validation)

    def dealt(rows: np.ndarray, count: int) -> np.ndarray:
        return deal(
            examples.strata[rows],
            count,
            seed,
            units=None if examples.units is None else examples.units[rows],
        )

    if taken:
        folds = dealt(train, ONE_IN)
        seen, validation = train[folds != 0], train[folds == 0]
    else:
        seen = train
    if len(validation) >= ENOUGH:
        second = dealt(validation, 2) == 1
        # Examples of one group stay together, so one half may be too small to pick anything.
        if min(np.sum(second), np.sum(~second)) >= len(validation) / 3:
            return Plan(
                folds=((seen, validation),),
                groups=(np.flatnonzero(~second), np.flatnonzero(second)),
                everything=train,
                taken=taken,
            )
    folds = dealt(train, 3)
    split = tuple(
        (train[folds != fold], train[folds == fold]) for fold in range(3) if np.any(folds == fold)
    )
    if len(split) < 2:
        many = examples.kind.MANY
        what = (
            many
            if examples.units is None or len(np.unique(examples.units[train])) == len(train)
            else f"groups of {many}"
        )
        raise TuningError(
            f"{len(train)} training {many}, too few {what} per class: frozen and tuned can't be "
            "compared on examples that neither was fitted on. "
            f"Add {what} to each class, or use the recipe frozen."
        )
    ends = np.cumsum([0, *(len(held) for _, held in split)])
    return Plan(
        folds=split,
        groups=tuple(np.arange(a, b) for a, b in pairwise(ends)),
        everything=train,
        taken=taken,
    )


@dataclass(frozen=True)
class Verdict:
    """The paired comparison of the tuned model with the frozen one.

    gain: how much better the mean score of the tuned model is; for classes its accuracy.
    error: the standard error of `gain`.
    n: number of judged examples.
    frozen, tuned: mean score of each model.
    folds: number of folds; 1 is a single split.
    weight: weight of the tuned model in the mean with the frozen one; 1 is the tuned model alone.
    loss_gain, loss_error: how much smaller its log loss is, and the standard error of that.
    late: the time was up before the final tuned model was trained.
    cut: the time was up when the comparison ended, so trainings may have been cut short.
    score_name, loss_name, percent: `SCORE`, `LOSS` and `PERCENT` of the task.
    """

    gain: float
    error: float
    n: int
    frozen: float
    tuned: float
    folds: int
    loss_gain: float = 0.0
    loss_error: float = 0.0
    weight: float = 1.0
    late: bool = False
    cut: bool = False
    score_name: str = "accuracy"
    loss_name: str = "log loss"
    percent: bool = True

    @property
    def tuned_wins(self) -> bool:
        """Whether the tuned model wins: only by a gain above two standard errors, and in time.

        That is a gain in accuracy, or in log loss where accuracy does not fall. Log loss tells more
        from the same examples, because it depends on how sure a model was.
        """
        return (self.more_right or self.more_sure) and not self.late

    @property
    def more_right(self) -> bool:
        """Whether it is right more often, by more than chance."""
        return self.gain > 2 * self.error

    @property
    def more_sure(self) -> bool:
        """Whether its log loss is smaller, by more than chance, and it is right no less often."""
        return self.gain >= 0 and self.loss_gain > 2 * self.loss_error

    def __str__(self) -> str:
        how = f"by {NUMBERS[self.folds]} folds" if self.folds > 1 else "on held-out examples"
        figures = (
            f"{self.tuned:.3f} tuned against {self.frozen:.3f} frozen, {how}, n = {self.n:,} "
            f"({said_of_gain(self.gain, self.error, percent=self.percent)})"
        )
        loss = f"{self.loss_name} {self.loss_gain:.3f} ± {self.loss_error:.3f} smaller"
        winner = "the tuned model"
        if self.weight < 1:
            winner = "the mean of the tuned and the frozen model"
        if self.tuned_wins and self.more_right:
            return f"Chosen: {winner}. {figures}: more than two standard errors."
        if self.tuned_wins:
            return f"Chosen: {winner}. {figures}, and {loss}: more than two standard errors."
        if self.late:
            return (
                f"Chosen: the frozen model. {figures}, but the time was up before the tuned model "
                "was trained to its end on all of train."
            )
        if self.cut:
            return (
                f"Chosen: the frozen model. {figures}, but the time was up by then, and trainings "
                "may have been cut short. Allow more minutes with --time-limit."
            )
        if not self.error:
            return f"Chosen: the frozen model. {figures}: no gain at all."
        most = f"{200 * self.error:.1f} points" if self.percent else f"{2 * self.error:.3f}"
        return (
            f"Chosen: the frozen model. {figures}: a gain must be above two standard errors, "
            f"{most} here; or the {self.loss_name} must be smaller by more than two of its "
            f"standard errors, and the {self.score_name} not lower."
        )


def verdict(
    tuned: np.ndarray, frozen: np.ndarray, truth: np.ndarray, *, folds: int, task: Task
) -> Verdict:
    """Compare the outputs [n, K] of both models on the judged examples, whose targets are `truth`.

    Both standard errors are those that hold where there is no difference (see `chance_error`). They
    are slightly larger than those of `paired`. The models must differ on at least five examples, or
    the tuned one can't win.
    """
    scores, before = task.scores(tuned, truth), task.scores(frozen, truth)
    losses, losses_before = task.losses(tuned, truth), task.losses(frozen, truth)
    return Verdict(
        gain=paired(scores, before)[0],
        error=chance_error(scores, before),
        n=len(truth),
        frozen=float(before.mean()),
        tuned=float(scores.mean()),
        folds=folds,
        loss_gain=float((losses_before - losses).mean()),
        loss_error=chance_error(losses_before, losses),
        score_name=task.SCORE,
        loss_name=task.LOSS,
        percent=task.PERCENT,
    )


def interpolate_weights(
    first: Sequence[np.ndarray], last: Sequence[np.ndarray], share: float
) -> list[np.ndarray]:
    """Return weights on the straight line from `first` (0) to `last` (1)."""
    return [((1 - share) * a + share * b).astype(a.dtype) for a, b in zip(first, last, strict=True)]
