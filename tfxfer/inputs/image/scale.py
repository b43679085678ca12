"""Warn if a batch of pixels has another scale than the network expects, in `fit` too."""

import warnings
from dataclasses import dataclass

import tensorflow as tf

# Private: the only way to ask whether XLA compiles what is traced. It has no calls into Python.
from tensorflow.python.ops import control_flow_util

# What Keras names the function of one step of `fit`, `evaluate` and `predict` (keras 3.15,
# backend/tensorflow/trainer.py). A model that is exported is traced under other names.
STEP = "one_step_on_data"


@dataclass(eq=False)
class Watch:
    """Looks at batches of pixels, and warns once.

    Args:
        name: name of the layer that they go into.
    """

    name: str
    warned: bool = False

    def look(self, pixels: tf.Tensor, low: float, high: float) -> None:
        """Warn if these pixels are far from the range that is expected.

        In a `tf.function` values are known when it runs. Only the steps of Keras' own loops are
        watched there, so that nothing is added to a model that is exported, and only where XLA
        does not compile them.
        """
        if self.warned or not (pixels.dtype.is_floating or pixels.dtype.is_integer):
            return
        pixels = tf.cast(pixels, tf.float32)
        if tf.executing_eagerly():
            if len(pixels):
                self._judge(tf.reduce_min(pixels), tf.reduce_max(pixels), low, high)
        elif in_a_step(graph := tf.compat.v1.get_default_graph()):
            if control_flow_util.GraphOrParentsInXlaContext(graph):
                return
            least, most = tf.reduce_min(pixels), tf.reduce_max(pixels)
            tf.cond(
                is_elsewhere(least, most, low, high=high),
                lambda: tf.py_function(self._judge, (least, most, low, high), ()),
                tf.no_op,
            )

    def _judge(self, least: tf.Tensor, most: tf.Tensor, low: float, high: float) -> None:
        if self.warned or not is_elsewhere(least, most, low, high=high):
            return
        self.warned = True
        warnings.warn(
            f"The pixels of this batch go from {float(least):g} to {float(most):g}; {self.name} "
            f"expects them from {float(low):g} to {float(high):g}. Scale them first, such as with "
            "keras.layers.Rescaling, or say what the network expects with value_range.",
            stacklevel=4,
        )


def is_elsewhere(least: tf.Tensor, most: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Whether pixels from `least` to `most` are on another scale than from `low` to `high`; bool.

    An empty batch is on every scale, and NaN is on none.
    """
    room = (high - low) / 2
    outside = (least < low - room) | (most > high + room)
    if high > 2:  # 0 to 1, where 0 to 255 is expected
        outside |= (most > 0) & (most <= 1)
    if low < 0:  # 0 to 1, where -1 to 1 is expected: black is in the middle, and white is not
        outside |= (least >= 0) & (least < 0.02 * high) & (most > 0.9 * high)
    return (outside & (least <= most)) | tf.math.is_nan(least) | tf.math.is_nan(most)


def in_a_step(graph: tf.Graph | None) -> bool:
    """Whether what is traced in this graph is a step of a loop of Keras."""
    while graph is not None:
        if getattr(graph, "name", "").startswith(STEP):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False
