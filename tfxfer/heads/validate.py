"""Pick a head and its taps by cross-validation, then fit it once on all examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfxfer.data.folds import deal, sample
from tfxfer.errors import SavedModelError
from tfxfer.heads.averaged import Averaged
from tfxfer.heads.closed import (
    gaussian,
    gaussian_dual,
    onehot,
    primal,
    prototype,
    prototype_dual,
    ridge,
    ridge_dual,
)
from tfxfer.heads.fitted import BLOCK, Array, Fitted, blocks, normalise_taps
from tfxfer.heads.logistic import (
    FOLDS,
    LEAST_GAIN_OF_PROBABILITIES,
    ROTATED,
    Rotated,
    choose_normalisation,
    fit_folds,
    linear,
    pick_affordable,
)
from tfxfer.heads.several import fit_several, held_out_outputs
from tfxfer.heads.side_by_side import Rows, SideBySide
from tfxfer.heads.sums import solve_gaussian, subtract_examples, sum_up
from tfxfer.heads.threads import map_in_threads, one_thread
from tfxfer.tasks import CLASSIFY, Task, calibrated, calibrated_loss

TAPS = (1, 3, 8)  # how many of the last taps are tried, besides all of them
FEWEST = 4  # examples that must be held out, or nothing is tried


@dataclass(frozen=True, eq=False)
class Labelled:
    """Features and the targets that heads are fitted to.

    features: anything with `shape` and `[positions]` -> float32 [m, F].
    targets: what the task makes of the labels, [n, ...]; of classes only those that occur.
    outputs: the number of outputs, K.
    widths: number of columns of each tap, F = sum(widths).
    units: int [n]; examples with the same number are held out together. None where each example
        stands for itself.
    """

    task: Task
    features: Array
    targets: np.ndarray
    outputs: int
    widths: tuple[int, ...]
    units: np.ndarray | None
    seed: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def strata(self) -> np.ndarray:
        """The group of each example, of which each fold gets its share; int [n]."""
        return self.task.strata(self.targets)

    def folds(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the fold in which each of `rows` is held out; -1 where it never is."""
        units = None if self.units is None else self.units[rows]
        return deal(self.strata[rows], FOLDS, self.seed, units=units)

    def is_grouped(self, rows: np.ndarray) -> bool:
        """Whether several of `rows` must be held out together."""
        return self.units is not None and len(np.unique(self.units[rows])) < len(rows)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A head on the last `taps` taps, and how it did in cross-validation on a sample.

    scores: float, the score of each held-out example; `score` is their mean, and `error` is its
        standard error.
    loss: the calibrated loss on held-out examples.
    logits: [m, K], the outputs for the sample, held out and not calibrated.
    members: the heads whose mean this is; () for a single head.
    """

    head: str
    taps: int
    scores: np.ndarray
    loss: float
    strength: float | np.ndarray | None
    logits: np.ndarray
    members: tuple["Candidate", ...] = ()

    @property
    def score(self) -> float:
        """The mean score; for classes the accuracy."""
        return float(self.scores.mean())

    @property
    def error(self) -> float:
        """The standard error of `score`."""
        return float(self.scores.std() / np.sqrt(len(self.scores)))


@dataclass(frozen=True, eq=False)
class Choice:
    """The result of `choose`.

    fitted: the head, fitted on all examples.
    out_of_fold: float64 [n, K], the predictions for each example by fits without it. The only
        example of a class can't be held out: its row comes from the final head with the example's
        own class left out, because a head that never saw a class can't name it.
    table: the candidates that were tried.
    positions: positions of the examples that they were tried on.
    prior: whether the logarithm of the classes' shares was added to the logits.
    lines: sentences and a table of the candidates, for users.
    columns: such lines of each column, where each has a head of its own.
    """

    fitted: Fitted | Averaged | SideBySide
    out_of_fold: np.ndarray
    table: tuple[Candidate, ...]
    positions: np.ndarray
    prior: bool
    lines: tuple[str, ...] = ()
    columns: tuple[tuple[str, ...], ...] = ()

    def said(self, columns: Sequence[str]) -> list[str]:
        """Return all lines for users, those of each column under its name."""
        said: list[str] = []
        for name, lines in zip(columns, self.columns, strict=False):
            said += [f"column {name}", *lines]
        return [*said, *self.lines]


def pick_taps(table: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the smallest loss; of equal ones, that on the fewest taps."""
    return min(table, key=lambda entry: (entry.loss, entry.taps))


