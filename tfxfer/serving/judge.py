"""A finished run's model on labelled images."""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tfxfer.data import Examples, Found, find_source, load, with_plain_names
from tfxfer.errors import DataError, ImageError
from tfxfer.evaluate import score
from tfxfer.names import one_line
from tfxfer.run import Finished, open_run, same
from tfxfer.serving.answers import SHOWN, answers, listed, said_of_damage
from tfxfer.serving.model import open_model


def evaluate(
    folder: str | os.PathLike,
    data: str | os.PathLike | Examples,
    *,
    data_dir: str | os.PathLike | None = None,
    batch_size: int = 32,
    trust: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judge a finished run's model on labelled images: figures as in metrics.json (see `tfxfer.evaluate.score`).

    What is judged: of the run's own data its test part, as the run split it; of other data the test part where there is one, else every image.
    Classes are matched by name; those that the data lacks count for nothing. Photos that are damaged
    and decoded all the same count, and are named on stderr.

    Raises:
        RunError, ServingError: the run can't be used.
        DataError: no images, or classes that the model doesn't know.
        ImageError: files that can't be decoded.
    """
    run = open_run(folder)
    found = labelled(run, data, data_dir)
    own = "test" in (found.splits or ())
    chosen = [
        i
        for i, split in enumerate(found.splits or [""] * len(found.files))
        if split == "test" or not own
    ]
    model = open_model(folder, trust=trust)
    found, _ = with_plain_names(found)
    if unknown := sorted({found.names[i] for i in chosen} - set(model.classes)):
        raise DataError(
            f"{found.source} has classes that the model doesn't know: "
            f"{', '.join(map(repr, unknown[:SHOWN]))}. "
            f"It knows: {', '.join(map(repr, model.classes[:SHOWN]))}."
        )
    log(
        f"{found.source}: {'the test part' if own else 'all images'}, {len(chosen):,} of {len(found.files):,}"
    )
    files = [found.files[i] for i in chosen]
    damaged: dict[int, str] = {}
    rows = list(answers(model, lambda i: found.read(chosen[i]), files, batch_size, damaged))
    for i, reason in damaged.items():
        print(one_line(said_of_damage(files[i], reason)), file=sys.stderr)
    if bad := [row for row in rows if isinstance(row, str)]:
        raise ImageError(
            f"{len(bad)} of {len(rows)} images can't be judged: {listed(bad)} Repair or remove them."
        )
    probabilities = np.stack([row["probabilities"] for row in rows if not isinstance(row, str)])
    return score(
        np.array([model.classes.index(found.names[i]) for i in chosen]),
        probabilities,
        model.classes,
    )


def labelled(
    run: Finished, data: str | os.PathLike | Examples, data_dir: str | os.PathLike | None
) -> Found:
    """Labelled images as they are, without a split that nobody asked for; the run's own data as the run split it."""
    source = data if isinstance(data, Examples) else os.fspath(data)
    if not isinstance(source, Examples) and same(
        run.settings().get("data", {}).get("value"), source
    ):
        source = own_images(run, data_dir)
    if isinstance(source, Examples):
        return Found(
            source.files,
            [source.classes[i] for i in source.labels],
            source.read,
            source.source,
            source.splits,
        )
    if (found := find_source(source, data_dir, judging=True)) is None:
        raise DataError(
            f"{source} is no labelled data. Expected a folder with a folder for each class, a "
            ".zip or .tar of one, "
            "a .csv file with the columns path and label, tfds:NAME, or demo."
        )
    return found


def own_images(run: Finished, data_dir: str | os.PathLike | None) -> Examples:
    """The run's own images, as it split them.

    Raises:
        DataError: they are gone, or no longer those that the run was fitted on.
    """
    settings = {name: setting["value"] for name, setting in run.settings().items()}
    data = run.setting("data", lambda value: isinstance(value, str), "the images of the run")
    seed = run.setting("seed", lambda value: type(value) is int, "a number")
    skip = run.setting("skip_bad_images", lambda value: isinstance(value, bool), "true or false")
    own_dir = run.setting(
        "data_dir", lambda value: value is None or isinstance(value, str), "a folder"
    )
    if data_dir is None and own_dir is not None and not run.is_own():
        # What TensorFlow Datasets downloads is written there; images alone are but read.
        raise DataError(
            f"{run.folder} was not written by you on this machine and under this path, and names the folder {own_dir}"
            " for data. Say where the data is with --data-dir."
        )
    examples = load(data, data_dir=data_dir or own_dir, seed=seed, skip_bad_images=skip)
    if not skip and examples.fingerprint != settings.get("data_fingerprint", examples.fingerprint):
        raise DataError(
            f"{data} is no longer what {run.folder} was fitted on, and would be split otherwise. "
            "Put the images back, run again, or give new ones a folder of their own."
        )
    return examples
