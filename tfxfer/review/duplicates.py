"""The most similar pictures of different parts of the data: what is judged should not have been seen."""

import numpy as np

from tfxfer.probe.fitted import Array, normalised

BLOCK = 1024


def nearest(
    features: Array, judged: np.ndarray, train: np.ndarray, most: int
) -> list[tuple[int, int, float]]:
    """(judged position, training position, cosine of their centred features) of the most similar pairs, the most similar first, each position once.

    Args:
        features: the network's own output, [n, d].
    """
    if not len(judged) or not len(train):
        return []
    width = features.shape[1]
    sums = [
        normalised(features[train[i : i + BLOCK]], (width,)).sum(0, dtype=np.float64)
        for i in range(0, len(train), BLOCK)
    ]
    mean = (np.sum(sums, 0) / len(train)).astype(np.float32)

    def centred(positions: np.ndarray) -> np.ndarray:
        x = normalised(features[positions], (width,)) - mean
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    best, where = np.full(len(judged), -2.0), np.zeros(len(judged), int)
    rows = [centred(judged[i : i + BLOCK]) for i in range(0, len(judged), BLOCK)]
    for start in range(0, len(train), BLOCK):
        block = centred(train[start : start + BLOCK])
        found = np.concatenate([row @ block.T for row in rows])
        nearer = found.max(1) > best
        where = np.where(nearer, start + found.argmax(1), where)
        best = np.maximum(best, found.max(1))
    pairs: list[tuple[int, int, float]] = []
    for i in np.argsort(-best, kind="stable"):
        partner = int(train[where[i]])
        if partner not in {pair[1] for pair in pairs}:
            pairs.append((int(judged[i]), partner, float(best[i])))
        if len(pairs) == most:
            break
    return pairs
