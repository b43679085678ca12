"""Several labels for each example: each of them is there or not, whatever the others are.

Targets are float32 [n, C]: 1 where the label is there, 0 where it is not, and not-a-number where
nobody knows; such cells count in no loss and in no figure. The sigmoid of an output is the
probability of its label. A label is given where its probability is at least its threshold, which
comes from held-out examples (docs/methods.md, "Several labels").
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from tfxfer.tasks import cells, classify
from tfxfer.tasks.cells import LONGEST_SHOWN, LabelError, is_empty, split_cells
from tfxfer.tasks.figures import SMALLEST, of_class
from tfxfer.tasks.known import in_order
from tfxfer.tasks.part import Part
from tfxfer.tasks.scores import share_of_scores
from tfxfer.tasks.strata import group_rows
from tfxfer.tasks.unsure import Unsure
from tfxfer.tasks.written_lists import is_list, read_list, seems_list

NAME, SCORE, LOSS = "multilabel", "F1", "log loss"
SCORE_MEANS = (
    "How well the labels of an example are met, from 0 to 1: the harmonic mean of how many of the "
    "labels given are right and how many of the right ones are given, at a probability of one half."
)
CLASSES, PERCENT, OUTPUT, NOUN = False, True, "probabilities", "label"
HEADS: tuple[str, ...] = ("linear", "ridge")
TRIED: tuple[str, ...] = ("linear",)
START, PLAIN = "linear", "linear"
CONSTANT = "always the labels that half or more have"
PICTURES: tuple[str, ...] = ()
parts: tuple[Part, ...] = ()

# Each output has a column.
texts, holds, has, label_columns = cells.texts, cells.holds, cells.has, cells.label_columns
YES = frozenset({"1", "1.0", "yes", "true", "t", "y", "x"})
NO = frozenset({"0", "0.0", "no", "false", "f", "n"})
# Answers that may as well be codes of another kind.
LETTERS = frozenset({"t", "f"})
NONE = frozenset({"none", "-"})  # what a column of labels says of an example without any
SEPARATORS = "|;,"
COMMON = 10  # examples that have the same labels, from which on they are a group of their own
STEPS = 25  # of Newton's method, which converges in fewer
STEEPEST = 1e3  # the largest factor by which outputs are made steeper
# With fewer examples that have a label, its threshold stays at one half.
ENOUGH = 10
PARTS = 5  # of held-out examples; each is answered by thresholds from the others


def may_hold(cells: Sequence[str]) -> bool:
    """Whether a column that nobody named may say of each example whether it has a label."""
    return all_answers(cells) and not {cell.strip().casefold() for cell in cells} & LETTERS


def all_answers(cells: Sequence[str]) -> bool:
    """Whether all cells say yes or no, apart from empty ones."""
    said = {cell.strip().casefold() for cell in cells if not is_empty(cell)}
    return bool(said) and said <= YES | NO


def encode(
    labels: Sequence[str], order: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return float32 [n, C], and the names of the labels.

    A text holds a cell for each label (see `cells`), or the labels that an example has: with one of
    | ; , between them, or as a list of Python or JSON.

    Raises:
        LabelError: a cell says neither yes nor no, or can't be read as labels.
        ValueError: a label is not in `order`.
    """
    rows = [split_cells(text) for text in labels]
    if order is not None and all(row is not None for row in rows):
        values = [values_of(row or (), order, i) for i, row in enumerate(rows)]
        return np.array(values, np.float32).reshape(len(labels), len(order)), tuple(order)
    if order is None:
        check_not_answers(labels)
    between = separator_of(labels)
    sets = [labels_in(text, between, i) for i, text in enumerate(labels)]
    used = sorted(set().union(*(one or () for one in sets)))
    names = tuple(used if order is None else order)
    if odd := sorted(set(used) - set(names)):
        raise ValueError(f"has the label {odd[0]!r}; expected some of {', '.join(names)}")
    targets = np.full((len(labels), len(names)), np.nan, np.float32)
    for row, own in zip(targets, sets, strict=True):
        if own is not None:
            row[:] = [name in own for name in names]
    return targets, names


