"""Several fitted heads as one: the mean of their calibrated log-probabilities."""

from dataclasses import dataclass

import keras
import numpy as np

from tfxfer.heads.fitted import Array, Fitted
from tfxfer.heads.layers import TakeColumns


@dataclass(frozen=True, eq=False)
class Averaged:
    """The mean of the calibrated logits of several heads.

    In each row, log-probabilities are the logits minus one constant, and softmax ignores such a
    constant. So the mean of the logits gives the same probabilities as the mean of the
    log-probabilities.

    members: the heads. Each reads its own number of last taps.
    """

    members: tuple[Fitted, ...]

    @property
    def name(self) -> str:
        """The names of the members, as in "gaussian_and_linear"."""
        return "_and_".join(member.name for member in self.members)

    @property
    def taps(self) -> int:
        """How many of the last taps it reads."""
        return max(member.taps for member in self.members)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of columns of each of these taps."""
        return max((member.widths for member in self.members), key=len)

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return self.members[0].classes

    def logits(self, features: Array) -> np.ndarray:
        """Return calibrated logits, float32 [n, C].

        The last columns of the features must be at least these taps.
        """
        total = sum(member.logits(features) for member in self.members)
        return np.asarray(total, np.float32) / np.float32(len(self.members))

    def layer(self) -> keras.Model:
        """Return the same head as a Keras model.

        It maps the features of the last `taps` taps, [B, d], to calibrated logits, [B, C].
        """
        features = keras.Input((sum(self.widths),), name="features")
        logits = []
        for member in self.members:
            width = sum(member.widths)
            columns = TakeColumns(-width, width, name=f"columns_of_{member.name}")
            logits.append(member.layer()(columns(features)))
        mean = keras.layers.Average(name="mean")(logits)
        return keras.Model(features, mean, name=self.name)

    def cooled(self, temperature: float | np.ndarray) -> "Averaged":
        """Return the same head with its logits divided by a temperature."""
        return Averaged(tuple(member.cooled(temperature) for member in self.members))

    def expanded(self, present: np.ndarray, classes: int) -> "Averaged":
        """Return the same head over `classes` classes.

        It knows only the classes in `present`; the others get a probability of almost zero.
        """
        return Averaged(tuple(member.expanded(present, classes) for member in self.members))
