"""Run a network on a few examples, and refuse it if an example's features are not always the same.

A network that was exported as it is in training answers without an error, and its features are
wrong: they hold chance, as with dropout, or depend on the other examples of the batch, as with a
BatchNorm that takes the mean of the batch.
"""

import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel.graph import SAMPLES, Pretrained, function, needed, run_tokenizer
from tfxfer.savedmodel.open import FLAGS, Opened
from tfxfer.savedmodel.ranges import RANGES, range_of
from tfxfer.savedmodel.stages import nodes_of

COUNT = 3
# The darkest and the brightest value of each example, where 0 is black and 1 is white. Examples
# with the same statistics would hide that a network takes those of the batch. The second one, which
# is computed alone too, differs from the batch in its largest value and in its mean.
BETWEEN = ((0.0, 1.0), (0.0, 0.3), (0.5, 1.0))
CELLS = 4  # areas of one colour along each side
# Difference of features, relative to the largest one, that counts as rounding. Rounding changes
# with the size of the batch. Networks that are left in training mode differ by far more.
TOLERANCE = 0.02
REPEATS = 4  # copies of each example, enough to see features that are random
DRAWS = re.compile(
    r"Multinomial|TruncatedNormal|Random(?!GetKeyCounter|GetAlg|GetKeyCounterAlg|Seed)|"
    r"^Stateful(Uniform|StandardNormal|Binomial)"
)
STATISTICS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
AGAIN = (
    "Export it again with training=False, for example with archive.add_endpoint('serve', lambda x: "
    "model(x, training=False), ...) of keras.export.ExportArchive; or give the Keras model or its "
    ".keras file instead"
)


def check_answers(pretrained: Pretrained, opened: Opened) -> None:
    """Refuse a network whose features for an example are not always the same.

    The pure graph runs, with weights as its arguments, so that the network's own variables stay as
    they are.

    Raises:
        SavedModelError: it can't compute features of a batch; it doesn't return one row for each
            example; it draws random numbers; or its features depend on the batch.
    """
    pure = pretrained.inference
    call = function(pure, pretrained.weights, pretrained.input_shape)
    values = {i: tf.constant(pretrained.weights[i].value) for i in pure.weights}
    examples = make_examples(pretrained)
    try:
        together, *updates = call(examples, *values.values())
        check_rows(together, len(examples), opened.name)
        alone, *_ = call(examples[1:2], *values.values())
    except tf.errors.InvalidArgumentError as error:
        raise_assertion(error, opened.name)
        raise
    drawing = list(drawing_nodes(pretrained))
    if drawing:
        # Seeds are weights, which each call changes.
        later = values | {
            i: value for (i, _), value in zip(pure.updates, updates, strict=True) if i in values
        }
        repeats = [1, *(1 for _ in examples.shape[1:])]
        repeats[0] = REPEATS
        again, *_ = call(tf.tile(examples, repeats), *later.values())
        if differ(again, tf.tile(together, [REPEATS, 1])):
            raise SavedModelError(
                f"{opened.name} gives different features for the same example, because it draws "
                f"random numbers ({', '.join(drawing[:3])}), as in training; expected the same "
                f"features each time. {AGAIN}.{said_of_arguments(opened)}"
            )
    if differ(alone, together[1:2]):
        normalized = any(
            node.op in STATISTICS and node.attr["is_training"].b for node in used_nodes(pretrained)
        )
        cause = (
            "a BatchNorm takes the statistics of the batch, as in training"
            if normalized
            else "for example by a mean over the batch, as a BatchNorm takes in training"
        )
        raise SavedModelError(
            f"{opened.name} computes features of an example that depend on the other examples of "
            f"its batch ({cause}); expected features that depend on this example alone. {AGAIN}."
            f"{said_of_arguments(opened)}"
        )


def make_examples(pretrained: Pretrained) -> tf.Tensor:
    """Return a few inputs that differ, the same ones each time, [B, *shape]."""
    if pretrained.tokenizer is not None:
        return run_tokenizer(pretrained.tokenizer, tf.constant(SAMPLES))
    low, high = range_of(pretrained) or RANGES[0]
    shape, rng = pretrained.input_shape, np.random.default_rng(0)
    areas = rng.random((COUNT, *(min(side, CELLS) for side in shape)))
    for axis, side in enumerate(shape, 1):
        areas = np.take(areas, np.arange(side) * areas.shape[axis] // side, axis)
    values = (areas + rng.random((COUNT, *shape))) / 2
    ends = np.reshape(BETWEEN, (COUNT, 2, *(1 for _ in shape)))
    values = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * values
    return tf.constant(low + (high - low) * values, tf.float32)


def check_rows(features: tf.Tensor, count: int, name: str) -> None:
    """Refuse features that do not have one row for each example.

    Raises:
        SavedModelError: says how many rows there are.
    """
    rows = int(features.shape[0])
    if rows == count:
        return
    found = f"features of shape {tuple(features.shape)} for {count} examples"
    if rows % count == 0:
        found = f"{rows // count} rows for one example"
    raise SavedModelError(
        f"{name} returns {found}; expected one row for each. Does it reshape its batch, or take a "
        "mean over it? Export it again so that the first axis is the batch."
    )


def differ(found: tf.Tensor, expected: tf.Tensor) -> bool:
    """Return whether features differ by more than rounding."""
    largest = float(tf.reduce_max(tf.abs(expected)))
    worst = float(tf.reduce_max(tf.abs(found - expected)))
    return worst > TOLERANCE * largest


def used_nodes(pretrained: Pretrained) -> Iterator[NodeDef]:
    """Return the nodes that the features depend on, and those of all functions."""
    return nodes_of(needed(pretrained.inference.graph, [pretrained.inference.output]))


def drawing_nodes(pretrained: Pretrained) -> Iterator[str]:
    """Yield the operations that draw random numbers, each once, for errors."""
    names = {node.op for node in used_nodes(pretrained)}
    yield from sorted(name for name in names if DRAWS.search(name))


def said_of_arguments(opened: Opened) -> str:
    """Return advice on the arguments of a network's call, as a sentence.

    It is "" where the only arguments are known flags that switch training.
    """
    names = [name for name in opened.arguments if name not in FLAGS]
    if not names:
        return ""
    return (
        f" Its call also takes {', '.join(names)}. If one of them switches training on, set it to "
        "False in Python: arguments={'NAME': False}."
    )


def raise_assertion(error: tf.errors.OpError, name: str) -> None:
    """Raise what an assertion in a network's graph said, if `error` comes from one.

    Raises:
        SavedModelError: says what the assertion said. Nothing is raised for other errors.
    """
    lines = [line for line in str(error).splitlines() if "assertion failed" in line]
    if lines:
        said = lines[0].split("assertion failed:")[-1].strip()[:200]
        raise SavedModelError(
            f"{name} refuses examples: an assertion in its graph failed ({said}). Export it again "
            "without that assertion."
        ) from error
