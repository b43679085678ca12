"""Find and read the network that a handle or a Keras model stands for."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfxfer import handles
from tfxfer.errors import SavedModelError
from tfxfer.files import open_regular
from tfxfer.handles import checksum
from tfxfer.handles.keras_network import Check
from tfxfer.savedmodel import pair
from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.keras_file import (
    check_file,
    given_path,
    keras_file,
    load_file,
    reason_of,
)
from tfxfer.savedmodel.keras_model import open_model
from tfxfer.savedmodel.open import check_scope
from tfxfer.savedmodel.read import errors_with_folder, read
from tfxfer.savedmodel.remembered import read_once
from tfxfer.savedmodel.trace import check_arguments, trace
from tfxfer.savedmodel.untrained import warn_of_untrained
from tfxfer.savedmodel.weigh import bounded_variables


@dataclass(frozen=True, eq=False)
class Network:
    """A network that was found and read.

    Args:
        name: the handle as text.
        value_range: the range of pixels that it expects, where its source tells it.
        range_from: what tells the range: the catalog, the package that the network comes from,
            whose preprocessing became part of the network, or a layer of a Keras model.
        sha256: the SHA-256 of its files; None where there are none.
    """

    pretrained: Pretrained
    name: str
    value_range: tuple[float, float] | None = None
    range_from: Literal["catalog", "package", "layer"] = "catalog"
    sha256: str | None = None


def open_network(
    handle: str | os.PathLike | Pretrained | keras.Model,
    *,
    image_size: int | tuple[int, int] | None,
    arguments: dict[str, Any] | None,
    output: str | None,
    preprocess: Callable | str | os.PathLike | None,
    length: int | None,
    trust: bool,
) -> Network:
    """Find a network, and take it apart; see `tfxfer.Backbone` for the arguments.

    Raises:
        HandleError: the handle leads nowhere.
        SavedModelError: the network can't be used.
        ValueError: an argument is wrong.
    """
    if isinstance(handle, Pretrained):
        given = {
            "image_size": image_size,
            "arguments": arguments or None,
            "output": output,
            "preprocess": preprocess,
            "length": length,
        }
        if late := {name: value for name, value in given.items() if value is not None}:
            raise ValueError(
                f"Expected no {' or '.join(late)} for a network that was already read. "
                f"Received: {late}"
            )
        return Network(pretrained=handle, name="a SavedModel read before")
    check_handle(handle)
    check_scope()
    check_arguments(arguments or {})
    if not tf.executing_eagerly():
        # A function is being traced, for example a model's build(). A new thread is outside of it,
        # so gradients can be compared there; inside `tf.init_scope` they would all be None.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(
                open_network,
                handle,
                image_size=image_size,
                arguments=arguments,
                output=output,
                preprocess=preprocess,
                length=length,
                trust=trust,
            ).result()
    size = None if image_size is None else height_and_width(image_size)
    options: dict[str, Any] = {"image_size": size, "arguments": arguments or {}, "output": output}
    if isinstance(preprocess, str | os.PathLike):
        return open_pair(handle, preprocess, options, length=length, trust=trust)
    if isinstance(handle, keras.Model):
        check_no_length(length, "a Keras model", "takes what its own layers take")
        opened = open_model(handle, preprocess=preprocess)
        pretrained = trace(opened, **options)
        warn_of_untrained(pretrained, opened.name)
        told = range_inside(handle) if preprocess is None else None
        return Network(
            pretrained=pretrained, name=opened.name, value_range=told, range_from="layer"
        )
    check = Check(functools.partial(check_file, trust=trust), bounded_variables, trust)
    if (network := handles.load_keras(handle, size, check, length)) is not None:
        if network.takes == "text":
            if preprocess is not None:
                raise ValueError(
                    f"Expected no preprocess with {handle}, whose preset has a tokenizer of its "
                    f"own. Received: {preprocess=}"
                )
            first = pair.layer_as_preprocessor(network.preprocess)
            opened = pair.join(first, open_model(network.model))
        else:
            opened = open_model(network.model, preprocess=preprocess or network.preprocess)
        options["image_size"] = size or network.size
        pretrained = trace(opened, **options)
        warn_of_untrained(pretrained, str(handle))
        return Network(
            pretrained=pretrained,
            name=str(handle),
            value_range=None if preprocess else (0.0, 255.0),
            range_from="package",
        )
    if (path := keras_file(handle)) is not None:
        check_no_length(length, str(handle), "takes what its own layers take")
        wanted = "" if path == given_path(handle) else checksum.split(str(handle))[1]
        with open_regular(path) as file:
            digest = checksum.of_file(file)
        checksum.check(str(path), digest, wanted)
        with errors_with_folder(path):
            model = load_model(path, trust)
        opened = open_model(model, preprocess=preprocess)
        pretrained = trace(opened, **options, trust=trust)
        warn_of_untrained(pretrained, str(path))
        return Network(
            pretrained=pretrained,
            name=str(handle),
            value_range=range_inside(model) if preprocess is None else None,
            range_from="layer",
            sha256=digest,
        )
    if preprocess is not None:
        raise ValueError(
            "Expected preprocess with a Keras model, or the handle of a preprocessor of texts: a "
            f"SavedModel of images holds its own. Received: handle={handle!r} and {preprocess=}"
        )
    source = handles.resolve(handle, length if handles.has_length(handle) else None)
    if size is None and source.entry is not None and source.entry.image_size:
        options["image_size"] = (source.entry.image_size, source.entry.image_size)
    pretrained = read_once(
        source, options, trust, lambda: read(source.path, **options, trust=trust)
    )
    if not handles.has_length(handle):
        check_no_length(length, str(handle), how_it_reads(pretrained))
    return Network(
        pretrained=pretrained,
        name=str(handle),
        value_range=source.entry.value_range if source.entry else None,
        sha256=source.sha256,
    )


def check_no_length(length: int | None, name: str, does: str) -> None:
    """Refuse a length for a network that can't read texts of another length.

    Args:
        does: what it does instead.

    Raises:
        SavedModelError: names the network, and those that can.
    """
    if length is not None:
        raise SavedModelError(
            f"{name} {does}, and --length can't change that. Leave it out, or take minilm, static, "
            "an encoder with its preprocessor, or a preset of KerasHub for texts."
        )


def how_it_reads(pretrained: Pretrained) -> str:
    """Return how much of an example a network reads, in words."""
    tokenizer = pretrained.tokenizer
    if tokenizer is None:
        return "takes no texts"
    return f"reads the first {tokenizer.length:,} {tokenizer.unit} of a text, as its graph says"


def range_inside(model: keras.Model) -> tuple[float, float] | None:
    """Return the range of pixels that is known to a layer which takes the model's own input.

    Such a layer is a `tfxfer.Backbone`, as in the model of a run. None where there is none.
    """
    entries = [id(tensor) for tensor in getattr(model, "inputs", None) or ()]
    for layer in model.layers:
        taken = [id(tensor) for node in layer._inbound_nodes for tensor in node.input_tensors]
        if not set(taken) & set(entries):
            continue
        if getattr(layer, "range_from", "none") not in ("assumed", "none"):
            return layer.value_range
        if isinstance(layer, keras.Model) and (found := range_inside(layer)) is not None:
            return found
    return None


def check_handle(handle: Any) -> None:
    """Refuse what is no handle and no Keras model.

    Raises:
        ValueError: says what it is, and what to give instead.
    """
    if isinstance(handle, keras.Model | str | os.PathLike):
        return
    kinds = {f"{one.__module__}.{one.__qualname__}" for one in type(handle).__mro__}
    if isinstance(handle, keras.layers.Layer):
        way = (
            "Make a model of the layer: keras.Sequential([keras.Input((height, width, 3)), layer])"
        )
    elif any(one.startswith(("tf_keras.", "tensorflow.python.keras.")) for one in kinds):
        way = (
            "This is a model of Keras 2: save it with tf.saved_model.save(model, folder), and give "
            "the folder"
        )
    elif isinstance(handle, tf.Module | tf.train.Checkpoint) or any(
        one.startswith("tensorflow.") for one in kinds
    ):
        way = "Give the folder of the SavedModel, not what tf.saved_model.load returns"
    else:
        way = "`tfxfer backbones` lists names"
    raise ValueError(
        "Expected handle to be a name, a path or a URL of a network, or a model of Keras 3. "
        f"{way}. Received: {type(handle).__module__}.{type(handle).__qualname__}"
    )


def open_pair(
    handle: Any,
    before: str | os.PathLike,
    options: dict[str, Any],
    *,
    length: int | None,
    trust: bool,
) -> Network:
    """Read an encoder of texts with its preprocessor, both SavedModels.

    Raises:
        ValueError: the encoder is a Keras model.
    """
    if not isinstance(handle, str | os.PathLike):
        raise ValueError(
            "Expected the handle of a preprocessor with a SavedModel only. Received: "
            f"preprocess={before!r} with a Keras model"
        )
    source, first = handles.resolve(handle), handles.resolve(before)
    pretrained = read(source.path, before=first.path, length=length, **options, trust=trust)
    return Network(pretrained=pretrained, name=str(handle), sha256=source.sha256)


def load_model(path: Path, trust: bool) -> keras.Model:
    """Load a .keras file.

    Raises:
        SavedModelError: says what is wrong with it.
    """
    try:
        return load_file(path, trust=trust)
    except SavedModelError:
        raise
    except Exception as error:  # Keras may raise any error for a file that anybody wrote
        raise SavedModelError(
            f"{path} can't be loaded: {reason_of(error)}. Expected a model that Keras 3 saved."
        ) from error


def height_and_width(image_size: Any) -> tuple[int, int]:
    """(height, width) of one number or two.

    Raises:
        ValueError: it is neither.
    """
    both = (image_size, image_size) if isinstance(image_size, int | np.integer) else image_size
    if (
        not isinstance(both, tuple | list)
        or len(both) != 2
        or not all(isinstance(side, int | np.integer) and side > 0 for side in both)
    ):
        raise ValueError(
            "Expected image_size to be one whole number or two, height and width, in pixels. "
            f"Received: image_size={image_size!r}"
        )
    return int(both[0]), int(both[1])
