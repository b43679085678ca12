"""MODEL_CARD.md: what someone should know who meets the model without its run (Mitchell 2019), from the run's own facts."""

from pathlib import Path

import jinja2

from tfxfer.handles import catalog
from tfxfer.report.page import facts, reported


def card(folder: Path) -> str:
    """The card of a run folder.

    Raises: RunError as `facts`.
    """
    found = facts(folder)
    settings = {name: setting["value"] for name, setting in found["settings"].items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    # What stands between bars of a table, or could be read as markup, is shown as it is.
    environment.filters["plain"] = lambda value: "".join(
        f"\\{c}" if c in "\\`*_{}[]<>#|" else " " if c in "\r\n" else c for c in str(value)
    )
    entry = catalog.find(str(settings.get("backbone", "")))
    with reported(folder):
        text = environment.get_template("card.md.j2").render(
            **found, values=settings, backbone=entry
        )
    return text.encode("utf-8", "replace").decode()
