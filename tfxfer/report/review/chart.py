"""Place held-out examples on a plane, similar ones near each other (t-SNE, van der Maaten 2008)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tfxfer.data.folds import few
from tfxfer.heads.fitted import Array, normalise_taps

POINTS = 1000
FEWEST = 10  # with fewer examples, a plane says nothing
COMPONENTS, PERPLEXITY, STEPS = 50, 30, 500
FLAT = 1e-6  # times the length of the features; a smaller spread is rounding error of float32


@threadpool_limits.wrap(limits=1)  # its threads wait for each other longer than they work
def place_on_plane(
    features: Array, positions: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the examples that are shown, and compute their places on the plane.

    Args:
        features: the network's own output.
        positions: examples that may be shown; of more than a thousand, a sample is shown in which
            each class keeps its share.
        labels: labels of these examples.

    Returns:
        positions [n] of the examples, and their places, float [n, 2] from 0 to 1. n is 0 if there
        are too few examples, or if their features do not differ: t-SNE divides by the spread of
        the first component, and its tree of places ends the process on NaN.
    """
    shown = positions[few(labels, POINTS, seed)] if len(positions) else positions
    if len(shown) < FEWEST:
        return none(shown)
    x = normalise_taps(features[shown], (features.shape[1],))
    if not np.isfinite(x).all() or np.ptp(x, axis=0).max() < FLAT:
        return none(shown)
    x = np.pad(x, ((0, 0), (0, max(0, 2 - x.shape[1]))))  # a plane has two directions
    x = PCA(min(COMPONENTS, len(x) - 1, x.shape[1]), random_state=seed).fit_transform(x)
    if not np.isfinite(x).all() or x[:, 0].std() < FLAT:
        return none(shown)
    places = TSNE(
        init="pca",
        perplexity=min(PERPLEXITY, (len(x) - 1) / 3),
        max_iter=STEPS,
        random_state=seed,
        n_jobs=1,
    ).fit_transform(x)
    if not np.isfinite(places).all():
        return none(shown)
    low, high = places.min(0), places.max(0)
    return shown, (places - low) / np.maximum(high - low, 1e-12)


def none(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No positions, and no places."""
    return shown[:0], np.zeros((0, 2))
