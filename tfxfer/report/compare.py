"""Compare runs on the test examples that all of them have."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfxfer.errors import RunError
from tfxfer.report import words
from tfxfer.run import Finished, open_run
from tfxfer.safety.arrays import read_arrays
from tfxfer.tasks import smoothed_difference
from tfxfer.tasks.figures import Z


@dataclass(frozen=True, eq=False)
class Judged:
    """A run with its answers on its test examples.

    classes: names of the outputs, in the order of the predictions.
    keys: the hash of each example's file; its name if the run holds no hashes.
    targets: [n, ...].
    predictions: float64 [n, K].
    """

    run: Finished
    classes: tuple[str, ...]
    keys: list[str]
    targets: np.ndarray
    predictions: np.ndarray

    def labels(self, names: Sequence[str]) -> dict[str, str]:
        """Return the label of each example by its key, as a run with these outputs writes it."""
        task = self.run.task()
        texts = task.texts(self.targets, self.classes)
        if set(names) == set(self.classes):
            texts = task.texts(task.encode_known(texts, self.classes, names), names)
        return dict(zip(self.keys, texts, strict=True))

    def take(self, keys: Sequence[str]) -> "Judged":
        """Return the answers on some of the examples."""
        places = {key: i for i, key in enumerate(self.keys)}
        rows = np.array([places[key] for key in keys], np.int64)
        return replace(
            self,
            keys=list(keys),
            targets=self.targets[rows],
            predictions=self.predictions[rows],
        )


def compare_runs(folders: Sequence[str | os.PathLike]) -> list[tuple[str, ...]]:
    """Compare the figures of runs on the test examples that all of them have.

    How much better a run is than the first one is the difference of their scores in points,
    with its paired 95 % interval (see `smoothed_difference`). A run may know further classes, as
    one does that was grown from another.

    Returns:
        the rows of a table, a header first.

    Raises:
        RunError: there are fewer than two runs, one of them is not finished, each of two has
            classes that the other lacks, their kinds of answer differ, or they have no test example
            in common.
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
        odd = sorted(set(other.classes) ^ set(first.classes))
        more = first.run.task().CLASSES and (
            set(other.classes) <= set(first.classes) or set(first.classes) <= set(other.classes)
        )
        if odd and not more:
            raise RunError(
                f"{other.run.folder} has other classes than {first.run.folder}: "
                f"{', '.join(odd[:5])}. Compare runs on the same data."
            )
    labels = [one.labels(first.classes) for one in runs]
    common = [
        key
        for key, label in labels[0].items()
        if all(key in other and other[key] == label for other in labels)
    ]
    if not common:
        raise RunError(
            f"{first.run.folder} and the others have no test example in common. "
            "Compare runs on the same data, split by the same --seed."
        )
    task, many = first.run.task(), first.run.kind().MANY
    rows: list[tuple[str, ...]] = []
    before = np.zeros(0)
    for i, one in enumerate(run.take(common) for run in runs):
        figures = task.figures(one.targets, one.predictions, one.classes, one.run.decision())
        scores = task.prediction_scores(one.predictions, one.targets)
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
        network = "chosen_backbone" if "chosen_backbone" in settings else "backbone"
        recipe, backbone = (
            str(settings.get(name, {}).get("value", "-")) for name in ("recipe", network)
        )
        names = ("chosen", "chosen_head") if "chosen_head" in settings else ("chosen", "head")
        parts = [str(settings[name]["value"]) for name in names if name in settings]
        chosen = " ".join(map(words.head, parts)) or "-"
        interval = f"{figures['low']:.3f} to {figures['high']:.3f}"
        compared = task.compared(figures)
        if not rows:
            names_of_figures = (task.SCORE, "95 % interval", *compared)
            last = "difference to the first, points"
            rows.append(("run", "recipe", "backbone", "chosen", *names_of_figures, last))
        cells = (f"{figures[task.SCORE]:.3f}", interval, *compared.values())
        rows.append((str(one.run.folder), recipe, backbone, chosen, *cells, against))
    said = f"{len(common):,} test {many}{said_of_data(runs, len(common))}"
    return [*rows, (said, *[""] * (len(rows[0]) - 1))]


def said_of_data(runs: Sequence[Judged], common: int) -> str:
    """A note if not all runs have the same examples and classes; "" if they have."""
    said, many = "", runs[0].run.kind().MANY
    if any(len(one.keys) > common for one in runs):
        said = f" that all runs have (of {' and '.join(f'{len(one.keys):,}' for one in runs)})"
    prints = [one.run.settings().get("data_fingerprint", {}).get("value") for one in runs]
    if len(set(prints)) > 1:
        said += f", of runs on different data: their training {many} differ, too"
    known: list[set[str]] = [set(one.classes) for one in runs]
    if more := sorted(known[0].union(*known) - known[0].intersection(*known)):
        said += f"; not all runs know {', '.join(more[:5])}{' and more' * (len(more) > 5)}"
    return said


def judged(folder: str | os.PathLike) -> Judged:
    """Return a finished run with what it has answered on its test examples.

    Raises:
        RunError: the run is not finished, or its files don't belong together.
    """
    run = open_run(Path(folder))
    path, classes = run.path("probabilities.npz"), tuple(run.classes())
    try:
        arrays = read_arrays(path)
        mine = arrays["splits"] == "test"
        # By content, where the run has noted it: other data may have files of the same names.
        keys = arrays["digests" if "digests" in arrays else "files"][mine].tolist()
        targets, predictions = arrays["labels"][mine], arrays["probabilities"][mine]
        if (
            not run.task().holds(targets, len(classes))
            or predictions.dtype.kind != "f"
            or predictions.shape != (len(targets), len(classes))
            or not np.isfinite(predictions).all()
        ):
            raise ValueError(f"expected predictions of the {len(classes)} names in labels.txt")
        return Judged(run, classes, keys, targets, predictions.astype(np.float64))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error
