"""A part of an answer that has a task, outputs and a head of its own, such as one column."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One column of targets, float [n, J], of which not-a-number says that nobody knows it.

    task: `classify` or `regress`.
    place: its number among the columns.
    outputs: which outputs are its own.
    """

    task: Any
    place: int
    outputs: slice

    @property
    def size(self) -> int:
        """The number of its outputs."""
        return self.outputs.stop - self.outputs.start

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a target here, bool [n]."""
        return ~np.isnan(np.asarray(targets, np.float64)[:, self.place])

    def own(self, targets: np.ndarray) -> np.ndarray:
        """Return its targets, all of which must be known, as its own task takes them."""
        column = np.asarray(targets)[:, self.place]
        return column.astype(np.int32) if self.task.CLASSES else column[:, None]
