"""Run a network on padded rows without most of the padding.

Rows of about the same length go through the network together, cut to that length. The length and
the number of rows that go in at once decide the last bits of a feature, since they decide the order
of sums. So both are the same for a row whatever other rows there are: its length is rounded up, and
a group that is not full is filled up. Where even the place in a group changes bits, as in products
of few rows, rows go in one by one.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfxfer.inputs import Input

STEP = 16  # lengths are rounded up to a multiple of it
TOGETHER = 8  # rows that go through the network at once
Engine = Callable[[np.ndarray], np.ndarray]


def without_padding(call: Callable[[tf.Tensor], tf.Tensor], takes: Input) -> Engine:
    """Return a function from rows, float32 [B, *takes.shape], to features, float32 [B, width].

    Args:
        call: computes features of rows; padding may be missing at the end of all of them.
    """
    full = takes.shape[0] // takes.padded
    samples = sample_rows(takes)
    short = can_be_short(call, samples, takes.padded)
    if short:
        samples = cut(samples, int(lengths_of(samples, takes.padded).max()), takes.padded)
    size = TOGETHER if same_in_all_places(call, samples) else 1

    def run(batch: np.ndarray) -> np.ndarray:
        # Equal rows are computed once, and so are those that fill up the last batch.
        rows, place = np.unique(batch, axis=0, return_inverse=True)
        lengths = lengths_of(rows, takes.padded) if short else np.full(len(rows), full)
        features: dict[int, np.ndarray] = {}
        for length in np.unique(lengths):
            own = np.flatnonzero(lengths == length)
            for i in range(0, len(own), size):
                group = own[i : i + size]
                filled = np.resize(group, size)
                found = call(tf.constant(cut(rows[filled], int(length), takes.padded))).numpy()
                features |= zip(group.tolist(), found, strict=False)
        return np.stack([features[i] for i in place.reshape(-1).tolist()])

    return run


def lengths_of(rows: np.ndarray, parts: int) -> np.ndarray:
    """Return the length of each row without the zeros at its end, rounded up, int [B]."""
    full = rows.shape[1] // parts
    there = (rows.reshape(len(rows), parts, full) != 0).any(1)
    length = np.where(there, np.arange(1, full + 1), 0).max(1)
    return np.clip(-(-length // STEP) * STEP, STEP, full)


def cut(rows: np.ndarray, length: int, parts: int) -> np.ndarray:
    """Return the first `length` positions of each part of the rows."""
    return rows.reshape(len(rows), parts, -1)[:, :, :length].reshape(len(rows), -1)


def sample_rows(takes: Input) -> np.ndarray:
    """Return rows of different texts, float32 [TOGETHER, *shape]."""
    contents = [b" ".join([takes.sample()] * (i + 1)) for i in range(TOGETHER)]
    return np.asarray(takes.decode_many(tf.constant(contents)))


def can_be_short(call: Callable[[tf.Tensor], tf.Tensor], samples: np.ndarray, parts: int) -> bool:
    """Return whether a network gives the same features without the padding.

    It gives others if its graph holds the length as a number, or if it does not mask padding.
    """
    length = int(lengths_of(samples, parts).max())
    if length == samples.shape[1] // parts:
        return False
    whole = call(tf.constant(samples)).numpy()
    try:
        shorter = call(tf.constant(cut(samples, length, parts))).numpy()
    except (tf.errors.OpError, ValueError):
        return False
    size = float(np.abs(whole).max())
    return shorter.shape == whole.shape and np.allclose(shorter, whole, rtol=0, atol=1e-4 * size)


def same_in_all_places(call: Callable[[tf.Tensor], tf.Tensor], samples: np.ndarray) -> bool:
    """Return whether the features of a row have the same bits in every place of a group."""
    first = call(tf.constant(samples)).numpy()
    return all(
        np.array_equal(np.roll(call(tf.constant(np.roll(samples, k, 0))).numpy(), -k, 0), first)
        for k in range(1, TOGETHER)
    )
