"""What is computed for each image, and the cache key of each result.

The computation is the same on this machine and on a cluster. Every batch of a run has the same
shape (the last one is filled up with zeros), so that features can't depend on how many examples a
run still has to compute.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.backbone import Prefix
from tfxfer.data import Examples
from tfxfer.data.decoding import Alteration, Decoder
from tfxfer.features.engines import ENGINES, Engine, Started, engine_of
from tfxfer.inputs import Input, Kind, find, seed_of

AHEAD = 2  # decoded batches that may wait for the engine
# From a batch of examples, and their digests, to a batch of examples.
View = Callable[[np.ndarray, Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Computation:
    """A computation of one row of numbers for each view of an image.

    Args:
        keys: cache key of the rows of each view.
        views: functions that make each view from a batch of pixels.
        start: a function that prepares the engine, which turns a batch, float32 [B, *takes.shape],
            into rows, float32 [B, width].
        takes: what one example of the batch looks like.
        alter: how contents are altered before they are decoded; None where they are not.
        dtype: dtype of the rows on disk.
    """

    keys: tuple[dict[str, Any], ...]
    views: tuple[View, ...]
    start: Callable[[], Engine]
    width: int
    takes: Input
    alter: Alteration | None = None
    dtype: str = "float32"

    @property
    def row_size(self) -> int:
        """Bytes of a row on disk."""
        return self.width * np.dtype(self.dtype).itemsize


def of_prefix(
    prefix: Prefix,
    engine: str,
    precision: str,
    *,
    mirror: bool = False,
    augment: tuple[str, ...] = (),
    number: int = 0,
    dtype: str = "float32",
    started: Started | None = None,
) -> Computation:
    """The computation of features, of the images as they are or of one of their augmented views.

    Args:
        mirror: also compute the features of the mirror images.
        augment: names of augmentations (see `tfxfer.inputs.Kind`); () for the examples as they
            are.
        number: number of the augmented view.
        started: see `Extractor`.

    Raises:
        ValueError: the engine or the precision is unknown.
    """
    if engine not in ENGINES:
        raise ValueError(
            f"Expected engine to be one of {', '.join(ENGINES)}. Received: engine={engine!r}"
        )
    if precision not in ("float32", "bf16"):
        raise ValueError(
            f"Expected precision to be float32 or bf16. Received: precision={precision!r}"
        )
    kind = find(prefix.takes.KIND)
    alter, views = None, list[View]([as_it_is])
    first: int | list = [*augment, number] if augment else 0
    if augment and kind.ALTERS_CONTENTS:
        alter = Alteration(augment, number)
        first = [*augment, number, kind.ALTERATION]
    elif augment:
        views = [partial(augment_batch, kind=kind, names=augment, number=number)]
    views += [partial(mirror_batch, kind=kind)] if mirror else []
    view_names = [first, 1]
    keys = [
        key_of(prefix, engine, precision, view=name, dtype=dtype)
        for name in view_names[: len(views)]
    ]
    start = partial(engine_of, prefix, engine, precision, started)
    return Computation(
        keys=tuple(keys),
        views=tuple(views),
        start=start,
        width=prefix.width,
        takes=prefix.takes,
        alter=alter,
        dtype=dtype,
    )


def of_plain(kind: Kind) -> Computation | None:
    """Return the computation of small copies of the examples, for the baseline.

    For images: float32 [32 * 32 * 3] in [0, 1]. None for a kind that has none.
    """
    takes = kind.plain()
    if takes is None:
        return None
    key = {"kind": "pixels", "pixels": takes.fingerprint()}
    return Computation(
        keys=(key,),
        views=(as_it_is,),
        start=lambda: flatten_maps,
        width=math.prod(takes.shape),
        takes=takes,
    )


def key_of(
    prefix: Prefix, engine: str, precision: str, view: int | list, dtype: str = "float32"
) -> dict[str, Any]:
    """The cache key of features: everything that they depend on, except the image.

    The batch size is not part of it: tests show that no bit of a feature depends on it.
    """
    taps = {
        "taps": list(prefix.tap_widths),
        "pooling": "mean, max" if prefix.tap_widths else "none",
    }
    return {
        "kind": "features",
        "backbone": prefix.fingerprint,
        "pixels": prefix.takes.fingerprint(),
        **taps,
        "engine": engine,
        "precision": precision,
        "view": view,
        "dtype": dtype,
    }


def as_it_is(batch: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """The images themselves."""
    return batch


def mirror_batch(batch: np.ndarray, digests: Sequence[str], *, kind: Kind) -> np.ndarray:
    """The mirror images."""
    return kind.mirror(batch)


def augment_batch(
    batch: np.ndarray, digests: Sequence[str], *, kind: Kind, names: tuple[str, ...], number: int
) -> np.ndarray:
    """View `number` of each example; those that fill up the last batch stay as they are."""
    seeds = tf.constant([seed_of(digest, number) for digest in digests])
    return np.concatenate(
        [
            kind.augment(tf.constant(batch[: len(digests)]), seeds, names).numpy(),
            batch[len(digests) :],
        ]
    )


def flatten_maps(batch: np.ndarray) -> np.ndarray:
    """The pixels themselves, one row for each image."""
    return batch.reshape(len(batch), -1)


def decoder_for(how: Computation, examples: Examples, batch_size: int) -> Decoder:
    """Return what decodes examples for a computation.

    Its batches are larger than asked for where decoding more examples at once pays.
    """
    return Decoder(examples, how.takes, max(batch_size, how.takes.TOGETHER), how.alter)


def compute_batches(
    how: Computation, decoder: Decoder, wanted: Sequence[Sequence[int]], bad: dict[int, str] | None
) -> Iterator[tuple[int, list[tuple[int, list[int], np.ndarray]]]]:
    """Compute rows batch by batch; the next examples are decoded while the engine works.

    Args:
        wanted: for each view, the positions whose rows are computed.
        bad: is filled with the files that can't be decoded: position -> reason.

    Yields:
        (number of examples, [(number of the view, positions, rows), ...]).

    Raises:
        ImageError: a file can't be decoded and `bad` is None.
    """
    engine, missing = how.start(), list(map(set, wanted))
    under_way: deque = deque()

    def finished() -> tuple[int, list[tuple[int, list[int], np.ndarray]]]:
        positions, results = under_way.popleft()
        # What is too large for float16 becomes infinite. `tuning.activations` looks for that.
        with np.errstate(over="ignore"):
            return len(positions), [
                (
                    number,
                    [positions[i] for i in rows],
                    result.result()[rows].astype(how.dtype, copy=False),
                )
                for number, rows, result in results
            ]

    with ThreadPoolExecutor(1) as pool:
        for positions, batch in decoder.batches(sorted(set().union(*missing)), bad):
            digests, results = [decoder.examples.digests[i] for i in positions], []
            for number, view in enumerate(how.views):
                if rows := [
                    i for i, position in enumerate(positions) if position in missing[number]
                ]:
                    results.append((number, rows, pool.submit(engine, view(batch, digests))))
            under_way.append((positions, results))
            if len(under_way) > AHEAD:
                yield finished()
        while under_way:
            yield finished()
