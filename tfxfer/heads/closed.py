"""Fit the heads gaussian, ridge and prototype by solving a system of equations, without training.

Each head has two forms with the same result. The dual form takes the kernel matrix K = X X' of n
examples and gives `alpha` and `bias` with logits = x X' alpha + bias. Cross-validation uses it,
because K is computed only once for all folds. The primal form reads the features in blocks and
holds one d x d matrix, however many examples there are; sums has its formulas.
"""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from tfxfer.data.folds import sample
from tfxfer.heads.blas import factorise
from tfxfer.heads.fitted import Array, Fitted, blocks, centre_classes, normalise_taps
from tfxfer.heads.sums import ROUNDING, solve_gaussian, solve_ridge, sum_up
from tfxfer.heads.threads import one_thread

# Ridge picks its strength on at most so many examples, because the time of an eigendecomposition
# grows with the cube of their number.
LEAVE_ONE_OUT = 2000
# The strengths that Ridge tries, in units of the mean squared length of a centred example.
STRENGTHS = 10.0 ** np.arange(-5, 2.01, 0.5)


def shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return [n, C]: 1 / (size of the class) where the example is of the class, else 0.

    The product shares' X is then the class means.

    Raises:
        ValueError: a class has no example.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise ValueError(
            "every class needs an example to be fitted on. "
            f"Received none of class {int(np.argmin(counts))}"
        )
    out = np.zeros((len(labels), classes))
    out[np.arange(len(labels)), labels] = 1.0 / counts[labels]
    return out


