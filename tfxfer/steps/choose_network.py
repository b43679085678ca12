"""Which of several networks to take, before anything is trained.

Only training examples are used. Networks with random weights are left out, if others are there.
Each network is first judged on a sample, by the nearest neighbours of each example: all networks on
few examples, then those that are not clearly worse on more. The best of these, and the best by
published accuracy, are then judged by the first head that a run would try, in cross-validation on
all training examples. Methods from papers that rank networks without fitting a head, such as LogME
and LEEP, did worse in measurements (docs/methods.md, "Which network").
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfxfer import savedmodel
from tfxfer.backbone import Backbone, Prefix
from tfxfer.data import Examples
from tfxfer.data.folds import sample
from tfxfer.errors import (
    DataError,
    EngineError,
    HandleError,
    MissingExtraError,
    SavedModelError,
)
from tfxfer.features import Extractor
from tfxfer.handles import catalog
from tfxfer.heads import choose, ranges
from tfxfer.heads.nearest import score_neighbours
from tfxfer.tasks import paired

LOG = logging.getLogger(__name__)
SAMPLED = 300  # training examples on which networks are judged by neighbours
GLANCED = 64  # of these, those on which all networks are judged
# A network is left behind after these where it is worse by so many standard errors than one that
# would be judged by a head.
CLEARLY = 3
# So many networks are judged by a head: the best by neighbours, and others by published accuracy.
BY_NEIGHBOURS, BY_PRIOR = 2, 1
# For a network that does not say which range of pixels it expects, the range is found on so many
# training examples.
RANGED = 64
FEWEST = 8  # with fewer training examples, nothing can be said


@dataclass(frozen=True, eq=False)
class Tried:
    """One network and how good its features are.

    prefix: the network as one graph, with the features of all stages.
    sampled: score of each example of the sample that it was tried on, by its neighbours.
    scores: score of each training example in cross-validation; None where it was not tried.
    speed: examples a second through the network, without decoding.
    size: bytes of its weights.
    top1: its published accuracy on ImageNet, where the catalog knows it.
    """

    name: str
    prefix: Prefix
    sampled: np.ndarray
    speed: float
    size: int
    top1: float | None
    scores: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ChosenNetwork:
    """The network that was chosen, and all that were tried, the highest score first.

    best: the fastest of those that are equally good; it need not have the highest score.
    left_out: why a network could not be tried, by its name.
    examples: the sample; networks that were left behind were tried on a part of it.
    """

    best: Tried
    tried: tuple[Tried, ...]
    left_out: dict[str, str]
    examples: Examples

    def rows(self) -> list[tuple[str, ...]]:
        """Return a table, its header first."""
        task = self.examples.task
        by_heads, by_neighbours = f"{task.SCORE} (heads)", f"{task.SCORE} (neighbours)"
        header = (
            "network",
            by_heads,
            "95 % interval",
            by_neighbours,
            f"{self.examples.kind.MANY}/s",
            "MB",
        )
        rows: list[tuple[str, ...]] = [header]
        for one in self.tried:
            score, interval = "-", "-"
            if one.scores is not None:
                figures = task.share(one.scores)
                score = f"{figures[task.SCORE]:.3f}"
                interval = f"{figures['low']:.3f} to {figures['high']:.3f}"
            rows.append(
                (
                    one.name,
                    score,
                    interval,
                    f"{one.sampled.mean():.3f}",
                    f"{one.speed:.0f}",
                    f"{one.size / 1e6:.1f}",
                )
            )
        return rows


def offline_names(kind: str) -> list[str]:
    """Return the networks of the catalog that need no internet.

    Args:
        kind: the kind of example that they take.
    """
    return [entry.name for entry in catalog.CATALOG if entry.offline and entry.takes == kind]


def choose_network(
    examples: Examples,
    among: Sequence[str],
    extract: Extractor,
    *,
    seed: int = 0,
    minutes: float | None = None,
    trust: bool = False,
) -> ChosenNetwork:
    """Choose the network whose features suit the examples best.

    A network that can't be found or fetched is left out. Of networks that are equally good, within
    half a standard error, the fastest is taken.

    Args:
        among: handles of networks, as for `tfxfer.Backbone`.
        extract: computes features; a later run finds them in its cache.
        minutes: after so many minutes, networks are judged by their neighbours alone. All of them
            are fetched and judged by their neighbours, however long that takes.

    Raises:
        DataError: there are too few training examples.
        HandleError: none of the networks can be used.
    """
    train = examples.where("train")
    if len(train) < FEWEST:
        raise DataError(
            f"{examples.source} has {len(train)} training examples, too few to choose a network "
            f"by. Expected at least {FEWEST}. Say which one with --backbone."
        )
    began = time.monotonic()
    extract = replace(extract, started={})
    few = examples.take(train[sample(examples.strata[train], SAMPLED, seed)])
    first = few.take(sample(few.strata, GLANCED, seed))
    glanced: list[Tried] = []
    left_out: dict[str, str] = {}
    names = list(dict.fromkeys(among))
    untrained = {name for name in names if savedmodel.is_untrained_file(name, trust=trust)}
    for name in sorted(names, key=untrained.__contains__):  # those with random weights come last
        if name in untrained and any(one.name not in untrained for one in glanced):
            left_out[name] = "it seems to have random weights, as before training"
            continue
        try:
            glanced.append(try_network(name, first, extract, seed=seed, trust=trust))
        except (EngineError, HandleError, MissingExtraError, SavedModelError) as error:
            left_out[name] = str(error)
    if not glanced:
        reasons = "; ".join(left_out.values())
        raise HandleError(f"none of the networks can be used: {reasons or 'none was named'}")
    behind = left_behind(glanced)
    ahead = [
        replace(one, sampled=judge_neighbours(one.prefix, few, extract)[0])
        for one in glanced
        if one not in behind
    ]
    tried = [*ahead, *behind]
    all_train = examples.take(train)
    judged: list[Tried] = []
    for one in finalists(ahead, behind):
        left = np.inf if minutes is None else 60 * minutes - (time.monotonic() - began)
        if judged and len(train) / one.speed > left:
            LOG.info("No time is left to judge %s by a head", one.name)
            continue
        judged.append(try_heads(one, all_train, extract, seed=seed))
    best = pick(judged)
    done = {one.name: one for one in judged}
    rest = [one for one in tried if one.name not in done]
    order = sorted(judged, key=lambda one: -mean(one)) + sorted(
        rest, key=lambda one: -one.sampled.mean()
    )
    return ChosenNetwork(best=best, tried=tuple(order), left_out=left_out, examples=few)


def try_network(name: str, few: Examples, extract: Extractor, *, seed: int, trust: bool) -> Tried:
    """Open a network, and judge it on a few examples, by the neighbours of each."""
    LOG.info("Trying the network %s", name)
    network = Backbone(name, trainable=False, trust=trust)
    if few.kind_name != network.takes.KIND:
        raise SavedModelError(
            f"{name} takes data of the kind {network.takes.KIND!r}, but these are of the kind "
            f"{few.kind_name!r}"
        )
    # Each range has an engine of its own, which is not needed again.
    ranges.settle(network, few, replace(extract, started=None), seed=seed, most=RANGED)
    prefix = network.prefix(len(network.stages))
    scores, kept = judge_neighbours(prefix, few, extract)
    entry = catalog.find(name)
    return Tried(
        name=name,
        prefix=prefix,
        sampled=scores,
        speed=1 / extract.seconds_each(kept, prefix),
        size=sum(weight.value.nbytes for weight in network.pretrained.weights),
        top1=None if entry is None else entry.top1,
    )


def judge_neighbours(
    prefix: Prefix, few: Examples, extract: Extractor
) -> tuple[np.ndarray, Examples]:
    """Return the score of each example by its neighbours, float [n], and these examples.

    Examples that can't be decoded are left out.
    """
    features = extract(few, prefix, skip_bad_images=True)
    kept = features.examples
    scores = score_neighbours(
        features.output[np.arange(len(features))],
        kept.labels,
        len(kept.classes),
        task=kept.task,
        units=kept.units,
    )
    return scores, kept


def left_behind(glanced: Sequence[Tried]) -> list[Tried]:
    """Return the networks that are clearly worse than those that would be judged by a head."""
    ranked = sorted(glanced, key=lambda one: -one.sampled.mean())
    bar = ranked[:BY_NEIGHBOURS][-1].sampled
    behind: list[Tried] = []
    for one in ranked[BY_NEIGHBOURS:]:
        if len(one.sampled) != len(bar):  # a file was lost in between
            continue
        loss, error = paired(bar, one.sampled)
        if loss > CLEARLY * error:
            behind.append(one)
    return behind


def finalists(ahead: Sequence[Tried], behind: Sequence[Tried]) -> list[Tried]:
    """Return the networks that are judged by a head, the best on the sample first.

    Those that were left behind are taken only where their published accuracy is the best.
    """
    ranked = sorted(ahead, key=lambda one: -one.sampled.mean())
    listed = [one for one in (*ahead, *behind) if one.top1]
    known = sorted(listed, key=lambda one: -(one.top1 or 0.0))
    chosen = ranked[:BY_NEIGHBOURS]
    chosen += [one for one in known if one not in chosen][:BY_PRIOR]
    return chosen


def try_heads(one: Tried, train: Examples, extract: Extractor, *, seed: int) -> Tried:
    """Judge a network by the first head that a run would try, which is fitted in closed form."""
    LOG.info("Fitting classifiers on the features of %s", one.name)
    features = extract(train, one.prefix, skip_bad_images=True)
    kept = features.examples
    choice = choose(
        features,
        kept.labels,
        len(kept.classes),
        tap_widths=features.tap_widths,
        head=kept.task.TRIED[0],
        task=kept.task,
        units=kept.units,
        seed=seed,
    )
    scores = kept.task.prediction_scores(choice.out_of_fold, kept.labels)
    return replace(one, scores=scores)


def mean(one: Tried) -> float:
    """The mean score in cross-validation."""
    return 0.0 if one.scores is None else float(one.scores.mean())


def pick(judged: Sequence[Tried]) -> Tried:
    """Return the fastest network that is worse than the best by at most half a standard error."""
    top = max(judged, key=mean)
    best = np.zeros(0) if top.scores is None else top.scores

    def as_good(other: Tried) -> bool:
        if other.scores is None or len(other.scores) != len(best):
            return False
        loss, error = paired(best, other.scores)
        return loss <= error / 2

    return max((one for one in judged if one is top or as_good(one)), key=lambda one: one.speed)
