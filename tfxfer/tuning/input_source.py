"""Train from the examples themselves: each step runs the whole network, whatever stages train."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.data.decoding import Alteration
from tfxfer.data.duplicates import shown
from tfxfer.distribute import dataservice
from tfxfer.distribute.workers import Strategy, make_batches, order
from tfxfer.errors import DataError
from tfxfer.features import Decoder, Features
from tfxfer.heads import Averaged, Fitted, SideBySide
from tfxfer.heads.layers import join
from tfxfer.inputs import seed_of
from tfxfer.tasks import Task
from tfxfer.tuning.source import (
    Source,
    both_heads,
    features_of_both,
    predict_answers,
    scale_logits,
    sides_of,
)
from tfxfer.tuning.training import Batches

IN_MEMORY = 512 * 1024**2  # bytes of decoded images that are kept for all epochs
DECODED: WeakKeyDictionary[Backbone, tuple[Examples, tf.Tensor]] = WeakKeyDictionary()
AT_ONCE = 4 * 224 * 224  # pixels that a CPU trains on at once: their activations take 0.3 GB


def from_examples(
    network: Backbone,
    features: Features,
    *,
    augment: tuple[str, ...] = (),
    batch_size: int = 32,
    service: str | None = None,
) -> "InputSource":
    """Return the source for training from the examples of `features`; all stages train.

    In training, images are augmented anew in each epoch. With `service`, the host:port of a tf.data
    service, training images are read, decoded and augmented there.

    Raises:
        DataError: the service can't read some images, because they are not files or TensorFlow
            can't decode them.
    """
    examples = features.examples
    return InputSource(
        network=network,
        decoder=Decoder(examples, network.takes, batch_size),
        has_taps=bool(features.tap_widths),
        augment=augment,
        service=service,
        paths=files_of(examples) if service else (),
    )


@dataclass(frozen=True, eq=False)
class InputSource:
    """Each step runs the whole network; see `Source`.

    decoder: decodes the examples.
    has_taps: whether the frozen model uses taps.
    augment: kinds of augmentation, which change with each epoch.
    service: address of a tf.data service that reads the examples; `paths` are their files.
    unfreeze: which stages train: all, or only the last ones where their inputs can't be kept.
    """

    network: Backbone
    decoder: Decoder
    has_taps: bool
    augment: tuple[str, ...]
    service: str | None
    paths: tuple[str, ...]
    unfreeze: int | str = "all"
    views: int = field(default=0, init=False)
    more_views: Callable[[], Source] | None = field(default=None, init=False)
    seconds_of_views: Callable[[], float] | None = field(default=None, init=False)

    @property
    def examples(self) -> Examples:
        """All examples."""
        return self.decoder.examples

    @property
    def task(self) -> Task:
        """The kind of answer that the examples ask for."""
        return self.examples.task

    @property
    def inputs(self) -> str:
        """Name of the inputs, for logs and reports."""
        return " ".join(["pixels", *self.augment])

    @property
    def at_once(self) -> int:
        """How many images a CPU trains on at once."""
        return max(1, AT_ONCE // math.prod(self.network.entry_shape[:-1]))

    @cached_property
    def codes(self) -> np.ndarray:
        """What the loss compares the outputs of each example with, float32 [n, K]."""
        return self.task.codes(self.examples.labels, len(self.examples.classes))

    @cached_property
    def seen(self) -> np.ndarray:
        """Positions of all images that are not in the test part: only these are kept in memory."""
        return np.flatnonzero(np.array(self.examples.splits) != "test")

    @cached_property
    def packed(self) -> np.dtype:
        """The dtype in which examples are kept in memory."""
        takes = self.decoder.takes
        return np.dtype(takes.pack(tf.zeros(takes.shape)).dtype.as_numpy_dtype)

    @property
    def fits(self) -> bool:
        """Whether the images at `seen` fit into `IN_MEMORY` bytes."""
        values = len(self.seen) * math.prod(self.decoder.takes.shape)
        return values * self.packed.itemsize <= IN_MEMORY

    @property
    def decoded(self) -> tf.Tensor:
        """The images at `seen`, kept in memory so that no epoch decodes them again.

        All sources of one network and its examples share them, until `forget_decoded`.
        """
        examples, kept = DECODED.get(self.network, (None, None))
        if examples is not self.examples:
            kept = decode(self.decoder, self.seen, self.packed)
            DECODED[self.network] = (self.examples, kept)
        return kept

    def read_at(self, rows: np.ndarray) -> tf.data.Dataset:
        """Return the images at some positions, one by one."""
        takes = self.decoder.takes
        if not self.fits or not np.isin(rows, self.seen).all():
            return self.decoder.dataset(rows).map(lambda x: takes.unpack(takes.pack(x)))
        loaded = self.decoded
        return tf.data.Dataset.from_tensor_slices(np.searchsorted(self.seen, rows)).map(
            lambda at: takes.unpack(tf.gather(loaded, at))
        )

    def build(self, fitted: Fitted) -> tuple[keras.Model, Backbone]:
        """See `Source`."""
        part = self.network.tapped(None)
        return join(part, fitted.layer(), self.network.entry_shape), part

    def batches(self, rows: np.ndarray, size: int, seed: int, strategy: Strategy) -> Batches:
        """See `Source`."""

        def epoch(number: int, done: int) -> tf.data.Dataset:
            left = order(rows, number, seed)[done * size :]
            draw = (seed * 1009 + number) % 2**31
            if self.service is not None:
                return self.served(self.service, left, size, draw=draw, strategy=strategy)
            return make_batches(
                strategy,
                left,
                size,
                examples=lambda now: self.labelled(now, draw),
                then=self.view,
            )

        return epoch

    def seeds(self, rows: np.ndarray, draw: int) -> np.ndarray:
        """Return the seeds of an epoch's augmentation, int32 [n, 2].

        Args:
            draw: number of the epoch, mixed with the run's seed.
        """
        seeds = [seed_of(self.examples.digests[i], draw) for i in rows]
        return np.array(seeds, np.int32).reshape(-1, 2)

    def labelled(self, rows: np.ndarray, draw: int) -> tf.data.Dataset:
        """Return images, each with its seed and its code."""
        rest = tf.data.Dataset.from_tensor_slices((self.seeds(rows, draw), self.codes[rows]))
        examples = self.altered_at(rows, draw) if self.alters_contents else self.read_at(rows)
        return tf.data.Dataset.zip((examples, rest))

    @property
    def alters_contents(self) -> bool:
        """Whether examples are altered before they are decoded."""
        return bool(self.augment) and self.examples.kind.ALTERS_CONTENTS

    def altered_at(self, rows: np.ndarray, draw: int) -> tf.data.Dataset:
        """Return altered examples at some positions, one by one; they are decoded anew."""
        takes, alter = self.decoder.takes, Alteration(self.augment, draw)
        decoder = Decoder(self.examples, takes, self.decoder.batch_size, alter)
        return decoder.dataset(rows).map(lambda x: takes.unpack(takes.pack(x)))

    def view(self, x: tf.Tensor, rest: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Augment a batch of images, which comes with seeds and codes."""
        x = self.examples.kind.augment(x, rest[0], self.augment) if self.augment else x
        return x, rest[1]

    def served(
        self, address: str, rows: np.ndarray, size: int, *, draw: int, strategy: Strategy
    ) -> Any:
        """Return batches that a tf.data service reads, decodes and augments."""
        files, codes = tf.constant(self.paths), self.codes
        seeds = tf.constant(self.seeds(np.arange(len(self.examples)), draw))
        takes = self.decoder.takes
        shape = tf.TensorSpec(self.network.entry_shape, tf.float32)

        def one(i: tf.Tensor) -> tf.Tensor:
            content = tf.io.read_file(files[i])
            if self.alters_contents:
                content = self.examples.kind.alter(content, seeds[i], self.augment)
            return takes.unpack(takes.pack(takes.decode(content)))

        def load(now: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = tf.map_fn(one, now, fn_output_signature=shape)
            return self.view(x, (tf.gather(seeds, now), tf.gather(tf.constant(codes), now)))

        return dataservice.batched(strategy, rows, size, address=address, load=load)

    def answers(self, model: keras.Model, rows: np.ndarray, size: int) -> np.ndarray:
        """See `Source`."""
        return predict_answers(model, rows, size, examples=self.read_at)

    def finish(self, model: keras.Model, fitted: Fitted) -> keras.Model:
        """See `Source`."""
        alone, _ = self.build(fitted)
        alone.set_weights(model.get_weights())
        return alone

    def average(
        self,
        model: keras.Model,
        fitted: Fitted,
        frozen: Fitted | Averaged | SideBySide,
        share: float,
        mirror: bool,
    ) -> keras.Model:
        """See `Source`."""
        tuned, part = self.build(fitted)
        tuned.set_weights(model.get_weights())
        inputs = keras.Input(self.network.entry_shape, name="pixels")
        unchanged = self.network.tapped(frozen.taps if self.has_taps else None)
        sides = [[unchanged(side)] for side in sides_of(inputs, mirror)]
        head = scale_logits(tuned.get_layer(fitted.name), share)
        seen = features_of_both(part(inputs), sides)
        return keras.Model(inputs, both_heads(head, frozen)(seen), name="tfxfer")


def forget_decoded() -> None:
    """Free the memory of all images that are kept, when a comparison has ended."""
    DECODED.clear()


def files_of(examples: Examples) -> tuple[str, ...]:
    """Return the paths of the images, for machines that read them by themselves.

    Raises:
        DataError: some images are not files, or TensorFlow can't decode them.
    """
    if examples.paths is None:
        raise DataError(
            f"--data-service needs files on disk, and {examples.source} has none. "
            "Leave out --data-service, or use a folder of class folders or a .csv table."
        )
    if odd := [file for file, path in zip(examples.files, examples.paths, strict=True) if not path]:
        raise DataError(
            f"--data-service can't read {len(odd)} files that TensorFlow doesn't decode: "
            f"{shown(odd)}. Convert them to JPEG, or leave out --data-service."
        )
    return examples.paths


def decode(decoder: Decoder, rows: np.ndarray, dtype: np.dtype) -> tf.Tensor:
    """Return the examples at `rows` as they are kept in memory, [n, *shape]; see `Input.pack`."""
    takes = decoder.takes
    decoded = np.empty((len(rows), *takes.shape), dtype)
    done = 0
    for positions, batch in decoder.batches(rows.tolist(), None):
        packed = takes.pack(tf.constant(batch[: len(positions)]))
        decoded[done : done + len(positions)] = packed.numpy()
        done += len(positions)
    with tf.device("/CPU:0"):
        return tf.constant(decoded)
