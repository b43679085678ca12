"""The frozen model that a tuned one is compared with, and the head that training starts from."""

from dataclasses import dataclass, replace

import numpy as np

from tfxfer.distribute.workers import Strategy, broadcast_from_chief
from tfxfer.features import Features
from tfxfer.heads import Averaged, Candidate, Choice, Fitted, SideBySide, choose, mirrors
from tfxfer.heads.side_by_side import fit_start


@dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen model that was fitted on some of the examples.

    mirror: whether it sees the mean of the features of a photo and its mirror image.
    """

    choice: Choice
    mirror: bool

    def logits(self, features: Features) -> np.ndarray:
        """Return calibrated logits [n, C] of examples, given all their extracted features."""
        return self.choice.fitted.logits(features if self.mirror else features.one_side)


@dataclass(frozen=True, eq=False)
class Heads:
    """Fit heads on extracted features. The main worker does so, and shares them with the others.

    features: of all examples, with one or two views.
    head: head of the frozen model, as in `tfxfer.heads.choose`.
    """

    features: Features
    head: str
    seed: int
    strategy: Strategy

    def frozen(self, rows: np.ndarray) -> Frozen:
        """Return the frozen model that the recipe frozen would find for the examples at `rows`."""

        def fit() -> Frozen:
            choice, used = mirrors.choose_head(
                "auto", self.features.take(rows), head=self.head, seed=self.seed
            )
            return Frozen(choice, mirror=len(used.views) > 1)

        return broadcast_from_chief(
            self.strategy, fit, (Frozen, Choice, Candidate, Fitted, Averaged, SideBySide)
        )

    def start(self, rows: np.ndarray) -> Fitted:
        """Return the head that training starts from, fitted on the examples at `rows`.

        It reads only the network's own output (for classes: logistic regression). A head on many
        taps would fit the training examples perfectly, and leave no loss to learn from.
        """

        def fit() -> Fitted:
            part = self.features.one_side.take(rows)
            task = part.examples.task
            if task.parts:
                fitted_once = fit_start(task, part.output, part.examples.labels, seed=self.seed)
                return replace(fitted_once, unit=task.units(part.examples.labels))
            fitted = choose(
                part.output,
                part.examples.labels,
                len(part.examples.classes),
                tap_widths=(part.feature_size,),
                head=part.examples.task.START,
                task=part.examples.task,
                units=part.examples.units,
                seed=self.seed,
            ).fitted
            assert isinstance(fitted, Fitted)
            return fitted

        return broadcast_from_chief(self.strategy, fit, (Choice, Candidate, Fitted))
