"""Find out which augmentations leave the labels alone.

A mirrored letter, for example, is another letter. Held-out examples show whether a change of the
image changes its label.
"""

import logging
from functools import partial

import numpy as np

from tfxfer.backbone import Prefix
from tfxfer.data.folds import deal, sample
from tfxfer.distribute.workers import broadcast_from_chief
from tfxfer.features import Extractor, Features
from tfxfer.heads import gaussian
from tfxfer.tasks import paired

LOG = logging.getLogger(__name__)
COMPARED, FOLDS = 500, 5


def harmless(
    features: Features,
    rows: np.ndarray,
    prefix: Prefix,
    extract: Extractor,
    *,
    seed: int = 0,
) -> tuple[str, ...]:
    """Return the kinds of augmentation whose views a frozen head recognises as well as the images.

    A loss of accuracy up to two paired standard errors is allowed.

    Args:
        features: features from all taps, computed by `prefix`.
        rows: positions of training examples. At most 500 of them are used, each judged by a head
            that was fitted without it.
    """
    examples, kinds = features.examples, []
    few = rows[sample(examples.strata[rows], COMPARED, seed)]
    part = features.take(few)
    for kind in examples.kind.AUGMENTATIONS:
        LOG.info("Trying on %s photos whether %s leaves them recognisable", f"{len(few):,}", kind)
        if kind == examples.kind.MIRROR:
            view = Features(
                examples=part.examples,
                views=extract(part.examples, prefix, mirror=True).views[1:],
                tap_widths=features.tap_widths,
                feature_size=features.feature_size,
            )
        else:
            view = extract(part.examples, prefix, augment=(kind,), number=0)
        loss, error = broadcast_from_chief(extract.strategy, partial(loss_of, part, view, seed))
        if np.isnan(loss):
            LOG.info(
                f"{kind}: no image can be held out to tell whether it leaves labels alone, "
                "so it is not used"
            )
            continue
        good = loss <= 2 * error
        why = (
            "it changes what is seen, not used"
            if not good
            else "no loss, so used"
            if loss <= 0
            else "within two standard errors of no loss, so used"
        )
        LOG.info(
            f"{kind}: held-out {examples.task.SCORE} of photos changed so "
            f"{0 - 100 * loss:+.1f} ± {100 * error:.1f} points: {why}"
        )
        kinds += [kind] if good else []
    return tuple(kinds)


def loss_of(plain: Features, view: Features, seed: int) -> tuple[float, float]:
    """Return how much less often held-out views are recognised than images, and its standard error.

    The heads are fitted on images, and the standard error is a paired one. Both values are nan
    where nothing is held out.
    """
    present, labels = np.unique(plain.examples.labels, return_inverse=True)
    folds = deal(labels, FOLDS, seed, units=plain.examples.units)
    scores = np.zeros((2, len(labels)))
    for fold in range(folds.max() + 1):
        held = np.flatnonzero(folds == fold)
        head = gaussian(
            plain,
            labels,
            len(present),
            widths=plain.tap_widths or (plain.feature_size,),
            rows=np.flatnonzero(folds != fold),
        )
        for i, features in enumerate((plain, view)):
            outputs = head.logits(features[held])
            scores[i, held] = plain.examples.task.scores(outputs, labels[held])
    known = folds >= 0
    if not known.any():
        return np.nan, np.nan
    return paired(scores[0][known], scores[1][known])
