"""Compares two workers with one core each with one process with two cores.

    python benchmarks/distribute.py [--steps 12] [--rounds 2]

Both train the whole EfficientNet-Lite0 and a Dense head on the same images in memory, 32 a step,
by `fit` with a `MultiWorkerModel`, in turns. Expected: two workers reach at least 0.8 times as many
images per second, by the median of the steps, and the same losses within 1e-4. Exit 1 where that
does not hold.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np
import tensorflow as tf

import tfxfer
from tfxfer.distribute import devices, launch, workers
from tfxfer.tuning import optimizers

BATCH = 32


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds, self.losses, self.began = [], [], time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(np.mean(logs["loss"])))
        self.seconds.append(time.perf_counter() - self.began)


def child(steps: int) -> None:
    """Train, and print seconds and losses as JSON."""
    strategy = devices.strategy()
    # It is read outside the scope of the strategy.
    pretrained = tfxfer.savedmodel.read(tfxfer.handles.resolve("efficientnet-lite0").path)
    rng = np.random.default_rng(0)
    images, labels = (
        rng.uniform(size=(BATCH, 224, 224, 3)).astype(np.float32),
        rng.integers(0, 10, BATCH),
    )
    with strategy.scope():
        inputs = keras.Input((224, 224, 3))
        backbone = tfxfer.Backbone(pretrained, batch_norm="inference")
        model = tfxfer.MultiWorkerModel(
            inputs, keras.layers.Dense(10, kernel_initializer="zeros")(backbone(inputs))
        )
        optimizer = optimizers.layerwise(
            keras.optimizers.SGD, base=1e-3, decay=0.9, backbone=backbone, momentum=0.9
        )
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )

    def load(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(images, at), tf.gather(labels, at)

    data = workers.make_batches(
        strategy,
        np.tile(np.arange(BATCH), steps),
        BATCH,
        examples=tf.data.Dataset.from_tensor_slices,
        then=load,
    )
    watch = Steps()
    model.fit(
        data, verbose=0, shuffle=False, callbacks=[watch], **workers.steps_option(strategy, steps)
    )
    print(json.dumps({"seconds": watch.seconds[2:], "losses": watch.losses}), flush=True)
    workers.barrier(strategy)


def ran(count: int, steps: int) -> dict:
    """Train with `count` workers, and return what the first of them printed."""
    addresses = launch.free_addresses(count)
    started = []
    for index in range(count):
        env = {
            **os.environ,
            **({"TF_CONFIG": launch.config(addresses, index)} if count > 1 else {}),
        }
        words = [sys.executable, __file__, "--child", "--steps", str(steps)]
        started.append(
            subprocess.Popen(
                words,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=partial(launch.pin, index, count),
            )
        )
    said = [process.communicate() for process in started]
    if bad := [index for index, process in enumerate(started) if process.returncode]:
        raise SystemExit(said[bad[0]][1])
    return json.loads(said[0][0].splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.steps)
        return 0
    rates: dict[int, list[float]] = {1: [], 2: []}
    apart = 0.0
    for _ in range(options.rounds):
        found = {count: ran(count, options.steps) for count in rates}
        for count, values in rates.items():
            values += found[count]["seconds"]
        apart = max(
            apart,
            *(abs(a - b) for a, b in zip(found[1]["losses"], found[2]["losses"], strict=True)),
        )
    speed = {count: BATCH / float(np.median(values)) for count, values in rates.items()}
    print(
        f"{devices.cores()} cores: one process {speed[1]:.1f} images/s, "
        f"two workers {speed[2]:.1f} images/s"
    )
    print(
        f"ratio {speed[2] / speed[1]:.2f}, at least 0.8; losses apart by {apart:.1e}, at most 1e-4"
    )
    return int(speed[2] / speed[1] < 0.8 or apart > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
