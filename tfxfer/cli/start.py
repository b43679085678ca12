"""What the commands share. TensorFlow is loaded only when a command needs it."""

import atexit
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tfxfer.errors import TfxferError
from tfxfer.process.quiet import quiet

LOG = logging.getLogger(__name__)


def load_module(name: str) -> Any:
    """Import a module when a command needs it: `tfxfer --help` must not wait for TensorFlow."""
    return importlib.import_module(f"tfxfer.{name}")


def check_backend() -> None:
    """Make Keras run on TensorFlow, whatever ~/.keras/keras.json says.

    Raises:
        TfxferError: the environment asks for another backend.
    """
    if (backend := os.environ.setdefault("KERAS_BACKEND", "tensorflow")) != "tensorflow":
        raise TfxferError(
            f"KERAS_BACKEND is {backend}; tfxfer reads TensorFlow SavedModels and needs "
            "tensorflow. Unset KERAS_BACKEND."
        )


def start_tensorflow() -> None:
    """Import TensorFlow and Keras without the messages that they print when they start.

    C++ code prints these, whatever the logging level.
    """
    check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        LOG.info("Loading TensorFlow")
    with quiet(), without_collecting():
        tensorflow = importlib.import_module("tensorflow")
        importlib.import_module("keras")
        tensorflow.config.list_physical_devices()
    tensorflow.get_logger().setLevel("ERROR")


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep Python from looking for garbage among the objects of TensorFlow, which all stay.

    Otherwise it looks through them again and again while they are loaded, at each later collection,
    and for about a second at the end of the process.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)


def check_data(source: Any, judging: bool = False, **labels: Any) -> None:
    """Raise the errors that file names alone show, before TensorFlow is loaded (seconds).

    Args:
        labels: task and labels, as for `tfxfer.data.check_source`.
    """
    if isinstance(source, str):
        load_module("data").check_source(source, judging, **labels)


def check_network(backbone: Any) -> None:
    """Raise the errors that the name of a network alone shows, before TensorFlow is loaded.

    Args:
        backbone: as for --backbone; anything but a text is left to the recipe.
    """
    if isinstance(backbone, str):
        load_module("handles").check_name(backbone)


def check_order(folder: Path, paths: Sequence[str], usage: str) -> None:
    """Refuse a run that is not the first argument."""
    if not folder.is_dir() and any(Path(path, "settings.json").is_file() for path in paths):
        raise click.UsageError(f"The run comes first: {usage}.")


trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Load the network even if it contains operations that can read files, run code or use the "
    "internet. Only if you trust its source.",
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of examples that go through the network at a time.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder where TensorFlow Datasets keeps its files, for --data tfds:NAME.",
)
cache_option = click.option(
    "--cache",
    help="Folder that keeps computed features for later runs. By default $TFXFER_CACHE_DIR or "
    "~/.cache/tfxfer.",
)
task_option = click.option(
    "--task",
    default="classify",
    show_default=True,
    help="Kind of answer: classify, multilabel or regress (see docs/answers.md).",
)
label_option = click.option(
    "--label",
    "labels",
    multiple=True,
    help="Name of the column of labels in a .csv table; repeat it for several columns.",
)
skip_option = click.option(
    "--skip-bad-images",
    is_flag=True,
    help="Leave out files that can't be read or are damaged, instead of stopping.",
)


def words_of_labels(task: str, labels: Sequence[str]) -> list[str]:
    """Return the options that say the task and its columns, for a command to copy."""
    words = [word for name in labels for word in ("--label", name)]
    return words if task == "classify" else ["--task", task, *words]
