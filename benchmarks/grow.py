"""Compares `tfxfer grow` with a fit on all photos, and measures how long it takes.

    python benchmarks/grow.py OLD NEW

OLD and NEW are folders of class folders, such as ants and bees, and signs. A run of the Gaussian is
made on a copy of OLD; the copy and the cache are deleted, and the run grows by NEW from what it
keeps. The other head is fitted on the features of OLD and NEW together, in a random order. Both
answer the test photos of OLD and NEW, with the temperature of the grown run.

Expected: the logits differ by at most 1e-5, and the grown head is there in under 2 seconds, without
the extraction of the features of NEW and the start of TensorFlow. Exit 1 where that is not so.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import tfxfer
from tfxfer import heads, serving
from tfxfer.data.union import add_examples, load_more
from tfxfer.heads import growable
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


def compare(grown: Finished, old: Path, new: Path, cache: Path) -> float:
    """Return the largest difference of the grown logits from those of a head fitted on all."""
    model = serving.load_model(grown.path("model.keras"))
    (network,) = [layer for layer in model.layers if isinstance(layer, tfxfer.Backbone)]
    kind = grown.kind()
    everything = add_examples(load_more(old, kind=kind), load_more(new, kind=kind))
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
    return float(np.abs(logits - expected).max())


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
        difference = compare(grown, asked.old, asked.new, work / "cache")
        seconds = grown.settings()["seconds"]["value"]["head"]
    print(f"largest difference of logits {difference:.1e}, at most {MOST_DIFFERENCE:.0e}")
    print(f"the grown head took {seconds:.2f} s, at most {MOST_SECONDS:.0f} s")
    return 0 if difference <= MOST_DIFFERENCE and seconds < MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
