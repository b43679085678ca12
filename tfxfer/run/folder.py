"""The folder of a run: its settings, its results, and the manifest that says that it is complete.

`settings.json` is written first. Every other file is written under a temporary name, fsynced and
renamed. `manifest.json` is written last, so that its existence means that the rest is complete.
Unfinished work is in `checkpoints/` until then. Readers trust only the manifest.

A person may keep other files in the folder: only what a run wrote is ever removed or listed in the
manifest.
"""

import contextlib
import csv
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tfxfer import files
from tfxfer.cache import default_folder, remove_cache
from tfxfer.errors import DistributeError, RunError
from tfxfer.files import appear, is_plain_name, read_regular, remove_named
from tfxfer.limits import MOST_JSON
from tfxfer.process.program import command
from tfxfer.safety.names import csv_cell, one_line, printable
from tfxfer.safety.ours import is_signed, sign

UNNAMED = "run"  # the recipe of a run until its recipe is known
SAME = ("recipe", "data", "backbone", "head", "seed")  # a resumed run must have the same values
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
HERE = ("device", "strategy", "replicas")  # options of this machine; a resumed run may change them
CLUSTERS = ("TF_CONFIG", "SLURM_STEP_NUM_TASKS")  # what `distribute.cluster` looks at
PACKAGES = ("tfxfer", "tensorflow", "keras", "tensorflow-hub", "numpy", "scikit-learn")


