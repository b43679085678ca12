"""Compares `tfxfer grow` with a fit on all photos, and measures how long it takes.

    python benchmarks/grow.py OLD NEW

OLD and NEW are folders of class folders, such as ants and bees, and signs. A run of the Gaussian is
made on a copy of OLD; the copy and the cache are deleted, and the run grows by NEW from what it
keeps. The other head is fitted on the features of OLD and NEW together, in a random order. Both
answer the test photos of OLD and NEW, with the temperature of the grown run. Where the run keeps
features, since there are few, the head is also fitted from sums, as for many photos.

Expected: the logits differ by at most 1e-5, and the head is there in under 2 seconds, without the
extraction of the features of NEW and the start of TensorFlow. Exit 1 where that is not so.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import tfxfer
from tfxfer import heads, serving
from tfxfer.data.union import add_examples, load_more
from tfxfer.heads import growable
from tfxfer.heads.fitted import Fitted
from tfxfer.heads.statistics import Statistics, add, gather, gaussian_of, widen
from tfxfer.recipe import find
from tfxfer.run import Finished

MOST_DIFFERENCE, MOST_SECONDS = 1e-5, 2.0


def grow_alone(old: Path, new: Path, work: Path, backbone: str) -> Finished:
    """Make a run on a copy of the old photos, delete these and the cache, and grow the run."""
    shutil.copytree(old, work / "photos")
    run = tfxfer.Run(work / "run", cache=str(work / "cache"))
    options = {"head": "gaussian", "mirror": "no", "backbone": backbone}
    find("frozen")(run, data=str(work / "photos"), **options)
    shutil.rmtree(work / "photos")
    shutil.rmtree(work / "cache")
    return tfxfer.grow(work / "run", new, out=work / "grown", cache=str(work / "cache"))


def compare(grown: Finished, old: Path, new: Path, cache: Path) -> dict[str, tuple[float, float]]:
    """Compare the logits of the grown head with those of a head fitted on all.

    Returns:
        for the grown run, and for sums, the largest difference, and the seconds of the fit.
    """
    model = serving.load_model(grown.path("model.keras"))
    (network,) = [layer for layer in model.layers if isinstance(layer, tfxfer.Backbone)]
    kind = grown.kind()
    first = load_more(old, kind=kind)
    everything = add_examples(first, load_more(new, kind=kind))
    prefix = network.prefix(len(network.stages))
    features = tfxfer.features.extract(everything, prefix, cache=tfxfer.Cache(cache))
    kept = growable.load(grown.path("statistics.npz"))
    widths, classes = kept.statistics.widths, len(everything.classes)
    train = np.random.default_rng(0).permutation(everything.where("train"))
    labels = everything.labels[train]
    fitted = heads.gaussian(features[train], labels, classes, widths)
    shares = np.log(np.bincount(labels) / len(labels)) * kept.prior
    test = features[everything.where("test")]
    bias = fitted.bias + kept.temperature * (shares - shares.mean())
    refit = replace(fitted, temperature=kept.temperature, bias=bias.astype(np.float32))
    seen = test[:, -sum(widths) :]
    expected, logits = refit.layer()(seen).numpy(), model.layers[-1](seen).numpy()
    form = "sums over" if kept.statistics.features is None else "features of"
    print(
        f"{len(train):,} training photos of {classes} classes, {len(test):,} test photos; the run "
        f"keeps {form} {sum(widths):,} columns; the largest logit is {np.abs(expected).max():.1f}"
    )
    fits = {"the run alone": (logits, float(grown.settings()["seconds"]["value"]["head"]))}
    train = everything.where("train")
    rows, labels = features[train], everything.labels[train]
    head, seconds = from_sums(rows, labels, train < len(first), len(first.classes), classes, widths)
    again = replace(head, temperature=kept.temperature, bias=head.bias + (refit.bias - fitted.bias))
    fits["sums"] = (again.layer()(seen).numpy(), seconds)
    return {
        name: (float(np.abs(values - expected).max()), taken)
        for name, (values, taken) in fits.items()
    }


def from_sums(
    features: np.ndarray,
    labels: np.ndarray,
    old: np.ndarray,
    old_classes: int,
    classes: int,
    widths: tuple[int, ...],
) -> tuple[Fitted, float]:
    """Fit the Gaussian on the sums of old and new examples, and return it with the seconds."""

    def sums_of(rows: np.ndarray, count: int) -> Statistics:
        gathered = gather(features[rows], labels[rows], count, widths)
        return Statistics(widths, count, sums=gathered.summed())

    before = sums_of(old, old_classes)
    began = time.perf_counter()
    fitted = gaussian_of(add(widen(before, classes), sums_of(~old, classes)))
    return fitted, time.perf_counter() - began


def main() -> int:
    """Measure both, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="folder of the photos of the first run")
    parser.add_argument("new", type=Path, help="folder of the photos that are added")
    parser.add_argument("--backbone", default="efficientnet-lite0", help="pretrained network")
    asked = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        grown = grow_alone(asked.old, asked.new, work, backbone=asked.backbone)
        found = compare(grown, asked.old, asked.new, work / "cache")
    good = True
    for name, (difference, seconds) in found.items():
        print(
            f"from {name}: largest difference of logits {difference:.1e}, at most "
            f"{MOST_DIFFERENCE:.0e}; {seconds:.2f} s, at most {MOST_SECONDS:.0f} s"
        )
        good &= difference <= MOST_DIFFERENCE and seconds < MOST_SECONDS
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
