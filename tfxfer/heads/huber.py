"""Ridge regression in which large errors count less, by the loss of Huber (1964).

The fit is a ridge regression in which each example has a weight, found in a few rounds: an example
whose error is larger than a bound weighs bound / error. The bound is 1.345 times the standard
deviation of the errors, as the median of their absolute values shows it.
"""

import numpy as np

from tfxfer.heads.closed import from_dual, ridge_dual
from tfxfer.heads.fitted import Array, Fitted, normalise_taps
from tfxfer.heads.threads import one_thread

BOUND = 1.345  # 95 % as exact as least squares where errors are normal (Huber 1981)
ROUNDS = 10
NORMAL = 1.4826  # standard deviation over the median absolute value, of normal errors
MOST = 4000  # examples that one system of equations is solved for; of more, a sample is taken


def huber_dual(
    kernel: np.ndarray, codes: np.ndarray, strength: float | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit on a kernel matrix; each column of codes has weights of its own.

    Args:
        kernel: [n, n].
        codes: float [n, K].
        strength: strength of the penalty; by default the one that ridge picks.

    Returns:
        `alpha` [n, K], `bias` [K], and the strength.
    """
    kernel = np.asarray(kernel, np.float64)
    codes = np.asarray(codes, np.float64)
    alpha, bias, _, strength = ridge_dual(kernel, codes, strength)
    for k, column in enumerate(codes.T):
        for _ in range(ROUNDS):
            errors = np.abs(column - kernel @ alpha[:, k] - bias[k])
            bound = BOUND * NORMAL * float(np.median(errors))
            weights = np.minimum(1.0, bound / np.maximum(errors, bound or 1.0))
            if bound == 0.0:
                break
            alpha[:, k], bias[k] = weighted_ridge(kernel, column, weights, strength)
    return alpha, bias, strength


def weighted_ridge(
    kernel: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float
) -> tuple[np.ndarray, float]:
    """Minimise sum of weights * error^2 + strength * squared weights of the features.

    Returns:
        `alpha` [n], which sums to 0, and the bias.
    """
    system = kernel.copy()
    system.flat[:: len(system) + 1] += strength / weights
    solved = np.linalg.solve(system, np.column_stack([targets, np.ones(len(targets))]))
    bias = float(solved[:, 0].sum() / solved[:, 1].sum())
    return solved[:, 0] - bias * solved[:, 1], bias


@one_thread
def huber(
    features: Array,
    codes: np.ndarray,
    widths: tuple[int, ...],
    *,
    rows: np.ndarray,
    strength: float | None = None,
) -> Fitted:
    """Fit on the examples at `rows`, of which at most `MOST`, evenly taken, are used.

    Args:
        features: float32 [n, F], F >= sum(widths): the last columns are used.
        codes: float [n, K], all known at `rows`.
    """
    rows = rows[np.linspace(0, len(rows), min(len(rows), MOST), endpoint=False).astype(int)]
    x = normalise_taps(np.asarray(features[rows])[:, -sum(widths) :], widths)
    x = x.astype(np.float64)
    alpha, bias, strength = huber_dual(x @ x.T, codes[rows], strength)
    return from_dual("huber", x, widths, alpha=alpha, bias=bias, strength=strength, centre=False)
