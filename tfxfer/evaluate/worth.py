"""Whether the pretrained network is worth it, in words. Nothing is fitted here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfxfer.inputs import DEFAULT, KINDS, Kind
from tfxfer.tasks import CLASSIFY, Task, paired, said_of_gain

PLAIN = {"linear": "logistic regression", "ridge": "ridge regression"}
# A simple model is as good as the network where the network is better by less than this at most,
# within two standard errors.
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
    gain = test[score] - other[score]
    if scores is not None and name in scores and "test" in scores:
        gain, error = paired(scores["test"], scores[name])
    else:
        error = float(
            np.sqrt(
                sum(max(each[score] * (1 - each[score]), 0.0) / each["n"] for each in (test, other))
            )
        )
    figures = (
        f"{test[score]:.3f} on {n:,} test {kind.MANY} against {other[score]:.3f} by "
        f"{called(name, task, kind)} ({said_of_gain(gain, error, percent=task.PERCENT)})"
    )
    if gain > 2 * error and gain > 0:
        return f"The pretrained network helps: {figures}."
    if gain < -2 * error or (gain < 0 and error == 0):
        return (
            f"The pretrained network does not help here: {figures}. The simple model is better; "
            f"a network trained on {kind.MANY} more like these may help."
        )
    if gain + 2 * error < CLOSE:
        near = f"{100 * CLOSE:.0f} points" if task.PERCENT else f"{CLOSE}"
        return (
            f"The pretrained network gives no clear gain here: {figures}. The simple model is as "
            f"good, to within {near}, and needs no network."
        )
    return (
        f"Too few test {kind.MANY} to say whether the pretrained network helps: {figures}. "
        "The difference is within two standard errors."
    )


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
        gain, error = paired(scores[name], scores["test"])
        if gain > 2 * error:
            chance = "more than chance: choose another head"
    figures = f"{other:.3f} against {test[score]:.3f}"
    return f"A simpler model is better here: {called(name, task, kind)}, {figures}, {chance}."