def pick_candidate(
    table: Sequence[Candidate], task: Task, targets: np.ndarray, known: np.ndarray
) -> Candidate:
    """Return the best head of one kind, or the mean of the best heads of several kinds.

    The smallest loss is best, and among equal ones the highest score.

    Args:
        targets: targets of the examples that were tried.
        known: which of these were held out.
    """
    kinds = dict.fromkeys(entry.head for entry in table)
    singles = [pick_taps([entry for entry in table if entry.head == kind]) for kind in kinds]
    if len(singles) == 1:
        return singles[0]
    mean = average_candidates(singles, task, targets, known)
    return min([*singles, mean], key=lambda entry: (entry.loss, -entry.score))


def average_candidates(
    singles: Sequence[Candidate], task: Task, targets: np.ndarray, known: np.ndarray
) -> Candidate:
    """Return the mean of several heads; a single one as it is. Arguments: see `pick_candidate`."""
    if len(singles) == 1:
        return singles[0]
    truth = targets[known]
    logits = np.zeros(singles[0].logits.shape)
    for entry in singles:
        temperature = task.temperature(entry.logits[known], truth)
        shift = task.offset(entry.logits[known] / temperature, truth)
        logits += (entry.logits / temperature + shift) / len(singles)
    return Candidate(
        head=" and ".join(entry.head for entry in singles),
        taps=max(entry.taps for entry in singles),
        scores=task.scores(logits[known], truth),
        loss=calibrated_loss(task, logits[known], truth),
        strength=None,
        logits=logits,
        members=tuple(singles),
    )


@one_thread
def choose(
    features: Array,
    labels: np.ndarray,
    n_classes: int,
    tap_widths: Sequence[int],
    *,
    head: str = "auto",
    kept: Mapping[str, int] | None = None,
    task: Task = CLASSIFY,
    units: np.ndarray | None = None,
    seed: int = 0,
) -> Choice:
    """Pick a head and its taps by cross-validation, fit it on all examples, and calibrate it.

    The cross-validation is stratified, with 5 folds, on at most 2,000 examples. The head is
    calibrated on out-of-fold predictions.

    Args:
        features: anything with `shape` and `[positions]` -> float32 [m, F]; F = sum(tap_widths).
        labels: the targets; for classes int [n], 0 .. n_classes - 1. A class without examples gets
            a probability of almost zero.
        n_classes: the number of outputs, K.
        tap_widths: number of columns of each tap, from input to output.
        head: a head that can be fitted for the task, such as "gaussian", "linear", "ridge" or
            "prototype". "auto": those that the task tries compete.
        kept: the heads that were chosen before, each with its number of last taps: nothing is
            picked any more, and several heads are averaged. `head` is then not used.
        task: what the answer is.
        units: int [n]; examples with the same number are held out together. None where each example
            stands for itself.
        seed: seed of the sample and the folds.

    Raises:
        ValueError: an unknown head; fewer than two classes among `labels`; widths that don't add up
            to F.
    """
    if task.parts:
        return choose_each(
            features, labels, tap_widths, head=head, task=task, units=units, seed=seed
        )
    if head != "auto" and head not in task.HEADS:
        expected = ", ".join(task.HEADS)
        raise ValueError(f'head: expected "auto" or one of {expected}. Received: "{head}"')
    if features.shape[1] != sum(tap_widths):
        raise ValueError(
            f"expected features with {sum(tap_widths)} columns, the sum of tap_widths. "
            f"Received: shape {tuple(features.shape)}"
        )
    present, known = task.present(np.asarray(labels), n_classes)
    data = Labelled(
        task=task,
        features=features,
        targets=known,
        outputs=len(present),
        widths=tuple(tap_widths),
        units=units,
        seed=seed,
    )
    rows = sample(data.strata, ROTATED, seed)
    lines = []
    if len(rows) < len(data):
        lines.append(
            f"cross-validation on {len(rows):,} of {len(data):,} examples, each class by its share"
        )
    names = tuple(kept) if kept else task.TRIED if head == "auto" else (head,)
    table = tuple(try_heads(data, rows, names, kept=kept))
    if table and kept:
        chosen = average_candidates(table, task, known[rows], data.folds(rows) >= 0)
        name = describe_candidate(chosen, len(tap_widths))
        lines.append(
            f"classifier: {name}, {task.SCORE} in cross-validation {chosen.score:.3f} ± "
            f"{chosen.error:.3f}"
        )
    elif table:
        chosen = pick_candidate(table, task, known[rows], data.folds(rows) >= 0)
        table = (*table, chosen) if chosen.members else table
        lines += table_lines(table, chosen, len(tap_widths), task=task)
    else:
        chosen = untried(data, rows)
        lines.append(
            f"one example a class: nothing can be held out, so the {chosen.head} head is used, on "
            "the last stage, and its probabilities are not calibrated"
        )
    members = map_in_threads(
        lambda member: calibrate_head(fit_chosen(data, rows, member), data),
        chosen.members or (chosen,),
    )
    lines += [note for fit in members for note in fit.notes]
    folds = data.folds()
    best = average_heads(members, data, folds >= 0)
    logits = best.logits
    single = np.flatnonzero(folds < 0)
    if len(single):
        outputs = best.fitted.logits(np.asarray(features[single]))
        logits[single] = task.leave_own_out(outputs, known[single])
    out_of_fold = np.zeros((len(data), n_classes))
    out_of_fold[:, present] = task.predictions(logits)
    return Choice(
        fitted=best.fitted.expanded(present, n_classes),
        out_of_fold=out_of_fold,
        table=table,
        positions=rows,
        prior=best.prior,
        lines=tuple(lines),
    )


