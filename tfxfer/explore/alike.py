"""The files that look most like another, by the network's features."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfxfer.errors import ImageError
from tfxfer.explore.seen import look_at


class Neighbour(NamedTuple):
    """A file that looks like another one.

    file: the file that was asked about.
    like: a similar file.
    similarity: the cosine of the angle between their features, at most 1.
    """

    file: str
    like: str
    similarity: float


def find_alike(
    folder: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    among: Iterable[str | os.PathLike[str]],
    *,
    count: int = 10,
    **options: Any,
) -> list[Neighbour]:
    """Return the most similar files for each of `files`, the most similar first.

    A file is never its own neighbour; an exact copy of it is.

    Args:
        folder: a finished run, whose network computes the features.
        files: files to find neighbours of.
        among: files and folders that are searched.
        count: how many neighbours of each.
        options: `batch_size`, `trust` and `progress`, see `look_at`.

    Raises:
        ImageError: no file that is asked about, or none that is searched, can be read.
        The other errors are those of `look_at`.
    """
    # One look at all of them: the model is loaded once.
    seen = look_at(folder, [*files, *among], **options)
    names = [os.fspath(file) for file in files]
    asked = [seen.files.index(name) for name in names if name in seen.files]
    searched = np.setdiff1d(np.arange(len(seen.files)), asked)
    if not (len(asked) and len(searched)):
        raise ImageError("none of the files to compare can be read")
    places = {i: os.path.realpath(seen.files[i]) for i in range(len(seen.files))}
    neighbours: list[Neighbour] = []
    for i in asked:
        cosines = seen.vectors[searched] @ seen.vectors[i]
        order = searched[np.argsort(-cosines, kind="stable")]
        similarity = dict(zip(searched, cosines, strict=True))
        others = [j for j in order if places[j] != places[i]]
        neighbours += [
            Neighbour(seen.files[i], seen.files[j], float(similarity[j])) for j in others[:count]
        ]
    return neighbours
