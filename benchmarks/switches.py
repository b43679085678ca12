"""Compares TensorFlow with the switches that tfxfer sets, and without each of them.

    python benchmarks/switches.py [--rounds 8]

oneDNN     TensorFlow turns it on by itself on some CPUs only.
allocator  TensorFlow's own keeps freed memory; by default it is used only where there is a GPU.

For EfficientNet-Lite0 with all taps on batches of 32, it measures the images per second of the
constant graph that features are computed with and of a training step of the whole network. Each
way of starting TensorFlow has a process of its own; they work in turns, and the median of all
rounds counts. It also says by how much an image's features change with its place in the batch.
Expected on any CPU: not slower with either switch, and no change at all. Exit 1 where that is not
so.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median_high

BATCH = 32
SWITCHES = {"oneDNN": "TF_ENABLE_ONEDNN_OPTS", "allocator": "TF_CPU_ALLOCATOR_USE_BFC"}


def work() -> None:
    """Measure once for each line on standard input, and print the figures as JSON."""
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
    model.train_on_batch(images, labels)
    for _ in sys.stdin:
        figures = {
            "features": speed(lambda: run(images)),
            "training": speed(lambda: model.train_on_batch(images, labels)),
            "moved": moved,
        }
        print(json.dumps(figures), flush=True)


def speed(step: Callable[[], object], steps: int = 2) -> float:
    """Images per second of some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return BATCH * steps / (time.perf_counter() - began)


def start(changed: dict[str, str]) -> subprocess.Popen:
    """Start a process that measures with these variables."""
    return subprocess.Popen(
        [sys.executable, __file__, "--work"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **changed},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen) -> dict[str, float]:
    """Return what the process measures now."""
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    on = dict.fromkeys(SWITCHES.values(), "1")
    ways = {"both": on} | {name: on | {SWITCHES[name]: "0"} for name in SWITCHES}
    processes = {name: start(changed) for name, changed in ways.items()}
    rounds = [
        {name: ask(process) for name, process in processes.items()} for _ in range(options.rounds)
    ]
    for process in processes.values():
        process.communicate()
    held = True
    for what in ("features", "training"):
        rate = median_high(found["both"][what] for found in rounds)
        print(f"{what}: {rate:.1f} images/s as tfxfer starts TensorFlow")
        for name in SWITCHES:
            ratio = median_high(found["both"][what] / found[name][what] for found in rounds)
            print(f"{what}: {ratio:.2f} times as fast as without {name}, at least 0.95")
            held &= ratio >= 0.95
    moved = max(found["both"]["moved"] for found in rounds)
    print(f"features moved in the batch differ by at most {moved:.1e}; at most 0")
    return int(not held or moved > 0)


if __name__ == "__main__":
    sys.exit(main())
