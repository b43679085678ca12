"""A Keras model as a network that can be traced."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel.open import Opened


def open_model(model: keras.Model, *, preprocess: Callable | None = None) -> Opened:
    """Return a Keras model as a network that can be traced.

    Its weights are copied when it is traced; the model itself is not changed.

    Args:
        preprocess: what is applied to the inputs before the model, in TensorFlow operations, such
            as `keras.applications.resnet50.preprocess_input`. It becomes part of the network.

    Raises:
        SavedModelError: the shape of its inputs is not known, for example because it was not built.
    """
    name = f"the Keras model {model.name!r}"
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        raise SavedModelError(
            f"{name} does not know the shape of its inputs. Expected a functional model, or a "
            "Sequential that begins with keras.Input."
        )

    def call(x: tf.Tensor, training: bool = False) -> Any:
        prepared = x if preprocess is None else preprocess(x)
        # Keras warns where a model that names its inputs gets a tensor alone.
        named = getattr(model, "input", None)
        if isinstance(named, dict) and len(named) == 1:
            prepared = dict.fromkeys(named, prepared)
        return model(prepared, training=training)

    variables = {id(variable.value.handle): variable for variable in model.variables}
    return Opened(
        name=name,
        call=call,
        kind="call",
        offered=[
            [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tf.nest.flatten(model.inputs)]
        ],
        arguments=(),
        variables={key: variable.value for key, variable in variables.items()},
        names={key: variable.path for key, variable in variables.items()},
        trainable={id(variable.value.handle) for variable in trainable_of(model)},
        losses=tuple(
            penalty_of(variable)
            for variable in trainable_of(model)
            if variable.regularizer is not None
        ),
        owner=model,
    )


def trainable_of(model: keras.Model) -> list[keras.Variable]:
    """Return all variables that could be trained, including those of frozen layers.

    `Backbone` decides later which of them train.
    """
    # Keras has no public list of them: `trainable_weights` leaves out those of frozen layers.
    layers = model._flatten_layers(include_self=True, recursive=True)
    return [variable for layer in layers for variable in layer._trainable_variables]


def penalty_of(variable: keras.Variable) -> Callable:
    """Return a function that computes the penalty on a weight."""
    return lambda: variable.regularizer(variable)
