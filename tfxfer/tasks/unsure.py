"""Between which two answers a model wavers."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Unsure:
    """The two answers to each example between which the choice is closest.

    margins: float64 [n], at least 0: how far the model is from the other answer.
    why: what they are, such as "between two classes", for each example.
    first, second: the names of the answer and of the other one.
    probabilities: float64 [n, 2], those of both.
    """

    margins: np.ndarray
    why: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    probabilities: np.ndarray
