"""Find images whose names say that they belong to another image in the same folder.

For example, `7_mask.png` is a drawing on `7.png`, and `7_aug.png` is an altered copy of it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.errors import DataError
from tfxfer.inputs import Kind

DRAWN = re.compile(r"[-_. ]*(mask|seg|segmentation|groundtruth|annotation|gt)s?([-_. ]?\d+)?$")
ALTERED = re.compile(
    r"[-_. ]+((aug|augmented|flip|flipped|rot|rotated|mirror|mirrored|crop|cropped|copy)"
    r"[-_. ]?[a-z0-9]*|thumb|thumbnail|small|resized|scaled|edit|edited|kopie|copie|copia)$"
    r"|[-_. ]*\([^()]*conflicted copy[^()]*\)$"  # Dropbox writes this
    r"|~\d+$"  # PXL_1~2.jpg: Android writes this
)
EDITED = re.compile(r"^img_e(?=\d+$)")  # an iPhone writes IMG_E0001.JPG beside IMG_0001.JPG
# Roboflow writes a photo several times, with names such as photo_jpg.rf.1f0c...jpg.
ROBOFLOW = re.compile(r"\.rf\.[0-9a-f]{8,}$")
# If at least this share of all images has the name of another image, but for the ending, that is
# not by chance.
MANY = 0.25


def check_companions(paths: Iterable[Path], source: str, kind: Kind) -> list[str]:
    """Return a note if images are altered copies of others, by their names.

    Raises:
        DataError: images are drawings on others.
    """
    of: dict[tuple[Path, str], Path] = {}
    twins = []
    for path in (paths := list(paths)):
        other = of.setdefault((path.parent, path.stem.casefold()), path)
        if other is not path and other.suffix.casefold() != path.suffix.casefold():
            twins.append((path, other))
    if len(twins) < MANY * len(paths):
        twins = [pair for pair in twins if {path.suffix.casefold() for path in pair} & kind.BESIDE]
    drawn, altered = [], [f"{path.name} of {other.name}" for path, other in twins]
    first: dict[tuple[Path, str], Path] = {}
    for (folder, stem), path in of.items():
        if (origin := of.get((folder, DRAWN.sub("", stem)))) not in (None, path):
            drawn.append(f"{path.name} on {origin.name}")
        elif (origin := of.get((folder, _unaltered(stem)))) not in (None, path):
            altered.append(f"{path.name} of {origin.name}")
        elif ROBOFLOW.search(stem):
            origin = first.setdefault((folder, ROBOFLOW.sub("", stem)), path)
            if origin is not path:
                altered.append(f"{path.name} of {origin.name}")
    if drawn:
        raise DataError(
            f"{source}: by their names, {len(drawn)} images are drawings on other images, and not "
            f"photos to learn from: {shown(drawn)}. Move them elsewhere, or list the photos in a "
            ".csv table with the columns path and label."
        )
    if altered:
        are = f"{len(altered)} images are altered copies"
        if len(altered) == 1:
            are = "1 image is an altered copy"
        return [
            f"By their names, {are} of others: "
            f"{shown(altered)}. If a model is tested on copies of its training photos, the figures "
            "are too good. Keep each photo and its copies in one part: use a .csv table with the "
            "column group."
        ]
    return []


def _unaltered(stem: str) -> str:
    """Return the name that the original of an altered copy has; the same name if it is none."""
    return EDITED.sub("img_", ALTERED.sub("", stem))
