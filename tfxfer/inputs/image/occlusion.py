"""Find the parts of a picture that the answer depends on.

They are those that lower its probability most when they are covered (Zeiler 2014).
"""

from collections.abc import Callable

import numpy as np

GRID = 7  # places along each side
COVER = 2  # places along each side that the patch covers


def occlusion(
    answers: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, column: int
) -> np.ndarray:
    """How much the probability of a class falls, float [GRID, GRID], at least 0.

    Args:
        answers: pixels [n, H, W, 3] to probabilities [n, C].
        pixels: one picture, [H, W, 3].
        column: the class.
    """
    height, width, _ = pixels.shape
    rows, columns = (
        np.linspace(0, height, GRID + 1).astype(int),
        np.linspace(0, width, GRID + 1).astype(int),
    )
    starts = range(GRID - COVER + 1)
    covered = np.repeat(pixels[None], 1 + len(starts) ** 2, 0)
    for n, (i, j) in enumerate(((i, j) for i in starts for j in starts), 1):
        covered[n, rows[i] : rows[i + COVER], columns[j] : columns[j + COVER]] = pixels.mean((0, 1))
    probabilities = answers(covered)[:, column]
    drops, times = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for n, (i, j) in enumerate(((i, j) for i in starts for j in starts), 1):
        drops[i : i + COVER, j : j + COVER] += max(0.0, float(probabilities[0] - probabilities[n]))
        times[i : i + COVER, j : j + COVER] += 1
    return drops / times
