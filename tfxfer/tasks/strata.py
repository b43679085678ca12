"""Groups of examples with the same answers, of which each part and fold gets its share."""

import numpy as np


def group_rows(rows: np.ndarray, fewest: int, otherwise: np.ndarray) -> np.ndarray:
    """Return a group for each example, int64 [n]: those with the same row.

    An example that is alone in its group goes to the largest one.

    Args:
        rows: [n, ...].
        fewest: the size from which on examples with the same row are a group.
        otherwise: int [n], at least -1: the group of the other examples.
    """
    _, same, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    same = same.reshape(-1)
    groups = np.where(counts[same] >= fewest, same, len(counts) + 1 + otherwise)
    _, groups, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts):
        groups = np.where(counts[groups] > 1, groups, counts.argmax())
    return groups.astype(np.int64)
