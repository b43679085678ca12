"""Networks of `keras.applications`, by name, such as `keras:EfficientNetV2B0`."""

import importlib
from typing import Any

import keras

from tfxfer.errors import HandleError
from tfxfer.handles.keras_names import SIZES, find_name
from tfxfer.handles.keras_network import Check, KerasNetwork


def load(
    handle: str,
    size: tuple[int, int] | None,
    check: Check | None = None,
    length: int | None = None,
    weights: str | None = "imagenet",
) -> KerasNetwork:
    """Return a network without its classifier, with its published weights.

    Keras downloads the weights once, and compares their hash with its own.

    Args:
        handle: `keras:` and a name of `keras.applications`; upper and lower case do not matter.
        size: height and width of the images; by default those that it was trained on.
        check: not used; Keras checks the hash of its downloads.
        length: of texts, which these networks don't take.
        weights: as for the functions of `keras.applications`; None for random ones.

    Raises:
        HandleError: there is no such network, its weights can't be fetched, or it was given a
            length.
    """
    if length is not None:
        raise HandleError(f"{handle} takes images, which have no --length. Leave it out.")
    name = find_name(handle.removeprefix("keras:"))
    make = getattr(keras.applications, name)
    height, width = size or (SIZES[name], SIZES[name])
    options: dict[str, Any] = {"include_top": False, "input_shape": (height, width, 3)}
    try:
        model = make(weights=weights, **options)
    # A size that the network can't take, or a download that is damaged.
    except ValueError as error:
        raise HandleError(f"keras:{name} can't be loaded: {error}") from error
    except MemoryError:
        raise
    # Keras raises a plain Exception where it can't download.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        online = " Is this computer online?" if "URL fetch failure" in reason else ""
        raise HandleError(
            f"the weights of keras:{name} can't be loaded: {reason}.{online}"
        ) from error
    preprocess = importlib.import_module(make.__module__).preprocess_input
    return KerasNetwork(model=model, preprocess=preprocess)
