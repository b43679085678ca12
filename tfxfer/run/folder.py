"""The files of a run's folder: how they are written, and which of them are a run's own.

Every file is written under a temporary name, fsynced and renamed; `settings.json` comes first, and
`manifest.json` is written last, so that its existence means that the rest is complete.
Unfinished work is in `checkpoints/` until then. Readers trust only the manifest.

A person may keep other files in the folder: only what a run wrote is ever removed or listed in the
manifest.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfxfer import files
from tfxfer.cache import remove_cache
from tfxfer.errors import RunError
from tfxfer.files import appear, is_plain_name, read_regular, remove_named
from tfxfer.limits import MOST_JSON
from tfxfer.run.settings import as_text
from tfxfer.safety.names import csv_cell
from tfxfer.safety.ours import is_signed

# Files that recipes write. They are known even if a run was killed before it could list them.
WRITTEN = (
    "labels.txt",
    "history.csv",
    "metrics.json",
    "doubt.npz",
    "predictions.csv",
    "probabilities.npz",
    "model.keras",
    "gaussian.npz",
    "statistics.npz",
    "label_errors.csv",
    "thumbnails.zip",
    "review.json",
    "failures.json",
)
EVENTS = "logs/events*"  # files of TensorBoard
# Files in checkpoints/, besides files that are being written and the cache of --cache off.
HALF_DONE = ("lock", "lock-journal", "written", "tuning/activations.json", "tuning/new")
STATE = re.compile(r"state-\d{10}\.npz|new")
# These are made from the other files, so a person may edit or lose them: `tfxfer report` makes them
# again.
FOR_PEOPLE = ("report.html", "report.json", "MODEL_CARD.md")


class Files:
    """The files of a run that is being written.

    written: the names of the files that the run has written.
    """

    def __init__(self, path: Path):
        self.path = path
        self.written: set[str] = set()
        self.lock: sqlite3.Connection | None = None

    def take(self) -> None:
        """Make the folder and lock it.

        Raises:
            RunError: it can't be written, or another process writes it.
        """
        before = self.contents()
        with explained(self.path):
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.lock = lock_folder(self.path / "checkpoints" / "lock")
        if self.contents() != before:
            raise RunError(
                f"{self.path} is being written by another process. Wait for it, "
                "or choose another --out."
            )

    def contents(self) -> list[str]:
        """Return the names in the folder, without our own checkpoints/.

        A run that was killed before it wrote its first file leaves nothing else.
        """
        with explained(self.path):
            names = sorted(path.name for path in self.path.iterdir()) if self.path.exists() else []
            ours = (
                "settings.json" in names
                or "checkpoints" not in names
                or all(
                    path.name in ("lock", "lock-journal", "written", "new-settings.json")
                    for path in (self.path / "checkpoints").iterdir()
                )
            )
        return [name for name in names if name != "checkpoints" or not ours]

    def clear(self) -> None:
        """Remove the old run, beginning with its manifest.

        Its settings.json stays until ours replaces it, so that the folder is still recognised as a
        run's folder if this process is killed.
        """
        with explained(self.path):
            names = written_in(self.path) - {"settings.json", "manifest.json"}
            remove_named(self.path, ["manifest.json"])
            remove_named(self.path, sorted(names))
            remove_half_done(self.path, but=("lock", "lock-journal"))

    def write(self, name: str, writer: Callable[[str], Any]) -> Path:
        """Let `writer(path)` write a temporary file, which then appears whole under its name."""
        path = self.path / name
        aside = self.path / "checkpoints" / aside_of(name)
        with explained(self.path):
            if name not in self.written:
                self.written.add(name)
                with open(self.path / "checkpoints" / "written", "a", encoding="utf-8") as file:
                    file.write(json.dumps(name) + "\n")
            appear(path, aside, writer)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """Write a text as UTF-8."""
        return self.write(
            name, lambda path: Path(path).write_text(text, "utf-8", "surrogateescape", "\n")
        )

    def write_json(self, name: str, value: Any) -> Path:
        """Write a value as JSON, indented for people."""
        return self.write_text(name, as_text(value))

    def write_csv(self, name: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
        """Write rows as CSV with a header line.

        A text that a spreadsheet would run as a formula gets a quote before it.
        """

        def writer(path: str) -> None:
            with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                out = csv.writer(file, lineterminator="\n")
                out.writerow(map(csv_cell, header))
                for row in rows:
                    out.writerow(
                        [csv_cell(cell) if isinstance(cell, str) else cell for cell in row]
                    )

        return self.write(name, writer)

    def abandon(self) -> None:
        """Remove the folder of a run that failed before it had saved anything.

        The next try can then use the folder, and `--resume` never takes it for a run to go on with.
        """
        self.close()
        done = [
            path
            for path in (self.path / "checkpoints").rglob("*")
            if path.is_file() and not path.name.startswith(("lock", "written"))
        ]
        names = {path.name for path in self.path.iterdir()}
        if not done and names <= {"settings.json", "checkpoints"}:
            remove_half_done(self.path)
            remove_named(self.path, ["settings.json"])
            with contextlib.suppress(OSError):  # it holds an empty folder that a person made
                self.path.rmdir()

    def finish(self) -> None:
        """Write the manifest, which marks the run as complete, and remove unfinished work."""
        events = (path.relative_to(self.path).as_posix() for path in self.path.glob(EVENTS))
        whole = [
            name
            for name in sorted({*self.written, *events} - {"manifest.json"})
            if (self.path / name).is_file()
        ]
        self.write_json("manifest.json", {name: listed(self.path / name) for name in whole})
        self.close()
        with contextlib.suppress(OSError):  # files that can't be removed do no harm
            remove_half_done(self.path)

    def close(self) -> None:
        """Unlock the folder."""
        if self.lock is not None:
            self.lock.close()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the folder."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder} can't be written: {error.strerror or error}. "
            "Choose another folder with --out."
        ) from error


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the files of a finished run: name to {"bytes", "sha256"}.

    Raises:
        RunError: the manifest can't be read, or names something outside of the folder.
    """
    path = folder / "manifest.json"
    manifest = read_json(path)
    whole = isinstance(manifest, dict) and all(
        isinstance(facts, dict)
        and isinstance(facts.get("bytes"), int)
        and isinstance(facts.get("sha256"), str)
        for facts in manifest.values()
    )
    if not whole:
        raise RunError(
            f"{path} is damaged: expected the size and the SHA-256 of each file. "
            "Run it again with --overwrite."
        )
    if odd := [name for name in manifest if not is_plain_name(name)]:
        raise RunError(
            f"{path} lists {odd[0]!r}, which can't be a file of a run. Run it again with "
            "--overwrite."
        )
    return manifest


