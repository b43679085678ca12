"""The run folder: what a run was told, what it found, and the mark that it is whole.

`settings.json` is there at once; every other file is written aside, fsynced and renamed; `manifest.json` comes last, so that its existence means that the
rest is whole. Half-done work lies in `checkpoints/` until then. Readers trust only the manifest.
"""

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tfxfer.cache import default_folder, sync_folder
from tfxfer.errors import RunError

SAME = ("recipe", "data", "backbone", "head", "seed")  # a resumed run must agree in these
PACKAGES = ("tfxfer", "tensorflow", "keras", "tensorflow-hub", "numpy", "scikit-learn")


class Run:
    """The folder of a run that is being written, and what every recipe has.

    `out`, `resume` and `overwrite` say where; the others are options of every recipe, which rooms take as arguments.
    """

    def __init__(
        self,
        out: Annotated[Path | None, "The run's folder; runs/<recipe>-<number> by default."] = None,
        *,
        recipe: str = "run",
        resume: Annotated[bool, "Go on with the run in --out where it stopped."] = False,
        overwrite: Annotated[bool, "Replace the run in --out."] = False,
        seed: Annotated[int, "Of splits, folds, weights and shuffling."] = 0,
        cache: Annotated[str | None, "Folder that keeps features, or off; $TFXFER_CACHE_DIR or ~/.cache/tfxfer by default."] = None,
        engine: Annotated[Literal["tensorflow", "openvino"], "What computes features."] = "tensorflow",
        engine_precision: Annotated[Literal["float32", "bf16"], "Of the engine; bf16 needs openvino and a CPU that has it."] = "float32",
        batch_size: Annotated[int, "Images (or features) at a time."] = 32,
        skip_bad_images: Annotated[bool, "Leave out files that can't be decoded, and list them."] = False,
        image_size: Annotated[int | None, "Height and width in pixels, where the backbone fixes none."] = None,
        value_range: Annotated[str | None, "LOW,HIGH of the pixels that the backbone expects, where the catalog doesn't know it."] = None,
        data_dir: Annotated[Path | None, "Where TensorFlow Datasets keeps its files."] = None,
        trust: Annotated[bool, "Also read a SavedModel that can reach files, Python or the network."] = False,
        options: dict[str, Any] | None = None,
        given: Iterable[str] = (),
    ):
        self.recipe, self.seed, self.engine, self.engine_precision, self.batch_size = recipe, seed, engine, engine_precision, batch_size
        self.skip_bad_images, self.image_size, self.data_dir, self.trust, self.cache = skip_bad_images, image_size, data_dir, trust, cache
        self.value_range = pair(value_range)
        house = {"seed": seed, "cache": cache, "engine": engine, "engine_precision": engine_precision, "batch_size": batch_size}
        house |= {"skip_bad_images": skip_bad_images, "image_size": image_size, "value_range": value_range, "data_dir": data_dir, "trust": trust}
        chosen = {"recipe": recipe, **(options or {}), **house}
        given = {*given, "recipe"}
        self.settings = {name: {"value": plain(value), "origin": "given" if name in given else "default"} for name, value in chosen.items()}
        self.folder = Path(out) if out is not None else numbered(recipe)
        self.finished = False
        self.before = self._begin(resume, overwrite, given)
        self.record(command=os.environ.get("TFXFER_COMMAND"), started=time.strftime("%Y-%m-%dT%H:%M:%S%z"), versions=versions())

    # --- beginning ---

    def _begin(self, resume: bool, overwrite: bool, given: set[str]) -> dict[str, Any]:
        if resume and overwrite:
            raise RunError("--resume goes on with a run and --overwrite replaces it; choose one.")
        there = self._contents()
        if there and overwrite:
            if "settings.json" not in there:
                raise RunError(f"{self.folder} is not a run (found: {', '.join(there[:5])}); --overwrite replaces runs only. Choose another --out.")
            with self._explained():
                shutil.rmtree(self.folder)
        elif there and not resume:
            raise RunError(f"{self.folder} is not empty. Go on with --resume, replace it with --overwrite, or choose another --out.")
        with self._explained():
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            self.lock = locked(self.folder / "checkpoints" / "lock")
        return self._resumed(given) if there and resume else {}

    def _contents(self) -> list[str]:
        with self._explained():
            return sorted(p.name for p in self.folder.iterdir() if p.name != "checkpoints") if self.folder.exists() else []

    def _resumed(self, given: set[str]) -> dict[str, Any]:
        before = read_json(self.folder / "settings.json")
        self.finished = (self.folder / "manifest.json").exists()
        for name, new in self.settings.items():
            old = before.get(name)
            if old is None or old["value"] == new["value"]:
                continue
            if name in SAME:
                raise RunError(f"{self.folder} was begun with {name}={old['value']!r}; received {new['value']!r}. Resume it with the same, or choose another --out.")
            if name in given:
                print(f"--{name.replace('_', '-')} {new['value']} is ignored: the run goes on with {old['value']}")
            self.settings[name] = old
            if hasattr(self, name):
                setattr(self, name, pair(old["value"]) if name == "value_range" else old["value"])
        return before

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.folder} can't be written: {error.strerror or error}. Choose another folder with --out.") from error

    # --- writing ---

    @property
    def cache_folder(self) -> Path:
        """Where features are kept: --cache, else the default; for `--cache off` inside the run, until it is finished."""
        return self.folder / "checkpoints" / "cache" if self.cache == "off" else Path(self.cache).expanduser() if self.cache else default_folder()

    def record(self, **found: Any) -> None:
        """Keep what was derived, such as fingerprints; a resumed run must find the same fingerprints again."""
        for name, value in found.items():
            old = self.before.get(name, {}).get("value") if name.endswith("_fingerprint") else None
            if old is not None and old != plain(value):
                raise RunError(f"{self.folder} was begun with other {name.removesuffix('_fingerprint')} than there is now. Choose another --out.")
            self.settings[name] = {"value": plain(value), "origin": "derived"}
        if not self.finished:
            self.write_json("settings.json", self.settings)

    def say(self, *lines: str) -> None:
        """Print for whoever watches."""
        for line in lines:
            print(line, flush=True)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Record how many seconds the block took."""
        began = time.monotonic()
        yield
        seconds = self.settings.get("seconds", {}).get("value", {})
        self.record(seconds={**seconds, what: round(time.monotonic() - began, 3)})

    def write(self, name: str, writer: Callable[[str], Any]) -> Path:
        """`writer(path)` writes aside; the file then appears whole under its name."""
        path = self.folder / name
        aside = self.folder / "checkpoints" / f"new-{name}"
        with self._explained():
            try:
                writer(str(aside))
                with open(aside, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(aside, path)
                sync_folder(self.folder)
            finally:
                aside.unlink(missing_ok=True)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """UTF-8."""
        return self.write(name, lambda path: Path(path).write_text(text, "utf-8", "surrogateescape", "\n"))

    def write_json(self, name: str, value: Any) -> Path:
        """Indented, for people."""
        return self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_csv(self, name: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
        """With a header line."""

        def writer(path: str) -> None:
            with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                out = csv.writer(file, lineterminator="\n")
                out.writerow(header)
                out.writerows(rows)

        return self.write(name, writer)

    def finish(self) -> None:
        """Remove half-done work, then write the manifest: the run is whole."""
        files = {p.name: {"bytes": p.stat().st_size, "sha256": digest(p)} for p in sorted(self.folder.iterdir()) if p.is_file()}
        self.write_json("manifest.json", files)
        self.finished = True
        self.close()
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder."""
        self.lock.close()


