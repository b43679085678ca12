"""How far an example is from every class: the relative Mahalanobis distance (Ren 2021) on the features' own output."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.linalg.blas import ssyrk

from tfxfer.probe.fitted import normalised, one_thread
from tfxfer.probe.folds import deal

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Unknown:
    """The squared distance to the nearest class minus that to all data, large where an example is of no class.

    Both share the scatter within classes and its shrinkage, A = R'R + t I; all data have the scatter between classes besides, B, whose rank is below the
    number of classes C. So x A^-1 x' falls out of the difference, and what is left needs C numbers of each example: z = (x - mean) A^-1 U with B = U U'.

        (x - m_k) A^-1 (x - m_k)' - (x - mean) (A + B)^-1 (x - mean)' = z (I + U' A^-1 U)^-1 z' - slopes_k z_k + offsets_k

    mean: float32 [d]. project: float32 [d, C], A^-1 U. quadratic: float32 [C, C]. slopes, offsets: float32 [C].
    """

    mean: np.ndarray
    project: np.ndarray
    quadratic: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """float32 [n] of features [n, d], which are brought to length one."""
        z = (normalised(x, (len(self.mean),)) - self.mean) @ self.project
        return np.einsum("nc,cd,nd->n", z, self.quadratic, z, optimize=True) + np.min(
            self.offsets - self.slopes * z, 1
        )


@one_thread
def unknown(x: np.ndarray, labels: np.ndarray) -> Unknown:
    """Fit on features [n, d], brought to length one, and labels int [n]; classes without an example play no part."""
    x = normalised(x, (x.shape[1],))
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), x.shape[1]), np.float64)
    np.add.at(means, places, x)
    means /= counts[:, None]
    mean = x.mean(0, dtype=np.float64)
    scatter = ssyrk(1.0, (x - means[places].astype(np.float32)).T, lower=1)
    # METHODS: Gaussian; where all examples lie on their means every shrinkage gives the same order.
    scatter.flat[:: len(mean) + 1] += np.float32(
        float(np.trace(scatter, dtype=np.float64)) / max(len(x) - 1, 1) or 1.0
    )
    between = (np.sqrt(counts)[:, None] * (means - mean)).T
    factor = linalg.cho_factor(scatter, lower=True, overwrite_a=True, check_finite=False)
    project = linalg.cho_solve(factor, between.astype(np.float32), check_finite=False).astype(
        np.float64
    )
    gram = between.T @ project
    quadratic = np.linalg.inv(np.eye(len(counts)) + (gram + gram.T) / 2)
    width = len(mean)
    found = (
        mean,
        project,
        width * quadratic,
        width * 2 / np.sqrt(counts),
        width * np.diag(gram) / counts,
    )
    return Unknown(*(np.asarray(each, np.float32) for each in found))


def out_of_fold(
    x: np.ndarray, labels: np.ndarray, seed: int, units: np.ndarray | None = None
) -> np.ndarray:
    """Scores of all examples that can be held out, each by a fit without its fold of five; examples of the same `units` number share a fold."""
    folds = deal(labels, FOLDS, seed, units)
    return np.concatenate(
        [
            np.zeros(0, np.float32),
            *(
                unknown(x[folds != i], labels[folds != i]).scores(x[folds == i])
                for i in range(folds.max() + 1)
            ),
        ]
    )
