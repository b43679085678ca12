"""Several fitted heads as one: the mean of their calibrated log-probabilities."""

from dataclasses import dataclass

import keras
import numpy as np

from tfxfer.heads import TakeColumns
from tfxfer.probe.fitted import Array, Fitted


@dataclass(frozen=True, eq=False)
class Averaged:
    """The mean of the calibrated logits of several heads.

    A row of log-probabilities is a row of logits less one number, which no softmax sees. So the
    mean of the logits has the probabilities of the mean of the log-probabilities.

    members: each reads its own number of last taps.
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
        """TakeColumns of each of these taps."""
        return max((member.widths for member in self.members), key=len)

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return self.members[0].classes

    def logits(self, features: Array) -> np.ndarray:
        """Calibrated logits, float32 [n, C], of features with at least these taps last."""
        total = sum(member.logits(features) for member in self.members)
        return np.asarray(total, np.float32) / np.float32(len(self.members))

    def layer(self) -> keras.Model:
        """The same as a Keras layer: features of the last `taps` taps [B, d] to logits [B, C]."""
        features = keras.Input((sum(self.widths),), name="features")
        logits = []
        for member in self.members:
            width = sum(member.widths)
            columns = TakeColumns(-width, width, name=f"columns_of_{member.name}")
            logits.append(member.layer()(columns(features)))
        mean = keras.layers.Average(name="mean")(logits)
        return keras.Model(features, mean, name=self.name)

    def cooled(self, temperature: float) -> "Averaged":
        """The same head with its logits divided by a temperature."""
        return Averaged(tuple(member.cooled(temperature) for member in self.members))

    def expanded(self, present: np.ndarray, classes: int) -> "Averaged":
        """The same head over `classes` classes, of which it knows only `present`."""
        return Averaged(tuple(member.expanded(present, classes) for member in self.members))
