"""Measures what `tfxfer choose` loses against the best of six networks, and how long it takes.

    python benchmarks/choose.py [--data FOLDER ...]

The sets are the demo and each folder of --data, with train/ and test/. Among EfficientNet-Lite0, 1
and 2 and three networks of keras.applications with random weights, `choose` takes one; it looks at
training examples only. Then a head is fitted on each network's features of the training part, and
judged on the test part. Regret is the best test accuracy less that of the network that was taken.
The time of the choice is compared with that of computing the features of the training part by the
networks that were judged by a head, each from an empty cache, in the same process.

Expected: never a random network, regret at most 0.010, and at most 1.5 times as long. Exit 1 where
that is not so.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from tfxfer import Backbone, data
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.features import Extractor
from tfxfer.heads import choose, ranges
from tfxfer.steps import choose_network
from tfxfer.steps.choose_network import Tried

TRAINED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
RANDOM = {
    "MobileNetV2": keras.applications.MobileNetV2,
    "MobileNetV3Small": keras.applications.MobileNetV3Small,
    "EfficientNetV2B0": keras.applications.EfficientNetV2B0,
}
MOST_REGRET, MOST_TIME = 0.010, 1.5


def random_networks(folder: Path) -> list[str]:
    """Write three networks with random weights as .keras files."""
    keras.utils.set_random_seed(0)
    for name, make in RANDOM.items():
        make(weights=None, include_top=False, input_shape=(224, 224, 3)).save(
            folder / f"{name}.keras"
        )
    return [str(folder / f"{name}.keras") for name in RANDOM]


def accuracy(name: str, examples: Examples, extract: Extractor) -> float:
    """Return the test accuracy of a head that was fitted on the training part."""
    train, test = (examples.take(examples.where(part)) for part in ("train", "test"))
    network = Backbone(name, trainable=False)
    ranges.settle(network, train, extract, seed=0)
    prefix = network.prefix(len(network.stages))
    features = extract(train, prefix)
    head = choose(
        features,
        features.examples.labels,
        len(train.classes),
        tap_widths=features.tap_widths,
        units=features.examples.units,
    ).fitted
    judged = extract(test, prefix)
    return float(np.mean(head.logits(judged).argmax(1) == judged.examples.labels))


def extraction_time(one: Tried, train: Examples) -> tuple[float, float]:
    """Return how many seconds it takes to open a network, and then to compute the features.

    The features are those of the training part, from an empty cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        network = Backbone(one.name, trainable=False)
        prefix = network.prefix(len(network.stages))
        opened = time.perf_counter()
        Extractor(Cache(folder))(train, prefix)
        return opened - began, time.perf_counter() - opened


def measure(handle: str, networks: list[str]) -> bool:
    """Print the choice on one set; return whether it is good enough."""
    examples = data.load(handle)
    with tempfile.TemporaryDirectory() as folder:
        extract = Extractor(Cache(folder))
        began = time.perf_counter()
        found = choose_network(examples, networks, extract)
        took = time.perf_counter() - began
        print(f"\n{handle}: {len(examples.where('train'))} training examples")
        for row in found.rows():
            print("  " + " ".join(f"{Path(cell).name:>22}" for cell in row))
        for name, reason in found.left_out.items():
            print(f"  {Path(name).name} was not tried: {reason}")
        judged = [one for one in found.tried if one.scores is not None]
        train = examples.take(examples.where("train"))
        opening, alone = np.sum([extraction_time(one, train) for one in judged], axis=0)
        tests = {name: accuracy(name, examples, extract) for name in networks}
    for name, value in tests.items():
        print(f"  test accuracy {value:.3f} {Path(name).name}")
    regret = max(tests.values()) - tests[found.best.name]
    print(f"  took {Path(found.best.name).name}: regret {regret:.3f}, at most {MOST_REGRET}")
    print(
        f"  in {took:.0f} s; the features of the {len(judged)} that were judged by a head take "
        f"{alone:.0f} s alone: {took / alone:.2f} times, at most {MOST_TIME}; with the time to "
        f"open these networks {took / (opening + alone):.2f} times"
    )
    return found.best.name in TRAINED and regret <= MOST_REGRET and took <= MOST_TIME * alone


def main() -> int:
    """Measure all sets; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", default=[], help="folders with train/ and test/")
    handles = ["demo", *parser.parse_args().data]
    with tempfile.TemporaryDirectory() as folder:
        networks = [*TRAINED, *random_networks(Path(folder))]
        results = [measure(handle, networks) for handle in handles]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
