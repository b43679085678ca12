"""Predict the classes of files."""

import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfxfer.data import Unlabelled, find_unlabelled
from tfxfer.errors import ImageError, ServingError
from tfxfer.evaluate import members
from tfxfer.evaluate.doubt import FALSE_ALARMS
from tfxfer.features import Progress
from tfxfer.inputs import how_many
from tfxfer.safety.names import one_line
from tfxfer.serving.answers import SHOWN, answers, list_files, say_damage
from tfxfer.serving.kind import kind_of
from tfxfer.serving.model import Served, open_model

LOG = logging.getLogger(__name__)
MANY = 100  # from so many files on, progress is shown also where it is quick


class Answer(NamedTuple):
    """One line of `tfxfer predict` where the answer is no class.

    file: as given or found.
    values: what the model says, by the names of columns: for several labels "labels" and the
        probability of each; for numbers each number, and the ends of its interval as "NAME_low" and
        "NAME_high".
    label: what is true, as text, where it is known; None for an example without a label.
    given: the cells of its row by the names of the columns; None where it is of no table.
    """

    file: str
    values: Mapping[str, Any]
    label: str | None = None
    given: Mapping[str, str] | None = None


class Prediction(NamedTuple):
    """One line of `tfxfer predict` where the answer is a class.

    file: as given or found.
    predicted, probability: its class, and the calibrated probability of that class.
    others: the next most probable classes with their probabilities, as many as were asked for.
    set: classes that hold the true one as often as was asked for; None where it was not asked for.
    unknown: whether it probably belongs to no class; None where it was not asked for.
    label: the true class, where it is known; None for an example without a label.
    given: the cells of its row by the names of the columns; None where it is of no table.
    """

    file: str
    predicted: str
    probability: float
    others: tuple[tuple[str, float], ...] = ()
    set: tuple[str, ...] | None = None
    unknown: bool | None = None
    label: str | None = None
    given: Mapping[str, str] | None = None


def predict(
    folder: str | os.PathLike,
    paths: Iterable[str | os.PathLike] | Unlabelled,
    *,
    top_k: int = 1,
    sets: float | None = None,
    unknown: bool = False,
    batch_size: int = 32,
    trust: bool = False,
    progress: bool = False,
) -> Iterator[Prediction | Answer]:
    """Predict files, and those in folders, with a finished run's model or an export of it.

    The rows of .csv and .tsv tables name files or hold texts. A row with a text is then named
    TABLE:LINE. The answers of rows keep the cells of the table.

    Yields one `Prediction` for each file, in the order given, and sorted within a folder; an
    `Answer` where the model's answers are no classes. In folders, hidden files and files that are
    no examples are skipped.

    An example that is damaged but can be decoded is answered, and named on stderr at the end.

    Args:
        paths: files, folders and tables, or what `tfxfer.data.find_unlabelled` found there.
        top_k: how many classes to name, the most probable one included.
        sets: also give the set of classes that holds the true one with this probability (see
            `tfxfer.tasks.sets`), above 0 and below 1.
        unknown: also tell whether an example belongs to none of the classes. One in twenty of
            known classes is marked, too (see `tfxfer.evaluate.doubt`).
        progress: show examples per second and the time left on stderr.

    Raises:
        RunError, ServingError: the model can't be used, or can't give `sets` or `unknown`.
        DataError: a path does not exist, or there is no example at all.
        ImageError: files can't be decoded; raised after all others were predicted.
        ValueError: `top_k` is below 1.
    """
    kind = kind_of(Path(folder))
    found = paths if isinstance(paths, Unlabelled) else find_unlabelled(paths, kind)
    model = open_for_predictions(folder, top_k=top_k, sets=sets, unknown=unknown, trust=trust)
    return predictions(
        model,
        found.files,
        found.read,
        batch_size,
        top_k=top_k,
        sets=sets,
        unknown=unknown,
        progress=progress,
        given=found.given,
    )


def predict_contents(
    folder: str | os.PathLike,
    contents: Mapping[str, bytes],
    *,
    top_k: int = 1,
    sets: float | None = None,
    unknown: bool = False,
    batch_size: int = 32,
    trust: bool = False,
) -> Iterator[Prediction | Answer]:
    """Predict files that are in memory.

    Args:
        contents: the name of each file and its bytes.

    Other Args and Raises are those of `predict`.
    """
    model = open_for_predictions(folder, top_k=top_k, sets=sets, unknown=unknown, trust=trust)
    files = list(contents)
    return predictions(
        model,
        files,
        lambda i: contents[files[i]],
        batch_size,
        top_k=top_k,
        sets=sets,
        unknown=unknown,
    )


