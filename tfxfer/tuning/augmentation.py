"""Find out which augmentations keep the labels right.

A mirrored letter, for example, is another letter. Held-out examples show whether a change of the
image changes its label.
"""

import logging
from functools import partial

import numpy as np

from tfxfer.backbone import Prefix
from tfxfer.data import Examples
from tfxfer.data.decoding import Alteration, Decoder
from tfxfer.data.folds import deal, sample
from tfxfer.distribute.workers import broadcast_from_chief
from tfxfer.features import Extractor, Features
from tfxfer.heads import gaussian
from tfxfer.heads.several import fit_several
from tfxfer.inputs import Input
from tfxfer.tasks import paired, said_of_gain

LOG = logging.getLogger(__name__)
COMPARED, FOLDS = 500, 5
DECODED = 32  # examples that are decoded at once


def harmless(
    features: Features,
    rows: np.ndarray,
    prefix: Prefix,
    extract: Extractor,
    *,
    seed: int = 0,
) -> tuple[str, ...]:
    """Return the kinds of augmentation after which a frozen head is not clearly worse.

    A kind that changes no example is not among them: its copies would all be the same. A head may
    lose at most two paired standard errors of accuracy.

    Args:
        features: features from all taps, computed by `prefix`.
        rows: positions of training examples. About 500 of them are used, at least two of each
            class, and each is judged by a head that was fitted without it.
    """
    examples, kinds = features.examples, []
    many, task = examples.kind.MANY, examples.task
    few = rows[sample(examples.strata[rows], COMPARED, seed)]
    part = features.take(few)
    for kind in examples.kind.AUGMENTATIONS:
        if changes_none(part.examples, prefix.takes, kind):
            LOG.info(f"{kind} is not used: it changes none of {len(few):,} {many}")
            continue
        LOG.info(f"Testing on {len(few):,} {many} whether they are still recognised after {kind}")
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
            LOG.info(f"{kind} is not used: there are too few {many} of each class to test it")
            continue
        good = loss <= 2 * error
        why = (
            f"it makes {many} harder to recognise, so it is not used"
            if not good
            else "no loss, so it is used"
            if loss <= 0
            else "the loss may be chance (at most two standard errors), so it is used"
        )
        change = said_of_gain(0 - loss, error, percent=task.PERCENT)
        LOG.info(f"{kind} changes the {task.SCORE} on held-out {many} by {change}: {why}")
        kinds += [kind] if good else []
    return tuple(kinds)


def changes_none(examples: Examples, takes: Input, kind: str) -> bool:
    """Return whether a network gets the same of all altered examples as of the examples themselves.

    This is looked for only where the contents of files are altered.
    """
    if not examples.kind.ALTERS_CONTENTS:
        return False
    rows = range(len(examples))
    plain = Decoder(examples, takes, DECODED).each(rows)
    altered = Decoder(examples, takes, DECODED, Alteration((kind,), 0)).each(rows)
    return all(np.array_equal(one, other) for one, other in zip(plain, altered, strict=True))


def loss_of(plain: Features, view: Features, seed: int) -> tuple[float, float]:
    """Return the accuracy on photos minus that on altered ones, and its standard error.

    All of them are held out. The heads are fitted on unaltered photos of the other folds, and the
    standard error is a paired one. Both values are nan where nothing can be held out.
    """
    task = plain.examples.task
    present, labels = task.present(plain.examples.labels, len(plain.examples.classes))
    folds = deal(task.strata(labels), FOLDS, seed, units=plain.examples.units)
    scores = np.zeros((2, len(labels)))
    widths = plain.tap_widths or (plain.feature_size,)
    for fold in range(folds.max() + 1):
        held = np.flatnonzero(folds == fold)
        rows = np.flatnonzero(folds != fold)
        if task.CLASSES:
            head = gaussian(plain, labels, len(present), widths=widths, rows=rows)
        else:
            codes = task.codes(labels, len(present))
            head = fit_several("ridge", plain, codes, widths, rows=rows)
        for i, features in enumerate((plain, view)):
            outputs = head.logits(features[held])
            scores[i, held] = task.scores(outputs, labels[held])
    known = folds >= 0
    if not known.any():
        return np.nan, np.nan
    return paired(scores[0][known], scores[1][known])
