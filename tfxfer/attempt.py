"""Parts that a finished run can do without, such as its map: where one fails, the run says so and goes on.

The only place that catches every exception. Nothing is lost: the run's `failures.json` keeps what
failed, why, and the traceback, the report has a line for each, and so has the terminal. A part is
computed within and written outside, so that a full disk still stops the run with its own error.
"""

import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tfxfer.errors import RunError
from tfxfer.names import one_line, printable
from tfxfer.preemption import Preempted
from tfxfer.run import Run, read_json

FILE = "failures.json"
LENGTH = 300  # characters of a reason that are shown; the traceback has all
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
    """What `make` makes, or why it could not. A SIGTERM and Ctrl-C still end the process."""
    try:
        return make()
    except Preempted:
        raise
    except Exception as error:  # whatever it is: the results are there already
        reason = one_line(" ".join(f"{type(error).__name__}: {error}".split()))
        lines = printable("".join(traceback.format_exception(error))).splitlines()
        shown = reason if len(reason) <= LENGTH else f"{reason[:LENGTH]}..."
        return Failure(what, shown, lines)


def optional(run: Run, what: str, make: Callable[[], Made]) -> Made | None:
    """What `make` makes; None where it fails, which the run says and keeps."""
    made = attempt(what, make)
    keep(run, what, made)
    return None if isinstance(made, Failure) else made


def several(run: Run, what: str, makers: Mapping[Key, Callable[[], Made]]) -> dict[Key, Made]:
    """Those of many small parts that can be made; one line tells how many could not."""
    found = {key: attempt(what, make) for key, make in makers.items()}
    failed = [made for made in found.values() if isinstance(made, Failure)]
    first: Failure | None = None
    if failed:
        why = f"{len(failed):,} of {len(found):,}, the first by {failed[0].why}"
        first = Failure(what, why, failed[0].traceback)
    keep(run, what, first)
    return {key: made for key, made in found.items() if not isinstance(made, Failure)}


def keep(run: Run, what: str, made: object) -> None:
    """Keep a failure in the run's folder and say it; forget one of a run that was resumed, where the part is made now.

    Raises:
        RunError: the folder can't be written.
    """
    before = kept(run.folder)
    others = [failure for failure in before if failure.what != what]
    if isinstance(made, Failure):
        run.say(str(made))
        others.append(made)
    if others != before:
        run.write_json(FILE, [asdict(failure) for failure in others])


def failures(folder: Path) -> list[str]:
    """What a run could not make, a sentence each.

    Raises:
        RunError: the file is damaged.
    """
    return [str(failure) for failure in kept(folder)]


def kept(folder: Path) -> list[Failure]:
    """The failures in a run's folder; RunError where the file is damaged."""
    path = folder / FILE
    found = read_json(path) if path.exists() else []
    try:
        return [Failure(str(one["what"]), str(one["why"]), list(one["traceback"])) for one in found]
    except (TypeError, KeyError, IndexError) as error:
        raise RunError(
            f"{path} holds no list of failures. Run it again with --overwrite."
        ) from error
