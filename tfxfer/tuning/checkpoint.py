"""Keep the state of a training on disk, so that one that was killed goes on with the same bits.

Only whole files are written, and the newest one that is not damaged is read.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.files import appear
from tfxfer.safety.arrays import read_arrays

LOG = logging.getLogger(__name__)
KEPT = 2  # the newest state, and the one before it in case the newest is damaged


def save(folder: Path, number: int, arrays: Sequence[np.ndarray], state: dict[str, Any]) -> None:
    """Write `state-<number>.npz`, and delete all states but the last two.

    The file is written under another name first, flushed to the disk (fsync), and then renamed.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(aside: str) -> None:
        # NumPy is given an open file, because it would add .npz to the name of a path.
        with open(aside, "wb") as file:
            np.savez(file, json.dumps(state), *arrays)

    appear(folder / f"state-{number:010d}.npz", folder / "new", write)
    for old in numbered(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Return the newest state that is whole, or None where there is none.

    A damaged one is logged and passed over: its work is done again.
    """
    for path in reversed(numbered(folder)):
        try:
            state, *arrays = read_arrays(path).values()
            content = json.loads(str(state))
            if not isinstance(content, dict):
                raise ValueError("its state is not a JSON object")
            return arrays, content
        except (OSError, ValueError, RecursionError) as error:
            LOG.warning("%s is damaged (%s) and is not used", path, error)
    return None


def numbered(folder: Path) -> list[Path]:
    """Return the files of states, from the oldest to the newest."""
    return sorted(folder.glob("state-*.npz"))
