"""The state of a training on disk, so that a killed one goes on with the same bits: whole files only, the newest that is not damaged."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.arrays import read_arrays
from tfxfer.files import appear

KEPT = 2  # the newest, and the one before it for when it is damaged


def save(folder: Path, number: int, arrays: Sequence[np.ndarray], state: dict[str, Any]) -> None:
    """Write `state-<number>.npz` aside, fsync and rename it, and remove those before the last one."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(aside: str) -> None:
        with open(
            aside, "wb"
        ) as file:  # of a path NumPy would make another one, which ends in .npz
            np.savez(file, json.dumps(state), *arrays)

    appear(folder / f"state-{number:010d}.npz", folder / "new", write)
    for old in numbered(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def load(
    folder: Path, log: Callable[[str], None]
) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """The newest state that is whole; None where there is none. A damaged one is named and passed over: its work is done again."""
    for path in reversed(numbered(folder)):
        try:
            state, *arrays = read_arrays(path).values()
            found = json.loads(str(state))
            if not isinstance(found, dict):
                raise ValueError("its state is no object")
            return arrays, found
        except (OSError, ValueError, RecursionError) as error:
            log(f"{path} is damaged ({error}): going on from the one before it")
    return None


def numbered(folder: Path) -> list[Path]:
    """The files of states, in their order."""
    return sorted(folder.glob("state-*.npz"))
