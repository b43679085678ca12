"""Compute the features that the cache lacks, and store them in it.

Rows are stored in the order of the examples, about 1,024 in each shard.
"""

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfxfer.backbone import Prefix
from tfxfer.cache import Cache
from tfxfer.data import Examples, drop_undecodable
from tfxfer.data.decoding import Decoder, named
from tfxfer.distribute.workers import Strategy, barrier, place
from tfxfer.errors import ImageError
from tfxfer.features.computation import (
    Computation,
    compute_batches,
    decoder_for,
    of_plain,
    of_prefix,
)
from tfxfer.features.engines import Started, engine_of
from tfxfer.features.progress import Progress
from tfxfer.features.table import Features
from tfxfer.inputs import how_many
from tfxfer.process import memory

LOG = logging.getLogger(__name__)
CHUNK = 1024  # images in a shard, rounded up to whole batches; a killed run loses about one shard
MANY = 100  # from so many examples on, so much memory is free then that it pays to give it back
TIMED = 16  # examples on which speed is measured; more of a kind that is decoded in larger batches


def extract(
    examples: Examples,
    prefix: Prefix,
    *,
    cache: Cache,
    engine: Literal["tensorflow", "openvino"] = "tensorflow",
    precision: Literal["float32", "bf16"] = "float32",
    batch_size: int = 32,
    mirror: bool = False,
    augment: tuple[str, ...] = (),
    number: int = 0,
    dtype: Literal["float32", "float16"] = "float32",
    skip_bad_images: bool = False,
    progress: bool = True,
    started: Started | None = None,
) -> Features:
    """Run every example that the cache lacks through `prefix`, and return all features.

    Args:
        engine, precision: how the network is run; features of different engines are never mixed.
        batch_size: images at a time. It changes speed and memory, not the features.
        mirror: also compute mirror images; a feature is then the mean over the image and its mirror
            image. It takes twice the time, and the features of both are cached separately.
        augment, number: compute an altered copy of each example instead of the example itself:
            kinds of alteration (see `tfxfer.inputs.Kind`), and number of the copy.
        dtype: dtype of the rows on disk; they are read as float32.
        skip_bad_images: True leaves out files that can't be decoded, and lists them in
            `Examples.left_out`; False raises an error.
        progress: images per second and time left, on stderr.
        started: see `Extractor`.

    Raises:
        ImageError: some files can't be decoded or read; the message names them.
        CacheError: the cache can't be written.
        EngineError, MissingExtraError: the engine can't run here.
    """
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")
    how = of_prefix(
        prefix,
        engine,
        precision,
        mirror=mirror,
        augment=augment,
        number=number,
        dtype=dtype,
        started=started,
    )
    good = fill(
        examples,
        how,
        cache,
        batch_size=batch_size,
        skip_bad_images=skip_bad_images,
        progress=progress,
    )
    return Features(
        examples=good,
        views=tuple(cache.rows(key, good.digests) for key in how.keys),
        tap_widths=prefix.tap_widths,
        feature_size=prefix.feature_size,
    )


@dataclass(frozen=True)
class Extractor:
    """`extract` with the options that all calls of a run share.

    It is called as `extractor(examples, prefix, ...)`. Several workers divide the work among them
    if they share the cache.

    started: where engines are kept that are needed again soon (see `engine_of`).
    """

    cache: Cache
    engine: Literal["tensorflow", "openvino"] = "tensorflow"
    precision: Literal["float32", "bf16"] = "float32"
    batch_size: int = 32
    strategy: Strategy = field(default_factory=tf.distribute.get_strategy)
    started: Started | None = None

    def __call__(self, examples: Examples, prefix: Prefix, **options: Any) -> Features:
        """See `extract`."""
        shared: dict[str, Any] = {
            "cache": self.cache,
            "engine": self.engine,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "started": self.started,
        }
        index, count = place(self.strategy)
        if count > 1:
            if len(mine := np.arange(len(examples))[index::count]):
                extract(examples.take(mine), prefix, **shared, **options)
            barrier(self.strategy)
        # With a shared cache everything is there now, so this only reads. With a cache of its own,
        # a worker now computes the parts of the others.
        return extract(examples, prefix, **shared, **options)

    def seconds_each(self, examples: Examples, prefix: Prefix) -> float:
        """Measure how many seconds one example takes in the network, without its decoding.

        Raises:
            ImageError: an example can't be decoded.
        """
        most = max(TIMED, prefix.takes.TOGETHER)
        decoder = Decoder(examples, prefix.takes, most)
        positions, batch = next(iter(decoder.batches(range(min(len(examples), most)), None)))
        batch = batch[: len(positions)]
        run = engine_of(prefix, self.engine, self.precision, self.started)
        run(batch[:8])  # the first call also prepares the network
        began = time.perf_counter()
        run(batch)
        return (time.perf_counter() - began) / len(batch)

    def need(self, examples: Examples, prefix: Prefix, **options: Any) -> int:
        """Bytes that `extractor(examples, prefix, ...)` would add to the cache."""
        how = of_prefix(prefix, self.engine, self.precision, **options)
        return (
            sum(
                len(distinct(examples.digests, self.cache.missing(key, examples.digests)))
                for key in how.keys
            )
            * how.row_size
        )


