"""The most similar pictures of different parts of the data: what is judged should not have been seen."""

import numpy as np

from tfxfer.probe.fitted import Array, normalised

BLOCK = 1024
FLAT = 1e-6  # of the length of the features: what is so near to the mean is like everything, and like nothing


def nearest(
    features: Array, judged: np.ndarray, train: np.ndarray, most: int
) -> list[tuple[int, int, float]]:
    """(judged position, training position, cosine of their centred features) of the most similar pairs.

    The most similar first, each position once, and only of those that are alike at all: none where all
    features are equal, or no numbers.

    Args:
        features: the network's own output, [n, d].
    """
    if not len(judged) or not len(train):
        return []
    sums = [
        directions(features, train[i : i + BLOCK]).sum(0, dtype=np.float64)
        for i in range(0, len(train), BLOCK)
    ]
    mean = (np.sum(sums, 0) / len(train)).astype(np.float32)

    def centred(positions: np.ndarray) -> np.ndarray:
        x = directions(features, positions) - mean
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return x / np.where(length > FLAT, length, np.inf)

    best, where = np.zeros(len(judged)), np.zeros(len(judged), int)
    rows = [centred(judged[i : i + BLOCK]) for i in range(0, len(judged), BLOCK)]
    for start in range(0, len(train), BLOCK):
        block = centred(train[start : start + BLOCK])
        found = np.concatenate([row @ block.T for row in rows])
        nearer = found.max(1) > best
        where = np.where(nearer, start + found.argmax(1), where)
        best = np.maximum(best, found.max(1))
    pairs: list[tuple[int, int, float]] = []
    for i in np.argsort(-best, kind="stable"):
        if best[i] <= 0:
            break
        partner = int(train[where[i]])
        if partner not in {pair[1] for pair in pairs}:
            pairs.append((int(judged[i]), partner, float(best[i])))
        if len(pairs) == most:
            break
    return pairs


def directions(features: Array, positions: np.ndarray) -> np.ndarray:
    """Features at length one; zeros for those that are no numbers."""
    with np.errstate(invalid="ignore"):
        x = normalised(features[positions], (features.shape[1],))
    x[~np.isfinite(x).all(1)] = 0
    return x
