"""Compares a Backbone in plain `fit` with the loaded SavedModel called from a layer.

    python benchmarks/layer.py [--steps N]

It takes medians of training steps in one run, frozen, partly frozen (last two stages) and whole, in
turns, batch 32. The loaded SavedModel can't be unfrozen in part; its partly frozen rival is the
whole graph in inference mode, with gradients of the same weights alone. Expected: at least 0.95 of
its images per second in each mode. Exit 1 where it is less.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np
import tensorflow as tf

from tfxfer import handles, savedmodel
from tfxfer.backbone import Backbone

BATCH = 32


class Loaded(keras.layers.Layer):
    """The SavedModel that `tf.saved_model.load` returns, as a Keras layer.

    The variables that train are Keras' own.
    """

    def __init__(self, path: str, training: bool, trainable_names: set[str]):
        super().__init__()
        self.inner, self.training_graph = [tf.saved_model.load(path)], training
        for variable in self.inner[0].trainable_variables:
            if variable.name.split(":")[0].replace("/", ".") in trainable_names:
                mine = keras.Variable(
                    variable, trainable=True, name=variable.name.split(":")[0].replace("/", "_")
                )
                mine._value = variable
                self._track_variable(mine)
        self.built = True

    def call(self, x):
        return self.inner[0](x, training=self.training_graph)

    def compute_output_shape(self, shape):
        return (shape[0], 1280)


def model(layer: keras.layers.Layer) -> keras.Model:
    network = keras.Sequential([keras.Input((224, 224, 3)), layer, keras.layers.Dense(10)])
    network.compile(
        keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return network


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = str(handles.resolve("efficientnet-lite0").path)
    pretrained = savedmodel.read(path)
    rng = np.random.default_rng(0)
    x, y = (
        rng.random((BATCH * options.steps, 224, 224, 3), dtype=np.float32),
        rng.integers(0, 10, BATCH * options.steps),
    )
    failed = 0
    for mode in ("frozen", "partly frozen", "whole"):
        backbone = Backbone(pretrained, trainable=mode != "frozen")
        if mode == "partly frozen":
            backbone.unfreeze(2)
        names = {
            w.name
            for w, v in zip(pretrained.weights, backbone._own, strict=True)
            if v.trainable and mode != "frozen"
        }
        pair = {"tfxfer": model(backbone), "loaded": model(Loaded(path, mode == "whole", names))}
        assert len(pair["tfxfer"].trainable_variables) == len(pair["loaded"].trainable_variables)
        seconds: dict[str, list[float]] = {name: [] for name in pair}
        for turn in range(options.rounds + 1):
            for name, network in pair.items():
                steps = Steps()
                network.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=[steps])
                seconds[name] += steps.seconds[1:] if turn else []  # the first turn compiles
        rate = {name: BATCH / float(np.median(found)) for name, found in seconds.items()}
        ratio = rate["tfxfer"] / rate["loaded"]
        failed |= ratio < 0.95
        print(
            (
                f"{mode:14s} tfxfer {rate['tfxfer']:6.1f} img/s   "
                f"loaded {rate['loaded']:6.1f} img/s   ratio {ratio:.3f} (at least 0.95)"
            ),
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
