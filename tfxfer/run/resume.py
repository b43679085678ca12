"""When a run goes on: which settings it keeps, and which ones it refuses."""

from pathlib import Path
from typing import Any

from tfxfer.errors import RunError
from tfxfer.run.finished import again
from tfxfer.run.place import HERE
from tfxfer.run.settings import as_option, as_words, same
from tfxfer.safety.names import one_line

SAME = ("recipe", "data", "backbone", "head", "seed")  # a resumed run must have the same values
Settings = dict[str, dict[str, Any]]


def said_again(folder: Path, settings: Settings, before: Settings) -> Settings:
    """Check that the user gives the settings of a run that somebody else began; returns these.

    Options are those of the command line. Fingerprints are kept, because they can only stop the
    run.

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
    for name, new in settings.items():
        old = before.get(name, new)
        ours = name in (*HERE, "trust", "recipe") or old["origin"] == "derived"
        if not ours and not same(old["value"], new["value"]):
            differing.append(f"--{name.replace('_', '-')} {as_words(old['value'])}")
        kept[name] = old if name == "recipe" else new
    if differing:
        options = [
            word
            for name, old in before.items()
            if name in settings and name not in (*HERE, "trust", "recipe")
            if old["origin"] == "given" or not same(old["value"], settings[name]["value"])
            for word in as_option(name, old["value"])
        ]
        said = again(str(settings["recipe"]["value"]), folder, *options)
        raise RunError(
            f"{folder} was not begun by you on this machine and under this path, or its "
            f"settings.json was edited. It would go on with {', '.join(differing)}, which you "
            f"did not give. If that is what you want, type: {said}. Otherwise choose another "
            "--out."
        )
    return kept


def take_over(folder: Path, settings: Settings, before: Settings, given: set[str]) -> Settings:
    """Return the settings of the run that was begun, but the device options of this machine.

    Raises:
        RunError: the user gives another value for a setting that must not change.
    """
    kept = dict(settings)
    for name, new in settings.items():
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
                    f"{folder} was begun with {name} {old['value']}; received "
                    f"{new['value']}. Resume it with the same {name}, or choose another --out."
                )
            line = (
                f"--{name.replace('_', '-')} {new['value']} is ignored: "
                f"the run goes on with {old['value']}"
            )
            print(one_line(line))
        kept[name] = old
    return {**before, **kept}
