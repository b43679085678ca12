"""The head of a run, fitted again on the old and the new examples."""

from dataclasses import dataclass

import numpy as np

from tfxfer import heads, outcome
from tfxfer.data import Examples
from tfxfer.data.union import add_examples
from tfxfer.errors import RunError
from tfxfer.evaluate.doubt import Doubt
from tfxfer.features import Extractor, Features
from tfxfer.growth.before import Before
from tfxfer.heads import statistics
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
        run.say(*choice.lines)
        write_statistics(run, before.prefix, part, choice)
    layer = choice.fitted.layer()
    answers = outcome.of_head(features, layer)
    return Result(
        network=before.network,
        features=features,
        model=joined(before.network, choice.fitted.taps, layer, features),
        outcome=outcome.judge(examples, answers, train, choice.out_of_fold),
    )


def fit_without_old(run: Run, before: Before, features: Features) -> Result:
    """Fit the head from what the run keeps, and the features of the new examples.

    Args:
        features: those of the new examples, with labels in the classes of the grown run.
    """
    examples = features.examples
    with run.timed("head"):
        growable = grow_head(before, features)
        fitted = growable.fit()
        write_growable(run, growable)
    layer = fitted.layer()
    nobody = np.zeros(0, np.int64)
    judged = outcome.judge(
        examples,
        outcome.of_head(features, layer),
        nobody,
        np.zeros((0, len(examples.classes))),
    )
    return Result(
        network=before.network,
        features=features,
        model=joined(before.network, fitted.taps, layer, features),
        outcome=WithoutOld(**vars(judged)),
    )


def grow_head(before: Before, features: Features) -> Growable:
    """Return what the run keeps, with the new training examples added.

    Raises:
        RunError: the run keeps nothing that its head can be fitted from.
    """
    kept = before.growable
    if kept is None:
        raise RunError(f"{before.run.folder} keeps nothing that its head can be fitted from.")
    train = features.examples.where("train")
    part = features.take(train)
    new = statistics.gather(
        part, part.examples.labels, len(features.examples.classes), kept.statistics.widths
    )
    return kept.grown(new, part.examples.digests)
