"""A head that was fitted, and the calibration that all heads share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np

from tfxfer.heads.layers import EPSILON, Standardisation, TapNormalization
from tfxfer.heads.threads import one_thread

BLOCK = 1024  # rows that are in memory at once
# Calibrated logit of a class without examples. The mean of the others is 0, so the probability of
# this class stays below e^-40.
ABSENT = -40.0


class Array(Protocol):
    """Features that heads are fitted on, such as a NumPy array or rows on disk.

    `features[positions]` is float32 [m, F].
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, positions: Any, /) -> Any: ...


def normalise_taps(x: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Return each row with each of its taps scaled to length one, float32.

    `TapNormalization` does the same in Keras.
    """
    out = np.array(x, np.float32)
    start = 0
    for width in widths:
        tap = out[:, start : start + width]
        tap /= np.sqrt(np.einsum("ij,ij->i", tap, tap))[:, None] + np.float32(EPSILON)
        start += width
    return out


def blocks(
    features: Array, rows: np.ndarray, width: int, size: int = BLOCK
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the last `width` columns of `features[rows]`, `size` rows at a time.

    Each block comes after the slice of `rows` that it holds.
    """
    for start in range(0, len(rows), size):
        yield (
            slice(start, start + size),
            np.asarray(features[rows[start : start + size]], np.float32)[:, -width:],
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head that is affine in normalised features.

    logits = (z @ kernel + bias) / temperature, with z = (normalise(x) - mean) / scale.

    name: "gaussian", "linear", "ridge" or "prototype".
    taps, widths: how many of the last taps it reads, and their numbers of columns, d = sum(widths).
    normalise: "l2" (each tap to length one) or "standardise" (columns by mean and scale alone).
    mean, scale: float32 [d].
    kernel: float32 [d, C].
    bias: float32 [C]. Kernel and bias have mean zero over the classes.
    temperature: the logits are divided by it, so that their probabilities are calibrated; a number
        or float64 [C].
    unit: float32 [C], the size of each output; 1 by default. In the Keras layer, weights are in
        this unit, so that training changes outputs of any size at the same rate.
    strength: strength of the penalty on squared weights; None for a head without such a setting.
    """

    name: str
    taps: int
    widths: tuple[int, ...]
    normalise: str
    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    temperature: float | np.ndarray = 1.0
    strength: float | np.ndarray | None = None
    unit: np.ndarray | None = None

    @property
    def members(self) -> tuple["Fitted", ...]:
        """The head alone, as `Averaged` has several."""
        return (self,)

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return len(self.bias)

    def logits(self, features: Array) -> np.ndarray:
        """Return calibrated logits, float32 [n, C].

        The last columns of the features must be at least these taps.
        """
        out = [
            self._block(x)
            for _, x in blocks(features, np.arange(features.shape[0]), sum(self.widths))
        ]
        return np.concatenate(out) if out else np.zeros((0, len(self.bias)), np.float32)

    @one_thread
    def _block(self, x: np.ndarray) -> np.ndarray:
        x = normalise_taps(x, self.widths) if self.normalise == "l2" else x
        outputs = ((x - self.mean) / self.scale) @ self.kernel + self.bias
        return outputs / np.asarray(self.temperature, np.float32)

    def layer(self) -> keras.Sequential:
        """Return the same head as a Keras model.

        It maps the features of the last `taps` taps, float32 [B, d], to calibrated logits [B, C].
        """
        dense = keras.layers.Dense(len(self.bias), name="logits")
        standardise = Standardisation(name="standardisation")
        first = (
            [TapNormalization(self.widths, name="tap_normalization")]
            if self.normalise == "l2"
            else []
        )
        size = np.asarray(self.temperature, np.float32)
        last = []
        if self.unit is not None:
            last = [keras.layers.Rescaling(self.unit.tolist(), name="unit")]
            size = size * self.unit
        model = keras.Sequential(
            [keras.Input((sum(self.widths),)), *first, standardise, dense, *last], name=self.name
        )
        standardise.set_weights([self.mean, self.scale])
        dense.set_weights([self.kernel / size, self.bias / size])
        return model

    def cooled(self, temperature: float | np.ndarray) -> "Fitted":
        """Return the same head with its logits divided by a temperature."""
        return replace(self, temperature=self.temperature * temperature)

    def expanded(self, present: np.ndarray, classes: int) -> "Fitted":
        """Return the same head over `classes` classes.

        It knows only the classes in `present`; the others get a probability of almost zero.
        """
        if len(present) == classes:
            return self
        kernel = np.zeros((len(self.kernel), classes), np.float32)
        temperature = self.temperature
        if isinstance(temperature, np.ndarray):
            temperature = np.ones(classes)
            temperature[present] = self.temperature
        bias = np.full(classes, ABSENT * temperature, np.float32)
        kernel[:, present], bias[present] = self.kernel, self.bias
        return replace(self, kernel=kernel, bias=bias, temperature=temperature)


def centre_classes(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias minus their means over the classes, as float32.

    The probabilities stay the same, and no smaller numbers give them.
    """
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    return (kernel - kernel.mean(1, keepdims=True)).astype(np.float32), (bias - bias.mean()).astype(
        np.float32
    )
