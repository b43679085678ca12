"""Keras layers from features to logits, and the join with a backbone.

A head is any Keras layer that maps features, float32 [B, F], to logits, float32 [B, C]. `MLP` and
`Cosine` are two heads that train with `fit`. What `tfxfer.heads` fits in closed form becomes a
`TapNormalization`, a `Standardisation` and a `Dense`. Any layer of your own can be a head, too.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

EPSILON = 1e-12  # the smallest norm that is divided by; a tap of zeros stays zero


@keras.saving.register_keras_serializable(package="tfxfer")
class TapNormalization(keras.layers.Layer):
    """Scale each tap of a row of features to length one.

    Args:
        widths: number of columns of each tap, from input to output.

    Input shape: float32 [B, sum(widths)]. Output shape: the same.

    Example:
        >>> TapNormalization([2, 1])(keras.ops.array([[3.0, 4.0, -7.0]]))  # [[0.6, 0.8, -1.0]]
    """

    def __init__(self, widths: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.widths = tuple(int(width) for width in widths)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"TapNormalization expected one positive width a tap. Received: widths={widths}"
            )

    def build(self, shape):
        if shape[-1] != sum(self.widths):
            raise ValueError(
                f"TapNormalization expected {sum(self.widths)} columns, the sum of "
                f"widths={self.widths}. Received: {shape[-1]} columns"
            )
        self.built = True

    def call(self, x):
        ends = [sum(self.widths[: i + 1]) for i in range(len(self.widths))]
        taps = [x[:, end - width : end] for width, end in zip(self.widths, ends, strict=True)]
        # As `tf.math.l2_normalize` does it, because a division of whole numbers fails when LiteRT
        # runs it.
        return ops.concatenate(
            [
                tap * ops.rsqrt(ops.maximum(ops.sum(tap * tap, -1, keepdims=True), EPSILON**2))
                for tap in taps
            ],
            -1,
        )

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "widths": list(self.widths)}


@keras.saving.register_keras_serializable(package="tfxfer")
class Standardisation(keras.layers.Layer):
    """Subtract a mean from each column and divide by a scale.

    Both are weights that training does not change.

    Input shape: float32 [B, F]. Output shape: the same.
    """

    def build(self, shape):
        self.mean = self.add_weight(
            name="mean", shape=(shape[-1],), initializer="zeros", trainable=False
        )
        self.scale = self.add_weight(
            name="scale", shape=(shape[-1],), initializer="ones", trainable=False
        )

    def call(self, x):
        return (x - self.mean) / self.scale

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable(package="tfxfer")
class TakeColumns(keras.layers.Layer):
    """Take some neighbouring columns of the features.

    Args:
        start: the first column; a negative number counts from the end.
        count: number of columns.

    Input shape: float32 [B, F]. Output shape: float32 [B, count].

    Example:
        >>> TakeColumns(-2, 2)(keras.ops.array([[1.0, 2.0, 3.0]]))  # [[2.0, 3.0]]
    """

    def __init__(self, start: int, count: int, **kwargs):
        super().__init__(**kwargs)
        self.start, self.count = int(start), int(count)
        if self.count < 1 or -self.count < self.start < 0:
            raise ValueError(
                "TakeColumns expected a positive count, "
                "and a start at least that far from the end. "
                f"Received: start={start}, count={count}"
            )

    def call(self, x):
        end = self.start + self.count
        return x[:, self.start : end if end else None]

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.count)

    def get_config(self):
        return {**super().get_config(), "start": self.start, "count": self.count}


@keras.saving.register_keras_serializable(package="tfxfer")
class Cosine(keras.layers.Layer):
    """Logits from the cosine between the features and a learnt direction for each class.

    The cosine is multiplied with a learnt scale.

    Args:
        classes: number of classes C.
        scale: initial value of the scale.

    Input shape: float32 [B, F]. Output shape: float32 [B, C].
    """

    def __init__(self, classes: int, scale: float = 16.0, **kwargs):
        super().__init__(**kwargs)
        if classes < 2 or scale <= 0:
            raise ValueError(
                "Cosine expected classes >= 2 and scale > 0. "
                f"Received: classes={classes}, scale={scale}"
            )
        self.classes, self.initial_scale = int(classes), float(scale)

    def build(self, shape):
        self.directions = self.add_weight(
            name="directions", shape=(shape[-1], self.classes), initializer="glorot_uniform"
        )
        self.scale = self.add_weight(
            name="scale", shape=(), initializer=keras.initializers.Constant(self.initial_scale)
        )

    def call(self, x):
        x = x / (ops.sqrt(ops.sum(x * x, -1, keepdims=True)) + EPSILON)
        directions = self.directions / (
            ops.sqrt(ops.sum(self.directions * self.directions, 0, keepdims=True)) + EPSILON
        )
        return self.scale * ops.matmul(x, directions)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.classes)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "scale": self.initial_scale}


def MLP(
    classes: int, *, hidden: int = 256, dropout: float = 0.5, name: str = "mlp"
) -> keras.Sequential:
    """One hidden layer on batch-normalised features: [B, F] to logits [B, classes].

    Raises:
        ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError(f"MLP expected classes >= 2. Received: classes={classes}")
    layers = [
        # Features differ by orders of magnitude between networks; if they are normalised, one
        # learning rate fits all. A gain and an offset here would add nothing to what the next layer
        # can do, and their gradients would take a third of each step.
        keras.layers.BatchNormalization(
            momentum=0.9, center=False, scale=False, name="normalization"
        ),
        keras.layers.Dense(hidden, activation="relu", name="hidden"),
        keras.layers.Dropout(dropout, name="dropout"),
        keras.layers.Dense(classes, name="logits"),
    ]
    return keras.Sequential(layers, name=name)


