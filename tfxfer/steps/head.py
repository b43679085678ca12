"""A head on the features of the frozen network."""

from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np

from tfxfer import heads, outcome
from tfxfer.backbone import Prefix
from tfxfer.features import Features
from tfxfer.heads import Fitted, mirrors, statistics
from tfxfer.heads.growable import Growable
from tfxfer.heads.statistics import Statistics
from tfxfer.run import Run
from tfxfer.run.attempt import optional
from tfxfer.steps.extraction import Extracted
from tfxfer.steps.result import Result, joined
from tfxfer.steps.simpler import simpler_models

# A precision matrix of more columns is not written: one of 8,320 takes half a minute and 277 MB.
MOST_COLUMNS = 6_000
# Heads that are trained in epochs, on the network's own output, by their names.
TRAINED_HEADS: dict[str, Callable[[int], keras.layers.Layer]] = {
    "mlp": heads.MLP,
    "cosine": heads.Cosine,
}
# The name of a head, a Keras layer from features to logits, or a function from the number of
# classes to such a layer.
Head: TypeAlias = str | keras.layers.Layer | Callable[[int], keras.layers.Layer]


def is_trained(head: Head) -> bool:
    """Whether a head is trained in epochs, and not fitted at once."""
    return not isinstance(head, str) or head in TRAINED_HEADS


def train_head(run: Run, extracted: Extracted, head: Head, *, epochs: int) -> Result | None:
    """Train a Keras head on the network's own output.

    Args:
        head: "mlp", "cosine", or a layer of your own (see `Head`).
    """
    features, examples = extracted.features, extracted.examples
    with run.timed("head"):
        make = TRAINED_HEADS[head] if isinstance(head, str) else head
        classes = len(examples.classes)
        if isinstance(make, keras.layers.Layer):
            # A copy, so that another fit does not go on with what this one has learnt.
            layer = type(make).from_config(make.get_config())
        else:
            layer = make(classes)
        outputs = layer.compute_output_shape((None, features.feature_size))[-1]
        if outputs != classes:
            raise ValueError(f"Expected a head with {classes} outputs. Received: {outputs} outputs")
        run.record(epochs=epochs)
        trained = heads.fit_head(
            layer,
            features,
            examples.labels,
            examples.where("train"),
            examples.where("validation"),
            epochs=epochs,
            task=examples.task,
            units=examples.units,
            seed=run.common.seed,
            strategy=run.strategy,
        )
    if not run.is_main_worker:
        return None
    answers = outcome.of_head(features, trained.head)
    return Result(
        network=extracted.network,
        features=features,
        model=joined(extracted.network, None, trained.head, features),
        outcome=outcome.judge(examples, answers, trained.positions, trained.probabilities),
        history=trained.history,
    )


def choose_head(run: Run, extracted: Extracted, head: str, *, mirror: str) -> Result | None:
    """Fit heads on the features, and choose the best in cross-validation.

    Args:
        head: as for `tfxfer.heads.choose`.
        mirror: as for `tfxfer.heads.mirrors.choose_head`.
    """
    if not run.is_main_worker:
        return None
    features, examples = extracted.features, extracted.examples
    train = examples.where("train")
    with simpler_models(run, features) as simpler, run.timed("head"):
        choice, part = mirrors.choose_head(
            mirror, features.take(train), head=head, seed=run.common.seed
        )
        run.say(*choice.said(examples.task.label_columns(examples.classes)))
        both = len(part.views) == 2
        features = features if both else features.one_side
        fitted = choice.fitted
        run.record(chosen_head=fitted.name, chosen_taps=fitted.taps, mirror_images=both)
        run.record(chosen_heads={one.name: one.taps for one in fitted.members})
        write_statistics(run, extracted.prefix, part, choice)
        models = simpler.wait()
    layer = fitted.layer()
    answers = outcome.of_head(features, layer)
    return Result(
        network=extracted.network,
        features=features,
        model=joined(extracted.network, fitted.taps, layer, features),
        outcome=outcome.judge(examples, answers, train, choice.out_of_fold),
        simpler=models,
    )


def write_statistics(run: Run, prefix: Prefix, features: Features, choice: heads.Choice) -> None:
    """Write what the head can grow from, into the run's folder, if it is a Gaussian or Ridge.

    Args:
        prefix: the part of the network that computed the features.
        features: those of the examples that the head was fitted on.
    """
    fitted, examples = choice.fitted, features.examples
    if not isinstance(fitted, Fitted) or fitted.name not in statistics.NAMES:
        return
    if not examples.task.CLASSES:
        return

    def make() -> Growable:
        return Growable(
            head=fitted.name,
            statistics=statistics.gather(
                features, examples.labels, len(examples.classes), fitted.widths
            ),
            temperature=float(fitted.temperature),
            prior=choice.prior,
            strength=float(fitted.strength or 0.0),
            network=prefix.fingerprint,
            digests=examples.digests,
        )

    if growable := optional(run, "The file for tfxfer grow", make):
        write_growable(run, growable)


def write_growable(run: Run, growable: Growable) -> None:
    """Write statistics.npz, and gaussian.npz of a Gaussian, if it is small and can be computed."""
    run.write("statistics.npz", growable.save)
    what = "gaussian.npz"
    if growable.head != "gaussian" or sum(growable.statistics.widths) > MOST_COLUMNS:
        return
    if writer := optional(run, what, lambda: gaussian(growable.statistics)):
        run.write(what, writer)


def gaussian(kept: Statistics) -> Callable[[str], None]:
    """Return a function that writes gaussian.npz.

    The file holds `means` [C, d] and `P` [d, d], both computed after each tap is scaled to length
    one, and `widths`, the number of columns of each tap.
    """
    means, matrix = statistics.precision_of(kept)
    return lambda path: np.savez(path, means=means, P=matrix, widths=np.asarray(kept.widths))
