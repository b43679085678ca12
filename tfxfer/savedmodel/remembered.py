"""Keep what was read of a SavedModel in the cache, because reading it again takes seconds.

A file holds the graphs, as a model's file does (see `kept`), and the weights. It is named by a hash
of the SavedModel's files, of how they were read, and of the code that read them. The graphs are
checked each time: a file of the cache can do no more than a model's file.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tfxfer.cache import NETWORKS, default_folder, remove_networks
from tfxfer.errors import SavedModelError
from tfxfer.files import appear
from tfxfer.handles import Source, checksum
from tfxfer.inputs import KINDS
from tfxfer.limits import MOST_REMEMBERED
from tfxfer.safety.arrays import read_arrays
from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.kept import NUMBERS, keep, restore

LOG = logging.getLogger(__name__)
# The code that decides what is read of a SavedModel.
READERS = ("savedmodel", "inputs", "limits.py", "distribute/parcel.py")
KEPT_TOGETHER = 4  # so many networks of the largest size fit in; the oldest ones are removed


def read_once(
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
    path = place_of(source, options, trust)
    if path is None:
        return read()
    try:
        return load(path, trust)
    except OSError:  # it is not there, or not ours to read
        pass
    except (KeyError, ValueError, SavedModelError) as error:
        LOG.warning("%s is damaged (%s); the network is read again", path, error)
    pretrained = read()
    # Somebody may have written the folder while it was read.
    if is_kept(pretrained) and place_of(source, options, trust) == path:
        # On a full or write-protected disk, nothing is lost but the seconds of the next time.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
            appear(path, aside, functools.partial(save, pretrained))
            remove_networks(path.parent.parent, KEPT_TOGETHER * MOST_REMEMBERED)
    return pretrained


def place_of(source: Source, options: Mapping[str, Any], trust: bool) -> Path | None:
    """Return the file of a network in the cache.

    Returns:
        None where nothing is kept: the SavedModel is large; its handle has the SHA-256 of its
        content, so it must itself be read; there is no folder for a cache; JSON can't hold the
        options; or TensorFlow adds operations to all graphs, for debugging.
    """
    if checksum.MARK in source.handle or context.context().op_callbacks:
        return None
    files = checksum.model_files(source.path)
    if sum(path.stat().st_size for path in files) > MOST_REMEMBERED:
        return None
    facts = {
        "files": checksum.of_folder(source.path),
        "options": dict(options),
        "trust": trust,
        "tensorflow": tf.__version__,
        "kinds": sorted(KINDS),
        "code": hash_code(),
    }
    try:
        text = json.dumps(facts, sort_keys=True)
        folder = default_folder()
    except (TypeError, RuntimeError):  # RuntimeError: this user has no home folder
        return None
    return folder / NETWORKS / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


@functools.cache
def hash_code() -> str:
    """Return the SHA-256 of the code that reads: other code may read a network otherwise."""
    package = Path(__file__).parent.parent
    found = hashlib.sha256()
    for name in READERS:
        start = package / name
        for path in sorted(start.rglob("*.py")) if start.is_dir() else [start]:
            found.update(path.read_bytes())
    return found.hexdigest()


def is_kept(pretrained: Pretrained) -> bool:
    """Return whether a network is small enough to be kept, and holds numbers alone."""
    pure = (pretrained.inference, pretrained.training, pretrained.regularization)
    graphs = [one.graph.ByteSize() for one in pure if one is not None]
    tokenizer = pretrained.tokenizer
    size = sum(graphs) + (0 if tokenizer is None else tokenizer.graph.ByteSize())
    size += sum(weight.value.nbytes for weight in pretrained.weights)
    numbers = all(weight.value.dtype.kind in NUMBERS for weight in pretrained.weights)
    return numbers and size <= MOST_REMEMBERED


def save(pretrained: Pretrained, path: str) -> None:
    """Write a network to a new file, with its weights by their numbers."""
    kept = keep(pretrained)
    arrays: dict[str, Any] = {str(i): one.value for i, one in enumerate(pretrained.weights)}
    arrays["graphs"] = np.frombuffer(kept.graphs, np.uint8)
    arrays["digest"] = kept.digest
    with open(path, "xb") as file:
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
