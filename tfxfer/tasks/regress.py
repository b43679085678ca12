"""A number for each example, or several numbers.

Targets are float32 [n, K]; not-a-number stands for a number that nobody knows, which counts in no
loss and in no figure. Outputs are numbers in the same unit. The score of an example is 1 less its
squared error, in units of the variance of the targets that it is judged among: its mean is R2. An
interval around each number holds the true one as often as promised (docs/methods.md, "Numbers").
"""

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfxfer.tasks import cells
from tfxfer.tasks.cells import LONGEST_SHOWN, LabelError, is_empty, split_cells
from tfxfer.tasks.figures import wilson
from tfxfer.tasks.known import in_order
from tfxfer.tasks.part import Part
from tfxfer.tasks.scores import share_of_scores

NAME, SCORE, LOSS = "regress", "R2", "squared error"
SCORE_MEANS = (
    "1 less the squared error as a share of that of always saying the mean: 1 is perfect, 0 is no "
    "better than the mean."
)
CLASSES, PERCENT, OUTPUT, NOUN = False, False, "numbers", "number"
HEADS: tuple[str, ...] = ("ridge", "huber")
TRIED: tuple[str, ...] = ("ridge",)
START, PLAIN = "ridge", "ridge"
CONSTANT = "always the mean"
PICTURES: tuple[str, ...] = ("numbers",)
parts: tuple[Part, ...] = ()

# Each output has a column.
texts, holds, has, label_columns = cells.texts, cells.holds, cells.has, cells.label_columns
COVERAGE = 0.9  # share of intervals that hold the true number
GROUPS = 10  # of similar numbers, of which each part and fold gets its share
DEFAULT = "number"  # name of a number that stands in no column
LARGEST = float(np.finfo(np.float32).max)
# Commas where English has them between thousands.
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
# Share of the range of numbers: a change by more than this is worth a note.
COARSE = 1e-6


def may_hold(cells: Sequence[str]) -> bool:
    """Whether a column of a table may hold numbers."""
    said = [cell for cell in cells if not is_empty(cell)]
    return bool(said) and all(is_number(cell) for cell in said)


