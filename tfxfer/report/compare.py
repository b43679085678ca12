"""Compare runs on the test images that all of them have."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfxfer.errors import RunError
from tfxfer.run import Finished, open_run
from tfxfer.safety.arrays import read_arrays
from tfxfer.tasks import smoothed_difference
from tfxfer.tasks.columns import Columns
from tfxfer.tasks.figures import Z


@dataclass(frozen=True, eq=False)
class Judged:
    """A run with its answers on its test examples.

    Args:
        classes: names of the classes, in the order of the probabilities.
        answers: hash of a file (its name if the run holds no hashes) -> (its label as text, its
            target, probabilities).
    """

    run: Finished
    classes: tuple[str, ...]
    answers: dict[str, tuple[str, np.ndarray, np.ndarray]]


def compare_runs(folders: Sequence[str | os.PathLike]) -> list[tuple[str, ...]]:
    """Compare the figures of runs on the test images that all of them have.

    How much better a run is than the first one is the difference of their scores in points,
    with its paired 95 % interval (see `smoothed_difference`).

    Returns:
        the rows of a table, a header first.

    Raises:
        RunError: there are fewer than two runs, one of them is not finished, their classes
            or kinds of answer differ,
            or they have no test image in common.
    """
    if len(folders) < 2:
        raise RunError(f"{len(folders)} run to compare; expected at least two.")
    runs = [judged(folder) for folder in folders]
    first = runs[0]
    for other in runs[1:]:
        if other.run.task() is not first.run.task():
            raise RunError(
                f"{other.run.folder} has another kind of answer than {first.run.folder}: "
                f"{other.run.task().NAME} and {first.run.task().NAME}."
            )
        if set(other.classes) != set(first.classes):
            odd = sorted(set(other.classes) ^ set(first.classes))
            raise RunError(
                f"{other.run.folder} has other classes than {first.run.folder}: "
                f"{', '.join(odd[:5])}. Compare runs on the same data."
            )
    if not first.run.task().CLASSES and not isinstance(first.run.task(), Columns):
        runs = [with_targets_of(first, one) for one in runs]
    common = [
        file
        for file in first.answers
        if all(
            file in other.answers and other.answers[file][0] == first.answers[file][0]
            for other in runs
        )
    ]
    if not common:
        raise RunError(
            f"{first.run.folder} and the others have no test image in common. "
            "Compare runs on the same data, split by the same --seed."
        )
    labels = np.array([first.answers[file][1] for file in common])
    task = first.run.task()
    rows: list[tuple[str, ...]] = []
    before = np.zeros(0)
    for i, one in enumerate(runs):
        columns = [one.classes.index(name) for name in first.classes]
        probabilities = np.stack([one.answers[file][2][columns] for file in common]).astype(
            np.float64
        )
        decision = {
            name: [value[i] for i in columns] if isinstance(value, list) else value
            for name, value in one.run.decision().items()
        }
        figures = task.figures(labels, probabilities, first.classes, decision)
        scores = task.prediction_scores(probabilities, labels)
        before = before if i else scores
        gain, error = smoothed_difference(scores, before)
        # From the scores as they are printed, so that a reader who subtracts gets the same.
        plain = round(scores.mean(), 3) - round(before.mean(), 3)
        against = (
            f"{100 * plain:+.1f} ({100 * (gain - Z * error):+.1f} to "
            f"{100 * (gain + Z * error):+.1f})"
            if i
            else "-"
        )
        settings = one.run.settings()
        recipe, backbone = (
            str(settings.get(name, {}).get("value", "-")) for name in ("recipe", "backbone")
        )
        names = ("chosen", "chosen_head") if "chosen_head" in settings else ("chosen", "head")
        chosen = " ".join(str(settings[name]["value"]) for name in names if name in settings) or "-"
        interval = f"{figures['low']:.3f} to {figures['high']:.3f}"
        compared = task.compared(figures)
        if not rows:
            names_of_figures = (task.SCORE, "95 % interval", *compared)
            last = "difference to the first, points"
            rows.append(("run", "recipe", "backbone", "chosen", *names_of_figures, last))
        cells = (f"{figures[task.SCORE]:.3f}", interval, *compared.values())
        rows.append((str(one.run.folder), recipe, backbone, chosen, *cells, against))
    said = f"{len(common):,} test images{said_of_data(runs, len(common))}"
    return [*rows, (said, *[""] * (len(rows[0]) - 1))]


def with_targets_of(first: Judged, one: Judged) -> Judged:
    """Return a run with its targets in the order of the outputs of the first run."""
    columns = [one.classes.index(name) for name in first.classes]
    task = one.run.task()
    answers = {
        file: (task.said_of_target(target[columns], first.classes), target[columns], predictions)
        for file, (_, target, predictions) in one.answers.items()
    }
    return replace(one, answers=answers)


def said_of_data(runs: Sequence[Judged], common: int) -> str:
    """A note if not all runs have the same photos; "" if they have."""
    said = ""
    if any(len(one.answers) > common for one in runs):
        said = f" that all runs have (of {' and '.join(f'{len(one.answers):,}' for one in runs)})"
    prints = [one.run.settings().get("data_fingerprint", {}).get("value") for one in runs]
    if len(set(prints)) > 1:
        said += ", of runs on different data: their training photos differ, too"
    return said


def judged(folder: str | os.PathLike) -> Judged:
    run = open_run(Path(folder))
    path, classes = run.path("probabilities.npz"), tuple(run.classes())
    try:
        arrays = read_arrays(path)
        mine = arrays["splits"] == "test"
        # By content, where the run has noted it: other data may have files of the same names.
        keys = arrays["digests" if "digests" in arrays else "files"][mine].tolist()
        labels, probabilities = arrays["labels"][mine], arrays["probabilities"][mine]
        task = run.task()
        outputs = len(task.kinds) if isinstance(task, Columns) else len(classes)
        fits = labels.dtype.kind == "f" and labels.shape == (len(probabilities), outputs)
        if task.CLASSES:
            fits = labels.dtype.kind in "iu" and labels.ndim == 1
            fits = fits and not ((labels < 0) | (labels >= len(classes))).any()
        if (
            not fits
            or probabilities.dtype.kind != "f"
            or probabilities.shape != (len(labels), len(classes))
            or not np.isfinite(probabilities).all()
        ):
            raise ValueError(f"expected probabilities of the {len(classes)} classes in labels.txt")
        texts = [task.said_of_target(label, classes) for label in labels]
        answers = zip(texts, labels, probabilities, strict=True)
        return Judged(run, classes, dict(zip(keys, answers, strict=True)))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error
