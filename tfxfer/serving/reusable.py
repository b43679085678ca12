"""Export the network of a finished run as a SavedModel that can be transferred from again.

tfxfer and other programs can do so.
"""

import logging
import os
from pathlib import Path

import tensorflow as tf

from tfxfer import savedmodel
from tfxfer.backbone import Backbone
from tfxfer.errors import ServingError
from tfxfer.run import open_run
from tfxfer.serving.export import check_accuracy, extras
from tfxfer.serving.model import load_model
from tfxfer.serving.place import check_place, placed

LOG = logging.getLogger(__name__)


def export_reusable(
    folder: str | os.PathLike,
    to: str | os.PathLike,
    *,
    version: int | None = None,
    require_accuracy: float | None = None,
    trust: bool = False,
) -> Path:
    """Write the Backbone of a finished run as a reusable SavedModel to `<to>/<version>/`.

    See `tfxfer.savedmodel.reusable`. Its call takes float32 images [B, height, width, 3] in [0, 1],
    whatever range the Backbone itself has, and gives the Backbone's own output, float32 [B,
    features].

    Args, Returns, Raises: as for `export`.
    """
    run = open_run(folder)
    check_accuracy(run, require_accuracy)
    check_place(to, version)
    path = run.path("model.keras")
    backbones = [layer for layer in load_model(path, trust).layers if isinstance(layer, Backbone)]
    if len(backbones) > 1:
        raise ServingError(
            f"{path} answers with the mean of a tuned and a frozen network, so that there is "
            "no one network to transfer from. Transfer from the pretrained network, or export "
            "this one as a SavedModel: leave --format out."
        )
    backbone = backbones[0] if backbones else None
    if backbone is None:
        raise ServingError(
            f"{path} has no Backbone among its layers, so that there is nothing to transfer from. "
            "Export it as a SavedModel: leave --format out."
        )
    if backbone.why_frozen:
        LOG.info(f"what is exported can't be fine-tuned: {backbone.why_frozen}")

    def write(aside: Path) -> None:
        LOG.info("Writing the SavedModel")
        tf.saved_model.save(
            savedmodel.reusable(backbone.pretrained, backbone.value_range), str(aside)
        )
        extras(run, aside)

    return placed(to, version, write)