class Run:
    """The folder of a run that is being written, and the options that every recipe has.

    `out`, `resume` and `overwrite` choose the folder. The others are the options that every recipe
    has; a recipe passes them on, such as `seed=run.seed`.

    Args:
        recipe: name, or path of the file, as given. In Python the recipe itself notes it.
        options: the recipe's own options, name to value.
        given: names of the options that the user chose; the others are defaults.

    Raises:
        RunError: the folder can't be written, is in use, is not empty, or holds a run that was
            begun with other settings, or by somebody else.
    """

    def __init__(
        self,
        out: Annotated[
            Path | None, "Folder for the results; by default a new one, runs/<recipe>-<number>."
        ] = None,
        *,
        recipe: str | None = None,
        resume: Annotated[
            bool,
            "Continue the run in --out where it stopped; without --out, the latest run.",
        ] = False,
        overwrite: Annotated[bool, "Delete the old run in --out and start again."] = False,
        seed: Annotated[
            int,
            "Random seed: for the data split, cross-validation, initial weights and shuffling.",
            range(2**32),
        ] = 0,
        cache: Annotated[
            str | None,
            "Folder that keeps computed features for later runs; off keeps them only until the run "
            "is finished. By default $TFXFER_CACHE_DIR or ~/.cache/tfxfer.",
        ] = None,
        engine: Annotated[
            Literal["tensorflow", "openvino"],
            "Library that runs the pretrained network; openvino can be faster on a CPU.",
        ] = "tensorflow",
        engine_precision: Annotated[
            Literal["float32", "bf16"],
            "Number format in which the engine computes; bf16 is faster, and needs --engine "
            "openvino and a CPU with bfloat16.",
        ] = "float32",
        batch_size: Annotated[
            int, "Number of images that go through the network at a time.", range(1, 2**20)
        ] = 32,
        device: Annotated[
            Literal["auto", "cpu", "gpu", "tpu"],
            "Hardware to use; tfxfer devices lists what this machine has. auto: a TPU or a GPU if "
            "there is one, otherwise the CPU.",
        ] = "auto",
        strategy: Annotated[
            Literal["auto", "one", "mirrored", "multiworker", "tpu"],
            "How devices share the work. one: one device. mirrored: several GPUs or CPU cores of "
            "this machine. multiworker: several processes (see tfxfer launch). tpu: a TPU. auto: "
            "all workers, or a TPU or all GPUs if there are any, otherwise one device.",
        ] = "auto",
        replicas: Annotated[
            int | None,
            "Number of devices for --strategy mirrored; by default all GPUs, or one for each "
            "CPU core.",
            range(1, 2**10),
        ] = None,
        precision: Annotated[
            Literal["float32", "mixed"],
            "Number format in training; mixed (bfloat16) is faster on a GPU or a TPU.",
        ] = "float32",
        global_batch: Annotated[
            int | None,
            "Number of images in one training step on all devices together; by default "
            "--batch-size.",
            range(1, 2**20),
        ] = None,
        skip_bad_images: Annotated[
            bool, "Leave out image files that can't be read, and list them, instead of stopping."
        ] = False,
        image_size: Annotated[
            int | None,
            "Input size in pixels, for networks that accept any size.",
            range(1, 2**13),
        ] = None,
        value_range: Annotated[
            tuple[float, float] | None,
            "Range of pixel values that the network expects, such as 0,1; needed only if tfxfer "
            "can't find it out.",
        ] = None,
        data_dir: Annotated[
            Path | None, "Folder where TensorFlow Datasets keeps its files, for --data tfds:NAME."
        ] = None,
        trust: Annotated[
            bool,
            "Load the network even if it contains operations that can read files, run code or use "
            "the internet. Only if you trust its source.",
        ] = False,
        options: dict[str, Any] | None = None,
        given: Iterable[str] = (),
    ):
        house: dict[str, Any] = {
            "seed": seed,
            "cache": cache,
            "engine": engine,
            "engine_precision": engine_precision,
            "batch_size": batch_size,
            "trust": trust,
        }
        house |= {
            "device": device,
            "strategy": strategy,
            "replicas": replicas,
            "precision": precision,
            "global_batch": global_batch,
        }
        house |= {
            "skip_bad_images": skip_bad_images,
            "value_range": value_range,
            "data_dir": data_dir,
        }
        house["image_size"] = None if image_size is None else (image_size, image_size)
        parameters = inspect.signature(Run.__init__).parameters
        self.settings: dict[str, dict[str, Any]] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.written: set[str] = set()  # names of this run's files
        self.lock: sqlite3.Connection | None = None
        self.finished = False
        self.call: str | None = None  # how a program made the run, where it called no recipe itself
        given = set(given) | {
            name for name, value in house.items() if value != parameters[name].default
        }
        if recipe is None:
            recipe = UNNAMED
        else:
            given.add("recipe")
        self.choose({"recipe": recipe, **(options or {}), **house}, given)
        self.worker, self.workers = place_of(strategy)
        self._strategy: Any = None
        self._resume, self._overwrite = resume, overwrite
        if not self.is_main_worker:
            # `start` asks for the folder and settings of the main worker, called chief.
            self.folder = Path(out or "of the chief")
            self._attributes()
            return
        self.folder = (
            Path(out).expanduser() if out is not None else numbered(Path(recipe).stem, resume)
        )
        try:
            self._begin(resume, overwrite, given)
            self._attributes()
            self.record(
                **{
                    "resumed" if self.before else "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    "versions": versions(),
                }
            )
        except BaseException:
            self.close()
            raise

    def choose(self, options: dict[str, Any], given: Iterable[str]) -> None:
        """Note settings that are not noted yet, each with its origin."""
        for name, value in options.items():
            self.settings.setdefault(
                name, {"value": plain(value), "origin": "given" if name in given else "default"}
            )

    def begun_in_python(self) -> bool:
        """Whether a script or a notebook made the run, instead of the command line."""
        return "command" not in self.settings

    def note_call(self, recipe: str, chosen: dict[str, Any], module: str, function: str) -> None:
        """Note which recipe was called in Python, and how, so that the report can say it.

        Args:
            recipe: name of the recipe, or the path of its file.
            chosen: options that the caller chose.
            module: module of the recipe's function.
            function: name of the recipe's function.

        Raises:
            RunError: the folder holds a run of another recipe.
        """
        old = self.settings["recipe"]
        if old["origin"] == "default" and old["value"] == UNNAMED:
            self.settings["recipe"] = {"value": recipe, "origin": "given"}
            self._attributes()
        elif old["value"] != recipe and self.before:
            raise RunError(
                f"{self.folder} was begun with recipe {old['value']}; received {recipe}. Resume it "
                "with the same, or choose another folder."
            )
        if self.call is not None:
            self.record(call=self.call)
            return
        imports = ["import tfxfer"]
        if module != "__main__":
            imports.append(f"from {module} import {function}")
        own = [repr(str(self.folder))]
        own += [
            as_argument(name, setting["value"])
            for name, setting in self.settings.items()
            if setting["origin"] == "given" and name in OPTIONS
        ]
        words = [f"tfxfer.Run({', '.join(own)})", *(as_argument(*one) for one in chosen.items())]
        comments = [
            f"# {name}: {one_line(str(plain(value)))}"
            for name, value in chosen.items()
            if not is_simple(value)
        ]
        lines = [*imports, "", *comments, f"{function}({', '.join(words)})"]
        self.record(call="\n".join(lines))

    # --- several workers ---

    @property
    def is_main_worker(self) -> bool:
        """Whether this process writes the results: it is the only one, or the first of several."""
        return self.worker == 0

    @property
    def follows(self) -> bool:
        """The opposite of `is_main_worker`; recipes that were copied from 0.1.0 use it."""
        return not self.is_main_worker

    @property
    def strategy(self) -> Any:
        """The `tf.distribute` strategy of --device, --strategy and --replicas."""
        self.start()
        return self._strategy

    def start(self) -> None:
        """Make the strategy, once, before anything else of TensorFlow.

        Several workers wait for each other here, and take over the settings of the chief.

        Raises:
            DistributeError: there is no such device, or workers don't connect or don't fit
                together.
        """
        if self._strategy is not None:
            return
        device, name, replicas = (self.settings[option]["value"] for option in HERE)
        devices = room("distribute.devices")
        if self.settings["precision"]["value"] == "mixed":
            devices.require_mixed(devices.choose(name, device, replicas).device)
        self._strategy = devices.strategy(name, device=device, replicas=replicas)
        batch, count = self.settings["global_batch"]["value"], self._strategy.num_replicas_in_sync
        if batch is not None and batch < count:
            raise DistributeError(room("distribute.workers").explain_unshareable(batch, count))
        if self.workers == 1:
            return
        workers = room("distribute.workers")
        mine = {
            name: setting["value"]
            for name, setting in self.settings.items()
            if setting["origin"] != "derived" and name not in {*HERE, "cache"}
        }
        workers.agree(
            self._strategy,
            code=code(),
            recipe=json.dumps([self.settings["recipe"]["value"], sorted(mine)]),
        )
        if self._resume:  # a resumed run keeps the options that it was begun with
            trust = json.dumps(self.settings["trust"]["value"])
            workers.agree(self._strategy, **{"--trust": trust})
        else:
            workers.agree(
                self._strategy,
                **{
                    f"--{option.replace('_', '-')}": json.dumps(value)
                    for option, value in mine.items()
                },
            )
        theirs = workers.broadcast_from_chief(
            self._strategy, lambda: (self.settings, self.before, str(self.folder), self.finished)
        )
        if not self.is_main_worker:
            # Each worker reads graphs itself, so only its own command line can allow it to trust
            # them.
            trusted = self.settings["trust"]
            self.settings, self.before, self.finished = theirs[0], theirs[1], theirs[3]
            self.settings["trust"] = trusted
            self.folder = Path(theirs[2])
            self._attributes()

    # --- beginning ---

    def _begin(self, resume: bool, overwrite: bool, given: set[str]) -> None:
        if resume and overwrite:
            raise RunError("--resume goes on with a run and --overwrite replaces it; choose one.")
        there = self._contents()
        if there and not (resume or overwrite):
            raise RunError(
                f"{self.folder} is not empty. Go on with --resume, replace it with --overwrite, or "
                "choose another --out."
            )
        before = has_begun(self.folder) if there else {}
        check_links(self.folder)
        if resume and "manifest.json" in there:
            open_run(self.folder)
            self.finished = True
            self._go_on(before, given)
            return
        with self._explained():
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.lock = lock_folder(self.folder / "checkpoints" / "lock")
        if self._contents() != there:
            raise RunError(
                f"{self.folder} is being written by another process. Wait for it, "
                "or choose another --out."
            )
        if there and overwrite:
            self._clear()
        elif there:
            if not is_own(self.folder, before):
                before = self._said(before)
            self._go_on(before, given)
            self.written = noted(self.folder)

    def _contents(self) -> list[str]:
        """Return the names in the folder, without our own checkpoints/.

        A run that was killed before it wrote its first file leaves nothing else.
        """
        with self._explained():
            names = (
                sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
            )
            ours = (
                "settings.json" in names
                or "checkpoints" not in names
                or all(
                    path.name in ("lock", "lock-journal", "written", "new-settings.json")
                    for path in (self.folder / "checkpoints").iterdir()
                )
            )
        return [name for name in names if name != "checkpoints" or not ours]

    def _clear(self) -> None:
        """Remove the old run, beginning with its manifest.

        Its settings.json stays until ours replaces it, so that the folder is still recognised as a
        run's folder if this process is killed.
        """
        with self._explained():
            names = written_in(self.folder) - {"settings.json", "manifest.json"}
            remove_named(self.folder, ["manifest.json"])
            remove_named(self.folder, sorted(names))
            remove_half_done(self.folder, but=("lock", "lock-journal"))

    def _said(self, before: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the settings of a run that somebody else began, if the user gives the same now.

        Options are those of the command line. Fingerprints are kept, since they can do nothing but
        stop the run.

        Raises:
            RunError: the run would go on with a setting that the user did not give; the message has
                the command that gives it.
        """
        kept = {
            name: old
            for name, old in before.items()
            if name == "started" or name.endswith("_fingerprint")
        }
        differing = []
        for name, new in self.settings.items():
            old = before.get(name, new)
            ours = name in (*HERE, "trust", "recipe") or old["origin"] == "derived"
            if not ours and not same(old["value"], new["value"]):
                differing.append(f"--{name.replace('_', '-')} {as_words(old['value'])}")
            kept[name] = old if name == "recipe" else new
        if differing:
            options = [
                word
                for name, old in before.items()
                if name in self.settings and name not in (*HERE, "trust", "recipe")
                if old["origin"] == "given" or not same(old["value"], self.settings[name]["value"])
                for word in as_option(name, old["value"])
            ]
            said = again(str(self.settings["recipe"]["value"]), self.folder, *options)
            raise RunError(
                f"{self.folder} was not begun by you on this machine and under this path, or its "
                f"settings.json was edited. It would go on with {', '.join(differing)}, which you "
                f"did not give. If that is what you want, type: {said}. Otherwise choose another "
                "--out."
            )
        return kept

    def _go_on(self, before: dict[str, dict[str, Any]], given: set[str]) -> None:
        """Take over the settings of the run that was begun; refuse a run with others."""
        self.before = before
        for name, new in self.settings.items():
            # Whether a graph is trusted is never read from a file.
            old = new if name in (*HERE, "trust") else before.get(name, new)
            if old["origin"] == "derived" and name in ("image_size", "value_range"):
                # Nobody chose the value, so it is derived again.
                old = {"value": None, "origin": "default"}
            elif old["origin"] == "derived":
                old = new
            if name in given and not same(old["value"], new["value"]):
                if name in SAME:
                    raise RunError(
                        f"{self.folder} was begun with {name} {old['value']}; received "
                        f"{new['value']}. Resume it with the same, or choose another --out."
                    )
                line = (
                    f"--{name.replace('_', '-')} {new['value']} is ignored: "
                    f"the run goes on with {old['value']}"
                )
                print(one_line(line))
            self.settings[name] = old
        self.settings = {**before, **self.settings}

    def _attributes(self) -> None:
        value = {name: setting["value"] for name, setting in self.settings.items()}
        self.recipe: str = value["recipe"]
        self.seed: int = value["seed"]
        self.cache: str | None = value["cache"]
        self.engine: Literal["tensorflow", "openvino"] = value["engine"]
        self.engine_precision: Literal["float32", "bf16"] = value["engine_precision"]
        self.batch_size: int = value["batch_size"]
        self.precision: Literal["float32", "mixed"] = value["precision"]
        self.global_batch: int = value["global_batch"] or value["batch_size"]
        self.skip_bad_images: bool = value["skip_bad_images"]
        self.trust: bool = value["trust"]
        self.image_size: tuple[int, int] | None = value["image_size"] and tuple(value["image_size"])
        self.value_range: tuple[float, float] | None = value["value_range"] and tuple(
            value["value_range"]
        )
        self.data_dir: Path | None = value["data_dir"] and Path(value["data_dir"])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.folder} can't be written: {error.strerror or error}. "
                "Choose another folder with --out."
            ) from error

    # --- writing ---

    @property
    def cache_folder(self) -> Path:
        """The folder of the features: --cache, or the default one.

        With `--cache off` it is inside the run's folder, until the run is finished.
        """
        return (
            self.folder / "checkpoints" / "cache"
            if self.cache == "off"
            else Path(self.cache).expanduser()
            if self.cache
            else default_folder()
        )

    def record(self, **found: Any) -> None:
        """Add derived values, such as fingerprints, to the settings.

        Raises:
            RunError: a fingerprint differs from that of the run that is resumed.
        """
        if self.workers > 1 and (
            facts := {
                name: plain(value) for name, value in found.items() if name.endswith("_fingerprint")
            }
        ):
            room("distribute.workers").agree(self.strategy, **facts)
        for name, value in found.items():
            old = self.before.get(name, {}).get("value") if name.endswith("_fingerprint") else None
            if old is not None and old != plain(value):
                raise RunError(
                    f"the {name.removesuffix('_fingerprint')} has changed since {self.folder} was "
                    "begun. Choose another --out."
                )
            given = self.settings.get(name, {}).get("origin") == "given"
            self.settings[name] = {"value": plain(value), "origin": "given" if given else "derived"}
        if not self.finished and self.is_main_worker:
            self.settings.pop("signature", None)
            if signature := sign(signed_part(self.folder, self.settings)):
                self.settings["signature"] = {"value": signature, "origin": "derived"}
            self.write_json("settings.json", self.settings)

    def say(self, *lines: str) -> None:
        """Print lines for people, without characters that would control the terminal."""
        for line in lines:
            print(printable(line), flush=True)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Record how many seconds the block took."""
        began = time.monotonic()
        yield
        seconds = self.settings.get("seconds", {}).get("value", {})
        known = seconds if isinstance(seconds, dict) else {}
        self.record(seconds={**known, what: round(time.monotonic() - began, 3)})

    def write(self, name: str, writer: Callable[[str], Any]) -> Path:
        """Let `writer(path)` write a temporary file, which then appears whole under its name."""
        path = self.folder / name
        aside = self.folder / "checkpoints" / aside_of(name)
        with self._explained():
            if name not in self.written:
                self.written.add(name)
                with open(self.folder / "checkpoints" / "written", "a", encoding="utf-8") as file:
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
                out.writerow(header)
                for row in rows:
                    out.writerow(
                        [csv_cell(cell) if isinstance(cell, str) else cell for cell in row]
                    )

        return self.write(name, writer)

    def abandon(self) -> None:
        """Remove the folder of a run that failed before it had saved anything.

        The next try can then use the folder, and `--resume` never takes it for a run to go on with.
        """
        if not self.is_main_worker or self.before or self.finished or self._overwrite:
            return
        self.close()
        done = [
            path
            for path in (self.folder / "checkpoints").rglob("*")
            if path.is_file() and not path.name.startswith(("lock", "written"))
        ]
        if not done and {path.name for path in self.folder.iterdir()} <= {
            "settings.json",
            "checkpoints",
        }:
            remove_half_done(self.folder)
            remove_named(self.folder, ["settings.json"])
            with contextlib.suppress(OSError):  # it holds an empty folder that a person made
                self.folder.rmdir()

    def how_to_predict(self) -> str:
        """Return the command that uses the run, for its last line."""
        return f"Next: {command('predict', self.folder, 'photo.jpg')}"

    def meet(self) -> None:
        """Wait for the other workers, so that none ends while another one still needs it."""
        if self.workers > 1:
            room("distribute.workers").barrier(self.strategy)

    def finish(self) -> None:
        """Write the manifest, which marks the run as complete, and remove unfinished work."""
        events = (path.relative_to(self.folder).as_posix() for path in self.folder.glob(EVENTS))
        whole = [
            name
            for name in sorted({*self.written, *events} - {"manifest.json"})
            if (self.folder / name).is_file()
        ]
        self.write_json("manifest.json", {name: listed(self.folder / name) for name in whole})
        self.finished = True
        self.close()
        with contextlib.suppress(OSError):  # files that can't be removed do no harm
            remove_half_done(self.folder)

    def close(self) -> None:
        """Unlock the folder."""
        if self.lock is not None:
            self.lock.close()


# Options that every recipe has, besides those that choose the folder.
OPTIONS = set(inspect.signature(Run.__init__).parameters) - {
    "self",
    "out",
    "recipe",
    "resume",
    "overwrite",
    "options",
    "given",
}


class Finished:
    """A finished run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the path of a file of the run."""
        return self.folder / name

    def settings(self) -> dict[str, Any]:
        """Return every setting: its name to {"value", "origin"}."""
        return has_begun(self.folder)

    def setting(self, name: str, check: Callable[[Any], bool], expected: str) -> Any:
        """Return the value of a setting that is needed.

        Args:
            check: returns whether a value is allowed.
            expected: the allowed values, in words.

        Raises:
            RunError: the setting is missing, or has another value.
        """
        value = self.settings().get(name, {}).get("value")
        if not check(value):
            raise RunError(
                f"{self.path('settings.json')} has {name} {as_words(value)}; expected {expected}. "
                "Run it again."
            )
        return value

    def image_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        height, width = self.setting("image_size", is_size, "the height and the width in pixels")
        return height, width

    def value_range(self) -> tuple[float, float]:
        """Return the range of pixel values that the backbone expects."""
        low, high = self.setting("value_range", is_range, "two numbers, the smaller one first")
        return float(low), float(high)

    def is_own(self) -> bool:
        """Whether this user wrote its settings, on this machine and under this path."""
        return is_own(self.folder, self.settings())

    def metrics(self) -> dict[str, Any]:
        """Return the figures of metrics.json."""
        found = read_json(self.folder / "metrics.json")
        if not isinstance(found, dict):
            raise RunError(f"{self.path('metrics.json')} holds no figures. Run it again.")
        return found

    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of the model's outputs."""
        return read_labels(self.path("labels.txt"))

    def copy_to(self, folder: str | os.PathLike) -> "Finished":
        """Copy the run to a folder that is empty or does not exist; its manifest comes last.

        Raises:
            RunError: the folder holds something, or can't be written.
        """
        to = Path(folder).expanduser()
        manifest, settings = read_manifest(self.folder), self.settings()
        try:
            to.mkdir(parents=True, exist_ok=True)
            if any(to.iterdir()):
                raise RunError(f"{to} is not empty. Choose another folder.")
            for name in manifest:
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path(name), to / name)
            settings.pop("signature", None)
            if self.is_own() and (signature := sign(signed_part(to, settings))):
                settings["signature"] = {"value": signature, "origin": "derived"}
            rewrite(to / "settings.json", as_text(settings))
            manifest["settings.json"] = listed(to / "settings.json")
            rewrite(to / "manifest.json", as_text(dict(sorted(manifest.items()))))
        except OSError as error:
            raise RunError(f"{to} can't be written: {error.strerror or error}.") from error
        return Finished(to)

    def replace(self, texts: dict[str, str]) -> None:
        """Write some of the files of `FOR_PEOPLE` again, and list them in the manifest.

        A program that reads the run in between does not need any of them.
        """
        manifest = read_manifest(self.folder)
        try:
            for name, text in texts.items():
                rewrite(self.path(name), text)
                manifest[name] = listed(self.path(name))
            rewrite(self.folder / "manifest.json", as_text(dict(sorted(manifest.items()))))
        except OSError as error:
            raise RunError(f"{self.folder} can't be written: {error.strerror or error}.") from error


