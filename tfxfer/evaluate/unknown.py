"""How far an example is from every class: the relative Mahalanobis distance (Ren 2021).

It is computed on the network's own output.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from tfxfer.data.folds import deal
from tfxfer.heads.blas import add_products, factorise
from tfxfer.heads.fitted import normalise_taps
from tfxfer.heads.threads import one_thread

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Unknown:
    """The squared distance to the nearest class minus the one to all data.

    It is large where an example is of no class. Both distances share the scatter within classes and
    its shrinkage, A = R'R + t I. The distance to all data also has the scatter between classes, B,
    whose rank is below the number of classes C. So x A^-1 x' cancels out in the difference, and the
    rest needs C numbers for each example: z = (x - mean) A^-1 U with B = U U'.

        (x - m_k) A^-1 (x - m_k)' - (x - mean) (A + B)^-1 (x - mean)'
            = z (I + U' A^-1 U)^-1 z' - slopes_k z_k + offsets_k

    mean: float32 [d].
    project: float32 [d, C], A^-1 U.
    quadratic: float32 [C, C].
    slopes, offsets: float32 [C].
    """

    mean: np.ndarray
    project: np.ndarray
    quadratic: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return float32 [n] for features [n, d], which are scaled to length one first."""
        z = (normalise_taps(x, (len(self.mean),)) - self.mean) @ self.project
        return np.einsum("nc,cd,nd->n", z, self.quadratic, z, optimize=True) + np.min(
            self.offsets - self.slopes * z, 1
        )


@one_thread
def fit_unknown(x: np.ndarray, labels: np.ndarray) -> Unknown:
    """Fit on features [n, d] and labels int [n].

    The features are scaled to length one first. Classes without an example are ignored.
    """
    x = normalise_taps(x, (x.shape[1],))
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([x[places == i].mean(0, dtype=np.float64) for i in range(len(counts))])
    mean = x.mean(0, dtype=np.float64)
    scatter = np.zeros((x.shape[1],) * 2, np.float32, order="F")
    add_products(scatter, x - means.astype(np.float32)[places])
    # The shrinkage is explained in docs/methods.md, "Gaussian". Where all examples are equal to
    # their class means, every shrinkage gives the same order.
    scatter.flat[:: len(mean) + 1] += np.float32(
        float(np.trace(scatter, dtype=np.float64)) / max(len(x) - 1, 1) or 1.0
    )
    between = (np.sqrt(counts)[:, None] * (means - mean)).T
    factorise(scatter)
    solved = linalg.cho_solve((scatter, True), between.astype(np.float32), check_finite=False)
    project = solved.astype(np.float64)
    gram = between.T @ project
    quadratic = np.linalg.inv(np.eye(len(counts)) + (gram + gram.T) / 2)
    width = len(mean)
    fields = (
        mean,
        project,
        width * quadratic,
        width * 2 / np.sqrt(counts),
        width * np.diag(gram) / counts,
    )
    return Unknown(*(np.asarray(each, np.float32) for each in fields))


def out_of_fold(
    x: np.ndarray, labels: np.ndarray, seed: int, units: np.ndarray | None = None
) -> np.ndarray:
    """Return the scores of all examples that can be held out, each from a fit without its fold.

    There are five folds. Examples with the same number in `units` share a fold.
    """
    folds = deal(labels, FOLDS, seed, units=units)
    return np.concatenate(
        [
            np.zeros(0, np.float32),
            *(
                fit_unknown(x[folds != i], labels[folds != i]).scores(x[folds == i])
                for i in range(folds.max() + 1)
            ),
        ]
    )
