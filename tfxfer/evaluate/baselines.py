"""Fit the models that one would have without transfer, or with its simplest form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfxfer.data.folds import sample
from tfxfer.heads import linear
from tfxfer.heads.fitted import Array
from tfxfer.heads.logistic import LEAST_GAIN_OF_PROBABILITIES
from tfxfer.heads.several import fit_several
from tfxfer.tasks import CLASSIFY, Task

# A baseline is fitted on at most so many examples: with more, it would take longer than the model
# that it is compared with.
BASELINE_EXAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class Baselines:
    """What one gets without transfer, or with its simplest form.

    figures: the figures of the task for each name; None where it was not computed.
    scores: for each name that was computed, the score of each test example, float [n].
    """

    figures: dict[str, dict[str, Any] | None]
    scores: dict[str, np.ndarray]


def fit_baselines(
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    classes: Sequence[str],
    *,
    raw_pixels: Array | None = None,
    tf_idf: Array | None = None,
    last_layer: Array | None = None,
    task: Task = CLASSIFY,
    seed: int = 0,
) -> Baselines:
    """Fit simple models on train and score them on test.

    They are: always the most frequent class, and logistic regression on raw pixels or weighted
    words, and on the network's own features. The regressions have standardised columns, but for
    words, a penalty that is picked by 5-fold cross-validation on train, and at most 10,000 training
    examples.

    Args:
        labels: int [n] of all examples.
        train, test: positions.
        classes: C names.
        raw_pixels: float32 [n, 32 * 32 * 3].
        tf_idf: float32 [n, d], rows of length one; see `Kind.fit_plain`.
        last_layer: float32 [n, feature_size], the backbone's own output.
        seed: seed of the sample and the folds.
    """
    labels, train, test = np.asarray(labels), np.asarray(train), np.asarray(test)
    figures: dict[str, dict[str, Any] | None] = {
        "majority": None,
        "raw_pixels": None,
        "last_layer_logistic": None,
    }
    scores: dict[str, np.ndarray] = {}
    if not len(test):
        return Baselines(figures, scores)
    constant = task.constant(labels[train], len(classes))
    predictions = {"majority": np.broadcast_to(constant, (len(test), len(classes)))}
    few = sample_train(labels, train, task, seed)
    inputs = {"raw_pixels": raw_pixels, "tf_idf": tf_idf, "last_layer_logistic": last_layer}
    for name, features in inputs.items():
        if features is not None:
            predictions[name] = logistic(
                features,
                labels,
                few,
                test=test,
                classes=len(classes),
                task=task,
                seed=seed,
                # Rare words would count most if columns were standardised.
                normalise="l2" if name == "tf_idf" else "standardise",
            )
    for name, probabilities in predictions.items():
        figures[name] = task.figures(labels[test], probabilities, classes, {})
        scores[name] = task.prediction_scores(probabilities, labels[test])
    return Baselines(figures, scores)


def sample_train(labels: np.ndarray, train: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """Return the positions that baselines are fitted on: `train`, or a sample of it."""
    return train[sample(task.strata(labels[train]), BASELINE_EXAMPLES, seed)]


def logistic(
    features: Array,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    classes: int,
    *,
    task: Task,
    seed: int,
    normalise: str = "standardise",
) -> np.ndarray:
    """Return probabilities [len(test), classes] by logistic regression fitted on `train`.

    A class without training examples gets a probability of almost zero.
    """
    if task.parts:
        return np.concatenate(
            [
                logistic(
                    features,
                    part.own(np.nan_to_num(labels)),
                    train[part.known(labels[train])],
                    test=test,
                    classes=part.size,
                    task=part.task,
                    seed=seed,
                    normalise=normalise,
                )
                for part in task.parts
            ],
            1,
        )
    if not task.CLASSES:
        return plain_outputs(
            features, labels, train, test=test, outputs=classes, task=task, normalise=normalise
        )
    present, known = np.unique(labels[train], return_inverse=True)
    if len(present) < 2:
        return np.broadcast_to(
            np.isin(np.arange(classes), present).astype(np.float64), (len(test), classes)
        )
    numbers = np.zeros(len(labels), int)
    numbers[train] = known
    fitted = linear(
        features,
        numbers,
        len(present),
        widths=(features.shape[1],),
        rows=train,
        normalise=normalise,
        gain=LEAST_GAIN_OF_PROBABILITIES,
        seed=seed,
    ).expanded(present, classes)
    logits = [
        fitted.logits(np.asarray(features[test[i : i + 1024]], np.float32))
        for i in range(0, len(test), 1024)
    ]
    return task.predictions(np.concatenate(logits))


def plain_outputs(
    features: Array,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    outputs: int,
    *,
    task: Task,
    normalise: str,
) -> np.ndarray:
    """Return predictions [len(test), K] by the task's plain head, fitted on `train`."""
    widths = (features.shape[1],)
    codes = task.codes(targets, outputs)
    # Where columns are standardised, it is left to the head, as in a run.
    how = normalise if normalise == "l2" else None
    head = fit_several(task.PLAIN, features, codes, widths, rows=train, normalise=how)
    rows = [
        head.logits(np.asarray(features[test[i : i + 1024]], np.float32))
        for i in range(0, len(test), 1024)
    ]
    return task.predictions(np.concatenate(rows))
