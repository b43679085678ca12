"""Look strings up in a table that is a constant, so that a graph needs no resource for it.

The strings of the table are sorted by a hash. A string is found by its hash, and then compared, so
that two strings with the same hash are never taken for each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

MOST = 2**63 - 1  # hashes are below


class Table(NamedTuple):
    """A table of strings.

    hashes: int64 [n], ascending.
    keys: string [n], in the same order.
    values: [n].
    """

    hashes: np.ndarray
    keys: np.ndarray
    values: np.ndarray


def make_table(keys: Sequence[bytes | str], values: np.ndarray) -> Table:
    """Return a table of strings, each of which is there once, and the value of each.

    Raises:
        ValueError: two strings have the same hash.
    """
    hashes = tf.strings.to_hash_bucket_fast(tf.constant(list(keys)), MOST).numpy()
    order = np.argsort(hashes, kind="stable")
    if (np.diff(hashes[order]) == 0).any():
        raise ValueError("two strings of the table are equal, or have the same hash")
    written = np.array([one.encode() if isinstance(one, str) else one for one in keys], object)
    return Table(hashes[order], written[order], np.asarray(values)[order])


def look_up(table: Table, keys: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    """Return the value of each key, of the same shape; `default` for those that are not there."""
    flat = tf.reshape(keys, [-1])
    hashes = tf.strings.to_hash_bucket_fast(flat, MOST)
    place = tf.minimum(tf.searchsorted(table.hashes, hashes), len(table.hashes) - 1)
    found = tf.equal(tf.gather(tf.constant(table.keys), place), flat)
    values = tf.where(found, tf.gather(tf.constant(table.values), place), default)
    return tf.reshape(values, tf.shape(keys))
