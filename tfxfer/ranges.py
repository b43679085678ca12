"""Which pixels a network expects, where neither the user, the catalog nor its graph tells: tried on
training images.
"""

import logging
from collections.abc import Callable

import numpy as np

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.features import Extractor
from tfxfer.probe import choose
from tfxfer.savedmodel import RANGES

LOG = logging.getLogger(__name__)
TRIED = 200  # training images
FEWEST = 20  # below that nothing can be told


def settle(
    network: Backbone,
    examples: Examples,
    extract: Extractor,
    *,
    seed: int,
    log: Callable[[str], None],
) -> None:
    """Set the network's `value_range` to the one with the best features, if nothing else told it,
    and say so.

    Each of 0 to 1, -1 to 1 and 0 to 255 is tried on at most 200 training images, by
    cross-validation. 0 to 1 stays
    unless another one is better by more than a standard error of the difference.
    """
    low, high = network.value_range
    if network.range_from == "graph":
        log(f"Pixels go in from {low:g} to {high:g}, as the network's graph tells.")
    if network.range_from != "assumed":
        return
    LOG.info("Trying which range of pixels the network expects")
    train = np.random.default_rng(seed).permutation(examples.where("train"))[:TRIED]
    train = np.sort(train)
    if len(train) < FEWEST or len(set(examples.labels[train])) < 2:
        log(
            f"Pixels go in from {low:g} to {high:g}, which is assumed: nothing tells it, and "
            "there are too few "
            "training images to try. Say what the network expects with --value-range."
        )
        return
    right = {}
    for tried in RANGES:
        network.value_range = tried
        # Bad images are told of when all are read.
        features = extract(examples.take(train), network.prefix(), skip_bad_images=True)
        kept = features.examples
        found = choose(
            features,
            kept.labels,
            len(kept.classes),
            features.tap_widths or (features.feature_size,),
            head="gaussian",
            units=kept.units,
            seed=seed,
            log=lambda line: None,
        )
        right[tried] = found.out_of_fold.argmax(1) == kept.labels
    best = RANGES[0]
    for tried in RANGES[1:]:
        gain = right[tried].astype(float) - right[best]
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            best = tried
    network.value_range = best
    shares = ", ".join(f"{a:g} to {b:g}: {right[a, b].mean():.3f}" for a, b in RANGES)
    log(
        f"Pixels go in from {best[0]:g} to {best[1]:g}. Nothing tells what the network expects, "
        "so this was tried on "
        f"{len(right[best])} training images ({shares}). If you know it, say it with --value-range."
    )
