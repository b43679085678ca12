"""How this program was called, for commands that a user is told to type."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: str | os.PathLike) -> str:
    """A command of tfxfer as the user can type it, each word quoted where a shell needs that.

    Example:
        command("predict", "my photos") == "tfxfer predict 'my photos'"
    """
    return shlex.join([*program(), *(os.fspath(word) for word in words)])


def program() -> list[str]:
    """The words that start tfxfer here: `tfxfer`, `.venv/bin/tfxfer` or `python -m tfxfer`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "tfxfer":
        return [found_as("python", Path(sys.executable)), "-m", "tfxfer"]
    if called.stem == "tfxfer" and called.is_file():
        return [found_as("tfxfer", called)]
    return ["tfxfer"]


def found_as(name: str, file: Path) -> str:
    """`name` if the shell finds this file by it, else the path of the file."""
    path = shutil.which(name)
    return name if path and os.path.samefile(path, file) else os.fspath(file)
