"""What the network says of each example, as a table that is read from disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfxfer.cache import Rows
from tfxfer.data import Examples


@dataclass(frozen=True)
class Features:
    """What the network says of each example: `features[positions]` is float32 [m, width], read from disk.

    Args:
        examples: those that were extracted, in their order; files that can't be decoded are gone where that was asked for.
        views: one for the images as they are; with `mirror` a second one for the mirror images. A feature is their mean.
        tap_widths: columns of each tap, from input to output; () where there are none.
        feature_size: columns of the network's own output: the first ones of the last tap.
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
        """The network's own output alone."""
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
        """float32 [at most size, columns] after each other, of all examples or of `positions`: for sums over more than fits into memory."""
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
