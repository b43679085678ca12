"""Trains the last stages, as partial does, and then the whole network if a short try shows a gain.
With --batch-norm train, the whole network trains at once; the last stages do not train first.
The frozen model is kept unless the trained one is clearly better on held-out photos: by more than
two standard errors in accuracy, or in log loss if the accuracy is not lower.
"""

from typing import Annotated, Literal

import tfxfer


@tfxfer.recipe
def full(
    run: tfxfer.Run,
    *,
    data: tfxfer.options.Data = "demo",
    backbone: tfxfer.options.Network = "efficientnet-lite0",
    head: tfxfer.options.FrozenHead = "auto",
    epochs: tfxfer.options.Epochs = None,
    learning_rate: tfxfer.options.LearningRate = None,
    batch_norm: Annotated[Literal["inference", "train"], "Statistics in BatchNorm layers. "
        "inference: keep those of the pretrained network. train: adapt them to your photos; the "
        "whole network then trains at once, and not the last stages first."] = "inference",
    augment: Annotated[Literal["auto", "none", "flip", "crop", "flip+crop", "dropout", "order",
        "dropout+order"], "How training photos (flip, crop) or texts (dropout of words, order of "
        "sentences) are altered. auto: what does not confuse the frozen model."] = "auto",
    data_service: Annotated[str | None, "Address host:port of a tf.data service that reads, "
        "decodes and alters the photos when the whole network is trained."] = None,
    time_limit: tfxfer.options.TimeLimit = None,
):
    """Train the last stages and, if that helps, the whole network; slow.

    Keeps the frozen model unless training helps.
    """
    if data_service:
        tfxfer.distribute.dataservice.answer(data_service)
    ready = tfxfer.steps.prepare(run, data, backbone, batch_norm=batch_norm)
    depths = tfxfer.tuning.depths_before_all(ready.network)
    extracted = tfxfer.steps.extract(run, ready)
    kinds = tfxfer.steps.choose_augmentations(run, extracted, augment, whole=True)
    sources = tfxfer.steps.last_stages(run, extracted, depths, augment=kinds)
    sources += [tfxfer.steps.whole_network(run, extracted, augment=kinds, service=data_service)]
    result = tfxfer.steps.tune(run, extracted, sources, head=head, epochs=epochs,
        rate=learning_rate, minutes=time_limit)
    tfxfer.steps.finish(run, result)
