"""Tables whose cells are the examples themselves, and not names of files."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError
from tfxfer.inputs import KINDS, Kind

BETWEEN = "\n"  # between the cells of one example
FEW = 20  # cells that show what a column holds


class Held(NamedTuple):
    """The columns of a table that hold examples of one kind, in the order of their joining."""

    kind: Kind
    columns: tuple[str, ...]

    def content(self, row: dict[str, str]) -> str:
        """Return the example in a row; "" where all cells are empty."""
        return BETWEEN.join(row[name] for name in self.columns if row[name])


def find_held(header: Sequence[str], source: str) -> Held | None:
    """Return the columns that hold examples; None where no kind of example has such columns.

    Args:
        header: names of the columns, as they are written.

    Raises:
        DataError: several columns could be the same part of an example.
    """
    columns = [cell.strip().casefold() for cell in header]
    for kind in KINDS.values():
        found = [[name for name in columns if name in group] for group in kind.CELLS]
        if not found or not found[-1]:
            continue
        if odd := next((names for names in found if len(names) > 1), None):
            raise DataError(
                f"{source}: the columns {shown(odd)} could all hold the {kind.NAME}. Keep one of "
                "them, or rename the others."
            )
        return Held(kind, tuple(name for names in found for name in names))
    return None


def look_like_files(cells: Sequence[str | bytes]) -> bool:
    """Return whether the first cells end like files of some kind of example."""
    first = [cell for cell in cells[:FEW] if cell]
    texts = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in first]
    endings = {PurePath(text.replace("\\", "/")).suffix.lower() for text in texts}
    return bool(endings) and endings <= frozenset().union(
        *(kind.ENDINGS for kind in KINDS.values())
    )
