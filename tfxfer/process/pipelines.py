"""How the functions and pipelines of TensorFlow that this package makes are run."""

from functools import partial

import tensorflow as tf

# TensorFlow also visits the operations of branches that are not taken, which costs 1 microsecond
# for each. A branch that is a single call of a function stays cheap.
as_one_operation = partial(
    tf.function, autograph=False, experimental_attributes={"_noinline": True}
)


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return the same pipeline, whose end does not wait for tf.data's autotuner.

    The autotuner sleeps for ever longer times: after 5.1 s until 10.2 s, then until 20.5 s. In
    TensorFlow 2.21, where both cores are busy, an iterator that ends often does not wake it and
    waits until it wakes up by itself. Half of all epochs of 5 s took 10.2 s. With it turned off,
    `tf.data.AUTOTUNE` means as many calls at once as there are cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
