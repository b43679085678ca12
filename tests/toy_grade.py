"""A kind of answer in one file: a grade on a scale, such as 1 to 5. See test_kinds.py.

Grades are folders of names that sort in their order. An answer that is nearly right counts more
than one that is far off: its score is 1 less the distance, as a share of the scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer.tasks import classify

NAME, SCORE, LOSS = "grade", "closeness", "mean distance"
CLASSES, PERCENT, OUTPUT, NOUN = True, True, "probabilities", "class"
START, PLAIN = "linear", "linear"
CONSTANT = "always the most frequent grade"
SCORE_MEANS = "How close the answers are to the grades, from 0 to 1."
HEADS: tuple[str, ...] = ("gaussian", "linear", "ridge")
TRIED: tuple[str, ...] = ("gaussian", "ridge")
PICTURES: tuple[str, ...] = ()

# Grades are also classes.
parts = classify.parts
encode, present, strata = classify.encode, classify.present, classify.strata
encode_known, texts = classify.encode_known, classify.texts
holds, has = classify.holds, classify.has
label_columns, unsure = classify.label_columns, classify.unsure
temperature, leave_own_out, codes = classify.temperature, classify.leave_own_out, classify.codes
offset, units, count, check = classify.offset, classify.units, classify.count, classify.check
may_hold, decide, columns = classify.may_hold, classify.decide, classify.columns
said_of_target, said_of_answer = classify.said_of_target, classify.said_of_answer
heading, served = classify.heading, classify.served
constant, can_judge = classify.constant, classify.can_judge
prediction_losses = classify.prediction_losses


def losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The mean distance of a grade that is drawn with the probabilities."""
    grades = np.arange(outputs.shape[1])
    return (softmax(outputs, 1) * np.abs(grades - targets[:, None])).sum(1)


def scores(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return 1 - np.abs(outputs.argmax(1) - targets) / (outputs.shape[1] - 1)


prediction_scores = scores


def named(names: Sequence[str]) -> str:
    return NAME


def predictions(outputs: np.ndarray) -> np.ndarray:
    return softmax(np.asarray(outputs, np.float64), 1)


def prediction_tensor(outputs: Any) -> Any:
    return tf.nn.softmax(tf.cast(outputs, tf.float32))


def answers(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable grade."""
    best = np.asarray(predictions).argmax(1)
    return best, np.asarray(predictions)[np.arange(len(best)), best]


def training_loss(smoothing: float, targets: np.ndarray) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


def training_score(targets: np.ndarray) -> Any:
    def closeness(codes, outputs):
        distance = tf.abs(tf.argmax(codes, 1) - tf.argmax(outputs, 1))
        return 1 - tf.cast(distance, tf.float32) / (outputs.shape[1] - 1)

    return keras.metrics.MeanMetricWrapper(closeness, name=SCORE)


def suspects(targets: np.ndarray, predictions: np.ndarray) -> list[tuple[int, int]]:
    """Grades that are two steps or more away from the answer."""
    best, _ = answers(predictions)
    return [(int(i), int(best[i])) for i in np.flatnonzero(np.abs(best - targets) >= 2)]


def share(scores: np.ndarray) -> dict[str, float]:
    mean, error = float(scores.mean()), float(scores.std() / np.sqrt(len(scores)))
    return {SCORE: mean, "low": mean - 2 * error, "high": mean + 2 * error, "n": len(scores)}


def figures(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    best, _ = answers(predictions)
    exact = float((best == targets).mean())
    return {**share(scores(predictions, targets)), "exact": exact}


held_out_figures = figures


def said_of_score(figures: Mapping[str, Any], photos: str) -> str:
    return f"is how close the grades of {photos} are"


def more_said(figures: Mapping[str, Any]) -> list[str]:
    return [f"Exactly right: {100 * figures['exact']:.1f} %."]


def further(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [("exact", f"{figures['exact']:.3f}", "the share of grades that are exactly right")]


def compared(figures: Mapping[str, Any]) -> dict[str, str]:
    return {"exact": f"{figures['exact']:.3f}"}
