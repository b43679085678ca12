"""Predict with a tuned model, with weights on the way to it, or in a mean with the frozen one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfxfer.tasks import Task

WEIGHTS = (1 / 3, 1 / 2, 2 / 3)  # weights of the tuned model that are tried in a mean


@dataclass(frozen=True)
class Answer:
    """A way to predict with a tuned model.

    share: 0 for the weights before training, 1 for those after it, or between them (WiSE-FT).
    weight: weight of its log-probabilities in the mean; the frozen model has the rest.
    place: index of `share` among the shares that were computed.
    """

    share: float
    weight: float
    place: int

    def __str__(self) -> str:
        if self.weight < 1:
            return f"mean of {self.weight:.0%} tuned and {1 - self.weight:.0%} frozen"
        return f"{self.share:.0%} of the way to tuned"

    def own_temperature(
        self,
        reached: np.ndarray,
        truth: np.ndarray,
        task: Task,
        places: np.ndarray | slice = slice(None),
    ) -> float | np.ndarray:
        """Return the temperature that calibrates the tuned model alone."""
        return task.temperature(reached[self.place][places], truth[places])

    def logits(
        self,
        reached: np.ndarray,
        frozen: np.ndarray,
        truth: np.ndarray,
        task: Task,
        places: np.ndarray,
    ) -> np.ndarray:
        """Return logits [n, C], calibrated on the examples at `places`.

        Args:
            reached: logits [shares, n, C], from the first weights to the last ones.
            frozen: calibrated logits [n, C] of the frozen model.
        """
        tuned = reached[self.place] / self.own_temperature(reached, truth, task, places)
        mean = self.weight * tuned + (1 - self.weight) * frozen
        return mean / task.temperature(mean[places], truth[places])


def answers_of(shares: Sequence[float]) -> list[Answer]:
    """Return the answers to choose from.

    First come the tuned model at each share, then the means of the one at share 1 and the frozen
    model.

    Args:
        shares: see `Fold.shares`; the last one is 1.
    """
    alone = [Answer(share, 1.0, place) for place, share in enumerate(shares)]
    return [*alone, *(Answer(1.0, weight, len(shares) - 1) for weight in WEIGHTS)]


def least_loss(logits: np.ndarray, truth: np.ndarray, places: np.ndarray, task: Task) -> int:
    """Return the index of the candidate with the smallest mean loss on the examples at `places`.

    Args:
        logits: [candidates, n, C].
    """
    return int(np.argmin([task.losses(one[places], truth[places]).mean() for one in logits]))
