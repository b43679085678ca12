"""What is trained: a model of a fitted head and the stages below it, and its batches.

There are two kinds with one interface. `from_activations` starts from the output of the frozen
stages, kept on disk, and `from_pixels` runs the whole network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.data.duplicates import shown
from tfxfer.distribute import dataservice
from tfxfer.distribute.workers import Strategy, make_batches, order, predict_rows
from tfxfer.errors import DataError
from tfxfer.features import Features, Pixels
from tfxfer.heads import Averaged, Fitted
from tfxfer.heads.fitted import Array
from tfxfer.heads.layers import Flip, TakeColumns, join, sum_logits
from tfxfer.heads.train import reader
from tfxfer.inputs.image import decode as preprocess
from tfxfer.inputs.image.augment import augment_images, seed_of
from tfxfer.tasks import Task
from tfxfer.tuning.training import Batches

IN_MEMORY = 512 * 1024**2  # bytes of decoded images that are kept for all epochs
AT_ONCE = 4 * 224 * 224  # pixels that a CPU trains on at once: their activations take 0.3 GB
# The numbers that the last stages begin with, times the stages, of the images that a CPU trains on
# at once: 16 images for the last 9 stages of EfficientNet-Lite0, which take 0.1 GB less than 32 do,
# and no longer.
NUMBERS_AT_ONCE = 2_400_000


@dataclass(frozen=True, eq=False)
class Source:
    """What is trained, and on what.

    build: a fitted head -> a new model of pretrained weights and that head, from inputs to logits,
        and its backbone, or the part of it that is not computed beforehand.
    batches: (positions, batch size, seed, strategy) -> the training batches of each epoch, divided
        among the replicas.
    answers: (model, positions, batch size) -> its logits, float64 [n, C], computed by all replicas.
    finish: a model that `build` made, with what it has learnt, and its head -> the same as a model
        from pixels, outside any strategy.
    average: such a model, the head that it started from, a frozen head, a number, and whether that
        frozen head sees the mean of an image and its mirror image -> a model from pixels whose
        logits are the sum of the first model's, times that number, and of the frozen head's.
    inputs: what the inputs are, for people.
    task: what an answer is.
    unfreeze: argument of `Backbone.unfreeze`: which stages train.
    at_once: how many images a CPU trains on at once; a batch is made of several such pieces.
    views: how many altered copies of each image take turns with the image itself.
    more_views: computes altered copies -> the same source with them; None where that is not tried.
    seconds_of_views: measures how long that takes.
    """

    build: Callable[[Fitted], tuple[keras.Model, Backbone]]
    batches: Callable[[np.ndarray, int, int, Strategy], Batches]
    answers: Callable[[keras.Model, np.ndarray, int], np.ndarray]
    finish: Callable[[keras.Model, Fitted], keras.Model]
    average: Callable[[keras.Model, Fitted, Fitted | Averaged, float, bool], keras.Model]
    inputs: str
    task: Task
    unfreeze: int | str = "all"
    at_once: int = 10**6
    views: int = 0
    more_views: "Callable[[], Source] | None" = None
    seconds_of_views: Callable[[], float] | None = None

    def pieces(self, batch_size: int, strategy: Strategy) -> int:
        """Return in how many pieces a batch is computed, to fit into the memory of a CPU."""
        on_cpu = len(tf.config.list_logical_devices()) == len(tf.config.list_logical_devices("CPU"))
        if strategy.num_replicas_in_sync > 1 or not on_cpu:
            return 1
        return math.ceil(batch_size / self.at_once)


def from_pixels(
    network: Backbone,
    features: Features,
    *,
    augment: tuple[str, ...] = (),
    batch_size: int = 32,
    service: str | None = None,
) -> Source:
    """Return the source for training the whole network from the images of `features`.

    In training, images are augmented anew in each epoch. With `service`, the host:port of a tf.data
    service, training images are read, decoded and augmented there.

    Raises:
        DataError: the service would have to read images that are no files, or that TensorFlow can't
            decode.
    """
    examples = features.examples
    paths = files_of(examples) if service else ()
    pixels = Pixels(examples, network.image_size, network.value_range, batch_size)
    codes = examples.task.codes(examples.labels, len(examples.classes))
    seen = np.flatnonzero(np.array(examples.splits) != "test")
    fits = len(seen) * math.prod(network.entry_shape) <= IN_MEMORY
    span = network.value_range
    decoded = cache(lambda: decode(pixels, seen, span))

    def images(rows: np.ndarray) -> tf.data.Dataset:
        if not fits or not np.isin(rows, seen).all():
            return pixels.dataset(rows).map(lambda x: pixels_of(levels_of(x, span), span))
        loaded = decoded()
        return tf.data.Dataset.from_tensor_slices(np.searchsorted(seen, rows)).map(
            lambda at: pixels_of(tf.gather(loaded, at), span)
        )

    def build(fitted: Fitted) -> tuple[keras.Model, Backbone]:
        part = network.tapped(None)
        return join(part, fitted.layer(), network.image_size), part

    def batches(rows: np.ndarray, size: int, seed: int, strategy: Strategy) -> Batches:
        def epoch(number: int, done: int) -> tf.data.Dataset:
            def seeds_of(now: np.ndarray) -> np.ndarray:
                return np.array(
                    [seed_of(examples.digests[i], (seed * 1009 + number) % 2**31) for i in now],
                    np.int32,
                ).reshape(-1, 2)

            def examples_of(now: np.ndarray) -> tf.data.Dataset:
                return tf.data.Dataset.zip(
                    (images(now), tf.data.Dataset.from_tensor_slices((seeds_of(now), codes[now])))
                )

            def view(
                x: tf.Tensor, rest: tuple[tf.Tensor, tf.Tensor]
            ) -> tuple[tf.Tensor, tf.Tensor]:
                return augment_images(x, rest[0], augment) if augment else x, rest[1]

            left = order(rows, number, seed)[done * size :]
            if service is None:
                return make_batches(strategy, left, size, examples=examples_of, then=view)
            files, seeds = tf.constant(paths), tf.constant(seeds_of(np.arange(len(examples))))

            def load(now: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                shape = tf.TensorSpec((*network.image_size, 3), tf.float32)
                x = tf.map_fn(lambda i: decoded_from(files[i]), now, fn_output_signature=shape)
                return view(x, (tf.gather(seeds, now), tf.gather(tf.constant(codes), now)))

            return dataservice.batched(strategy, left, size, address=service, load=load)

        def decoded_from(path: tf.Tensor) -> tf.Tensor:
            x = preprocess.pixels(tf.io.read_file(path), network.image_size, network.value_range)
            return pixels_of(levels_of(x, span), span)

        return epoch

    def finish(model: keras.Model, fitted: Fitted) -> keras.Model:
        alone, _ = build(fitted)
        alone.set_weights(model.get_weights())
        return alone

    def average(
        model: keras.Model,
        fitted: Fitted,
        frozen: Fitted | Averaged,
        share: float,
        mirror: bool,
    ) -> keras.Model:
        tuned, part = build(fitted)
        tuned.set_weights(model.get_weights())
        pixels = keras.Input((*network.image_size, 3), name="pixels")
        unchanged = network.tapped(frozen.taps if features.tap_widths else None)
        sides = [[unchanged(image)] for image in sides_of(pixels, mirror)]
        head = scale_logits(tuned.get_layer(fitted.name), share)
        seen = features_of_both(part(pixels), sides)
        return keras.Model(pixels, both_heads(head, frozen)(seen), name="tfxfer")

    return Source(
        build=build,
        batches=batches,
        answers=lambda model, rows, size: predict_answers(model, rows, size, examples=images),
        finish=finish,
        average=average,
        inputs=" ".join(["pixels", *augment]),
        task=examples.task,
        at_once=max(1, AT_ONCE // math.prod(network.image_size)),
    )


def files_of(examples: Examples) -> tuple[str, ...]:
    """Return the paths of the images, for machines that read them by themselves.

    Raises:
        DataError: there are images that are no files, or that TensorFlow can't decode.
    """
    if examples.paths is None:
        raise DataError(
            f"--data-service reads image files, and {examples.source} has none. "
            "Leave it out, or use a folder of class folders or a .csv table."
        )
    if odd := [file for file, path in zip(examples.files, examples.paths, strict=True) if not path]:
        raise DataError(
            f"--data-service can't read {len(odd)} files that TensorFlow doesn't decode: "
            f"{shown(odd)}. Convert them to JPEG, or leave it out."
        )
    return examples.paths


def decode(pixels: Pixels, rows: np.ndarray, value_range: tuple[float, float]) -> tf.Tensor:
    """Return all images of `rows`, uint8 [n, H, W, 3], so that no epoch decodes them again."""
    found = np.empty((len(rows), *pixels.image_size, 3), np.uint8)
    done = 0
    for positions, batch in pixels.batches(rows.tolist(), None):
        whole = levels_of(tf.constant(batch[: len(positions)]), value_range)
        found[done : done + len(positions)] = whole.numpy()
        done += len(positions)
    with tf.device("/CPU:0"):
        return tf.constant(found)


def levels_of(pixels: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
    """Return pixels as whole numbers from 0 to 255, uint8 of the same shape.

    Training sees all images in this form, whether they are kept in memory or not.
    """
    low, high = value_range
    whole = tf.round((pixels - low) * (255 / (high - low)))
    return tf.cast(tf.clip_by_value(whole, 0, 255), tf.uint8)


def pixels_of(levels: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
    """Return whole numbers from 0 to 255 as pixels, float32 of the same shape."""
    low, high = value_range
    return low + (high - low) / 255 * tf.cast(levels, tf.float32)


def sides_of(pixels: keras.KerasTensor, mirror: bool) -> list[keras.KerasTensor]:
    """Return the image, and its mirror image where it is asked for."""
    return [pixels, Flip(name="mirror")(pixels)] if mirror else [pixels]


def features_of_both(
    tuned: keras.KerasTensor, sides: Sequence[Sequence[keras.KerasTensor]]
) -> keras.KerasTensor:
    """Return the features of the tuned network, then those of the frozen one, as one row.

    Args:
        sides: the frozen network's features of the image, in parts, and those of its mirror image
            where these are used.
    """
    names = "features", "features_of_mirror"
    rows = [
        keras.layers.Concatenate(name=name)([tuned, *parts])
        for name, parts in zip(names, sides, strict=False)
    ]
    # Both rows have the same tuned features, so the mean keeps these. An int8 export looks for such
    # a mean.
    return keras.layers.Average(name="both_sides")(rows) if len(rows) > 1 else rows[0]


def both_heads(tuned: keras.layers.Layer, frozen: Fitted | Averaged) -> keras.Model:
    """Join the heads of a tuned and of the frozen network into one on the columns of both."""
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


def from_activations(
    network: Backbone,
    rest: Backbone,
    views: Sequence[Array],
    examples: Examples,
    inputs: str = "activations",
) -> Source:
    """Return the source for training the last stages from cached rows.

    A row holds the activations of an image that `rest` starts from (see `Backbone.cut`).

    Args:
        views: the rows of the images as they are, then of augmented views; the epochs take turns.
        examples: the examples that the rows belong to.
    """
    stages = len(rest.stages)
    batches = batches_of(views, examples.task.codes(examples.labels, len(examples.classes)))

    def build(fitted: Fitted) -> tuple[keras.Model, Backbone]:
        part = rest.tapped(None)
        row = keras.Input((views[0].shape[1],), name="activations")
        features = part(keras.layers.Reshape(rest.entry_shape)(row))
        return keras.Model(row, fitted.layer()(features)), part

    def answers(model: keras.Model, rows: np.ndarray, size: int) -> np.ndarray:
        return predict_answers(
            model,
            np.arange(len(rows)),
            size,
            examples=tf.data.Dataset.from_tensor_slices,
            then=reader(views[0], rows),
        )

    def finish(model: keras.Model, fitted: Fitted) -> keras.Model:
        whole, head = network.tapped(None), fitted.layer()
        whole.take_weights(trained_part(model))
        head.set_weights(model.get_layer(head.name).get_weights())
        return join(whole, head, network.image_size)

    def average(
        model: keras.Model,
        fitted: Fitted,
        frozen: Fitted | Averaged,
        share: float,
        mirror: bool,
    ) -> keras.Model:
        pixels = keras.Input((*network.image_size, 3), name="pixels")
        front = network.front(stages, frozen.taps)
        rows = [front(image) for image in sides_of(pixels, mirror)]
        width = math.prod(rest.entry_shape)
        early = rows[0].shape[-1] - width
        alone = TakeColumns(0, width, name="activations_alone")
        shaped = keras.layers.Reshape(rest.entry_shape, name="activations")
        before = [TakeColumns(-early, early, name="taps_before")] if early else []
        tuned = rest.tapped(None)
        tuned.take_weights(trained_part(model))
        unchanged = rest.tapped(min(frozen.taps, stages))
        activations = [shaped(alone(row)) for row in rows]
        sides = [
            [*(taps(row) for taps in before), unchanged(one)]
            for row, one in zip(rows, activations, strict=True)
        ]
        head = scale_logits(model.get_layer(fitted.name), share)
        seen = features_of_both(tuned(activations[0]), sides)
        return keras.Model(pixels, both_heads(head, frozen)(seen), name="tfxfer")

    at_once = max(1, NUMBERS_AT_ONCE // (math.prod(rest.entry_shape) * stages))
    return Source(
        build=build,
        batches=batches,
        answers=answers,
        finish=finish,
        average=average,
        inputs=inputs,
        task=examples.task,
        unfreeze=stages,
        at_once=at_once,
        views=len(views) - 1,
    )


def batches_of(
    views: Sequence[Array], codes: np.ndarray
) -> Callable[[np.ndarray, int, int, Strategy], Batches]:
    """Return batches of cached rows: each epoch reads one of the views, in turn.

    Args:
        codes: what the loss compares the outputs of each example with, float32 [n, K].
    """

    def batches(rows: np.ndarray, size: int, seed: int, strategy: Strategy) -> Batches:
        readers = [reader(view, rows) for view in views]

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

    return batches


def trained_part(model: keras.Model) -> Backbone:
    """Return the Backbone of a model that `from_activations` built."""
    return next(layer for layer in model.layers if isinstance(layer, Backbone))


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
