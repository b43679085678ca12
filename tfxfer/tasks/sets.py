"""Prediction sets: as many classes as it takes to hold the true one as often as was promised.

The method is split conformal prediction with LAC (Sadinle 2019).
"""

import math

import numpy as np


def strangeness(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return 1 - p of the true class, float32 [n], in ascending order.

    The examples must be ones that the model was not fitted on.
    """
    return np.sort(1 - np.asarray(probabilities)[np.arange(len(labels)), labels]).astype(np.float32)


def lowest(strangest: np.ndarray, coverage: float) -> float:
    """Return the smallest probability with which a class is in the set.

    It is 1 - q, where q is the ceil((n + 1) coverage)-th smallest value of `strangest`. Where n is
    too small for that, it is 0, and every class is in the set.

    Args:
        strangest: the result of `strangeness`, [n].
        coverage: share of new examples whose set shall hold the true class, above 0 and below 1.

    Raises:
        ValueError: a coverage outside that range.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"Expected a coverage above 0 and below 1. Received: coverage={coverage}")
    rank = math.ceil((len(strangest) + 1) * coverage)
    return 1 - float(strangest[rank - 1]) if rank <= len(strangest) else 0.0


def members(probabilities: np.ndarray, least: float) -> np.ndarray:
    """Return which classes are in the set of each example, bool [n, C].

    The most probable class always is, so that no set is empty.
    """
    membership = np.asarray(probabilities) >= least
    membership[np.arange(len(membership)), np.asarray(probabilities).argmax(1)] = True
    return membership
