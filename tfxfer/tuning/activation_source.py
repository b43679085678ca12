"""Train the last stages, from the activations of the stages before them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.distribute.workers import Strategy, make_batches, order
from tfxfer.heads import Averaged, Fitted, SideBySide
from tfxfer.heads.fitted import Array
from tfxfer.heads.layers import TakeColumns, join
from tfxfer.heads.train import reader
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

# Upper bound of (images that a CPU trains on at once) * (numbers in one row) * (stages that train).
# With it, the last 5 stages of EfficientNet-Lite0 train on 32 images at once, 7 % faster than on
# 16. The last 9 train on 16 at once, 7 % slower than on 32, but with 0.2 GB less.
NUMBERS_AT_ONCE = 3_600_000


@dataclass(frozen=True, eq=False)
class ActivationSource:
    """The last stages are trained from cached rows; see `Source`.

    network: the whole network.
    rest: the stages that train; a row is their input for one image (see `Backbone.cut`).
    rows: rows of the images, then rows of each set of altered copies; epochs use them in turn.
    examples: the examples that the rows belong to.
    """

    network: Backbone
    rest: Backbone
    rows: tuple[Array, ...]
    examples: Examples
    inputs: str = "activations"
    more_views: Callable[[], Source] | None = None
    seconds_of_views: Callable[[], float] | None = None

    @property
    def task(self) -> Task:
        """The kind of answer that the examples ask for."""
        return self.examples.task

    @property
    def unfreeze(self) -> int:
        """How many stages train."""
        return len(self.rest.stages)

    @property
    def views(self) -> int:
        """How many altered copies of each image take turns with the image itself."""
        return len(self.rows) - 1

    @property
    def at_once(self) -> int:
        """How many images a CPU trains on at once."""
        return max(1, NUMBERS_AT_ONCE // (math.prod(self.rest.entry_shape) * self.unfreeze))

    @cached_property
    def codes(self) -> np.ndarray:
        """What the loss compares the outputs of each example with, float32 [n, K]."""
        return self.task.codes(self.examples.labels, len(self.examples.classes))

    def build(self, fitted: Fitted) -> tuple[keras.Model, Backbone]:
        """See `Source`."""
        part = self.rest.tapped(None)
        row = keras.Input((self.rows[0].shape[1],), name="activations")
        features = part(keras.layers.Reshape(self.rest.entry_shape)(row))
        return keras.Model(row, fitted.layer()(features)), part

    def batches(self, rows: np.ndarray, size: int, seed: int, strategy: Strategy) -> Batches:
        """See `Source`."""
        codes = self.codes
        readers = [reader(view, rows) for view in self.rows]

        def epoch(number: int, done: int) -> tf.data.Dataset:
            places = order(np.arange(len(rows)), number, seed)[done * size :].astype(np.int64)
            read = readers[number % len(readers)]
            return make_batches(
                strategy,
                places,
                size,
                examples=lambda now: tf.data.Dataset.from_tensor_slices((now, codes[rows[now]])),
                then=lambda at, y: (read(at), y),
            )

        return epoch

    def answers(self, model: keras.Model, rows: np.ndarray, size: int) -> np.ndarray:
        """See `Source`."""
        return predict_answers(
            model,
            np.arange(len(rows)),
            size,
            examples=tf.data.Dataset.from_tensor_slices,
            then=reader(self.rows[0], rows),
        )

    def finish(self, model: keras.Model, fitted: Fitted) -> keras.Model:
        """See `Source`."""
        whole, head = self.network.tapped(None), fitted.layer()
        whole.take_weights(trained_part(model))
        head.set_weights(model.get_layer(head.name).get_weights())
        return join(whole, head, self.network.entry_shape)

    def average(
        self,
        model: keras.Model,
        fitted: Fitted,
        frozen: Fitted | Averaged | SideBySide,
        share: float,
        mirror: bool,
    ) -> keras.Model:
        """See `Source`. The stages before the trained ones are computed once for both models."""
        inputs = keras.Input(self.network.entry_shape, name="pixels")
        front = self.network.front(self.unfreeze, frozen.taps)
        rows = [front(side) for side in sides_of(inputs, mirror)]
        width = math.prod(self.rest.entry_shape)
        early = rows[0].shape[-1] - width
        alone = TakeColumns(0, width, name="activations_alone")
        shaped = keras.layers.Reshape(self.rest.entry_shape, name="activations")
        before = [TakeColumns(-early, early, name="taps_before")] if early else []
        tuned = self.rest.tapped(None)
        tuned.take_weights(trained_part(model))
        unchanged = self.rest.tapped(min(frozen.taps, self.unfreeze))
        activations = [shaped(alone(row)) for row in rows]
        sides = [
            [*(taps(row) for taps in before), unchanged(one)]
            for row, one in zip(rows, activations, strict=True)
        ]
        head = scale_logits(model.get_layer(fitted.name), share)
        seen = features_of_both(tuned(activations[0]), sides)
        return keras.Model(inputs, both_heads(head, frozen)(seen), name="tfxfer")


def trained_part(model: keras.Model) -> Backbone:
    """Return the Backbone of a model that `ActivationSource.build` made."""
    return next(layer for layer in model.layers if isinstance(layer, Backbone))