def open_run(folder: str | os.PathLike) -> Finished:
    """Open the folder of a finished run.

    Raises:
        RunError: there is no run, it is not finished, or a file is missing or was changed.
    """
    folder = Path(folder)
    settings = has_begun(folder)
    if not (folder / "manifest.json").exists():
        if "call" in settings and "command" not in settings:
            how = f"in Python, with the same call of tfxfer.Run({os.fspath(folder)!r}, resume=True)"
        else:
            how = f"with: {again(settings['recipe']['value'], folder)}"
        raise RunError(f"{folder} is not finished. Go on {how}")
    for name, expected in read_manifest(folder).items():
        path = folder / name
        if name in FOR_PEOPLE:
            continue
        if not path.is_file():
            raise RunError(
                f"{folder} lacks {name}, which its manifest lists. Run it again with --overwrite."
            )
        try:
            whole = listed(path) == expected
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror or error}.") from error
        if not whole:
            raise RunError(
                f"{path} is not the file that the run wrote: it was changed or damaged. Run it "
                "again with --overwrite."
            )
    return Finished(folder)


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the files of a finished run: name to {"bytes", "sha256"}.

    Raises:
        RunError: the manifest can't be read, or names something outside of the folder.
    """
    path = folder / "manifest.json"
    found = read_json(path)
    whole = isinstance(found, dict) and all(
        isinstance(facts, dict)
        and isinstance(facts.get("bytes"), int)
        and isinstance(facts.get("sha256"), str)
        for facts in found.values()
    )
    if not whole:
        raise RunError(
            f"{path} is damaged: expected the size and the SHA-256 of each file. "
            "Run it again with --overwrite."
        )
    if odd := [name for name in found if not is_plain_name(name)]:
        raise RunError(
            f"{path} lists {odd[0]!r}, which can't be a file of a run. Run it again with "
            "--overwrite."
        )
    return found


def has_begun(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of the run in a folder.

    Raises:
        RunError: there is no run, so that no other folder is ever taken for one, or replaced.
    """
    if not (folder / "settings.json").is_file():
        raise RunError(
            f"{folder} is not a run's folder: it has no settings.json. "
            "`tfxfer run frozen` makes one."
        )
    found = read_json(folder / "settings.json")
    if (
        not isinstance(found, dict)
        or not all(
            isinstance(setting, dict) and {"value", "origin"} <= setting.keys()
            for setting in found.values()
        )
        or not isinstance(found.get("recipe", {}).get("value"), str)
        or not isinstance(found.get("started", {"value": ""})["value"], str)
    ):
        raise RunError(
            f"{folder} is not a run's folder: its settings.json is something else. "
            "Choose another folder."
        )
    return found


