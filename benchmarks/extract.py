"""Measures what extraction costs.

    pip install -e ".[openvino]" onnxruntime tf2onnx
    python benchmarks/extract.py [--backbone NAME] [--data FOLDER] [--images N] [--rounds N]
        [--skip-memory]

All ways compute the same network with all its taps, in one run: they take turns, and the medians of
their rates (images per second) count.

    plain        the layer with its variables, in a tf.function, batches of 32: what calling the
                 SavedModel does
    tensorflow   the TensorFlow engine
    bare ...     OpenVINO and ONNX Runtime used by hand, at the better of 1, 8 and 32 images a
                 request
    openvino     the OpenVINO engine, in float32 and in bf16
    decode       decoding the JPEG files of 256 px to pixels, alone
    extract      from files to cached features: the cost of each further image, without start-up

Then it measures the peak memory (RssAnon) of extraction with 1,000 and with 10,000 images, and the
test accuracy on the demo data with features in bf16 and in float32. Exit 1 where a target is
missed. The target for bf16 counts only where the CPU has AMX: AVX512_BF16 alone does not make it
faster, and the output says so.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import numpy as np
import tensorflow as tf
from PIL import Image

from tfxfer import data, heads
from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import Cache
from tfxfer.errors import EngineError
from tfxfer.features import Decoder, extract
from tfxfer.features.engines import needed, openvino_engine, tensorflow_engine

ROUND = 128  # images that each way computes in its turn
Way = Callable[[np.ndarray], object]


def make(folder: Path, count: int) -> Path:
    """Write `count` JPEG files of 256 px in two class folders.

    They are made from the demo's images, slightly shifted: no two have the same bytes.
    """
    demo, rng = data.load("demo"), np.random.default_rng(0)
    for name in ("even", "odd"):
        (folder / "train" / name).mkdir(parents=True)
    for i in range(count):
        image = (
            Image.open(io.BytesIO(demo.read(i % len(demo))))
            .convert("L")
            .resize((288, 288), Image.Resampling.BICUBIC)
        )
        left, top = rng.integers(0, 33, 2)
        noisy = np.clip(
            np.asarray(image)[top : top + 256, left : left + 256, None]
            + rng.normal(0, 8, (256, 256, 3)),
            0,
            255,
        )
        Image.fromarray(noisy.astype(np.uint8)).save(
            folder / "train" / ("even", "odd")[i % 2] / f"{i:05d}.jpg", quality=90
        )
    return folder


# --- ways to compute the network ---


def parts(x: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (x[i : i + size] for i in range(0, len(x), size))


def plain(backbone: Backbone) -> Way:
    call = tf.function(
        lambda x: backbone(x, training=False),
        input_signature=[tf.TensorSpec((None, *backbone.image_size, 3), tf.float32)],
    )
    return lambda x: [call(tf.constant(part)).numpy() for part in parts(x, 32)]


def bare_openvino(prefix: Prefix, size: int) -> Way:
    import openvino

    shape, graph = [size, *prefix.takes.shape], tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, shape, name="images")
        tf.graph_util.import_graph_def(needed(prefix), input_map={prefix.input: pixels}, name="")
    model = openvino.convert_model(graph, input=[(pixels.name, shape)], output=[prefix.output])
    compiled = openvino.Core().compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    )
    queue = openvino.AsyncInferQueue(compiled, 8)

    def run(x: np.ndarray) -> None:
        for part in parts(x, size):
            queue.start_async({0: part})
        queue.wait_all()

    return run


def bare_onnx(prefix: Prefix, size: int) -> Way:
    import onnxruntime
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(
        needed(prefix), input_names=[prefix.input], output_names=[prefix.output], opset=17
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: [session.run(None, {name: part}) for part in parts(x, size)]


def ways(backbone: Backbone, prefix: Prefix) -> dict[str, Way]:
    found: dict[str, Way] = {"plain": plain(backbone), "tensorflow": tensorflow_engine(prefix)}
    found |= (
        {"openvino": openvino_engine(prefix), "openvino bf16": openvino_engine(prefix, "bf16")}
        if available("openvino")
        else {}
    )
    for size in (1, 8, 32):
        for name, module, build in (
            ("bare OpenVINO", "openvino", bare_openvino),
            ("bare ONNX Runtime", "tf2onnx", bare_onnx),
        ):
            if available(module):
                found[f"{name}, {size}"] = build(prefix, size)
    return found


def available(module: str) -> bool:
    try:
        __import__(module)
    except ImportError as error:
        print(f"left out: {error}")
        return False
    return True


def rates(found: dict[str, Way], x: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Return the images per second of each way in each round.

    The ways take turns, after one turn to warm up.
    """
    taken: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        for name, run in found.items():
            began = time.perf_counter()
            run(x)
            if turn:
                taken[name].append(len(x) / (time.perf_counter() - began))
    return {name: np.array(values) for name, values in taken.items()}


