"""Handle SIGTERM, the notice that a machine is about to be taken away.

Training saves its state first; everything else stops at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tfxfer.errors import TfxferError


class Preempted(TfxferError):
    """The process was asked to stop by SIGTERM."""


class Notice:
    """Whether a SIGTERM came, and whether code that can save its state checks for it."""

    came = False
    awaited = False


def listen() -> None:
    """Install the handler of SIGTERM, which replaces TensorFlow's own.

    From then on, a SIGTERM raises `Preempted` in the main thread; inside an `awaited` block, it is
    only noted. The handler that TensorFlow installs for several workers ignores the signal.
    """
    Notice.came = False
    signal.signal(signal.SIGTERM, handle)


def handle(number, frame) -> None:
    Notice.came = True
    if not Notice.awaited:
        raise Preempted("stopped by SIGTERM")


@contextmanager
def awaited() -> Iterator[None]:
    """Within the block, a SIGTERM is only noted, and the block checks `Notice.came` itself.

    If a SIGTERM came, `Preempted` is raised when the block ends, since its work is done then.
    """
    Notice.awaited = True
    try:
        yield
    finally:
        Notice.awaited = False
    if Notice.came:
        raise Preempted("stopped by SIGTERM")
