"""Runs an attack's tries in a child process, and watches it: time, memory, and how it ends.

python -m attacks.watch MODULE FOLDER FIRST LAST SEED      (the child)
"""

import importlib
import os
import selectors
import subprocess
import sys
import time
import traceback
from pathlib import Path

import psutil

SLOW = 10.0  # seconds that one try may take
FIRST = 120.0  # seconds until the first try, in which TensorFlow is imported
MOST = 2 * 1024**3  # bytes of memory


def tried(module: str, folder: Path, count: int, seed: int, more: float = 0.0) -> list[str]:
    """Try `count` times, and return a line for each try that went wrong.

    Args:
        module: of `attacks`, with `prepare(folder)` and `attack(folder, number, seed) -> str`.
        more: seconds that one try may take beyond ten.
    """
    failures: list[str] = []
    done = 0
    while done < count:
        done, lines = watched(module, folder, done, count, seed, SLOW + more)
        failures += lines
    return failures


def watched(
    module: str, folder: Path, first: int, last: int, seed: int, slow: float
) -> tuple[int, list[str]]:
    """Watch one child process that makes the tries from `first` on.

    Returns the first try that it did not make, and what went wrong.
    """
    words = [sys.executable, "-m", "attacks.watch", module, str(folder), str(first), str(last)]
    child = subprocess.Popen(
        [*words, str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    process, at, failures, began = psutil.Process(child.pid), first - 1, [], time.monotonic()
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if selector.select(0.05):
                read = child.stdout.read()
                if read == b"":
                    break
                *lines, rest = (rest + (read or b"")).split(b"\n")
                for line in lines:
                    word, _, text = line.decode(errors="replace").partition(" ")
                    at = int(text) if word == "try" else at
                    failures += [text] if word == "fail" else []
                    began = time.monotonic()
            wait = slow if at >= first else FIRST
            why = ""
            if time.monotonic() - began > wait:
                why = f"took more than {wait:g} s"
            elif memory_of(process) > MOST:
                why = f"took more than {MOST / 2**30:g} GiB"
            if why:
                child.kill()
                failures.append(f"{module} {at}: {why}")
                break
    code = child.wait()
    if code and not failures_end(failures, module, at):
        failures.append(f"{module} {at}: the process ended with {code}")
    return (last if code == 0 else max(at, first) + 1), failures


def failures_end(failures: list[str], module: str, at: int) -> bool:
    return bool(failures) and failures[-1].startswith(f"{module} {at}: took")


def memory_of(process: psutil.Process) -> int:
    """Return the memory of the process and of those that it started, in bytes."""
    try:
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in family if one.is_running())
    except psutil.Error:
        return 0


def main() -> None:
    """The child: try after try, each with a line before it, and a line where it went wrong."""
    module, folder, first, last, seed = sys.argv[1:]
    attack = importlib.import_module(f"attacks.{module}")
    for number in range(int(first), int(last)):
        print(f"try {number}", flush=True)
        try:
            why = attack.attack(Path(folder), number, int(seed))
        except Exception:  # a traceback in front of a user is one of the things looked for
            why = " | ".join(traceback.format_exc().strip().splitlines()[-5:])
        if why:
            print(f"fail {module} {number}: {' '.join(why.split())}", flush=True)


if __name__ == "__main__":
    main()
