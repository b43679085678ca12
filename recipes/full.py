"""The whole network is trained on your photos: first its last stages, as in partial, then all.

The frozen model is kept unless training is better by two standard errors on held-out photos.
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
    batch_norm: Annotated[Literal["inference", "train"], "Averages in BatchNorm layers: inference "
        "keeps those of the pretrained network, train adapts them to your photos."] = "inference",
    augment: Annotated[Literal["auto", "none", "flip", "crop", "flip+crop"], "How training photos "
        "are altered: mirrored or cropped. auto: what does not clearly lower accuracy."] = "auto",
    data_service: Annotated[str | None, "Address host:port of a tf.data service, which then reads, "
        "decodes and alters the training photos."] = None,
    time_limit: tfxfer.options.TimeLimit = None,
):
    """Train the whole network; slow. Keeps the frozen model unless training helps."""
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
