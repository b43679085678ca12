"""Score features by the nearest neighbours of each example: the cheapest judge of a network."""

import numpy as np

from tfxfer.heads.threads import one_thread
from tfxfer.tasks import Task

NEIGHBOURS = 5


@one_thread
def score_neighbours(
    features: np.ndarray, targets: np.ndarray, outputs: int, *, task: Task, units: np.ndarray | None
) -> np.ndarray:
    """Return the score of each example, float [n], answered by its five nearest neighbours.

    Neighbours are found by the cosine. The answer is the mean of their targets, weighted by a
    little more for nearer ones, so that there are no ties.

    Args:
        features: float32 [n, F].
        targets: the targets; for classes int [n].
        outputs: the number of outputs, K.
        units: int [n]; examples with the same number are no neighbours of each other. None where
            each example stands for itself.
    """
    x = np.asarray(features, np.float32)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    near = x @ x.T
    own = np.arange(len(x)) if units is None else np.asarray(units)
    near[own[:, None] == own] = -np.inf
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :NEIGHBOURS]
    weights = np.linspace(1.01, 0.99, nearest.shape[1], dtype=np.float32)
    weights = weights * np.isfinite(np.take_along_axis(near, nearest, 1))
    codes = task.codes(np.asarray(targets), outputs)
    codes = np.where(np.isnan(codes), task.constant(targets, outputs), codes)
    answers = np.einsum("nk,nko->no", weights, codes[nearest])
    # Weights of examples that have no neighbour are 0.
    total = np.maximum(weights.sum(1, keepdims=True), 1e-12)
    return task.prediction_scores(answers / total, targets)
