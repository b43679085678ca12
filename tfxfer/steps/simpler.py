"""The simpler models that a run compares its model with, fitted while its head is."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfxfer.data import Examples
from tfxfer.evaluate import called
from tfxfer.evaluate.baselines import (
    BASELINE_EXAMPLES,
    Baselines,
    fit_baselines,
    sample_train,
)
from tfxfer.features import Features
from tfxfer.heads.fitted import Array
from tfxfer.heads.threads import in_background
from tfxfer.outcome import plain_features
from tfxfer.run import Run
from tfxfer.run.attempt import Failure, attempt, keep, optional

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Simpler:
    """Simpler models that are being fitted.

    majority: what is known at once.
    titles: what each of the others is called in a failure, by its name in metrics.json.
    fits: what they will be, by these names.
    """

    run: Run
    majority: Baselines
    titles: dict[str, str]
    fits: dict[str, Future[Baselines | Failure]]

    def wait(self) -> Baselines:
        """Wait for the fits, and return all models that could be computed."""
        figures, scores = dict(self.majority.figures), dict(self.majority.scores)
        for name, fit in self.fits.items():
            result = fit.result()
            keep(self.run, self.titles[name], result)
            if not isinstance(result, Failure):
                figures[name] = result.figures[name]
                scores |= result.scores
        return Baselines(figures, scores)


@contextmanager
def simpler_models(run: Run, features: Features) -> Iterator[Simpler]:
    """Fit models without transfer, or with the simplest one, while the block runs.

    Their rows are made before it begins, and not in a thread, so that Ctrl-C and SIGTERM end that
    at once. Models that can't be computed are left out.
    """
    examples = features.examples
    train, test = examples.where("train"), examples.distinct(examples.where("test"))
    fit: Callable[..., Baselines] = partial(
        fit_baselines,
        examples.labels,
        train,
        test,
        classes=examples.classes,
        task=examples.task,
        seed=run.common.seed,
    )
    titles, makers = dict[str, str](), dict[str, Callable[[], Baselines]]()
    if len(test):
        say_how_many(len(train))
        plain = examples.kind.PLAIN
        titles = {
            name: f"The baseline {called(name, examples.task, examples.kind)}"
            for name in (plain, "last_layer_logistic")
        }
        few = sample_train(examples.labels, train, examples.task, run.common.seed)
        with run.timed("baselines"):
            rows = optional(run, titles[plain], lambda: plain_rows(examples, run, few, test))
        if rows is not None:
            makers[plain] = partial(fit, **{plain: rows})
        makers["last_layer_logistic"] = lambda: fit(last_layer=features.output)
    tasks = {name: partial(attempt, titles[name], make) for name, make in makers.items()}
    with in_background(tasks) as fits:
        yield Simpler(run, fit(), titles, fits)


def say_how_many(train: int) -> None:
    """Say that simpler models are fitted, and on how many of the training examples."""
    LOG.info("Fitting simpler models, to compare with")
    if train > BASELINE_EXAMPLES:
        LOG.info(
            "baselines: logistic regression is fitted on %s of %s training examples, each class "
            "by its share",
            f"{BASELINE_EXAMPLES:,}",
            f"{train:,}",
        )


def plain_rows(examples: Examples, run: Run, train: np.ndarray, test: np.ndarray) -> Array:
    """Return the rows on which the model without a network is fitted, [n, F].

    Args:
        train, test: the examples whose rows are needed; the others may have zeros.
    """
    features = plain_features(examples, run)
    if features is not None:
        return features
    used = np.concatenate([train, test])
    contents = [examples.read(int(i)) for i in used]
    own = examples.kind.fit_plain(contents, len(train), run.common.seed)
    rows = np.zeros((len(examples), own.shape[1]), np.float32)
    rows[used] = own
    return rows
