"""Compute the output of the frozen stages once, and make the source for training from it.

This module also decides whether these activations are kept on disk, and in which dtype.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import size
from tfxfer.data import Examples
from tfxfer.data.folds import sample
from tfxfer.distribute.workers import Strategy, broadcast_from_chief, place
from tfxfer.errors import SavedModelError, TuningError
from tfxfer.features import Extractor, Features
from tfxfer.files import appear
from tfxfer.heads import choose
from tfxfer.tasks import paired, said_of_gain
from tfxfer.tuning.activation_source import ActivationSource
from tfxfer.tuning.guard import Plan
from tfxfer.tuning.input_source import from_examples
from tfxfer.tuning.source import Source

Kept: TypeAlias = Literal["float16", "float32"]

LOG = logging.getLogger(__name__)
COMPARED = 500  # training examples on which half precision is judged
# Above this number of bytes in a row, reading may be slower than computing, so both are measured.
LARGE = 500_000
DEPTHS = (2, 5, 9)  # how many of the last stages are tried (docs/methods.md, "What is tried")
# Altered copies of each photo that are tried by default, and the most photos for which they are:
# EfficientNet-Lite0 computes these copies in a minute and a half on two cores. With 4 copies, a
# short training would see each copy once, too rarely to predict a long training.
TRIED_VIEWS, MOST = 2, 4_000


def depths_of(network: Backbone, unfreeze: str) -> tuple[int, ...]:
    """Return how many last stages to try: one number, or the several that "auto" tries.

    Raises:
        TuningError: as for `stages_of`.
    """
    if unfreeze != "auto":
        return (stages_of(network, unfreeze),)
    return depths_before_all(network) or (1,)


def depths_before_all(network: Backbone) -> tuple[int, ...]:
    """Return how many last stages are tried, in turn, before the whole network is.

    Nothing is tried before it with batch_norm="train". The statistics of the early stages would
    change, and their stored output would be wrong.

    Raises:
        TuningError: as for `stages_of`.
    """
    stages_of(network, "1")
    if network.batch_norm == "train":
        return ()
    return tuple(depth for depth in DEPTHS if depth < len(network.stages))


def stages_of(network: Backbone, unfreeze: str) -> int:
    """Return how many last stages a text such as "2" or "block14" stands for.

    Raises:
        TuningError: there is no such stage, or the network can't be fine-tuned, or not with
            BatchNorm in training mode.
    """
    names = [stage.name for stage in network.stages]
    if network.why_frozen:
        raise TuningError(
            f"{network.handle} can't be fine-tuned: {network.why_frozen}. Use the recipe frozen."
        )
    if network.batch_norm == "train" and network.pretrained.training is None:
        raise TuningError(
            f"{network.handle} has no training mode, so its BatchNorm statistics can't be adapted. "
            "Leave out --batch-norm train."
        )
    if unfreeze == "all":
        return len(names)
    if unfreeze in names:
        return len(names) - names.index(unfreeze)
    if unfreeze.isdecimal() and 1 <= int(unfreeze) <= len(names):
        return int(unfreeze)
    expected = (
        f"auto, all, a number from 1 to {len(names)}, or a stage: {', '.join(names)}"
        if len(names) > 1
        else "auto, all or 1: this network can't be divided into stages, so all of it trains or "
        "nothing"
    )
    near = get_close_matches(unfreeze, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise TuningError(f"{network.handle} has no stage {unfreeze!r}.{hint} Expected {expected}.")


def views_are_used(views: int | None, plan: Plan) -> bool:
    """Whether altered copies of photos are used, or tried where `views` is None."""
    return len(plan.everything) <= MOST if views is None else views > 0


def check_epochs(views: int | None, epochs: int | None) -> None:
    """Refuse augmented views that no epoch would see.

    The epochs take turns between the images as they are and each of their views.

    Raises:
        TuningError: there are as many views as epochs, or more.
    """
    if epochs is not None and views is not None and views >= epochs:
        raise TuningError(
            f"--views {views} needs at least {views + 1} epochs, one for each set of copies and "
            f"one for the examples themselves. Received --epochs {epochs}."
        )


def last_stages(
    network: Backbone,
    stages: int,
    features: Features,
    plan: Plan,
    extract: Extractor,
    *,
    views: int | None = 0,
    augment: tuple[str, ...] = (),
    seed: int = 0,
    folder: Path | None = None,
) -> Source:
    """Return the source for training the last `stages` stages.

    It reads cached activations; if they can't be kept, each step runs the whole network, and the
    log says why.

    Args:
        features: features from all taps, of all examples.
        extract: computes activations as it computed the features, and keeps them on disk.
        views: how many altered copies of each training image are kept too; the epochs take turns
            between them. None: no copies now, but the source may get a function that makes some
            later (`Source.more_views`).
        augment: the kinds of augmentation of these copies.
        folder: folder where the dtype and the number of copies are noted, so that a run that was
            killed goes on from the same inputs, even if disk or speed would now lead to others.
    """
    whole = replace(
        from_examples(
            network, features, augment=augment if views else (), batch_size=extract.batch_size
        ),
        unfreeze=stages,
    )
    if stages == len(network.stages):
        LOG.info("All stages train, so there is no frozen part whose output could be kept")
        return whole
    try:
        prefix, rest = network.cut(stages)
    except SavedModelError as error:
        LOG.info(f"Each training step runs the whole network, which is slower: {error}")
        return whole
    cut = Cut(
        network=network,
        prefix=prefix,
        rest=rest,
        before=network.stages[len(network.stages) - stages - 1].name,
        features=features,
        plan=plan,
        extract=extract,
        augment=augment,
    )
    tries_views = views is None and augment and views_are_used(views, plan)
    views = views or 0
    LOG.info(cut.said(views))

    def decide() -> tuple[Kept | None, int]:
        dtype = cut.choose_dtype(views, seed)
        if dtype is None or not tries_views or not cut.room(dtype, TRIED_VIEWS).enough:
            return dtype, 0
        return dtype, TRIED_VIEWS

    dtype, tried = note_decision(folder, stages, extract.strategy, decide=decide)
    if dtype is None:
        return whole
    source = cut.source(dtype, views)
    if not tried:
        return source
    return replace(
        source,
        more_views=partial(cut.source, dtype, tried),
        seconds_of_views=cache(lambda: tried * len(plan.everything) * cut.seconds),
    )


@dataclass(frozen=True)
class Room:
    """Whether something fits on the disk, and how many bytes are free there."""

    enough: bool
    free: int


@dataclass(frozen=True, eq=False)
class Cut:
    """A network in two parts: the output of the first is kept for each photo, the second trains.

    prefix, rest: the two parts.
    before: the name of the first part's last stage.
    features: features of the whole network, of all examples.
    extract: computes the first part, and keeps its activations on disk.
    augment: the kinds of augmentation of the altered copies.
    """

    network: Backbone
    prefix: Prefix
    rest: Backbone
    before: str
    features: Features
    plan: Plan
    extract: Extractor
    augment: tuple[str, ...]

    @property
    def examples(self) -> Examples:
        """All examples."""
        return self.features.examples

    @cached_property
    def used(self) -> np.ndarray:
        """Positions of the photos that are used to train or to judge."""
        return np.union1d(self.plan.everything, self.plan.judged)

    @property
    def training(self) -> Examples:
        """The training photos, which have altered copies."""
        return self.examples.take(self.plan.everything)

    def said(self, views: int) -> str:
        """Return one sentence on what is kept."""
        count = len(self.used) + views * len(self.plan.everything)
        half = count * self.prefix.width * 2
        return (
            f"The output of stage {self.before} is to be kept on disk for all epochs: "
            f"{self.prefix.width:,} numbers for each of {count:,} {self.examples.kind.MANY}, "
            f"{size(half)} in float16 or {size(2 * half)} in float32"
        )

    def room(self, dtype: Kept, views: int) -> Room:
        """Return whether the activations fit on the disk."""

        def need() -> int:
            plain = self.extract.need(self.examples.take(self.used), self.prefix, dtype=dtype)
            kinds: dict[str, Any] = {"dtype": dtype, "augment": self.augment}
            return plain + sum(
                self.extract.need(self.training, self.prefix, number=number, **kinds)
                for number in range(1, views + 1)
            )

        needed, free = broadcast_from_chief(
            self.extract.strategy, lambda: (need(), self.extract.cache.free())
        )
        return Room(needed <= free, free)

    def fits(self, dtype: Kept, views: int) -> bool:
        """Return whether there is `room` for the activations, and log it where there is none."""
        room = self.room(dtype, views)
        if not room.enough:
            LOG.info(
                f"There is no room on the disk for the activations in {dtype} ({size(room.free)} "
                f"free in {self.extract.cache.folder}), so each training step runs the whole "
                "network, which is slower"
            )
        return room.enough

    def choose_dtype(self, views: int, seed: int) -> Kept | None:
        """Return the dtype in which activations are kept, or None where they can't be.

        The reason is logged where they can't be kept.
        """
        if not self.fits("float16", views):
            return None
        strata, everything = self.examples.strata, self.plan.everything
        few = everything[sample(strata[everything], COMPARED, seed)]
        rows = self.extract(self.examples.take(few), self.prefix, dtype="float16")
        if 4 * self.prefix.width > LARGE:
            slower = broadcast_from_chief(
                self.extract.strategy, lambda: time_reading(rows) / self.seconds
            )
            if slower > 1:
                LOG.info(
                    f"Reading the activations takes {slower:.1f} times as long as computing them, "
                    "so each training step runs the whole network"
                )
                return None
        exact = self.exact_outputs(few)  # by all workers, since they extract together
        dtype = broadcast_from_chief(
            self.extract.strategy, lambda: precision_of(rows, exact, self.rest, seed)
        )
        if dtype == "float16":
            all_rows = self.plain("float16").rows
            if not broadcast_from_chief(self.extract.strategy, lambda: is_finite(all_rows)):
                LOG.info("The activations are kept in float32: some are too large for float16")
                dtype = "float32"
        return None if dtype == "float32" and not self.fits("float32", views) else dtype

    def exact_outputs(self, positions: np.ndarray) -> np.ndarray:
        """Return the network's own output for photos, from activations in float32."""
        if self.extract.precision == "float32":
            return self.features.one_side.output[positions]
        rows = self.extract(self.examples.take(positions), self.prefix)
        return outputs_of(rows[np.arange(len(rows))], self.rest)

    def plain(self, dtype: Kept) -> "Placed":
        """Compute the activations of the photos as they are, or read them where they are kept."""
        rows = self.extract(self.examples.take(self.used), self.prefix, dtype=dtype)
        return Placed(rows, self.used, len(self.examples))

    @cached_property
    def seconds(self) -> float:
        """How many seconds the first part takes for a photo, without the time to decode it."""
        return self.extract.seconds_each(self.examples, self.prefix)

    def source(self, dtype: Kept, views: int) -> ActivationSource:
        """Return the source for training the rest, with `views` altered copies of each photo."""
        rows = [self.plain(dtype)]
        inputs = f"activations after {self.before} in {dtype}"
        kinds, one = self.augment, self.examples.kind.ONE
        for number in range(1, views + 1):
            LOG.info(f"altered copy {number} of {views} of each {one} ({', '.join(kinds)})")
            copy = self.extract(
                self.training, self.prefix, dtype=dtype, augment=kinds, number=number
            )
            rows.append(Placed(copy, self.plan.everything, len(self.examples)))
        if views:
            inputs += f", {views} views by {' and '.join(kinds)}"
        return ActivationSource(
            network=self.network,
            rest=self.rest,
            rows=tuple(rows),
            examples=self.examples,
            inputs=inputs,
        )


