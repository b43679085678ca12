"""Find suspected label errors by confident learning (Northcutt 2021)."""

import numpy as np


def find_suspects(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, int]]:
    """Find examples whose label is doubtful: (position, suggested class), the most doubtful first.

    An example confidently belongs to a class if its probability of that class is at least the mean
    that the examples of that class have. It is suspected if the most probable of the classes that
    it confidently belongs to is not its label. Suspects are sorted by the probability of their own
    label, the lowest first.

    Args:
        labels: int [n].
        probabilities: [n, C], of examples that the model was not fitted on.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    # No example confidently belongs to a class that has no examples.
    threshold = np.array(
        [own[labels == k].mean() if np.any(labels == k) else np.inf for k in range(count)]
    )
    confident = np.where(probabilities >= threshold, probabilities, -1.0)
    best = confident.argmax(1)
    suspects = np.flatnonzero((confident.max(1) >= 0) & (best != labels))
    return [(int(i), int(best[i])) for i in suspects[np.argsort(own[suspects], kind="stable")]]
