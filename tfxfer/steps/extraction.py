"""From data and network to features."""

from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Literal

import keras
import numpy as np

from tfxfer import tuning
from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import Cache
from tfxfer.data import Examples, load
from tfxfer.distribute.workers import place
from tfxfer.errors import DataError, DistributeError
from tfxfer.features import Extractor, Features
from tfxfer.heads import mirrors, ranges
from tfxfer.run import Run
from tfxfer.steps.choose_network import choose_network, offline_names
from tfxfer.tasks import CLASSIFY
from tfxfer.tuning import Plan

AUTO = "auto"
READ = 500  # at most so many examples are checked for whether the network reads all of each
NOTED = 20  # lines of a note that are printed; the report has all of them


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
    seed: the run's random seed.
    """

    network: Backbone
    extract: Extractor
    prefix: Prefix
    features: Features
    seed: int

    @property
    def examples(self) -> Examples:
        """The examples that the rows of the features belong to."""
        return self.features.examples

    @cached_property
    def plan(self) -> Plan:
        """Which examples a tuned model is fitted on, and which ones judge it."""
        return tuning.plan(self.examples, self.seed)


def prepare(
    run: Run,
    data: str | PathLike[str] | Examples,
    backbone: str | PathLike[str] | keras.Model,
    *,
    batch_norm: Literal["auto", "inference", "train"] = "auto",
) -> Ready:
    """Load data and network, and note in the run which these are.

    Args:
        data: as for `tfxfer.data.load`.
        backbone, batch_norm: as for `tfxfer.Backbone`; "auto" takes the best of the networks that
            need no internet (see `choose_network`).

    Raises:
        DataError, ImageError: the data can't be used, or are not what the network takes.
        HandleError, SavedModelError: the network can't be used.
        DistributeError: several workers can't choose a network.
    """
    examples = load(
        data,
        data_dir=run.common.data_dir,
        seed=run.common.seed,
        skip_bad_images=run.common.skip_bad_images,
        cache=run.cache_folder,
        task=run.common.task,
        labels=run.common.label,
    )
    run.say(examples.table(), *examples.notes)
    extract = Extractor(
        Cache(run.cache_folder),
        run.common.engine,
        run.common.engine_precision,
        run.common.batch_size,
        run.strategy,
    )
    default = run.settings.get("backbone", {}).get("origin") == "default"
    if default and backbone != examples.kind.NETWORK:
        backbone = examples.kind.NETWORK
        run.record(chosen_backbone=backbone)
    if backbone == AUTO:
        backbone = chosen_network(run, examples, extract)
    network = Backbone(
        backbone,
        trainable=False,
        image_size=run.common.image_size,
        value_range=run.common.value_range,
        output=run.common.backbone_output,
        preprocess=run.common.backbone_preprocess,
        length=run.common.length,
        batch_norm=batch_norm,
        trust=run.common.trust,
    )
    check_kind(examples, network)
    if examples.task_name != run.common.task:  # examples that were made in Python
        if run.common.task != CLASSIFY.NAME:
            raise DataError(
                f"these examples were made for the task {examples.task_name}, but {run.common.task}"
                " was asked for. Give task= where they are made."
            )
        run.record(task=examples.task_name)
    run.record(
        backbone_fingerprint=network.fingerprint,
        backbone_sha256=network.sha256,
        data_fingerprint=examples.fingerprint,
    )
    return Ready(examples=examples, network=network, extract=extract)


def chosen_network(run: Run, examples: Examples, extract: Extractor) -> str:
    """Return the name of the network that suits the examples best; a resumed run keeps its own.

    Raises:
        DistributeError: several workers share the run.
    """
    before = run.before.get("chosen_backbone", {}).get("value")
    if before is not None:
        return str(before)
    if place(run.strategy)[1] > 1:
        raise DistributeError(
            "--backbone auto is for one machine: run tfxfer choose first, and give all workers the "
            "network that it names."
        )
    choice = choose_network(
        examples,
        offline_names(examples.kind_name),
        extract,
        seed=run.common.seed,
        trust=run.common.trust,
    )
    run.say(f"Network: {choice.best.name}, the best of {len(choice.tried)} for these examples.")
    run.record(chosen_backbone=choice.best.name)
    return choice.best.name


def check_kind(examples: Examples, network: Backbone) -> None:
    """Refuse a network for another kind of example.

    Raises:
        DataError: says what the examples are, and what the network takes.
    """
    takes = network.takes.KIND
    if takes != examples.kind_name:
        raise DataError(
            f"{examples.source} holds examples of the kind {examples.kind_name}, but "
            f"{network.handle} takes {takes}. Choose another --backbone, or other data."
        )


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
    run.record(input=network.takes.KIND, **network.takes.settings())
    with run.timed("features"):
        prefix = ready.network.prefix(len(ready.network.stages) if taps else None)
        both = mirrors.are_computed(mirror, ready.examples) and (taps or mirror == "yes")
        features = ready.extract(
            ready.examples, prefix, mirror=both, skip_bad_images=run.common.skip_bad_images
        )
    run.say(*new_notes(ready.examples, features.examples))
    if said := examples_said(ready, features.examples):
        run.say(*said)
        features = replace(
            features, examples=replace(features.examples, notes=(*features.examples.notes, *said))
        )
    return Extracted(
        network=ready.network,
        extract=ready.extract,
        prefix=prefix,
        features=features,
        seed=run.common.seed,
    )


def examples_said(ready: Ready, examples: Examples) -> list[str]:
    """Return notes on examples that the network reads only in part, such as long texts."""
    few = np.arange(len(examples))
    if len(few) > READ:
        few = np.sort(np.random.default_rng(0).choice(len(few), READ, replace=False))
    return examples.kind.said_of_read([examples.read(int(i)) for i in few], ready.network.takes)


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