def note_decision(
    folder: Path | None,
    stages: int,
    strategy: Strategy,
    decide: Callable[[], tuple[Kept | None, int]],
) -> tuple[Kept | None, int]:
    """Return what was decided when the run began, or decide now and note it in `folder`."""
    path = folder / f"activations-{stages}.json" if folder else None
    before = broadcast_from_chief(strategy, lambda: read_decision(path))
    match before:
        case [None | "float16" | "float32" as dtype, int(tried)]:
            return dtype, tried
    decision = decide()
    if path and not place(strategy)[0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        appear(
            path, path.with_name("new"), lambda aside: Path(aside).write_text(json.dumps(decision))
        )
    return decision


def read_decision(path: Path | None) -> Any:
    """Return a noted decision; None if there is none, or the file is damaged."""
    try:
        return None if path is None else json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


class Placed:
    """Rows that exist for some examples only, looked up by an example's position among all.

    There are `count` examples, and `rows` belong to those at `positions`.
    """

    def __init__(self, rows: Features, positions: np.ndarray, count: int):
        self.rows, self.place = rows, np.full(count, -1)
        self.place[positions] = np.arange(len(positions))

    @property
    def shape(self) -> tuple[int, int]:
        """(number of all examples, number of columns)."""
        return (len(self.place), self.rows.shape[1])

    def __getitem__(self, positions: Any) -> np.ndarray:
        places = self.place[positions]
        assert (places >= 0).all(), "an example without activations"
        return self.rows[places]


def precision_of(rows: Features, exact: np.ndarray, rest: Backbone, seed: int) -> Kept:
    """Return "float16" if rounding lowers accuracy by at most one standard error, else "float32".

    Heads are fitted on the exact outputs of the network, and on what `rest` computes from rounded
    activations, and judged out of fold. The standard error is a paired one.

    Args:
        rows: the activations of some examples, rounded to float16.
        exact: the network's own output for the same examples, float32 [n, features].
    """
    if not is_finite(rows):
        LOG.info("The activations are kept in float32: some are too large for float16")
        return "float32"
    LOG.info("Testing whether float16 is precise enough for the activations")
    examples, task, labels = rows.examples, rows.examples.task, rows.examples.labels
    scores = []
    for output in (exact, outputs_of(rows[np.arange(len(rows))], rest)):
        choice = choose(
            output,
            labels,
            len(examples.classes),
            tap_widths=(output.shape[1],),
            head=task.START,
            task=task,
            units=examples.units,
            seed=seed,
        )
        scores.append(task.prediction_scores(choice.out_of_fold, labels))
    loss, error = paired(scores[0], scores[1])
    dtype: Kept = "float16" if loss <= error else "float32"
    LOG.info(
        f"The activations are kept in {dtype}: float16 changes the held-out {task.SCORE} by "
        f"{said_of_gain(0 - loss, error, percent=task.PERCENT)} on {len(labels):,} "
        f"{examples.kind.MANY}"
    )
    return dtype


def is_finite(rows: Features) -> bool:
    """Whether all numbers of all rows are finite."""
    return all(np.isfinite(block).all() for block in rows.blocks(size=64))


def outputs_of(rows: np.ndarray, rest: Backbone) -> np.ndarray:
    """Return the network's own output, float32 [n, features], computed from rows of activations."""
    parts = np.array_split(rows, max(len(rows) // 32, 1))
    return np.concatenate(
        [np.asarray(rest(part.reshape(-1, *rest.entry_shape), training=False)) for part in parts]
    )


def time_reading(rows: Features) -> float:
    """Return how many seconds it takes to read one row."""
    began = time.perf_counter()
    for _ in rows.blocks(size=64):
        pass
    return (time.perf_counter() - began) / len(rows)