def is_number(cell: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def encode(
    labels: Sequence[str], order: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return float32 [n, K], and the names of the numbers.

    Raises:
        LabelError: a text is no number, or too large a one.
    """
    rows = [split_cells(text) or [text] for text in labels]
    names = tuple(order) if order is not None and len(order) == len(rows[0]) else (DEFAULT,)
    values = [numbers_in(row, names, i) for i, row in enumerate(rows)]
    return np.array(values, np.float32).reshape(len(labels), len(names)), names


def encode_known(labels: Sequence[str], order: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return float32 [n, K] of the numbers `names`; not-a-number for those that the data lacks.

    Raises:
        ValueError: the data has a number that is none of them, or a cell says something else.
    """
    targets, own = encode(labels, order)
    return in_order(targets, own, names, f"{NOUN}s")


def numbers_in(row: Sequence[str], names: Sequence[str], index: int) -> list[float]:
    """Return the numbers in the cells of an example; see `number_in`.

    Args:
        index: the place of the example.

    Raises:
        LabelError: a cell holds something else.
    """
    try:
        return [number_in(cell, name) for cell, name in zip(row, names, strict=True)]
    except ValueError as error:
        raise LabelError(str(error), index) from error


def number_in(cell: str, name: str) -> float:
    """Return the number in a cell; not-a-number for an empty one.

    Raises:
        ValueError: there is something else in it, or a number that float32 can't hold.
    """
    if is_empty(cell):
        return float("nan")
    if not is_number(cell):
        raise ValueError(
            f"has {cell[:LONGEST_SHOWN]!r} where a number is expected ({name})."
            f"{hint_of_commas(cell)} Or are these names of classes? Then leave --task out"
        )
    if abs(float(cell)) > LARGEST:
        raise ValueError(
            f"has the number {cell.strip()} ({name}), which is too large; expected numbers up to "
            f"{LARGEST:.2g}. If nothing is known here, leave the cell empty, or write NaN into "
            "an array"
        )
    return float(cell)


def hint_of_commas(cell: str) -> str:
    """Return what a text with commas may mean, as a sentence; "" if that is no number."""
    cell = cell.strip()
    point, none = cell.replace(",", ".", 1), cell.replace(",", "")
    thousands = THOUSANDS.fullmatch(cell) is not None
    if thousands and is_number(point):
        return f" If it means {none}, leave the comma out; if {point}, write a point."
    if thousands:
        return f" If it means {none}, leave the commas out."
    return " Write a point in place of the comma." if is_number(point) and "," in cell else ""


def notes_on_rounding(cells: Sequence[str], name: str) -> list[str]:
    """Return a note if different numbers of a column are the same one as float32."""
    exact = np.array(sorted({float(cell) for cell in cells if not is_empty(cell)}), np.float64)
    if len(exact) < 2:
        return []
    kept = exact.astype(np.float32).astype(np.float64)
    lost = np.flatnonzero(kept[1:] == kept[:-1])
    if not len(lost) or np.abs(kept - exact).max() <= COARSE * np.ptp(exact):
        return []
    first, second = exact[lost[0]], exact[lost[0] + 1]
    return [
        f"Numbers are kept with about 7 digits: of {len(exact):,} different ones of {name}, "
        f"{len(exact) - len(lost):,} are left, so that {first:.15g} and {second:.15g} "
        "count as the same. Subtract a fixed number from all of them, such as the smallest."
    ]


def check(targets: np.ndarray, train: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return notes on numbers that are not known for all training examples.

    Raises:
        ValueError: a number is the same for all examples, so that there is nothing to learn.
    """
    notes = []
    for name, column in zip(names, np.asarray(targets, np.float64)[train].T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known) or np.ptp(known) == 0:
            value = f"{known[0]:g}" if len(known) else "nothing"
            raise ValueError(
                f"says {value} of {name!r} for every training example, so that there is nothing to "
                "learn; expected different numbers"
            )
        if len(known) < len(column):
            notes.append(
                f"{name} is not known for {len(column) - len(known):,} of {len(column):,} training "
                "examples (empty cells): these are not used to learn it."
            )
    return notes


def count(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return for how many examples each number is known, int [K]."""
    return (~np.isnan(np.asarray(targets).reshape(-1, outputs))).sum(0)


def present(targets: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all numbers, and the targets as they are.

    Raises:
        ValueError: there are fewer than two examples.
    """
    if len(targets) < 2:
        raise ValueError(f"expected two examples or more. Received: {len(targets)} examples")
    return np.arange(outputs), np.asarray(targets)


def strata(targets: np.ndarray) -> np.ndarray:
    """Return a group of similar numbers for each example, int [n]."""
    targets = np.asarray(targets, np.float64)
    if not len(targets):
        return np.zeros(0, np.int64)
    filled = np.where(np.isnan(targets), means_of(targets), targets)
    spread = filled.std(0)
    size = ((filled - filled.mean(0)) / np.where(spread > 0, spread, 1.0)).mean(1)
    groups = min(GROUPS, max(len(size) // GROUPS, 1))
    place = np.empty(len(size), np.int64)
    place[np.argsort(size, kind="stable")] = np.arange(len(size))
    return place * groups // len(size)


def means_of(targets: np.ndarray) -> np.ndarray:
    """Return the mean of the known numbers, float64 [K]; 0 where none is known."""
    known = ~np.isnan(targets)
    return np.where(known, targets, 0.0).sum(0) / np.maximum(known.sum(0), 1)


def variances_of(targets: np.ndarray) -> np.ndarray:
    """Return the variance of the known numbers, float64 [K]."""
    targets = np.asarray(targets, np.float64)
    known = ~np.isnan(targets)
    squares = np.square(np.where(known, targets - means_of(targets), 0.0))
    return squares.sum(0) / np.maximum(known.sum(0), 1)


def losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the squared error of each example, in units of the targets' variance, float [n].

    It is the mean over the known numbers. Where all targets are the same, an error counts 1.
    """
    targets = np.asarray(targets, np.float64)
    known, variance = ~np.isnan(targets), variances_of(targets)
    errors = np.square(np.where(known, np.asarray(outputs, np.float64) - targets, 0.0))
    shares = np.where(variance > 0, errors / np.where(variance > 0, variance, 1.0), errors > 0)
    return shares.sum(1) / np.maximum(known.sum(1), 1)


def scores(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return 1 less the loss of each example, float [n]; the mean is R2."""
    return 1 - losses(outputs, targets)


prediction_scores = scores


def temperature(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return 1: numbers are not divided by anything."""
    return 1.0


def offset(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return 0: nothing is added to numbers."""
    return 0.0


def predictions(outputs: np.ndarray) -> np.ndarray:
    """Return the numbers, float64 [n, K]."""
    return np.asarray(outputs, np.float64)


def prediction_tensor(outputs: Any) -> Any:
    """Return the numbers, float32 [n, K], as a TensorFlow tensor."""
    tensorflow = importlib.import_module("tensorflow")  # loaded only where a model runs
    return tensorflow.cast(outputs, tensorflow.float32)


def answers(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 0 and the first number of each example: there is nothing to choose from."""
    predictions = np.asarray(predictions)
    return np.zeros(len(predictions), np.int64), predictions[:, 0]


def leave_own_out(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the outputs as they are."""
    return np.asarray(outputs, np.float64)


def units(targets: np.ndarray) -> np.ndarray | None:
    """Return the standard deviation of each number, float32 [K]."""
    deviation = np.sqrt(variances_of(targets))
    return np.where(deviation > 0, deviation, 1.0).astype(np.float32)


def codes(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the targets, float32 [n, K]."""
    return np.asarray(targets, np.float32)


def training_loss(smoothing: float, targets: np.ndarray) -> Any:
    """Return the squared error of the known numbers, in units of the variance of `targets`."""
    tensorflow = importlib.import_module("tensorflow")
    variance = variances_of(targets)
    size = tensorflow.constant(np.where(variance > 0, variance, 1.0), tensorflow.float32)

    def masked_squared_error(codes: Any, outputs: Any) -> Any:
        known = tensorflow.math.is_finite(codes)
        error = tensorflow.where(known, outputs - tensorflow.where(known, codes, 0.0), 0.0)
        count = tensorflow.reduce_sum(tensorflow.cast(known, outputs.dtype), 1)
        squares = tensorflow.reduce_sum(tensorflow.square(error) / size, 1)
        return squares / tensorflow.maximum(count, 1.0)

    return masked_squared_error


def training_score(targets: np.ndarray) -> Any:
    """Return 1 less the loss: R2, with the variance of the training targets."""
    loss = training_loss(0.0, targets)

    def r2(codes: Any, outputs: Any) -> Any:
        return 1 - loss(codes, outputs)

    return importlib.import_module("keras").metrics.MeanMetricWrapper(r2, name=SCORE)


def can_judge(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return which examples have a number that is known, bool [n]."""
    return ~np.isnan(targets).all(1)


def constant(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the mean, float64 [K]."""
    return means_of(np.asarray(targets, np.float64))


prediction_losses = losses


def suspects(targets: np.ndarray, predictions: np.ndarray) -> list[tuple[int, int]]:
    """Return nothing: numbers that look wrong are not looked for yet."""
    return []


def share(scores: np.ndarray) -> dict[str, float]:
    """Return the mean "R2" with its 95 % interval "low" to "high", and "n"."""
    return share_of_scores(scores, SCORE)


def decide(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return "half_widths" [K] of intervals that hold the true number with probability "coverage".

    Each is a quantile of the absolute errors on these examples, which the model must not have been
    fitted on (split conformal prediction, Lei 2018). It is None where there are too few.
    """
    errors = np.abs(np.asarray(predictions, np.float64) - np.asarray(targets, np.float64))
    return {"coverage": COVERAGE, "half_widths": [half_width(column) for column in errors.T]}


def half_width(errors: np.ndarray) -> float | None:
    """Return the ceil((n + 1) coverage)-th smallest error; None where n is too small for that."""
    known = np.sort(errors[~np.isnan(errors)])
    rank = math.ceil((len(known) + 1) * COVERAGE)
    return float(known[rank - 1]) if rank <= len(known) else None


def widths_of(decision: Mapping[str, Any], outputs: int) -> list[float | None]:
    """Return half the width of each interval; None where it is not known."""
    return list(decision.get("half_widths") or [None] * outputs)


def figures(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how good numbers are, as JSON values: those of `share`, and "numbers".

    "numbers" has for each name "n", "median_absolute_error", "mean_absolute_error",
    "root_mean_squared_error", "R2", "half_width" of the interval, and "inside", the share of
    intervals that hold the true number, with "inside_low" to "inside_high".
    """
    targets, predictions = np.asarray(targets, np.float64), np.asarray(predictions, np.float64)
    each = {
        name: figures_of(targets[:, k], predictions[:, k], width)
        for k, (name, width) in enumerate(zip(names, widths_of(decision, len(names)), strict=True))
    }
    return {**share(scores(predictions, targets)), "numbers": each}


def figures_of(targets: np.ndarray, said: np.ndarray, half: float | None) -> dict[str, Any]:
    """Return the figures of one number."""
    known = ~np.isnan(targets)
    errors = np.abs(said[known] - targets[known])
    if not len(errors):
        return {"n": 0}
    result: dict[str, Any] = {
        "n": len(errors),
        "median_absolute_error": float(np.median(errors)),
        "mean_absolute_error": float(errors.mean()),
        "root_mean_squared_error": float(np.sqrt(np.square(errors).mean())),
        SCORE: float(1 - losses(said[known][:, None], targets[known][:, None]).mean()),
        "half_width": half,
        "inside": None,
    }
    if half is not None:
        inside = int((errors <= half).sum())
        low, high = wilson(inside, len(errors))
        result |= {"inside": inside / len(errors), "inside_low": low, "inside_high": high}
    return result


held_out_figures = figures  # the intervals hold as many of these numbers as they promise


def columns(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what users get for one example: each number, and the ends of its interval."""
    row: dict[str, Any] = {}
    for name, value, half in zip(names, prediction, widths_of(decision, len(names)), strict=True):
        row[name] = float(value)
        if half is not None:
            row |= {f"{name}_low": float(value) - half, f"{name}_high": float(value) + half}
    return row


def said_of_target(target: np.ndarray, names: Sequence[str]) -> str:
    """Return the numbers of one example as text."""
    return "; ".join("?" if one != one else f"{one:.6g}" for one in np.asarray(target).tolist())


def said_of_answer(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> str:
    """Return the numbers that an example gets as text."""
    return said_of_target(prediction, names)


def heading(names: Sequence[str]) -> str:
    """Return the beginning of the title of a report."""
    return "Measuring"


def named(names: Sequence[str]) -> str:
    """Return its name: the task is the same for all outputs."""
    return NAME


def served(predictions: Any, names: Sequence[str], decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return "numbers", [B, K], and the ends of their intervals as "low" and "high", if known."""
    tensorflow = importlib.import_module("tensorflow")
    widths = widths_of(decision, len(names))
    if None in widths:
        return {OUTPUT: predictions}
    half = tensorflow.constant(widths, tensorflow.float32)
    return {OUTPUT: predictions, "low": predictions - half, "high": predictions + half}


def unsure(predictions: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]) -> None:
    """Return None: the intervals of all numbers are equally wide."""
    return None


def said_of_score(figures: Mapping[str, Any], judged: str) -> str:
    """Return what R2 is."""
    return f"is the R2 on {judged}: 1 is perfect, 0 is no better than always saying the mean"


def more_said(figures: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the error of each number, and on its interval."""
    said = []
    for name, one in figures["numbers"].items():
        if not one["n"]:
            continue
        text = f"Half of the answers for {name} are off by less than "
        text += f"{one['median_absolute_error']:.3g}."
        if one.get("inside") is not None:
            text += (
                f" The interval of ± {one['half_width']:.3g} holds the true number in "
                f"{100 * one['inside']:.1f} %."
            )
        said.append(text)
    return said


def further(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the errors of each number."""
    meanings = (
        ("median_absolute_error", "half of the answers are off by less"),
        ("mean_absolute_error", "the mean of how far answers are off"),
        ("root_mean_squared_error", "like the mean, but large errors count more"),
        (SCORE, "1 is perfect, 0 is no better than the mean"),
        ("inside", f"share of intervals that hold the true number; {COVERAGE} was promised"),
    )
    return [
        (f"{name}: {key.replace('_', ' ')}", f"{one[key]:.4g}", meaning)
        for name, one in figures["numbers"].items()
        for key, meaning in meanings
        if one.get(key) is not None
    ]


def compared(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the median absolute error of each number."""
    return {
        f"median error of {name}": f"{one['median_absolute_error']:.3g}"
        for name, one in figures["numbers"].items()
        if one["n"]
    }
