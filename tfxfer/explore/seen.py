"""Run the model of a finished run on files, for their features and predictions."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.data import find_unlabelled
from tfxfer.errors import ImageError, ServingError
from tfxfer.features import Progress
from tfxfer.heads.fitted import normalise_taps
from tfxfer.inputs import Kind
from tfxfer.safety.names import one_line
from tfxfer.serving.answers import answers, say_damage
from tfxfer.serving.kind import kind_of
from tfxfer.serving.model import Served, open_model
from tfxfer.tasks import Task

MANY = 100  # from so many files on, progress is shown also where it is quick


@dataclass(frozen=True, eq=False)
class Seen:
    """The features and predictions of files.

    files: those that could be read.
    classes: the names of the predictions' columns.
    task: the kind of answer.
    vectors: float32 [n, d], each of length one: the network's own output.
    predictions: float64 [n, C].
    decision: what turns predictions into answers; see `Task.decide`.
    strange: bool [n], whether a file looks unlike every class; None where the run can't tell.
    read: a function from the index of an example to its content, where some are rows of tables;
        None where all are files.
    """

    kind: Kind
    files: tuple[str, ...]
    classes: tuple[str, ...]
    task: Task
    vectors: np.ndarray
    predictions: np.ndarray
    decision: Mapping[str, Any]
    strange: np.ndarray | None
    read: Callable[[int], bytes] | None = None


def look_at(
    folder: str | os.PathLike[str],
    paths: Iterable[str | os.PathLike[str]],
    *,
    batch_size: int = 32,
    trust: bool = False,
    progress: bool = False,
) -> Seen:
    """Run the model of a finished run on files, on those in folders, and on rows of tables.

    A file that can't be read is named on stderr, and left out.

    Raises:
        RunError, ServingError: the folder is not a finished run, or its model has no features.
        DataError: a path does not exist, or there is no file.
        ImageError: no file can be read.
    """
    found = find_unlabelled(paths, kind_of(Path(folder)))
    files = found.files
    model = open_model(folder, trust=trust, features=True)
    if "features" not in model.says:
        raise ServingError(
            f"{os.fspath(folder)} has a model that is the mean of several, or an export: there are "
            "no features that belong to a file. Expected the run of a frozen or tuned model."
        )
    readable: list[int] = []
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    damaged: dict[int, str] = {}
    quick = len(files) < MANY
    with closing(
        Progress(len(files), progress, "look", unit=model.kind.MANY, quick=quick)
    ) as shown:
        answered = answers(model, found.read, files, batch_size=batch_size, damaged=damaged)
        for i, row in enumerate(answered):
            shown.update(1)
            if isinstance(row, str):
                bad.append(row)
            else:
                readable.append(i)
                rows.append(row)
    say_damage(files, damaged)
    for text in bad:
        print(one_line(text), file=sys.stderr)
    if not readable:
        raise ImageError(f"none of the {len(files)} files can be read")
    features = own_output(np.stack([row["features"] for row in rows]), model)
    return Seen(
        kind=model.kind,
        files=tuple(files[i] for i in readable),
        classes=model.classes,
        task=model.task,
        vectors=normalise_taps(features, (features.shape[1],)),
        predictions=np.stack([row["probabilities"] for row in rows]).astype(np.float64),
        decision=model.decision,
        strange=find_strange(rows, model),
        read=(lambda i: found.read(readable[i])) if found.in_table else None,
    )


def own_output(features: np.ndarray, model: Served) -> np.ndarray:
    """Return the columns of the network's own output; all where the run does not know them."""
    if model.doubt is None:
        return features
    start = features.shape[1] - model.doubt.tail
    return features[:, start : start + len(model.doubt.unknown.mean)]


def find_strange(rows: list[dict[str, Any]], model: Served) -> np.ndarray | None:
    """Return which files look unlike every class, bool [n]; None where the run can't tell."""
    if model.doubt is None or "unknown" not in model.says or np.isinf(model.doubt.threshold):
        return None
    return np.array([row["unknown"] > model.doubt.threshold for row in rows])
