"""Fit the head linear: multinomial logistic regression with a penalty on its squared weights.

The loss is the usual one: sum of -log p + strength/2 * sum of squared weights, without a penalty on
the intercept. All else is done for speed. Up to 2,000 examples are rotated into the space that
their rows span, which is exact and has at most n dimensions. With more examples, the features
themselves are the design matrix. In both cases the loss is minimised in coordinates in which it is
about equally steep in every direction, so that about 20 steps of L-BFGS do what would take
hundreds. How steep it is depends on the weights that are looked for: with more than 2,000 examples
the coordinates are chosen anew after 15 steps, by the weights that were found until then. All folds
are fitted in one minimisation, and share each product with the design matrix.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from scipy import linalg
from scipy.optimize import minimize
from scipy.special import softmax

from tfxfer.data.folds import deal, sample
from tfxfer.heads.blas import factorise
from tfxfer.heads.closed import primal, shares
from tfxfer.heads.fitted import BLOCK, Array, Fitted, blocks, normalise_taps
from tfxfer.heads.threads import in_threads, one_thread
from tfxfer.tasks import CLASSIFY, calibrated_loss

ROTATED = 2000  # up to so many examples are rotated into the space that their rows span
LOADED = 2**30  # bytes of features that are held in memory at most
# With fewer examples a class, columns are not standardised: their scales would be noise
# (docs/methods.md, "Linear").
FEW = 20
# In units of the mean squared length of a centred example, from strong to weak.
STRENGTHS = 10.0 ** np.arange(1, -4.01, -0.5)
UNJUDGED = 1.0  # the strength where nothing can be held out: scikit-learn's default
STEEPNESS = 0.05  # a guess at p (1 - p): only the number of steps depends on it
FOLDS = 5
# Most steps in each choice of coordinates, with features as the design matrix. A new choice takes
# as long as 10 steps, and L-BFGS forgets what it has seen (benchmarks/LOG.md).
STEPS = (15, 500)
# A minimisation ends where a step gains fewer nats for each example: one whose weights matter, and
# one whose probabilities do, which do not get better after that (benchmarks/LOG.md).
LEAST_GAIN, LEAST_GAIN_OF_PROBABILITIES = 1e-9, 1e-6
LEAST_STEEPNESS = 1e-5  # of an example that is predicted with certainty
TOGETHER = 600_000  # numbers in one minimisation: L-BFGS keeps about 25 copies of them in float64


def choose_normalisation(labels: np.ndarray, classes: int) -> str:
    """Return how features are made comparable: "standardise", or "l2" where classes are small.

    These are, on average, classes of fewer than 20 examples.
    """
    return "standardise" if len(labels) >= FEW * classes else "l2"


def moments(features: Array, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each of the last `width` columns, float32 [width].

    The standard deviation of a constant column is given as 1.
    """
    total, squares = np.zeros(width), np.zeros(width)
    for _, x in blocks(features, rows, width):
        total += x.sum(0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", x, x, dtype=np.float64)
    mean = total / len(rows)
    variance = squares / len(rows) - mean * mean
    return mean.astype(np.float32), np.sqrt(
        np.where(variance > 1e-10 * np.maximum(mean * mean, 1e-20), variance, 1.0)
    ).astype(np.float32)


State = tuple[np.ndarray, np.ndarray]  # the point in a minimisation: [r, k, C] and [k, C]
Change = Callable[[np.ndarray], np.ndarray]
Each: TypeAlias = Callable[..., Iterable]  # `map`, or one that works in threads


@dataclass(frozen=True)
class End:
    """When a minimisation ends: as soon as one of these is reached.

    tolerance: largest entry of the gradient, in the coordinates of the minimisation.
    gain: what a step gains, in nats for each example; 0 ends it where single precision ends.
    steps: steps of L-BFGS.
    """

    tolerance: float = 1e-3
    gain: float = 0.0
    steps: int = 500


@dataclass(frozen=True, eq=False)
class Minimum:
    """The result of a minimisation of k losses.

    w, b: coefficients [r, k, C] and intercepts [k, C].
    state: the point where it ended.
    finished: False where it ended because there were no more steps.
    """

    w: np.ndarray
    b: np.ndarray
    state: State
    finished: bool


def descend(
    design: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    strength: float,
    change: tuple[Change, Change],
    unit: float,
    start: State | None = None,
    end: End = End(),
    each: Each = map,
) -> Minimum:
    """Minimise k losses, one for each column of `weights`, together if they are not too large.

    Args:
        design: float32 [n, r].
        labels: int [n].
        weights: [n, k], 0 or 1: which examples count in which loss.
        classes: C.
        strength: strength of the penalty.
        change: maps the coordinates of the minimisation to those of the design, and its transpose
            for gradients, both on [r, k C].
        unit: what an intercept is multiplied by, to be a coordinate of the minimisation.
        start: the state at the end of an earlier minimisation; zeros by default.
        each: what works on parts of the examples.
    """
    k, r = weights.shape[1], design.shape[1]
    start = (np.zeros((r, k, classes)), np.zeros((k, classes))) if start is None else start
    if k > 1 and r * k * classes > TOGETHER:
        parts = [
            descend(
                design,
                labels,
                weights[:, i : i + 1],
                classes=classes,
                strength=strength,
                change=change,
                unit=unit,
                start=(start[0][:, i : i + 1], start[1][i : i + 1]),
                end=end,
                each=each,
            )
            for i in range(k)
        ]
        return Minimum(
            w=np.concatenate([part.w for part in parts], 1),
            b=np.concatenate([part.b for part in parts]),
            state=(
                np.concatenate([part.state[0] for part in parts], 1),
                np.concatenate([part.state[1] for part in parts]),
            ),
            finished=all(part.finished for part in parts),
        )

    size, forward = k * classes, change[0]
    loss = losses(
        design,
        labels,
        weights,
        classes=classes,
        strength=strength,
        change=change,
        unit=unit,
        each=each,
    )
    # L-BFGS-B compares gains with the loss or with 1, whichever is larger, and the mean loss of an
    # example is below 1. Relative gains below 1e-9 are less than the rounding of sums in float32.
    count = float(weights.sum()) if end.gain else 1.0
    found = minimize(
        lambda flat: tuple(part / count for part in loss(flat)),
        np.concatenate([part.ravel() for part in start]),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": end.steps,
            "gtol": end.tolerance / count,
            "ftol": end.gain or 1e-9,
        },
    )
    state = found.x[:-size].reshape(r, k, classes), found.x[-size:].reshape(k, classes)
    return Minimum(
        w=forward(found.x[:-size].reshape(r, size).astype(np.float32)).reshape(r, k, classes),
        b=state[1] / unit,
        state=state,
        finished=found.nit < end.steps,
    )


