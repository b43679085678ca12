"""Fit heads whose outputs do not depend on each other: labels that are there or not, and numbers.

Each output is fitted on the examples for which its target is known. Outputs that are known for the
same examples share one system of equations.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tfxfer.heads.closed import least_squares, ridge_dual
from tfxfer.heads.fitted import Array, Fitted
from tfxfer.heads.huber import huber, huber_dual
from tfxfer.heads.logistic import Rotated, choose_normalisation, linear

Strengths = np.ndarray  # float64 [K], the strength of the penalty for each output


def held_out_outputs(
    head: str, kernel: np.ndarray, codes: np.ndarray, folds: np.ndarray, *, grouped: bool
) -> tuple[np.ndarray, Strengths]:
    """Return the outputs [n, K] of each example from a fit without its fold, and the strengths.

    Args:
        head: "linear", "ridge" or "huber".
        kernel: [n, n], of normalised features.
        codes: float [n, K]; not-a-number where a target is not known.
        folds: int [n], the fold in which each example is held out; -1 where it never is.
        grouped: whether examples must be held out together. Where none must, ridge leaves each
            example out by itself.
    """
    outputs, strengths = np.zeros(codes.shape), np.zeros(codes.shape[1])
    if head == "linear":
        rotated = Rotated(kernel)
        for k, column in enumerate(codes.T):
            known = ~np.isnan(column)
            pair, strengths[k] = rotated.held_out(as_classes(column), folds, 2, counted=known)
            outputs[:, k] = pair[:, 1] - pair[:, 0]
        return outputs, strengths
    for columns, known in known_together(codes):
        own = codes[np.ix_(known, columns)].astype(np.float64)
        inner = kernel[np.ix_(known, known)]
        if head == "huber":
            alpha, bias, strength = huber_dual(inner, own)
            fresh = np.zeros_like(own)
        else:
            alpha, bias, fresh, strength = ridge_dual(inner, own)
        outputs[:, columns] = kernel[:, known] @ alpha + bias
        strengths[columns] = strength
        if head == "ridge" and not grouped:
            outputs[np.ix_(known, columns)] = fresh
            continue
        for fold in range(folds.max() + 1):
            train, test = known[folds[known] != fold], np.flatnonzero(folds == fold)
            inner, own = kernel[np.ix_(train, train)], codes[np.ix_(train, columns)]
            if head == "huber":
                alpha, bias, _ = huber_dual(inner, own, strength)
            else:
                alpha, bias, _, _ = ridge_dual(inner, own.astype(np.float64))
            outputs[np.ix_(test, columns)] = kernel[np.ix_(test, train)] @ alpha + bias
    return outputs, strengths


def fit_several(
    head: str,
    features: Array,
    codes: np.ndarray,
    widths: tuple[int, ...],
    *,
    rows: np.ndarray | None = None,
    strengths: Strengths | None = None,
    normalise: str | None = None,
    seed: int = 0,
) -> Fitted:
    """Fit all outputs on the examples at `rows`, each on those whose target is known.

    Args:
        head: "linear", "ridge" or "huber".
        features, widths, rows: as for `tfxfer.heads.linear`.
        codes: float [n, K], for all examples.
        strengths: the strength for each output; picked by cross-validation where it is None.
        normalise: how "linear" makes features comparable; as for `tfxfer.heads.linear`.
        seed: seed of samples and folds.
    """
    rows = np.arange(len(codes)) if rows is None else rows
    parts: list[tuple[np.ndarray, Fitted]] = []
    always: dict[int, float] = {}  # labels that all of these examples have, or none has
    if head == "linear":
        how = normalise or choose_normalisation(rows, 2)  # the same for all outputs
        for k, column in enumerate(codes.T):
            known = rows[~np.isnan(column[rows])]
            labels = as_classes(column)
            if len(np.unique(labels[known])) < 2:
                yes = int(labels[known].sum())
                always[k] = float(np.log((yes + 0.5) / (len(known) - yes + 0.5)))
                continue
            fitted = linear(
                features,
                labels,
                2,
                widths,
                rows=known,
                strength=None if strengths is None else float(strengths[k]),
                normalise=how,
                seed=seed,
            )
            parts.append((np.array([k]), difference(fitted)))
    else:
        fit = huber if head == "huber" else least_squares
        for columns, known in known_together(codes[rows]):
            strength = None if strengths is None else float(strengths[columns[0]])
            own = np.asarray(codes, np.float64)[:, columns]
            fitted = fit(features, own, widths, rows=rows[known], strength=strength)
            parts.append((columns, fitted))
    joined = join_outputs(parts, codes.shape[1])
    joined.bias[list(always)] = list(always.values())
    return joined


def as_classes(column: np.ndarray) -> np.ndarray:
    """Return 0 or 1 for each example, int [n]; 0 where it is not known."""
    return np.nan_to_num(column).astype(np.int64)


def known_together(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the outputs that are known for the same examples, and the positions of these."""
    known = ~np.isnan(codes)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        yield np.flatnonzero(which.reshape(-1) == number), np.flatnonzero(pattern)


def difference(pair: Fitted) -> Fitted:
    """Return a head of two classes as a head with one output: the logit of the second class."""
    return replace(
        pair, kernel=pair.kernel[:, 1:] - pair.kernel[:, :1], bias=pair.bias[1:] - pair.bias[:1]
    )


def join_outputs(parts: list[tuple[np.ndarray, Fitted]], outputs: int) -> Fitted:
    """Return heads for some outputs each as one head, with the mean and scale of the first.

    Args:
        parts: the numbers of some outputs, and the head that gives them.
        outputs: K, the number of all outputs.
    """
    first = parts[0][1]
    kernel = np.zeros((len(first.mean), outputs), np.float32)
    bias = np.zeros(outputs, np.float32)
    for columns, part in parts:
        own = np.asarray(part.kernel, np.float64)
        moved = ((first.mean - part.mean) / part.scale).astype(np.float64)
        kernel[:, columns] = own * (first.scale / part.scale)[:, None]
        bias[columns] = part.bias + moved @ own
    return replace(first, kernel=kernel, bias=bias)