def signed_part(folder: Path, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is signed: all settings, and the path of the folder.

    A copy of the folder is therefore not signed by anybody.
    """
    rest = {name: setting for name, setting in settings.items() if name != "signature"}
    return {"folder": os.path.realpath(folder), "settings": rest}


def is_own(folder: Path, settings: dict[str, dict[str, Any]]) -> bool:
    """Whether this user wrote these settings, on this machine and under this path."""
    signature = settings.get("signature", {}).get("value")
    return is_signed(signed_part(folder, settings), signature)


def again(recipe: str, folder: Path, *options: str) -> str:
    """Return the command that resumes a run."""
    return command("run", recipe, "--out", folder, *options, "--resume")


def as_words(value: Any) -> str:
    """Format a setting's value for a sentence, on one line."""
    return one_line(str(value))[:200]


def as_option(name: str, value: Any) -> list[str]:
    """Format an option as it is typed on the command line."""
    flag = "--" + name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if name == "image_size" and isinstance(value, list) and value:
        return [flag, str(value[0])]
    if isinstance(value, list):
        return [flag, ",".join(map(str, value))]
    return [flag, str(value)]


def as_argument(name: str, value: Any) -> str:
    """Format an option as a Python argument.

    For an object, only a name is given as the value, since its text makes no object.
    """
    if name == "image_size" and isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, Path):
        value = str(value)
    return f"{name}={value!r}" if is_simple(value) else f"{name}={name}"


