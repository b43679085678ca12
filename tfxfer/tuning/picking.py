"""Pick which stages train, and how fast, by short trainings, as far as the time allows."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfxfer.distribute.workers import broadcast_from_chief
from tfxfer.features import Features
from tfxfer.heads import Fitted, log_loss, temperature
from tfxfer.tuning.guard import Plan
from tfxfer.tuning.setting import Fold, Setting, Way, prepare_fold, train_before, train_fold
from tfxfer.tuning.task import Task

LOG = logging.getLogger(__name__)
SHORT = 2  # a setting is tried for the epochs of a training divided by this number
# More epochs and altered copies are tried only where so many stages train or fewer: with 9 stages
# of EfficientNet-Lite0 an epoch takes two and a half times as long as with 5.
CHEAP = 5
TIMED = 2  # steps that run to measure the time of the last one: the first may wait for data


def pick_setting(
    settings: Sequence[Setting],
    rates: Sequence[float],
    features: Features,
    plan: Plan,
    way: Way,
    start: Callable[[np.ndarray], Fitted],
) -> tuple[Setting, Plan]:
    """Pick the best learning rate for the fewest stages, then add stages as long as they help.

    Where no more than 5 stages train, twice as many epochs and altered copies of the photos are
    tried as well. Each setting is trained for a short while, and judged by the log loss on examples
    that do not judge again: those of the first fold, or with one split only, a fifth of what it
    trains on. The whole network goes on from the best of these settings, in a first, short training
    of two epochs.

    Returns:
        The setting, and the plan without the examples that picked it.
    """
    first = settings[0]
    several = len(settings) > 1 or len(rates) > 1
    tries_more = can_last_longer(first, way) or first.task.more_views
    if not (several or tries_more) or len(plan.folds) == 2:
        return first, plan
    seen, held, plan = plan.for_picking(features.examples, way.seed)
    truth, short = features.examples.labels[held], max(1, way.epochs // SHORT)
    head = start(seen)
    LOG.info("Measuring how long training takes")
    seconds: dict[Task, float] = {}
    whole_network = any(one.task.unfreeze == "all" for one in settings)
    for one in sorted(settings, key=lambda one: one.task.unfreeze != "all"):
        seconds[one.task] = seconds_of_an_image(prepare_fold(one, way, head, seen=seen, held=held))
        if whole_network:  # needs the memory of all other models
            way.keep_models_of(None)
    costs = Costs(seconds, plan, way)
    tried: dict[Setting, float] = {}

    def try_out(setting: Setting) -> float:
        LOG.info("Trying %s", setting)
        epochs, weights = short * setting.times, None
        if (before := setting.before) is not None:
            tried_for, name = short * before.times, f"try-{before.name}"
            weights = train_before(
                setting, way, head, seen=seen, held=held, name=name, epochs=tried_for
            )
            way.keep_models_of(setting)
            epochs = way.look(len(seen))
        fold = prepare_fold(setting, way, head, seen=seen, held=held).starting_from(weights)
        end = train_fold(fold, f"try-{setting.name}", epochs, level=logging.DEBUG)
        logits = fold.logits(end.weights[0])
        loss = log_loss(logits / temperature(logits, truth), truth)
        accuracy = float((logits.argmax(1) == truth).mean())
        LOG.info(f"{setting}: accuracy {accuracy:.3f}, log loss {loss:.3f} on held-out photos")
        tried[setting] = loss
        return loss

    def fits(setting: Setting, images: int, more: float = 0.0) -> bool:
        if costs.fits(setting, images, more):
            return True
        LOG.info(f"not tried, for there is no time for it: {setting}")
        return False

    LOG.info(costs.said(settings, rates, len(seen), short))
    LOG.info(f"Trained for {short} of {way.epochs} epochs on {len(seen):,} photos, to choose how:")
    try_out(first)
    for rate in rates[1:]:
        if way.late():
            break
        try_out(replace(first, rate=rate))
    best = min(tried, key=lambda setting: tried[setting])
    depths = [one for one in settings[1:] if one.task.unfreeze != "all"]
    for setting in depths:
        deeper = replace(setting, rate=best.rate)
        if not fits(deeper, len(seen) * short) or try_out(deeper) >= tried[best]:
            break
        best = deeper
    if can_last_longer(best, way):
        more = replace(best, times=2)
        if fits(more, len(seen) * short * 2) and try_out(more) < tried[best]:
            best = more
    measure = best.task.seconds_of_views
    if is_cheap(best) and best.task.more_views and measure:
        images = len(seen) * short * best.times
        if fits(best, images, broadcast_from_chief(way.strategy, measure)):
            with_views = best.task.more_views()
            seconds[with_views] = seconds[best.task]
            if best.task in way.made:
                way.made[with_views] = way.made[best.task]
            varied = replace(best, task=with_views)
            if try_out(varied) < tried[best]:
                best = varied
    for setting in settings[1 + len(depths) :]:
        whole = setting.further(best)
        if not fits(whole, len(seen) * way.look(len(seen))):
            continue
        way.keep_models_of(best)
        if try_out(whole) < tried[best]:
            best = whole
        else:
            LOG.info("a first look at the whole network shows no gain: it is not trained further")
    if way.late():
        LOG.info("the time was up before everything was tried")
    LOG.info(f"chosen: {best}")
    way.keep_models_of(best.before or best)
    return best, plan


def is_cheap(setting: Setting) -> bool:
    """Whether so few stages train that more epochs and altered copies are tried."""
    unfreeze = setting.unfreeze[-1]
    return isinstance(unfreeze, int) and unfreeze <= CHEAP


def can_last_longer(setting: Setting, way: Way) -> bool:
    """Whether twice as many epochs are tried."""
    return is_cheap(setting) and 2 * way.epochs <= way.longest


def seconds_of_an_image(fold: Fold) -> float:
    """Measure how many seconds one step takes for each of its images.

    The step has run before, so the time to build it is not measured.
    """
    way, clock = fold.way, Clock()
    batches = fold.setting.task.batches(fold.seen, fold.size, way.seed, way.strategy)(0, 0)
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

    seconds: measured seconds for one image, by task.
    """

    seconds: Mapping[Task, float]
    plan: Plan
    way: Way

    def training(self, setting: Setting, images: int) -> float:
        """Return the seconds of one training."""
        if setting.before is None:
            return images * self.way.epochs * setting.times * self.seconds[setting.task]
        more = images * self.way.fewer * self.seconds[setting.task]
        return self.training(setting.before, images) + more

    def judged(self, setting: Setting) -> float:
        """Return the seconds of the trainings that are judged, and of the final one."""
        sizes = [len(seen) for seen, _ in self.plan.folds]
        if len(sizes) > 1 or self.plan.taken:
            sizes.append(len(self.plan.everything))
        return sum(self.training(setting, images) for images in sizes)

    def longest(self, setting: Setting) -> Setting:
        """Return the setting with the largest number of epochs that is tried."""
        return replace(setting, times=2) if can_last_longer(setting, self.way) else setting

    def tries_of_more(self, setting: Setting, images: int) -> float:
        """Return the seconds that it takes to try more epochs and altered copies."""
        seconds = images * setting.times * self.seconds[setting.task]
        tries = seconds if setting.times > 1 else 0.0
        if is_cheap(setting) and (measure := setting.task.seconds_of_views):
            tries += seconds + broadcast_from_chief(self.way.strategy, measure)
        return tries

    def fits(self, setting: Setting, images: int, more: float = 0.0) -> bool:
        """Whether there is time to try a setting on `images` images, and then to train it in full.

        Args:
            more: seconds that something else takes before.
        """
        needed = images * self.seconds[setting.task] + self.judged(setting) + more
        until = self.way.until
        return broadcast_from_chief(self.way.strategy, lambda: time.monotonic() + needed < until)

    def said(
        self, settings: Sequence[Setting], rates: Sequence[float], images: int, short: int
    ) -> str:
        """Return one sentence on how long everything takes."""
        first, passes = settings[0], images * short
        least = len(rates) * passes * self.seconds[first.task] + self.judged(first)
        most = least + sum(passes * self.seconds[one.task] for one in settings[1:])
        depths = [self.longest(one) for one in settings if one.task.unfreeze != "all"]
        most += max([self.tries_of_more(one, passes) for one in depths], default=0.0)
        ends = [self.judged(one) for one in depths]
        for one in settings:
            if one.task.unfreeze == "all":
                before = max(depths, key=self.judged, default=None)
                ends.append(self.judged(one if before is None else one.further(before)))
        low, high = least, most - self.judged(first) + max(ends)
        return (
            f"Training takes {describe_seconds(low, high)} on this machine, as it is used now. "
            "--time-limit ends it earlier."
        )


def describe_seconds(low: float, high: float) -> str:
    """Return a range of times in words."""
    few, many = round(low / 60), round(high / 60)
    if many < 1:
        return "less than a minute"
    if few == many:
        return f"about {many} minute{'s' * (many > 1)}"
    return f"{max(few, 1)} to {many} minutes"
