"""Build a network from the weights of an installed package, once, as a SavedModel in the cache."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfxfer.cache import default_folder
from tfxfer.errors import HandleError, MissingExtraError
from tfxfer.files import read_regular
from tfxfer.handles.aside import beside, first_line, publish
from tfxfer.handles.catalog import Entry
from tfxfer.handles.folder import plain_path, problem, set_aside

LOG = logging.getLogger(__name__)


def build_once(name: str, builder: int, digest: str, make: Callable[[], Any]) -> Path:
    """Return the SavedModel folder of a network; build it on first use.

    Args:
        name: the name of the network.
        builder: the version of the code that builds it.
        digest: the SHA-256 of the file with the weights.
        make: builds the network, a trackable object with a function `serving`.

    Raises:
        HandleError: the cache can't be written.
    """
    folder = default_folder() / "backbones" / f"{name}-{builder}-{digest[:16]}"
    if folder.exists() and (fault := problem(folder)):
        set_aside(folder, fault)
    if not folder.exists():
        LOG.info("Building the network, once")
        network = make()
        with beside(folder) as aside:
            try:
                tf.saved_model.save(
                    network,
                    str(plain_path(aside.parent) / aside.name),
                    signatures={"serving_default": network.serving},
                )
            except (OSError, tf.errors.OpError) as error:
                raise HandleError(
                    f"{folder} can't be written ({first_line(error)}). Choose another cache folder "
                    "with TFXFER_CACHE_DIR."
                ) from error
            publish(aside, folder)
    return folder


def published(path: Path, expected: str, most: int) -> str:
    """Check that the file with the weights has the expected SHA-256, and return it.

    Args:
        most: the largest size of the file in bytes.

    Raises:
        HandleError: the file can't be read, or is another one.
    """
    try:
        digest = hashlib.sha256(read_regular(path, most)).hexdigest()
    except OSError as error:
        raise HandleError(
            f"{path} can't be read ({error.strerror}). Install its package again."
        ) from error
    if digest != expected:
        raise HandleError(
            f"{path} is damaged or was replaced: its SHA-256 is {digest}, that of the published "
            f"file is {expected}. Install its package again."
        )
    return digest


def folder_of(entry: Entry, module: str, package: str) -> Path:
    """Return the folder of an installed package, which is found without importing it.

    Raises:
        MissingExtraError, HandleError: the package is not installed.
    """
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        if entry.extra:
            raise MissingExtraError(f"the backbone {entry.name}", entry.extra)
        raise HandleError(f"the package {package} is missing. Install it: pip install {package}")
    return Path(found.origin).parent
