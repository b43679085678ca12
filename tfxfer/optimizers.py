"""How fast each weight learns: rates by stage, a schedule, and a pull back to the start. Ordinary Keras optimizers and regularizers."""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

if (
    TYPE_CHECKING
):  # where the backbone is imported first, Keras asks for this room before that one is whole
    from tfxfer.backbone import Backbone

WARM_UP = 0.1  # of all steps


def layerwise(
    optimizer: type[keras.optimizers.Optimizer],
    *,
    base: float,
    decay: float,
    backbone: "Backbone",
    **options: Any,
) -> keras.optimizers.Optimizer:
    """An optimizer that learns more slowly the nearer a stage is to the images: rate of a stage = base * decay^(stages above it).

    Weights outside the backbone, such as a head's, learn with `base`. 0.75 is timm's decay, 0.9 AutoGluon's (METHODS: layer-wise rates).

    Args:
        optimizer: a Keras optimizer's class.
        base: learning rate of the last stage, a number or a Keras schedule.
        decay: above 0, at most 1.
        backbone: whose stages count; it is found again by its weights' names after saving and cloning.
        options: of the optimizer, such as momentum=0.9.

    Raises:
        ValueError: a wrong decay.

    Example:
        model.compile(layerwise(keras.optimizers.SGD, base=1e-2, decay=0.75, backbone=backbone, momentum=0.9), loss)
    """
    if not 0 < decay <= 1:
        raise ValueError(f"Expected a decay above 0 and at most 1. Received: decay={decay}")
    paths = {f"weight_{i}": variable.path for i, variable in enumerate(backbone._own)}
    above = {
        paths[name]: len(backbone.stages) - 1 - i
        for i, stage in enumerate(backbone.stages)
        for name in stage.weights
    }
    kind: Any = optimizer
    return with_factors(kind)(
        learning_rate=base,
        factors={path: decay**stages for path, stages in above.items()},
        **options,
    )


@cache
def with_factors(optimizer: Any) -> Any:
    """The optimizer with a factor on the rate of each weight, by its path."""

    class Layerwise(optimizer):
        def __init__(self, *args: Any, factors: dict[str, float], **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.factors = dict(factors)

        def build(self, variables):
            super().build(variables)
            self._rates = [self.factors.get(variable.path, 1.0) for variable in variables]

        def _clip_gradients(self, grads):
            # Keras clips each replica's part and adds them up then; the whole gradient is what a norm means.
            replica = tf.distribute.get_replica_context()
            if replica is not None and replica.num_replicas_in_sync > 1:
                grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
            return super()._clip_gradients(grads)

        def _all_reduce_sum_gradients(self, grads_and_vars):
            return grads_and_vars

        def update_step(self, gradient, variable, learning_rate):
            super().update_step(
                gradient, variable, learning_rate * self._rates[self._get_variable_index(variable)]
            )

        def _apply_weight_decay(self, variables):
            # Keras takes the rate of the whole optimizer; a weight that learns slowly must fade slowly.
            whole = self.weight_decay
            for rate in sorted(set(self._rates)) if whole is not None else ():
                self.weight_decay = whole * rate
                super()._apply_weight_decay(
                    [v for v in variables if self._rates[self._get_variable_index(v)] == rate]
                )
            self.weight_decay = whole

        def get_config(self):
            return {**super().get_config(), "factors": self.factors}

    Layerwise.__name__ = Layerwise.__qualname__ = f"Layerwise{optimizer.__name__}"
    return keras.saving.register_keras_serializable(package="tfxfer")(Layerwise)


# Made beforehand, so that a model that was compiled with one loads in a process that never asked for it.
for one in (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
):
    with_factors(one)


def warm_up_cosine(base: float, step: int, steps: int) -> float:
    """The rate at `step` of `steps`: up to `base` in a straight line during the first tenth, then down to 0 along a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return base * (step + 1) / warm
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


@keras.saving.register_keras_serializable(package="tfxfer")
class TowardsStart(keras.regularizers.Regularizer):
    """strength / 2 |w - start|^2: L2-SP (Li, Grandvalet and Davoine 2018), which holds a weight near its pretrained value."""

    def __init__(self, strength: float, start: Any):
        self.strength, self.start = float(strength), start

    def __call__(self, weight):
        return (
            self.strength
            / 2
            * ops.sum(ops.square(weight - ops.convert_to_tensor(self.start, weight.dtype)))
        )

    def get_config(self):
        return {"strength": self.strength, "start": ops.convert_to_numpy(self.start).tolist()}


def hold(layer: keras.layers.Layer, strength: float) -> None:
    """L2-SP on all trainable weights of a layer or model, from their values as they are now; 0 takes it off."""
    for variable in layer.trainable_variables:
        variable.regularizer = (
            TowardsStart(strength, ops.convert_to_numpy(variable)) if strength else None
        )