def gaussian_dual(
    kernel: np.ndarray, labels: np.ndarray, classes: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the Gaussian on a kernel matrix, with the Woodbury identity.

    Args:
        kernel: [n, n], of features with `width` columns.
        labels: int [n].

    Returns:
        `alpha` [n, C] and `bias` [C].
    """
    means = shares(labels, classes)
    residual = np.array(kernel, np.float64)
    products = residual @ means  # X M'
    residual -= products[:, labels].T  # R X', as R = X - M[labels]
    right = residual @ means  # R M'
    residual -= right[:, labels]  # R R'
    t = np.trace(residual) / max(len(labels) - 1, 1)
    # Where examples differ only by rounding errors of float32, the matrix is no covariance: t is
    # at least as large as these errors.
    t = max(t, len(labels) * ROUNDING * float(kernel.diagonal().max()))
    t = t or 1.0  # all examples are equal to their class means: then every t gives the same
    residual.flat[:: len(labels) + 1] += t
    matrix = np.asfortranarray(residual)
    factorise(matrix)
    solved = linalg.cho_solve((matrix, True), right, check_finite=False)
    # P M' = d / t (M' - R' solved), and R' v = X' (v - means (sum of v over each class))
    alpha = width / t * (means - (solved - means @ onehot(labels, classes).T @ solved))
    norms = (
        width / t * (np.einsum("nc,nc->c", means, products) - np.einsum("nc,nc->c", right, solved))
    )
    return alpha, -norms / 2


def onehot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the labels as one-hot rows, float64 [n, C]."""
    return np.eye(classes)[labels]


def ridge_dual(
    kernel: np.ndarray, targets: np.ndarray, strength: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Fit ridge regression on a kernel matrix, with one eigendecomposition.

    The hat matrix is 1/n + Q s/(s+strength) Q', where s and Q are the eigenvalues and eigenvectors
    of the centred kernel. The constant vector has the eigenvalue 0 there and must not get a term of
    its own: if the system were solved without that 1/n, its 1/strength would outweigh everything
    else, and leave-one-out would pick a strength of 0.

    Args:
        kernel: [n, n].
        targets: float [n, K], such as one-hot rows.
        strength: strength of the penalty; by default the one whose leave-one-out logits have the
            smallest squared error.

    Returns:
        `alpha` [n, K], `bias` [K], leave-one-out outputs [n, K], and the strength.
    """
    n = len(targets)
    kernel = np.asarray(kernel, np.float64)
    row = kernel.mean(0)
    s, q = np.linalg.eigh(kernel - row - row[:, None] + row.mean())
    s = np.where(s > s.max() * n * 1e-15, s, 0.0)
    share = targets.mean(0)
    rotated, squares = q.T @ (targets - share), q * q

    def left_out(value: float) -> np.ndarray:
        weight = s / (s + value)
        fit = share + q @ (weight[:, None] * rotated)
        return targets - (targets - fit) / (1 - 1 / n - squares @ weight)[:, None]

    if strength is None:
        strength = min(
            STRENGTHS * ((s.sum() / n) or 1.0),
            key=lambda value: float(np.square(targets - left_out(value)).sum()),
        )
    alpha = q @ (rotated * np.where(s > 0, 1 / (s + strength), 0.0)[:, None])
    alpha -= alpha.mean(0)
    return alpha, share - row @ alpha, left_out(strength), float(strength)


def prototype_dual(
    kernel: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `alpha` [n, C] and `bias` [C] of the prototype, fitted on the kernel matrix [n, n]."""
    kernel = np.asarray(kernel, np.float64)
    row = kernel.mean(0)
    lengths = np.sqrt(np.maximum(np.diag(kernel) - 2 * row + row.mean(), 1e-24))
    alpha = shares(labels, classes) / lengths[:, None]
    alpha -= alpha.mean(0)
    alpha /= np.sqrt(np.maximum(np.einsum("nc,nc->c", alpha, kernel @ alpha), 1e-24))
    return alpha, -row @ alpha


def from_dual(
    name: str,
    x: np.ndarray,
    widths: Sequence[int],
    alpha: np.ndarray,
    bias: np.ndarray,
    strength: float | None = None,
    centre: bool = True,
) -> Fitted:
    """Return the head of `alpha` and `bias`.

    Args:
        x: the normalised examples, float64 [n, d], from which the kernel matrix was computed: in
            float64, the head does not depend on the order of the examples.
        centre: see `primal`.
    """
    mean = x.mean(0).astype(np.float32)
    # The mean is subtracted from the features and added again in the bias: float32 is then exact
    # enough.
    bias = bias + x @ mean @ alpha
    return primal(
        name, widths, mean, kernel=x.T @ alpha, bias=bias, strength=strength, centre=centre
    )


@one_thread
def gaussian(
    features: Array,
    labels: np.ndarray,
    classes: int,
    widths: Sequence[int],
    *,
    rows: np.ndarray | None = None,
) -> Fitted:
    """Fit one Gaussian for each class, with one covariance for all classes.

    The covariance is shrunk by its mean variance; there is nothing to set (docs/methods.md,
    "Gaussian").

    With X = features with each tap scaled to length one, M = class means, R = X - M[labels],
    t = sum(R^2) / (n-1) and P = d (R'R + t I)^-1, the logits are X P M' - diag(M P M') / 2.

    The system is solved by Cholesky decomposition; for up to n = d/3 examples the kernel matrix is
    used.

    Args:
        features: float32 [n, F], F >= sum(widths): the last columns are used.
        labels: int [n], 0 .. classes - 1, each class at least once among `rows`.
        widths: number of columns of each tap that is used.
        rows: positions to fit on; all by default.

    Raises:
        ValueError: a class has no example.
    """
    rows = np.arange(len(labels)) if rows is None else rows
    labels, width = np.asarray(labels)[rows], sum(widths)
    if len(rows) <= width // 3:
        x = normalise_taps(np.asarray(features[rows])[:, -width:], widths).astype(np.float64)
        return from_dual(
            "gaussian", x, widths, *gaussian_dual(x @ x.T, labels, classes, width=width)
        )
    shares(labels, classes)
    sums = sum_up(features, rows, onehot(labels, classes), widths)
    return primal("gaussian", widths, *solve_gaussian(sums))


@one_thread
def ridge(
    features: Array,
    labels: np.ndarray,
    classes: int,
    widths: Sequence[int],
    *,
    rows: np.ndarray | None = None,
    strength: float | None = None,
) -> Fitted:
    """Fit least squares on one-hot targets, with a penalty on the squared weights.

    The strength of the penalty, where it is not given, is picked by leave-one-out in closed form,
    on at most 2,000 examples. The other arguments and the errors are those of `gaussian`.
    """
    rows = np.arange(len(labels)) if rows is None else rows
    labels = np.asarray(labels)[rows]
    shares(labels, classes)
    few = sample(labels, LEAVE_ONE_OUT) if strength is None else np.arange(len(rows))
    codes = onehot(labels, classes)
    return fit_ridge(features, codes, widths, rows=rows, few=few, strength=strength)


@one_thread
def least_squares(
    features: Array,
    codes: np.ndarray,
    widths: Sequence[int],
    *,
    rows: np.ndarray,
    strength: float | None = None,
) -> Fitted:
    """Fit ridge regression on targets that are no classes.

    The strength, where it is not given, is picked as in `ridge`. So that targets of large numbers
    do not outweigh the others in that, each column counts in units of its standard deviation.

    Args:
        features, widths, rows: as for `gaussian`.
        codes: float64 [n, K], all known at `rows`.
    """
    own = codes[rows]
    unit = own.std(0)
    unit = np.where(unit > 0, unit, 1.0)
    most = min(len(rows), LEAVE_ONE_OUT) if strength is None else len(rows)
    few = np.linspace(0, len(rows), most, endpoint=False).astype(int)
    return fit_ridge(
        features, own / unit, widths, rows=rows, few=few, strength=strength, unit=unit, centre=False
    )


def fit_ridge(
    features: Array,
    codes: np.ndarray,
    widths: Sequence[int],
    *,
    rows: np.ndarray,
    few: np.ndarray,
    strength: float | None,
    unit: np.ndarray | float = 1.0,
    centre: bool = True,
) -> Fitted:
    """Fit ridge regression in the form that is cheaper.

    Args:
        codes: float64 [len(rows), K], the targets of the examples at `rows`.
        few: positions in `rows` on which the strength is picked, where it is not given.
        unit: what the outputs are multiplied by, a number or [K].
        centre: see `primal`.
    """
    width = sum(widths)
    if strength is None or len(rows) <= width // 3:
        x = normalise_taps(np.asarray(features[rows[few]])[:, -width:], widths)
        x = x.astype(np.float64)
        alpha, bias, _, strength = ridge_dual(x @ x.T, codes[few], strength)
        if len(few) == len(rows):
            alpha, bias = alpha * unit, bias * unit
            return from_dual("ridge", x, widths, alpha, bias, strength=strength, centre=centre)
    mean, kernel, bias, strength = solve_ridge(sum_up(features, rows, codes, widths), strength)
    return primal(
        "ridge",
        widths,
        mean,
        kernel=kernel * unit,
        bias=bias * unit,
        strength=strength,
        centre=centre,
    )


@one_thread
def prototype(
    features: Array,
    labels: np.ndarray,
    classes: int,
    widths: Sequence[int],
    *,
    rows: np.ndarray | None = None,
) -> Fitted:
    """Score each class by the cosine between the example and the class mean.

    The examples are centred and scaled to length one before they are averaged. This head suits
    classes that have one example each. The length of the example to classify is left out, which
    changes no prediction and keeps the head affine. Arguments and errors are those of `gaussian`.
    """
    rows = np.arange(len(labels)) if rows is None else rows
    labels, width = np.asarray(labels)[rows], sum(widths)
    _, mean = class_means(features, rows, labels, classes=classes, widths=widths)
    weights, kernel = shares(labels, classes), np.zeros((width, classes))
    for where, x in blocks(features, rows, width):
        x = normalise_taps(x, widths) - mean
        x /= np.linalg.norm(x, axis=1, keepdims=True) + np.float32(1e-12)
        kernel += x.T @ weights[where].astype(np.float32)
    kernel /= np.linalg.norm(kernel, axis=0) + 1e-12
    return primal("prototype", widths, mean, kernel=kernel, bias=np.zeros(classes))


def class_means(
    features: Array, rows: np.ndarray, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the normalised features, float32: of each class [C, d], of all [d]."""
    weights, means = shares(labels, classes), np.zeros((classes, sum(widths)))
    for where, x in blocks(features, rows, sum(widths)):
        means += weights[where].astype(np.float32).T @ normalise_taps(x, widths)
    return means.astype(np.float32), (
        np.bincount(labels, minlength=classes) / len(labels) @ means
    ).astype(np.float32)


def primal(
    name: str,
    widths: Sequence[int],
    mean: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    strength: float | None = None,
    normalise: str = "l2",
    scale: np.ndarray | None = None,
    centre: bool = True,
) -> Fitted:
    """Return the head of a kernel [d, C] on features from which `mean` is subtracted.

    Args:
        centre: whether kernel and bias get mean zero over the outputs, which are classes.
    """
    scale = np.ones_like(mean) if scale is None else scale
    if centre:
        kernel, bias = centre_classes(kernel, bias)
    return Fitted(
        name,
        len(widths),
        tuple(widths),
        normalise,
        mean,
        scale,
        np.asarray(kernel, np.float32),
        np.asarray(bias, np.float32),
        strength=strength,
    )