def choose_each(
    features: Array,
    targets: np.ndarray,
    tap_widths: Sequence[int],
    *,
    head: str,
    task: Task,
    units: np.ndarray | None,
    seed: int,
) -> Choice:
    """Choose a head for each column by itself, on the examples that have a label there.

    Args:
        head: is used for the columns whose task has such a head; for the others it is picked.
        Other Args are those of `choose`.
    """
    targets = np.asarray(targets)
    heads, columns = list[Fitted | Averaged](), list[tuple[str, ...]]()
    out_of_fold = np.zeros((len(targets), sum(part.size for part in task.parts)))
    for part in task.parts:
        rows = np.flatnonzero(part.known(targets))
        choice = choose(
            Rows(features, rows),
            part.own(targets[rows]),
            part.size,
            tap_widths,
            head=head if head in part.task.HEADS else "auto",
            task=part.task,
            units=None if units is None else units[rows],
            seed=seed,
        )
        assert not isinstance(choice.fitted, SideBySide)
        heads.append(choice.fitted)
        out_of_fold[rows, part.outputs] = choice.out_of_fold
        columns.append(choice.lines)
    return Choice(
        fitted=SideBySide(tuple(heads)),
        out_of_fold=out_of_fold,
        table=(),
        positions=np.arange(len(targets)),
        prior=False,
        columns=tuple(columns),
    )


def untried(data: Labelled, rows: np.ndarray) -> Candidate:
    """Return the head that is used where nothing can be held out."""
    heads = data.task.HEADS
    return Candidate(
        head="prototype" if "prototype" in heads else heads[0],
        taps=1,
        scores=np.zeros(0),
        loss=0.0,
        strength=None,
        logits=np.zeros((len(rows), data.outputs)),
    )


def table_lines(
    table: Sequence[Candidate], chosen: Candidate, all_taps: int, *, task: Task
) -> list[str]:
    """Return a line for each head that was tried, from few stages to all, then one for the mean."""
    lines = [f"classifiers tried, with their {task.SCORE} and {task.LOSS} in cross-validation:"]
    names = {entry: describe_candidate(entry, all_taps) for entry in table}
    width = max(map(len, names.values()))
    for entry in sorted(table, key=lambda one: (len(one.members), one.head, one.taps)):
        mark = "->" if entry is chosen else "  "
        figures = f"{entry.score:.3f} ± {entry.error:.3f}  {entry.loss:.4f}"
        lines.append(f"{mark} {names[entry]:{width}} {figures}")
    why = f"the smallest {task.LOSS}" if len(table) > 1 else "nothing else was tried"
    return [*lines, f"-> marks what is used: {why}"]


