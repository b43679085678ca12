"""Whether the pretrained network is worth it, in words. Nothing is fitted here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfxfer.inputs import DEFAULT, KINDS, Kind
from tfxfer.tasks import CLASSIFY, Task, said_of_gain, smoothed_difference

PLAIN = {"linear": "logistic regression", "ridge": "ridge regression"}
# A simple model is as good as the network where the two differ by less than this, two standard
# errors included.
CLOSE = 0.02
WITHOUT_NETWORK = ("majority", "raw_pixels", "tf_idf")


def called(name: str, task: Task, kind: Kind) -> str:
    """Return what a baseline is called in sentences."""
    plain = PLAIN[task.PLAIN]
    names = {
        "majority": task.CONSTANT,
        kind.PLAIN: f"{plain} on {kind.VALUES}",
        "last_layer_logistic": f"{plain} on the last layer",
    }
    return names.get(name, name)


def pays(
    metrics: Mapping[str, Any],
    scores: Mapping[str, np.ndarray] | None = None,
    *,
    task: Task = CLASSIFY,
    kind: Kind = KINDS[DEFAULT],
) -> str | None:
    """Return one or two sentences on whether the pretrained network helps here.

    It is compared with the better of the baselines that use no pretrained network.

    Args:
        metrics: as in metrics.json: "test" and "baselines".
        scores: float [n] for "test" and each baseline, the score of each test example, for a paired
            comparison. Without them the errors are taken as independent, which is cautious.
        task: what the answer is.
        kind: what the examples are.

    Returns:
        None where there is no test part or no baseline.
    """
    score = task.SCORE
    test, others = (
        metrics.get("test"),
        {
            name: baseline
            for name, baseline in (metrics.get("baselines") or {}).items()
            if name in WITHOUT_NETWORK and baseline
        },
    )
    if not test or not others:
        return None
    name = max(others, key=lambda key: others[key][score])
    other, n = others[name], test["n"]
    # The printed gain is that of the printed scores; the smoothed one decides.
    printed = test[score] - other[score]
    if scores is not None and name in scores and "test" in scores:
        gain, error = smoothed_difference(scores["test"], scores[name])
    else:
        gain, error = independent_difference(test, other, score)
    figures = (
        f"{test[score]:.3f} on {n:,} test {kind.MANY} against {other[score]:.3f} by "
        f"{called(name, task, kind)} ({said_of_gain(printed, error, percent=task.PERCENT)})"
    )
    if gain > 2 * error:
        return f"The pretrained network helps: {figures}."
    if gain < -2 * error:
        return (
            f"The pretrained network does not help here: {figures}. The simple model is better; "
            f"a network trained on {kind.MANY} more like these may help."
        )
    if gain + 2 * error < CLOSE:
        near = f"{100 * CLOSE:.0f} points" if task.PERCENT else f"{CLOSE}"
        simple = f"is as good, to within {near},"
        if gain - 2 * error <= -CLOSE:
            simple = "looks better, which may be chance,"
        return (
            f"The pretrained network gives no clear gain here: {figures}. The simple model "
            f"{simple} and needs no network."
        )
    return (
        f"Too few test {kind.MANY} to say whether the pretrained network helps: {figures}. "
        "The difference is within two standard errors."
    )


def unmeasured(kind: Kind) -> str:
    """Return what is said in place of `pays` where there is no test part, and how to get one."""
    return (
        "There is no test part, so it is not measured whether the pretrained network helps. "
        f"Mark some {kind.MANY} as test (a folder test/, or test in the column split), or give no "
        f"parts: then tfxfer divides the {kind.MANY}."
    )


def independent_difference(
    test: Mapping[str, Any], other: Mapping[str, Any], score: str
) -> tuple[float, float]:
    """Return the difference of two mean scores, and its standard error if they are independent.

    One right and one wrong answer are added to each, so that few examples do not look certain
    (Agresti 2000).
    """
    gain, variance = 0.0, 0.0
    for figures, sign in ((test, 1), (other, -1)):
        n = figures["n"] + 2
        share = (figures[score] * figures["n"] + 1) / n
        gain += sign * share
        variance += max(share * (1 - share), 0.0) / n
    return gain, float(np.sqrt(variance))


def beaten(
    metrics: Mapping[str, Any],
    scores: Mapping[str, np.ndarray] | None = None,
    *,
    task: Task = CLASSIFY,
    kind: Kind = KINDS[DEFAULT],
) -> str | None:
    """Return one sentence on the best baseline where it is more often right on test than the run.

    Args:
        metrics, scores, task, kind: as for `pays`.

    Returns:
        None where no baseline is more often right, or the best one uses no pretrained network.
    """
    score = task.SCORE
    test = metrics.get("test")
    others = {
        name: baseline for name, baseline in (metrics.get("baselines") or {}).items() if baseline
    }
    if not test or not others:
        return None
    name = max(others, key=lambda key: others[key][score])
    other = others[name][score]
    if other <= test[score] or name in WITHOUT_NETWORK:  # `pays` compares with these
        return None
    chance = "which may be chance"
    if scores is not None and name in scores and "test" in scores:
        gain, error = smoothed_difference(scores[name], scores["test"])
        if gain > 2 * error:
            chance = "more than chance: choose another head"
    figures = f"{other:.3f} against {test[score]:.3f}"
    return f"A simpler model is better here: {called(name, task, kind)}, {figures}, {chance}."
