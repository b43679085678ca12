"""The steps that recipes are made of.

A recipe calls them one after the other. Each takes the run and what the step before returned:

    prepare ─Ready─> extract ─Extracted─> choose_head, train_head or tune ─Result─> finish

For `tune`, `choose_augmentations`, `last_stages` and `whole_network` say what is trained. Where
several workers share a run, all of them call these steps, and only the main one gets a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfxfer import data as sources_of_data
from tfxfer import heads, outcome, report, tuning
from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.features import Extractor, Features, Pixels
from tfxfer.heads import mirrors, ranges
from tfxfer.heads.precision import precision
from tfxfer.outcome import Outcome
from tfxfer.report.review import look
from tfxfer.run import Run
from tfxfer.run.attempt import Failure, attempt, keep, optional
from tfxfer.tuning import Competition, Source, Verdict
from tfxfer.tuning.training import History, ignore

TUNING = "checkpoints/tuning"  # where unfinished trainings are, in a run's folder
NOTED = 20  # lines of a note that are printed; the report has all of them
# Heads that are trained in epochs, on the network's own output, by their names.
TRAINED_HEADS: dict[str, Callable[[int], keras.layers.Layer]] = {
    "mlp": heads.MLP,
    "cosine": heads.Cosine,
}
# The name of a head, a Keras layer from features to logits, or a function from the number of
# classes to such a layer.
Head: TypeAlias = str | keras.layers.Layer | Callable[[int], keras.layers.Layer]


@dataclass(frozen=True, eq=False)
class Ready:
    """Data and network of a run.

    extract: computes features, and keeps them on disk.
    """

    examples: Examples
    network: Backbone
    extract: Extractor


@dataclass(frozen=True, eq=False)
class Extracted:
    """The features of all examples that can be decoded.

    prefix: the part of the network that computed them.
    """

    network: Backbone
    extract: Extractor
    prefix: Prefix
    features: Features

    @property
    def examples(self) -> Examples:
        """The examples that the rows of the features belong to."""
        return self.features.examples


@dataclass(frozen=True, eq=False)
class Result:
    """The model that a recipe has found, with its predictions for examples that it has not seen.

    features: those that the model's head sees; they include mirror images if the head uses them.
    model: from pixels to calibrated logits.
    history: one dict for each epoch, where something was trained.
    verdict: the comparison of the tuned with the frozen model, where there was one.
    """

    network: Backbone
    features: Features
    model: keras.Model
    outcome: Outcome
    history: History = ()
    verdict: Verdict | None = None


def prepare(
    run: Run,
    data: str | PathLike[str] | Examples,
    backbone: str | PathLike[str],
    *,
    batch_norm: Literal["auto", "inference", "train"] = "auto",
) -> Ready:
    """Load data and network, and note in the run which these are.

    Args:
        data: as for `tfxfer.data.load`.
        backbone, batch_norm: as for `tfxfer.Backbone`.

    Raises:
        DataError, ImageError: the data can't be used.
        HandleError, SavedModelError: the network can't be used.
    """
    examples = sources_of_data.load(
        data,
        data_dir=run.common.data_dir,
        seed=run.common.seed,
        skip_bad_images=run.common.skip_bad_images,
        cache=run.cache_folder,
    )
    run.say(examples.table(), *examples.notes)
    network = Backbone(
        backbone,
        trainable=False,
        image_size=run.common.image_size,
        value_range=run.common.value_range,
        batch_norm=batch_norm,
        trust=run.common.trust,
    )
    run.record(
        backbone_fingerprint=network.fingerprint,
        backbone_sha256=network.sha256,
        data_fingerprint=examples.fingerprint,
    )
    extract = Extractor(
        Cache(run.cache_folder),
        run.common.engine,
        run.common.engine_precision,
        run.common.batch_size,
        run.strategy,
    )
    return Ready(examples=examples, network=network, extract=extract)


def extract(run: Run, ready: Ready, *, taps: bool = True, mirror: str = "auto") -> Extracted:
    """Compute the features of all examples, or read them from the cache.

    Args:
        taps: compute them at all stages; otherwise the network's own output alone.
        mirror: whether to compute mirror images as well: "yes", "no", or "auto", which does so for
            features of all stages if there are few photos.

    Raises:
        ImageError: files can't be decoded, and --skip-bad-images is off.
    """
    network = ready.network
    ranges.settle(network, ready.examples, ready.extract, seed=run.common.seed)
    run.record(image_size=network.image_size, value_range=network.value_range)
    with run.timed("features"):
        prefix = ready.network.prefix(len(ready.network.stages) if taps else None)
        both = mirrors.are_computed(mirror, len(ready.examples)) if taps else mirror == "yes"
        features = ready.extract(
            ready.examples, prefix, mirror=both, skip_bad_images=run.common.skip_bad_images
        )
    run.say(*new_notes(ready.examples, features.examples))
    return Extracted(network=ready.network, extract=ready.extract, prefix=prefix, features=features)


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
    with run.timed("head"):
        choice, part = mirrors.choose_head(
            mirror, features.take(train), head=head, seed=run.common.seed
        )
        run.say(*choice.lines)
        both = len(part.views) == 2
        features = features if both else features.one_side
        fitted = choice.fitted
        run.record(chosen_head=fitted.name, chosen_taps=fitted.taps, mirror_images=both)
        if fitted.name == "gaussian":
            classes = len(examples.classes)
            write_gaussian(run, part, examples.labels[train], classes, fitted.widths)
    layer = fitted.layer()
    answers = outcome.of_head(features, layer)
    return Result(
        network=extracted.network,
        features=features,
        model=joined(extracted.network, fitted.taps, layer, features),
        outcome=outcome.judge(examples, answers, train, choice.out_of_fold),
    )


def joined(
    network: Backbone, taps: int | None, head: keras.layers.Layer, features: Features
) -> keras.Model:
    """Return one model of the network and a head, which sees mirror images if `features` do."""
    mirror = len(features.views) == 2
    return heads.join(network.tapped(taps), head, network.entry_shape, mirror=mirror)


def choose_augmentations(
    run: Run,
    extracted: Extracted,
    augment: str,
    *,
    views: int | None = None,
    whole: bool = False,
) -> tuple[str, ...]:
    """Return the kinds of augmentation for training photos.

    Args:
        augment: their names with "+" between them, "none", or "auto": those that do not clearly
            lower the accuracy on held-out photos.
        views: how many altered copies of each photo are kept; None tries a few, and keeps them if
            they help.
        whole: whether the whole network trains. The photos are then altered anew in each epoch.
    """
    if augment != "auto":
        return tuple(kind for kind in augment.split("+") if kind != "none")
    plan = tuning.plan(extracted.examples, run.common.seed)
    if not whole and not tuning.views_are_used(views, plan):
        return ()
    with run.timed("augmentation"):
        return tuning.harmless(
            extracted.features.one_side,
            plan.folds[0][0],
            extracted.prefix,
            extracted.extract,
            seed=run.common.seed,
        )


def last_stages(
    run: Run,
    extracted: Extracted,
    depths: Sequence[int],
    *,
    augment: tuple[str, ...],
    views: int | None = None,
) -> list[Source]:
    """Return what is trained, for each number of last stages.

    The output of the earlier stages is kept for all epochs (see `tfxfer.tuning.last_stages`).

    Args:
        augment: kinds of augmentation of the altered copies.
        views: how many altered copies of each photo are made; None tries a few, and keeps them if
            they help.
    """
    plan = tuning.plan(extracted.examples, run.common.seed)
    with run.timed("activations"):
        return [
            tuning.last_stages(
                extracted.network,
                depth,
                extracted.features,
                plan,
                extracted.extract,
                views=views if augment else 0,
                augment=augment,
                seed=run.common.seed,
                folder=run.folder / TUNING,
            )
            for depth in depths
        ]


def whole_network(
    run: Run, extracted: Extracted, *, augment: tuple[str, ...], service: str | None = None
) -> Source:
    """Return the source that trains the whole network from the photos.

    Args:
        augment: kinds of augmentation of the photos.
        service: address of a tf.data service that reads and decodes them.
    """
    return tuning.from_pixels(
        extracted.network,
        extracted.features,
        augment=augment,
        batch_size=run.common.batch_size,
        service=service,
    )


def tune(
    run: Run,
    extracted: Extracted,
    sources: Sequence[Source],
    *,
    head: str = "auto",
    epochs: int | None = None,
    rate: float | None = None,
    gradual: bool = False,
    minutes: float | None = None,
) -> Result | None:
    """Fine-tune, and keep the frozen model unless training clearly helps.

    Args:
        sources: what may train, from few stages to many.
        head, epochs, rate, gradual, minutes: as for `tfxfer.tuning.compete`.
    """
    features = extracted.features
    with run.timed("tuning"):
        found = tuning.compete(
            sources,
            features,
            tuning.plan(extracted.examples, run.common.seed),
            head=head,
            epochs=epochs,
            rate=rate,
            gradual=gradual,
            batch_size=run.common.step_size,
            minutes=minutes,
            seed=run.common.seed,
            folder=run.folder / TUNING,
            show=board(run),
            strategy=run.strategy,
            precision=run.common.precision,
        )
    if not run.is_main_worker:
        return None
    return settle(found, features if found.mirror else features.one_side, extracted.network, run)


def finish(run: Run, result: Result | None) -> None:
    """Write all that was found into the run's folder, and print the figures.

    Args:
        result: None in a worker that writes nothing.
    """
    if result is None:
        return
    features, found = result.features, result.outcome
    with run.timed("baselines"):
        baselines = outcome.baselines(features, run)
    found.write(run, result.network, result.model, baselines, result.history)
    with run.timed("report"):
        look(run, features, found, result.model, result.network)
        look_at = report.write_reports(run)
    run.finish()
    verdict = [] if result.verdict is None else [str(result.verdict)]
    run.say(found.summary(baselines), *verdict, look_at, run.how_to_predict())


def new_notes(before: Examples, after: Examples) -> list[str]:
    """Return the first lines of each note that was made while features were computed.

    There is a note, for example, on files that could not be decoded.
    """
    shown = []
    for note in after.notes:
        if note not in before.notes:
            lines = note.split("\n")
            more = len(lines) - NOTED
            rest = [f"  and {more:,} more, which report.html lists"] if more > 0 else []
            shown.append("\n".join([*lines[:NOTED], *rest]))
    return shown


def board(run: Run) -> Callable[[int, dict[str, float]], None]:
    """Return a function that writes each epoch's figures to the run's `logs/`, for TensorBoard.

    Where there are several workers, only the main one writes.
    """

    @cache
    def writer() -> Any:
        return tf.compat.v1.summary.FileWriter(str(run.folder / "logs"))

    def add(epoch: int, values: dict[str, float]) -> None:
        summary = tf.compat.v1.Summary(
            value=[
                tf.compat.v1.Summary.Value(tag=name, simple_value=value)
                for name, value in values.items()
            ]
        )
        # `tf.summary.scalar` would need TensorBoard itself, which TensorFlow no longer installs.
        # This writer refuses to work in eager mode.
        with tf.Graph().as_default():
            writer().add_summary(summary, epoch)
            writer().flush()

    working = True

    def show(epoch: int, values: dict[str, float]) -> None:
        nonlocal working
        if working:
            what = "The curves for TensorBoard"
            done = attempt(what, lambda: add(epoch, values))
            keep(run, what, done)
            working = not isinstance(done, Failure)

    return show if run.is_main_worker else ignore


def settle(found: Competition, features: Features, network: Backbone, run: Run) -> Result:
    """Return the winner of a competition as a model that takes pixels.

    The winner is judged on examples that the competition did not use.
    """
    taps = found.fitted.taps if features.tap_widths else None
    run.record(
        chosen=chosen_of(found),
        chosen_head=found.fitted.name,
        chosen_taps=taps,
        mirror_images=found.mirror,
        why=str(found.verdict),
        tuning=found.settings,
    )
    layer = found.fitted.layer()
    model = found.model or joined(network, taps, layer, features)
    pixels = Pixels(features.examples, network.takes, run.common.batch_size)
    if found.model:
        answers = outcome.of_model(pixels, model, features)
    else:
        answers = outcome.of_head(features, layer)
    if chosen_of(found) == "averaged":  # its last columns are the frozen network's own output
        answers = replace(answers, outputs=lambda positions: features.output[positions])
    judged = outcome.judge(
        features.examples,
        answers,
        found.positions,
        probabilities=found.probabilities,
        candidates=found.candidates,
    )
    return Result(
        network=network,
        features=features,
        model=model,
        outcome=judged,
        history=found.history,
        verdict=found.verdict,
    )


def chosen_of(found: Competition) -> str:
    """Say which model won: "frozen", "tuned", or "averaged", the mean of both."""
    if found.model is None:
        return "frozen"
    return "tuned" if found.settings["weight"] == 1 else "averaged"


def write_gaussian(
    run: Run, features: Features, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> None:
    """Write gaussian.npz into the run's folder, if it can be computed; see `gaussian`."""
    what = "gaussian.npz"
    if writer := optional(run, what, lambda: gaussian(features, labels, classes, widths=widths)):
        run.write("gaussian.npz", writer)


def gaussian(
    features: Features, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> Callable[[str], None]:
    """Return a function that writes gaussian.npz.

    The file holds `means` [C, d] and `P` [d, d], both computed after each tap is scaled to length
    one, and `widths`, the number of columns of each tap.
    """
    means, matrix = precision(features, labels, classes, widths=widths)
    return lambda path: np.savez(path, means=means, P=matrix, widths=np.asarray(widths))
