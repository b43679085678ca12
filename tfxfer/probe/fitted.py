"""A head that was fitted, and the calibration that all heads share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from tfxfer.heads import EPSILON, Standardisation, TapNormalization

BLOCK = 1024  # rows that are in memory at once
ABSENT = -40.0  # calibrated logit of a class without examples; the others' mean is 0, so its probability stays below e^-40


class Array(Protocol):
    """What heads are fitted on: `features[positions]` is float32 [m, F], be it a NumPy array or rows on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, positions: Any, /) -> Any: ...


def one_thread(function: Callable) -> Callable:
    """Run with one BLAS thread: the same bits whatever the number of cores, and no threads that spin on a busy machine."""
    return threadpool_limits.wrap(limits=1, user_api="blas")(function)


def normalised(x: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Each tap of each row at length one, float32; NumPy's side of `TapNormalization`."""
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
    """The last `width` columns of `features[rows]`, some rows at a time, with the place of each block in `rows`."""
    for start in range(0, len(rows), size):
        yield (
            slice(start, start + size),
            np.asarray(features[rows[start : start + size]], np.float32)[:, -width:],
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head that is affine in normalised features: z @ kernel + bias, over a temperature, with z = (normalise(x) - mean) / scale.

    name: "gaussian", "linear", "ridge" or "prototype".
    taps, widths: how many of the last taps it reads, and their numbers of columns, d = sum(widths).
    normalise: "l2" (each tap to length one) or "standardise" (columns by mean and scale alone).
    mean, scale: float32 [d]. kernel: float32 [d, C]. bias: float32 [C]; kernel and bias have mean zero over the classes.
    temperature: what logits are divided by so that their softmax is calibrated.
    strength: what the squared weights were penalised by; None for a head without such a setting.
    """

    name: str
    taps: int
    widths: tuple[int, ...]
    normalise: str
    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    strength: float | None = None

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return len(self.bias)

    def logits(self, features: Array) -> np.ndarray:
        """Calibrated logits, float32 [n, C], of features that have at least these taps as their last columns."""
        out = [
            self._block(x)
            for _, x in blocks(features, np.arange(features.shape[0]), sum(self.widths))
        ]
        return np.concatenate(out) if out else np.zeros((0, len(self.bias)), np.float32)

    @one_thread
    def _block(self, x: np.ndarray) -> np.ndarray:
        x = normalised(x, self.widths) if self.normalise == "l2" else x
        return (((x - self.mean) / self.scale) @ self.kernel + self.bias) / np.float32(
            self.temperature
        )

    def layer(self) -> keras.Sequential:
        """The same as a Keras layer: features of the last `taps` taps, float32 [B, d], to calibrated logits [B, C]."""
        dense = keras.layers.Dense(len(self.bias), name="logits")
        standardise = Standardisation(name="standardisation")
        first = (
            [TapNormalization(self.widths, name="tap_normalization")]
            if self.normalise == "l2"
            else []
        )
        model = keras.Sequential(
            [keras.Input((sum(self.widths),)), *first, standardise, dense], name=self.name
        )
        standardise.set_weights([self.mean, self.scale])
        dense.set_weights(
            [self.kernel / np.float32(self.temperature), self.bias / np.float32(self.temperature)]
        )
        return model

    def cooled(self, temperature: float) -> "Fitted":
        """The same head with its logits divided by a temperature."""
        return replace(self, temperature=self.temperature * temperature)

    def expanded(self, present: np.ndarray, classes: int) -> "Fitted":
        """The same head over `classes` classes, of which it knows only `present`; the others get next to no probability."""
        kernel = np.zeros((len(self.kernel), classes), np.float32)
        bias = np.full(classes, ABSENT * self.temperature, np.float32)
        kernel[:, present], bias[present] = self.kernel, self.bias
        return replace(self, kernel=kernel, bias=bias)


def centred(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias with mean zero over the classes: the same probabilities, and the smallest numbers that give them."""
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    return (kernel - kernel.mean(1, keepdims=True)).astype(np.float32), (bias - bias.mean()).astype(
        np.float32
    )


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T for which softmax(logits / T) has the smallest log loss: bisection on u = log(1/T), 30 steps (METHODS: calibration).

    The log loss is convex in exp(u), with the derivative mean(sum z softmax(e^u z)) - mean(z_y). One example in n + 1 counts as of unknown class, else
    logits without a single error would ask for T = 0.

    Args:
        logits: [n, C], of examples that the head was not fitted on.
        labels: int [n].
    """
    z = np.asarray(logits, np.float64)
    if not len(z):
        return 1.0
    z = z - z.mean(1, keepdims=True)
    unit = float(np.sqrt(np.mean(z * z)))
    if unit == 0.0:
        return 1.0
    z /= unit
    # z has mean zero over the classes, so the unknown example's share of the second term is 0.
    target = z[np.arange(len(z)), labels].mean() * len(z) / (len(z) + 1)
    low, high = -12.0, 12.0
    for _ in range(30):
        middle = (low + high) / 2
        if np.mean(np.sum(z * softmax(np.exp(middle) * z, 1), 1)) > target:
            high = middle
        else:
            low = middle
    return unit / float(np.exp((low + high) / 2))


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p of the true class."""
    return float(
        -log_softmax(np.asarray(logits, np.float64), 1)[np.arange(len(labels)), labels].mean()
    )
