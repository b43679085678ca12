"""The class means and the shared precision matrix of the Gaussian head."""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import lapack
from scipy.linalg.blas import ssyrk

from tfxfer.heads.closed import class_means
from tfxfer.heads.fitted import Array, blocks, normalise_taps, one_thread


@one_thread
def precision(
    features: Array, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return class means M, float32 [C, d], and the precision matrix P, float32 [d, d].

    P = d (R'R + t I)^-1, of features with each tap scaled to length one (docs/methods.md,
    "Gaussian"). Only one d x d matrix is held, and it is inverted in place. Arguments are those of
    `gaussian`.
    """
    labels, width = np.asarray(labels), sum(widths)
    rows = np.arange(len(labels))
    means, _ = class_means(features, rows, labels, classes=classes, widths=widths)
    matrix = np.zeros((width, width), np.float32, order="F")
    for where, x in blocks(features, rows, width):
        matrix = ssyrk(
            1.0,
            (normalise_taps(x, widths) - means[labels[where]]).astype(np.float32).T,
            1.0,
            matrix,
            lower=1,
            overwrite_c=1,
        )
    matrix.flat[:: width + 1] += np.float32(
        float(np.trace(matrix, dtype=np.float64)) / max(len(rows) - 1, 1) or 1.0
    )
    factor, _ = lapack.spotrf(matrix, lower=1, overwrite_a=1)
    inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    for i in range(width):  # LAPACK fills the lower half only
        inverse[i, i + 1 :] = inverse[i + 1 :, i]
    inverse *= np.float32(width)
    return np.asarray(means, np.float32), inverse
