"""Find out what a finished run still knows of the examples that it was fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfxfer.backbone import Backbone, Prefix
from tfxfer.data import Examples
from tfxfer.errors import DataError, ImageError, MissingExtraError, RunError
from tfxfer.features import Extractor
from tfxfer.heads import growable
from tfxfer.heads.growable import Growable
from tfxfer.run import Finished
from tfxfer.safety.arrays import read_arrays
from tfxfer.serving.judge import load_own_examples
from tfxfer.serving.model import load_model
from tfxfer.tasks import CLASSIFY

RECIPE = "frozen"  # the recipe whose runs can grow
SHOWN = 12  # characters of a fingerprint in a message


@dataclass(frozen=True, eq=False)
class Before:
    """A finished run that is to grow.

    network: the frozen network.
    prefix: the part of it that computes the features.
    mirror: whether features are the mean over an image and its mirror image.
    heads: the head's members, each with its number of last taps.
    growable: what the head can grow from without its examples; None where the run has no such file.
    """

    run: Finished
    network: Backbone
    prefix: Prefix
    mirror: bool
    heads: dict[str, int]
    growable: Growable | None

    @property
    def values(self) -> dict[str, Any]:
        """The values of the run's settings."""
        return {name: setting.get("value") for name, setting in self.run.settings().items()}


def open_before(run: Finished, *, trust: bool) -> Before:
    """Open a run that is to grow.

    Raises:
        RunError: the run can't grow, or its files are not of one network.
        ServingError, SavedModelError: its model can't be loaded.
    """
    heads = check_can_grow(run)
    mirror = run.setting("mirror_images", lambda value: isinstance(value, bool), "true or false")
    path = run.path("model.keras")
    backbones = [layer for layer in load_model(path, trust).layers if isinstance(layer, Backbone)]
    if len(backbones) != 1:
        raise RunError(f"{path} has {len(backbones)} networks; expected one. Run it again.")
    network = backbones[0]
    noted = run.setting(
        "backbone_fingerprint", lambda value: isinstance(value, str), "a fingerprint"
    )
    check_same_network(str(path), network.fingerprint, str(run.path("settings.json")), noted)
    prefix = network.prefix(len(network.stages))
    path = run.path("statistics.npz")
    kept = growable.load(path) if path.is_file() else None
    if kept is not None:
        check_same_network(
            str(run.path("model.keras")), prefix.fingerprint, str(path), kept.network
        )
        taps = prefix.tap_widths[-heads.get(kept.head, 0) :]
        if list(heads) != [kept.head] or kept.statistics.widths != taps:
            raise RunError(
                f"{path} is of the head {kept.head} on taps of {kept.statistics.widths} columns; "
                f"expected {' and '.join(heads)} on {taps}, as settings.json says. Run it again."
            )
        if kept.statistics.classes != len(run.classes()):
            raise RunError(
                f"{path} is of {kept.statistics.classes} classes; expected "
                f"{len(run.classes())}, as labels.txt says. Run it again."
            )
    return Before(
        run=run, network=network, prefix=prefix, mirror=mirror, heads=heads, growable=kept
    )


def check_can_grow(run: Finished) -> dict[str, int]:
    """Return the members of a run's head, each with its number of last taps.

    Raises:
        RunError: the run is of a kind that can't grow; says what to do instead.
    """
    values = {name: setting.get("value") for name, setting in run.settings().items()}
    instead = f"Run it on all {run.kind().MANY} together instead: tfxfer run"
    if values.get("recipe") != RECIPE:
        raise RunError(
            f"{run.folder} was made by the recipe {values.get('recipe')}; only runs of {RECIPE} "
            f"can grow, because their network stays as it is. {instead} {values.get('recipe')}."
        )
    if run.task().NAME != CLASSIFY.NAME:
        raise RunError(
            f"{run.folder} is of the task {run.task().NAME}; only classes can be added to "
            f"({CLASSIFY.NAME}). {instead} {RECIPE}."
        )
    heads = values.get("chosen_heads")
    name, taps = values.get("chosen_head"), values.get("chosen_taps")
    if heads is None and name in CLASSIFY.HEADS:  # a run of an earlier version
        heads = {name: taps}
    known = isinstance(heads, dict) and all(
        head in CLASSIFY.HEADS and type(count) is int and count > 0 for head, count in heads.items()
    )
    if not known or not heads:
        raise RunError(
            f"{run.folder} has the head {name or values.get('head')}, which can't be fitted again: "
            f"only {', '.join(CLASSIFY.HEADS)} and their means can, of runs of this version. "
            f"{instead} {RECIPE}."
        )
    return heads


def check_same_network(one: str, fingerprint: str, other: str, expected: str) -> None:
    """Refuse features of another network.

    Raises:
        RunError: names both files and both fingerprints.
    """
    if fingerprint != expected:
        raise RunError(
            f"{other} is of the network {expected[:SHOWN]}, but {one} holds the network "
            f"{fingerprint[:SHOWN]}: features of one can't be added to those of the other. "
            "Expected the files of one run. Run it again on all data."
        )


def find_old_examples(before: Before, extract: Extractor) -> tuple[Examples | None, str]:
    """Return the run's own examples, where their features are there or can be computed.

    Returns:
        the examples, and why they are not there; one of both is empty.
    """
    run = before.run
    try:
        return load_own_examples(run, None), ""
    except (DataError, ImageError, MissingExtraError, RunError) as error:
        why = str(error)
    examples = recall(run)
    if examples is None:
        return None, why
    if extract.need(examples, before.prefix, mirror=before.mirror):
        return None, f"the cache {extract.cache.folder} lacks their features, and {why}"
    return examples, ""


def recall(run: Finished) -> Examples | None:
    """Return a run's examples as probabilities.npz lists them; None where it does not list all.

    Their files can't be read.
    """
    values = {name: setting.get("value") for name, setting in run.settings().items()}
    try:
        arrays = read_arrays(run.path("probabilities.npz"))
        files, splits = arrays["files"].tolist(), arrays["splits"].tolist()
        digests, labels = arrays["digests"].tolist(), arrays["labels"].astype(np.int32)
        units = arrays["units"] if "units" in arrays else number_units(digests)
        if not len(files) == len(splits) == len(digests) == len(labels) == len(units):
            raise ValueError("its arrays don't fit together")
        if labels.min() < 0 or labels.max() >= len(run.classes()):
            raise ValueError("a label is not one of the classes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    source = str(values.get("data"))

    def read(i: int) -> bytes:
        raise ImageError(f"{files[i]} of {source} is no longer there")

    examples = Examples(
        files=tuple(files),
        labels=labels,
        splits=tuple(splits),
        classes=tuple(run.classes()),
        digests=tuple(digests),
        read=read,
        source=source,
        units=units,
        kind_name=run.kind().NAME,
    )
    if "grown_from" in values:
        return examples if values.get("old_examples") == "used" else None
    return examples if examples.fingerprint == values.get("data_fingerprint") else None


def number_units(digests: Sequence[str]) -> np.ndarray:
    """Return a number for each example, the same for copies."""
    return np.unique(np.array(digests), return_inverse=True)[1]
