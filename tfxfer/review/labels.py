"""Suspected label errors, by confident learning (Northcutt 2021)."""

import numpy as np


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, int]]:
    """(position, suggested class) of examples whose label is doubtful, the most doubtful first.

    An example is suspected where the most probable of the classes that it confidently belongs to is not its label; confidently means: with at least the
    mean probability that examples of that class have of being of it. They are in the order of the probability of their own label.

    Args:
        labels: int [n].
        probabilities: [n, C], of examples that the model was not fitted on.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    # Nothing is confidently of a class that has no example.
    threshold = np.array(
        [own[labels == k].mean() if np.any(labels == k) else np.inf for k in range(count)]
    )
    confident = np.where(probabilities >= threshold, probabilities, -1.0)
    best = confident.argmax(1)
    found = np.flatnonzero((confident.max(1) >= 0) & (best != labels))
    return [(int(i), int(best[i])) for i in found[np.argsort(own[found], kind="stable")]]
