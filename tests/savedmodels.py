"""Writes real reusable SavedModels for tests, as TF Hub's authors do.

They have a root call, variables, trainable_variables and regularization_losses.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def raw(variables):
    """The TensorFlow variables inside Keras ones."""
    return [v._value if hasattr(v, "_value") else v for v in variables]


def save_reusable(model: keras.Model, folder, *, losses=()) -> str:
    """Save `model` with the TF2 reusable SavedModel interface; returns the folder as text."""
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    root = tf.train.Checkpoint()
    root.variables = raw(model.variables)
    root.trainable_variables = raw(model.trainable_variables)
    root.seeds = raw(
        v
        for layer in model._flatten_layers()
        for g in getattr(layer, "_seed_generators", [])
        for v in [g.state]
    )
    root.regularization_losses = [tf.function(loss, input_signature=[]) for loss in losses]

    @tf.function
    def call(inputs, training=False):
        return model(inputs, training=training)

    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    root.__call__ = call
    tf.saved_model.save(root, str(folder))
    return str(folder)


def tiny_network(
    size: int = 32,
    dropout: float = 0.0,
    seed: int = 0,
    *,
    widths: Sequence[int] = (8, 8, 12),
    centred: bool = False,
    activation: str = "silu",
) -> keras.Model:
    """Small blocks with BatchNorm, the second a residual one, and a head convolution; 16 features.

    Args:
        widths: the number of channels of each block.
        centred: subtract 1/2 from each pixel. By that the graph tells that pixels go from 0 to 1;
            a run of another network tries three ranges, which takes a second.
        activation: that of the blocks. With "silu", which has a gradient of its own, it takes a
            second longer to read the network.
    """
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((size, size, 3))
    if centred:
        x = keras.layers.Rescaling(1.0, offset=-0.5)(x)
    for i, width in enumerate(widths):
        y = keras.layers.Conv2D(
            width,
            3,
            strides=2 if i != 1 else 1,
            padding="same",
            use_bias=False,
            name=f"block{i}_conv",
        )(x)
        y = keras.layers.BatchNormalization(
            name=f"block{i}_bn",
            beta_initializer="random_normal",
            moving_mean_initializer="random_normal",
        )(y)
        y = keras.layers.Activation(activation, name=f"block{i}_silu")(y)
        if dropout:
            y = keras.layers.Dropout(dropout, name=f"block{i}_drop")(y)
        x = keras.layers.Add(name=f"block{i}_add")([x, y]) if i == 1 else y
    x = keras.layers.Conv2D(16, 1, activation="relu", name="head_conv")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="head_pool")(x))


def vision_transformer(
    size: int = 32, patch: int = 8, width: int = 32, depth: int = 3
) -> keras.Model:
    """A small ViT: patches, learned positions, attention and MLP blocks.

    The output is a class token.
    """
    image = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(width, patch, strides=patch, name="patches")(image)
    x = keras.layers.Reshape((-1, width))(x)
    x = ClassTokenAndPositions(name="positions")(x)
    for i in range(depth):
        y = keras.layers.LayerNormalization(name=f"norm_{i}_attention")(x)
        x = keras.layers.Add(name=f"attend_add_{i}")(
            [x, keras.layers.MultiHeadAttention(4, width // 4, name=f"attend_{i}")(y, y)]
        )
        y = keras.layers.LayerNormalization(name=f"norm_{i}_mlp")(x)
        y = keras.layers.Dense(2 * width, activation="gelu", name=f"mlp_{i}_in")(y)
        x = keras.layers.Add(name=f"mlp_add_{i}")(
            [x, keras.layers.Dense(width, name=f"mlp_{i}_out")(y)]
        )
    x = keras.layers.LayerNormalization(name="last_norm")(x)
    return keras.Model(image, x[:, 0])


class ClassTokenAndPositions(keras.layers.Layer):
    """Puts a learned token before the patches and adds learned positions."""

    def build(self, shape):
        self.token = self.add_weight(
            shape=(1, 1, shape[-1]), initializer="random_normal", name="token"
        )
        self.positions = self.add_weight(
            shape=(1, shape[1] + 1, shape[-1]), initializer="random_normal", name="positions"
        )

    def call(self, x):
        return (
            keras.ops.concatenate(
                [keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1])), x],
                axis=1,
            )
            + self.positions
        )


def moved_by_training(layer: keras.layers.Layer, x: np.ndarray) -> set[str]:
    """The names of a backbone's weights that training for one step moves."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.Dense(2)])
    before = [variable.numpy() for variable in layer.weights]
    model.compile("sgd", "mse")
    model.fit(x, np.ones((len(x), 2)), verbose=0)
    return {
        variable.name
        for value, variable in zip(before, layer.weights, strict=True)
        if np.any(value != variable.numpy())
    }
