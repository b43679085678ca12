"""The files that look most like another, by the network's features."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

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
        The errors of `look_at`.
    """
    asked = look_at(folder, files, **options)
    searched = look_at(folder, among, **options)
    places = [os.path.realpath(file) for file in searched.files]
    neighbours: list[Neighbour] = []
    for file, vector in zip(asked.files, asked.vectors, strict=True):
        cosines = searched.vectors @ vector
        itself = os.path.realpath(file)
        order = [i for i in np.argsort(-cosines, kind="stable") if places[i] != itself]
        neighbours += [Neighbour(file, searched.files[i], float(cosines[i])) for i in order[:count]]
    return neighbours
