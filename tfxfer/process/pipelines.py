"""Options of the tf.data pipelines that this package makes."""

import tensorflow as tf


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
