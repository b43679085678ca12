"""Find images of one person, one video or the like by their names: `person7_bacteria_24.jpeg`."""

import re
from collections import defaultdict
from collections.abc import Sequence

from tfxfer.data.duplicates import shown

SERIES = re.compile(
    r"(?<![a-z])(person|patient|pat|subject|subj|sub|participant|individual|animal|case|slide|"
    r"video|vid|clip|movie|scene|sequence|seq)[-_. ]?\d+"
)


def said_of_series(stems: Sequence[str], splits: Sequence[str] | None) -> list[str]:
    """Return a note if images of one person, video or the like are or may be in different parts.

    Args:
        stems: the names of the images, without their endings.
        splits: the part of each image, or None if the images are not split yet.
    """
    series: dict[str, list[int]] = defaultdict(list)
    for i, stem in enumerate(stems):
        if match := SERIES.search(stem.casefold()):
            series[stem[: match.end()]].append(i)
    if splits is not None:
        torn = [name for name, at in series.items() if len({splits[i] for i in at}) > 1]
        if not torn:
            return []
        return [
            f"By their names, examples of one person, video or the like are in several parts "
            f"({shown(sorted(torn))}). If some of these are used to train and others to test, the "
            "figures are too good."
        ]
    several = [name for name, at in series.items() if len(at) > 1]
    if not several:
        return []
    count = sum(len(series[name]) for name in several)
    return [
        f"By their names, {count} examples are of {len(several)} persons, videos or the like "
        f"({shown(sorted(several))}). If examples of one are used to train and to test, the "
        "figures are too good. Keep the examples of each one in one part: use a .csv table with "
        "the column group."
    ]
