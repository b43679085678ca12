"""Learning rates by stage, a schedule, and a penalty that keeps weights near their first values.

The optimizers and regularizers are ordinary Keras objects; the schedule is a plain function.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

# `import keras` imports this file, too (see tfxfer/__init__.py). That may happen while the import
# of tfxfer.backbone has only begun, so that it has no Backbone yet.
if TYPE_CHECKING:
    from tfxfer.backbone import Backbone

WARM_UP = 0.1  # share of all steps
WRAPPERS = (keras.optimizers.LossScaleOptimizer, keras.optimizers.MultiOptimizer)


def layerwise(
    optimizer: keras.optimizers.Optimizer | type[keras.optimizers.Optimizer],
    *,
    decay: float,
    backbone: "Backbone",
    base: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """Make an optimizer that learns more slowly the nearer a stage is to the images.

    The learning rate of a stage is that of the last stage * decay^(stages after it), and its weight
    decay falls with it. Weights outside the backbone, such as a head's, learn like the last stage.
    0.75 is timm's decay, 0.9 AutoGluon's (docs/methods.md, "Learning rates by stage").

    A model that is compiled with it can be saved and loaded. For an optimizer class of your own,
    call `with_factors(YourOptimizer)` before `keras.models.load_model` in a new process.

    Args:
        optimizer: a new Keras optimizer, or the class of one, your own included. It is not
            changed: a copy is made from its `get_config()`.
        decay: above 0, at most 1.
        backbone: the layer whose stages get these rates; its weights are found again by their
            names after saving and cloning.
        base: learning rate of the last stage, a number or a Keras schedule. Only with a class; an
            optimizer already has its learning rate.
        options: for a class only: arguments of the optimizer, such as momentum=0.9.

    Raises:
        TypeError: `optimizer` is neither a Keras optimizer nor a class of one, or can't be copied.
        ValueError: the decay is wrong, a rate is missing or given twice, or the optimizer was used
            before, has rates by stage already, or wraps others.

    Example:
        adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
        model.compile(layerwise(adamw, decay=0.75, backbone=backbone), loss)
    """
    if not 0 < decay <= 1:
        raise ValueError(f"Expected a decay above 0 and at most 1. Received: decay={decay}")
    check_optimizer(optimizer)
    kind: Any = optimizer
    last = len(backbone.stages) - 1
    factors = {
        backbone._own[weight].path: decay ** (last - i)
        for i, stage in enumerate(backbone.stages)
        for weight in stage.weights
    }
    if isinstance(optimizer, type):
        if base is None:
            raise ValueError(
                f"Expected base, the learning rate of the last stage, with a class. Give it, or an "
                f"optimizer with a rate of its own. Received: {optimizer.__name__} and no base"
            )
        return with_factors(kind)(learning_rate=base, factors=factors, **options)
    if base is not None or options:
        given = {**({} if base is None else {"base": base}), **options}
        raise ValueError(
            f"An optimizer brings its own learning rate and options. Leave these out, or give "
            f"them to {type(optimizer).__name__}(...). Received: {given}"
        )
    return copy_with_factors(optimizer, factors)


def check_optimizer(optimizer: Any) -> None:
    """Refuse what can't be given a learning rate for each stage.

    Raises:
        TypeError: it is neither a Keras optimizer nor the class of one.
        ValueError: it was used before, has rates by stage already, or wraps other optimizers.
    """
    is_class = isinstance(optimizer, type)
    kind = optimizer if is_class else type(optimizer)
    if not issubclass(kind, keras.optimizers.Optimizer):
        raise TypeError(f"Expected a Keras optimizer or its class. Received: {optimizer!r}")
    if getattr(kind, "has_factors", False):
        raise ValueError(
            f"This optimizer has a learning rate for each stage already. Give layerwise the one "
            f"that it was made from. Received: {kind.__name__}"
        )
    if issubclass(kind, WRAPPERS) or (not is_class and holds_optimizers(optimizer)):
        raise ValueError(
            f"{kind.__name__} wraps other optimizers, and these have the learning rates. Give "
            f"layerwise the optimizer inside, and wrap what it returns: {kind.__name__}"
            f"(layerwise(...))"
        )
    if not is_class and optimizer.built:
        raise ValueError(
            f"This {kind.__name__} has trained a model or was built for one, and its state would "
            f"be lost. Make a new one: layerwise({kind.__name__}(...), ...)"
        )


def holds_optimizers(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer has others as attributes, or in a list or tuple that is an attribute."""
    for value in vars(optimizer).values():
        values = value if isinstance(value, (list, tuple)) else (value,)
        if any(isinstance(each, keras.optimizers.Optimizer) for each in values):
            return True
    return False


