"""Keep of the examples of a Gaussian or Ridge what it needs to grow without them.

The shared covariance changes with every new example, so a class can't just be appended: the head
is solved again, from sums over the old and the new examples together. Where there are so few
examples that their features take less room than the sums, the features themselves are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfxfer.heads.closed import gaussian, onehot, primal, ridge
from tfxfer.heads.fitted import Array, Fitted
from tfxfer.heads.sums import (
    Sums,
    add_sums,
    means_and_precision,
    solve_gaussian,
    solve_ridge,
    sum_up,
    take_columns,
    with_columns,
)
from tfxfer.heads.threads import one_thread

NAMES = ("gaussian", "ridge")  # heads that can be fitted from statistics


@dataclass(frozen=True, eq=False)
class Statistics:
    """What Gaussian and Ridge need to know of their examples: features, or sums over them.

    widths: number of columns of each tap, d = sum(widths).
    classes: C.
    features: float32 [n, d], as the network gave them; None where only sums are kept.
    labels: int [n], their classes.
    sums: with one-hot targets; None where the features are kept.
    """

    widths: tuple[int, ...]
    classes: int
    features: np.ndarray | None = None
    labels: np.ndarray | None = None
    sums: Sums | None = None

    @property
    def counts(self) -> np.ndarray:
        """The number of examples of each class, int [C]."""
        if self.sums is not None:
            return self.sums.targets.round().astype(np.int64)
        assert self.labels is not None
        return np.bincount(self.labels, minlength=self.classes)

    def summed(self, columns: np.ndarray | None = None) -> Sums:
        """Return the sums, of some of the classes or of all; their matrix is the caller's own."""
        columns = np.arange(self.classes) if columns is None else columns
        if self.sums is not None:
            sums = take_columns(self.sums, columns)
            return replace(sums, gram=self.sums.gram.copy(order="F"))
        assert self.features is not None and self.labels is not None
        targets = onehot(self.labels, self.classes)[:, columns]
        return sum_up(self.features, np.arange(len(self.labels)), targets, self.widths)


@one_thread
def gather(features: Array, labels: np.ndarray, classes: int, widths: Sequence[int]) -> Statistics:
    """Return the statistics of all examples; arguments as for `gaussian`.

    A class may lack examples.
    """
    labels, width = np.asarray(labels), sum(widths)
    rows = np.arange(len(labels))
    if len(rows) <= width // 2:
        x = np.asarray(features[rows], np.float32)[:, -width:]
        return Statistics(tuple(widths), classes, features=x, labels=labels)
    sums = sum_up(features, rows, onehot(labels, classes), widths)
    return Statistics(tuple(widths), classes, sums=sums)


@one_thread
def add(first: Statistics, second: Statistics) -> Statistics:
    """Return the statistics of the examples of both.

    Raises:
        ValueError: they are of other taps or classes.
    """
    if (first.widths, first.classes) != (second.widths, second.classes):
        raise ValueError(
            f"expected statistics of {first.classes} classes and taps of {first.widths} columns. "
            f"Received: {second.classes} classes and taps of {second.widths}"
        )
    if first.features is not None and second.features is not None:
        features = np.concatenate([first.features, second.features])
        labels = np.concatenate([np.asarray(first.labels), np.asarray(second.labels)])
        return gather(features, labels, first.classes, first.widths)
    sums = add_sums(first.summed(), second.summed())
    return Statistics(first.widths, first.classes, sums=sums)


def widen(statistics: Statistics, classes: int) -> Statistics:
    """Return the same statistics with more classes, which have no examples yet."""
    sums = statistics.sums
    if sums is not None:
        sums = with_columns(sums, np.arange(statistics.classes), classes)
    return replace(statistics, classes=classes, sums=sums)


@one_thread
def gaussian_of(statistics: Statistics) -> Fitted:
    """Fit the Gaussian, as `gaussian` does on the features.

    A class without examples gets a probability of almost zero.
    """
    return fit_present(
        statistics,
        lambda x, labels, classes: gaussian(x, labels, classes, statistics.widths),
        lambda sums: primal("gaussian", statistics.widths, *solve_gaussian(sums)),
    )


@one_thread
def ridge_of(statistics: Statistics, strength: float) -> Fitted:
    """Fit Ridge at a strength, as `ridge` does on the features; see `gaussian_of`."""
    return fit_present(
        statistics,
        lambda x, labels, classes: ridge(x, labels, classes, statistics.widths, strength=strength),
        lambda sums: primal("ridge", statistics.widths, *solve_ridge(sums, strength)),
    )


def fit_present(
    statistics: Statistics,
    on_features: Callable[[np.ndarray, np.ndarray, int], Fitted],
    on_sums: Callable[[Sums], Fitted],
) -> Fitted:
    """Fit a head on the classes that have examples, by what is kept of these."""
    present = np.flatnonzero(statistics.counts)
    if statistics.features is not None and statistics.labels is not None:
        labels = np.searchsorted(present, statistics.labels)
        fitted = on_features(statistics.features, labels, len(present))
    else:
        fitted = on_sums(statistics.summed(present))
    return fitted.expanded(present, statistics.classes)


@one_thread
def precision_of(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Return class means M, float32 [C, d], and the precision matrix P, float32 [d, d].

    The means of a class without examples are zeros.
    """
    present = np.flatnonzero(statistics.counts)
    means, matrix = means_and_precision(statistics.summed(present))
    everything = np.zeros((statistics.classes, means.shape[1]), np.float32)
    everything[present] = means
    return everything, matrix
