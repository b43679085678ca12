"""A finished run's folder, which is read back only where its manifest says that it is complete."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tfxfer import inputs, tasks
from tfxfer.errors import RunError
from tfxfer.files import remove_named
from tfxfer.process.program import command
from tfxfer.run.folder import (
    FOR_PEOPLE,
    has_begun,
    is_own,
    listed,
    read_json,
    read_labels,
    read_manifest,
    rewrite,
    signed_part,
)
from tfxfer.run.settings import as_text, as_words
from tfxfer.safety.ours import sign

T = TypeVar("T")


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

    def kind(self) -> "inputs.Kind":
        """Return what its examples are."""
        # Earlier versions knew only images.
        return self._known(lambda values: inputs.find(values.get("input", inputs.DEFAULT)))

    def task(self) -> "tasks.Task":
        """Return the kind of its answers."""
        # Earlier versions knew only classes.
        return self._known(lambda values: tasks.find(values.get("task", tasks.CLASSIFY.NAME)))

    def decision(self) -> dict[str, Any]:
        """Return what turns its model's predictions into answers; see `Task.decide`."""
        path = self.path("decision.json")
        if not path.is_file():
            return {}
        try:
            return tasks.check_decision(read_json(path), len(self.classes()))
        except ValueError as error:
            raise RunError(f"{path} {error}. Run it again.") from error

    def takes(self) -> "inputs.Input":
        """Return the input of its model for one example."""
        kind = self.kind()
        return self._known(kind.restore)

    def _known(self, find: Callable[[dict[str, Any]], T]) -> T:
        """Return what the settings mean.

        Raises:
            RunError: a setting is missing, or has a value that is not allowed.
        """
        values = {name: setting.get("value") for name, setting in self.settings().items()}
        try:
            return find(values)
        except ValueError as error:
            raise RunError(f"{self.path('settings.json')} {error}. Run it again.") from error

    def is_own(self) -> bool:
        """Whether this user wrote its settings, on this machine and under this path."""
        return is_own(self.folder, self.settings())

    def metrics(self) -> dict[str, Any]:
        """Return the figures of metrics.json."""
        figures = read_json(self.folder / "metrics.json")
        if not isinstance(figures, dict):
            raise RunError(f"{self.path('metrics.json')} holds no figures. Run it again.")
        return figures

    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of the model's outputs."""
        return read_labels(self.path("labels.txt"))

    def copy_to(self, folder: str | os.PathLike) -> "Finished":
        """Copy the run to a new or empty folder; its manifest comes last.

        The files of `FOR_PEOPLE` are left out, because they are made from the others.

        Raises:
            RunError: the folder holds something, or can't be written.
        """
        open_run(self.folder)  # its files are those that it wrote
        to, settings = Path(folder).expanduser(), self.settings()
        own = is_own(self.folder, settings)
        manifest = {
            name: facts
            for name, facts in read_manifest(self.folder).items()
            if name not in FOR_PEOPLE
        }
        settings.pop("signature", None)
        if own and (signature := sign(signed_part(to, settings))):
            settings["signature"] = {"value": signature, "origin": "derived"}
        try:
            to.mkdir(parents=True, exist_ok=True)
            if any(to.iterdir()):
                raise RunError(f"{to} is not empty. Choose another folder.")
            try:
                for name in manifest:
                    (to / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.path(name), to / name)
                rewrite(to / "settings.json", as_text(settings))
                manifest["settings.json"] = listed(to / "settings.json")
                rewrite(to / "manifest.json", as_text(dict(sorted(manifest.items()))))
            except OSError:
                remove_named(to, [*manifest, "settings.json"])
                raise
        except OSError as error:
            raise RunError(f"{to} can't be written: {error.strerror or error}.") from error
        return Finished(to)

    def replace(self, texts: dict[str, str]) -> None:
        """Write some of the files of `FOR_PEOPLE` again, and list them in the manifest.

        A program that opens the run meanwhile does not check these files.
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
        if "grown_from" in settings:
            how = "with the same call or command of grow, which also needs overwrite"
        elif "call" in settings and "command" not in settings:
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


def again(recipe: str, folder: Path, *options: str) -> str:
    """Return the command that resumes a run."""
    return command("run", recipe, "--out", folder, *options, "--resume")
