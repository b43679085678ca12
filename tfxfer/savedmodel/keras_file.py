"""Load a .keras file after it was checked, since anybody may have written it."""

import json
import os
import zipfile
from pathlib import Path

import keras

from tfxfer.errors import SavedModelError
from tfxfer.files import open_regular
from tfxfer.savedmodel.config import check_config
from tfxfer.savedmodel.weigh import (
    MOST_CONFIG,
    bounded_variables,
    check_outputs,
    weigh,
    weigh_values,
)


def keras_file(handle: str | os.PathLike) -> Path | None:
    """Return the path of a .keras file that a handle names, with `#sha256=...` or without."""
    for text in (os.fspath(handle), os.fspath(handle).rpartition("#")[0]):
        path = given_path(text)
        if path.suffix.lower() == ".keras" and path.is_file():
            return path
    return None


def given_path(handle: str | os.PathLike) -> Path:
    """Return a handle as a path, in which ~ is the user's folder."""
    return Path(os.path.expanduser(os.fspath(handle)))


def load_file(path: Path, *, trust: bool = False) -> keras.Model:
    """Call `keras.models.load_model` after the file was checked.

    Args:
        trust: also load what can run code, read files or use the internet.

    Raises:
        ValueError: it names a class or function that is not allowed (see `check_config`), needs far
            more memory than its weights, or is not a model.
        SavedModelError: see `weigh`.
        Exception: Keras may raise any error for a damaged file.
    """
    held = weigh(path, trust=trust)
    with zipfile.ZipFile(path) as archive:
        check_config(json.loads(archive.read("config.json")), trust=trust)
    with bounded_variables(held):
        model = keras.models.load_model(path, compile=False, safe_mode=not trust)
    if not isinstance(model, keras.Model):
        raise ValueError(f"it holds a {type(model).__name__}; expected a model")
    check_outputs(model)
    return model


def check_file(path: Path, *, trust: bool = False) -> None:
    """Check one file of a Keras preset: a config in JSON, or weights in HDF5 or safetensors.

    Raises:
        SavedModelError: it names a class or function that is not allowed (see `check_config`), is
            damaged, or its weights are in another file.
    """
    try:
        with open_regular(path) as file:
            if path.suffix == ".safetensors":
                return  # numbers alone
            if path.suffix == ".h5":
                weigh_values(file, trust)
            elif len(content := file.read(MOST_CONFIG + 1)) > MOST_CONFIG:
                raise ValueError(f"it has more than {MOST_CONFIG / 2**20:,.0f} MiB")
            else:
                check_config(json.loads(content), trust=trust)
    except SavedModelError:
        raise
    # h5py and the checks may raise almost anything for a file that anybody wrote.
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise SavedModelError(f"{path} can't be used: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file, in one line."""
    # Keras wraps the reason once for each level, each time with all of the model's config.
    reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip() or type(error).__name__
    return reason.splitlines()[0].split(". Make sure custom")[0].rstrip(".")[:500]