def describe_call(function: str, own: Sequence[str], options: Mapping[str, Any]) -> str:
    """Write a call as Python: its own arguments, then options by their names."""
    return f"{function}({', '.join([*own, *(as_argument(*one) for one in options.items())])})"


def is_simple(value: Any) -> bool:
    """Whether Python makes the same value from its `repr`."""
    return value is None or isinstance(value, str | int | float | list | tuple)


def is_size(value: Any) -> bool:
    """Whether a value can be the height and width of images."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and 0 < side < 2**13 for side in value)
    )


def is_range(value: Any) -> bool:
    """Whether a value can be the range of pixels."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(end) in (int, float) and abs(end) < 1e30 for end in value)
        and value[0] < value[1]
    )


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
    found = set()
    try:
        for line in read_regular(path, MOST_JSON).decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a kill left it incomplete
                name = json.loads(line)
                if is_plain_name(name):
                    found.add(name)
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror or error}.") from error
    return found


def written_in(folder: Path) -> set[str]:
    """Return the names of files that a run wrote, finished or not; a person made all others."""
    found = {*noted(folder), *FOR_PEOPLE, "settings.json", "manifest.json"}
    try:
        found |= read_manifest(folder).keys()
    except RunError:  # there is none, or it is damaged
        found |= set(WRITTEN)
    events = (path for path in folder.glob(EVENTS) if path.is_file())
    return found | {path.relative_to(folder).as_posix() for path in events}


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
    found = [
        int(path.name.removeprefix(f"{recipe}-"))
        for path in Path("runs").glob("*")
        if path.name.removeprefix(f"{recipe}-").isdecimal()
    ]
    if latest and found:
        return Path("runs") / f"{recipe}-{max(found)}"
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