def has_begun(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of the run in a folder.

    Raises:
        RunError: the folder holds no run. This protects other folders from being replaced.
    """
    if not os.path.lexists(folder):
        raise RunError(
            f"{folder} does not exist. Expected the folder of a run; `tfxfer run frozen` makes one."
        )
    if not (folder / "settings.json").is_file():
        raise RunError(
            f"{folder} is not a run's folder: it has no settings.json. "
            "`tfxfer run frozen` makes one."
        )
    settings = read_json(folder / "settings.json")
    if (
        not isinstance(settings, dict)
        or not all(
            isinstance(setting, dict) and {"value", "origin"} <= setting.keys()
            for setting in settings.values()
        )
        or not isinstance(settings.get("recipe", {}).get("value"), str)
        or not isinstance(settings.get("started", {"value": ""})["value"], str)
    ):
        raise RunError(
            f"{folder} is not a run's folder: its settings.json is something else. "
            "Choose another folder."
        )
    return settings


def signed_part(folder: Path, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is signed: all settings, and the path of the folder.

    A folder that was copied by hand therefore has no valid signature.
    """
    rest = {name: setting for name, setting in settings.items() if name != "signature"}
    return {"folder": os.path.realpath(folder), "settings": rest}


def is_own(folder: Path, settings: dict[str, dict[str, Any]]) -> bool:
    """Whether this user wrote these settings, on this machine and under this path."""
    signature = settings.get("signature", {}).get("value")
    return is_signed(signed_part(folder, settings), signature)


def check_links(folder: Path) -> None:
    """Refuse links and devices in the run's folder, since they lead to files of others.

    Raises:
        RunError: there is one; the message names the first.
    """
    below = (folder / "checkpoints").rglob("*") if not (folder / "checkpoints").is_symlink() else ()
    for path in (folder / "checkpoints", folder / "logs", *below):
        if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
            raise RunError(f"{path} is a link or a device; expected a run's own files. Remove it.")


def aside_of(name: str) -> str:
    """Return the name that a file has in checkpoints/ until it is complete."""
    return f"new-{name.replace('/', '-')}"


def noted(folder: Path) -> set[str]:
    """Return the names of files that an unfinished run has noted as written so far."""
    path = folder / "checkpoints" / "written"
    if not path.is_file():
        return set()
    names = set()
    try:
        for line in read_regular(path, MOST_JSON).decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a kill left it incomplete
                name = json.loads(line)
                if is_plain_name(name):
                    names.add(name)
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror or error}.") from error
    return names


