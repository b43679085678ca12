"""Kills processes at random moments, and checks that nothing is lost.

    python benchmarks/soak.py [--only NAME ...] [--kills 20] [--seed N]

    extraction   of the demo data's first 1,000 images, in shards of 64, killed by SIGKILL somewhere
                 between its start and its end, until that many kills hit a living process. No row
                 that was there is ever gone, and the features that are there at last are those of
                 an unbroken extraction, byte for byte.
    run          tfxfer run frozen --resume on the demo data, killed likewise. A run folder with a
                 manifest is whole, and what the last, unbroken call leaves is what an unbroken run
                 leaves: the same metrics, predictions and probabilities, byte for byte.
    partial,     the same with the recipes that train, on eight and three examples a class of the
    full         demo data: also the weights in model.keras are the same, bit for bit.
    workers      tfxfer launch --workers 2 -- run partial, on eight examples a class, one of the two
                 killed: the launcher must end within a minute, and what is resumed must end in the
                 weights and probabilities of an unbroken run within 1e-4.

Exit 1 where that does not hold.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np
import psutil

from tfxfer import data, features
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache

IMAGES = 1000
SAME = ("labels.txt", "metrics.json", "predictions.csv", "probabilities.npz", "history.csv")


def extracted(folder: Path) -> bytes:
    """All features of the first images of the demo data."""
    features.extraction.CHUNK = 64
    examples = data.load("demo").take(np.arange(IMAGES))
    return features.extract(
        examples,
        Backbone("efficientnet-lite0", trainable=False).prefix(8),
        cache=Cache(folder),
        progress=False,
    )[:].tobytes()


def killed(words: list[str], after: float) -> bool:
    """Start a process and kill it after some seconds; False where it had ended by itself."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"it failed by itself: {said.decode()}")
    return False


