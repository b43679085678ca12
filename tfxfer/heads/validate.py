"""Pick a head and its taps by cross-validation, then fit it once on all examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from tfxfer.data.folds import deal, sample
from tfxfer.errors import SavedModelError
from tfxfer.heads.averaged import Averaged
from tfxfer.heads.closed import (
    gaussian,
    gaussian_dual,
    prototype,
    prototype_dual,
    ridge,
    ridge_dual,
)
from tfxfer.heads.fitted import (
    BLOCK,
    Array,
    Fitted,
    log_loss,
    normalise_taps,
    one_thread,
    temperature,
)
from tfxfer.heads.logistic import (
    FOLDS,
    ROTATED,
    Rotated,
    choose_normalisation,
    fit_folds,
    linear,
    pick_affordable,
)

TAPS = (1, 3, 8)  # how many of the last taps are tried, besides all of them
HEADS = ("gaussian", "linear", "ridge", "prototype")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A head on the last `taps` taps, and how it did in cross-validation on a sample.

    accuracy, error: the accuracy on held-out examples, and its standard error.
    loss: the calibrated log loss on held-out examples.
    right: bool, which of the held-out examples it got right.
    members: the heads whose mean this is; () for a single head.
    """

    head: str
    taps: int
    accuracy: float
    error: float
    loss: float
    right: np.ndarray
    strength: float | None
    logits: np.ndarray
    members: tuple["Candidate", ...] = ()


@dataclass(frozen=True, eq=False)
class Choice:
    """The result of `choose`.

    fitted: the head, fitted on all examples.
    out_of_fold: float64 [n, C], calibrated probabilities of each example from fits without it. The
        only example of a class can't be held out: its row comes from the final head with the
        example's own class left out, because a head that never saw a class can't name it.
    table: the candidates that were tried.
    positions: positions of the examples that they were tried on.
    prior: whether the logarithm of the classes' shares was added to the logits.
    lines: sentences and a table of the candidates, for users.
    """

    fitted: Fitted | Averaged
    out_of_fold: np.ndarray
    table: tuple[Candidate, ...]
    positions: np.ndarray
    prior: bool
    lines: tuple[str, ...] = ()


