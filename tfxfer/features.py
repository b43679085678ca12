"""Every example once through the frozen network: features on disk, found again by content.

Examples are taken in chunks of about 1,024, in list order, and every batch has the same shape (the last one is filled up with black), so that the
same example gives the same bytes whether it was computed in one go, or after a kill in what was left. A chunk is one shard of the cache. Images are
decoded by tf.data while the network works.
"""

import hashlib
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfxfer import preprocess
from tfxfer.augment import augmented as augmented_pixels
from tfxfer.augment import seed_of
from tfxfer.backbone import Prefix
from tfxfer.cache import Cache, Rows
from tfxfer.data import Examples
from tfxfer.engines import ENGINES, Engine
from tfxfer.errors import ImageError
from tfxfer.workers import Strategy, barrier, place

CHUNK = 1024  # images a shard: a kill costs at most these
AHEAD = 2  # batches that wait for the engine, which takes one at a time
LINE_EVERY = 15.0  # seconds between lines of progress where there is no terminal
NAMED = 20  # files that a message names
View = Callable[[np.ndarray, Sequence[str]], np.ndarray]  # a batch of pixels, and the digests of its images, to pixels


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
        return replace(self, examples=self.examples.take(positions), views=tuple(view.take(positions) for view in self.views))

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
) -> Features:
    """Run every example that the cache lacks through `prefix`, and return all features.

    Args:
        engine, precision: how the network is computed; features of different engines are never mixed.
        batch_size: images at a time. It changes speed and memory, not the features.
        mirror: a feature is the mean over the image and its mirror image, which costs twice the time; each is cached for itself.
        augment, number: instead of the images as they are their augmented view of that number (see `tfxfer.augment`).
        dtype: of the rows on disk; what is read is float32.
        skip_bad_images: leave out files that can't be decoded, and note them, instead of stopping.
        progress: images per second and time left, on stderr.

    Raises:
        ImageError: files that can't be decoded or read, by name.
        CacheError: the cache can't be written.
        EngineError, MissingExtraError: the engine can't run here.
    """
    if engine not in ENGINES:
        raise ValueError(f"Expected engine to be one of {', '.join(ENGINES)}. Received: engine={engine!r}")
    if precision not in ("float32", "bf16"):
        raise ValueError(f"Expected precision to be float32 or bf16. Received: precision={precision!r}")
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")
    views: list[View] = [partial(augmented, kinds=augment, number=number)] if augment else [as_it_is]
    views += [mirrored] if mirror else []
    names = [[*augment, number] if augment else 0, 1]
    keys = [key_of(prefix, engine, precision, name, dtype) for name in names[: len(views)]]
    pixels = Pixels(examples, prefix.image_size, prefix.value_range, batch_size)
    good = fill(pixels, keys, views, lambda: ENGINES[engine](prefix, precision), prefix.width, cache, skip_bad_images, progress, dtype)
    return Features(good, tuple(cache.rows(key, good.digests) for key in keys), prefix.tap_widths, prefix.feature_size)


@dataclass(frozen=True)
class Extractor:
    """`extract` with what a whole run has in common: `extractor(examples, prefix, ...)`. Several workers share the work, where they share the cache."""

    cache: Cache
    engine: Literal["tensorflow", "openvino"] = "tensorflow"
    precision: Literal["float32", "bf16"] = "float32"
    batch_size: int = 32
    strategy: Strategy = field(default_factory=tf.distribute.get_strategy)

    def __call__(self, examples: Examples, prefix: Prefix, **options: Any) -> Features:
        """See `extract`."""
        house: dict[str, Any] = {"cache": self.cache, "engine": self.engine, "precision": self.precision, "batch_size": self.batch_size}
        index, count = place(self.strategy)
        if count > 1:
            if len(mine := np.arange(len(examples))[index::count]):
                extract(examples.take(mine), prefix, **house, **options)
            barrier(self.strategy)
        return extract(examples, prefix, **house, **options)  # finds the others' rows in a shared cache, and computes them where it isn't shared


def raw_pixels(examples: Examples, *, cache: Cache, size: int = 32, skip_bad_images: bool = False, progress: bool = False) -> Features:
    """The images themselves, made small, as features for the baseline: float32 [n, size * size * 3] in [0, 1], cached like any other."""
    pixels = Pixels(examples, (size, size), (0.0, 1.0), 32)
    key = {"kind": "pixels", "pixels": preprocess.fingerprint((size, size), (0.0, 1.0))}
    good = fill(pixels, [key], [as_it_is], lambda: lambda batch: batch.reshape(len(batch), -1), size * size * 3, cache, skip_bad_images, progress)
    return Features(good, (cache.rows(key, good.digests),), (), size * size * 3)


