"""Measures what serving costs.

    python benchmarks/serving.py [--images 10000] [--rounds 15] [--data FOLDER]

    serving   an export's default signature on 32 JPEG files of 256 px, against the bare network on
              ready tensors plus the decoding of those files; also of an export with
              --on-bad-image null. The three take turns; medians of their times count. At most 1.05.
    predict   images per second of `tfxfer predict` on --images files, after start-up, against
              extraction of the same network's features. At least 0.9.
    litert    the three LiteRT files of the run: bytes, milliseconds an image, and accuracy on the
              demo data's test part, which no choice was made on. int8: at most 0.33 of float32's
              bytes, and at most 2 points below the float model.

The run is `tfxfer run frozen` on the demo data, or on --data. Exit 1 where a bound is missed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import numpy as np
import tensorflow as tf
from extract import make

from tfxfer import data, serving
from tfxfer.backbone import Backbone
from tfxfer.features import Decoder, compute_batches, of_prefix
from tfxfer.inputs.image import ImageInput
from tfxfer.run import open_run
from tfxfer.serving.litert import run_lite
from tfxfer.serving.model import load_model, open_network

BATCH = 32
STARTED = 10 * BATCH  # images after which a stream has started up


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each way; they take turns, after two to warm up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 2):
        for name, call in ways.items():
            began = time.perf_counter()
            call()
            if i > 1:
                found[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in found.items()}


def rate(counts: Iterator[int], total: int) -> float:
    """Images per second of a stream of counts, after start-up."""
    done, began = 0, 0.0
    for count in counts:
        if not began and done >= STARTED:
            first, began = done, time.perf_counter()
        done += count
    assert done == total
    return (total - first) / (time.perf_counter() - began)


def requests(run: Path, to: Path, folder: Path, rounds: int) -> bool:
    """Measure the first part, `serving`."""
    network = open_network(run)
    strict, null = (
        tf.saved_model.load(str(serving.export(run, to, on_bad_image=bad))).signatures[
            "serving_default"
        ]
        for bad in ("error", "null")
    )
    files = tf.constant([path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:BATCH]])
    pixels = network.decode(files)[0]
    call = tf.function(
        lambda x: network.call(x)["probabilities"],
        input_signature=[tf.TensorSpec((None, *network.takes.shape), tf.float32)],
    )
    ways = {
        "network": lambda: call(pixels),
        "decoding": lambda: network.decode(files),
        "serving": lambda: strict(inputs=files),
        "serving, null": lambda: null(inputs=files),
    }
    found = medians(ways, rounds)
    bare = found["network"] + found["decoding"]
    print(
        f"{BATCH} files: network {1e3 * found['network']:.1f} ms, "
        f"decoding {1e3 * found['decoding']:.1f} ms"
    )
    print(
        f"serving {1e3 * found['serving']:.1f} ms; serving / (network + decoding) "
        f"{found['serving'] / bare:.3f}, at most 1.05"
    )
    print(
        f"serving with --on-bad-image null {1e3 * found['serving, null']:.1f} ms; "
        f"{found['serving, null'] / bare:.3f}, reported only"
    )
    return found["serving"] <= 1.05 * bare


def streams(run: Path, folder: Path, count: int) -> bool:
    """Measure the second part, `predict`."""
    examples = data.load(folder)
    backbone = next(
        layer for layer in load_model(run / "model.keras").layers if isinstance(layer, Backbone)
    )
    how = of_prefix(backbone.prefix(backbone.taps), "tensorflow", "float32")
    positions = list(range(len(examples)))
    extraction = rate(
        (
            n
            for n, _ in compute_batches(
                how, Decoder(examples, how.takes, BATCH), [positions], bad=None
            )
        ),
        count,
    )
    predict = rate(
        (1 for _ in serving.predict(run, [folder], top_k=3, sets=0.9, unknown=True)), count
    )
    print(
        f"{count:,} files: extraction {extraction:.1f} images/s, predict {predict:.1f} images/s; "
        f"ratio {predict / extraction:.3f}, at least 0.9"
    )
    return predict >= 0.9 * extraction


def phones(run: Path, to: Path) -> bool:
    """Measure the third part, `litert`.

    The export refuses nothing here, because the accuracy that it loses is what is measured.
    """
    found = serving.export_litert(run, to, max_accuracy_drop=1)
    settings = open_run(run).settings()
    examples = data.load(settings["data"]["value"], seed=settings["seed"]["value"])
    test = examples.where("test")
    pixels = Decoder(
        examples,
        ImageInput(tuple(settings["image_size"]["value"]), tuple(settings["value_range"]["value"])),
        BATCH,
    )
    truth, model = examples.labels[test], load_model(run / "model.keras")
    float_model = np.mean(
        model.predict(pixels.dataset(test).batch(BATCH), verbose=0).argmax(1) == truth
    )
    sizes, drops = {}, {}
    for kind in ("float32", "float16", "int8"):
        content = (found / f"model.{kind}.tflite").read_bytes()
        answers, milliseconds = run_lite(content, (image.numpy() for image in pixels.dataset(test)))
        sizes[kind], drops[kind] = (
            len(content),
            100 * (float_model - np.mean(answers.argmax(1) == truth)),
        )
        print(
            f"{kind}: {len(content):,} bytes, {milliseconds:.1f} ms an image, "
            f"{drops[kind]:+.1f} points below the float model's {float_model:.3f} on test"
        )
    print(
        f"int8 / float32 {sizes['int8'] / sizes['float32']:.3f}, at most 0.33; "
        f"drop {drops['int8']:.1f} points, at most 2"
    )
    return sizes["int8"] <= 0.33 * sizes["float32"] and drops["int8"] <= 2


def main() -> None:
    """All parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", default="demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run = work / "run"
        subprocess.run(
            [sys.executable, "-m", "tfxfer", "run", "frozen", "--data", options.data, "--out", run],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        folder = make(work / "photos", options.images)
        if not all(
            [
                requests(run, work / "serving", folder, options.rounds),
                streams(run, folder, options.images),
                phones(run, work / "phone"),
            ]
        ):
            sys.exit(1)


if __name__ == "__main__":
    main()