class Finished:
    """A finished run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def settings(self) -> dict[str, Any]:
        """Every setting: {"value", "origin"}."""
        return read_json(self.folder / "settings.json")

    def metrics(self) -> dict[str, Any]:
        """The figures."""
        return read_json(self.folder / "metrics.json")

    def classes(self) -> list[str]:
        """Names in the order of the model's outputs."""
        return (self.folder / "labels.txt").read_text("utf-8").splitlines()


def open_run(folder: str | os.PathLike) -> Finished:
    """A finished run.

    Raises:
        RunError: there is no run, it is not finished, or a file is missing or was changed.
    """
    folder = Path(folder)
    if not (folder / "settings.json").exists():
        raise RunError(f"{folder} is not a run's folder: it has no settings.json. `tfxfer run frozen` makes one.")
    if not (folder / "manifest.json").exists():
        raise RunError(f"{folder} is not finished. Go on with: tfxfer run {read_json(folder / 'settings.json')['recipe']['value']} --out {folder} --resume")
    for name, expected in read_json(folder / "manifest.json").items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{folder} lacks {name}, which its manifest lists. Run it again.")
        if path.stat().st_size != expected["bytes"] or digest(path) != expected["sha256"]:
            raise RunError(f"{path} is not the file that the run wrote: it was changed or damaged. Run it again.")
    return Finished(folder)


def numbered(recipe: str) -> Path:
    """The first free `runs/<recipe>-<number>`, made at once so that nobody else takes it."""
    number = 1
    while True:
        folder = Path("runs") / f"{recipe}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}. Choose a folder with --out.") from error


def locked(path: Path) -> sqlite3.Connection:
    """A lock that a killed process lets go of, on every system."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("begin exclusive")
    except sqlite3.OperationalError as error:
        connection.close()
        raise RunError(f"{path.parent.parent} is being written by another process ({error}). Wait for it, or choose another --out.") from error
    return connection


def pair(text: str | None) -> tuple[float, float] | None:
    """LOW,HIGH as numbers."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise RunError(f"--value-range: expected LOW,HIGH such as 0,1 or -1,1; received {text!r}.") from error
    return low, high


def plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | dict | None) else str(value)


def read_json(path: Path) -> Any:
    """A JSON file of a run."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}). Is it a run's folder?") from error


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