def plain_values(
    examples: Examples,
    *,
    cache: Cache,
    skip_bad_images: bool = False,
    progress: bool = False,
) -> Features | None:
    """The examples themselves, made small, as features for the baseline; cached like others.

    For images: float32 [n, 32 * 32 * 3] in [0, 1]. There is a row for every example, so that
    the rows match the labels and the other features of the same examples. None for a kind of
    example that has no small form.

    Raises:
        ImageError: some files can't be decoded, or were deleted or changed since the examples were
            listed; the message names them.
    """
    how = of_plain(examples.kind)
    if how is None:
        return None
    good = fill(
        examples,
        how,
        cache,
        batch_size=32,
        skip_bad_images=skip_bad_images,
        progress=progress,
        what=examples.kind.VALUES,
    )
    if len(good) < len(examples):
        gone = {file: why for file, why in good.left_out.items() if file not in examples.left_out}
        raise ImageError(
            f"{len(gone)} {examples.kind.MANY} can't be read any more: {named(gone)}. "
            "They could be read earlier in this run. "
            "Put them back, or run again without them."
        )
    return Features(
        examples=good,
        views=(cache.rows(how.keys[0], good.digests),),
        tap_widths=(),
        feature_size=how.width,
    )


def fill(
    examples: Examples,
    how: Computation,
    cache: Cache,
    batch_size: int,
    skip_bad_images: bool,
    progress: bool,
    what: str = "features",
) -> Examples:
    """Compute what the cache lacks, and return the examples that can be decoded."""
    wanted = prepare_missing(how, cache, examples)
    todo = len(set().union(*wanted))
    if not todo:
        return examples
    count = len(set(examples.digests))
    if progress and todo < count:
        # The progress counts only the images that are still to be computed.
        kept = f"{count - todo:,} of {count:,} {examples.kind.MANY} are already in the cache"
        print(f"{what}: {kept} ({cache.folder})", file=sys.stderr)
    LOG.info("Computing %s of %s", what, how_many(todo, examples.kind))
    per_shard = -(-CHUNK // batch_size) * batch_size
    held: list[tuple[list[int], list[np.ndarray]]] = [([], []) for _ in how.keys]
    bad: dict[int, str] = {}
    decoder = decoder_for(how, examples, batch_size)

    def keep(at_least: int) -> None:
        for key, (positions, parts) in zip(how.keys, held, strict=True):
            if len(positions) >= at_least:
                cache.append(key, [examples.digests[i] for i in positions], np.concatenate(parts))
                positions.clear()
                parts.clear()

    with closing(Progress(todo, progress, what, unit=examples.kind.MANY)) as shown:
        for done, views in compute_batches(
            how, decoder, wanted, bad=bad if skip_bad_images else None
        ):
            for number, positions, rows in views:
                held[number][0].extend(positions)
                held[number][1].append(rows)
            keep(per_shard)
            shown.update(done)
        keep(1)
    if todo >= MANY:
        memory.give_back()
    return leave_out(examples, bad)


def prepare_missing(how: Computation, cache: Cache, examples: Examples) -> list[list[int]]:
    """Prepare the cache for the rows that it lacks, and return their positions for each view.

    If rows are missing, leftover files are removed from the cache, and the disk must have room for
    the rows. Equal files count once.

    Raises:
        CacheError: the rows would not fit on the disk.
    """
    missing = [distinct(examples.digests, cache.missing(key, examples.digests)) for key in how.keys]
    if any(missing):
        cache.sweep()
        cache.require(sum(map(len, missing)) * how.row_size)
    return missing


def distinct(digests: Sequence[str], positions: Sequence[int]) -> list[int]:
    """The first position of each digest."""
    return list({digests[i]: i for i in reversed(positions)}.values())[::-1]


def leave_out(examples: Examples, bad: dict[int, str]) -> Examples:
    """The examples without those that can't be decoded (see `data.drop_undecodable`)."""
    return drop_undecodable(examples, {examples.digests[i]: why for i, why in bad.items()})
