"""Measures how time and memory of a run grow with the number of files.

    python benchmarks/scale.py [--counts 1000 10000 100000]

Makes small JPEG files of two classes, no two alike, and a small network, so that what is done for
each file weighs as much as it can. `tfxfer run frozen` runs on each number of files, as a process
of its own, from an empty cache. Printed are the seconds of each part, the milliseconds for each
file, and the peak of RssAnon (sampled: mapped pages of files don't count).

Expected: with ten times as many files as in the run before, where that had at least 10,000, at most
1.05 times the seconds for each file and at most 1.1 times the memory. Exit 1 where that is not so.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import simplejpeg
from sklearn.datasets import load_sample_image

SIDE = 40  # pixels of a file
ENOUGH = 10_000  # files from which on the bounds hold: with fewer, the start weighs more


@dataclass(frozen=True)
class Run:
    """What a run took.

    seconds: of the whole process.
    parts: seconds of each part of it.
    peak: the largest RssAnon, in KiB.
    """

    count: int
    seconds: float
    parts: dict[str, float]
    peak: int

    @property
    def each(self) -> float:
        """Milliseconds for each file."""
        return 1000 * self.seconds / self.count


def write_files(folder: Path, count: int) -> None:
    """Write pieces of two pictures, a fifth of them as the test part."""
    rng = np.random.default_rng(0)
    pictures = {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for i in range(count):
        name = list(pictures)[i % 2]
        place = folder / ("test" if i % 10 < 2 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        height, width, _ = pictures[name].shape
        top, left = rng.integers(height - SIDE), rng.integers(width - SIDE)
        piece = pictures[name][top : top + SIDE, left : left + SIDE]
        noisy = np.clip(piece + rng.normal(0, 8, piece.shape), 0, 255).astype(np.uint8)
        (place / f"{i:06d}.jpg").write_bytes(simplejpeg.encode_jpeg(noisy, quality=90))


def write_network(path: Path) -> None:
    """Write a small network with random weights."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(16 * 2**i, 3, 2, activation="relu") for i in range(3)]
    network = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    network.add(keras.layers.GlobalAveragePooling2D())
    network.save(path)


def run(data: Path, network: Path, out: Path, count: int) -> Run:
    """Run the recipe frozen on the files, from an empty cache."""
    words = [sys.executable, "-m", "tfxfer", "run", "frozen", "--data", data, "--out", out]
    words += ["--backbone", network, "--value-range", "0,1", "--cache", f"{out}-cache"]
    began, peak = time.monotonic(), 0
    with open(f"{out}.log", "w") as log:
        process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(kib) for kib in re.findall(r"RssAnon:\s+(\d+)", status))])
            time.sleep(0.05)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(Path(log.name).read_text())
    parts = json.loads((out / "settings.json").read_text())["seconds"]["value"]
    return Run(count=count, seconds=seconds, parts=parts, peak=peak)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    counts = parser.parse_args().counts
    found: list[Run] = []
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / "network.keras"
        write_network(network)
        for count in counts:
            data = Path(scratch) / f"files-{count}"
            write_files(data, count)
            found.append(run(data, network, Path(scratch) / f"run-{count}", count))
            shown = ", ".join(f"{name} {value:.1f}" for name, value in found[-1].parts.items())
            print(
                f"{count:9,} files {found[-1].seconds:7.1f} s  {found[-1].each:6.2f} ms each  "
                f"{found[-1].peak / 1024:6.0f} MiB  [{shown}]",
                flush=True,
            )
    held = True
    for few, many in itertools.pairwise(found):
        time_ratio, memory_ratio = many.each / few.each, many.peak / few.peak
        bound = few.count >= ENOUGH
        print(
            f"{few.count:,} -> {many.count:,}: {time_ratio:.2f} times the seconds for each file, "
            f"{memory_ratio:.2f} times the memory" + (", at most 1.05 and 1.1" if bound else "")
        )
        held &= not bound or (time_ratio <= 1.05 and memory_ratio <= 1.1)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
