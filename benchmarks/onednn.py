"""Compares TensorFlow with oneDNN, as tfxfer starts it, and without.

    python benchmarks/onednn.py [--rounds 2]

TensorFlow turns oneDNN on by itself on some CPUs only; here it is turned on or off explicitly. For
EfficientNet-Lite0 with all taps on batches of 32, it measures the images per second of the constant
graph that features are computed with and of a training step of the whole network, each in a process
of its own, the best of all rounds; and by how much an image's features change with its place in the
batch. Expected on any CPU: with oneDNN not slower, and no change at all. Exit 1 where that is not
so.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

BATCH = 32


def measured() -> dict[str, float]:
    """Return what is measured in this process."""
    import keras
    import numpy as np

    import tfxfer

    images, labels = (
        np.random.default_rng(0).random((BATCH, 224, 224, 3), dtype=np.float32),
        np.arange(BATCH) % 10,
    )
    network = tfxfer.Backbone("efficientnet-lite0", batch_norm="inference", taps=16)
    run = tfxfer.features.engines.tensorflow_engine(network.prefix(16))
    model = keras.Sequential([keras.Input(images.shape[1:]), network, keras.layers.Dense(10)])
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    moved = float(np.abs(np.roll(run(np.roll(images, 5, 0)), -5, 0) - run(images)).max())
    return {
        "features": speed(lambda: run(images)),
        "training": speed(lambda: model.train_on_batch(images, labels)),
        "moved": moved,
    }


def speed(step: Callable[[], object], steps: int = 5) -> float:
    """Images per second of the fastest of some steps."""
    step()
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return BATCH / min(taken)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measured()))
        return 0
    best = {
        "0": {"features": 0.0, "training": 0.0, "moved": 0.0},
        "1": {"features": 0.0, "training": 0.0, "moved": 0.0},
    }
    for _ in range(options.rounds):
        for switch, found in best.items():
            environment = {
                **os.environ,
                "TF_ENABLE_ONEDNN_OPTS": switch,
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            done = subprocess.run(
                [sys.executable, __file__, "--once"],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            best[switch] = {
                name: max(value, found[name])
                for name, value in json.loads(done.stdout.splitlines()[-1]).items()
            }
    off, on = best["0"], best["1"]
    for name in ("features", "training"):
        print(
            f"{name}: with oneDNN {on[name]:.1f} images/s, without {off[name]:.1f}; "
            f"ratio {on[name] / off[name]:.2f}, at least 0.95"
        )
    print(
        f"features moved in the batch differ by at most {on['moved']:.1e} with oneDNN, "
        f"{off['moved']:.1e} without; at most 0 with it"
    )
    return int(
        on["features"] < 0.95 * off["features"]
        or on["training"] < 0.95 * off["training"]
        or on["moved"] > 0
    )


if __name__ == "__main__":
    sys.exit(main())
