"""Keep what was read of a SavedModel in the cache, because reading it again takes seconds.

A file holds the graphs, as a model's file does (see `kept`), and the weights. Its name tells the
content of the SavedModel, how it was read, and the code that read it. The graphs are checked each
time: a file of the cache can do no more than a model's file.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from tfxfer.cache import default_folder
from tfxfer.errors import SavedModelError
from tfxfer.files import replaced
from tfxfer.handles import Source
from tfxfer.safety.arrays import read_arrays
from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.kept import keep, restore

LOG = logging.getLogger(__name__)
FOLDER = "networks"  # in the cache
# A larger network takes up more of the disk than the seconds are worth.
MOST_BYTES = 2**28


def remembered(
    source: Source, options: Mapping[str, Any], trust: bool, read: Callable[[], Pretrained]
) -> Pretrained:
    """Return what `read` returns, which is called only where the cache does not have it.

    Args:
        source: where the SavedModel comes from.
        options: how it is read.
        trust: whether its operations may reach files, Python and the internet.

    Raises:
        The errors of `read`.
    """
    name = name_of(source, options, trust)
    if name is None:
        return read()
    path = default_folder() / FOLDER / name
    if path.exists():
        try:
            return load(path, trust)
        # A damaged file, or one that somebody else has put there, is written anew.
        except (OSError, KeyError, ValueError, SavedModelError) as error:
            LOG.warning("%s is damaged (%s); the network is read again", path, error)
    pretrained = read()
    if sum(weight.value.nbytes for weight in pretrained.weights) <= MOST_BYTES:
        # On a full or write-protected disk, nothing is lost but the seconds of the next time.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as file:
                save(file, pretrained)
    return pretrained


def name_of(source: Source, options: Mapping[str, Any], trust: bool) -> str | None:
    """Return the name of the file in the cache; None where the options can't be told apart."""
    if source.sha256 is None:
        return None
    facts = [source.sha256, source.path.name, dict(options), trust, tf.__version__, code()]
    try:
        text = json.dumps(facts, sort_keys=True)
    except TypeError:
        return None
    return f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


@cache
def code() -> str:
    """Return the SHA-256 of the files of this package: other code may read a network otherwise."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def save(file: BinaryIO, pretrained: Pretrained) -> None:
    """Write a network with its weights, by their numbers."""
    kept = keep(pretrained)
    arrays: dict[str, Any] = {str(i): one.value for i, one in enumerate(pretrained.weights)}
    arrays["graphs"], arrays["digest"] = np.frombuffer(kept.graphs, np.uint8), kept.digest
    np.savez(file, **arrays)


def load(path: Path, trust: bool) -> Pretrained:
    """Read what `save` wrote.

    Raises:
        OSError, KeyError, ValueError, SavedModelError: the file is damaged, or another one.
    """
    arrays = read_arrays(path)
    bare = restore(arrays["graphs"], str(arrays["digest"]), trust=trust)
    values = [arrays[str(i)] for i in range(len(bare.weights))]
    for weight, value in zip(bare.weights, values, strict=True):
        if value.shape != weight.value.shape or value.dtype != weight.value.dtype:
            raise ValueError(f"{weight.name} is {value.dtype} {value.shape}")
    pairs = zip(bare.weights, values, strict=True)
    return replace(bare, weights=tuple(replace(one, value=value) for one, value in pairs))
