"""Networks that KerasHub can load: presets by name, from Hugging Face, Kaggle or a folder.

They take images or texts.

KerasHub reads its own format, and on Hugging Face also those of Transformers and timm.
"""

import difflib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras_hub import models
from keras_hub.layers import ImageConverter

# KerasHub has no public functions for one file and for the class of a preset.
from keras_hub.src.utils.preset_utils import get_file, get_preset_loader

from tfxfer.errors import HandleError, TfxferError
from tfxfer.handles.keras_network import Check, KerasNetwork
from tfxfer.handles.kerashub_texts import CONFIGS, network_of_texts

CONFIG = "config.json"
CONVERTER = "image_converter.json"
# Files with weights, each with the list of its parts where it is cut into several files.
WEIGHTS = {
    "model.weights.h5": "model.weights.json",
    "model.safetensors": "model.safetensors.index.json",
}
WIDENED = 2  # weights in 16 bits are loaded as float32
PROCESSOR = "preprocessor_config.json"  # of Transformers
# Height and width of the images if neither the user, the preset nor the model gives them.
SIZE = (224, 224)
# Backbones that give features of images, though KerasHub has no classifier that uses them.
FEATURES = ("DINOV2Backbone", "DINOV3Backbone")
# Transformers that always have a class token; others say so in `use_class_token`.
CLASS_TOKEN = (*FEATURES, "DeiTBackbone")


class Prepared(NamedTuple):
    """How pixels in [0, 255] are prepared: times `scale`, plus `offset`, channel by channel."""

    scale: Any
    offset: Any
    size: tuple[int, int] | None


def load(
    handle: str, size: tuple[int, int] | None, check: Check, length: int | None = None
) -> KerasNetwork:
    """Return the network of a preset, and how KerasHub prepares its examples.

    Args:
        handle: `kerashub:NAME`, `hf://OWNER/NAME`, `kaggle://OWNER/MODEL/keras/NAME`, or a folder.
        size: height and width of the images; by default those of the preset.
        check: checks each file before KerasHub builds what the file names.
        length: how many pieces of a text are read, for presets of texts; by default 128.

    Raises:
        HandleError: there is no such preset, it is of another kind, it can't be fetched, or it
            can't read texts of that length.
    """
    preset = handle.removeprefix("kerashub:")
    if os.path.isdir(folder := os.path.expanduser(preset)):
        preset = folder
    # `presets` of a base class also lists those of its subclasses, so only classes without
    # subclasses count.
    kinds = [
        kind
        for kind in subclasses(models.Backbone)
        if preset in kind.presets and not kind.__subclasses__()
    ]
    if not kinds and "://" not in preset and not Path(preset).is_dir():
        raise HandleError(unknown(preset))
    for kind in kinds:
        check_kind(kind, handle)
    texts = any(takes_texts(kind) for kind in kinds)
    # What the network is for is known from a small file, before its weights are downloaded.
    for name in (CONFIG, CONVERTER):
        fetch(preset, name, handle, check)
    try:
        if not kinds:
            kind = get_preset_loader(preset).check_backbone_class()
            check_kind(kind, handle)
            texts = takes_texts(kind)
        held = sum(path.stat().st_size for path in fetch_weights(preset, handle, check))
        if texts:
            for name in CONFIGS:
                fetch(preset, name, handle, check)
            with check.bounded(WIDENED * held):
                return network_of_texts(preset, handle, length, trust=check.trust)
        if length is not None:
            raise HandleError(f"{handle} takes images, which have no --length. Leave it out.")
        prepared = prepared_as(preset, handle, check)
        options: dict[str, Any] = {} if size is None else {"image_shape": (*size, 3)}
        with check.bounded(WIDENED * held):
            model = models.Backbone.from_preset(preset, dtype="float32", **options)
    except (TfxferError, MemoryError):
        raise
    # KerasHub, Keras and the packages that download raise any error.
    except Exception as error:
        raise HandleError(f"{handle} can't be loaded: {reason_of(error)}") from error
    model = with_one_vector(model, handle)
    sides = tuple(model.inputs[0].shape[1:3])
    return KerasNetwork(
        model=model,
        preprocess=lambda x: x * prepared.scale + prepared.offset,
        size=size or prepared.size or (SIZE if None in sides else sides),
    )


def takes_texts(kind: Any) -> bool:
    """Return whether a backbone is for texts: KerasHub has a classifier of texts that uses it."""
    tasks = subclasses(models.TextClassifier)
    return any(getattr(one, "backbone_cls", None) is kind for one in tasks)


def unknown(preset: str) -> str:
    """Return what to say about a name that KerasHub does not know."""
    near = difflib.get_close_matches(preset.lower(), names(), n=3, cutoff=0.4)
    nearest = f" The nearest names: {', '.join(near)}." if near else ""
    return (
        f"KerasHub has no preset {preset!r} for images or texts, and there is no such folder."
        f"{nearest}"
    )


def names() -> list[str]:
    """Return the names of KerasHub's own presets that are backbones for images or texts."""
    tasks = subclasses(models.ImageClassifier) | subclasses(models.TextClassifier)
    kinds = {one.backbone_cls for one in tasks}
    kinds |= {getattr(models, name) for name in FEATURES}
    return sorted(name for kind in kinds - {None} for name in kind.presets)