def losses(
    design: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    strength: float,
    change: tuple[Change, Change],
    unit: float,
    each: Each = map,
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return a function from a flat state to the sum of the k losses and its gradient.

    The examples are worked on in parts of `ROTATED`, whose sums are always added in the same order.
    """
    (n, k), (forward, backward), size = weights.shape, change, weights.shape[1] * classes
    weights = weights.astype(np.float32)
    truth = weights[:, :, None] * (np.arange(classes) == labels[:, None, None])
    parts = [slice(start, start + ROTATED) for start in range(0, n, ROTATED)]

    def of_part(part: slice, w: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        x, own = design[part], weights[part]
        z = (x @ w + b).reshape(-1, k, classes)
        z -= z.max(2, keepdims=True)
        p = np.exp(z)
        total = p.sum(2, keepdims=True)
        loss = np.sum(own * np.log(total[:, :, 0]), dtype=np.float64) - np.sum(
            truth[part] * z, dtype=np.float64
        )
        p *= own[:, :, None] / total
        p -= truth[part]
        p = p.reshape(-1, size)
        return float(loss), x.T @ p, p.sum(0, dtype=np.float64)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = forward(flat[:-size].reshape(-1, size).astype(np.float32))
        b = (flat[-size:] / unit).astype(np.float32)
        loss, slope, bias = total_of(each(lambda part: of_part(part, w, b), parts))
        slope = backward(slope + np.float32(strength) * w)
        penalty = strength / 2 * float(np.sum(w * w, dtype=np.float64))
        return loss + penalty, np.concatenate([slope.ravel(), bias / unit]).astype(np.float64)

    return value


def total_of(
    parts: Iterable[tuple[float, np.ndarray, np.ndarray]],
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the sums over the parts, which are added in their order."""
    first, *others = parts
    loss, slope, bias = first
    for more, its_slope, its_bias in others:
        loss += more
        slope += its_slope
        bias += its_bias
    return loss, slope, bias


class Rotated:
    """Examples in the space that their rows span, computed from their kernel matrix.

    One eigendecomposition serves all strengths and folds.
    """

    def __init__(self, kernel: np.ndarray):
        kernel = np.asarray(kernel, np.float64)
        row = kernel.mean(0)
        s, q = np.linalg.eigh(kernel - row - row[:, None] + row.mean())
        kept = s > s[-1] * 1e-7
        self.s, self.q = s[kept], q[:, kept]
        self.design = (self.q * np.sqrt(self.s)).astype(np.float32)
        self.unit = float(self.s.sum()) / len(kernel) or 1.0

    def descend(
        self,
        labels: np.ndarray,
        weights: np.ndarray,
        classes: int,
        strength: float,
        start: State | None = None,
        end: End = End(),
    ) -> Minimum:
        """Call `descend` in coordinates scaled by the root of the loss's second derivative."""
        scale = (1 / np.sqrt(STEEPNESS * self.s + strength)).astype(np.float32)[:, None]
        return descend(
            self.design,
            labels,
            weights,
            classes=classes,
            strength=strength,
            change=(lambda v: v * scale, lambda g: g * scale),
            unit=np.sqrt(STEEPNESS * len(labels)),
            start=start,
            end=end,
        )

    def fit(
        self, labels: np.ndarray, classes: int, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `alpha` [n, C] and `bias` [C], fitted on all examples."""
        found = self.descend(labels, np.ones((len(labels), 1)), classes, strength)
        alpha = (self.q / np.sqrt(self.s)) @ found.w[:, 0].astype(np.float64)
        return alpha - alpha.mean(0), found.b[0]

    def held_out(
        self,
        labels: np.ndarray,
        folds: np.ndarray,
        classes: int,
        *,
        counted: np.ndarray | None = None,
    ) -> tuple[np.ndarray, float]:
        """Return held-out logits [n, C] at the best strength, and that strength.

        The best strength has the smallest calibrated log loss. Strengths are tried from strong to
        weak, and each minimisation starts from the result of the one before. After two that were
        worse, weaker strengths are not tried. Where nothing is held out, the logits are 0 and the
        strength is 1.

        Args:
            counted: bool [n], the examples whose labels are known; by default all.
        """
        weights, known = folds[:, None] != np.arange(folds.max() + 1), folds >= 0
        if counted is not None:
            weights, known = weights & counted[:, None], known & counted
        if not known.any():
            return np.zeros((len(labels), classes)), UNJUDGED
        tried: list[tuple[float, float, np.ndarray]] = []
        state: State | None = None
        for strength in STRENGTHS * self.unit:
            found = self.descend(labels, weights, classes, strength, state, End(tolerance=0.03))
            state, logits = found.state, self.own(found.w, found.b, folds)
            loss = calibrated_loss(CLASSIFY, logits[known], labels[known])
            tried.append((loss, strength, logits))
            if len(tried) > 2 and min(loss, tried[-2][0]) > min(entry[0] for entry in tried[:-2]):
                break
        _, strength, logits = min(tried, key=lambda entry: entry[0])
        return logits, float(strength)

    def own(self, w: np.ndarray, b: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Return the logits [n, C] of each example from the one of k fits that did not see it."""
        out = np.zeros((len(folds), b.shape[1]))
        for fold in range(len(b)):
            out[folds == fold] = self.design[folds == fold] @ w[:, fold] + b[fold]
        return out


class Loaded:
    """Examples as they are, [n, d], in memory.

    A Cholesky factor of the loss's second derivative gives the coordinates of the minimisation. It
    is taken as the same for all classes and folds: the mean of theirs.
    """

    def __init__(self, x: np.ndarray, strength: float):
        self.design, self.strength = x, strength

    def descend(
        self, labels: np.ndarray, weights: np.ndarray, classes: int, *, gain: float
    ) -> Minimum:
        """Call `descend` with coordinates that are transformed by the Cholesky factor."""
        n, k = weights.shape
        w, b = np.zeros((self.design.shape[1], k, classes), np.float32), np.zeros((k, classes))
        steepness = np.full(n, STEEPNESS, np.float32)
        with in_threads() as each:
            for steps in STEPS:
                factor = self.factor(steepness, each)
                unit = float(np.sqrt(steepness.sum(dtype=np.float64)))
                point = (factor.T @ w.reshape(len(w), -1)).reshape(w.shape)
                found = descend(
                    self.design,
                    labels,
                    weights,
                    classes=classes,
                    strength=self.strength,
                    change=(partial(solve_transposed, factor), partial(solve, factor)),
                    unit=unit,
                    start=(point, b * unit),
                    end=End(gain=gain, steps=steps),
                    each=each,
                )
                w, b = found.w, found.b
                if found.finished:
                    break
                steepness = self.steepness(w, b, weights)
        return found

    def factor(self, steepness: np.ndarray, each: Each) -> np.ndarray:
        """Return the Cholesky factor of `X' diag(steepness) X + strength`, float32 [d, d].

        Args:
            each: what works on parts of the rows, which are the same on any number of cores.
        """
        width = self.design.shape[1]
        matrix = np.zeros((width, width), np.float32)
        for start in range(0, len(self.design), BLOCK):
            some = slice(start, start + BLOCK)
            x = self.design[some] * np.sqrt(steepness[some])[:, None]
            for _ in each(partial(add_to_rows, matrix, x), range(0, width, BLOCK)):
                pass
        matrix.flat[:: width + 1] += np.float32(self.strength)
        factor = matrix.T  # LAPACK wants it by columns, for which the other triangle was set
        factorise(factor)
        for i in range(width):
            factor[:i, i] = 0
        return factor

    def steepness(self, w: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the mean of p (1 - p) over classes and fits for each example, float32 [n]."""
        (n, k), classes = weights.shape, b.shape[1]
        mean = np.zeros(n, np.float32)
        for start in range(0, n, BLOCK):
            some = slice(start, start + BLOCK)
            z = (self.design[some] @ w.reshape(len(w), -1)).reshape(-1, k, classes)
            p = softmax(z + b.astype(np.float32), axis=2)
            mean[some] = np.mean(p * (1 - p) * weights[some, :, None], (1, 2))
        return np.maximum(mean, np.float32(LEAST_STEEPNESS))


def add_to_rows(matrix: np.ndarray, x: np.ndarray, start: int) -> None:
    """Add X'X to some rows of the upper triangle of a matrix: `BLOCK` of them from `start`."""
    some = slice(start, start + BLOCK)
    matrix[some, start:] += x[:, some].T @ x[:, start:]


def solve(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return L^-1 right, where L is a lower triangle."""
    return linalg.solve_triangular(factor, right, lower=True, check_finite=False)


def solve_transposed(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return (L')^-1 right, where L is a lower triangle."""
    return linalg.solve_triangular(factor, right, lower=True, trans="T", check_finite=False)


def load_features(
    features: Array, rows: np.ndarray, widths: Sequence[int], how: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normalised and centred features of `rows`, float32 [n, d].

    They come with what was subtracted from them and what they were divided by, float32 [d].
    """
    width = sum(widths)
    out = np.empty((len(rows), width), np.float32)
    mean, scale = (
        moments(features, rows, width)
        if how == "standardise"
        else (np.zeros(width, np.float32), np.ones(width, np.float32))
    )
    for where, x in blocks(features, rows, width):
        out[where] = (x - mean) / scale if how == "standardise" else normalise_taps(x, widths)
    if how == "l2":
        mean = out.mean(0)
        out -= mean
    return out, mean, scale


def pick_affordable(labels: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """Return as many of `rows` as fit into `LOADED` bytes: all, or a stratified sample."""
    return rows[sample(labels[rows], LOADED // (4 * width))]


@one_thread
def linear(
    features: Array,
    labels: np.ndarray,
    classes: int,
    widths: Sequence[int],
    *,
    rows: np.ndarray | None = None,
    strength: float | None = None,
    normalise: str | None = None,
    gain: float = LEAST_GAIN,
    seed: int = 0,
) -> Fitted:
    """Fit multinomial logistic regression with a penalty on squared weights.

    The features are normalised first.

    Args:
        features: float32 [n, F], F >= sum(widths): the last columns are used. At most 1 GiB of them
            is loaded; above that, a stratified sample is.
        labels: int [n], 0 .. classes - 1, each class at least once among `rows`.
        widths: number of columns of each tap that is used.
        rows: positions to fit on; all by default.
        strength: factor of half the sum of squared weights in the loss (1/C in scikit-learn); by
            default picked by 5-fold cross-validation on at most 2,000 examples.
        normalise: "standardise" or "l2" (each tap to length one); by default "l2" where there are
            fewer than 20 examples a class, else "standardise".
        gain: with more than 2,000 examples, the fit ends where a step gains fewer nats for each of
            them.
        seed: seed of the sample and the folds.

    Raises:
        ValueError: a class has no example.
    """
    labels = np.asarray(labels)
    rows = pick_affordable(labels, np.arange(len(labels)) if rows is None else rows, sum(widths))
    shares(labels[rows], classes)
    how = normalise or choose_normalisation(labels[rows], classes)
    if len(rows) <= ROTATED:
        x, mean, scale = load_features(features, rows, widths, how=how)
        rotated, known = Rotated(x @ x.T), labels[rows]
        if strength is None:
            _, strength = rotated.held_out(known, deal(known, FOLDS, seed), classes)
        alpha, bias = rotated.fit(known, classes, strength)
        return primal(
            "linear",
            widths,
            mean,
            kernel=x.T @ alpha.astype(np.float32),
            bias=bias,
            strength=strength,
            normalise=how,
            scale=scale,
        )
    if strength is None:
        few = rows[sample(labels[rows], ROTATED, seed)]
        x, _, _ = load_features(features, few, widths, how=how)
        _, strength = Rotated(x @ x.T).held_out(
            labels[few], deal(labels[few], FOLDS, seed), classes
        )
    return fit_folds(
        features,
        labels,
        classes,
        widths=widths,
        rows=rows,
        folds=np.full(len(rows), -1),
        strength=strength,
        how=how,
        gain=gain,
    )[0]


def fit_folds(
    features: Array,
    labels: np.ndarray,
    classes: int,
    widths: Sequence[int],
    rows: np.ndarray,
    folds: np.ndarray,
    strength: float,
    how: str,
    gain: float,
) -> tuple[Fitted, np.ndarray]:
    """Fit the head on all of `rows`, and once without each fold.

    Args:
        folds: the fold of each of `rows`; -1 where it is never held out.
        how: "standardise" or "l2".
        Other Args are those of `linear`.

    Returns:
        The head fitted on all of `rows`, and the logits [n, C] of each of them from the fit without
        its fold (0 where the fold is -1).
    """
    x, mean, scale = load_features(features, rows, widths, how=how)
    labels, held_out = labels[rows], np.zeros((len(rows), classes))
    weights = np.column_stack(
        [np.ones(len(rows), bool), *(folds != fold for fold in range(folds.max() + 1))]
    )
    found = Loaded(x, strength).descend(labels, weights, classes, gain=gain)
    w, b = found.w, found.b
    for fold in range(folds.max() + 1):
        held_out[folds == fold] = x[folds == fold] @ w[:, fold + 1] + b[fold + 1]
    return primal(
        "linear",
        widths,
        mean,
        kernel=w[:, 0],
        bias=b[0],
        strength=strength,
        normalise=how,
        scale=scale,
    ), held_out
