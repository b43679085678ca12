"""Heads of several columns, side by side: each reads the features, and gives its own outputs."""

from dataclasses import dataclass

import keras
import numpy as np

from tfxfer.heads.averaged import Averaged
from tfxfer.heads.closed import least_squares
from tfxfer.heads.fitted import Array, Fitted
from tfxfer.heads.layers import TakeColumns
from tfxfer.heads.logistic import linear
from tfxfer.heads.several import join_outputs
from tfxfer.tasks import Task


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of features.

    positions: int64 [m], which they are.
    """

    features: Array
    positions: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, F)."""
        return (len(self.positions), *self.features.shape[1:])

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return self.features[self.positions[places]]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """The outputs of several heads, one after the other.

    heads: one for each column. Each reads its own number of last taps.
    """

    heads: tuple[Fitted | Averaged, ...]

    @property
    def name(self) -> str:
        """The names of the heads, as in "gaussian_beside_ridge"."""
        return "_beside_".join(head.name for head in self.heads)

    @property
    def taps(self) -> int:
        """How many of the last taps it reads."""
        return max(head.taps for head in self.heads)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of columns of each of these taps."""
        return max((head.widths for head in self.heads), key=len)

    @property
    def members(self) -> tuple[Fitted, ...]:
        """All heads that were fitted."""
        return tuple(member for head in self.heads for member in head.members)

    @property
    def classes(self) -> int:
        """The number of outputs, K."""
        return sum(head.classes for head in self.heads)

    def logits(self, features: Array) -> np.ndarray:
        """Return calibrated outputs, float32 [n, K]."""
        return np.concatenate([head.logits(features) for head in self.heads], 1)

    def layer(self) -> keras.Model:
        """Return the same head as a Keras model, from [B, d] to calibrated outputs [B, K]."""
        features = keras.Input((sum(self.widths),), name="features")
        outputs = []
        for i, head in enumerate(self.heads):
            width = sum(head.widths)
            own = head.layer()
            own = keras.Model(own.inputs, own.outputs[0], name=f"column_{i}_{head.name}")
            outputs.append(own(TakeColumns(-width, width, name=f"columns_{i}")(features)))
        together = keras.layers.Concatenate(name="side_by_side")(outputs)
        return keras.Model(features, together, name=self.name)

    def cooled(self, temperature: float | np.ndarray) -> "SideBySide":
        """Return the same head with its outputs divided by a temperature, a number or [K]."""
        values = np.broadcast_to(temperature, (self.classes,))
        ends = np.cumsum([head.classes for head in self.heads])[:-1]
        parts = np.split(values, ends)
        return SideBySide(
            tuple(head.cooled(part) for head, part in zip(self.heads, parts, strict=True))
        )

    def expanded(self, present: np.ndarray, classes: int) -> "SideBySide":
        """Return the same head: all outputs are there already."""
        return self


def fit_start(task: Task, features: Array, targets: np.ndarray, *, seed: int) -> Fitted:
    """Fit one head on the network's own output, from which a training starts.

    Classes get logistic regression, numbers ridge; features are scaled to length one for both, so
    that one layer holds all of them.
    """
    widths = (features.shape[1],)
    parts: list[tuple[np.ndarray, Fitted]] = []
    for part in task.parts:
        rows = np.flatnonzero(part.known(targets))
        places = np.arange(part.outputs.start, part.outputs.stop)
        own = part.own(np.nan_to_num(targets))
        if part.task.CLASSES:
            present, known = np.unique(own[rows], return_inverse=True)
            numbers = np.zeros(len(own), np.int64)
            numbers[rows] = known
            fitted = linear(
                features, numbers, len(present), widths, rows=rows, normalise="l2", seed=seed
            ).expanded(present, len(places))
        else:
            fitted = least_squares(features, own.astype(np.float64), widths, rows=rows)
        parts.append((places, fitted))
    return join_outputs(parts, sum(part.size for part in task.parts))
