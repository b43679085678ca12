"""Measures several labels and numbers on data that is made from photos, and says so.

    python benchmarks/answers.py [--data FOLDER ...] [--only SET ...] [--recipe RECIPE]

The photos are those of the demo and of each folder of --data, which has train/ and test/, each with
a folder for each class. A photo of train is used for training data only, one of test for test data
only. Four sets are made of each:

pairs   two photos side by side; the labels are the classes of both, so an example has one or two
angle   a photo that was turned by -45 to 45 degrees, cut to a circle on grey; the number is that
blur    a photo on which a Gaussian blur was laid; the number is its radius, from 0 to 4 pixels
both    a turned photo as in angle; its class and its angle are two columns, answered at once

For each set a run of the recipe is made, and compared with the plain baseline: the same kind of
head on small grey-level pictures, without a pretrained network. Printed are the score of both on
test, the paired difference with its standard error; for labels what each threshold promises (recall
and precision on held-out training photos) against test; for numbers how many intervals hold the
true number.

For both, each column is compared with a run of its own on the same examples.

Expected: the difference is above two standard errors. The share of intervals that hold the true
number is within two binomial standard errors of 0.9. Recall and precision of labels on test are
within two binomial standard errors of those on held-out photos (of both shares together), but for
as many as chance leaves outside (one in twenty; the limit is exceeded in 2.5 % of such tables).
Exit 1 where that is not so.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import stats

import tfxfer
from tfxfer import data
from tfxfer.data import Examples
from tfxfer.safety.arrays import read_arrays
from tfxfer.tasks import TASKS

SIDE = 224
GREY = (128, 128, 128)
MOST = {"train": 600, "test": 300}
Row = tuple[Image.Image, dict[str, str]]


def photos(
    examples: Examples, part: str, rng: np.random.Generator
) -> Iterator[tuple[int, Image.Image]]:
    """Yield (position, photo) of one part in random order."""
    for i in rng.permutation(examples.where(part)):
        content = examples.read(int(i))
        with tempfile.SpooledTemporaryFile() as file:
            file.write(content)
            file.seek(0)
            yield int(i), Image.open(file).convert("RGB").resize((SIDE, SIDE))


def pairs(examples: Examples, part: str, rng: np.random.Generator) -> Iterator[Row]:
    """Yield two photos side by side, and whether each class is on one of them."""
    several = photos(examples, part, rng)
    for (i, left), (j, right) in zip(several, several, strict=False):
        both = Image.new("RGB", (SIDE, SIDE))
        both.paste(left.resize((SIDE // 2, SIDE)), (0, 0))
        both.paste(right.resize((SIDE // 2, SIDE)), (SIDE // 2, 0))
        there = {int(examples.labels[i]), int(examples.labels[j])}
        yield both, {name: str(int(k in there)) for k, name in enumerate(examples.classes)}


def both(examples: Examples, part: str, rng: np.random.Generator) -> Iterator[Row]:
    """Yield a turned photo in a circle, which shows nothing of the corners; its class and angle."""
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).ellipse((0, 0, SIDE, SIDE), fill=255)
    for i, photo in photos(examples, part, rng):
        degrees = float(rng.uniform(-45, 45))
        plain = Image.new("RGB", (SIDE, SIDE), GREY)
        plain.paste(photo.rotate(degrees, Image.Resampling.BICUBIC), (0, 0), mask)
        yield plain, {"kind": examples.classes[examples.labels[i]], "angle": f"{degrees:.3f}"}


def angle(examples: Examples, part: str, rng: np.random.Generator) -> Iterator[Row]:
    """Yield the same photos as `both`, with their angle alone."""
    for photo, labels in both(examples, part, rng):
        yield photo, {"angle": labels["angle"]}


def blur(examples: Examples, part: str, rng: np.random.Generator) -> Iterator[Row]:
    """Yield a blurred photo, and the radius of the blur in pixels."""
    for _, photo in photos(examples, part, rng):
        radius = float(rng.uniform(0, 4))
        yield photo.filter(ImageFilter.GaussianBlur(radius)), {"radius": f"{radius:.4f}"}


MAKERS: dict[str, tuple[str, Callable[..., Iterator[Row]]]] = {
    "pairs": ("multilabel", pairs),
    "angle": ("regress", angle),
    "blur": ("regress", blur),
    "both": ("classify", both),
}


def write(examples: Examples, make: Callable[..., Iterator[Row]], folder: Path) -> Path:
    """Write the photos of a set and its table, and return the path of the table."""
    rows = []
    for seed, part in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        for number, (photo, labels) in enumerate(make(examples, part, rng)):
            if number == MOST[part]:
                break
            name = f"{part}-{number:04d}.png"
            photo.save(folder / name)
            rows.append({"path": name, "split": part, **labels})
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def measure(source: str, name: str, recipe: str) -> bool:
    """Print one set's figures; return whether they are good enough."""
    task, make = MAKERS[name]
    with tempfile.TemporaryDirectory() as folder:
        table = write(data.load(source), make, Path(folder))
        model = tfxfer.Transfer("efficientnet-lite0", task=task).fit(table, recipe=recipe)
        metrics = model.run.metrics()
        arrays = read_arrays(model.run.path("probabilities.npz"))
        mine = arrays["splits"] == "test"
        kind = TASKS[task]
        own = kind.prediction_scores(arrays["probabilities"][mine], arrays["labels"][mine])
        base = metrics["baselines"]["raw_pixels"]
        n, score = metrics["test"]["n"], kind.SCORE
        plain = model.run.settings()["verdict"]["value"]
        print(f"\n{source}, {name}: {n} test examples, recipe {recipe}")
        print(f"  {score} {metrics['test'][score]:.3f}, plain baseline {base[score]:.3f}")
        print(f"  {plain}")
        print(f"  {json.dumps({k: v for k, v in metrics['test'].items() if k != 'classes'})}")
        good = "helps" in plain
        error = float(own.std() / np.sqrt(n))
        print(f"  standard error of the score {error:.3f}")
        for one in metrics["test"].get("numbers", {}).values():
            bound = 2 * float(np.sqrt(0.9 * 0.1 / n))
            print(f"  intervals that hold the number: {one['inside']:.3f}, 0.9 ± {bound:.3f}")
            good &= abs(one["inside"] - 0.9) <= bound
        if labels := metrics["test"].get("classes"):
            good &= print_promises(labels, metrics["validation"]["classes"])
        return bool(good)