def seconds(words: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - began


def soak_extraction(scratch: Path, kills: int, rng: np.random.Generator) -> bool:
    words = [sys.executable, __file__, "--child"]
    # The second extraction finds all in the cache.
    whole, start = (seconds([*words, str(scratch / "unbroken")]) for _ in range(2))
    broken, rows, hits = scratch / "broken", 0, 0
    while hits < kills:
        # Each goes on where the one before was killed: less and less is left, and when nothing is
        # left it begins anew.
        hit = killed(
            [*words, str(broken)], rng.uniform() * (start + (whole - start) * (1 - rows / IMAGES))
        )
        found = sum(entry.rows for entry in Cache(broken).summary()) if broken.exists() else 0
        if found < rows:
            print(f"extraction: {rows} rows were there, {found} are left")
            return False
        rows, hits = found, hits + hit
        if not hit:
            if extracted(broken) != extracted(scratch / "unbroken"):
                return False
            Cache(broken).clear()
            rows = 0
    same = extracted(broken) == extracted(scratch / "unbroken")
    print(f"extraction: killed {hits} times in {whole:.1f} s of work; the same bytes: {same}")
    return same


def few(folder: Path, train: int) -> Path:
    """Write `train` training examples and four test examples a class."""
    demo = data.load("demo")
    for split, count in (("train", train), ("test", 4)):
        for label, name in enumerate(demo.classes):
            (folder / split / name).mkdir(parents=True)
            for i in [i for i in demo.where(split) if demo.labels[i] == label][:count]:
                (folder / split / name / f"{i}.png").write_bytes(demo.read(int(i)))
    return folder


def soak_run(scratch: Path, kills: int, rng: np.random.Generator) -> bool:
    return soak_recipe(scratch, kills, rng, "frozen")


def soak_partial(scratch: Path, kills: int, rng: np.random.Generator) -> bool:
    return soak_recipe(
        scratch,
        kills,
        rng,
        "partial",
        "--data",
        str(few(scratch / "few-partial", 8)),
        "--epochs",
        "4",
        "--head",
        "gaussian",
    )


def soak_full(scratch: Path, kills: int, rng: np.random.Generator) -> bool:
    options = (
        "--epochs",
        "2",
        "--head",
        "gaussian",
        "--learning-rate",
        "0.003",
        "--augment",
        "flip",
    )
    return soak_recipe(
        scratch, kills, rng, "full", "--data", str(few(scratch / "few-full", 3)), *options
    )


def soak_recipe(
    scratch: Path, kills: int, rng: np.random.Generator, recipe: str, *options: str
) -> bool:
    def words(out: Path) -> list[str]:
        house = ["--seed", "0", "--cache", str(scratch / "features"), "--out", str(out), "--resume"]
        return [sys.executable, "-m", "tfxfer", "run", recipe, *options, *house]

    same, hits, whole = soaked(recipe, words, scratch, kills, rng, killed, alike)
    print(f"{recipe}: killed {hits} times in {whole:.1f} s of work; the same files: {same}")
    return same


def soak_workers(scratch: Path, kills: int, rng: np.random.Generator) -> bool:
    data, longest = str(few(scratch / "few-workers", 8)), 0.0

    def words(out: Path) -> list[str]:
        house = ["--seed", "0", "--cache", str(scratch / "features"), "--out", str(out), "--resume"]
        recipe = [
            "run",
            "partial",
            "--data",
            data,
            "--epochs",
            "4",
            "--head",
            "gaussian",
            "--learning-rate",
            "0.003",
            *house,
        ]
        return [sys.executable, "-m", "tfxfer", "launch", "--workers", "2", "--", *recipe]

    def one_killed(words: list[str], after: float) -> bool:
        nonlocal longest
        launcher = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            launcher.communicate(timeout=after)
            return False
        except subprocess.TimeoutExpired:
            workers = [child for child in launcher.children() if "TF_CONFIG" in child.environ()]
        if workers:
            workers[rng.integers(len(workers))].kill()
        began = time.monotonic()
        said = launcher.communicate(timeout=300)[1].decode()
        longest = max(longest, time.monotonic() - began)
        if workers and launcher.returncode and "was killed by SIGKILL" not in said:
            raise SystemExit(f"it failed by itself: {said}")
        return bool(workers)

    same, hits, whole = soaked("workers", words, scratch, kills, rng, one_killed, near)
    print(
        f"workers: one of two killed {hits} times in {whole:.1f} s of work; "
        f"all had ended {longest:.0f} s later at most; the same end: {same}"
    )
    return same and longest < 60


def soaked(
    name: str,
    words: Callable[[Path], list[str]],
    scratch: Path,
    kills: int,
    rng: np.random.Generator,
    kill: Callable[[list[str], float], bool],
    same: Callable[[Path, Path], bool],
) -> tuple[bool, int, float]:
    """Kill and resume until `kills` kills have hit.

    Returns whether every run that comes to its end is the same as an unbroken one, how many kills
    hit, and the seconds of an unbroken run.
    """
    unbroken, broken = scratch / f"unbroken-{name}", scratch / f"broken-{name}"
    hits = finished = 0
    seconds(words(scratch / f"first-{name}"))  # fills the cache
    whole = seconds(words(unbroken))
    while hits < kills:
        hits += kill(words(broken), rng.uniform() * whole)
        print(f"{name}: {hits} kills so far", file=sys.stderr, flush=True)
        if (broken / "manifest.json").exists():
            if not same(broken, unbroken):
                return False, hits, whole
            finished += 1
            broken = broken.with_name(f"broken-{name}-{finished}")
    seconds(words(broken))
    return same(broken, unbroken), hits, whole


def weights(folder: Path) -> list[np.ndarray]:
    return [
        v.numpy() for v in keras.models.load_model(folder / "model.keras", compile=False).variables
    ]


def alike(one: Path, other: Path) -> bool:
    different = [name for name in SAME if (one / name).read_bytes() != (other / name).read_bytes()]
    different += (
        ["model.keras"]
        if not all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
        else []
    )
    print("".join(f"run: {one / name} differs\n" for name in different), end="")
    return not different


def near(one: Path, other: Path) -> bool:
    answers = [np.load(folder / "probabilities.npz")["probabilities"] for folder in (one, other)]
    pairs = [*zip(weights(one), weights(other), strict=True), answers]
    return all(np.abs(np.asarray(a, np.float64) - b).max() < 1e-4 for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=["extraction", "run", "partial", "full", "workers"]
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        extracted(options.child)
        return 0
    soaks = {
        "extraction": soak_extraction,
        "run": soak_run,
        "partial": soak_partial,
        "full": soak_full,
        "workers": soak_workers,
    }
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        held = [
            soak(Path(scratch), options.kills, rng)
            for name, soak in soaks.items()
            if options.only is None or name in options.only
        ]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
