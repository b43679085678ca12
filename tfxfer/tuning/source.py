"""What is trained: a model of a fitted head and the stages below it, and its batches.

There are two kinds. An `InputSource` runs the whole network, and an `ActivationSource` starts from
the output of the frozen stages, kept on disk.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.distribute.workers import Strategy, predict_rows
from tfxfer.heads import Averaged, Fitted, SideBySide
from tfxfer.heads.layers import Flip, sum_logits
from tfxfer.tasks import Task
from tfxfer.tuning.training import Batches


class Source(Protocol):
    """What is trained, and on what.

    task: what an answer is.
    examples: the examples that it trains on, and others.
    inputs: name of the inputs, for logs and reports.
    unfreeze: argument of `Backbone.unfreeze`: which stages train.
    at_once: how many images a CPU trains on at once; a larger batch is divided into such pieces.
    views: how many altered copies each image has; the epochs use these and the image in turn.
    more_views: a function that computes altered copies and returns a new source that uses them;
        None where none are tried.
    seconds_of_views: a function that estimates how many seconds that takes.
    """

    @property
    def task(self) -> Task: ...

    @property
    def examples(self) -> Examples: ...

    @property
    def inputs(self) -> str: ...

    @property
    def unfreeze(self) -> int | str: ...

    @property
    def at_once(self) -> int: ...

    @property
    def views(self) -> int: ...

    @property
    def more_views(self) -> "Callable[[], Source] | None": ...

    @property
    def seconds_of_views(self) -> Callable[[], float] | None: ...

    def build(self, fitted: Fitted) -> tuple[keras.Model, Backbone]:
        """Return a new model of pretrained weights and a fitted head, from inputs to logits.

        It comes with its backbone, or those stages of it that are not computed beforehand.
        """

    def batches(self, rows: np.ndarray, size: int, seed: int, strategy: Strategy) -> Batches:
        """Return the training batches of each epoch, divided among the replicas.

        Args:
            rows: positions of the examples.
            size: batch size.
        """

    def answers(self, model: keras.Model, rows: np.ndarray, size: int) -> np.ndarray:
        """Return a model's outputs, float64 [n, K], computed by all replicas."""

    def finish(self, model: keras.Model, fitted: Fitted) -> keras.Model:
        """Return a trained model as an ordinary Keras model that takes pixels.

        It belongs to no strategy.

        Args:
            model: a model that `build` made, with what it has learnt.
            fitted: the head that it started from.
        """

    def average(
        self,
        model: keras.Model,
        fitted: Fitted,
        frozen: Fitted | Averaged | SideBySide,
        share: float,
        mirror: bool,
    ) -> keras.Model:
        """Return one model from examples to the sum of `share` * trained logits and frozen logits.

        The caller has scaled both, so the sum is their weighted mean.

        Args:
            model, fitted: as for `finish`.
            frozen: head of the frozen model.
            share: factor of the trained model's logits.
            mirror: whether the frozen head sees the mean of an image and its mirror image.
        """


def count_pieces(at_once: int, batch_size: int, strategy: Strategy) -> int:
    """Return the number of pieces that a batch is divided into, to fit into the memory of a CPU.

    Args:
        at_once: how many images a CPU trains on at once.
    """
    on_cpu = len(tf.config.list_logical_devices()) == len(tf.config.list_logical_devices("CPU"))
    if strategy.num_replicas_in_sync > 1 or not on_cpu:
        return 1
    return math.ceil(batch_size / at_once)


def sides_of(inputs: keras.KerasTensor, mirror: bool) -> list[keras.KerasTensor]:
    """Return the image, and its mirror image where it is asked for."""
    return [inputs, Flip(name="mirror")(inputs)] if mirror else [inputs]


def features_of_both(
    tuned: keras.KerasTensor, sides: Sequence[Sequence[keras.KerasTensor]]
) -> keras.KerasTensor:
    """Return the features of the tuned network, then those of the frozen one, as one row.

    Args:
        sides: the frozen network's features of the image, in parts; then those of its mirror
            image, if it is used.
    """
    names = "features", "features_of_mirror"
    rows = [
        keras.layers.Concatenate(name=name)([tuned, *parts])
        for name, parts in zip(names, sides, strict=False)
    ]
    # The tuned columns are equal in both rows, so the mean does not change them. The int8 export
    # looks for such an Average layer.
    return keras.layers.Average(name="both_sides")(rows) if len(rows) > 1 else rows[0]


def both_heads(tuned: keras.layers.Layer, frozen: Fitted | Averaged | SideBySide) -> keras.Model:
    """Join the heads of a tuned and the frozen network into one that reads the columns of both."""
    widths = (tuned.input_shape[-1], sum(frozen.widths))
    return sum_logits(tuned, frozen.layer(), widths, name="tuned_and_frozen")


def scale_logits(head: keras.Sequential, share: float) -> keras.Sequential:
    """Return a copy of a head, under a name of its own, with its logits times `share`."""
    copy = keras.Sequential.from_config({**head.get_config(), "name": "tuned"})
    copy.set_weights(head.get_weights())
    multiply_logits(copy, share)
    return copy


def multiply_logits(head: keras.Sequential, share: float) -> None:
    """Change a head so that its logits are multiplied by `share`."""
    logits = head.get_layer("logits")
    logits.set_weights([weight * np.float32(share) for weight in logits.get_weights()])


def predict_answers(
    model: keras.Model,
    rows: np.ndarray,
    size: int,
    examples: Callable[[np.ndarray], tf.data.Dataset],
    then: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> np.ndarray:
    """Return the model's logits on `rows`, float64 [n, C]."""
    return np.asarray(
        predict_rows(
            model.distribute_strategy, model, rows, size=size, examples=examples, then=then
        ),
        np.float64,
    )