def paired(right: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return how much more often `right` is true than `other`, and the standard error of that.

    Both are bool [n], for the same examples. Let b be the number of examples that only `right` has
    right, and c the number that only `other` has right. The values are then
    (b - c) / n and sqrt(b + c - (b - c)^2 / n) / n.
    """
    b, c, n = int(np.sum(right & ~other)), int(np.sum(other & ~right)), max(len(right), 1)
    return (b - c) / n, float(np.sqrt(b + c - (b - c) ** 2 / n)) / n


def pick_taps(table: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the best accuracy, or one on fewer taps.

    Fewer taps are taken only where their paired loss is zero or less, or below half its standard
    error (docs/methods.md, "Choice of the head").
    """
    top = max(table, key=lambda entry: (entry.accuracy, -entry.loss))

    def as_good(entry: Candidate) -> bool:
        loss, error = paired(top.right, entry.right)
        return loss <= 0 or loss < error / 2

    near = [entry for entry in table if entry.taps <= top.taps and as_good(entry)]
    return min(near, key=lambda entry: (entry.taps, -entry.accuracy, entry.loss))


def pick_candidate(table: Sequence[Candidate], labels: np.ndarray, known: np.ndarray) -> Candidate:
    """Return the best head of one kind, or the mean of the best heads of two kinds.

    The smallest log loss is best, and among equal ones the highest accuracy.

    Args:
        labels: labels of the examples that were tried.
        known: which of these were held out.
    """
    kinds = dict.fromkeys(entry.head for entry in table)
    singles = [pick_taps([entry for entry in table if entry.head == kind]) for kind in kinds]
    if len(singles) == 1:
        return singles[0]
    truth = labels[known]
    logits = np.zeros(singles[0].logits.shape)
    for entry in singles:
        logits += entry.logits / temperature(entry.logits[known], truth) / len(singles)
    right = logits[known].argmax(1) == truth
    share = float(right.mean())
    mean = Candidate(
        head=" and ".join(entry.head for entry in singles),
        taps=max(entry.taps for entry in singles),
        accuracy=share,
        error=float(np.sqrt(share * (1 - share) / len(right))),
        loss=log_loss(logits[known] / temperature(logits[known], truth), truth),
        right=right,
        strength=None,
        logits=logits,
        members=tuple(singles),
    )
    return min([*singles, mean], key=lambda entry: (entry.loss, -entry.accuracy))


@one_thread
def choose(
    features: Array,
    labels: np.ndarray,
    n_classes: int,
    tap_widths: Sequence[int],
    *,
    head: str = "auto",
    units: np.ndarray | None = None,
    seed: int = 0,
) -> Choice:
    """Pick a head and its taps by cross-validation, fit it on all examples, and calibrate it.

    The cross-validation is stratified, with 5 folds, on at most 2,000 examples. The head is
    calibrated on out-of-fold predictions.

    Args:
        features: anything with `shape` and `[positions]` -> float32 [m, F]; F = sum(tap_widths).
        labels: int [n], 0 .. n_classes - 1. A class without examples gets a probability of almost
            zero.
        n_classes: C.
        tap_widths: number of columns of each tap, from input to output.
        head: "auto" (Gaussian and Linear compete), "gaussian", "linear", "ridge" or "prototype".
        units: int [n]; examples with the same number are held out together. None where each example
            stands for itself.
        seed: seed of the sample and the folds.

    Raises:
        ValueError: an unknown head; fewer than two classes among `labels`; widths that don't add up
            to F.
    """
    labels, heads = np.asarray(labels), ("gaussian", "linear") if head == "auto" else (head,)
    if head != "auto" and head not in HEADS:
        raise ValueError(f'head: expected "auto" or one of {", ".join(HEADS)}. Received: "{head}"')
    if features.shape[1] != sum(tap_widths):
        raise ValueError(
            f"expected features with {sum(tap_widths)} columns, the sum of tap_widths. "
            f"Received: shape {tuple(features.shape)}"
        )
    present, known = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise ValueError(
            "expected examples of two classes or more. "
            f"Received: {len(labels)} examples of {len(present)} class(es)"
        )
    rows = sample(known, ROTATED, seed)
    lines = []
    if len(rows) < len(labels):
        lines.append(
            f"cross-validation on {len(rows):,} of {len(labels):,} examples, "
            "each class by its share"
        )
    table = tuple(
        candidates(
            features,
            known,
            rows,
            classes=len(present),
            widths=tap_widths,
            heads=heads,
            seed=seed,
            units=units,
        )
    )
    if table:
        chosen = pick_candidate(table, known[rows], deal_folds(known, rows, seed, units=units) >= 0)
        table = (*table, chosen) if chosen.members else table
        lines += table_lines(table, chosen, len(tap_widths))
    else:
        lines.append(
            "one example a class: nothing can be held out, so the prototype head is used, on the "
            "last stage, and its probabilities are not calibrated"
        )
        chosen = Candidate(
            head="prototype",
            taps=1,
            accuracy=0.0,
            error=0.0,
            loss=0.0,
            right=np.zeros(0, bool),
            strength=None,
            logits=np.zeros((len(rows), len(present))),
        )
    heads_found = []
    for member in chosen.members or (chosen,):
        found, logits, folds, notes = fit_chosen(
            features,
            known,
            rows,
            chosen=member,
            classes=len(present),
            all_widths=tap_widths,
            seed=seed,
            units=units,
        )
        lines += notes
        heads_found.append(
            calibrate_head(found, logits, known, known=folds >= 0, classes=len(present))
        )
    fitted, logits, prior = average_heads(heads_found, known, folds >= 0)
    single = np.flatnonzero(folds < 0)
    if len(single):
        logits[single] = fitted.logits(np.asarray(features[single]))
        logits[single, known[single]] = -np.inf
    out_of_fold = np.zeros((len(labels), n_classes))
    out_of_fold[:, present] = softmax(logits, 1)
    return Choice(
        fitted=fitted.expanded(present, n_classes),
        out_of_fold=out_of_fold,
        table=table,
        positions=rows,
        prior=prior,
        lines=tuple(lines),
    )


def table_lines(table: Sequence[Candidate], chosen: Candidate, all_taps: int) -> list[str]:
    """Return a line for each head that was tried, from few stages to all, then one for the mean."""
    lines = ["classifiers tried, with their accuracy in cross-validation:"]
    for entry in sorted(table, key=lambda one: (len(one.members), one.head, one.taps)):
        mark = "->" if entry is chosen else "  "
        name = describe_candidate(entry, all_taps)
        lines.append(f"{mark} {name:30} {entry.accuracy:.3f} ± {entry.error:.3f}")
    lines.append(
        "-> is used: of the best of each kind and their mean, the one with the least log loss"
    )
    return lines


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

    They come from few taps to all. Each matrix is computed from the one before, and overwrites it.
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
            yield taps, kernel


def candidates(
    features: Array,
    labels: np.ndarray,
    rows: np.ndarray,
    classes: int,
    widths: Sequence[int],
    heads: Sequence[str],
    seed: int,
    units: np.ndarray | None,
) -> Iterator[Candidate]:
    """Yield each head on each set of taps, judged on held-out examples of `rows`.

    Where nothing can be held out, nothing is yielded. The scales of columns are those of the whole
    sample, because they do not depend on labels.
    """
    folds = deal_folds(labels, rows, seed, units=units)
    labels, x = labels[rows], np.asarray(features[rows], np.float32)
    if not np.isfinite(x).all():
        bad = int(np.sum(~np.isfinite(x).all(1)))
        raise SavedModelError(
            f"the backbone's features hold infinity or not-a-number for {bad:,} of {len(x):,} "
            "images. Expected finite numbers. "
            "Check its value range (--value-range LOW,HIGH), or take another backbone."
        )
    known = folds >= 0
    if known.sum() < 4:
        return
    grouped = units is not None and len(np.unique(units[rows])) < len(rows)
    for how in ("l2", "standardise"):
        mine = [
            head
            for head in heads
            if how == (choose_normalisation(labels, classes) if head == "linear" else "l2")
        ]
        for taps, kernel in kernels(x, widths, how) if mine else ():
            for head in mine:
                logits, strength = predict_held_out(
                    head,
                    kernel,
                    labels,
                    folds=folds,
                    classes=classes,
                    width=sum(widths[-taps:]),
                    grouped=grouped,
                )
                right = logits[known].argmax(1) == labels[known]
                accuracy, error = (
                    float(right.mean()),
                    float(np.sqrt(right.mean() * (1 - right.mean()) / len(right))),
                )
                loss = log_loss(
                    logits[known] / temperature(logits[known], labels[known]), labels[known]
                )
                yield Candidate(
                    head=head,
                    taps=taps,
                    accuracy=accuracy,
                    error=error,
                    loss=loss,
                    right=right,
                    strength=strength,
                    logits=logits,
                )


def deal_folds(
    labels: np.ndarray, rows: np.ndarray, seed: int, units: np.ndarray | None
) -> np.ndarray:
    """Return the fold in which each of `rows` is held out; -1 for the only example of a class."""
    return deal(labels[rows], FOLDS, seed, units=None if units is None else units[rows])


def predict_held_out(
    head: str,
    kernel: np.ndarray,
    labels: np.ndarray,
    *,
    folds: np.ndarray,
    classes: int,
    width: int,
    grouped: bool,
) -> tuple[np.ndarray, float | None]:
    """Return the logits [n, C] of each example from a fit without its fold, and the strength.

    The strength is the one that was picked for these fits; None for a head without one.

    Args:
        grouped: whether several examples are of one group, which must be held out together. Where
            none are, ridge has no folds: it leaves each example out once.
    """
    if head == "linear":
        return Rotated(kernel).held_out(labels, folds, classes)
    strength = None
    if head == "ridge":
        _, _, logits, strength = ridge_dual(kernel, labels, classes)
        if not grouped:
            return logits, strength
    logits = np.zeros((len(labels), classes))
    for fold in range(folds.max() + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inner = kernel[np.ix_(train, train)]
        if head == "gaussian":
            alpha, bias = gaussian_dual(inner, labels[train], classes, width=width)
        elif head == "ridge":
            alpha, bias, _, _ = ridge_dual(inner, labels[train], classes)
        else:
            alpha, bias = prototype_dual(inner, labels[train], classes)
        logits[test] = kernel[np.ix_(test, train)] @ alpha + bias
    return logits, strength


def fit_chosen(
    features: Array,
    labels: np.ndarray,
    rows: np.ndarray,
    chosen: Candidate,
    classes: int,
    all_widths: Sequence[int],
    seed: int,
    units: np.ndarray | None,
) -> tuple[Fitted, np.ndarray, np.ndarray, list[str]]:
    """Fit the chosen head on all examples.

    Returns:
        The head, its held-out logits [n, C], not calibrated, the fold of each example (-1 where it
        is never held out), and notes for users.
    """
    widths, everything, strength = (
        tuple(all_widths[-chosen.taps :]),
        np.arange(len(labels)),
        chosen.strength,
    )
    folds = deal(labels, FOLDS, seed, units=units)
    if chosen.head == "linear" and len(rows) < len(labels) and strength is not None:
        used = pick_affordable(labels, everything, sum(widths))
        fitted, logits = fit_folds(
            features,
            labels,
            classes,
            widths=widths,
            rows=used,
            folds=folds[used],
            strength=strength,
            how=choose_normalisation(labels[used], classes),
        )
        if len(used) == len(labels):
            return fitted, logits, folds, []
        note = (
            f"linear: fitted on {len(used):,} of {len(labels):,} examples, 1 GiB of features; "
            "the others count as held out, for it never saw them"
        )
        everyone = fitted.logits(features)
        everyone[used] = logits
        return fitted, everyone, folds, [note]

    def fit(rows: np.ndarray | None) -> Fitted:
        if chosen.head == "linear":
            return linear(
                features, labels, classes, widths=widths, rows=rows, strength=strength, seed=seed
            )
        if chosen.head == "ridge":
            return ridge(features, labels, classes, widths=widths, rows=rows, strength=strength)
        return (gaussian if chosen.head == "gaussian" else prototype)(
            features, labels, classes, widths, rows=rows
        )

    if len(rows) == len(labels):
        return fit(None), chosen.logits, folds, []
    logits = np.zeros((len(labels), classes))
    for fold in range(FOLDS):
        part = fit(everything[folds != fold])
        for some in np.array_split(
            everything[folds == fold], max(int(np.sum(folds == fold)) // BLOCK, 1)
        ):
            logits[some] = part.logits(np.asarray(features[some]))
    return fit(None), logits, folds, []


def average_heads(
    found: Sequence[tuple[Fitted, np.ndarray, bool]], labels: np.ndarray, known: np.ndarray
) -> tuple[Fitted | Averaged, np.ndarray, bool]:
    """Return a single head as it is, or the mean of several, calibrated once more.

    It comes with its held-out logits [n, C], and whether the classes' shares were added to them.
    """
    if len(found) == 1:
        return found[0]
    logits = np.mean([held for _, held, _ in found], axis=0)
    value = temperature(logits[known], labels[known])
    average = Averaged(tuple(head for head, _, _ in found)).cooled(value)
    return average, logits / value, any(prior for _, _, prior in found)


def calibrate_head(
    fitted: Fitted, logits: np.ndarray, labels: np.ndarray, known: np.ndarray, classes: int
) -> tuple[Fitted, np.ndarray, bool]:
    """Calibrate a head and its held-out logits with one temperature.

    The logarithm of the classes' shares is added to the logits of Gaussian and Prototype where that
    predicts better, because these two do not know how frequent a class is. Linear and Ridge have it
    in their intercepts.

    Returns:
        The head, its logits, and whether the classes' shares were added.
    """
    if not known.any():
        return fitted, np.array(logits, np.float64), False
    value = temperature(logits[known], labels[known])
    logits = np.asarray(logits, np.float64) / value
    prior = np.log(np.bincount(labels, minlength=classes) / len(labels))
    prior -= prior.mean()
    shifted = logits + prior
    truth = labels[known]
    better = log_loss(shifted[known], truth) < log_loss(logits[known], truth)
    no_worse = np.mean(shifted[known].argmax(1) == truth) >= np.mean(
        logits[known].argmax(1) == truth
    )
    if fitted.name in ("gaussian", "prototype") and better and no_worse:
        return (
            replace(
                fitted, temperature=value, bias=(fitted.bias + value * prior).astype(np.float32)
            ),
            shifted,
            True,
        )
    return replace(fitted, temperature=value), logits, False
