"""Which kind of example the model of a run or of an export takes."""

from pathlib import Path

from tfxfer.errors import ServingError
from tfxfer.files import read_regular
from tfxfer.inputs import DEFAULT, Kind, find
from tfxfer.run import Finished
from tfxfer.serving.place import EXTRA, latest

KIND = "input.txt"  # in the extra folder of an export


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