# --- from files ---


def decoding(examples: data.Examples, prefix: Prefix) -> float:
    """Images per second of decoding alone."""
    pixels = Decoder(examples, prefix.takes, 32)
    done, began = 0, 0.0
    for positions, _ in pixels.batches(range(len(examples)), None):
        began, done = (time.perf_counter(), 0) if not began else (began, done + len(positions))
    return done / (time.perf_counter() - began)


def extraction(examples: data.Examples, prefix: Prefix, engine: str) -> tuple[float, float]:
    """Images per second, and seconds of start-up, from two extractions of different length."""
    few, seconds = len(examples) // 5, []
    for count in (few, len(examples)):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            extract(
                examples.take(np.arange(count)),
                prefix,
                cache=Cache(folder),
                engine=engine,
                progress=False,
            )
            seconds.append(time.perf_counter() - began)
    each = (seconds[1] - seconds[0]) / (len(examples) - few)
    return 1 / each, seconds[0] - few * each


# --- memory and accuracy ---


def watched(stop: threading.Event, peak: list[int]) -> None:
    """Keep the peak RssAnon of this process in `peak`, in KiB: mapped file pages don't count."""
    while not stop.wait(0.02):
        status = Path("/proc/self/status").read_text()
        peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]))


def peak(folder: str, count: int, backbone: str, engine: str) -> None:
    """Runs in a process of its own."""
    examples, found, stop = data.load(folder), [0], threading.Event()
    watcher = threading.Thread(target=watched, args=(stop, found))
    watcher.start()
    network = Backbone(backbone, trainable=False)
    with tempfile.TemporaryDirectory() as scratch:
        extract(
            examples.take(np.arange(count)),
            network.prefix(len(network.stages)),
            cache=Cache(scratch),
            engine=engine,
            progress=False,
        )
        stop.set()
        watcher.join()
    print(found[0])


def accuracies(network: Backbone) -> tuple[float, float, float]:
    """Test accuracy on the demo data in float32 and in bf16, and one standard error."""
    examples, prefix, found = data.load("demo"), network.prefix(len(network.stages)), []
    train, test = examples.where("train"), examples.where("test")
    for precision in ("float32", "bf16"):
        with tempfile.TemporaryDirectory() as folder:
            features = extract(
                examples,
                prefix,
                cache=Cache(folder),
                engine="openvino",
                precision=precision,
                progress=False,
            )
            head = heads.gaussian(
                features[train],
                examples.labels[train],
                len(examples.classes),
                widths=features.tap_widths,
            )
            found.append(
                float((head.logits(features[test]).argmax(1) == examples.labels[test]).mean())
            )
    return found[0], found[1], float(np.sqrt(found[0] * (1 - found[0]) / len(test)))


# --- the table ---


