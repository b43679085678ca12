"""Compares a training step in mixed precision with one in float32, in one run.

    python benchmarks/precision.py [--steps 6]

It trains the whole EfficientNet-Lite0 and its last two stages, batch 32, and prints the ratio of
images per second. On a CPU, mixed precision is refused because of this ratio; on a GPU the ratio
should be above 1. Exit 1 where `--precision mixed` is refused and would have been faster, or is not
refused and is slower.
"""

import argparse
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np

import tfxfer
from tfxfer.distribute import devices
from tfxfer.errors import DistributeError

BATCH = 32


def stepper(precision: str, unfreeze: int | str):
    """A function that does one step and returns its seconds."""
    network = tfxfer.Backbone("efficientnet-lite0", batch_norm="inference", precision=precision)
    network.unfreeze(unfreeze)
    model = keras.Sequential([keras.Input((224, 224, 3)), network, keras.layers.Dense(10)])
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(BATCH, 224, 224, 3)).astype(np.float32), rng.integers(0, 10, BATCH)

    def step() -> float:
        began = time.monotonic()
        model.train_on_batch(x, y)
        return time.monotonic() - began

    return step


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    device = devices.choose().device
    try:
        devices.require_mixed(device)
        allowed = True
    except DistributeError:
        allowed = False
    right = True
    for name, unfreeze in (("whole network", "all"), ("last two stages", 2)):
        steps = {precision: stepper(precision, unfreeze) for precision in ("float32", "mixed")}
        seconds: dict[str, list[float]] = {precision: [] for precision in steps}
        for i in range(options.steps + 1):
            for precision, step in steps.items():  # in turns, so that both see the same machine
                taken = step()
                seconds[precision] += [taken] if i else []
        medians = {precision: statistics.median(taken) for precision, taken in seconds.items()}
        ratio = medians["float32"] / medians["mixed"]
        rates = ", ".join(
            f"{precision} {BATCH / taken:.1f} images/s" for precision, taken in medians.items()
        )
        print(
            (
                f"{device}, {name}: {rates}; mixed / float32 {ratio:.2f}; "
                f"{'allowed' if allowed else 'refused'}"
            ),
            flush=True,
        )
        right = right and allowed == (ratio > 1)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
