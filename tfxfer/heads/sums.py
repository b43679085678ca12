"""Sums over examples from which the Gaussian and Ridge are fitted, whatever the order of these.

They are held in float64: a covariance is the difference of two sums, and sums that are added in
another order must give the same head. Means, covariance and shrinkage all follow from the sums, so
that sums of more examples give the head of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from tfxfer.heads.blas import add_products, factorise, invert
from tfxfer.heads.fitted import Array, blocks, normalise_taps

ROUNDING = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over n examples x with targets y, where each tap of x has length one.

    count: n.
    targets: float64 [K], the sum of y; for one-hot targets the number of examples of each class.
    total: float64 [d], the sum of x.
    products: float64 [d, K], the sum of x y'; for one-hot targets the sum of each class.
    gram: float64 [d, d], the sum of x x'; only its lower triangle is set.
    """

    count: int
    targets: np.ndarray
    total: np.ndarray
    products: np.ndarray
    gram: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean of x, float32 [d]."""
        return (self.total / self.count).astype(np.float32)


def sum_up(features: Array, rows: np.ndarray, targets: np.ndarray, widths: Sequence[int]) -> Sums:
    """Return the sums over `rows`; the features are read in blocks.

    Args:
        features: float32 [n, F], F >= sum(widths): the last columns are used.
        targets: float [len(rows), K].
        widths: number of columns of each tap.
    """
    width, outputs = sum(widths), targets.shape[1]
    total, products = np.zeros(width), np.zeros((width, outputs))
    gram = np.zeros((width, width), order="F")
    for where, x in blocks(features, rows, width):
        x = normalise_taps(x, widths).astype(np.float64)
        total += x.sum(0)
        products += x.T @ targets[where]
        add_products(gram, x)
    return Sums(
        count=len(rows),
        targets=np.asarray(targets, np.float64).sum(0),
        total=total,
        products=products,
        gram=gram,
    )


def subtract_examples(
    sums: Sums, features: Array, rows: np.ndarray, targets: np.ndarray, widths: Sequence[int]
) -> Sums:
    """Return the sums without some of their examples; arguments as for `sum_up`.

    The sums themselves stay as they are.
    """
    total, products = sums.total.copy(), sums.products.copy()
    gram = sums.gram.copy(order="F")
    for where, x in blocks(features, rows, len(total)):
        x = normalise_taps(x, widths).astype(np.float64)
        total -= x.sum(0)
        products -= x.T @ targets[where]
        add_products(gram, x, -1)
    return Sums(
        count=sums.count - len(rows),
        targets=sums.targets - targets.sum(0),
        total=total,
        products=products,
        gram=gram,
    )


def add_sums(first: Sums, second: Sums) -> Sums:
    """Return the sums over the examples of both, with the same targets in the same columns."""
    return Sums(
        count=first.count + second.count,
        targets=first.targets + second.targets,
        total=first.total + second.total,
        products=first.products + second.products,
        gram=first.gram + second.gram,
    )


def with_columns(sums: Sums, columns: np.ndarray, outputs: int) -> Sums:
    """Return the sums with their targets in other columns; the new ones are zero."""
    targets, products = np.zeros(outputs), np.zeros((len(sums.total), outputs))
    targets[columns], products[:, columns] = sums.targets, sums.products
    return replace(sums, targets=targets, products=products)


def take_columns(sums: Sums, columns: np.ndarray) -> Sums:
    """Return the sums with only these columns of the targets."""
    return replace(sums, targets=sums.targets[columns], products=sums.products[:, columns])


def within_classes(sums: Sums) -> tuple[np.ndarray, float]:
    """Return R'R + t I, where R is what examples differ from their class means; and t.

    The targets are one-hot, and each class has an example. The matrix of the sums is overwritten.

    Returns:
        float64 [d, d], only its lower triangle; t = sum(R^2) / (n - 1).
    """
    longest = float(np.trace(sums.gram)) / sums.count
    matrix = sums.gram
    add_products(matrix, (sums.products / np.sqrt(sums.targets)).T, -1)
    t = float(np.trace(matrix)) / max(sums.count - 1, 1)
    # Where all examples are equal to their class means, every t gives the same.
    t = max(t, ROUNDING * longest) or 1.0
    matrix.flat[:: len(matrix) + 1] += t
    return matrix, t


def solve_gaussian(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean [d], the kernel [d, C] and the bias [C] of the Gaussian.

    The targets are one-hot, and each class has an example. The matrix of the sums is overwritten.
    """
    mean, width = sums.mean, len(sums.total)
    off = sums.products / sums.targets - mean[:, None].astype(np.float64)
    matrix, _ = within_classes(sums)
    kernel = width * solve(matrix, off)
    return mean, kernel, -np.einsum("dc,dc->c", off, kernel) / 2


def solve_ridge(sums: Sums, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the mean [d], the kernel [d, K], the bias [K] and the strength of Ridge.

    The matrix of the sums is overwritten. The strength is at least as large as rounding errors.
    """
    mean = sums.mean
    centre = sums.total / sums.count
    right = sums.products - np.outer(centre, sums.targets)
    matrix = sums.gram
    add_products(matrix, centre[None] * np.sqrt(sums.count), -1)
    strength = max(strength, 32 * ROUNDING * float(matrix.diagonal().max()))
    matrix.flat[:: len(matrix) + 1] += strength
    return mean, solve(matrix, right), sums.targets / sums.count, strength


def means_and_precision(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Return class means M, float32 [C, d], and the precision matrix P, float32 [d, d].

    P = d (R'R + t I)^-1 (docs/methods.md, "Gaussian"). The targets are one-hot. The matrix of the
    sums is overwritten.
    """
    width = len(sums.total)
    means = (sums.products / sums.targets).T.astype(np.float32)
    matrix, _ = within_classes(sums)
    factorise(matrix)
    invert(matrix)
    for i in range(width):  # LAPACK fills the lower half only
        matrix[i, i + 1 :] = matrix[i + 1 :, i]
    return means, (matrix * width).astype(np.float32)


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return matrix^-1 right; only the lower triangle of `matrix` is read, and overwritten."""
    factorise(matrix)
    return linalg.cho_solve((matrix, True), right, check_finite=False)
