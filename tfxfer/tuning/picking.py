"""Pick which stages train, and how fast, by short trainings, as far as the time allows."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from tfxfer.distribute.workers import broadcast_from_chief
from tfxfer.features import Features
from tfxfer.heads import Fitted
from tfxfer.tasks import calibrated_loss
from tfxfer.tuning.guard import Plan
from tfxfer.tuning.setting import Fold, Routine, Setting, prepare_fold, train_before, train_fold
from tfxfer.tuning.source import Source

LOG = logging.getLogger(__name__)
SHORT = 2  # a trial has 1 / SHORT of the epochs of a full training
# More epochs and altered copies are tried only if at most so many stages train: with 9 stages of
# EfficientNet-Lite0 an epoch takes two and a half times as long as with 5.
CHEAP = 5
TIMED = 2  # so many steps run and only the last is timed, since the first may wait for data


def pick_setting(
    settings: Sequence[Setting],
    rates: Sequence[float],
    features: Features,
    plan: Plan,
    routine: Routine,
    start: Callable[[np.ndarray], Fitted],
) -> tuple[Setting, Plan]:
    """Pick the best learning rate for the fewest stages, then add stages as long as they help.

    Where no more than 5 stages train, twice as many epochs and altered copies of the photos are
    tried as well. Each setting is trained briefly, and judged by the log loss on examples that are
    not used in the verdict: those of the first fold or, with one split, a fifth of its training
    examples. If two folds are planned, or no example can be held out, none is left for that, and
    the first setting is returned untried. The whole network starts from the weights of the best
    setting, and is trained briefly, too (see `Routine.look`).

    Returns:
        The setting, and the plan without the examples that picked it.
    """
    first = settings[0]
    several = len(settings) > 1 or len(rates) > 1
    tries_more = can_last_longer(first, routine) or first.source.more_views
    if not (several or tries_more):
        return first, plan
    if len(plan.folds) == 2:
        LOG.info("With two folds, none is left to choose the setting; untried: %s", first)
        return first, plan
    seen, held, remaining = plan.for_picking(features.examples, routine.seed)
    if not len(held):
        LOG.info(
            "With one example per class, none is left to choose the setting; untried: %s", first
        )
        return first, plan
    plan = remaining
    head = start(seen)
    seconds = measure_seconds(settings, routine, head, seen=seen, held=held)
    trials = Trials(
        head=head,
        seen=seen,
        held=held,
        truth=features.examples.labels[held],
        epochs=max(1, routine.epochs // SHORT),
        costs=Costs(seconds, plan, routine),
        routine=routine,
    )
    LOG.info(trials.costs.said(settings, rates, len(seen), trials.epochs))
    LOG.info(
        f"Short trainings ({trials.epochs} of {routine.epochs} epochs, {len(seen):,} "
        f"{features.examples.kind.MANY}), to find out how to train:"
    )
    best = try_rates(trials, first, rates)
    depths = [one for one in settings[1:] if one.source.unfreeze != "all"]
    best = try_depths(trials, best, depths)
    best = try_more_epochs(trials, best)
    best = try_views(trials, best)
    for setting in settings[1 + len(depths) :]:
        best = try_whole_network(trials, best, setting)
    if routine.late():
        LOG.info("no time was left to try more")
    LOG.info("chosen: %s", best)
    routine.free_other_models(best.before or best)
    return best, plan


def measure_seconds(
    settings: Sequence[Setting],
    routine: Routine,
    head: Fitted,
    *,
    seen: np.ndarray,
    held: np.ndarray,
) -> dict[Source, float]:
    """Measure how many seconds each source takes for an image that is trained on once.

    If the whole network is among them, it is measured first, and each model is freed before the
    next one is built. The first setting is measured last: it is tried next, with the same model.
    """
    LOG.info("Measuring how long training takes")
    seconds: dict[Source, float] = {}
    if not any(one.source.unfreeze == "all" for one in settings):
        for one in settings:
            fold = prepare_fold(one, routine, head, seen=seen, held=held)
            seconds[one.source] = seconds_of_an_example(fold)
        return seconds
    for one in reversed(settings):
        routine.free_other_models(None)
        fold = prepare_fold(one, routine, head, seen=seen, held=held)
        seconds[one.source] = seconds_of_an_example(fold)
        del fold
    return seconds


@dataclass
class Trials:
    """Short trainings, all judged on the same held-out examples.

    head: the head that they start from.
    seen, held: positions of the examples that they train on, and of those that judge them.
    truth: labels of the latter.
    epochs: epochs of a trial.
    losses: the log loss of each setting that was tried.
    """

    head: Fitted
    seen: np.ndarray
    held: np.ndarray
    truth: np.ndarray
    epochs: int
    costs: "Costs"
    routine: Routine
    losses: dict[Setting, float] = field(default_factory=dict)

    def run(self, setting: Setting) -> float:
        """Train briefly, and return the log loss on held-out examples."""
        LOG.info("Trying %s", setting)
        routine, epochs, weights = self.routine, self.epochs * setting.times, None
        before = setting.before
        if before is not None:
            weights = train_before(
                setting,
                routine,
                self.head,
                seen=self.seen,
                held=self.held,
                name=f"try-{before.name}",
                epochs=self.epochs * before.times,
                level=logging.DEBUG,
            )
            routine.free_other_models(setting)
            epochs = routine.look(len(self.seen))
        fold = prepare_fold(setting, routine, self.head, seen=self.seen, held=self.held)
        fold = fold.starting_from(weights)
        ended = train_fold(fold, f"try-{setting.name}", epochs, level=logging.DEBUG)
        logits = fold.logits(ended.weights[0])
        task = setting.source.task
        # By this the workers decide together what is trained next.
        loss = broadcast_from_chief(
            routine.strategy, lambda: float(calibrated_loss(task, logits, self.truth))
        )
        score = float(task.scores(logits, self.truth).mean())
        LOG.info(
            f"{setting}: {task.SCORE} {score:.3f}, {task.LOSS} {loss:.3f} on held-out examples"
        )
        self.losses[setting] = loss
        return loss

    def has_time_for(self, setting: Setting, count: int, more: float = 0.0) -> bool:
        """Whether there is time to try a setting, and then to train it in full: `Costs.fits`."""
        if self.costs.fits(setting, count, more):
            return True
        LOG.info("no time to try: %s", setting)
        return False

    def better_of(self, best: Setting, other: Setting) -> Setting:
        """Try a setting, and return it or the best so far, whichever has the smaller loss."""
        return other if self.run(other) < self.losses[best] else best


def try_rates(trials: Trials, first: Setting, rates: Sequence[float]) -> Setting:
    """Return the setting with the best learning rate. The first rate is always tried."""
    trials.run(first)
    for rate in rates[1:]:
        if trials.routine.late():
            break
        trials.run(replace(first, rate=rate))
    return min(trials.losses, key=lambda setting: trials.losses[setting])


def try_depths(trials: Trials, best: Setting, depths: Sequence[Setting]) -> Setting:
    """Train more and more stages, as long as the loss falls."""
    count = len(trials.seen) * trials.epochs
    for setting in depths:
        deeper = replace(setting, rate=best.rate)
        if not trials.has_time_for(deeper, count) or trials.better_of(best, deeper) is best:
            break
        best = deeper
    return best


def try_more_epochs(trials: Trials, best: Setting) -> Setting:
    """Try twice as many epochs, where the user has not said how many."""
    longer = replace(best, times=2)
    count = len(trials.seen) * trials.epochs * longer.times
    if can_last_longer(best, trials.routine) and trials.has_time_for(longer, count):
        best = trials.better_of(best, longer)
    return best


def try_views(trials: Trials, best: Setting) -> Setting:
    """Try altered copies of the photos, where they can be kept."""
    routine, measure = trials.routine, best.source.seconds_of_views
    if not (is_cheap(best) and best.source.more_views and measure):
        return best
    if trials.epochs * best.times == 1:  # the only epoch of a trial sees no altered copy
        return best
    count = len(trials.seen) * trials.epochs * best.times
    if not trials.has_time_for(best, count, broadcast_from_chief(routine.strategy, measure)):
        return best
    source = best.source.more_views()
    trials.costs.seconds[source] = trials.costs.seconds[best.source]
    if best.source in routine.made:
        routine.made[source] = routine.made[best.source]
    return trials.better_of(best, replace(best, source=source))


def try_whole_network(trials: Trials, best: Setting, setting: Setting) -> Setting:
    """Train the whole network briefly, starting from the weights of the best setting so far."""
    routine, whole = trials.routine, setting.further(best)
    if not trials.has_time_for(whole, len(trials.seen) * routine.look(len(trials.seen))):
        return best
    routine.free_other_models(best)
    chosen = trials.better_of(best, whole)
    if chosen is best:
        LOG.info("a first look at the whole network shows no gain: it is not trained further")
    return chosen


def is_cheap(setting: Setting) -> bool:
    """Whether so few stages train that more epochs and altered copies are tried."""
    unfreeze = setting.unfreeze[-1]
    return isinstance(unfreeze, int) and unfreeze <= CHEAP


def can_last_longer(setting: Setting, routine: Routine) -> bool:
    """Whether twice as many epochs are tried."""
    return is_cheap(setting) and 2 * routine.epochs <= routine.longest


def seconds_of_an_example(fold: Fold) -> float:
    """Measure how many seconds one step takes for each of its images.

    The step was traced earlier, so tracing is not part of the measured time.
    """
    source, routine, clock = fold.setting.source, fold.routine, Clock()
    batches = source.batches(fold.seen, fold.size, routine.seed, routine.strategy)(0, 0)
    steps = min(TIMED, math.ceil(len(fold.seen) / fold.size))
    fold.model.fit(
        batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[clock]
    )
    return (clock.times[-1] - clock.times[-2]) / fold.size


class Clock(keras.callbacks.Callback):
    """Note when the first step begins, and when each step ends."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_begin(self, batch, logs=None):
        if not batch:
            self.times.append(time.monotonic())

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.monotonic())


