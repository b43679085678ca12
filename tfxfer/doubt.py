"""What a model knows of its own doubt: sets of classes that hold the true one as often as promised, and a score for "none of these". NumPy alone, to use.

Both are thresholds on examples that the model was not fitted on, and that are no part of test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.arrays import read_arrays
from tfxfer.data import Examples
from tfxfer.errors import RunError
from tfxfer.evaluate import lowest, members, share, strangeness
from tfxfer.probe import Unknown, out_of_fold, unknown
from tfxfer.probe.folds import sample

COVERAGE = 0.9  # of the sets in metrics.json
FALSE_ALARMS = 0.05  # share of images of known classes that are marked as of none
ENOUGH = 200  # of validation: fewer say too little of the one image in twenty that counts
EXAMPLES = 10_000  # that the score for none of these is fitted on: more would not move it


@dataclass(frozen=True, eq=False)
class Doubt:
    """Thresholds of a finished run.

    strangest: float32 [n] ascending, 1 - p of the true class of held-out examples.
    known: float32 [m] ascending, scores for "none of these" of examples of known classes that it was not fitted on.
    by: which ones: "validation"; where that has fewer than 200 also, or only, "folds of train".
    tail: where the columns that `unknown` reads begin in what the head sees, counted from its end.
    unknown: the score.
    """

    strangest: np.ndarray
    known: np.ndarray
    by: str
    tail: int
    unknown: Unknown

    def least(self, coverage: float) -> float:
        """The probability from which on a class is in a prediction set (see `tfxfer.evaluate.lowest`)."""
        return lowest(self.strangest, coverage)

    @property
    def fewest(self) -> int:
        """How many scores of known images it takes to say anything."""
        return math.ceil(1 / FALSE_ALARMS) - 1

    @property
    def threshold(self) -> float:
        """The score above which an image is of no class: at most `FALSE_ALARMS` of known images are above; infinite where too few are known for that."""
        rank = math.ceil((len(self.known) + 1) * (1 - FALSE_ALARMS))
        return float(self.known[rank - 1]) if rank <= len(self.known) else math.inf

    def figures(
        self, test: tuple[np.ndarray, np.ndarray] | None, scores: np.ndarray
    ) -> dict[str, Any]:
        """JSON values: "sets" and "unknown", each with what came of it on test (labels and probabilities, and their scores) where there is one.

        In "test" of "sets", "accuracy" is the share of sets that hold the true class; in that of "unknown" the share of images that are not marked.
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
            found = members(test[1], least)
            sets["test"] = {
                **share(found[np.arange(len(found)), test[0]]),
                "mean_size": float(found.sum(1).mean()),
            }
        return {"sets": sets, "unknown": none}

    def save(self, path: str) -> None:
        """doubt.npz."""
        np.savez(
            path,
            strangest=self.strangest,
            known=self.known,
            by=self.by,
            tail=self.tail,
            **vars(self.unknown),
        )


def load(path: Path) -> Doubt:
    """What `save` wrote.

    Raises:
        RunError: the file is damaged, or something else.
    """
    try:
        arrays = read_arrays(path)
        found = Doubt(
            numbers(arrays.pop("strangest"), 1),
            numbers(arrays.pop("known"), 1),
            str(arrays.pop("by")),
            int(arrays.pop("tail")),
            Unknown(**{name: numbers(each, each.ndim) for name, each in arrays.items()}),
        )
        score = found.unknown
        (width,), (columns,) = score.mean.shape, score.slopes.shape
        whole = (
            score.project.shape == (width, columns)
            and score.quadratic.shape == (columns, columns)
            and score.offsets.shape == (columns,)
            and 0 < width <= found.tail
            and columns > 0
        )
        if not whole:
            raise ValueError("its arrays don't fit together")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error
    return found


def numbers(array: np.ndarray, dimensions: int) -> np.ndarray:
    """Finite numbers of so many dimensions; ValueError otherwise."""
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
    """Fit the score on train; its threshold is that of validation, and of train by folds where that is small: too low a one if the network trained there.

    Args:
        outputs: positions to the network's own output, float32 [m, d].
        tail: see `Doubt`.
        held_out: labels and calibrated probabilities of held-out examples.
        seed: of the folds.
    """
    train, validation = examples.where("train"), examples.where("validation")
    train = train[sample(examples.labels[train], EXAMPLES, seed)]
    x, labels = outputs(train), examples.labels[train]
    fitted = unknown(x, labels)
    units = None if examples.units is None else examples.units[train]
    known, by = (
        [fitted.scores(outputs(validation))] if len(validation) else [],
        ["validation"] if len(validation) else [],
    )
    if len(validation) < ENOUGH:
        known, by = [*known, out_of_fold(x, labels, seed, units)], [*by, "folds of train"]
    return Doubt(
        strangeness(*held_out), np.sort(np.concatenate(known)), " and ".join(by), tail, fitted
    )
