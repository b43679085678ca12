"""Compares the frozen recipe with plain Keras, from photos on disk to a test figure and a model.

    python benchmarks/frozen.py [--images 1000 10000]

Makes JPEG files of 256 px from the demo's images, slightly shifted and rotated, no two alike (four
fifths train, one fifth test), and times whole processes in one run:

    plain       the same MLP on a frozen `keras.layers.TFSMLayer`, `image_dataset_from_directory`
                and `fit` at batch 128: 2 epochs are timed and count for 20
    mlp, cold   tfxfer run frozen --head mlp --epochs 20, with an empty cache
    mlp, warm   the same again, from the cache
    auto, cold  tfxfer run frozen: the default head, cross-validation included, with an empty cache

Of mlp, baselines and report, which plain Keras does not have, are left out; of auto they are not.
Expected with 10,000 images: mlp at least 12 times as fast as plain when cold and 60 times when
warm; auto at most 1.6 times the time of its own extraction of features; auto's peak memory
(RssAnon, sampled: mapped file pages don't count) at most 1.5 times that with 1,000 images plus one
matrix of all features by all features. Exit 1 where one is not.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 10
WIDTH = 5_536  # features of all taps of EfficientNet-Lite0


def make(folder: Path, count: int) -> None:
    """`count` JPEG files in train/ and test/."""
    from PIL import Image  # not an ordinary dependency

    from tfxfer import data

    demo, rng = data.load("demo"), np.random.default_rng(0)
    for i in range(count):
        k = int(rng.integers(len(demo.files)))
        image = (
            Image.open(io.BytesIO(demo.read(k)))
            .convert("L")
            .resize((256, 256), Image.Resampling.BICUBIC)
        )
        shift = tuple(int(v) for v in rng.integers(-16, 17, 2))
        image = image.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC, translate=shift)
        place = folder / ("test" if i % 5 == 0 else "train") / str(demo.labels[k])
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{i:05d}.jpg", quality=90)


def plain(data: Path, out: Path) -> dict[str, float]:
    """Train as a Keras user does today.

    Returns the seconds of the start, of two epochs, and of test and saving, and the test accuracy.
    """
    began = time.monotonic()
    import keras

    from tfxfer import handles, heads

    def images(part: str, shuffle: bool):
        return keras.utils.image_dataset_from_directory(
            data / part,
            image_size=(224, 224),
            batch_size=128,
            shuffle=shuffle,
            seed=0,
            verbose=False,
        )

    path = str(handles.resolve("efficientnet-lite0").path)
    keras.utils.set_random_seed(0)
    pixels = keras.Input((224, 224, 3))
    features = keras.layers.TFSMLayer(path, call_endpoint="serving_default", trainable=False)(
        keras.layers.Rescaling(1 / 255)(pixels)
    )["features"]
    model = keras.Model(pixels, heads.MLP(CLASSES)(features))
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    train, test = images("train", True), images("test", False)
    start = time.monotonic()
    model.fit(train, epochs=2, verbose=0)
    fitted = time.monotonic()
    _, accuracy = model.evaluate(test, verbose=0)
    model.save(out / "plain.keras")
    return {
        "start": start - began,
        "epochs": fitted - start,
        "end": time.monotonic() - fitted,
        "accuracy": accuracy,
    }


def recipe(
    data: Path, out: Path, cache: Path, *options: str
) -> tuple[float, dict[str, float], float, int]:
    """Run the recipe.

    Returns the seconds of the whole, the seconds of each part, the test accuracy and the peak
    RssAnon in KiB.
    """
    began, peak = time.monotonic(), 0
    words = [
        sys.executable,
        "-m",
        "tfxfer",
        "run",
        "frozen",
        "--data",
        str(data),
        "--out",
        str(out),
        "--cache",
        str(cache),
        *options,
    ]
    with open(f"{out}.log", "w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, *(int(kib) for kib in re.findall(r"RssAnon:\s+(\d+)", status)), 0)
            time.sleep(0.02)
    whole = time.monotonic() - began
    if process.returncode:
        raise SystemExit(
            f"{Path(log.name).read_text()}exit {process.returncode}: {' '.join(words)}"
        )
    parts = json.loads((out / "settings.json").read_text())["seconds"]["value"]
    accuracy = json.loads((out / "metrics.json").read_text())["test"]["accuracy"]
    return whole, parts, accuracy, peak


def without_report(whole: float, parts: dict[str, float]) -> float:
    """The seconds that are compared with plain Keras, which fits no baselines and has no report."""
    return whole - parts["baselines"] - parts["report"]


def measure(count: int, scratch: Path) -> tuple[bool, int]:
    """Whether the bounds hold, and auto's peak memory in KiB."""
    data = scratch / f"images-{count}"
    make(data, count)
    print(
        f"\n{count:,} images" + ("" if count >= 10_000 else " (start-up weighs more; no bound)"),
        flush=True,
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--plain", str(data), str(scratch)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    whole, found = time.monotonic() - began, json.loads(done.stdout.splitlines()[-1])
    rival = whole + 9 * found["epochs"]
    show("plain", rival, 1.0, "(test after 2 epochs)", found.pop("accuracy"), found)
    mlp, parts, accuracy, _ = recipe(
        data,
        scratch / f"mlp-{count}",
        scratch / f"cache-{count}",
        "--head",
        "mlp",
        "--epochs",
        "20",
    )
    mlp = without_report(mlp, parts)
    show("mlp, cold", mlp, rival / mlp, "at least 12", accuracy, parts)
    warm, parts, accuracy, _ = recipe(
        data,
        scratch / f"warm-{count}",
        scratch / f"cache-{count}",
        "--head",
        "mlp",
        "--epochs",
        "20",
    )
    warm = without_report(warm, parts)
    show("mlp, warm", warm, rival / warm, "at least 60", accuracy, parts)
    auto, parts, accuracy, peak = recipe(
        data, scratch / f"auto-{count}", scratch / f"other-{count}"
    )
    times = auto / parts["features"]
    show("auto, cold", auto, times, "x features: at most 1.6", accuracy, parts)
    return count < 10_000 or (rival / mlp >= 12 and rival / warm >= 60 and times <= 1.6), peak


def show(
    name: str, seconds: float, ratio: float, bound: str, accuracy: float, parts: dict[str, float]
) -> None:
    shown = ", ".join(f"{key} {value:.1f}" for key, value in parts.items())
    print(
        (
            f"{name:11s} {seconds:8.1f} s  {ratio:6.2f} {bound:24s} "
            f"test accuracy {accuracy:.3f}   [{shown}]"
        ),
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--plain", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # As tfxfer does, for all that is compared here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    if options.plain:
        print(json.dumps(plain(*options.plain)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure(count, Path(scratch)) for count in options.images]
        held, (few, many) = all(holds for holds, _ in found), (found[0][1], found[-1][1])
        matrix = 4 * WIDTH * WIDTH // 1024
        print(
            "\npeak RssAnon of auto, cold: "
            f"{few / 1024:.0f} MiB with {options.images[0]:,} images, "
            f"{many / 1024:.0f} MiB with {options.images[-1]:,}"
        )
        print(
            f"at most 1.5 x {few / 1024:.0f} + {matrix / 1024:.0f} = "
            f"{(1.5 * few + matrix) / 1024:.0f} MiB"
        )
        return int(not held or many > 1.5 * few + matrix)


if __name__ == "__main__":
    sys.exit(main())
