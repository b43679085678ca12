"""SIGTERM, the notice that a machine is about to be taken away: training keeps its state first, everything else stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tfxfer.errors import TfxferError


class Preempted(TfxferError):
    """The process was asked to stop by SIGTERM."""


class Notice:
    """Whether a SIGTERM came, and whether somebody who can keep a state looks for it."""

    came = False
    awaited = False


def listen() -> None:
    """From here on a SIGTERM raises `Preempted` in the main thread, or waits for `awaited`. TensorFlow's own handler under several workers ignores it."""
    Notice.came = False
    signal.signal(signal.SIGTERM, handle)


def handle(number, frame) -> None:
    Notice.came = True
    if not Notice.awaited:
        raise Preempted("stopped by SIGTERM")


@contextmanager
def awaited() -> Iterator[None]:
    """Within, a SIGTERM is only noted: the block looks at `Notice.came` itself, and if it ended first, its work is done and `Preempted` is raised now."""
    Notice.awaited = True
    try:
        yield
    finally:
        Notice.awaited = False
    if Notice.came:
        raise Preempted("stopped by SIGTERM")