@keras.saving.register_keras_serializable(package="tfxfer")
class Flip(keras.layers.Layer):
    """The mirror image: pixels [B, h, w, 3] to pixels [B, h, w, 3], left and right exchanged."""

    def call(self, x):
        return ops.flip(x, axis=2)

    def compute_output_shape(self, shape):
        return shape


def sum_logits(
    first: keras.layers.Layer, last: keras.layers.Layer, widths: tuple[int, int], name: str
) -> keras.Model:
    """Join two heads to one, from a row of the features of both to the sum of their logits.

    Args:
        first, last: the head that reads the first columns, and the one that reads the last ones.
        widths: number of columns that each of them reads.
    """
    features = keras.Input((sum(widths),), name="features")
    logits = [
        first(TakeColumns(0, widths[0], name="first_columns")(features)),
        last(TakeColumns(-widths[1], widths[1], name="last_columns")(features)),
    ]
    return keras.Model(features, keras.layers.Add(name="sum")(logits), name=name)


def join(
    backbone: keras.layers.Layer,
    head: keras.layers.Layer,
    shape: tuple[int, ...],
    *,
    mirror: bool = False,
) -> keras.Model:
    """Join a backbone and a head to one ordinary Keras model from pixels to logits.

    The pixels are float32 [B, h, w, 3] in the backbone's range, and the logits [B, C].

    Args:
        backbone: a layer from pixels to features [B, F].
        head: a layer from those features to logits.
        shape: the shape of one example, such as `backbone.entry_shape`.
        mirror: give the head the mean of the features of the image and of its mirror image, for a
            head that was fitted on such means.
    """
    inputs = keras.Input(shape, name="pixels")
    features = backbone(inputs)
    if mirror:
        features = keras.layers.Average(name="both_sides")(
            [features, backbone(Flip(name="mirror")(inputs))]
        )
    return keras.Model(inputs, head(features), name="tfxfer")


def seen_by_head(model: keras.Model) -> Any | None:
    """The tensor that the head of a joined model gets; None if there is none.

    It is the first tensor [B, F] that all data passes through, except the model's own input and
    output.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            tensor = layer.output
            if len(tensor.shape) == 2 and tensor is not model.outputs[0]:
                keras.Model(tensor, model.outputs)
                return tensor
        except (AttributeError, ValueError):
            # The layer is called twice or not at all, or some data does not pass the tensor.
            continue
    return None
