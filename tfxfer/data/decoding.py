"""Decode images into batches of one shape, and name the files that can't be decoded.

Where there are few images, threads decode them one by one, by functions that are the same for all
networks: tf.data prepares the decoder's graph anew for each pass, which takes a second. Where there
are many, tf.data takes 2 ms less for each.
"""

import hashlib
import re
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfxfer.data.examples import Examples
from tfxfer.errors import ImageError
from tfxfer.inputs import Input, find, seed_of
from tfxfer.process.cores import cores
from tfxfer.process.pipelines import as_one_operation, without_autotuning

NAMED = 20  # files that a message names
AHEAD = 2  # decoded batches that may wait to be used
FEW = 500  # up to so many examples are decoded by threads


@dataclass(frozen=True)
class Alteration:
    """How the content of an example is altered before it is decoded; see `Kind.alter`.

    names: some of `Kind.AUGMENTATIONS`.
    number: number of the altered view.
    """

    names: tuple[str, ...]
    number: int


class Decoder:
    """Decodes examples before they are asked for.

    Args:
        alter: how contents are altered; None where they are decoded as they are.
    """

    def __init__(
        self,
        examples: Examples,
        takes: Input,
        batch_size: int,
        alter: Alteration | None = None,
    ):
        self.examples, self.takes, self.batch_size = examples, takes, batch_size
        self.alter = alter
        self.decode, self.decode_many, self.decode_unless_large = decoders(takes)

    def read(self, position: int) -> bytes:
        """Read the bytes of a file, as they are.

        Raises:
            ValueError: they are no longer the bytes that the digest was computed from. Features of
                other bytes must not be cached under this digest.
        """
        encoded, digest = self.examples.read(int(position)), self.examples.digests[position]
        if hashlib.sha256(encoded).hexdigest() != digest:
            raise ValueError("it was changed after it was listed; run again")
        return encoded

    def batches(
        self, todo: Sequence[int], bad: dict[int, str] | None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield (positions, values) in order; values are float32 [batch_size, *shape].

        The last batch is filled up with zeros. Files that can't be decoded are put into `bad` with
        the reason, and the images after them move up.

        Raises:
            ImageError: a file can't be decoded and `bad` is None.
        """
        todo = list(todo)
        while todo:
            done = 0
            try:
                decoded = self.each(todo)
                while batch := list(islice(decoded, self.batch_size)):
                    positions = todo[done : done + self.batch_size]
                    values = np.zeros((self.batch_size, *self.takes.shape), np.float32)
                    np.stack(batch, out=values[: len(batch)])
                    del batch  # it would stay in memory until the next one is decoded
                    yield positions, values
                    done += len(positions)
            except (tf.errors.OpError, OSError, ValueError):
                # Of texts, those that are decoded together fail together.
                last = done + self.batch_size + self.takes.TOGETHER - 1
                reasons = self._undecodable(todo[done:last])
                if not reasons:
                    raise
                if bad is None:
                    raise ImageError(
                        f"{len(reasons)} {self.examples.kind.MANY} can't be decoded: "
                        f"{named({self.examples.files[i]: why for i, why in reasons.items()})}. "
                        "Remove or mend them, or leave them out with --skip-bad-images."
                    ) from None
                bad |= reasons
                todo = [i for i in todo[done:] if i not in reasons]
            else:
                return

    def each(self, todo: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield the examples in order, float32 [*shape]; large ones are decoded one at a time."""
        decoded = self._in_threads(todo) if len(todo) <= FEW else self._in_pipeline(todo)
        with closing(decoded):
            for position, values in zip(todo, decoded, strict=True):
                yield self._decoded_alone(int(position)) if values is None else values

    def _in_threads(self, todo: Sequence[int] | np.ndarray) -> Generator[np.ndarray | None]:
        """Yield the examples; None for one that is too large to be decoded beside others."""
        together = self.takes.TOGETHER
        groups = [
            [int(position) for position in todo[start : start + together]]
            for start in range(0, len(todo), together)
        ]
        ahead = max(AHEAD * self.batch_size // together, 2)
        waiting: deque[Future] = deque()
        pool = ThreadPoolExecutor(cores())
        try:
            for group in groups:
                waiting.append(pool.submit(self._unless_large, group))
                if len(waiting) > ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_pipeline(self, todo: Sequence[int] | np.ndarray) -> Generator[np.ndarray | None]:
        """Yield what `_in_threads` yields."""
        positions = tf.data.Dataset.from_tensor_slices(np.asarray(todo, np.int64))
        if (together := self.takes.TOGETHER) > 1:
            contents = positions.map(self._read, num_parallel_calls=tf.data.AUTOTUNE)
            many = contents.batch(together).map(self.decode_many, num_parallel_calls=2).unbatch()
            decoded = many.map(lambda one: (one, False))
        else:
            decoded = positions.map(
                lambda position: self.decode_unless_large(self._read(position)),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        batches = decoded.batch(self.batch_size).prefetch(AHEAD)
        for values, large in without_autotuning(batches).as_numpy_iterator():
            yield from (
                None if skipped else one for one, skipped in zip(values, large, strict=True)
            )

    def dataset(self, todo: Sequence[int] | np.ndarray) -> tf.data.Dataset:
        """The examples one by one, float32 [*shape]; large ones are decoded one at a time."""
        positions = tf.data.Dataset.from_tensor_slices(np.asarray(todo, np.int64))
        return without_autotuning(self.decoded(positions).map(lambda position, one: one))

    def decoded(self, positions: tf.data.Dataset) -> tf.data.Dataset:
        """Each position of a dataset with its example, float32 [*shape]."""

        def begin(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return position, *self.decode_unless_large(self._read(position))

        def complete(
            position: tf.Tensor, values: tf.Tensor, large: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            one = tf.cond(large, lambda: self.decode(self._read(position)), lambda: values)
            return position, tf.ensure_shape(one, self.takes.shape)

        return positions.map(begin, num_parallel_calls=tf.data.AUTOTUNE).map(complete)

    def _unless_large(self, positions: Sequence[int]) -> Sequence[np.ndarray | None]:
        """The examples, float32 [*shape]; None for one that is too large to be decoded here."""
        contents = [self._altered(position) for position in positions]
        if self.takes.TOGETHER > 1:
            with tf.device("/CPU:0"):
                return self.decode_many.get_concrete_function()(tf.constant(contents)).numpy()
        decoded = [decode_small(self.takes, tf.constant(one)) for one in contents]
        return [None if values is None else values.numpy() for values in decoded]

    def _read(self, position: tf.Tensor) -> tf.Tensor:
        if self.alter is None:
            encoded = tf.numpy_function(self.read, [position], tf.string, stateful=False)
            return tf.ensure_shape(encoded, ())
        # The content is altered outside of the Python function. TensorFlow called inside of it may
        # wait for ever for a thread, see https://github.com/tensorflow/tensorflow/issues/32454.
        encoded, seed = tf.numpy_function(
            self._with_seed, [position], (tf.string, tf.int32), stateful=False
        )
        content, seed = tf.ensure_shape(encoded, ()), tf.ensure_shape(seed, (2,))
        return self.examples.kind.alter(content, seed, self.alter.names)

    def _with_seed(self, position: int) -> tuple[bytes, np.ndarray]:
        """The bytes of a file, and the seed with which they are altered, int32 [2]."""
        assert self.alter is not None
        seed = seed_of(self.examples.digests[position], self.alter.number)
        return self.read(position), np.array(seed, np.int32)

    def _altered(self, position: int) -> bytes:
        """What `_read` returns, for threads that are not TensorFlow's."""
        if self.alter is None:
            return self.read(position)
        content, seed = self._with_seed(position)
        alter = traced_alter(self.examples.kind_name, self.alter.names)
        with tf.device("/CPU:0"):
            return alter(tf.constant(content), tf.constant(seed)).numpy()

    def _decoded_alone(self, position: int) -> np.ndarray:
        with tf.device("/CPU:0"):
            return self.decode(self._altered(position)).numpy()

    def _undecodable(self, positions: Sequence[int]) -> dict[int, str]:
        reasons = {}
        for position in positions:
            try:
                self._decoded_alone(position)
            except (tf.errors.OpError, OSError, ValueError) as error:
                reasons[position] = reason(error)
        return reasons


def decode_small(takes: Input, content: tf.Tensor) -> tf.Tensor | None:
    """Decode an example eagerly; None where it is so large that it must be decoded alone."""
    with tf.device("/CPU:0"):
        values, large = takes.decode_unless_large(content)
    return None if large else values


class Taking(Protocol):
    """A network, as far as examples must fit it."""

    @property
    def takes(self) -> Input: ...


def as_dataset(
    examples: Examples,
    split: str,
    network: Taking,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
) -> tf.data.Dataset:
    """Return batches of the images and labels of one split; see `Examples.dataset`."""
    indices = examples.where(split)
    values = Decoder(examples, network.takes, batch_size)
    positions = tf.data.Dataset.from_tensor_slices(indices.astype(np.int64))
    if shuffle and len(indices):
        positions = positions.shuffle(len(indices), seed, reshuffle_each_iteration=True)
    labels = tf.constant(examples.labels)
    labelled = values.decoded(positions).map(lambda i, one: (one, tf.gather(labels, i)))
    batches = without_autotuning(labelled.batch(batch_size).prefetch(2))
    batches.class_names = list(examples.classes)  # as `image_dataset_from_directory` has them
    return batches


@lru_cache
def decoders(takes: Input) -> tuple[Any, Any, Any]:
    """`Input.decode`, `decode_many` and `decode_unless_large` as traced functions.

    They are traced once in each process, because tracing takes a second, and a worker that gets
    many lists decodes all of them in the same way.
    """
    signature = [tf.TensorSpec((), tf.string)]
    return (
        # As one operation, because it is seldom needed: TensorFlow would otherwise visit all the
        # operations in it each time.
        as_one_operation(
            lambda content: takes.decode(content),
            input_signature=signature,
        ),
        tf.function(
            lambda contents: takes.decode_many(contents),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        ),
        tf.function(
            lambda content: takes.decode_unless_large(content),
            input_signature=signature,
            autograph=False,
        ),
    )


@lru_cache
def traced_alter(kind_name: str, names: tuple[str, ...]) -> Any:
    """`Kind.alter` as a traced function, which takes a tenth of the time."""
    kind = find(kind_name)
    return tf.function(
        lambda content, seed: kind.alter(content, seed, names),
        input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int32)],
        autograph=False,
    )


def reason(error: Exception) -> str:
    """The part of a decoder's message that says what is wrong."""
    text = str(getattr(error, "message", None) or error)
    # These parts say where in which graph it happened.
    text = re.sub(r"\[\[.*?\]\]|\{\{.*?\}\}|\[Op:.*?\]", "", text, flags=re.DOTALL)
    text = text.split("<stack traces unavailable>")[-1]
    text = re.sub(r"assertion failed: \[(.*)\]", r"\1", text, flags=re.DOTALL)
    return " ".join(text.split())[:160] or type(error).__name__


def named(bad: dict[str, str]) -> str:
    """List files and what is wrong with each; only the first `NAMED` of them, and how many more."""
    listed = "; ".join(f"{file} ({reason})" for file, reason in list(bad.items())[:NAMED])
    return listed + (f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