def written_in(folder: Path) -> set[str]:
    """Return the names of files that a run wrote, finished or not; a person made all others."""
    names = {*noted(folder), *FOR_PEOPLE, "settings.json", "manifest.json"}
    try:
        names |= read_manifest(folder).keys()
    except RunError:  # there is none, or it is damaged
        names |= set(WRITTEN)
    events = (path for path in folder.glob(EVENTS) if path.is_file())
    return names | {path.relative_to(folder).as_posix() for path in events}


def remove_half_done(folder: Path, but: Iterable[str] = ()) -> None:
    """Remove what a run keeps in checkpoints/, and that folder if nothing else is in it."""
    work = folder / "checkpoints"
    if work.is_symlink() or not work.is_dir():
        return
    asides = {aside_of(name) for name in written_in(folder)}
    states = [
        path.relative_to(work).as_posix()
        for path in work.glob("tuning/batch-*/**/*")
        if STATE.fullmatch(path.name)
    ]
    remove_cache(work / "cache")
    remove_named(work, [*states, *asides, *(name for name in HALF_DONE if name not in but)])
    for path in sorted(work.glob("tuning/**/"), key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # it holds a person's files
            path.rmdir()
    with contextlib.suppress(OSError):
        work.rmdir()


def numbered(recipe: str, latest: bool) -> Path:
    """Make the first free `runs/<recipe>-<number>`, or return the latest one that exists.

    A free one is made at once, so that no other process takes it.
    """
    numbers = [
        int(path.name.removeprefix(f"{recipe}-"))
        for path in Path("runs").glob("*")
        if path.name.removeprefix(f"{recipe}-").isdecimal()
    ]
    if latest and numbers:
        return Path("runs") / f"{recipe}-{max(numbers)}"
    number = 1
    while True:
        folder = Path("runs") / f"{recipe}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(
                f"{folder} can't be written: {error.strerror}. Choose a folder with --out."
            ) from error


def lock_folder(path: Path) -> sqlite3.Connection:
    """Lock a folder; the lock ends when its process is killed, on every system."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("begin exclusive")
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise RunError(
                f"{path.parent.parent} is being written by another process. Wait for it, "
                "or choose another --out."
            ) from error
        raise RunError(
            f"{path.parent.parent} can't be written: {error}. Choose another folder with --out."
        ) from error
    return connection


def read_labels(path: Path) -> list[str]:
    """Read labels.txt: the classes, one on each line.

    Raises:
        RunError: the file can't be read, or names no class, or one class twice.
    """
    try:
        text = read_regular(path, MOST_JSON).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}). Is it a run's folder?") from error
    names = text.split("\n")[:-1]
    if not names or len(set(names)) < len(names):
        raise RunError(f"{path} has {len(names)} lines; expected each class once. Run it again.")
    return names


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; raises RunError where it can't be read."""
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}). Is it a run's folder?") from error


def rewrite(path: Path, text: str) -> None:
    """Replace a file of a finished run by a text in UTF-8."""
    appear(
        path,
        path.with_name(f".new-{path.name}"),
        lambda aside: Path(aside).write_text(text, "utf-8", "surrogateescape", "\n"),
    )


def listed(path: Path) -> dict[str, Any]:
    """Return the facts about a file that the manifest lists."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
