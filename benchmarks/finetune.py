"""Compares frozen, partial and full on several data sets, as a user runs them.

    python benchmarks/finetune.py [--data FOLDER ...] [--seeds 3] [--only NAME ...]
        [--recipes partial full] [--keep FOLDER]

    few        ten examples a class of the demo's training part, its whole test part
    FOLDER     each folder of --data, with train/ and test/ (ants and bees, say), by its name
    demo       the demo data
    turned     the demo data inverted and turned by up to 60 degrees: the network never saw such
               images
    noisy      the demo data, dim and under noise, like radar or ultrasound: made so that frozen
               features are poor and there is something to gain

Each recipe runs with its defaults and each seed. The model that it chose, frozen or tuned, is
judged on the test part, against `frozen` on the same examples. Expected: on no set is the chosen
model, in the mean over the seeds, more than one paired standard error below frozen, and on `noisy`
that of `full` is more than one above it. Exit 1 where that is not so. It takes hours: with --keep
the runs stay in a folder, and the next call goes on from there.
"""

import argparse
import contextlib
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tfxfer import data
from tfxfer.tasks import paired

FEW = 10
TO_GAIN = ("noisy", "full")


def few(folder: Path) -> None:
    """Write ten training examples a class, and the whole test part."""
    demo = data.load("demo")
    train = demo.where("train")
    kept = np.concatenate(
        [train[demo.labels[train] == label][:FEW] for label in range(len(demo.classes))]
    )
    for i in [*kept, *demo.where("test")]:
        write(folder, demo, int(i), demo.read(int(i)))


def turned(folder: Path) -> None:
    """Write all of the demo data, inverted and turned."""
    demo, rng = data.load("demo"), np.random.default_rng(0)
    for i in range(len(demo)):
        image = enlarged(ImageOps.invert(grey(demo, i))).rotate(
            float(rng.uniform(-60, 60)), Image.Resampling.BICUBIC, fillcolor=255
        )
        write(folder, demo, i, png(image))


def noisy(folder: Path) -> None:
    """Write all of the demo data, at a third of its contrast, under noise."""
    demo, rng = data.load("demo"), np.random.default_rng(0)
    for i in range(len(demo)):
        pixels = np.asarray(enlarged(grey(demo, i)), np.float32)
        write(
            folder,
            demo,
            i,
            png(
                Image.fromarray(
                    np.clip(0.35 * pixels + 80 + rng.normal(0, 60, pixels.shape), 0, 255).astype(
                        np.uint8
                    )
                )
            ),
        )


def grey(demo: data.Examples, i: int) -> Image.Image:
    return Image.open(io.BytesIO(demo.read(i))).convert("L")


def enlarged(image: Image.Image) -> Image.Image:
    return image.resize((112, 112), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, examples: data.Examples, i: int, encoded: bytes) -> None:
    place = folder / examples.splits[i] / examples.classes[examples.labels[i]]
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{i:05d}.png").write_bytes(encoded)


def run(
    recipe: str, source: str, seed: int, out: Path, cache: Path
) -> tuple[dict[str, bool], str, float]:
    """Return which test files were right, what was chosen, and the seconds that it took."""
    began = time.monotonic()
    words = [
        sys.executable,
        "-m",
        "tfxfer",
        "run",
        recipe,
        "--data",
        source,
        "--seed",
        str(seed),
        "--out",
        str(out),
        "--cache",
        str(cache),
        "--resume",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}exit {done.returncode}: {' '.join(words)}")
    with open(out / "predictions.csv") as file:
        right = {
            row["file"]: row["true"] == row["predicted"]
            for row in csv.DictReader(file)
            if row["split"] == "test"
        }
    settings = json.loads((out / "settings.json").read_text())
    return right, settings.get("why", {}).get("value", "frozen"), time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--recipes", nargs="+", default=["partial", "full"])
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    held = True
    with (
        contextlib.nullcontext(options.keep)
        if options.keep
        else tempfile.TemporaryDirectory() as scratch
    ):
        folder = Path(scratch)
        sources = {"demo": "demo"} | {path.name: str(path) for path in options.data}
        made = {"few", "turned", "noisy"}
        only = options.only or [*sources, *sorted(made)]
        for name, make in (("few", few), ("turned", turned), ("noisy", noisy)):
            if name in only:
                if not (folder / name).exists():
                    make(folder / f"{name}.part")
                    (folder / f"{name}.part").rename(folder / name)
                sources[name] = str(folder / name)
        for name in [name for name in only if name in sources]:
            found: dict[str, list[np.ndarray]] = {
                recipe: [] for recipe in ("frozen", *options.recipes)
            }
            for seed in range(options.seeds):
                for recipe, rights in found.items():
                    right, why, seconds = run(
                        recipe,
                        sources[name],
                        seed,
                        folder / f"{name}-{recipe}-{seed}",
                        folder / "cache",
                    )
                    rights.append(np.array([right[file] for file in sorted(right)]))
                    print(
                        (
                            f"{name:8s} {recipe:8s} seed {seed}: {rights[-1].mean():.3f} on test, "
                            f"{seconds:.0f} s. {why}"
                        ),
                        flush=True,
                    )
            for recipe in options.recipes:
                pairs = [
                    paired(one, frozen)
                    for one, frozen in zip(found[recipe], found["frozen"], strict=True)
                ]
                gain, error = (float(np.mean([pair[i] for pair in pairs])) for i in (0, 1))
                holds = gain > error if (name, recipe) == TO_GAIN else gain >= -error
                held = held and holds
                print(
                    (
                        f"{name:8s} {recipe:8s} against frozen: "
                        f"{100 * gain:+.2f} ± {100 * error:.2f} points  "
                        f"{'holds' if holds else 'MISSED'}"
                    ),
                    flush=True,
                )
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
