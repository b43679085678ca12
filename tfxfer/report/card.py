"""Write MODEL_CARD.md from the facts of a run.

It says what someone needs to know who has the model but not its run (Mitchell 2019).
"""

from pathlib import Path
from typing import Any

import jinja2

from tfxfer import inputs, tasks
from tfxfer.handles import catalog
from tfxfer.report import words
from tfxfer.report.page import facts, read_report, said_of_share
from tfxfer.safety.names import code_block, code_span, markdown


def make_card(folder: Path) -> str:
    """The card of a run folder.

    Raises:
        RunError: as in `facts`.
    """
    report = facts(folder)
    settings = {name: setting["value"] for name, setting in report["settings"].items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        finalize=as_markdown,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["span"] = lambda value: Written(code_span(str(value)))
    environment.filters["block"] = lambda value, kind: Written(code_block(str(value), kind))
    environment.filters["thousands"] = words.thousands
    environment.filters["head"] = lambda name: words.head(str(name))
    entry = catalog.find(str(settings.get("chosen_backbone") or settings.get("backbone", "")))
    report["source"] = Written(entry.source) if entry else ""
    report["made_by"] = Written(words.made_by(report["settings"], code_span))
    with read_report(folder):
        task, figures = tasks.find(report["task"]), report["figures"]
        environment.filters["score"] = lambda value: said_of_share(value, task)
        kind = inputs.find(report["kind"])
        report |= {"one": kind.ONE, "many": kind.MANY, "elsewhere": kind.ELSEWHERE}
        report |= {"tag": kind.TAG, "classifier": kind.CLASSIFIER}
        report |= {"of_classes": task.CLASSES, "noun": task.NOUN, "output": task.OUTPUT}
        report["further"] = task.further(figures) if figures else []
        report["input"] = said_of_input(settings)
        return environment.get_template("card.md.j2").render(
            **report, values=settings, backbone=entry
        )


def said_of_input(settings: dict[str, Any]) -> str:
    """Describe the input of the model; "" if the settings do not say it."""
    try:
        return inputs.find(settings.get("input", inputs.DEFAULT)).restore(settings).described()
    except ValueError:
        return ""


def as_markdown(value: object) -> object:
    """What the template shows of a value: plain text without markup, unless it is `Written`."""
    if isinstance(value, Written | int | float):
        return value
    return markdown(str(value)) if str(value).strip() else str(value)


class Written(str):
    """A text that is Markdown already."""