def copy_with_factors(
    optimizer: keras.optimizers.Optimizer, factors: dict[str, float]
) -> keras.optimizers.Optimizer:
    """A copy of a new optimizer, with a factor on the rate of each weight, by its path.

    Raises:
        TypeError: its `get_config` and `from_config` do not give back all of it.
    """
    kind: Any = type(optimizer)
    config = optimizer.get_config()
    rate = optimizer._learning_rate
    own = {}
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        own = {keras.saving.get_registered_name(type(rate)): type(rate)}
    elif callable(rate):  # Keras can't restore every function from a config
        config["learning_rate"] = rate
    with keras.saving.custom_object_scope(own):
        copy = with_factors(kind).from_config({**config, "factors": factors})
    lost = [
        name
        for name, value in vars(optimizer).items()
        if not name.startswith("_")
        and isinstance(value, (bool, int, float, str, type(None)))
        and getattr(copy, name, None) != value
    ]
    if lost:
        raise TypeError(
            f"{kind.__name__}.get_config() leaves out {', '.join(lost)}, so it can't be copied or "
            f"saved. Add what is missing to the config"
        )
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, name):  # Keras has no place for it in the config
            setattr(copy, name, getattr(optimizer, name))
    return copy


@cache
def with_factors(optimizer: Any) -> Any:
    """A subclass of an optimizer class, with a factor on the learning rate of each weight.

    The factors are keyed by the paths of the weights. The subclass is registered, so that
    `keras.models.load_model` finds it. For Keras' own optimizers `import tfxfer` is enough.
    """

    class Layerwise(optimizer):
        has_factors = True
        _factor = 1.0  # factor on the rate while weight decay is applied to one stage

        def __init__(self, *args: Any, factors: dict[str, float] | None = None, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.factors = dict(factors or {})

        def build(self, variables):
            super().build(variables)
            self._rates = [self.factors.get(variable.path, 1.0) for variable in variables]

        def _clip_gradients(self, grads):
            # Keras clips each replica's part of the gradient and then adds up the parts, but the
            # norm should be that of the whole gradient.
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

        def _get_current_learning_rate(self):
            rate = super()._get_current_learning_rate()
            return rate if self._factor == 1.0 else rate * self._factor

        def _apply_weight_decay(self, variables):
            # Keras decays all weights at the rate of the whole optimizer, but weights that learn
            # slowly must decay slowly. Replicas of one process run this loop in turn and share
            # `_factor`: all set the same values in the same order, so each is right when it is
            # used. Never save and restore the old value: another replica may have set it.
            try:
                for rate in sorted(set(self._rates)):
                    self._factor = rate
                    super()._apply_weight_decay(
                        [v for v in variables if self._rates[self._get_variable_index(v)] == rate]
                    )
            finally:
                self._factor = 1.0

        def get_config(self):
            return {**super().get_config(), "factors": self.factors}

        @classmethod
        def from_config(cls, config, *args, **kwargs):
            own = {**config}
            factors = own.pop("factors")
            made = super().from_config(own, *args, **kwargs)
            if not isinstance(made, cls):
                raise TypeError(
                    f"{optimizer.__name__}.from_config ignores the class that it is called on, and "
                    f"makes a {type(made).__name__}. It must return cls(**config)"
                )
            made.factors = dict(factors)
            return made

    Layerwise.__name__ = Layerwise.__qualname__ = f"Layerwise{optimizer.__name__}"
    name = f"Layerwise{name_registered(optimizer)}"
    return keras.saving.register_keras_serializable(package="tfxfer", name=name)(Layerwise)


def name_registered(optimizer: type) -> str:
    """The name of an optimizer class in saved models; a user's SGD is not Keras' SGD."""
    name = keras.saving.get_registered_name(optimizer)
    of_keras = optimizer.__module__.startswith("keras.")
    if not of_keras and hasattr(keras.optimizers, name):
        return f"{optimizer.__module__}.{name}"
    return name.replace(">", ".")


def register_keras_optimizers() -> None:
    """Let Keras load a model that was compiled with one of its optimizers in a new process."""
    kinds = [kind for kind in vars(keras.optimizers).values() if isinstance(kind, type)]
    for kind in kinds:
        concrete = kind not in (keras.optimizers.Optimizer, *WRAPPERS)
        if concrete and issubclass(kind, keras.optimizers.Optimizer):
            with_factors(kind)


register_keras_optimizers()


def warm_up_cosine(base: float, step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`.

    It rises to `base` in a straight line during the first tenth, and then falls to 0 along a
    cosine.
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return base * (step + 1) / warm
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


@keras.saving.register_keras_serializable(package="tfxfer")
class TowardsStart(keras.regularizers.Regularizer):
    """L2-SP, which holds a weight near its pretrained value: strength / 2 |w - start|^2.

    It was described by Li, Grandvalet and Davoine (2018).
    """

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
    """Hold all trainable weights of a layer or model near their current values with L2-SP.

    Args:
        strength: 0 takes the regularizer off. A regularizer that the weights had before is
            replaced.
    """
    for variable in layer.trainable_variables:
        variable.regularizer = (
            TowardsStart(strength, ops.convert_to_numpy(variable)) if strength else None
        )