def same(old: Any, new: Any) -> bool:
    """Whether two values are equal, or are two spellings of one path."""
    return old == new or (
        isinstance(old, str)
        and isinstance(new, str)
        and os.path.exists(old)
        and os.path.exists(new)
        and os.path.samefile(old, new)
    )


def plain(value: Any) -> Any:
    """Convert a value to what JSON can hold."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, str | int | float | bool | dict | None):
        return value
    return str(getattr(value, "origin", value))  # `Examples` have an `origin`


def read_labels(path: Path) -> list[str]:
    """Read labels.txt: the classes, one on each line.

    Raises:
        RunError: the file can't be read, or names no class, or one class twice.
    """
    try:
        text = read_regular(path, MOST_JSON).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}). Is it a run's folder?") from error
    found = text.split("\n")[:-1]
    if not found or len(set(found)) < len(found):
        raise RunError(f"{path} has {len(found)} lines; expected each class once. Run it again.")
    return found


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; raises RunError where it can't be read."""
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({error}). Is it a run's folder?") from error


def as_text(value: Any) -> str:
    """Format a value as JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


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


def room(name: str) -> Any:
    """Import a module that needs TensorFlow; a run can be opened and read without it."""
    return importlib.import_module(f"tfxfer.{name}")


def place_of(strategy: str) -> tuple[int, int]:
    """Return (number of this worker, number of workers)."""
    if strategy in ("auto", "multiworker") and any(name in os.environ for name in CLUSTERS):
        return room("distribute.devices").find_place()
    return 0, 1


def code() -> str:
    """Return a hash of tfxfer's own files and of the versions of the packages that it uses."""
    found = hashlib.sha256(
        json.dumps(
            {name: version for name, version in versions().items() if name != "system"},
            sort_keys=True,
        ).encode()
    )
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
