"""All held-out examples on one plane, like next to like: t-SNE (van der Maaten 2008)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tfxfer.probe.fitted import Array, normalised
from tfxfer.probe.folds import few

POINTS = 1000
FEWEST = 10  # examples below which a plane says nothing
COMPONENTS, PERPLEXITY, STEPS = 50, 30, 500
FLAT = 1e-6  # of the length of the features: a smaller spread is what float32 rounds away


@threadpool_limits.wrap(limits=1)  # its threads wait for each other longer than they work
def plane(
    features: Array, positions: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions that are shown and their places on the plane, [n, 2] from 0 to 1.

    None of both where there are too few, and where there is nothing to tell them apart: t-SNE divides
    by the spread of the first component, and its tree of places ends the process on what is no number.

    Args:
        features: the network's own output.
        positions: that may be shown; of more than a thousand a sample, each class by its share.
        labels: of these positions.
    """
    shown = positions[few(labels, POINTS, seed)] if len(positions) else positions
    if len(shown) < FEWEST:
        return none(shown)
    x = normalised(features[shown], (features.shape[1],))
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
    """Of nothing, no places."""
    return shown[:0], np.zeros((0, 2))
