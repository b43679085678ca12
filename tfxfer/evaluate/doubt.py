"""How unsure a model is: prediction sets, and a score for images of none of the classes.

A prediction set is a set of classes that contains the true one as often as promised. Both need a
threshold, which comes from examples that the model was not fitted on and that are not part of test.
A finished `Doubt` needs only NumPy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.data import Examples
from tfxfer.data.folds import sample
from tfxfer.errors import RunError
from tfxfer.evaluate.unknown import Unknown, fit_unknown, out_of_fold
from tfxfer.safety.arrays import read_arrays
from tfxfer.tasks.figures import share
from tfxfer.tasks.sets import lowest, members, strangeness

COVERAGE = 0.9  # share of sets that contain the true class, for the figures in metrics.json
FALSE_ALARMS = 0.05  # share of images of known classes that are marked as of no class
# The threshold depends on the one image in twenty with the highest score. With fewer validation
# examples than this, it is too inexact.
ENOUGH = 200
EXAMPLES = 10_000  # at most so many are used to fit the score; more would hardly change it


@dataclass(frozen=True, eq=False)
class Doubt:
    """Thresholds of a finished run.

    strangest: float32 [n], ascending: 1 minus the probability of the true class, for held-out
        examples.
    known: float32 [m], ascending: scores for "none of these" of examples of known classes that
        the score was not fitted on.
    by: where these examples are from: "validation"; where that has fewer than 200, "validation and
        folds of train", or "folds of train" alone.
    tail: where the columns that `unknown.scores` reads begin in the features that the head sees,
        counted from their end.
    unknown: the score for "none of these".
    """

    strangest: np.ndarray
    known: np.ndarray
    by: str
    tail: int
    unknown: Unknown

    def least(self, coverage: float) -> float:
        """Return the lowest probability of a class in a prediction set.

        See `tfxfer.evaluate.lowest`.
        """
        return lowest(self.strangest, coverage)

    @property
    def fewest(self) -> int:
        """The lowest number of scores of known images from which a threshold can be set."""
        return math.ceil(1 / FALSE_ALARMS) - 1

    @property
    def threshold(self) -> float:
        """The score above which an image is of no class.

        At most a share of `FALSE_ALARMS` of known images has a higher score. The threshold is
        infinite where there are too few known images for that.
        """
        rank = math.ceil((len(self.known) + 1) * (1 - FALSE_ALARMS))
        return float(self.known[rank - 1]) if rank <= len(self.known) else math.inf

    def figures(
        self, test: tuple[np.ndarray, np.ndarray] | None, scores: np.ndarray
    ) -> dict[str, Any]:
        """Return JSON values: "sets" and "unknown", each with its results on test.

        In "test" of "sets", "accuracy" is the share of sets that contain the true class; in "test"
        of "unknown", it is the share of images that are not marked. Where there is no test part,
        "test" is None.

        Args:
            test: labels and probabilities of the test examples, or None.
            scores: their scores for "none of these".
        """
        threshold, least = self.threshold, self.least(COVERAGE)
        sets: dict[str, Any] = {
            "coverage": COVERAGE,
            "probability": least,
            "calibrated_on": len(self.strangest),
            "test": None,
        }
        none: dict[str, Any] = {
            "false_alarms": FALSE_ALARMS,
            "threshold": threshold if threshold < math.inf else None,
        }
        none |= {
            "calibrated_on": len(self.known),
            "by": self.by,
            "test": share(scores <= threshold) if len(scores) else None,
        }
        if test:
            membership = members(test[1], least)
            sets["test"] = {
                **share(membership[np.arange(len(membership)), test[0]]),
                "mean_size": float(membership.sum(1).mean()),
            }
        return {"sets": sets, "unknown": none}

    def save(self, path: str) -> None:
        """Write doubt.npz."""
        np.savez(
            path,
            strangest=self.strangest,
            known=self.known,
            by=self.by,
            tail=self.tail,
            **vars(self.unknown),
        )


def load(path: Path) -> Doubt:
    """Read what `save` wrote.

    Raises:
        RunError: the file is damaged, or holds something else.
    """
    try:
        arrays = read_arrays(path)
        result = Doubt(
            strangest=numbers(arrays.pop("strangest"), 1),
            known=numbers(arrays.pop("known"), 1),
            by=str(arrays.pop("by")),
            tail=int(arrays.pop("tail")),
            unknown=Unknown(**{name: numbers(each, each.ndim) for name, each in arrays.items()}),
        )
        score = result.unknown
        (width,), (columns,) = score.mean.shape, score.slopes.shape
        whole = (
            score.project.shape == (width, columns)
            and score.quadratic.shape == (columns, columns)
            and score.offsets.shape == (columns,)
            and 0 < width <= result.tail
            and columns > 0
        )
        if not whole:
            raise ValueError("its arrays don't fit together")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error
    return result


def numbers(array: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the array; raises ValueError if it has other dimensions or holds no finite floats."""
    if array.dtype.kind != "f" or array.ndim != dimensions or not np.isfinite(array).all():
        raise ValueError(f"an array is {array.dtype} {array.shape}")
    return array


def doubt(
    examples: Examples,
    outputs: Callable[[np.ndarray], np.ndarray],
    tail: int,
    held_out: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Doubt:
    """Fit the score for "none of these" on train, and collect what its threshold comes from.

    The threshold comes from validation. Where that is small, it also comes from train, by
    cross-validation; such a threshold is too low if the network was trained on train.

    Args:
        outputs: maps positions to the network's own output, float32 [m, d].
        tail: see `Doubt`.
        held_out: labels and calibrated probabilities of held-out examples.
        seed: seed of the folds.
    """
    train, validation = examples.where("train"), examples.where("validation")
    train = train[sample(examples.labels[train], EXAMPLES, seed)]
    x, labels = outputs(train), examples.labels[train]
    fitted = fit_unknown(x, labels)
    units = None if examples.units is None else examples.units[train]
    known, by = (
        [fitted.scores(outputs(validation))] if len(validation) else [],
        ["validation"] if len(validation) else [],
    )
    if len(validation) < ENOUGH:
        known, by = [*known, out_of_fold(x, labels, seed, units=units)], [*by, "folds of train"]
    return Doubt(
        strangest=strangeness(*held_out),
        known=np.sort(np.concatenate(known)),
        by=" and ".join(by),
        tail=tail,
        unknown=fitted,
    )
