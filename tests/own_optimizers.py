"""Optimizers and a schedule as a user may write them, which are not registered with Keras."""

import keras


class Scaled(keras.optimizers.SGD):
    """Has an option of its own, which is in its config."""

    def __init__(self, learning_rate=0.01, scale=1.0, **options):
        super().__init__(learning_rate, **options)
        self.scale = scale

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * self.scale, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


class Forgetful(keras.optimizers.SGD):
    """Its config lacks an option."""

    def __init__(self, learning_rate=0.01, scale=1.0, **options):
        super().__init__(learning_rate, **options)
        self.scale = scale


class Stubborn(keras.optimizers.SGD):
    """Its config always makes this class and no subclass."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return Stubborn(**config)


class Both(keras.optimizers.Optimizer):
    """Trains with two others."""

    def __init__(self, first, second):
        super().__init__(learning_rate=0.0)
        self.others = [first, second]


class SGD(keras.optimizers.SGD):
    """Has the same name as an optimizer of Keras."""


class Once(keras.optimizers.schedules.LearningRateSchedule):
    """Learns in the first step only."""

    def __call__(self, step):
        return keras.ops.where(step < 1, 0.1, 0.0)

    def get_config(self):
        return {}
