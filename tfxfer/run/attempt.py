"""Parts that a finished run can do without, such as its map.

Where such a part fails, the run says so and goes on. This is the only module that catches every
exception. Nothing is lost: the run's `failures.json` keeps what failed, why, and the traceback; the
report and the terminal have a line for each failure. Only the computation of a part is protected.
Its file is written outside, so that a full disk still stops the run with its own error.
"""

import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tfxfer.distribute.preemption import Preempted
from tfxfer.errors import RunError
from tfxfer.run import Run, read_json
from tfxfer.safety.names import one_line, printable

FILE = "failures.json"
LENGTH = 300  # characters of a reason that are shown; the traceback has all of them
Made = TypeVar("Made")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Failure:
    """What could not be made, why in one line, and the lines of the traceback."""

    what: str
    why: str
    traceback: list[str]

    def __str__(self) -> str:
        return f"{self.what} could not be made: {self.why}"


def attempt(what: str, make: Callable[[], Made]) -> Made | Failure:
    """Call `make` and return its result, or a `Failure` where it raises an exception.

    SIGTERM and Ctrl-C still end the process.
    """
    try:
        return make()
    except Preempted:
        raise
    except Exception as error:  # any kind, since the results themselves exist already
        reason = one_line(" ".join(f"{type(error).__name__}: {error}".split()))
        lines = printable("".join(traceback.format_exception(error))).splitlines()
        shown = reason if len(reason) <= LENGTH else f"{reason[:LENGTH]}..."
        return Failure(what, shown, lines)


def optional(run: Run, what: str, make: Callable[[], Made]) -> Made | None:
    """Return the result of `make`; where it fails, print and save the failure and return None."""
    return keep(run, what, attempt(what, make))


def several(run: Run, what: str, makers: Mapping[Key, Callable[[], Made]]) -> dict[Key, Made]:
    """Make many small parts, and return those that succeed; one line says how many failed."""
    results = {key: attempt(what, make) for key, make in makers.items()}
    failed = [made for made in results.values() if isinstance(made, Failure)]
    first: Failure | None = None
    if failed:
        why = f"{len(failed):,} of {len(results):,}, the first by {failed[0].why}"
        first = Failure(what, why, failed[0].traceback)
    note(run, what, first)
    return {key: made for key, made in results.items() if not isinstance(made, Failure)}


def keep(run: Run, what: str, made: Made | Failure) -> Made | None:
    """Return what `attempt` returned; of a failure, print and save it and return None.

    Raises:
        RunError: the folder can't be written.
    """
    failure = made if isinstance(made, Failure) else None
    note(run, what, failure)
    return None if isinstance(made, Failure) else made


def note(run: Run, what: str, failure: Failure | None) -> None:
    """Save a failure in the run's folder and print it.

    Where a resumed run succeeds in making a part, the earlier failure of that part is removed.

    Raises:
        RunError: the folder can't be written.
    """
    before = kept(run.folder)
    others = [failure for failure in before if failure.what != what]
    if failure is not None:
        run.say(str(failure))
        others.append(failure)
    if others != before:
        run.write_json(FILE, [asdict(failure) for failure in others])


def failures(folder: Path) -> list[str]:
    """List what a run could not make, one sentence for each part.

    Raises:
        RunError: the file is damaged.
    """
    return [str(failure) for failure in kept(folder)]


def kept(folder: Path) -> list[Failure]:
    """Read the failures in a run's folder; raises RunError where the file is damaged."""
    path = folder / FILE
    notes = read_json(path) if path.exists() else []
    try:
        return [Failure(str(one["what"]), str(one["why"]), list(one["traceback"])) for one in notes]
    except (TypeError, KeyError, IndexError) as error:
        raise RunError(
            f"{path} holds no list of failures. Run it again with --overwrite."
        ) from error
