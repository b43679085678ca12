"""A head as a run keeps it to let it grow, and its file, statistics.npz."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.errors import RunError
from tfxfer.heads.fitted import Fitted
from tfxfer.heads.statistics import NAMES, Statistics, add, gaussian_of, ridge_of, widen
from tfxfer.heads.sums import Sums
from tfxfer.safety.arrays import read_arrays

SUMMED = ("count", "targets", "total", "products", "gram")


@dataclass(frozen=True, eq=False)
class Growable:
    """A calibrated head, as a run keeps it to let it grow.

    head: "gaussian" or "ridge".
    statistics: those of the examples that it was fitted on.
    temperature: the logits are divided by it.
    prior: whether the logarithm of the classes' shares was added to the logits.
    strength: strength of Ridge's penalty; 0 for the Gaussian.
    network: fingerprint of the network's prefix that computed the features.
    digests: the SHA-256 of each example's content, in hexadecimal.
    """

    head: str
    statistics: Statistics
    temperature: float
    prior: bool
    strength: float
    network: str
    digests: tuple[str, ...]

    def fit(self) -> Fitted:
        """Fit the head on all examples, with the temperature as it is kept."""
        statistics = self.statistics
        if self.head == "ridge":
            fitted = ridge_of(statistics, self.strength)
        else:
            fitted = gaussian_of(statistics)
        bias = fitted.bias
        if self.prior:
            present = np.flatnonzero(statistics.counts)
            shares = np.log(statistics.counts[present] / statistics.counts.sum())
            bias = bias.copy()
            bias[present] += (self.temperature * (shares - shares.mean())).astype(np.float32)
        # A class without examples keeps its logit after the division by the temperature.
        absent = statistics.counts == 0
        bias = np.where(absent, bias * np.float32(self.temperature), bias)
        return replace(fitted, temperature=self.temperature, bias=bias)

    def grown(self, statistics: Statistics, digests: Sequence[str]) -> "Growable":
        """Return the same head on these examples as well."""
        together = add(widen(self.statistics, statistics.classes), statistics)
        return replace(self, statistics=together, digests=(*self.digests, *digests))

    def save(self, path: str) -> None:
        """Write statistics.npz."""
        statistics = self.statistics
        arrays: dict[str, Any] = {}
        if statistics.sums is not None:
            arrays = {name: np.asarray(getattr(statistics.sums, name)) for name in SUMMED}
            arrays["gram"] = pack(statistics.sums.gram)
        else:
            assert statistics.features is not None and statistics.labels is not None
            arrays = {"features": statistics.features, "labels": statistics.labels}
        np.savez(
            path,
            head=self.head,
            widths=np.asarray(statistics.widths),
            classes=statistics.classes,
            temperature=self.temperature,
            prior=self.prior,
            strength=self.strength,
            network=self.network,
            digests=np.array(self.digests, "S64"),
            **arrays,
        )


def pack(matrix: np.ndarray) -> np.ndarray:
    """Return the lower triangle of a matrix as one row of numbers."""
    return np.concatenate([matrix[i, : i + 1] for i in range(len(matrix))])


def unpack(packed: np.ndarray, width: int) -> np.ndarray:
    """Return the matrix of a lower triangle; the rest of it is zeros."""
    matrix, start = np.zeros((width, width), order="F"), 0
    for i in range(width):
        matrix[i, : i + 1] = packed[start : start + i + 1]
        start += i + 1
    return matrix


def load(path: Path) -> Growable:
    """Read what `Growable.save` wrote.

    Raises:
        RunError: the file is damaged, or holds something else.
    """
    try:
        arrays = read_arrays(path)
        head, widths = str(arrays["head"]), tuple(int(width) for width in arrays["widths"])
        temperature, strength = float(arrays["temperature"]), float(arrays["strength"])
        if head not in NAMES or not widths or min(widths) < 1:
            raise ValueError(f"it has a head {head!r} on taps of {widths} columns")
        if not (0 < temperature < np.inf and 0 <= strength < np.inf):
            raise ValueError(f"its temperature is {temperature}, its strength {strength}")
        return Growable(
            head=head,
            statistics=read_statistics(arrays, widths, int(arrays["classes"])),
            temperature=temperature,
            prior=bool(arrays["prior"]),
            strength=strength,
            network=str(arrays["network"]),
            digests=tuple(arrays["digests"].astype(str).tolist()),
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error


def read_statistics(
    arrays: dict[str, np.ndarray], widths: tuple[int, ...], classes: int
) -> Statistics:
    """Return the statistics of the arrays of a file.

    Raises:
        ValueError: they don't fit together, or hold numbers that no examples give.
    """
    width = sum(widths)
    if "features" in arrays:
        features, labels = arrays["features"], arrays["labels"]
        check_numbers(features, (len(labels), width))
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or len(labels) < 2:
            raise ValueError(f"its labels are {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"a label is not one of its {classes} classes")
        return Statistics(widths, classes, features=features, labels=labels.astype(np.int64))
    shapes = {
        "targets": (classes,),
        "total": (width,),
        "products": (width, classes),
        "gram": (width * (width + 1) // 2,),
    }
    for name, shape in shapes.items():
        check_numbers(arrays[name], shape)
    targets, count = arrays["targets"], int(arrays["count"])
    whole = np.array_equal(targets, targets.round()) and targets.min() >= 0
    if not whole or targets.sum() != count or count < 2:
        raise ValueError(f"the numbers of examples of its classes are not {count} together")
    sums = Sums(
        count=count,
        targets=targets,
        total=arrays["total"],
        products=arrays["products"],
        gram=unpack(arrays["gram"], width),
    )
    return Statistics(widths, classes, sums=sums)


def check_numbers(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise a ValueError where an array has another shape or holds no finite floats."""
    if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"an array is {array.dtype} {array.shape}, expected numbers {shape}")
