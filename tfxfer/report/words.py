"""What the report page says in whole sentences.

This is what the model tells apart, what to do next, and the names of the rows that are compared.
"""

import shlex
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from tfxfer import inputs
from tfxfer.inputs import Kind
from tfxfer.run import UNNAMED
from tfxfer.safety.names import one_line
from tfxfer.tasks import Task, find

NAMED = 5  # classes that a heading names
LETTERS = 28  # most letters of a name in a heading or a picture
FEW = 300  # with fewer test examples, the page first advises to test with more
SPLITS = {"train": "to learn from", "validation": "to choose by", "test": "to test with"}


def short(name: str, letters: int = LETTERS) -> str:
    """A name on one line, without invisible characters, cut to at most `letters`."""
    name = one_line(" ".join(name.split())) or repr(name)
    return name if len(name) <= letters else name[: letters - 1] + "…"


def listed(names: list[str]) -> str:
    """List names as in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def heading(classes: list[str], task: Task) -> str:
    """Return the title of a report: what the model tells apart, or what else it does."""
    does = task.heading(classes)
    if task.parts:  # an output is a class of a column, and the columns say more
        classes = list(task.label_columns(classes))
    if len(classes) <= NAMED:
        return f"{does} {listed([short(name) for name in classes])}"
    first = ", ".join(short(name) for name in classes[: NAMED - 1])
    plural = "classes" if task.CLASSES else f"{task.NOUN}s"
    if task.parts:
        plural = "columns"
    return f"{does} {len(classes):,} {plural}: {first} and {len(classes) - NAMED + 1:,} more"


def description(settings: dict[str, Any], counts: dict[str, dict[str, int]], kind: Kind) -> str:
    """How many examples there are, and how the model was made, in one or two sentences."""

    def value(name: str) -> str:
        return str(settings.get(name, {}).get("value") or "")

    sizes = {split: numbers.get("", sum(numbers.values())) for split, numbers in counts.items()}
    parts = [f"{sizes[split]:,} {what}" for split, what in SPLITS.items() if sizes.get(split)]
    total = sum(sizes.values())
    many = f"{total:,} {kind.ONE if total == 1 else kind.MANY}"
    sentence = f"From {many}: {listed(parts)}." if parts else f"From {many}."
    made = " ".join(["Made", *filter(None, [made_by(settings)])])
    if network := value("chosen_backbone") or value("backbone"):
        made += f" with the pretrained network {one_line(network)}"
    try:
        day = datetime.fromisoformat(value("started"))
        made += f" on {day.day} {day:%B %Y}"
    except ValueError:  # a run of an earlier version, or an edited one
        pass
    return f"{sentence} {made}." if made != "Made" else sentence


def made_by(settings: dict[str, Any], quoted: Callable[[str], str] = str) -> str:
    """The command or the call that made a run, in words; "" where the settings name no recipe.

    Args:
        quoted: puts quotes or markup around a command or a name, as the text around it needs.
    """
    recipe = str(settings.get("recipe", {}).get("value") or "")
    if before := settings.get("grown_from", {}).get("value"):
        return f"by {quoted('tfxfer grow')} from {quoted(one_line(str(before)))}"
    if settings.get("command", {}).get("value") or (recipe != UNNAMED and "call" not in settings):
        return f"by {quoted(f'tfxfer run {recipe}')}" if recipe else ""
    if recipe in ("", UNNAMED):
        return "in Python"
    return f"in Python by the recipe {quoted(recipe)}"


def weakest(classes: dict[str, dict[str, Any]]) -> str | None:
    """The class that was recognised least often; None if all examples were recognised.

    Of classes that were recognised equally often, it is the one with the most examples.
    """
    recalls = {name: row for name, row in classes.items() if row.get("recall") is not None}
    if not recalls:
        return None
    name = min(recalls, key=lambda key: (recalls[key]["recall"], -recalls[key]["n"]))
    return name if recalls[name]["recall"] < 1 else None


def taken_for(mistakes: list[dict[str, Any]], name: str) -> tuple[str, int] | None:
    """The class that examples of class `name` are taken for most often, and how often."""
    counts: dict[str, int] = {}
    for row in mistakes:
        if row["true"] == name:
            counts[row["predicted"]] = counts.get(row["predicted"], 0) + 1
    return max(counts.items(), key=lambda item: item[1]) if counts else None


def next_steps(report: dict[str, Any], folder: str) -> list[dict[str, str]]:
    """Three things to do next, chosen by the figures.

    Args:
        report: see `tfxfer.report.page.facts`.
        folder: folder of the run.

    Returns:
        dicts with "kind", "text" and, if there is one, "command".
    """
    run, kind = shlex.quote(one_line(folder)), inputs.find(report["kind"])
    use = {
        "kind": "use",
        "text": f"Let it name new {kind.MANY}, or export it for other programs (tfxfer export).",
        "command": f"tfxfer predict {run} {kind.FILE}",
    }
    return [improve(report, run, kind), check(report, run, kind), use]


def improve(report: dict[str, Any], run: str, kind: Kind) -> dict[str, str]:
    """What would make the model better."""
    figures, called, many = report["figures"], report["called"], kind.MANY
    if not figures:
        text = f"Keep some {many} apart to test with: without them nobody knows how good it is."
        return {"kind": "test", "text": text}
    classes = figures.get("classes")
    of_classes = find(report["task"]).CLASSES
    name = weakest(classes or {}) if of_classes else None
    if not classes or not of_classes:
        text = f"Add training {many} like those that it gets most wrong; the page shows them."
        return {"kind": "photos", "text": text}
    if name is None:
        text = (
            f"All {figures['n']:,} {called} {many} were recognised, so no class needs more {many} "
            f"than others. Test it on {many} from where it will be used."
        )
        return {"kind": "judge", "text": text, "command": f"tfxfer evaluate {run} --data DATA"}
    row = classes[name]
    right = round(row["recall"] * row["n"])
    text = (
        f"Add training {many} of “{short(name)}”, the class that is recognised least often: "
        f"{right:,} of {row['n']:,} {called} {many}"
    )
    if rival := taken_for(report["mistakes"], name):
        text += f"; most often it is taken for “{short(rival[0])}” ({rival[1]:,} times)"
    return {"kind": "photos", "text": f"{text}."}


def check(report: dict[str, Any], run: str, kind: Kind) -> dict[str, str]:
    """What to look at before the figures are trusted."""
    count, figures = report["review"]["label_errors"]["count"], report["figures"]
    if count:
        what = (
            f"the {kind.ONE} whose label looks"
            if count == 1
            else f"the {count:,} {kind.MANY} whose label looks"
        )
        text = (
            f"Look at {what} wrong (further down, and in label_errors.csv). Correct what is "
            "wrong and run again."
        )
        return {"kind": "labels", "text": text}
    if figures and figures["n"] < FEW:
        low, high = f"{figures['low']:.2f}", f"{figures['high']:.2f}"
        if find(report["task"]).PERCENT:
            low, high = f"{100 * figures['low']:.0f}", f"{100 * figures['high']:.0f} %"
        text = (
            f"Test with more {kind.MANY}. With {figures['n']:,}, all that is known is that the "
            f"{report['score']} is probably between {low} and {high}."
        )
        return {"kind": "test", "text": text}
    text = f"Test it on {kind.MANY} from {kind.ELSEWHERE} than those it learnt from."
    return {"kind": "judge", "text": text, "command": f"tfxfer evaluate {run} --data DATA"}


def candidate(name: str) -> str:
    """What a model that was compared with others is called on the page.

    Args:
        name: its name in metrics.json.
    """
    plain = {
        "frozen": "frozen: the pretrained network as it is, with a classifier on top",
        "tuned": "tuned: training changed the network, too",
    }
    if name in plain:
        return plain[name]
    if name.endswith(" of the way to tuned"):
        return f"{name.split('%')[0]} % of the change that training made to the network"
    if name.startswith("mean of "):
        return f"{name} (their probabilities averaged)"
    if name.startswith("learning rate "):
        return f"a short training with {name.removesuffix(', short')}"
    return name


def setting(name: str) -> str:
    """The name of a setting on the page; settings.json keeps the names that it always had."""
    return {"chosen_taps": "chosen_stages"}.get(name, name)


def setting_names(settings: Collection[str]) -> list[str]:
    """The names of settings, with what was chosen right after the option that left it open."""
    names: list[str] = []
    for name in settings:
        if name.removeprefix("chosen_") == name or name.removeprefix("chosen_") not in settings:
            names.append(name)
        if f"chosen_{name}" in settings:
            names.append(f"chosen_{name}")
    return names


def head(name: str) -> str:
    """Return the name of a head for people, such as "gaussian and linear" for the mean of both."""
    return name.replace("_and_", " and ").replace("_beside_", " beside ")


def thousands(number: int) -> str:
    """A number with a comma between thousands."""
    return f"{number:,}"


def judged_how(report: dict[str, Any]) -> str:
    """Which examples the frozen and the tuned model were compared on, and fitted on."""
    rows, counts, many = report["candidates"], report["counts"], inputs.find(report["kind"]).MANY
    n = next(iter(rows.values()))["n"] if rows else 0
    tuning = report["settings"].get("tuning", {}).get("value")
    folds = tuning.get("folds") if isinstance(tuning, dict) else None
    if folds is None:  # a run of an earlier version
        folds = 3 if n == sum(counts.get("train", {}).values()) else 1
    if folds > 1:
        share = "two thirds" if folds == 3 else "one half"
        return (
            f"Judged on all {n:,} training {many}, in {folds} parts: each part by models that were "
            f"fitted on the others. They saw only {share} of the {many}, so these figures are "
            "often lower than the others on this page."
        )
    part = (
        f"validation {many}" if counts.get("validation") else f"training {many}, held out for this"
    )
    return (
        f"Judged on {n:,} {part}, by models that were fitted on the other training {many}. These "
        f"are other {many} than in the first lines of this page, so the figures differ."
    )
