"""Start several workers on this machine, each a process with its own cores and its own address.

The chief, worker 0, prints to the terminal; the others write to log files of their own. When one
fails, the others are stopped, so that nothing waits for it. The module needs only the standard
library.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tfxfer.distribute.loopback import Loopback, make_loopback
from tfxfer.errors import DistributeError
from tfxfer.process.program import command

# Seconds that the other workers have to notice by themselves that one is gone (TensorFlow's
# heartbeats need 10), and then to end.
SEE, END = 12.0, 6.0
STOPPED = (130, 143)  # exit status after Ctrl-C or SIGTERM, which somebody sent on purpose
ENV = "TFXFER_LAUNCH"  # tells a worker that the launcher says how to go on
LINES = 15  # lines of a failed worker's log that are shown


def launch(arguments: Sequence[str], workers: int, open_ports: bool = False) -> int:
    """Run `tfxfer ARGUMENTS` in `workers` processes, and wait for them.

    Args:
        open_ports: let several workers listen on this machine's network. Otherwise they have a
            network of their own, with nothing but loopback in it.

    Returns:
        0, or the exit status of the worker that failed first (128 + number for a signal).

    Raises:
        DistributeError: this system can't give the workers a network of their own.
    """
    addresses = free_addresses(workers)
    with ExitStack() as stack:
        network = None
        if workers > 1 and not open_ports:
            network = own_network()
            stack.callback(network.close)
        logs = Path(tempfile.mkdtemp(prefix="tfxfer-launch-"))
        processes = []
        for number in range(workers):
            out = None if not number else stack.enter_context(open(log_of(logs, number), "w"))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tfxfer", *arguments],
                    env={
                        **os.environ,
                        "TF_CONFIG": config(addresses, number),
                        ENV: "1",
                        **gpus_of(number, workers),
                    },
                    stdout=out,
                    stderr=out and subprocess.STDOUT,
                    preexec_fn=partial(settle, number, workers, network),
                )
            )
        print(
            f"{workers} workers; worker 0 prints here, the others write to {logs}", file=sys.stderr
        )
        if network is not None:
            print(
                "They can reach each other, but no other network; to let them download, "
                "add --open-ports.",
                file=sys.stderr,
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop(processes))
        failed = first_to_fail(processes)
        if failed is None:
            shutil.rmtree(logs)
            return 0
        how = processes[failed].returncode
        print(
            f"{'' if how in STOPPED else 'Error: '}worker {failed} {described(how)}. "
            "Stopping the others.",
            file=sys.stderr,
        )
        wait(processes, SEE)
        stop(processes)
        wait(processes, END)
        for process in processes:
            process.kill()
            process.wait()
    if failed:
        last = log_of(logs, failed).read_text(errors="replace").splitlines()[-LINES:]
        print(
            "\n".join([f"The end of {log_of(logs, failed)}:", *(f"  {line}" for line in last)]),
            file=sys.stderr,
        )
    # If the chief ended by itself, its own error says what to do.
    if how < 0 or how in STOPPED or failed:
        options = ["--open-ports"] if open_ports else []
        again = command("launch", "--workers", str(workers), *options, "--", *arguments)
        print(
            "What was done is kept. Go on with: "
            f"{again}{'' if '--resume' in arguments else ' --resume'}",
            file=sys.stderr,
        )
    return how if how > 0 else 128 - how


def config(addresses: Sequence[str], number: int) -> str:
    """Return TF_CONFIG for one of the workers at these addresses."""
    return json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": number}}
    )


def free_addresses(count: int) -> list[str]:
    """Return `count` addresses, host:port on this machine, where nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def own_network() -> Loopback:
    """Make a network for the workers alone.

    Raises:
        DistributeError: this system does not allow one.
    """
    try:
        return make_loopback()
    except OSError as error:
        raise DistributeError(
            "this system gives the workers no network of their own "
            f"({error.strerror or error}), and TensorFlow's workers listen on every interface: "
            "whoever reaches one of their ports can run code as you. Where only people whom you "
            "trust reach this machine, add --open-ports before the --. Expected: Linux, with "
            "(user and) network namespaces allowed."
        ) from error


def settle(number: int, workers: int, network: Loopback | None) -> None:
    """Set a worker's cores, and its own network where it has one, before its program starts."""
    pin(number, workers)
    if network is not None:
        network.enter()


def pin(number: int, workers: int) -> None:
    """Give this process its share of the cores, so that it starts only as many threads."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        share = cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]
        os.sched_setaffinity(0, share or [cores[number % len(cores)]])


def gpus_of(number: int, workers: int) -> dict[str, str]:
    """Return the environment variable with a worker's share of the GPUs.

    It is empty where there are fewer GPUs than workers.
    """
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (
        shown.split(",")
        if shown
        else []
        if shown == ""
        else [
            path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))
        ]
    )
    share = gpus[number * len(gpus) // workers : (number + 1) * len(gpus) // workers]
    return {"CUDA_VISIBLE_DEVICES": ",".join(share)} if len(gpus) >= workers else {}


def log_of(folder: Path, number: int) -> Path:
    """Return the path of a worker's log file."""
    return folder / f"worker-{number}.log"


def first_to_fail(processes: Sequence[subprocess.Popen]) -> int | None:
    """Wait until a process fails, and return its number; None when all have ended well."""
    while True:
        codes = [process.poll() for process in processes]
        if (bad := [number for number, code in enumerate(codes) if code]) or None not in codes:
            # If several failed at the same moment, the one that was killed from outside is the
            # cause.
            return min(bad, key=lambda number: (codes[number] or 0) >= 0) if bad else None
        time.sleep(0.1)


def wait(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    """Wait until all have ended, or the time is up."""
    until = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.1)


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask the processes that still run to save their state and end."""
    for process in processes:
        if process.poll() is None:
            process.terminate()


def described(code: int) -> str:
    """Say how a process ended."""
    if code in STOPPED:
        return "was stopped"
    return (
        f"was killed by {signal.Signals(-code).name}"
        if code < 0
        else f"ended with exit status {code}"
    )
