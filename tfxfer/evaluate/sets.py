"""Prediction sets: as many classes as it takes to hold the true one as often as was promised (split conformal, LAC; Sadinle 2019)."""

import math

import numpy as np


def strangeness(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1 - p of the true class, float32 [n], ascending; of examples that the model was not fitted on."""
    return np.sort(1 - np.asarray(probabilities)[np.arange(len(labels)), labels]).astype(np.float32)


def lowest(strangest: np.ndarray, coverage: float) -> float:
    """The probability from which on a class is in the set: 1 - q, q the ceil((n + 1) coverage)-th smallest; 0 (every class) where n is too small for it.

    Args:
        strangest: as `strangeness` gives it.
        coverage: share of new examples whose set shall hold the true class, above 0 and below 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"Expected a coverage above 0 and below 1. Received: coverage={coverage}")
    rank = math.ceil((len(strangest) + 1) * coverage)
    return 1 - float(strangest[rank - 1]) if rank <= len(strangest) else 0.0


def members(probabilities: np.ndarray, least: float) -> np.ndarray:
    """Which classes are in the set of each example, bool [n, C]; the most probable one always is, so that no set is empty."""
    found = np.asarray(probabilities) >= least
    found[np.arange(len(found)), np.asarray(probabilities).argmax(1)] = True
    return found
