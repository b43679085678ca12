"""Load a .keras file after it was checked, since anybody may have written it."""

import json
import zipfile
from pathlib import Path

import keras

from tfxfer.savedmodel.config import check_config
from tfxfer.savedmodel.weigh import bounded_variables, check_outputs, weigh


def load_file(path: Path, *, trust: bool = False) -> keras.Model:
    """Call `keras.models.load_model` after the file was checked.

    Args:
        trust: also load what can run code, read files or use the network.

    Raises:
        ValueError: it names what no network needs (see `check_config`), would take far more memory
            than the values in it, or holds no model.
        SavedModelError: see `weigh`.
        Exception: what Keras raises for a damaged file may be anything.
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


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file, in one line."""
    # Keras wraps the reason once for each level, each time with all of the model's config.
    reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip() or type(error).__name__
    return reason.splitlines()[0].split(". Make sure custom")[0].rstrip(".")[:500]