def open_for_predictions(
    folder: str | os.PathLike, *, top_k: int, sets: float | None, unknown: bool, trust: bool
) -> Served:
    """Load a model, and check that it can give what is asked for; see `predict`."""
    if top_k < 1:
        raise ValueError(f"Expected top_k of at least 1. Received: top_k={top_k}")
    model = open_model(folder, trust=trust)
    many = model.kind.MANY
    asked = {"--top-k": top_k > 1, "--sets": sets is not None, "--unknown": unknown}
    if not model.task.CLASSES and any(asked.values()):
        names = " and ".join(name for name, one in asked.items() if one)
        raise ServingError(
            f"{os.fspath(folder)} has answers of the kind {model.task.NAME}, and {names} is for "
            "classes. Leave it out."
        )
    if (sets is not None or unknown) and model.doubt is None:
        raise ServingError(
            f"{os.fspath(folder)} has no doubt.npz, which prediction sets and unknown "
            f"{many} need: no example was held out when it was fitted, or it was grown without its "
            f"old {many}. Run it again on all {many}, two or more of each class."
        )
    if unknown and "unknown" not in model.says:
        raise ServingError(
            f"{os.fspath(folder)} has no tensor that its head sees, which the score for unknown "
            f"{many} needs. Leave --unknown out."
        )
    if unknown and model.doubt and model.doubt.threshold == math.inf:
        count, fewest = len(model.doubt.known), model.doubt.fewest
        raise ServingError(
            f"{count} held-out {many} are too few to tell what fits no class; at least {fewest} "
            f"are needed. Leave --unknown out, or add {many}."
        )
    return model


def predictions(
    model: Served,
    files: list[str],
    read: Callable[[int], bytes],
    batch_size: int,
    *,
    top_k: int = 1,
    sets: float | None = None,
    unknown: bool = False,
    progress: bool = False,
    given: Sequence[Mapping[str, str]] | None = None,
) -> Iterator[Prediction | Answer]:
    least = model.doubt.least(sets) if model.doubt and sets is not None else None
    strange = model.doubt.threshold if model.doubt and unknown else None
    knows = model.doubt is not None and "unknown" in model.says
    threshold = model.doubt.threshold if model.doubt and knows else math.inf
    unlike = 0  # examples that --unknown would mark
    many, quick = model.kind.MANY, len(files) < MANY
    LOG.info(f"Predicting {how_many(len(files), model.kind)}")
    bad: list[str] = []
    damaged: dict[int, str] = {}
    with closing(Progress(len(files), progress, "predict", unit=many, quick=quick)) as shown:
        for file, cells, answer in zip(
            files,
            given or repeat(None, len(files)),
            answers(
                model,
                read,
                files,
                batch_size=batch_size,
                damaged=damaged,
            ),
            strict=True,
        ):
            shown.update(1)
            if isinstance(answer, str):
                bad.append(answer)
                continue
            if threshold < math.inf and answer["unknown"] > threshold:
                unlike += 1
            probabilities = answer["probabilities"]
            if not model.task.CLASSES:
                values = model.task.columns(probabilities, model.classes, model.decision)
                yield Answer(file, values, given=cells)
                continue
            order = np.argsort(-probabilities, kind="stable")
            first, *others = [(model.classes[i], float(probabilities[i])) for i in order[:top_k]]
            inside = (
                None
                if least is None
                else tuple(
                    model.classes[i]
                    for i in order[: int(members(probabilities[None], least).sum())]
                )
            )
            yield Prediction(
                file,
                *first,
                tuple(others),
                inside,
                None if strange is None else bool(answer["unknown"] > strange),
                given=cells,
            )
    say_damage(files, damaged)
    answered = len(files) - len(bad)
    if not unknown and unlike > FALSE_ALARMS * answered:
        LOG.info(
            f"{unlike:,} of {answered:,} {many} look unlike every class: add --unknown to mark them"
        )
    if bad:
        rest = "the others were predicted" if len(bad) < len(files) else "no file was"
        said = f"{len(bad):,} of {len(files):,} files can't be predicted, {rest}"
        bad = list(map(one_line, bad))
        if len(bad) <= SHOWN:
            raise ImageError(f"{said}: {list_files(bad)}")
        # So many fit into no error, so there is a line for each above it.
        for text in bad:
            print(text, file=sys.stderr)
        raise ImageError(f"{said}. Each has a line above, the first: {bad[0]}.")
