"""The files that a run ends with, for people."""

import os
from pathlib import Path

from tfxfer.report.card import card
from tfxfer.report.page import as_json, page
from tfxfer.run import Run, open_run

TEXTS = {"report.html": page, "report.json": as_json, "MODEL_CARD.md": card}


def write(run: Run) -> None:
    """report.html, report.json and MODEL_CARD.md of a run that is about to finish."""
    for name, text in TEXTS.items():
        run.write_text(name, text(run.folder))


def again(folder: str | os.PathLike) -> Path:
    """Make them anew from a finished run's other files, as after an update of tfxfer. Returns report.html's path.

    Raises:
        RunError: not a finished run, a file is missing or was changed, or the folder can't be written.
    """
    run = open_run(folder)
    run.replace({name: text(run.folder) for name, text in TEXTS.items()})
    return run.path("report.html")
