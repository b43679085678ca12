"""Whether the weights of a network seem to be random, as before training."""

import logging
import os
import zipfile
import zlib
from collections.abc import Iterable

import h5py
import numpy as np

from tfxfer.errors import SavedModelError
from tfxfer.files import open_regular
from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.keras_file import keras_file
from tfxfer.savedmodel.weigh import values_of, weigh

LOG = logging.getLogger(__name__)
OPTIMIZER = "optimizer"  # the group of a .keras file that holds no weights of the model
# What `weigh`, zipfile and h5py raise for a file that anybody wrote.
UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SavedModelError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def warn_of_untrained(network: Pretrained, name: str) -> None:
    """Log a warning if a network seems to be untrained."""
    if seem_random(weight.value for weight in network.weights):
        LOG.warning(
            "%s seems to have random weights: an untrained network gives poor features. Load "
            "pretrained weights first.",
            name,
        )


def is_untrained_file(handle: str | os.PathLike, *, trust: bool = False) -> bool:
    """Return whether a handle names a .keras file of a network that seems to be untrained.

    Only the weights are read. To build the model, to see this, would take seconds. False for a file
    that is damaged or refused (see `weigh`): opening it tells what is wrong.

    Args:
        trust: see `tfxfer.Backbone`.
    """
    path = keras_file(handle)
    if path is None:
        return False
    try:
        weigh(path, trust=trust)
        with (
            open_regular(path) as file,
            zipfile.ZipFile(file) as archive,
            h5py.File(values_of(file, archive), "r") as values,
        ):
            return seem_random(vectors_of(values))
    except UNREADABLE:
        return False


def vectors_of(values: h5py.File) -> list[np.ndarray]:
    """Return the weights of one dimension in the file of a model's weights."""
    found: list[np.ndarray] = []

    def note(name: str, member: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] == OPTIMIZER or not isinstance(member, h5py.Dataset):
            return
        if member.ndim == 1 and member.dtype.kind == "f":
            found.append(member[()])

    values.visititems(note)
    return found


def seem_random(weights: Iterable[np.ndarray]) -> bool:
    """Return whether all biases and BatchNorm weights are 0 or 1, as before training."""
    vectors = [value for value in weights if value.ndim == 1]
    vectors = [value for value in vectors if value.dtype.kind == "f" and value.size]
    return bool(vectors) and all(np.isin(value, (0.0, 1.0)).all() for value in vectors)
