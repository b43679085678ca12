"""End a worker that waits in vain for the others.

Usage: python -m tfxfer.distribute.rendezvous PROCESS SECONDS ADDRESS...

TensorFlow waits for the other workers inside one call, for ever. It ignores signals, and holds
Python's global interpreter lock meanwhile. So a second process watches. Where nobody writes to its
standard input within SECONDS, it says which addresses don't answer, and kills PROCESS. Where Ctrl-C
or SIGTERM is sent to both processes, it kills PROCESS at once.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Sequence

SOON = 10.0  # seconds of waiting after which a line says who is missing


def call(address: str) -> None:
    """Connect to host:port and disconnect; raises OSError where nobody answers within 5 s."""
    host, port = address.rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def answers(address: str) -> bool:
    """Whether somebody listens at the address."""
    try:
        call(address)
    except OSError:
        return False
    return True


def missing(addresses: Sequence[str]) -> str:
    """List the workers that don't listen."""
    return ", ".join(
        f"{number} ({address})" for number, address in enumerate(addresses) if not answers(address)
    )


def watch(process: int, seconds: float, addresses: Sequence[str]) -> None:
    """Wait for a line, or for the end of the other process; if neither comes in time, kill it."""

    def stop(number: int, _: object) -> None:
        os.kill(process, signal.SIGKILL)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    soon = min(SOON, seconds)
    if select.select([sys.stdin], [], [], soon)[0]:
        return
    absent = missing(addresses)
    print(
        f"waiting for {f'worker {absent}' if absent else 'the other workers'}, "
        f"at most {seconds:g} s",
        file=sys.stderr,
        flush=True,
    )
    if select.select([sys.stdin], [], [], seconds - soon)[0]:
        return
    absent = missing(addresses)
    about = (
        f"worker {absent} did not come"
        if absent
        else "not all workers came, though all addresses answer"
    )
    print(
        f"Error: {about} within {seconds:g} s. Start all {len(addresses)} workers with the same "
        "addresses, each reachable from the others.",
        file=sys.stderr,
    )
    sys.stderr.flush()
    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
