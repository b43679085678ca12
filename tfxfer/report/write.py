"""Write the files for people that a run ends with."""

import logging
import os
from functools import partial
from pathlib import Path

from tfxfer.report.card import make_card
from tfxfer.report.page import Tried, as_json, make_page
from tfxfer.run import Run, open_run
from tfxfer.run.attempt import keep, optional

LOG = logging.getLogger(__name__)
TEXTS = {"report.html": make_page, "report.json": as_json, "MODEL_CARD.md": make_card}


def write_reports(run: Run) -> str:
    """Write report.html, report.json and MODEL_CARD.md of a run that is about to finish.

    A file that can't be made is left out.

    Returns:
        A sentence that tells where the report is.

    Raises:
        RunError: the folder can't be written.
    """
    LOG.info("Writing the report")
    tried: Tried = {}
    html = optional(run, "report.html", lambda: make_page(run.folder, tried))
    for what, picture in tried.items():
        keep(run, what, picture)
    if html is not None:
        run.write_text("report.html", html)
    for name, make in (("report.json", as_json), ("MODEL_CARD.md", make_card)):
        text = optional(run, name, partial(make, run.folder))
        if text is not None:
            run.write_text(name, text)
    if html is None:
        return f"There is no report. Once the cause is mended: tfxfer report {run.folder}"
    return f"Look at {run.folder}/report.html"


def write_again(folder: str | os.PathLike) -> Path:
    """Write the reports of a finished run again, as after an update of tfxfer.

    They are made from the other files of the run.

    Returns:
        path of report.html.

    Raises:
        RunError: the run is not finished, a file is missing or was changed, or the folder can't be
            written.
    """
    run = open_run(folder)
    LOG.info("Writing the report")
    run.replace({name: text(run.folder) for name, text in TEXTS.items()})
    return run.path("report.html")
