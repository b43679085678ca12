"""A run that is being written: its folder, its settings, and the options that every recipe has."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfxfer import inputs
from tfxfer.errors import RunError
from tfxfer.process.program import command
from tfxfer.run import place, resume
from tfxfer.run.finished import open_run
from tfxfer.run.folder import Files, check_links, has_begun, is_own, noted, numbered, signed_part
from tfxfer.run.settings import (
    OPTIONS,
    Common,
    chosen_names,
    describe_call,
    is_simple,
    plain,
    read_common,
)
from tfxfer.safety.names import one_line, printable
from tfxfer.safety.ours import sign

UNNAMED = "run"  # the recipe of a run until its recipe is known


class Run:
    """The folder of a run that is being written, and the options that every recipe has.

    A recipe finds these options in `common`, such as `run.common.seed`; `run.seed` is the same.
    Only `run.global_batch` is never None: it is `run.common.step_size`.

    Args:
        out: folder for the results; by default a new one, runs/<recipe>-<number>.
        recipe: name, or path of the file, as given. In Python the recipe itself notes it.
        resume: go on with the run in `out`; without `out`, with the latest one.
        overwrite: delete the old run in `out` first.
        options: the recipe's own options, name to value.
        given: names of the options that the user chose; the others are defaults.
        common: the options that every recipe has; see `tfxfer.run.Common`.

    Raises:
        RunError: the folder can't be written, is in use, is not empty, or holds a run that was
            begun with other settings, or by somebody else.
        TypeError: there is no such option.
    """

    def __init__(
        self,
        out: Path | str | None = None,
        *,
        recipe: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        options: dict[str, Any] | None = None,
        given: Iterable[str] = (),
        **common: Any,
    ):
        chosen = Common(**common)
        self.settings: dict[str, dict[str, Any]] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.finished = False
        # The call that the report shows, where `Transfer` made the run.
        self.call: str | None = None
        self._given = set(given) | chosen_names(chosen) | ({"recipe"} if recipe else set())
        self._resume, self._overwrite, self._strategy = resume, overwrite, None
        named = {"recipe": recipe or UNNAMED, **(options or {}), **chosen.as_settings()}
        self.choose(named, self._given)
        self.worker, self.workers = place.place_of(chosen.strategy)
        self.common = chosen
        if not self.is_main_worker:
            # `start` gets the folder and the settings from the main worker.
            self.files = Files(Path(out or "of the main worker"))
            return
        if out is None:
            self.files = Files(numbered(Path(recipe or UNNAMED).stem, resume))
        else:
            self.files = Files(Path(out).expanduser())
        try:
            self._begin()
            self.common = self._read_common()
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            began = {"resumed" if self.before else "started": when}
            self.record(**began, versions=place.versions())
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Take the folder, and take over the settings of the run that it holds."""
        if self._resume and self._overwrite:
            raise RunError("--resume goes on with a run and --overwrite replaces it; choose one.")
        there = self.files.contents()
        if there and not (self._resume or self._overwrite):
            raise RunError(
                f"{self.folder} is not empty. Go on with --resume, replace it with --overwrite, or "
                "choose another --out."
            )
        before = has_begun(self.folder) if there else {}
        check_links(self.folder)
        if self._resume and "manifest.json" in there:
            open_run(self.folder)
            self.finished = True
        else:
            self.files.take()
            if there and self._overwrite:
                self.files.clear()
                return
            if not there:
                return
            if not is_own(self.folder, before):
                before = resume.said_again(self.folder, self.settings, before)
            self.files.written = noted(self.folder)
        self.before = before
        self.settings = resume.take_over(self.folder, self.settings, before, self._given)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.files.path

    def _read_common(self) -> Common:
        """Return the options that every recipe has, as the settings have them."""
        return read_common({name: setting["value"] for name, setting in self.settings.items()})

    def __getattr__(self, name: str) -> Any:
        """Return one of the options that every recipe has, such as `run.seed`."""
        if name not in OPTIONS or "common" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.common, name)

    @property
    def recipe(self) -> str:
        """The name of the recipe, or the path of its file."""
        return str(self.settings["recipe"]["value"])

    @property
    def global_batch(self) -> int:
        """The number of images in one training step, on all devices together."""
        return self.common.step_size

    @property
    def cache_folder(self) -> Path:
        """The folder of the features: --cache, or the default one."""
        return self.common.cache_folder(self.folder)

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
        given = {
            name: setting["value"]
            for name, setting in self.settings.items()
            if setting["origin"] == "given" and name in OPTIONS
        }
        made = describe_call("tfxfer.Run", [repr(str(self.folder))], given)
        comments = [
            f"# {name}: {one_line(str(plain(value)))}"
            for name, value in chosen.items()
            if not is_simple(value)
        ]
        lines = [*imports, "", *comments, describe_call(function, [made], chosen)]
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

        Several workers wait for each other here, and take over the settings of the main one.

        Raises:
            DistributeError: there is no such device, or workers don't connect or don't fit
                together.
        """
        if self._strategy is not None:
            return
        self._strategy = place.make_strategy(self.settings)
        if self.workers == 1:
            return
        place.agree(self._strategy, self.settings, resumed=self._resume)
        theirs = place.broadcast(
            self._strategy, lambda: (self.settings, self.before, str(self.folder), self.finished)
        )
        if not self.is_main_worker:
            # Each worker reads graphs itself, so only its own command line can allow it to trust
            # them.
            trusted = self.settings["trust"]
            self.settings, self.before, self.finished = theirs[0], theirs[1], theirs[3]
            self.settings["trust"] = trusted
            self.files = Files(Path(theirs[2]))
            self.common = self._read_common()

    def meet(self) -> None:
        """Wait for the other workers, so that none ends while another one still needs it."""
        if self.workers > 1:
            place.wait_for_all(self.strategy)

    # --- writing ---

    def record(self, **values: Any) -> None:
        """Add derived values, such as fingerprints, to the settings.

        Raises:
            RunError: a fingerprint differs from that of the run that is resumed.
        """
        if self.workers > 1 and (
            facts := {
                name: plain(value)
                for name, value in values.items()
                if name.endswith("_fingerprint")
            }
        ):
            place.agree_on_facts(self.strategy, facts)
        for name, value in values.items():
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
        return self.files.write(name, writer)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text as UTF-8."""
        return self.files.write_text(name, text)

    def write_json(self, name: str, value: Any) -> Path:
        """Write a value as JSON, indented for people."""
        return self.files.write_json(name, value)

    def write_csv(self, name: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
        """Write rows as CSV with a header line; see `Files.write_csv`."""
        return self.files.write_csv(name, header, rows)

    def abandon(self) -> None:
        """Remove the folder of a run that failed before it had saved anything."""
        if self.is_main_worker and not (self.before or self.finished or self._overwrite):
            self.files.abandon()

    def how_to_predict(self) -> str:
        """Return the command that uses the run, for its last line."""
        takes = self.settings.get("input", {}).get("value", inputs.DEFAULT)
        return f"Next: {command('predict', self.folder, inputs.find(takes).FILE)}"

    def finish(self) -> None:
        """Write the manifest, which marks the run as complete, and remove unfinished work."""
        self.files.finish()
        self.finished = True

    def close(self) -> None:
        """Unlock the folder."""
        self.files.close()
