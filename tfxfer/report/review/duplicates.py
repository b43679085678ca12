"""Find the most similar pictures of different parts of the data.

A picture that the model is judged on should not be one that it was trained on.
"""

import numpy as np

from tfxfer.heads.fitted import Array, normalise_taps

BLOCK = 1024
# Times the length of the features. A picture whose features are this near to the mean is equally
# similar to all others, and counts as similar to none.
FLAT = 1e-6


def find_nearest(
    features: Array, judged: np.ndarray, train: np.ndarray, most: int
) -> list[tuple[int, int, float]]:
    """The most similar pairs of a judged picture and a training picture, the most similar first.

    Each position is in at most one pair. Only pairs with a positive cosine are returned, hence none
    if all features are equal, or not finite.

    Args:
        features: the network's own output, [n, d].
        judged, train: positions.
        most: number of pairs, at most.

    Returns:
        (judged position, training position, cosine of their centred features) for each pair.
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
        cosines = np.concatenate([row @ block.T for row in rows])
        nearer = cosines.max(1) > best
        where = np.where(nearer, start + cosines.argmax(1), where)
        best = np.maximum(best, cosines.max(1))
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
    """Features scaled to length one; rows that are not finite become zeros."""
    with np.errstate(invalid="ignore"):
        x = normalise_taps(features[positions], (features.shape[1],))
    x[~np.isfinite(x).all(1)] = 0
    return x
