"""The head of a run, fitted again on the old and the new examples."""

from dataclasses import dataclass, replace

import numpy as np

from tfxfer import heads, outcome
from tfxfer.data import Examples
from tfxfer.data.union import add_examples
from tfxfer.evaluate.doubt import Doubt
from tfxfer.features import Extractor, Features
from tfxfer.growth.before import Before, number_units
from tfxfer.heads import Averaged, Fitted, SideBySide, statistics
from tfxfer.heads.growable import Growable
from tfxfer.outcome import Outcome
from tfxfer.run import Run
from tfxfer.steps.head import write_growable, write_statistics
from tfxfer.steps.result import Result, joined


@dataclass(frozen=True, eq=False)
class WithoutOld(Outcome):
    """An outcome on new examples alone, by a model that also knows old ones.

    Old examples would be unknown to a score that was fitted on new ones, so there is none.
    """

    def doubt(self, seed: int) -> Doubt | None:
        """There are no thresholds, because no old example can be looked at."""
        return None


def fit_with_old(
    run: Run, before: Before, old: Examples, new: Examples, extract: Extractor
) -> Result:
    """Fit the head on the features of the old and the new examples, and calibrate it on both."""
    together = add_examples(old, new)
    features = extract(
        together,
        before.prefix,
        mirror=before.mirror,
        skip_bad_images=run.common.skip_bad_images,
    )
    examples = features.examples
    train = examples.where("train")
    part = features.take(train)
    with run.timed("head"):
        choice = heads.choose(
            part,
            part.examples.labels,
            len(examples.classes),
            tap_widths=features.tap_widths,
            kept=before.heads,
            task=examples.task,
            units=part.examples.units,
            seed=run.common.seed,
        )
        run.say(*choice.said(examples.task.label_columns(examples.classes)))
    write_statistics(run, before.prefix, part, choice)
    layer = choice.fitted.layer()
    answers = outcome.of_head(features, layer)
    return Result(
        network=before.network,
        features=features,
        model=joined(before.network, choice.fitted.taps, layer, features),
        outcome=outcome.judge(examples, answers, train, choice.out_of_fold),
    )


def fit_without_old(run: Run, before: Before, growable: Growable, features: Features) -> Result:
    """Fit the head from what the run keeps, and judge it on the new examples.

    Args:
        growable: what the run keeps, to which the new training examples are added.
        features: those of the new examples, with labels in the classes of the grown run.
    """
    examples = features.examples
    train = examples.where("train")
    with run.timed("head"):
        if growable.statistics.features is None:
            fitted: Fitted | Averaged | SideBySide = growable.fit()
            held_out, out_of_fold = train[:0], np.zeros((0, len(examples.classes)))
        else:
            choice = calibrate_again(run, growable)
            run.say(*choice.lines)
            fitted = choice.fitted
            growable = describe_head(choice, growable)
            held_out, out_of_fold = train, choice.out_of_fold[-len(train) :]
    write_growable(run, growable)
    layer = fitted.layer()
    answers = outcome.of_head(features, layer)
    judged = outcome.judge(examples, answers, held_out, out_of_fold)
    return Result(
        network=before.network,
        features=features,
        model=joined(before.network, fitted.taps, layer, features),
        outcome=WithoutOld(**vars(judged)),
    )


def calibrate_again(run: Run, growable: Growable) -> heads.Choice:
    """Fit and calibrate a head on the features that a run keeps of its training examples."""
    kept = growable.statistics
    assert kept.features is not None and kept.labels is not None
    return heads.choose(
        kept.features,
        kept.labels,
        kept.classes,
        tap_widths=kept.widths,
        kept={growable.head: len(kept.widths)},
        units=number_units(growable.digests),
        seed=run.common.seed,
    )


def describe_head(choice: heads.Choice, growable: Growable) -> Growable:
    """Return what a run keeps, with the calibration and the strength of a head that was chosen."""
    (fitted,) = choice.fitted.members
    return replace(
        growable,
        temperature=float(fitted.temperature),
        prior=choice.prior,
        strength=float(fitted.strength or 0.0),
    )


def grow_head(kept: Growable, features: Features) -> Growable:
    """Return what a run keeps, with the new training examples added.

    Args:
        features: see `fit_without_old`.
    """
    part = features.take(features.examples.where("train"))
    classes = len(features.examples.classes)
    new = statistics.gather(part, part.examples.labels, classes, kept.statistics.widths)
    return kept.grown(new, part.examples.digests)
