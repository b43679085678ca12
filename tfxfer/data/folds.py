"""Deal examples into folds, or draw a sample of them.

Both are stratified, and both are determined by a seed.
"""

import numpy as np


def deal(labels: np.ndarray, count: int, seed: int, units: np.ndarray | None = None) -> np.ndarray:
    """Return the fold of each example, int [n], 0 .. count - 1.

    The only example of its class is never held out: its fold is -1.

    Examples are shuffled and then dealt out class by class, one to each fold in turn. So the sizes
    of the folds differ by at most one example, in total and within each class. Examples with the
    same number in `units` (of one group, or identical) are held out together: an accuracy on
    examples whose copies were used for fitting says nothing.
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
    """Return sorted positions of about `count` examples, each class in proportion to its size.

    At least two examples of each class are taken, where it has two.
    """
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
    """Draw a sample as `sample` does, but never more than `count` examples.

    Where two of each class would be more than `count`, some of them are left out at random.
    """
    positions = sample(labels, count, seed)
    return (
        positions
        if len(positions) <= count
        else np.sort(np.random.default_rng(seed).choice(positions, count, replace=False))
    )
