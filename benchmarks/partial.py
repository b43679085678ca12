"""The last two stages from cached activations, and what a mean of two models costs.

    python benchmarks/partial.py [--images 512] [--epochs 6]

training   The same 21 weights of EfficientNet-Lite0 and the same Dense head are trained by plain
           Keras `fit` with SGD at batch 32, in the same order: from the features' cache on disk in
           float32, filled before; from pixels in memory through the whole graph, as it stands in
           the SavedModel; and from pixels through the graph that tfxfer makes of it for training
           (`savedmodel/folded.py`, `savedmodel/convolution.py`). Expected: medians of steps at
           least 3.3 times as many images per second as with the graph of the SavedModel, 2.5 times
           as many as with that of tfxfer, and the same losses step by step within 1e-4.
averaged   `predict` of the mean of the frozen model and of one whose last stages train, against
           the frozen model alone: images per second, in turns, and bytes of the saved model.
           Expected: at least 0.8 with two stages.

Exit 1 where that does not hold.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np
import tensorflow as tf

from tfxfer import data
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.distribute.workers import order
from tfxfer.features import Decoder, Extractor, extract
from tfxfer.heads.layers import join
from tfxfer.heads.train import reader
from tfxfer.savedmodel import convolution, graph
from tfxfer.tuning import last_stages, plan
from tfxfer.tuning.frozen import Heads

BATCH = 32
DEPTHS = 2, 5, 9  # of the averaged models; only the first has a bound
ROUNDS = 5


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


@contextmanager
def unchanged() -> Iterator[None]:
    """Layers that are called for the first time in here train the graph of their SavedModel."""
    with (
        mock.patch.object(graph, "fold_batch_norms", lambda graph, fetched: graph),
        mock.patch.object(convolution, "marked", lambda graph: graph),
    ):
        yield


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


def training(images: int, epochs: int) -> bool:
    """Whether training from activations is fast enough, and does the same."""
    examples = data.load("demo").take(np.arange(images))
    labels, rows = tf.constant(examples.labels), np.arange(images)
    whole = Backbone("efficientnet-lite0", batch_norm="inference")
    prefix, rest = whole.cut(2)
    whole.unfreeze(2)
    original = Backbone("efficientnet-lite0", batch_norm="inference")
    original.unfreeze(2)
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
                    for _, batch in Decoder(examples, whole.takes, BATCH).batches(
                        rows.tolist(), None
                    )
                ]
            )
        )

        def plain(epoch: int) -> tf.data.Dataset:
            places = tf.data.Dataset.from_tensor_slices(order(rows, epoch, 0)).batch(
                BATCH, drop_remainder=True
            )
            return places.map(lambda at: (tf.gather(pixels, at), tf.gather(labels, at))).prefetch(2)

        found = Steps(), Steps(), Steps()
        models = [compiled(layer, len(examples.classes)) for layer in (rest, original, whole)]
        for epoch in range(epochs):  # in turns, so that a machine that grows slower is so for all
            models[0].fit(cached(epoch), verbose=0, callbacks=[found[0]], shuffle=False)
            with unchanged():
                models[1].fit(plain(epoch), verbose=0, callbacks=[found[1]], shuffle=False)
            models[2].fit(plain(epoch), verbose=0, callbacks=[found[2]], shuffle=False)
    rates = [BATCH / float(np.median(steps.seconds[2:])) for steps in found]
    apart = max(
        abs(a - b)
        for other in found[1:]
        for a, b in zip(found[0].losses, other.losses, strict=True)
    )
    print(
        f"{len(found[0].losses)} steps: cached {rates[0]:.1f} images/s, "
        f"whole graph of the SavedModel {rates[1]:.1f} images/s, of tfxfer {rates[2]:.1f} images/s"
    )
    print(
        f"ratio {rates[0] / rates[1]:.2f}, at least 3.3 "
        f"(to the graph of tfxfer {rates[0] / rates[2]:.2f}, at least 2.5); "
        f"losses from {found[0].losses[0]:.4f} to {found[0].losses[-1]:.4f}, "
        f"apart by {apart:.1e}, at most 1e-4"
    )
    return rates[0] / rates[1] >= 3.3 and rates[0] / rates[2] >= 2.5 and apart <= 1e-4


def averaged(images: int) -> bool:
    """Whether the mean of two models with a common beginning is fast enough."""
    examples = data.load("demo").take(np.arange(images))
    network = Backbone("efficientnet-lite0", trainable=False, batch_norm="inference")
    with tempfile.TemporaryDirectory() as folder:
        extractor = Extractor(Cache(Path(folder) / "cache"))
        features = extractor(examples, network.prefix(len(network.stages)))
        parts = plan(examples, 0)
        rows = parts.everything
        heads = Heads(features, "auto", 0, tf.distribute.get_strategy())
        frozen = heads.frozen(rows).choice.fitted
        start = heads.start(rows)
        models = {"frozen": join(network.tapped(frozen.taps), frozen.layer(), network.entry_shape)}
        for depth in DEPTHS:
            source = last_stages(network, depth, features, plan=parts, extract=extractor)
            model, _ = source.build(start)
            models[f"mean, {depth} stages"] = source.average(model, start, frozen, 0.5, False)
        pixels = Decoder(examples, network.takes, BATCH)
        ready = np.concatenate([batch for _, batch in pixels.batches(range(images), None)])
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(ROUNDS + 1):
            for name, model in models.items():
                began = time.perf_counter()
                model.predict(ready, batch_size=BATCH, verbose=0)
                seconds[name].append(time.perf_counter() - began)
        path = Path(folder) / "model.keras"
        speeds, sizes = {}, {}
        for name, model in models.items():
            model.save(path)
            sizes[name] = path.stat().st_size
            speeds[name] = len(ready) / float(np.median(seconds[name][1:]))
    shares = {name: speed / speeds["frozen"] for name, speed in speeds.items()}
    for name, share in shares.items():
        print(
            f"{name}: {speeds[name]:.1f} images/s in predict ({share:.2f} of frozen), "
            f"{sizes[name] / 1e6:.1f} MB ({sizes[name] / sizes['frozen']:.2f} of frozen)"
        )
    return shares[f"mean, {DEPTHS[0]} stages"] >= 0.8


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    held = [training(options.images, options.epochs), averaged(options.images)]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
