"""The features of all examples, as a table that is read from disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfxfer.cache import Rows
from tfxfer.data import Examples


@dataclass(frozen=True)
class Features:
    """Features of all examples: `features[positions]` is float32 [m, width], read from disk.

    Args:
        examples: the examples, in the order of the rows; without files that can't be decoded, if
            these are left out.
        views: the rows of the images as they are, or of one altered copy; with `mirror` also those
            of the mirror images. A feature is the mean over the views.
        tap_widths: number of columns of each tap, from input to output; () where there are no taps.
        feature_size: number of columns of the network's own output. With taps, they are the first
            columns of the last tap.
    """

    examples: Examples
    views: tuple[Rows, ...]
    tap_widths: tuple[int, ...]
    feature_size: int

    def __len__(self) -> int:
        return len(self.views[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, columns)."""
        return self.views[0].shape

    def __getitem__(self, positions: Any) -> np.ndarray:
        first, *others = (view[positions] for view in self.views)
        for other in others:
            first += other
        return first / np.float32(len(self.views)) if others else first

    @property
    def output(self) -> "Columns":
        """The columns that hold the network's own output."""
        last = self.tap_widths[-1] if self.tap_widths else self.feature_size
        return Columns(self, self.shape[1] - last, self.feature_size)

    @property
    def one_side(self) -> "Features":
        """The features of the images as they are, without those of their mirror images."""
        return replace(self, views=self.views[:1])

    def take(self, positions: Any) -> "Features":
        """The same features, only of these examples, in this order."""
        return replace(
            self,
            examples=self.examples.take(positions),
            views=tuple(view.take(positions) for view in self.views),
        )

    def blocks(self, positions: Any = None, size: int = 1024) -> Iterator[np.ndarray]:
        """Yield the rows in blocks, for sums over more rows than fit into memory.

        Args:
            positions: of the rows; None for all.
            size: most rows in a block, which is float32 [at most size, columns].
        """
        positions = np.arange(len(self)) if positions is None else np.asarray(positions)
        for start in range(0, len(positions), size):
            yield self[positions[start : start + size]]


@dataclass(frozen=True)
class Columns:
    """Some neighbouring columns of features."""

    features: Features
    start: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, columns)."""
        return (len(self.features), self.width)

    def __getitem__(self, positions: Any) -> np.ndarray:
        return self.features[positions][..., self.start : self.start + self.width]