def encode_known(labels: Sequence[str], order: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return float32 [n, C] of the labels `names`; not-a-number for columns that the data lacks.

    A list says no of each label that it does not name.

    Raises:
        ValueError: the data has a label that is none of them, or a cell says something else.
    """
    in_cells = all(split_cells(text) is not None for text in labels)
    targets, own = encode(labels, order if in_cells else names)
    return in_order(targets, own, names, f"{NOUN}s")


def separator_of(labels: Sequence[str]) -> str:
    """Return the first of | ; , that is in some text, apart from lists of Python or JSON."""
    texts = [text for text in labels if not is_list(text)]
    return next((one for one in SEPARATORS if any(one in text for text in texts)), ";")


def labels_in(text: str, between: str, index: int = 0) -> set[str] | None:
    """Return the labels in a text; None where it says nothing.

    Args:
        index: the place of the text among the labels.

    Raises:
        LabelError: it seems to be a list of Python or JSON, but is not one of strings.
    """
    if is_empty(text):
        return None
    if seems_list(text):
        raise LabelError(
            f"has {text[:LONGEST_SHOWN]!r} as labels; expected labels such as red{between}round, "
            "or a list of texts such as ['red', 'round']",
            index,
        )
    words = read_list(text) if is_list(text) else text.split(between)
    parts = {" ".join(word.split()) for word in words} - {""}
    return {part for part in parts if part.casefold() not in NONE}


def check_not_answers(labels: Sequence[str]) -> None:
    """Refuse a column that says yes and no, but also something else.

    Raises:
        LabelError: most texts say yes or no, and this one does not; or each of them says so several
            times.
    """
    said = {
        i: re.split(r"[\s|;,]+", text.strip().casefold())
        for i, text in enumerate(labels)
        if not is_empty(text)
    }
    used = set().union(*said.values())
    if not (used & YES and used & NO):
        return
    first = next(iter(said))
    lengths = {len(words) for words in said.values()}
    if used <= YES | NO and len(lengths) == 1 and lengths != {1}:
        raise LabelError(
            f"has {labels[first][:LONGEST_SHOWN]!r}, which seems to say yes or no of each of "
            f"{len(said[first])} labels; expected a column for each label, headed by its name",
            first,
        )
    if any(is_list(text) or set(SEPARATORS) & set(text) for text in labels):
        return
    alone = {words[0] for words in said.values() if len(words) == 1}
    if not (alone & YES and alone & NO):
        return  # the 1 of "grade 1" is no answer
    odd = [i for i, words in said.items() if words[0] not in YES | NO or len(words) > 1]
    if odd and 2 * len(odd) < len(said):
        raise LabelError(
            f"has {labels[odd[0]][:LONGEST_SHOWN]!r} where {len(said) - len(odd):,} of "
            f"{len(said):,} cells say yes or no; expected 1 or 0, yes or no, or an empty cell "
            "where it is not known",
            odd[0],
        )


def values_of(row: Sequence[str], names: Sequence[str], index: int) -> list[float]:
    """Return what the cells of an example say; see `value_of`.

    Args:
        index: the place of the example.

    Raises:
        LabelError: a cell says neither yes nor no.
    """
    try:
        return [value_of(cell, name) for cell, name in zip(row, names, strict=True)]
    except ValueError as error:
        raise LabelError(str(error), index) from error


def value_of(cell: str, name: str) -> float:
    """Return 1 for yes, 0 for no, and not-a-number for an empty cell.

    Raises:
        ValueError: the cell says something else.
    """
    said = cell.strip().casefold()
    if said in YES:
        return 1.0
    if said in NO:
        return 0.0
    if is_empty(cell):
        return float("nan")
    raise ValueError(
        f"has {cell!r} in the column {name}; expected 1 or 0, yes or no, or an empty cell where it "
        "is not known"
    )


def check(targets: np.ndarray, train: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return notes on labels that are not known, or that the training examples don't show.

    Raises:
        ValueError: no example has a label, or all have it.
    """
    lacking = []
    for name, column in zip(names, np.asarray(targets).T, strict=True):
        for value, how in ((1, "with"), (0, "without")):
            if not (column == value).any():
                raise ValueError(
                    f"has no example {how} the label {name!r}, so that it can't be learnt; add "
                    "some, or leave the label out"
                )
            if not (column[train] == value).any():
                lacking.append(f"{name!r} (none {how} it)")
    notes = []
    if lacking:
        notes.append(
            f"These labels can't be learnt from the training examples: {', '.join(lacking)}. Add "
            "examples."
        )
    unknown = int(np.isnan(targets[train]).sum())
    if unknown:
        notes.append(
            f"{unknown:,} of {targets[train].size:,} labels of training examples are not known "
            "(empty cells): they count neither as yes nor as no."
        )
    return notes


def count(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return how many examples have each label, int [C]."""
    return (np.asarray(targets).reshape(-1, outputs) == 1).sum(0)


def present(targets: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that some examples have and some have not, and the targets of these.

    Raises:
        ValueError: there are none.
    """
    both = (targets == 1).any(0) & (targets == 0).any(0)
    if not both.any():
        raise ValueError(
            "expected a label that some examples have and some have not. Received: "
            f"{len(targets)} examples without one"
        )
    return np.flatnonzero(both), targets[:, both]


def strata(targets: np.ndarray) -> np.ndarray:
    """Return a group for each example, int [n]: those of the same labels.

    Where only few examples have these labels, the group is that of the rarest of them.
    """
    yes = np.asarray(targets) == 1
    rarity = np.where(yes, yes.sum(0), np.inf)
    rarest = np.where(yes.any(1), rarity.argmin(1), -1) if yes.shape[1] else np.zeros(len(yes))
    return group_rows(yes, COMMON, rarest.astype(int))


def losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean of -log p over the known labels of each example, float [n]."""
    z = np.asarray(outputs, np.float64)
    known = ~np.isnan(targets)
    each = np.logaddexp(0.0, z) - z * np.nan_to_num(targets)
    return mean_of_known(each, known)


def mean_of_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the mean of the known values of each row; 0 where none is known."""
    return np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1)


def scores(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the F1 of each example, float [n], if labels of outputs above 0 are given."""
    return each_f1(np.asarray(outputs) > 0, targets)


def prediction_scores(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the F1 of each example, float [n], if labels of probability above 1/2 are given."""
    return each_f1(np.asarray(predictions) > 0.5, targets)


def each_f1(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the F1 of the known labels of each example; 1 where it has none and none is said."""
    known = ~np.isnan(targets)
    true, said = (np.asarray(targets) == 1) & known, said & known
    both, total = (true & said).sum(1), true.sum(1) + said.sum(1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def temperature(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the number by which the outputs of each label are divided, float64 [C].

    It is 1 / a, where sigmoid(a z + b) has the smallest log loss (Platt 1999).
    """
    outputs = np.asarray(outputs, np.float64)
    return np.array(
        [1 / platt(outputs[:, k], targets[:, k])[0] for k in range(outputs.shape[1])], np.float64
    )


def offset(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return what is added to the outputs of each label so that their loss is smallest, [C]."""
    outputs = np.asarray(outputs, np.float64)
    return np.array(
        [platt(outputs[:, k], targets[:, k], steeper=False)[1] for k in range(outputs.shape[1])],
        np.float64,
    )


def platt(outputs: np.ndarray, targets: np.ndarray, *, steeper: bool = True) -> tuple[float, float]:
    """Return a and b for which sigmoid(a z + b) has the smallest log loss, by Newton's method.

    The targets are drawn in by half an example a side (Platt 1999), so that a stays finite where
    the outputs make no error. Where a is 0 or less, the outputs say nothing, and a is tiny.

    Args:
        outputs: z, float [n], of examples that the head was not fitted on.
        targets: [n]; unknown ones are left out.
        steeper: whether a is looked for; otherwise it is 1.
    """
    known = ~np.isnan(targets)
    z, t = outputs[known], targets[known].astype(np.float64)
    positive, negative = float(t.sum()), float(len(t) - t.sum())
    t = np.where(t == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    unit = float(np.sqrt(np.mean(np.square(z - z.mean())))) if len(z) else 0.0
    if unit == 0.0 or not steeper:
        unit = 1.0
    b = float(np.log((positive + 1) / (negative + 1)))
    if not len(z) or np.ptp(z) == 0:
        return 1.0, b - (float(z[0]) if len(z) else 0.0)
    centre = float(z.mean()) if steeper else 0.0
    x = (z - centre) / unit
    a = 1.0

    def loss(slope: float, shift: float) -> float:
        line = slope * x + shift
        return float(np.sum(np.logaddexp(0.0, line) - t * line))

    for _ in range(STEPS):
        p = expit(a * x + b)
        error, weight = p - t, p * (1 - p) + 1e-12
        slope = np.array([error @ x if steeper else 0.0, error.sum()])
        cross = float(weight @ x) if steeper else 0.0
        square = float(weight @ (x * x)) if steeper else 1.0
        step = np.linalg.solve([[square, cross], [cross, float(weight.sum())]], slope)
        size, before = 1.0, loss(a, b)
        while loss(a - size * step[0], b - size * step[1]) > before and size > 1e-6:
            size /= 2
        a, b = a - size * step[0], b - size * step[1]
        if np.abs(size * step).max() < 1e-9:
            break
    a = min(max(a, 1 / STEEPEST), STEEPEST)
    return a / unit, b - a * centre / unit


def predictions(outputs: np.ndarray) -> np.ndarray:
    """Return the probability of each label, float64 [n, C]."""
    return expit(np.asarray(outputs, np.float64))


def prediction_tensor(outputs: Any) -> Any:
    """Return the probability of each label, float32 [n, C], as a TensorFlow tensor."""
    tensorflow = importlib.import_module("tensorflow")  # loaded only where a model runs
    return tensorflow.sigmoid(tensorflow.cast(outputs, tensorflow.float32))


# All labels with their probabilities, the most probable first.
served = classify.served


def answers(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable label of each example, int [n], and its probability, float [n]."""
    best = np.asarray(predictions).argmax(1)
    return best, np.asarray(predictions)[np.arange(len(best)), best]


def leave_own_out(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the outputs as they are: an example's labels are not all that is known of each."""
    return np.asarray(outputs, np.float64)


def units(targets: np.ndarray) -> np.ndarray | None:
    """Return None: outputs have the size that they have."""
    return None


def codes(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the targets, float32 [n, C]."""
    return np.asarray(targets, np.float32)


def training_loss(smoothing: float, targets: np.ndarray) -> Any:
    """Return cross-entropy over the known labels; `smoothing` draws them towards one half."""
    tensorflow = importlib.import_module("tensorflow")

    def masked_cross_entropy(codes: Any, outputs: Any) -> Any:
        known = tensorflow.math.is_finite(codes)
        truth = tensorflow.where(known, codes, 0.0) * (1 - smoothing) + smoothing / 2
        each = tensorflow.nn.sigmoid_cross_entropy_with_logits(truth, outputs)
        known = tensorflow.cast(known, outputs.dtype)
        count = tensorflow.maximum(tensorflow.reduce_sum(known, 1), 1.0)
        return tensorflow.reduce_sum(each * known, 1) / count

    return masked_cross_entropy


def training_score(targets: np.ndarray) -> Any:
    """Return the mean F1 of the examples."""
    tensorflow = importlib.import_module("tensorflow")

    def f1(codes: Any, outputs: Any) -> Any:
        known = tensorflow.math.is_finite(codes)
        true = tensorflow.cast(known & (codes > 0.5), tensorflow.float32)
        said = tensorflow.cast(known & (outputs > 0), tensorflow.float32)
        total = tensorflow.reduce_sum(true, 1) + tensorflow.reduce_sum(said, 1)
        both = tensorflow.reduce_sum(true * said, 1)
        return tensorflow.where(total > 0, 2 * both / tensorflow.maximum(total, 1.0), 1.0)

    return importlib.import_module("keras").metrics.MeanMetricWrapper(f1, name=SCORE)


def can_judge(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return which examples have a label that is known, bool [n]."""
    return ~np.isnan(targets).all(1)


def constant(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the share of examples with each label, float64 [C]."""
    known = ~np.isnan(targets)
    return (np.asarray(targets) == 1).sum(0) / np.maximum(known.sum(0), 1)


def prediction_losses(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean of -log p over the known labels of each example, float [n]."""
    p = np.clip(np.asarray(predictions, np.float64), SMALLEST, 1 - SMALLEST)
    each = -np.where(np.asarray(targets) == 1, np.log(p), np.log1p(-p))
    return mean_of_known(each, ~np.isnan(targets))


def suspects(targets: np.ndarray, predictions: np.ndarray) -> list[tuple[int, int]]:
    """Return nothing: labels that look wrong are not looked for yet."""
    return []


def share(scores: np.ndarray) -> dict[str, float]:
    """Return the mean "F1" with its 95 % interval "low" to "high", and "n"."""
    return share_of_scores(scores, SCORE, lowest=0.0)


def decide(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return "thresholds" [C]: the probability from which on each label is given.

    It is the one with the best F1 on these examples, which the model must not have been fitted on;
    one half where fewer than `ENOUGH` of them have the label.
    """
    columns = zip(np.asarray(targets).T, np.asarray(predictions).T, strict=True)
    return {"thresholds": [best_threshold(truth, p) for truth, p in columns]}


def best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the threshold with the best F1 for one label, in the middle between two examples."""
    known = ~np.isnan(targets)
    truth, p = targets[known] == 1, probabilities[known]
    if truth.sum() < ENOUGH:
        return 0.5
    order = np.argsort(-p, kind="stable")
    hits, given = np.cumsum(truth[order]), np.arange(1, len(p) + 1)
    f1 = 2 * hits / (given + truth.sum())
    # A cut between two equal probabilities is none.
    cuts = np.append(p[order][:-1] > p[order][1:], True)
    best = int(np.argmax(np.where(cuts, f1, -1.0)))
    after = p[order][best + 1] if best + 1 < len(p) else 0.0
    return float((p[order][best] + after) / 2)


def thresholds_of(decision: Mapping[str, Any], outputs: int) -> np.ndarray:
    """Return the threshold of each label, float64 [C]; one half where none were found."""
    return np.array(decision.get("thresholds") or [0.5] * outputs, np.float64)


def figures(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how good probabilities are, as JSON values.

    - those of `share`, at a probability of one half.
    - "mAP": the mean of the average precision of the labels that some examples have.
    - "micro_f1", "macro_f1": F1 over all labels together, and its mean over labels, both with the
      thresholds.
    - "log_loss".
    - "classes": for each label the figures of `figures.of_class`, "average_precision" and
      "threshold".
    """
    given = np.asarray(predictions) >= thresholds_of(decision, len(names))
    return figures_of(targets, predictions, names, given=given, decision=decision)


def held_out_figures(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the same on examples from which the thresholds come.

    The best thresholds for these examples are too good for them, so each fifth of them gets labels
    by thresholds that come from the others.
    """
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    given = np.zeros(predictions.shape, bool)
    part = np.random.default_rng(0).permutation(len(targets)) % PARTS
    for number in range(PARTS):
        mine = part == number
        limits = decide(targets[~mine], predictions[~mine])
        given[mine] = predictions[mine] >= thresholds_of(limits, len(names))
    return figures_of(targets, predictions, names, given=given, decision=decision)


def figures_of(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    *,
    given: np.ndarray,
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the figures; see `figures`.

    Args:
        given: bool [n, C], which labels the examples get.
    """
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    limits = thresholds_of(decision, len(names))
    each: dict[str, Any] = {}
    hits = total = 0
    f1 = []
    for k, name in enumerate(names):
        known = ~np.isnan(targets[:, k])
        true, said = targets[known, k] == 1, given[known, k]
        precision = average_precision(true, predictions[known, k])
        each[name] = of_class(true, said) | {
            "average_precision": precision,
            "threshold": float(limits[k]),
        }
        hits, total = hits + int((true & said).sum()), total + int(true.sum() + said.sum())
        if true.any():
            f1.append(2 * (true & said).sum() / (true.sum() + said.sum()))
    precisions = [one["average_precision"] for one in each.values() if one["n"]]
    return {
        **share(prediction_scores(predictions, targets)),
        "mAP": float(np.mean(precisions)) if precisions else None,
        "micro_f1": 2 * hits / total if total else None,
        "macro_f1": float(np.mean(f1)) if f1 else None,
        "log_loss": float(prediction_losses(predictions, targets).mean()),
        "classes": each,
    }


def average_precision(true: np.ndarray, p: np.ndarray) -> float | None:
    """Return the mean precision at each example that has the label; None where none has it.

    Of equal probabilities, the worst order counts.
    """
    if not true.any():
        return None
    order = np.lexsort((true, -p))
    hits = np.cumsum(true[order])
    precision = hits / np.arange(1, len(p) + 1)
    return float(precision[true[order]].mean())


def columns(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what users get for one example: "labels", and the probability of each label."""
    limits = thresholds_of(decision, len(names))
    given = [name for name, p, limit in zip(names, prediction, limits, strict=True) if p >= limit]
    return {"labels": given} | {name: float(p) for name, p in zip(names, prediction, strict=True)}


def said_of_target(target: np.ndarray, names: Sequence[str]) -> str:
    """Return the labels of one example as text."""
    return "; ".join(name for name, one in zip(names, target, strict=True) if one == 1) or "none"


def said_of_answer(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> str:
    """Return the labels that an example gets as text."""
    return "; ".join(columns(prediction, names, decision)["labels"]) or "none"


def heading(names: Sequence[str]) -> str:
    """Return the beginning of the title of a report."""
    return "Giving labels:"


def named(names: Sequence[str]) -> str:
    """Return its name: the task is the same for all outputs."""
    return NAME


def unsure(predictions: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]) -> Unsure:
    """Return the label of each example whose probability is nearest to its threshold."""
    distances = predictions - thresholds_of(decision, len(names))
    nearest = np.abs(distances).argmin(1)
    rows = np.arange(len(nearest))
    yes, given = predictions[rows, nearest], distances[rows, nearest] >= 0
    both = [(names[k], f"not {names[k]}") for k in nearest]
    return Unsure(
        margins=np.abs(distances[rows, nearest]),
        why=tuple(f"with or without {names[k]}" for k in nearest),
        first=tuple(pair[0 if one else 1] for pair, one in zip(both, given, strict=True)),
        second=tuple(pair[1 if one else 0] for pair, one in zip(both, given, strict=True)),
        probabilities=np.where(
            given[:, None], np.stack([yes, 1 - yes], 1), np.stack([1 - yes, yes], 1)
        ),
    )


def said_of_score(figures: Mapping[str, Any], judged: str) -> str:
    """Return what the score is a mean of."""
    return f"is the mean F1 of the labels of {judged}"


def more_said(figures: Mapping[str, Any]) -> list[str]:
    """Return a sentence on F1 with thresholds."""
    if figures.get("macro_f1") is None:
        return []
    return [
        f"With a threshold for each label, F1 is {100 * figures['macro_f1']:.1f} % on average over "
        "labels."
    ]


def further(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return mean average precision, micro and macro F1, and log loss."""
    meanings = (
        ("mAP", "mean average precision", "how well each label's examples come first; 1 is best"),
        ("micro_f1", "micro F1", "F1 over all labels together, with thresholds; 1 is best"),
        ("macro_f1", "macro F1", "the mean of the labels' F1, with thresholds; 1 is best"),
        ("log_loss", "log loss", "how far the probabilities are from the truth; 0 is best"),
    )
    return [
        (name, f"{figures[key]:.3f}", meaning)
        for key, name, meaning in meanings
        if figures.get(key) is not None
    ]


def compared(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the mean average precision and macro F1."""
    return {
        name: "-" if figures[name] is None else f"{figures[name]:.3f}"
        for name in ("mAP", "macro_f1")
    }
