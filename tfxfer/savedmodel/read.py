"""Open and trace the folder of a SavedModel."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel import pair
from tfxfer.savedmodel.check import check_saved_model
from tfxfer.savedmodel.graph import Pretrained
from tfxfer.savedmodel.open import open_folder
from tfxfer.savedmodel.trace import check_arguments, trace
from tfxfer.savedmodel.trial import raise_assertion

LOG = logging.getLogger(__name__)


def read(
    folder: str | os.PathLike,
    *,
    image_size: tuple[int, int] | None = None,
    arguments: dict[str, Any] | None = None,
    output: str | None = None,
    before: str | os.PathLike | None = None,
    length: int | None = None,
    trust: bool = False,
) -> Pretrained:
    """Read a TF2 SavedModel of a feature extractor as pure functions.

    Args:
        folder: the folder that holds `saved_model.pb`. It takes one kind of example (see
            `tfxfer.inputs`), such as images [B, H, W, 3], and returns features [B, F], or a map,
            whose mean is taken. What it computes for one example must not depend on the others.
        image_size: (H, W) in pixels, needed where the network takes images of any size.
        arguments: further arguments of the model's call, such as `{"batch_norm_momentum": 0.99}`.
        output: the name of the output to use, where there are several; or, where the SavedModel has
            no call, the name of a signature.
        before: the folder of a preprocessor of texts. `folder` is then the encoder, which takes
            the preprocessor's output in place of strings (see `pair`).
        length: how many pieces of a text the preprocessor gives; None for its own number.
        trust: also read graphs that hold operations which can reach files, Python or the internet.

    Raises:
        SavedModelError: it is in the TF1 format or damaged, does not map examples to features, or
            does not take the arguments.
        DeniedOperationError: the graph holds an operation that is not allowed; names it (see
            `operations`).
        MissingExtraError: the graph needs TensorFlow Text, which isn't installed.
        ValueError: `arguments` holds `training`.
    """
    check_arguments(arguments or {})
    folder = Path(folder)
    LOG.info("Reading the network")
    held = check_saved_model(folder, trust=trust)
    if before is not None:
        held |= check_saved_model(Path(before), trust=trust)
    with errors_with_folder(folder):
        opened = open_folder(folder, output)
        if opened.signature == output:
            output = None
        if before is not None:
            first = open_folder(before)
            if length is not None:
                first = pair.with_length(first, length)
            opened = pair.join(first, opened)
        return trace(
            opened,
            image_size=image_size,
            arguments=arguments or {},
            output=output,
            trust=trust,
            held=held,
        )


@contextmanager
def errors_with_folder(folder: Path) -> Iterator[None]:
    """Turn the errors that TensorFlow raises for a damaged graph into one with the folder's name.

    TensorFlow may raise almost any error there. Errors of tfxfer itself pass through.
    """
    try:
        yield
    except (
        tf.errors.OpError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        if isinstance(error, tf.errors.OpError):
            raise_assertion(error, str(folder))
        lines = str(error).strip().splitlines() or [""]
        raise SavedModelError(
            f"{folder} can't be loaded. If it is damaged, fetch or export it again. The error was "
            f"{type(error).__name__}: {lines[0]}"
        ) from error
