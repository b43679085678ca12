"""A Keras callback that unfreezes a Backbone stage by stage."""

import warnings
from collections.abc import Callable

import keras

from tfxfer.backbone import Backbone


class GradualUnfreeze(keras.callbacks.Callback):
    """Unfreezes a Backbone from the last stage on, one more stage every `every` epochs of `fit`.

    Each time the model gets a new optimizer (ULMFiT, Howard and Ruder 2018).

    Args:
        backbone: a layer of the model that is fitted.
        optimizer: a function that returns a new optimizer, such as
            `lambda: keras.optimizers.SGD(1e-3)`. Each time other weights train, a new one is
            needed.
        every: number of epochs with the same stages.
        stages: number of stages that are unfrozen in the end; all by default, and then a Backbone
            with batch_norm="auto" updates its BatchNorm statistics once all stages train.

    Raises:
        ValueError: `every` or `stages` is too small or too large, or a Backbone with taps would
            have to update its BatchNorm statistics, which is not possible.

    Example::

        unfreeze = GradualUnfreeze(
            backbone, optimizer=lambda: keras.optimizers.SGD(1e-3), every=2, stages=3
        )
        model.fit(data, epochs=6, callbacks=[unfreeze])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        optimizer: Callable[[], keras.optimizers.Optimizer],
        every: int = 1,
        stages: int | None = None,
    ):
        super().__init__()
        self.stages = len(backbone.stages) if stages is None else stages
        if every < 1 or not 1 <= self.stages <= len(backbone.stages):
            raise ValueError(
                f"Expected every >= 1 and 1 <= stages <= {len(backbone.stages)}. "
                f"Received: every={every}, stages={stages}"
            )
        if self.stages == len(backbone.stages) and backbone.taps and backbone.batch_norm == "auto":
            raise ValueError(
                'Expected a Backbone with batch_norm="inference", or fewer stages than '
                f"{self.stages}: with taps its statistics can't be updated."
            )
        self.backbone, self.optimizer, self.every, self.unfrozen = backbone, optimizer, every, 0

    def on_epoch_begin(self, epoch, logs=None):
        wanted = min(1 + epoch // self.every, self.stages)
        if wanted == self.unfrozen:
            return
        self.unfrozen = wanted
        with warnings.catch_warnings():
            # The warning asks to compile again; the lines below do the same.
            warnings.simplefilter("ignore")
            self.backbone.unfreeze(wanted)
        self.model.optimizer = self.optimizer()
        self.model.optimizer.build(self.model.trainable_variables)
        # `save` writes this beside the optimizer's state. Otherwise, loading would make the
        # optimizer that was given to `compile`.
        self.model._compile_config.config["optimizer"] = self.model.optimizer
        self.model.make_train_function(force=True)
