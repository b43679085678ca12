"""Find the range of pixel values that a network expects, by trying ranges on training images.

This is for networks whose range neither the user, nor the catalog, nor their graph tells.
"""

import logging

import numpy as np

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.features import Extractor
from tfxfer.heads import choose
from tfxfer.savedmodel import RANGES

LOG = logging.getLogger(__name__)
TRIED = 200  # training images that are used
FEWEST = 20  # with fewer training images, no range can be preferred


def settle(
    network: Backbone,
    examples: Examples,
    extract: Extractor,
    *,
    seed: int,
    most: int = TRIED,
) -> None:
    """Set the network's `value_range` to the one with the best features, if nothing else tells it.

    Each of 0 to 1, -1 to 1 and 0 to 255 is tried on at most `most` training images, by
    cross-validation. 0 to 1 stays unless another range is better by more than a standard error of
    the difference. A log line says which range is used.
    """
    low, high = network.value_range
    if network.range_from == "graph":
        LOG.info(f"Pixels go in from {low:g} to {high:g}, as the network's graph tells.")
    if network.range_from != "assumed":
        return
    LOG.info("Trying which range of pixels the network expects")
    train = np.random.default_rng(seed).permutation(examples.where("train"))[:most]
    train = np.sort(train)
    if len(train) < FEWEST or len(set(examples.strata[train])) < 2:
        LOG.info(
            f"Pixels go in from {low:g} to {high:g}, which is assumed: nothing tells it, and there "
            "are too few training images to try. Say what the network expects with --value-range."
        )
        return
    scores = {}
    for tried in RANGES:
        network.value_range = tried
        # Bad images are reported later, when all images are read.
        features = extract(examples.take(train), network.prefix(), skip_bad_images=True)
        kept = features.examples
        choice = choose(
            features,
            kept.labels,
            len(kept.classes),
            tap_widths=features.tap_widths or (features.feature_size,),
            head=kept.task.TRIED[0],
            task=kept.task,
            units=kept.units,
            seed=seed,
        )
        scores[tried] = kept.task.prediction_scores(choice.out_of_fold, kept.labels)
    best = RANGES[0]
    for tried in RANGES[1:]:
        gain = scores[tried] - scores[best]
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            best = tried
    network.value_range = best
    shares = ", ".join(f"{a:g} to {b:g}: {scores[a, b].mean():.3f}" for a, b in RANGES)
    LOG.info(
        f"Pixels go in from {best[0]:g} to {best[1]:g}. Nothing tells what the network expects, so "
        f"this was tried on {len(scores[best])} training images ({shares}). If you know it, say it "
        "with --value-range."
    )