def key_of(prefix: Prefix, engine: str, precision: str, view: int | list, dtype: str = "float32") -> dict[str, Any]:
    """Everything that a feature depends on, but for the image. The batch size is not in it: it changes no bit of a feature."""
    pixels = preprocess.fingerprint(prefix.image_size, prefix.value_range)
    taps = {"taps": list(prefix.tap_widths), "pooling": "mean, max" if prefix.tap_widths else "none"}
    return {
        "kind": "features",
        "backbone": prefix.fingerprint,
        "pixels": pixels,
        **taps,
        "engine": engine,
        "precision": precision,
        "view": view,
        "dtype": dtype,
    }


def as_it_is(batch: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """The images themselves."""
    return batch


def mirrored(batch: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """Left and right exchanged."""
    return batch[:, :, ::-1]


def augmented(batch: np.ndarray, digests: Sequence[str], *, kinds: tuple[str, ...], number: int) -> np.ndarray:
    """View `number` of each image; the rows that fill up the last batch stay as they are."""
    seeds = tf.constant([seed_of(digest, number) for digest in digests])
    return np.concatenate([augmented_pixels(tf.constant(batch[: len(digests)]), seeds, kinds).numpy(), batch[len(digests) :]])


# --- filling the cache ---


def fill(
    pixels: "Pixels",
    keys: Sequence[dict[str, Any]],
    views: Sequence[View],
    start: Callable[[], Engine],
    width: int,
    cache: Cache,
    skip_bad_images: bool,
    progress: bool,
    dtype: str = "float32",
) -> Examples:
    """Compute what the cache lacks under each of `keys`, each of another view of the images; returns the examples without bad ones."""
    examples = pixels.examples
    lacking = [distinct(examples.digests, cache.missing(key, examples.digests)) for key in keys]
    todo = sorted(set().union(*lacking))
    if not todo:
        return examples
    cache.sweep()
    cache.require(sum(map(len, lacking)) * width * np.dtype(dtype).itemsize)
    engine = start()
    per_shard = -(-CHUNK // pixels.batch_size) * pixels.batch_size
    held: list[tuple[list[int], list[np.ndarray]]] = [([], []) for _ in keys]

    def keep(at_least: int) -> None:
        for key, (positions, parts) in zip(keys, held, strict=True):
            if len(positions) >= at_least:
                cache.append(key, [examples.digests[i] for i in positions], np.concatenate(parts) if parts else np.empty((0, width), dtype))
                positions.clear()
                parts.clear()

    def done(positions: list[int], results: list[tuple[int, list[int], Future[np.ndarray]]]) -> None:
        for number, rows, result in results:
            held[number][0].extend(positions[i] for i in rows)
            held[number][1].append(result.result()[rows].astype(dtype, copy=False))
        keep(per_shard)
        shown.update(len(positions))

    bad: dict[int, str] = {}
    wanted = list(map(set, lacking))
    under_way: deque = deque()
    with closing(Progress(len(todo), progress)) as shown, ThreadPoolExecutor(1) as pool:
        for positions, batch in pixels.batches(todo, bad if skip_bad_images else None):
            results = []
            for number, view in enumerate(views):
                if rows := [i for i, position in enumerate(positions) if position in wanted[number]]:
                    results.append((number, rows, pool.submit(engine, view(batch, [examples.digests[i] for i in positions]))))
            under_way.append((positions, results))
            if len(under_way) > AHEAD:
                done(*under_way.popleft())
        while under_way:
            done(*under_way.popleft())
        keep(1)
    return without(examples, bad)


def distinct(digests: Sequence[str], positions: Sequence[int]) -> list[int]:
    """The first position of each content."""
    return list({digests[i]: i for i in reversed(positions)}.values())[::-1]


def without(examples: Examples, bad: dict[int, str]) -> Examples:
    """The examples without those contents that can't be decoded, with a note that lists their files."""
    if not bad:
        return examples
    contents = {examples.digests[i]: reason for i, reason in bad.items()}
    left_out = [i for i, digest in enumerate(examples.digests) if digest in contents]
    if len(left_out) == len(examples):
        raise ImageError(f"none of the {len(examples)} image files can be decoded: {described(examples, bad)}")
    kept = examples.take([i for i, digest in enumerate(examples.digests) if digest not in contents])
    listed = "\n".join(f"  {examples.files[i]}: {contents[examples.digests[i]]}" for i in left_out)
    return replace(kept, notes=(*examples.notes, f"left out {len(left_out)} files that can't be decoded:\n{listed}"))


def described(examples: Examples, bad: dict[int, str]) -> str:
    named = "; ".join(f"{examples.files[i]} ({reason})" for i, reason in list(bad.items())[:NAMED])
    return named + (f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else "")


class Pixels:
    """The examples' pixels, decoded by tf.data ahead of whoever asks for them."""

    def __init__(self, examples: Examples, image_size: tuple[int, int], value_range: tuple[float, float], batch_size: int):
        self.examples, self.batch_size = examples, batch_size
        self.decode = tf.function(lambda encoded: preprocess.pixels(encoded, image_size, value_range), input_signature=[tf.TensorSpec((), tf.string)])

    def read(self, position: int) -> bytes:
        """The file's bytes; ValueError where they are no longer those that the digest was taken of: nothing may be cached under another name."""
        encoded = self.examples.read(int(position))
        if hashlib.sha256(encoded).hexdigest() != self.examples.digests[position]:
            raise ValueError("it was changed after it was listed; run again")
        return encoded

    def batches(self, todo: Sequence[int], bad: dict[int, str] | None) -> Iterator[tuple[list[int], np.ndarray]]:
        """(positions, float32 [batch_size, H, W, 3]) in order, the last batch filled up with zeros.

        Files that can't be decoded go into `bad` with the reason, and the rest moves up; where `bad` is None, they raise an ImageError.
        """
        todo = list(todo)
        while todo:
            done = 0
            try:
                for batch in self.dataset(todo).batch(self.batch_size).prefetch(2):
                    pixels = batch.numpy()
                    positions = todo[done : done + self.batch_size]
                    if len(pixels) < self.batch_size:
                        pixels = np.concatenate([pixels, np.zeros((self.batch_size - len(pixels), *pixels.shape[1:]), np.float32)])
                    yield positions, pixels
                    done += len(positions)
            except tf.errors.OpError:
                found = self._undecodable(todo[done : done + self.batch_size])
                if not found:
                    raise
                if bad is None:
                    raise ImageError(
                        f"{len(found)} image files can't be decoded: {described(self.examples, found)}. "
                        "Remove or mend them, or leave them out with --skip-bad-images."
                    ) from None
                bad |= found
                todo = [i for i in todo[done:] if i not in found]
            else:
                return

    def dataset(self, todo: Sequence[int] | np.ndarray) -> tf.data.Dataset:
        """The images one by one, float32 [H, W, 3]."""

        def load(position: tf.Tensor) -> tf.Tensor:
            encoded = tf.numpy_function(self.read, [position], tf.string, stateful=False)
            return self.decode(tf.ensure_shape(encoded, ()))

        found = tf.data.Dataset.from_tensor_slices(np.asarray(todo, np.int64))
        return found.map(load, num_parallel_calls=tf.data.AUTOTUNE)

    def _undecodable(self, positions: Sequence[int]) -> dict[int, str]:
        found = {}
        for position in positions:
            try:
                self.decode(self.read(position))
            except (tf.errors.OpError, OSError, ValueError) as error:
                found[position] = reason(error)
        return found


def reason(error: Exception) -> str:
    """The telling part of a decoder's message."""
    text = str(getattr(error, "message", None) or error)
    text = re.sub(r"\[\[.*?\]\]|\{\{.*?\}\}|\[Op:.*?\]", "", text, flags=re.DOTALL)  # where in which graph
    return " ".join(text.split())[:160] or type(error).__name__


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int, shown: bool):
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.lines = shown and not sys.stderr.isatty()
        self.said = self.began
        self.bar = tqdm(total=total, desc="features", unit="img", disable=not shown or self.lines, dynamic_ncols=True)

    def update(self, count: int) -> None:
        """`count` more images are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.lines and (now - self.said > LINE_EVERY or self.done == self.total):
            self.said, taken = now, now - self.began
            rate = self.done / taken
            print(f"features: {self.done} of {self.total} images, {rate:.0f} images/s, {(self.total - self.done) / rate:.0f} s left", file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
