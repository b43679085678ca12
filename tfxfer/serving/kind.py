"""Which kind of example the model of a run or of an export takes, and which answers it gives."""

from pathlib import Path
from typing import Any

from tfxfer.errors import ServingError
from tfxfer.files import read_regular
from tfxfer.inputs import DEFAULT, Kind, find
from tfxfer.run import Finished, read_json
from tfxfer.serving.place import EXTRA, latest
from tfxfer.tasks import CLASSIFY, Task, check_decision
from tfxfer.tasks import find as find_task

# In the extra folder of an export.
KIND, TASK, DECISION = "input.txt", "task.txt", "decision.json"


def kind_of(folder: Path) -> Kind:
    """Return the kind of example that a model takes.

    Args:
        folder: the folder of a run, of one version of an export, or of all versions.

    Raises:
        RunError, ServingError: the folder names a kind that this program does not know.
    """
    if (folder / "settings.json").is_file():
        return Finished(folder).kind()
    version = folder if (folder / "saved_model.pb").is_file() else latest(folder)
    path = (version or folder) / EXTRA / KIND
    if not path.is_file():  # an export of an earlier version, which knew only images
        return find(DEFAULT)
    try:
        return find(read_regular(path, 1000).decode("utf-8", "replace").strip())
    except (OSError, ValueError) as error:
        raise ServingError(f"{path} {error}. Export it again.") from error


def task_of(version: Path) -> Task:
    """Return the kind of answer that one version of an export gives.

    Raises:
        ServingError: the folder names a kind that this program does not know.
    """
    path = version / EXTRA / TASK
    if not path.is_file():  # an export of an earlier version, which knew only classes
        return CLASSIFY
    try:
        return find_task(read_regular(path, 1000).decode("utf-8", "replace").strip())
    except (OSError, ValueError) as error:
        raise ServingError(f"{path} {error}. Export it again.") from error


def decision_of(version: Path, outputs: int) -> dict[str, Any]:
    """Return what turns the predictions of one version of an export into answers.

    Args:
        outputs: K, the number of the model's outputs.

    Raises:
        ServingError: the file is damaged.
    """
    path = version / EXTRA / DECISION
    if not path.is_file():
        return {}
    try:
        return check_decision(read_json(path), outputs)
    except ValueError as error:
        raise ServingError(f"{path} {error}. Export it again.") from error