def subclasses(kind: Any) -> set[Any]:
    """Return all classes below a class."""
    below: set[Any] = set(kind.__subclasses__())
    return below.union(*(subclasses(one) for one in below))


def fetch_weights(preset: str, handle: str, check: Check) -> list[Path]:
    """Return the paths of all files with weights, downloaded if need be, and checked.

    Raises:
        HandleError: there are none.
    """
    for weights, index in WEIGHTS.items():
        if (path := fetch(preset, weights, handle, check)) is not None:
            return [path]
        if (path := fetch(preset, index, handle, check)) is not None:
            values = json.loads(path.read_text("utf-8"))["weight_map"].values()
            names = {name for value in values for name in np.atleast_1d(value).tolist()}
            if odd := [name for name in names if Path(name).name != name]:
                raise HandleError(f"{handle} names a file in another folder: {odd[0]!r}.")
            parts = [fetch(preset, name, handle, check) for name in sorted(names)]
            return [part for part in parts if part is not None]
    raise HandleError(f"{handle} has no weights; expected {' or '.join(WEIGHTS)}.")


def fetch(preset: str, name: str, handle: str, check: Check) -> Path | None:
    """Return the path of one file of a preset, downloaded if need be, and checked.

    Returns:
        None if the preset has no such file.

    Raises:
        HandleError: the preset can't be reached, or is not one.
    """
    try:
        path = Path(get_file(preset, name))
    except MemoryError:
        raise
    except FileNotFoundError as error:
        # KerasHub raises it for a missing file and for a missing connection; the causes differ.
        if type(error.__cause__).__name__ == "LocalEntryNotFoundError":
            raise HandleError(f"{handle} can't be fetched: is this computer online?") from error
        if name != CONFIG:
            return None
        raise HandleError(
            f"{handle} holds no {CONFIG}; expected a preset of KerasHub, or a model on Hugging "
            "Face that KerasHub can read."
        ) from error
    # The packages that download raise any error. Messages of connection errors are long and do not
    # help a reader.
    except Exception as error:
        offline = isinstance(error, OSError) and getattr(error, "response", None) is None
        reason = "is this computer online?" if offline else reason_of(error)
        raise HandleError(f"{handle} can't be fetched: {reason}") from error
    check.file(path)
    return path


def check_kind(kind: Any, handle: str) -> None:
    """Refuse the backbone of a network for something else, before its weights are downloaded.

    Raises:
        HandleError: says what it is for.
    """
    tasks = [one for one in subclasses(models.Task) if getattr(one, "backbone_cls", None) is kind]
    if kind.__name__ in FEATURES or any(issubclass(one, models.ImageClassifier) for one in tasks):
        return
    if takes_texts(kind):
        return
    for_what = [
        one.__name__
        for one in models.Task.__subclasses__()
        if any(issubclass(task, one) for task in tasks)
    ]
    what = f", a network for {' and '.join(sorted(for_what))}" if for_what else ""
    raise HandleError(
        f"{handle} is a {kind.__name__}{what}. Expected a network for images or texts, such as the "
        "backbones of KerasHub's classifiers."
    )


def with_one_vector(model: keras.Model, handle: str) -> keras.Model:
    """Return a network with one vector or one map for each image.

    For a transformer it is the class token, which comes first; if there is none, the mean of all
    tokens.

    Raises:
        HandleError: its output is neither.
    """
    output = model.output
    if isinstance(output, dict) or len(output.shape) not in (2, 3, 4):
        raise HandleError(
            f"{handle} returns {sorted(output) if isinstance(output, dict) else output.shape}; "
            "expected a vector, a map, or tokens for each image."
        )
    if len(output.shape) != 3:
        return model
    if type(model).__name__ in CLASS_TOKEN or getattr(model, "use_class_token", False):
        return keras.Model(model.inputs, output[:, 0], name=model.name)
    mean = keras.layers.GlobalAveragePooling1D()(output)
    return keras.Model(model.inputs, mean, name=model.name)


def prepared_as(preset: str, handle: str, check: Check) -> Prepared:
    """Return how images are prepared for a preset, as KerasHub or Transformers wrote it down.

    Raises:
        HandleError: the preset has no such settings.
    """
    try:
        converter = ImageConverter.from_preset(preset)
    except FileNotFoundError:
        converter = None
    if converter is not None:
        scale = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
        return Prepared(scale=scale, offset=offset, size=converter.image_size)
    if (path := fetch(preset, PROCESSOR, handle, check)) is None:
        raise HandleError(
            f"{handle} does not say how images are prepared for it. Load it with keras_hub, and "
            "give it to tfxfer.Backbone(model, preprocess=...) in Python."
        )
    values = json.loads(path.read_text("utf-8"))
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if values.get("do_normalize", True):
        mean, deviation = values["image_mean"], values["image_std"]
    size = values.get("crop_size") or values.get("size")
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    return Prepared(
        scale=[factor / one for one in deviation],
        offset=[-middle / one for middle, one in zip(mean, deviation, strict=True)],
        size=(size, size) if isinstance(size, int) else size,
    )


def reason_of(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:500]