@dataclass(frozen=True)
class Costs:
    """How long trainings take.

    seconds: measured seconds for one image, by source.
    """

    seconds: dict[Source, float]
    plan: Plan
    routine: Routine

    def training(self, setting: Setting, count: int) -> float:
        """Return the seconds of one training."""
        if setting.before is None:
            return count * self.routine.epochs * setting.times * self.seconds[setting.source]
        more = count * self.routine.fewer * self.seconds[setting.source]
        return self.training(setting.before, count) + more

    def judged(self, setting: Setting) -> float:
        """Return the seconds of the trainings that are judged, and of the final one."""
        sizes = [len(seen) for seen, _ in self.plan.folds]
        if len(sizes) > 1 or self.plan.taken:
            sizes.append(len(self.plan.everything))
        return sum(self.training(setting, count) for count in sizes)

    def with_most_epochs(self, setting: Setting) -> Setting:
        """Return the setting with twice the epochs if that is tried, else the setting itself."""
        return replace(setting, times=2) if can_last_longer(setting, self.routine) else setting

    def tries_of_more(self, setting: Setting, count: int) -> float:
        """Return the seconds that it takes to try more epochs and altered copies."""
        seconds = count * setting.times * self.seconds[setting.source]
        tries = seconds if setting.times > 1 else 0.0
        if is_cheap(setting) and (measure := setting.source.seconds_of_views):
            tries += seconds + broadcast_from_chief(self.routine.strategy, measure)
        return tries

    def fits(self, setting: Setting, count: int, more: float = 0.0) -> bool:
        """Whether there is time to try a setting on `count` images, and then to train it in full.

        Args:
            count: an image counts once for each epoch.
            more: seconds that something else takes before.
        """
        needed = count * self.seconds[setting.source] + self.judged(setting) + more
        until = self.routine.until
        return broadcast_from_chief(
            self.routine.strategy, lambda: time.monotonic() + needed < until
        )

    def said(
        self, settings: Sequence[Setting], rates: Sequence[float], count: int, short: int
    ) -> str:
        """Return one sentence on how long everything takes."""
        first, passes = settings[0], count * short
        least = len(rates) * passes * self.seconds[first.source] + self.judged(first)
        most = least + sum(passes * self.seconds[one.source] for one in settings[1:])
        depths = [self.with_most_epochs(one) for one in settings if one.source.unfreeze != "all"]
        most += max([self.tries_of_more(one, passes) for one in depths], default=0.0)
        ends = [self.judged(one) for one in depths]
        for one in settings:
            if one.source.unfreeze == "all":
                before = max(depths, key=self.judged, default=None)
                ends.append(self.judged(one if before is None else one.further(before)))
        low, high = least, most - self.judged(first) + max(ends)
        return (
            f"Training takes {describe_seconds(low, high)} on this machine if it stays as busy as "
            "it is now. Use --time-limit to stop it earlier."
        )


def describe_seconds(low: float, high: float) -> str:
    """Return a range of times in words."""
    few, many = round(low / 60), round(high / 60)
    if many < 1:
        return "less than a minute"
    if few == many:
        return f"about {many} minute{'s' * (many > 1)}"
    return f"{max(few, 1)} to {many} minutes"
