"""Images that belong to another one in the same folder, by their names: `7_mask.png` is drawn on
`7.png`, and `7_aug.png` is a copy of it that was altered.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tfxfer.data.duplicates import shown
from tfxfer.data.images import EXTRA
from tfxfer.errors import DataError

DRAWN = re.compile(r"[-_. ]*(mask|seg|segmentation|groundtruth|annotation|gt)s?([-_. ]?\d+)?$")
ALTERED = re.compile(
    r"[-_. ]+((aug|augmented|flip|flipped|rot|rotated|mirror|mirrored|crop|cropped|copy)"
    r"[-_. ]?[a-z0-9]*|thumb|thumbnail|small|resized|scaled|edit|edited|kopie|copie|copia)$"
    r"|[-_. ]*\([^()]*conflicted copy[^()]*\)$"  # of Dropbox
)
# Roboflow writes one photo several times, as photo_jpg.rf.1f0c...jpg.
ROBOFLOW = re.compile(r"\.rf\.[0-9a-f]{8,}$")
# Phones and cameras write these beside a JPEG of the same photo.
SECOND = EXTRA | {".webp", ".jxl"}
MANY = 0.25  # of all images: so many do not have another one's name by chance


def check_companions(paths: Iterable[Path], source: str) -> list[str]:
    """A note on images that are altered copies of others.

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
        twins = [pair for pair in twins if {path.suffix.casefold() for path in pair} & SECOND]
    drawn, altered = [], [f"{path.name} of {other.name}" for path, other in twins]
    first: dict[tuple[Path, str], Path] = {}
    for (folder, stem), path in of.items():
        if (origin := of.get((folder, DRAWN.sub("", stem)))) not in (None, path):
            drawn.append(f"{path.name} on {origin.name}")
        elif (origin := of.get((folder, ALTERED.sub("", stem)))) not in (None, path):
            altered.append(f"{path.name} of {origin.name}")
        elif ROBOFLOW.search(stem):
            origin = first.setdefault((folder, ROBOFLOW.sub("", stem)), path)
            if origin is not path:
                altered.append(f"{path.name} of {origin.name}")
    if drawn:
        raise DataError(
            f"{source}: {len(drawn)} images are drawings on others by their names, no photos to "
            f"learn from: {shown(drawn)}. Move them elsewhere, or list the photos in a .csv table "
            "with the columns path and label."
        )
    if altered:
        return [
            f"{len(altered)} images are altered copies of others by their names: "
            f"{shown(altered)}. Figures are too good where a photo is trained on and a copy of it "
            "judges. Keep each photo's copies in one part: with a .csv table and its column group."
        ]
    return []
