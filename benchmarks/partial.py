"""The last two stages from cached activations, against the same weights through the whole graph: python benchmarks/partial.py [--images 512] [--epochs 6]

Both train the same 21 weights of EfficientNet-Lite0 and the same Dense head by plain Keras `fit` with SGD at batch 32, in the same order: the one from pixels
in memory, the other from the features' cache on disk in float32, filled before. Expected: medians of steps at least 3.3 times as many images per second, and
the same losses step by step within 1e-4. Exit 1 where that does not hold.
"""

import argparse
import os
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here

import keras
import numpy as np
import tensorflow as tf

from tfxfer import data
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.features import Pixels, extract
from tfxfer.probe.train import reader
from tfxfer.workers import order

BATCH = 32


class Steps(keras.callbacks.Callback):
    """Loss and seconds of each step."""

    def __init__(self):
        super().__init__()
        self.losses, self.seconds, self.began = [], [], 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # so that the loss is that of the step
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.seconds.append(time.perf_counter() - self.began)


def compiled(layer: Backbone, classes: int) -> keras.Model:
    """The layer with a Dense head."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(layer.entry_shape), layer, keras.layers.Dense(classes)])
    model.compile(
        keras.optimizers.SGD(3e-4, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    assert len(layer.trainable_variables) == 21
    return model


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    examples = data.load("demo").take(np.arange(options.images))
    labels, rows = tf.constant(examples.labels), np.arange(options.images)
    whole = Backbone("efficientnet-lite0", batch_norm="inference")
    prefix, rest = whole.cut(2)
    whole.unfreeze(2)
    with tempfile.TemporaryDirectory() as folder:
        activations = extract(examples, prefix, cache=Cache(folder), progress=False)
        read = reader(activations, rows)

        def cached(epoch: int) -> tf.data.Dataset:
            places = tf.data.Dataset.from_tensor_slices(order(rows, epoch, 0)).batch(
                BATCH, drop_remainder=True
            )
            return places.map(
                lambda at: (tf.reshape(read(at), (-1, *rest.entry_shape)), tf.gather(labels, at))
            ).prefetch(2)

        pixels = tf.constant(
            np.concatenate(
                [
                    batch
                    for _, batch in Pixels(
                        examples, whole.image_size, whole.value_range, BATCH
                    ).batches(rows, None)
                ]
            )
        )

        def plain(epoch: int) -> tf.data.Dataset:
            places = tf.data.Dataset.from_tensor_slices(order(rows, epoch, 0)).batch(
                BATCH, drop_remainder=True
            )
            return places.map(lambda at: (tf.gather(pixels, at), tf.gather(labels, at))).prefetch(2)

        found, models = (
            (Steps(), Steps()),
            [compiled(layer, len(examples.classes)) for layer in (rest, whole)],
        )
        for epoch in range(
            options.epochs
        ):  # in turns, so that a machine that grows slower is so for both
            for steps, model, batches in zip(found, models, (cached, plain), strict=True):
                model.fit(batches(epoch), verbose=0, callbacks=[steps], shuffle=False)
    rates = [BATCH / float(np.median(steps.seconds[2:])) for steps in found]
    apart = max(abs(a - b) for a, b in zip(found[0].losses, found[1].losses, strict=True))
    print(
        f"{len(found[0].losses)} steps: cached {rates[0]:.1f} images/s, whole graph {rates[1]:.1f} images/s"
    )
    print(
        f"ratio {rates[0] / rates[1]:.2f}, at least 3.3; losses from {found[0].losses[0]:.4f} to {found[0].losses[-1]:.4f}, apart by {apart:.1e}, at most 1e-4"
    )
    return int(rates[0] / rates[1] < 3.3 or apart > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