def target(
    name: str, value: float, bound: float, *, least: bool = True, counts: bool = True
) -> bool:
    holds = value >= bound if least else value <= bound
    verdict = ("holds" if holds else "MISSED") if counts else "does not count here"
    print(
        f"  {name:72s} {value:7.3f}   {'at least' if least else 'at most'} {bound:.3f}   {verdict}",
        flush=True,
    )
    return holds or not counts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument(
        "--data",
        type=Path,
        help=(
            "a folder of class folders of JPEG files of 256 px; "
            "made from the demo data where it is left out"
        ),
    )
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.peak[0], int(options.peak[1]), *options.peak[2:])
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return measure(options, Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> int:
    folder = options.data or make(
        scratch / "images", options.images if options.skip_memory else max(10_000, options.images)
    )
    examples = data.load(folder)
    examples = examples.take(np.arange(min(options.images, len(examples))))
    network = Backbone(options.backbone, trainable=False)
    prefix = network.prefix(len(network.stages))
    tapped = Backbone(options.backbone, trainable=False, taps=len(network.stages))
    amx = "amx_bf16" in Path("/proc/cpuinfo").read_text().split()
    print(
        f"{options.backbone}, {len(network.stages)} taps, {prefix.width} features, "
        f"{os.cpu_count()} cores, {'AMX' if amx else 'no AMX'}"
    )

    pixels = Decoder(examples, prefix.takes, ROUND)
    x = next(iter(pixels.batches(range(ROUND), None)))[1]
    found = rates(ways(tapped, prefix), x, options.rounds)
    for name, values in found.items():
        print(
            (
                f"  {name:24s} {np.median(values):7.1f} images/s  ({values.min():.1f} to "
                f"{values.max():.1f})"
            ),
            flush=True,
        )

    def ratio(one: str, other: str) -> float:
        return float(np.median(found[one] / found[other]))

    held = [target("tensorflow engine / plain", ratio("tensorflow", "plain"), 1.25)]
    if "openvino" in found:
        bare = max(
            (name for name in found if name.startswith("bare")),
            key=lambda name: np.median(found[name]),
        )
        held.append(target("openvino engine / plain", ratio("openvino", "plain"), 1.5))
        held.append(
            target(f"openvino engine / {bare}, the best by hand", ratio("openvino", bare), 0.95)
        )
        held.append(
            target(
                "openvino engine in bf16 / plain", ratio("openvino bf16", "plain"), 2.5, counts=amx
            )
        )
    for engine in [name for name in ("tensorflow", "openvino") if name in found]:
        turns = []
        for _ in range(3):
            decode, alone = (
                decoding(examples, prefix),
                float(np.median(rates({engine: ways_of(engine)(prefix)}, x, 3)[engine])),
            )
            rate, start = extraction(examples, prefix, engine)
            turns.append((rate * (1 / alone + 1 / decode), rate, start, alone, decode))
        share, rate, start, alone, decode = sorted(turns)[1]
        print(
            f"  {engine}: extract {rate:.1f}, network alone {alone:.1f}, "
            f"decode alone {decode:.1f} images/s; start-up {start:.1f} s"
        )
        held.append(target(f"extract with {engine}, share of what the cores allow", share, 0.9))
    if not options.skip_memory:
        peaks = [memory(folder, count, options.backbone) for count in (1_000, 10_000)]
        print(
            f"  peak RssAnon: {peaks[0] / 1024:.0f} MiB with 1,000 images, "
            f"{peaks[1] / 1024:.0f} MiB with 10,000"
        )
        held.append(
            target("peak memory, 10,000 images / 1,000", peaks[1] / peaks[0], 1.1, least=False)
        )
    if "openvino" in found:
        full, half, error = accuracies(network)
        print(
            f"  test accuracy on the demo data: float32 {full:.3f}, bf16 {half:.3f}, "
            f"one standard error {error:.3f}"
        )
        held.append(
            target(
                "loss of accuracy in bf16, in standard errors",
                abs(full - half) / error,
                1.0,
                least=False,
            )
        )
    return int(not all(held))


def ways_of(engine: str) -> Callable[[Prefix], Way]:
    return {"tensorflow": tensorflow_engine, "openvino": openvino_engine}[engine]


def memory(folder: Path, count: int, backbone: str) -> int:
    """Peak RssAnon in KiB of an extraction in a process of its own."""
    words = [sys.executable, __file__, "--peak", str(folder), str(count), backbone, "tensorflow"]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EngineError as error:
        sys.exit(f"Error: {error}")
