"""Turn a `Pretrained` into an object that `tf.saved_model.save` writes.

This is the reverse of `read`.
"""

from typing import Any

import tensorflow as tf

from tfxfer.savedmodel.graph import Pretrained, PureGraph, function


def reusable(
    pretrained: Pretrained, value_range: tuple[float, float] = (0.0, 1.0)
) -> tf.train.Checkpoint:
    """Return an object with the TF2 interface of reusable SavedModels.

    The interface is described at tensorflow.org/hub/reusable_saved_models. The object's call takes
    float32 images [B, height, width, 3] in [0, 1] and `training`, is traced for both values of
    `training`, and returns float32 features [B, F]. The object has `variables`,
    `trainable_variables` and `regularization_losses`.

    Args:
        value_range: the lowest and highest pixel value that the graphs expect.
    """
    low, high = value_range
    root = tf.train.Checkpoint()
    # "/" and ":" have a meaning in the names of a SavedModel.
    root.variables = [
        tf.Variable(w.value, trainable=w.trainable, name=w.name.replace("/", ".").replace(":", "_"))
        for w in pretrained.weights
    ]
    root.trainable_variables = [variable for variable in root.variables if variable.trainable]
    variables = list(root.variables)

    def run(pure: PureGraph, *inputs: tf.Tensor) -> Any:
        output, *updates = function(pure, pretrained.weights, pretrained.input_shape)(
            *inputs, *(variables[i] for i in pure.weights)
        )
        for (i, _), value in zip(pure.updates, updates, strict=True):
            variables[i].assign(value)
        return output

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        pure = (
            pretrained.training
            if training and pretrained.training is not None
            else pretrained.inference
        )
        return run(pure, inputs if (low, high) == (0.0, 1.0) else inputs * (high - low) + low)

    traced = tf.function(call, autograph=False)
    for training in (False, True):
        traced.get_concrete_function(
            tf.TensorSpec((None, *pretrained.input_shape), tf.float32, name="inputs"),
            training=training,
        )
    root.__call__ = traced
    loss = pretrained.regularization
    root.regularization_losses = (
        []
        if loss is None
        else [tf.function(lambda: run(loss), input_signature=[], autograph=False)]
    )
    return root
