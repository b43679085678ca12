"""Figures on how good probabilities are, with their intervals, computed with NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Z = 1.959963984540054  # the normal quantile of a 95 % interval
BINS = 15  # bins of confidence, equally wide (Guo 2017)
SMALLEST = 1e-12  # smaller probabilities count as this, or rounding would decide the log loss


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `right` out of `n` (Wilson 1927)."""
    share, z2 = right / n, Z * Z
    middle, half = share + z2 / (2 * n), Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, float((middle - half) / (1 + z2 / n))), min(
        1.0, float((middle + half) / (1 + z2 / n))
    )


def share(right: np.ndarray) -> dict[str, float]:
    """Return "accuracy" with its 95 % interval "low" to "high", and "n", for at least one score.

    Each score is 0 or 1.
    """
    low, high = wilson(int(right.sum()), len(right))
    return {"accuracy": float(right.mean()), "low": low, "high": high, "n": len(right)}


def score(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return how good probabilities are, as JSON values.

    Args:
        labels: int [n], the true classes.
        probabilities: [n, C].
        classes: C names.

    Returns:
        A dict. A value is None where there is nothing to divide by.

        - "accuracy": top-1 accuracy, with its 95 % interval "low" to "high" (Wilson), and "n".
        - "balanced_accuracy": mean recall of the classes that have examples.
        - "macro_f1": mean F1 of these classes.
        - "top5": how often the true class is among the five most probable ones; None for five
          classes or fewer.
        - "log_loss": with the natural logarithm.
        - "brier": sum of squares over the classes, 0 to 2.
        - "ece": expected calibration error, 15 bins (Guo 2017).
        - "classes": for each name "n" (examples), "predicted" (how often it was predicted),
          "precision" and "recall" with "precision_low" to "precision_high" and "recall_low" to
          "recall_high".

    Raises:
        ValueError: no examples, or shapes that don't fit.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if not len(labels) or probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"expected labels [n] and probabilities [n, {len(classes)}] with n >= 1. "
            f"Received: shapes {labels.shape} and {probabilities.shape}"
        )
    predicted = probabilities.argmax(1)
    places = np.arange(probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    # Among classes with equal probabilities the first one wins, as in argmax.
    before = (probabilities > own[:, None]) | (
        (probabilities == own[:, None]) & (places < labels[:, None])
    )
    each = {name: of_class(labels == i, predicted == i) for i, name in enumerate(classes)}
    present = [i for i in range(len(classes)) if np.any(labels == i)]
    f1 = [
        2
        * np.sum((labels == i) & (predicted == i))
        / (np.sum(labels == i) + np.sum(predicted == i))
        for i in present
    ]
    return {
        **share(predicted == labels),
        "balanced_accuracy": float(np.mean([each[classes[i]]["recall"] for i in present])),
        "macro_f1": float(np.mean(f1)),
        "top5": float(np.mean(np.sum(before, 1) < 5)) if len(classes) > 5 else None,
        "log_loss": float(-np.log(np.maximum(own, SMALLEST)).mean()),
        "brier": float(np.mean(np.sum(np.square(probabilities), 1) - 2 * own + 1)),
        "ece": float(
            sum(
                b["n"] * abs(b["confidence"] - b["accuracy"])
                for b in reliability(labels, probabilities)
            )
            / len(labels)
        ),
        "classes": each,
    }


def of_class(true: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """Score one class against all others.

    Args:
        true: bool [n], which examples are of the class.
        said: bool [n], for which examples the class was predicted.
    """
    n, predicted, hits = int(true.sum()), int(said.sum()), int(np.sum(true & said))
    figures: dict[str, Any] = {"n": n, "predicted": predicted}
    for name, whole in (("precision", predicted), ("recall", n)):
        low, high = wilson(hits, whole) if whole else (None, None)
        figures |= {name: hits / whole if whole else None, f"{name}_low": low, f"{name}_high": high}
    return figures


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS
) -> list[dict[str, Any]]:
    """Return how often predictions of some confidence are right.

    Args:
        labels: int [n].
        probabilities: [n, C].
        bins: number of bins, equally wide, from 0 to 1.

    Returns:
        A dict for each bin that holds examples, with "confidence" (their mean) and the figures of
        `share`.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"confidence": float(confidence[place == i].mean()), **share(right[place == i])}
        for i in range(bins)
        if np.any(place == i)
    ]
