"""The simpler models that a run compares its model with, fitted while its head is."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    fits: what they will be, by these names; those that were begun.
    """

    run: Run
    majority: Baselines
    titles: dict[str, str]
    fits: dict[str, Future[Baselines | Failure]]

    def wait(self) -> Baselines:
        """Wait for the fits, and return all models that could be computed."""
        figures, scores = dict(self.majority.figures), dict(self.majority.scores)
        for name, title in self.titles.items():
            fit = self.fits.get(name)
            found = keep(self.run, title, fit.result()) if fit else None
            if found is not None:
                figures[name] = found.figures[name]
                scores |= found.scores
        return Baselines(figures, scores)


@contextmanager
def simpler_models(run: Run, features: Features) -> Iterator[Simpler]:
    """Fit models without transfer, or with the simplest one, while the block runs.

    Models that can't be computed are left out.
    """
    examples = features.examples
    train, test = examples.where("train"), examples.distinct(examples.where("test"))
    plain, last = examples.kind.PLAIN, "last_layer_logistic"
    titles = {
        name: f"The baseline {called(name, examples.task, examples.kind)}" for name in (plain, last)
    }

    def fit(**inputs: Any) -> Baselines:
        return fit_baselines(
            examples.labels,
            train,
            test,
            classes=examples.classes,
            task=examples.task,
            seed=run.common.seed,
            **inputs,
        )

    simpler = Simpler(run, fit(), titles, {})
    with in_background() as begin:
        if len(test):
            say_how_many(len(train))
            few = sample_train(examples.labels, train, examples.task, run.common.seed)
            simpler.fits[last] = begin(
                partial(attempt, titles[last], lambda: fit(last_layer=features.output))
            )
            # Rows are made here and not in a thread, so that Ctrl-C and SIGTERM end it at once.
            with run.timed("baselines"):
                rows = optional(run, titles[plain], lambda: plain_rows(examples, run, few, test))
            if rows is not None:
                simpler.fits[plain] = begin(
                    partial(attempt, titles[plain], lambda: fit(**{plain: rows}))
                )
        yield simpler


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
