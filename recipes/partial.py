"""Trains the last stages. The output of the earlier stages is computed once and kept, if the disk
has room for it.

    tfxfer run partial --data photos/ --unfreeze block14    trains block14 and all later stages

The frozen model is kept unless the trained one is clearly better on held-out photos: by more than
two standard errors in accuracy, or in log loss if the accuracy is not lower.
"""

from typing import Annotated, Literal

import tfxfer


@tfxfer.recipe
def partial(
    run: tfxfer.Run,
    *,
    data: tfxfer.options.Data = "demo",
    backbone: tfxfer.options.Network = "efficientnet-lite0",
    head: tfxfer.options.FrozenHead = "auto",
    unfreeze: Annotated[str, "Stages to train: how many of the last ones, the name of the earliest "
        "one (see tfxfer inspect), or all. auto: the last 2, 5 or 9, more as long as that helps."
        ] = "auto",
    unfreeze_by: Annotated[Literal["all", "gradual"], "all: train these stages at the same time. "
        "gradual: train the last one first, then one more each time."] = "all",
    epochs: tfxfer.options.Epochs = None,
    learning_rate: tfxfer.options.LearningRate = None,
    views: Annotated[int | None, "Number of altered copies to make of each training photo. "
        "Default: 2 are tried if there are at most 4,000 photos and at most 5 stages train; used "
        "if they help. N copies need N + 1 epochs, or more.", range(1000)] = None,
    augment: Annotated[Literal["auto", "flip", "crop", "flip+crop", "dropout", "order",
        "dropout+order"], "How --views alters photos (flip, crop) or texts (dropout of words, "
        "order of sentences). auto: what does not confuse the frozen model."] = "auto",
    time_limit: tfxfer.options.TimeLimit = None,
):
    """Train the last stages of the network. Keeps the frozen model unless training helps."""
    tfxfer.tuning.check_epochs(views, epochs)
    ready = tfxfer.steps.prepare(run, data, backbone, batch_norm="inference")
    depths = tfxfer.tuning.depths_of(ready.network, unfreeze)
    extracted = tfxfer.steps.extract(run, ready)
    kinds = tfxfer.steps.choose_augmentations(run, extracted, augment, views=views)
    sources = tfxfer.steps.last_stages(run, extracted, depths, augment=kinds, views=views)
    tfxfer.steps.finish(run, tfxfer.steps.tune(run, extracted, sources, head=head, epochs=epochs,
        rate=learning_rate, gradual=unfreeze_by == "gradual", minutes=time_limit))