def describe_candidate(entry: Candidate, all_taps: int) -> str:
    """Return a candidate's name for users, such as "gaussian on the last 3 stages"."""
    if entry.members:
        return f"the mean of the best {entry.head}"
    head, taps = entry.head, entry.taps
    if taps == 1:
        return f"{head} on the last stage"
    return f"{head} on {'all' if taps == all_taps else 'the last'} {taps} stages"


def kernels(x: np.ndarray, widths: Sequence[int], how: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of last taps and the kernel matrix of the examples x [n, F] on them.

    They come from few taps to all; each matrix is computed from the one before.
    """
    wanted = sorted({min(taps, len(widths)) for taps in (*TAPS, len(widths))})
    kernel, end = np.zeros((len(x),) * 2, np.float32), x.shape[1]
    for taps in range(1, len(widths) + 1):
        width = widths[-taps]
        tap = x[:, end - width : end]
        end -= width
        if how == "l2":
            tap = normalise_taps(tap, (width,))
        else:
            scale = tap.std(0, dtype=np.float64).astype(np.float32)
            tap = (tap - tap.mean(0)) / np.where(scale > 0, scale, 1)
        kernel += tap @ tap.T
        if taps in wanted:
            yield taps, kernel.copy()


def try_heads(
    data: Labelled, rows: np.ndarray, heads: Sequence[str], kept: Mapping[str, int] | None = None
) -> list[Candidate]:
    """Return each head on each set of taps, judged on held-out examples of `rows`.

    With `kept`, each head is tried on its own number of taps alone.

    Where nothing can be held out, nothing is tried. The scales of columns are those of the whole
    sample, because they do not depend on labels.
    """
    folds = data.folds(rows)
    targets, x = data.targets[rows], np.asarray(data.features[rows], np.float32)
    if not np.isfinite(x).all():
        bad = int(np.sum(~np.isfinite(x).all(1)))
        raise SavedModelError(
            f"the backbone's features hold infinity or not-a-number for {bad:,} of {len(x):,} "
            "examples. Expected finite numbers. "
            "Check its value range (--value-range LOW,HIGH), or take another backbone."
        )
    known = folds >= 0
    if known.sum() < FEWEST:
        return []

    def tried(entry: tuple[str, int, np.ndarray]) -> Candidate:
        head, taps, kernel = entry
        logits, strength = predict_held_out(
            head,
            kernel,
            targets,
            task=data.task,
            folds=folds,
            outputs=data.outputs,
            width=sum(data.widths[-taps:]),
            grouped=data.is_grouped(rows),
        )
        fresh = calibrated(data.task, logits[known], targets[known])
        return Candidate(
            head=head,
            taps=taps,
            scores=data.task.scores(fresh, targets[known]),
            loss=float(data.task.losses(fresh, targets[known]).mean()),
            strength=strength,
            logits=logits,
        )

    entries = []
    for how in ("l2", "standardise"):
        count = data.outputs if data.task.CLASSES else 2  # each label by itself is yes or no
        own = [head for head in heads if how == normalisation_of(head, targets, count)]
        for taps, kernel in kernels(x, data.widths, how) if own else ():
            entries += [(head, taps, kernel) for head in own if not kept or kept[head] == taps]
    # The dearest are the last ones. Begun first, they leave no core without work at the end.
    return map_in_threads(tried, entries[::-1])[::-1]


def normalisation_of(head: str, targets: np.ndarray, outputs: int) -> str:
    """Return how a head wants its features: "l2" or "standardise"."""
    return choose_normalisation(targets, outputs) if head == "linear" else "l2"


def predict_held_out(
    head: str,
    kernel: np.ndarray,
    targets: np.ndarray,
    *,
    task: Task,
    folds: np.ndarray,
    outputs: int,
    width: int,
    grouped: bool,
) -> tuple[np.ndarray, float | np.ndarray | None]:
    """Return the logits [n, K] of each example from a fit without its fold, and the strength.

    The strength is the one that was picked for these fits; None for a head without one.

    Args:
        grouped: whether several examples are of one group, which must be held out together. Where
            none are, ridge has no folds: it leaves each example out once.
    """
    if not task.CLASSES:
        codes = task.codes(targets, outputs)
        return held_out_outputs(head, kernel, codes, folds, grouped=grouped)
    if head == "linear":
        return Rotated(kernel).held_out(targets, folds, outputs)
    strength = None
    if head == "ridge":
        _, _, logits, strength = ridge_dual(kernel, onehot(targets, outputs))
        if not grouped:
            return logits, strength
    logits = np.zeros((len(targets), outputs))
    for fold in range(folds.max() + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inner = kernel[np.ix_(train, train)]
        if head == "gaussian":
            alpha, bias = gaussian_dual(inner, targets[train], outputs, width=width)
        elif head == "ridge":
            alpha, bias, _, _ = ridge_dual(inner, onehot(targets[train], outputs))
        else:
            alpha, bias = prototype_dual(inner, targets[train], outputs)
        logits[test] = kernel[np.ix_(test, train)] @ alpha + bias
    return logits, strength


@dataclass(frozen=True, eq=False)
class Fit:
    """A head that was fitted on all examples.

    logits: float64 [n, K], the outputs for each example by fits without it.
    folds: the fold of each example; -1 where it is never held out.
    prior: whether the logarithm of the classes' shares was added to the logits.
    notes: sentences for users.
    """

    fitted: Fitted | Averaged
    logits: np.ndarray
    folds: np.ndarray
    prior: bool = False
    notes: tuple[str, ...] = ()


def fit_chosen(data: Labelled, rows: np.ndarray, chosen: Candidate) -> Fit:
    """Fit the chosen head on all examples; its logits are not calibrated yet.

    Args:
        rows: the examples that the candidates were tried on.
    """
    folds, everything = data.folds(), np.arange(len(data))
    of_classes = chosen.head == "linear" and data.task.CLASSES
    if of_classes and len(rows) < len(data) and chosen.strength is not None:
        return fit_linear_folds(data, folds, chosen)
    if chosen.head == "gaussian" and len(rows) < len(data):
        return fit_gaussian_folds(data, folds, chosen)
    if len(rows) == len(data):
        return Fit(fitted=fit_head_on(data, chosen, None), logits=chosen.logits, folds=folds)
    logits = np.zeros((len(data), data.outputs))
    for fold in range(FOLDS):
        part = fit_head_on(data, chosen, everything[folds != fold])
        for some in np.array_split(
            everything[folds == fold], max(int(np.sum(folds == fold)) // BLOCK, 1)
        ):
            logits[some] = part.logits(np.asarray(data.features[some]))
    return Fit(fitted=fit_head_on(data, chosen, None), logits=logits, folds=folds)


def fit_gaussian_folds(data: Labelled, folds: np.ndarray, chosen: Candidate) -> Fit:
    """Fit the Gaussian on all examples and on all folds, from one sum over all of them.

    The fit without a fold subtracts the fold's examples, which are fewer than the others.
    """
    widths, everything = data.widths[-chosen.taps :], np.arange(len(data))
    targets = onehot(data.targets, data.outputs)
    sums = sum_up(data.features, everything, targets, widths)
    logits = np.zeros((len(data), data.outputs))
    for fold in range(FOLDS):
        held_out = everything[folds == fold]
        rest = subtract_examples(sums, data.features, held_out, targets[held_out], widths)
        part = primal("gaussian", widths, *solve_gaussian(rest))
        for where, x in blocks(data.features, held_out, sum(widths)):
            logits[held_out[where]] = part.logits(x)
    fitted = primal("gaussian", widths, *solve_gaussian(sums))
    return Fit(fitted=fitted, logits=logits, folds=folds)


def fit_head_on(data: Labelled, chosen: Candidate, rows: np.ndarray | None) -> Fitted:
    """Fit the chosen head on the examples at `rows`; None is all of them."""
    features, targets, outputs = data.features, data.targets, data.outputs
    widths = data.widths[-chosen.taps :]
    if not data.task.CLASSES:
        codes = data.task.codes(targets, outputs)
        strengths = None if chosen.strength is None else np.asarray(chosen.strength)
        fitted = fit_several(
            chosen.head,
            features,
            codes,
            widths,
            rows=rows,
            strengths=strengths,
            seed=data.seed,
        )
        return replace(fitted, unit=data.task.units(targets))
    assert not isinstance(chosen.strength, np.ndarray)
    match chosen.head:
        case "linear":
            return linear(
                features,
                targets,
                outputs,
                widths=widths,
                rows=rows,
                strength=chosen.strength,
                seed=data.seed,
            )
        case "ridge":
            strength = chosen.strength
            return ridge(features, targets, outputs, widths=widths, rows=rows, strength=strength)
        case "gaussian":
            return gaussian(features, targets, outputs, widths, rows=rows)
        case _:
            return prototype(features, targets, outputs, widths, rows=rows)


def fit_linear_folds(data: Labelled, folds: np.ndarray, chosen: Candidate) -> Fit:
    """Fit logistic regression on all examples and on all folds in one minimisation."""
    assert isinstance(chosen.strength, float)
    widths = data.widths[-chosen.taps :]
    used = pick_affordable(data.targets, np.arange(len(data)), sum(widths))
    fitted, held_out = fit_folds(
        data.features,
        data.targets,
        data.outputs,
        widths=widths,
        rows=used,
        folds=folds[used],
        strength=chosen.strength,
        how=choose_normalisation(data.targets[used], data.outputs),
        gain=LEAST_GAIN_OF_PROBABILITIES,
    )
    if len(used) == len(data):
        return Fit(fitted=fitted, logits=held_out, folds=folds)
    note = (
        f"linear: fitted on {len(used):,} of {len(data):,} examples, 1 GiB of features; "
        "the others count as held out, for it never saw them"
    )
    logits = fitted.logits(data.features)
    logits[used] = held_out
    return Fit(fitted=fitted, logits=logits, folds=folds, notes=(note,))


def average_heads(fits: Sequence[Fit], data: Labelled, known: np.ndarray) -> Fit:
    """Return a single head as it is, or the mean of several, calibrated once more."""
    first = fits[0]
    if len(fits) == 1:
        return first
    logits = np.mean([fit.logits for fit in fits], axis=0)
    value = data.task.temperature(logits[known], data.targets[known])
    members = tuple(fit.fitted for fit in fits if isinstance(fit.fitted, Fitted))
    return replace(
        first,
        fitted=Averaged(members).cooled(value),
        logits=logits / value,
        prior=any(fit.prior for fit in fits),
    )


def calibrate_head(fit: Fit, data: Labelled) -> Fit:
    """Calibrate a head and its held-out logits with one temperature.

    The logarithm of the classes' shares is added to the logits of Gaussian and Prototype where that
    predicts better, because these two do not know how frequent a class is. Linear and Ridge have it
    in their intercepts.
    """
    known, task = fit.folds >= 0, data.task
    if not known.any():
        return replace(fit, logits=np.array(fit.logits, np.float64))
    truth = data.targets[known]
    value = task.temperature(fit.logits[known], truth)
    logits = np.asarray(fit.logits, np.float64) / value
    fitted = fit.fitted
    assert isinstance(fitted, Fitted)
    calibrated = replace(fit, fitted=replace(fitted, temperature=value), logits=logits)
    if np.any(shift := task.offset(logits[known], truth)):
        bias = (fitted.bias + value * shift).astype(np.float32)
        fitted = replace(fitted, temperature=value, bias=bias)
        return replace(fit, fitted=fitted, logits=logits + shift)
    if fitted.name not in ("gaussian", "prototype"):
        return calibrated
    prior = np.log(np.bincount(data.targets, minlength=data.outputs) / len(data))
    prior -= prior.mean()
    shifted = logits + prior
    better = task.losses(shifted[known], truth).mean() < task.losses(logits[known], truth).mean()
    scores, before = task.scores(shifted[known], truth), task.scores(logits[known], truth)
    if not (better and scores.mean() >= before.mean()):
        return calibrated
    bias = (fitted.bias + value * prior).astype(np.float32)
    return replace(
        fit, fitted=replace(fitted, temperature=value, bias=bias), logits=shifted, prior=True
    )
