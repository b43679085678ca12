"""Fine-tuning, as far as it helps."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import tensorflow as tf

from tfxfer import outcome, tuning
from tfxfer.backbone import Backbone
from tfxfer.errors import DataError
from tfxfer.features import Decoder, Features
from tfxfer.run import Run
from tfxfer.run.attempt import Failure, attempt, keep
from tfxfer.steps.extraction import Extracted
from tfxfer.steps.result import Result, joined
from tfxfer.tuning import Competition, Source
from tfxfer.tuning.training import ignore

LOG = logging.getLogger(__name__)
TUNING = "checkpoints/tuning"  # where unfinished trainings are, in a run's folder


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

    Returns: with "auto", a resumed run keeps those that it began with.
    """
    plan = extracted.plan
    if augment != "auto":
        kinds = tuple(kind for kind in augment.split("+") if kind != "none")
        known = extracted.examples.kind.AUGMENTATIONS
        if unknown := [kind for kind in kinds if kind not in known]:
            raise DataError(
                f"--augment {augment}: examples of the kind {extracted.examples.kind_name} have no "
                f"{unknown[0]}. Expected one of: none, {', '.join(known)}."
            )
        if kinds and not whole and views is None and not tuning.views_are_used(views, plan):
            LOG.info(
                f"--augment {augment} alters nothing: for so many examples no altered copies are "
                "made unless --views says how many."
            )
        return kinds
    if not whole and not tuning.views_are_used(views, plan):
        return ()
    # Chosen anew, they could differ from those of the epochs that the run already has, for example
    # after an update.
    before = run.before.get("chosen_augmentations", {}).get("value")
    if before is not None:
        return tuple(before)
    with run.timed("augmentation"):
        kinds = tuning.harmless(
            extracted.features.one_side,
            plan.folds[0][0],
            extracted.prefix,
            extracted.extract,
            seed=run.common.seed,
        )
    run.record(chosen_augmentations=list(kinds))
    return kinds


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
    plan = extracted.plan
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
    return tuning.from_examples(
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
        competition = tuning.compete(
            sources,
            features,
            extracted.plan,
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
    return settle(
        competition, features if competition.mirror else features.one_side, extracted.network, run
    )


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


def settle(competition: Competition, features: Features, network: Backbone, run: Run) -> Result:
    """Return the winner of a competition as a model that takes pixels.

    The winner is judged on examples that the competition did not use.
    """
    taps = competition.fitted.taps if features.tap_widths else None
    run.record(
        chosen=chosen_of(competition),
        chosen_head=competition.fitted.name,
        chosen_taps=taps,
        mirror_images=competition.mirror,
        why=str(competition.verdict),
        tuning=competition.settings,
    )
    layer = competition.fitted.layer()
    model = competition.model or joined(network, taps, layer, features)
    decoder = Decoder(features.examples, network.takes, run.common.batch_size)
    if competition.model:
        # The last columns of a mean are the frozen network's own output.
        tuned = chosen_of(competition) == "tuned"
        answers = outcome.of_model(decoder, model, features, tuned=tuned)
    else:
        answers = outcome.of_head(features, layer)
    judged = outcome.judge(
        features.examples,
        answers,
        competition.positions,
        probabilities=competition.probabilities,
        candidates=competition.candidates,
    )
    return Result(
        network=network,
        features=features,
        model=model,
        outcome=judged,
        history=competition.history,
        verdict=competition.verdict,
    )


def chosen_of(competition: Competition) -> str:
    """Say which model won: "frozen", "tuned", or "averaged", the mean of both."""
    if competition.model is None:
        return "frozen"
    return "tuned" if competition.settings["weight"] == 1 else "averaged"
