"""Give memory that is free but still held by this process back to the system."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework.ops import gradient_registry


def give_back() -> None:
    """Delete unused objects, and let the C library return its free pages.

    glibc keeps pages that lie between others: after the features of 500 photos 0.25 to 0.5 GB,
    which the training after it would take once more. With other C libraries only the unused objects
    are deleted.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def forgotten_gradients() -> Iterator[None]:
    """Let all that TensorFlow traces in this context be freed when its model is deleted.

    The gradient of what was traced can't be taken afterwards. A step of training adds up the
    gradients of all replicas by an operation with a gradient of its own. TensorFlow 2.21 keeps that
    for ever under a new name, and with it all of the traced step: 0.2 GB for EfficientNet-Lite0.
    """
    before = set(gradient_registry.list())
    try:
        yield
    finally:
        for name in set(gradient_registry.list()) - before:
            if name.startswith("CustomGradient-"):
                del gradient_registry._registry[name]