def print_promises(test: dict[str, Any], held_out: dict[str, Any]) -> bool:
    """Print recall and precision of each label on test and on held-out photos.

    Returns:
        whether no more of them differ by two standard errors than by chance.
    """
    outside = []
    for label, one in test.items():
        said = [f"threshold {one['threshold']:.2f}"]
        for name, of in (("recall", "n"), ("precision", "predicted")):
            counts, shares = np.array([(each[of], each[name]) for each in (one, held_out[label])]).T
            if (counts == 0).any():
                continue
            share, promised = shares.astype(float)
            both = float((counts * shares).sum() / counts.sum())
            error = float(np.sqrt(both * (1 - both) * (1 / counts.astype(float)).sum()))
            outside.append(abs(share - promised) > 2 * error)
            said.append(f"{name} {share:.3f}, promised {promised:.3f} ± {2 * error:.3f}")
        print(f"  {label}: {'; '.join(said)}")
    most = int(stats.binom.ppf(0.975, len(outside), 0.05))
    print(f"  outside: {sum(outside)} of {len(outside)}, by chance at most {most}")
    return sum(outside) <= most


def measure_columns(source: str, recipe: str) -> bool:
    """Compare two columns that are answered at once with a run for each; print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        table = write(data.load(source), both, Path(folder))
        scores = {}
        for name, task, labels in (
            ("both", "classify", ("kind", "angle")),
            ("kind", "classify", ("kind",)),
            ("angle", "regress", ("angle",)),
        ):
            model = tfxfer.Transfer("efficientnet-lite0", task=task, label=labels)
            scores[name] = model.fit(table, recipe=recipe).run.metrics()["test"]
    good = True
    print(f"\n{source}, both: {scores['both']['n']} test examples, recipe {recipe}")
    for column, score in (("kind", "accuracy"), ("angle", "R2")):
        here, alone = scores["both"]["columns"][column], scores[column]
        error = (alone["high"] - alone["low"]) / (2 * 1.96)
        print(
            f"  {column}: {score} {here[score]:.3f} beside the other, {alone[score]:.3f} alone, "
            f"standard error {error:.3f}"
        )
        good &= here[score] >= alone[score] - error
    return good


def main() -> int:
    """Measure all sets; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", default=[], help="folders with train/ and test/")
    parser.add_argument("--only", choices=list(MAKERS), nargs="*", default=list(MAKERS))
    parser.add_argument("--recipe", default="frozen", choices=["frozen", "partial", "full"])
    given = parser.parse_args()
    sources = ["demo", *given.data]
    results = [
        measure_columns(source, given.recipe)
        if name == "both"
        else measure(source, name, given.recipe)
        for source in sources
        for name in given.only
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
