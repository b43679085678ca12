"""Find out whether the mean of the features of a photo and its mirror image predicts better."""

import logging
from dataclasses import replace

import numpy as np

from tfxfer import heads
from tfxfer.data import Examples
from tfxfer.errors import DataError
from tfxfer.features import Features
from tfxfer.tasks import Task, paired, said_of_gain

LOG = logging.getLogger(__name__)
# Up to this many photos, "auto" tries mirror images: computing their features takes twenty seconds
# on two cores with EfficientNet-Lite0.
MOST = 2_000


def are_computed(mirror: str, examples: Examples) -> bool:
    """Whether the features of mirror images are computed, too.

    Args:
        mirror: "yes", "no", or "auto", which computes them if there are at most `MOST` photos.

    Raises:
        DataError: "yes", and such examples have no mirror image.
    """
    if examples.kind.MIRROR is None:
        if mirror == "yes":
            raise DataError(
                f"{examples.source} holds examples of the kind {examples.kind_name}, which have no "
                "mirror image. Leave --mirror out."
            )
        return False
    return mirror == "yes" or (mirror == "auto" and len(examples) <= MOST)


def choose_head(
    mirror: str, features: Features, *, head: str, seed: int
) -> tuple[heads.Choice, Features]:
    """Choose a head on features with mirror images or without; returns it with these features.

    Args:
        mirror: "yes" keeps mirror images. "auto" keeps them only if the log loss on held-out photos
            falls by more than its standard error, because each prediction takes twice the time
            with them.
        features: features of training photos, with two views if mirror images were computed.
        head, seed: as for `heads.choose`.
    """
    examples = features.examples
    LOG.info("Fitting classifiers")

    def fit(part: Features) -> heads.Choice:
        return heads.choose(
            part,
            examples.labels,
            len(examples.classes),
            tap_widths=part.tap_widths or (part.feature_size,),
            head=head,
            task=examples.task,
            units=examples.units,
            seed=seed,
        )

    if len(features.views) == 1:
        return fit(features), features
    asked = mirror == "yes"
    with_them, without = fit(features), fit(features.one_side)
    better, said = compare(
        with_them.out_of_fold, without.out_of_fold, examples.labels, task=examples.task
    )
    used = asked or better
    advice = "" if used == better else " --mirror no is as good, in half the time."
    note = f"mirror images: {said}: they are {'used' if used else 'not used'}.{advice}"
    choice = with_them if used else without
    return replace(choice, lines=(*choice.lines, note)), features if used else features.one_side


def compare(
    both: np.ndarray, alone: np.ndarray, labels: np.ndarray, *, task: Task
) -> tuple[bool, str]:
    """Whether mirror images lower the loss by more than its standard error; also in words.

    Args:
        both, alone: predictions [n, K] of held-out examples, with mirror images and without.
    """
    known = task.can_judge(labels, both) & task.can_judge(labels, alone)
    smaller = task.prediction_losses(alone[known], labels[known]) - task.prediction_losses(
        both[known], labels[known]
    )
    gain = float(smaller.mean()) if known.any() else 0.0
    error = float(smaller.std() / np.sqrt(max(known.sum(), 1)))
    scores, before = task.prediction_scores(both, labels), task.prediction_scores(alone, labels)
    points, wrong = paired(scores[known], before[known])
    return gain > error, (
        f"held-out {task.SCORE} {scores.mean():.3f} with them and {before.mean():.3f} without "
        f"({said_of_gain(points, wrong, percent=task.PERCENT)}), "
        f"{task.LOSS} {'larger' if gain < 0 else 'smaller'} by {abs(gain):.4f} ± {error:.4f}"
    )
