"""The network turns each photo into features once; a classifier (the head) is fitted on them.

    tfxfer run frozen                         the demo data
    tfxfer run frozen --data photos/          your own: a folder with a folder for each class

Expected on the demo data: an accuracy of about 0.91 on its 1,000 test images, in about a minute on
two cores.
"""

from typing import Annotated, Literal

import tfxfer


@tfxfer.recipe
def frozen(
    run: tfxfer.Run,
    *,
    data: tfxfer.options.Data = "demo",
    backbone: tfxfer.options.Network = "efficientnet-lite0",
    head: Annotated[Literal[
        "auto", "gaussian", "linear", "ridge", "huber", "prototype", "mlp", "cosine"],
        "Classifier. auto: gaussian, linear or their mean, by the smallest log loss in "
        "cross-validation; ridge for numbers, linear for several labels. "
        "Fitted at once: gaussian (a bell curve for each class), linear (logistic regression), "
        "ridge (least squares), huber (for numbers: large errors count less), prototype (the "
        "nearest class mean). Trained in epochs: mlp (with a hidden layer), cosine (by the angle "
        "to each class)."] = "auto",
    mirror: Annotated[Literal["auto", "yes", "no"], "Average the features of each photo and its "
        "mirror image. auto: with 2,000 photos or fewer, if that predicts better."] = "auto",
    epochs: Annotated[int | None, "Training epochs, for --head mlp and cosine only; by default 20.",
        range(1, 10**6)] = None,
):
    """Train a classifier; the pretrained network stays as it is. Fast; start here."""
    ready = tfxfer.steps.prepare(run, data, backbone)
    trains = tfxfer.steps.is_trained(head)
    extracted = tfxfer.steps.extract(run, ready, taps=not trains, mirror=mirror)
    if trains:
        result = tfxfer.steps.train_head(run, extracted, head, epochs=epochs or 20)
    else:
        result = tfxfer.steps.choose_head(run, extracted, head, mirror=mirror)
    tfxfer.steps.finish(run, result)
