"""Compare the scores of two models on the same examples.

A score says how good one answer is; for classes it is 1 for a right answer and 0 for a wrong one.
All formulas use d, the differences of the scores (docs/methods.md, "Paired comparisons"). With b
and c, the numbers of examples that only the first and only the second model has right, sum(d) is
b - c and sum(d^2) is b + c.
"""

import numpy as np

from tfxfer.tasks.figures import Z


def paired(scores: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return how much better the scores are than the others, and the standard error of that.

    Both are float [n], for the same examples. The values are mean(d) and std(d) / sqrt(n).
    """
    d = differences(scores, others)
    n, total = max(len(d), 1), float(d.sum())
    squares = float(np.square(d).sum())
    return total / n, float(np.sqrt(max(squares - total**2 / n, 0.0))) / n


def chance_error(scores: np.ndarray, others: np.ndarray) -> float:
    """Return the standard error of the difference if the two models are equally good.

    It is sqrt(sum(d^2)) / n; for right and wrong answers that is McNemar's test (McNemar 1947).
    """
    d = differences(scores, others)
    return float(np.sqrt(np.square(d).sum())) / len(d)


def smoothed_difference(scores: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the same as `paired`, but smoothed, so that few examples do not look certain.

    Half an example is added to each of four cases: both models are right, only the first, only the
    second, or neither (Agresti 2005).
    """
    d = differences(scores, others)
    n = len(d) + 2
    gain = float(d.sum()) / n
    return gain, float(np.sqrt(np.square(d).sum() + 1 - n * gain**2)) / n


def differences(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the difference of the scores of each example, float64 [n]."""
    return np.asarray(scores, np.float64) - np.asarray(others, np.float64)


def said_of_gain(gain: float, error: float, *, percent: bool) -> str:
    """Return how much better a score is, as text.

    Args:
        error: the standard error of the gain.
        percent: whether scores are shares, so that differences are told in points.
    """
    if percent:
        return f"{100 * gain:+.1f} ± {100 * error:.1f} points"
    return f"{gain:+.3f} ± {error:.3f}"


def share_of_scores(scores: np.ndarray, name: str, *, lowest: float = -np.inf) -> dict[str, float]:
    """Return the mean score under a name, its 95 % interval "low" to "high", and "n".

    Args:
        scores: float [n], each at most 1.
        lowest: the lowest score that there is.
    """
    mean = float(scores.mean())
    half = Z * float(scores.std() / np.sqrt(len(scores)))
    return {
        name: mean,
        "low": max(mean - half, lowest),
        "high": min(mean + half, 1.0),
        "n": len(scores),
    }
