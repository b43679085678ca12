"""Which examples are held out together, and which stand for all: both stratified, both by seed."""

import numpy as np


def deal(labels: np.ndarray, count: int, seed: int, units: np.ndarray | None = None) -> np.ndarray:
    """The fold of each example, int [n], 0 .. count - 1; -1 for the only example of its class, which is never held out.

    Examples are shuffled and dealt out class by class like cards, so that folds differ by at most one example, in all and within each class. Examples with
    the same number in `units` (of one group, or identical) are held out together: a figure of examples whose twins were fitted on says nothing.
    """
    labels = np.asarray(labels)
    if units is not None and len(np.unique(units)) < len(labels):
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        folds = deal(labels[first], count, seed)[unit]
        for fold in range(folds.max() + 1):
            # A class that is all in one fold can't be held out.
            lost = np.setdiff1d(labels[folds == fold], labels[folds != fold])
            folds[np.isin(unit, unit[np.isin(labels, lost)])] = -1
        return folds
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    order = order[np.bincount(labels)[labels[order]] > 1]
    folds = np.full(len(labels), -1)
    folds[order] = np.arange(len(order)) % min(count, max(len(order), 1))
    return folds


def sample(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Sorted positions of about `count` examples, each class by its share; two of each class at least, where it has two."""
    labels = np.asarray(labels)
    if len(labels) <= count:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[order], labels[order])
    chosen = np.arange(len(order)) - first < 2
    others = np.flatnonzero(~chosen)
    chosen[
        others[
            np.linspace(0, len(others), max(count - int(chosen.sum()), 0), endpoint=False).astype(
                int
            )
        ]
    ] = True
    return np.sort(order[chosen])


def few(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """As `sample`, but never more than `count`: where two of each class are more, some of them."""
    found = sample(labels, count, seed)
    return (
        found
        if len(found) <= count
        else np.sort(np.random.default_rng(seed).choice(found, count, replace=False))
    )
