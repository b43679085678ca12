"""Judge a finished run's model on labelled examples."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfxfer.data import Examples, Found, find_source, load, no_source, with_plain_names
from tfxfer.data.duplicates import find_firsts
from tfxfer.data.examples import IN_MEMORY
from tfxfer.data.union import add_examples, load_more
from tfxfer.errors import DataError, ImageError, RunError
from tfxfer.features import Progress
from tfxfer.heads import growable
from tfxfer.inputs import Kind
from tfxfer.run import Finished, open_run, same
from tfxfer.safety.arrays import read_arrays
from tfxfer.serving.answers import answers, list_files, say_damage
from tfxfer.serving.model import Served, open_model
from tfxfer.serving.predict import Answer, Prediction
from tfxfer.tasks import Task
from tfxfer.tasks.cells import LabelError

LOG = logging.getLogger(__name__)
CLASSES = 40  # in a table; of more classes, it lists those that are recognised worst
CONFUSIONS = 5  # pairs of confused classes that are listed


@dataclass(frozen=True, eq=False)
class Judged:
    """A model's answers for labelled examples.

    Args:
        task: the kind of answer.
        kind: the kind of example.
        files: n names.
        labels: the targets, [n, ...]; for classes int [n].
        probabilities: the predictions, float64 [n, C].
        classes: C names.
        first: bool [n], False for a copy of an earlier example with the same label, so that figures
            count each one once.
        paths: where the examples are on disk; empty where they are not files.
        decision: what turns predictions into answers (see `Task.decide`).
    """

    task: Task
    kind: Kind
    files: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[str]
    first: np.ndarray
    paths: Sequence[str | os.PathLike] = ()
    decision: Mapping[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Figures as in metrics.json (see `tfxfer.evaluate.score`)."""
        labels, predictions = self.labels[self.first], self.probabilities[self.first]
        return self.task.figures(labels, predictions, self.classes, self.decision)

    def predictions(self) -> Iterator[Prediction | Answer]:
        """Each example with its label and the model's answer."""
        if not self.task.CLASSES:
            rows = zip(self.files, self.labels, self.probabilities, strict=True)
            for file, target, prediction in rows:
                values = self.task.columns(prediction, self.classes, self.decision)
                yield Answer(file, values, self.task.said_of_target(target, self.classes))
            return
        best, sure = self.task.answers(self.probabilities)
        for file, label, answer, probability in zip(
            self.files, self.labels, best, sure, strict=True
        ):
            predicted, true = self.classes[answer], self.classes[label]
            yield Prediction(file, predicted, float(probability), label=true)

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return (true class, predicted class, count), the most frequent confusion first."""
        best, _ = self.task.answers(self.probabilities)
        pairs = np.stack([self.labels, best], 1)[self.first]
        wrong, counts = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
        return [
            (self.classes[wrong[i][0]], self.classes[wrong[i][1]], int(counts[i]))
            for i in np.argsort(-counts, kind="stable")
        ]

    def class_rows(self) -> list[tuple[str, ...]]:
        """Return a table of the outputs that have examples; [] where the task has no such figures.

        Of more than `CLASSES` classes, it has only those that are recognised worst.
        """
        classes = self.figures().get("classes")
        if classes is None:
            return []
        class_figures = [(name, figures) for name, figures in classes.items() if figures["n"]]
        if len(class_figures) > CLASSES:
            class_figures = sorted(class_figures, key=lambda each: each[1]["recall"])[:CLASSES]
        noun = self.task.NOUN
        rows: list[tuple[str, ...]] = [
            (noun, self.kind.MANY, "recall", "95 % interval", "precision")
        ]
        for name, figures in class_figures:
            interval = f"{figures['recall_low']:.3f} to {figures['recall_high']:.3f}"
            precision = "-" if figures["precision"] is None else f"{figures['precision']:.3f}"
            rows.append(
                (name, f"{figures['n']:,}", f"{figures['recall']:.3f}", interval, precision)
            )
        return rows

    def headline(self) -> str:
        """The score in one line."""
        figures = self.figures()
        interval = f"{figures['low']:.3f} to {figures['high']:.3f}"
        score = self.task.SCORE
        return f"{score} {figures[score]:.3f}, 95 % interval {interval}, n = {figures['n']:,}"

    def notes(self) -> list[str]:
        """Explain the table, and name the classes that are mixed up most."""
        score = f"{self.task.SCORE}: {self.task.SCORE_MEANS}"
        if not self.class_rows():
            return [score, *self.task.more_said(self.figures())]
        lines = [
            f"recall: how many of the {self.kind.MANY} of this {self.task.NOUN} were recognised. "
            f"precision: how many of the answers with this {self.task.NOUN} were right."
        ]
        if not self.task.CLASSES:
            return [score, *lines, *self.task.more_said(self.figures())]
        if (present := len(np.unique(self.labels))) > CLASSES:
            lines.append(
                f"The table lists {CLASSES} of {present:,} classes: the lowest recall first."
            )
        confusions = self.confusions()
        if not confusions:
            return [*lines, f"No {self.kind.ONE} was taken for another class."]
        for true, said, count in confusions[:CONFUSIONS]:
            of = int(np.sum(self.labels[self.first] == list(self.classes).index(true)))
            lines.append(
                f"mixed up: {count:,} of {of:,} {self.kind.MANY} of {true} were taken for {said}"
            )
        return lines


def evaluate(
    folder: str | os.PathLike,
    data: str | os.PathLike | Examples | Found,
    **options: Any,
) -> dict[str, Any]:
    """Judge a finished run's model on labelled examples: figures as in metrics.json.

    See `tfxfer.evaluate.score` for what they are. Arguments and errors are those of `judge`.
    """
    return judge(folder, data, **options).figures()


def judge(
    folder: str | os.PathLike,
    data: str | os.PathLike | Examples | Found,
    *,
    data_dir: str | os.PathLike | None = None,
    batch_size: int = 32,
    trust: bool = False,
    progress: bool = False,
) -> Judged:
    """Return the answers of a finished run's model for labelled examples.

    Of the run's own data, the test part is judged, as the run split it. Of other data, the test
    part is judged where there is one, otherwise every example. Classes are matched by name; classes
    that the data lacks count for nothing. Photos that are damaged but can be decoded count, and are
    named on stderr.

    Args:
        progress: show examples per second and the time left on stderr, if it takes long.

    Raises:
        RunError, ServingError: the run can't be used.
        DataError: there are no examples, or classes that the model doesn't know.
        ImageError: some files can't be decoded.
    """
    run = open_run(folder)
    labelled = load_labelled(run, data, data_dir)
    own = "test" in (labelled.splits or ())
    chosen = [
        i
        for i, split in enumerate(labelled.splits or [""] * len(labelled.files))
        if split == "test" or not own
    ]
    trained = find_trained_on(run)
    model, many = open_model(folder, trust=trust), run.kind().MANY
    targets = targets_of(labelled, chosen, model)
    LOG.info(
        f"{labelled.source}: {'the test part' if own else f'all {many}'}, "
        f"{len(chosen):,} of {len(labelled.files):,}"
    )
    files = [labelled.files[i] for i in chosen]
    damaged: dict[int, str] = {}
    contents: dict[int, str] = {}

    def read(i: int) -> bytes:
        data = labelled.read(chosen[i])
        contents[i] = hashlib.sha256(data).hexdigest()
        return data

    rows = []
    with closing(Progress(len(files), progress, "evaluate", unit=many, quick=True)) as shown:
        for row in answers(model, read, files, batch_size=batch_size, damaged=damaged):
            rows.append(row)
            shown.update(1)
    say_damage(files, damaged)
    if bad := [row for row in rows if isinstance(row, str)]:
        raise ImageError(
            f"{len(bad)} of {len(rows)} {many} can't be judged: {list_files(bad)} "
            "Repair or remove them."
        )
    probabilities = np.stack([row["probabilities"] for row in rows if not isinstance(row, str)])
    first = find_firsts(
        [contents[i] for i in range(len(targets))], [label.tobytes() for label in targets]
    )
    if known := sum(content in trained for content in contents.values()):
        LOG.info(
            f"The model was trained on {known:,} of these {len(targets):,} {many}, so that the "
            "figures are too good. Leave these out."
        )
    if copies := len(targets) - len(first):
        LOG.info(
            f"Copies of others with the same label: {copies:,}. Each {run.kind().ONE} counts once."
        )
    return Judged(
        task=run.task(),
        kind=run.kind(),
        files=files,
        labels=targets,
        probabilities=probabilities,
        classes=model.classes,
        first=np.isin(np.arange(len(targets)), first),
        paths=[labelled.paths[i] for i in chosen] if labelled.paths else (),
        decision=model.decision,
    )


def targets_of(labelled: Found, chosen: Sequence[int], model: Served) -> np.ndarray:
    """Return the targets of some of the examples, in the order of the model's outputs.

    Raises:
        DataError: the examples have labels that the model doesn't know, or none of the right kind.
    """
    if model.task.CLASSES:
        labelled, _ = with_plain_names(labelled)
    texts = [labelled.names[i] for i in chosen]
    order = labelled.classes if labelled.classes is not None else model.classes
    try:
        return model.task.encode_known(texts, order, model.classes)
    except LabelError as error:
        raise DataError(f"{labelled.place(chosen[error.index])} {error}.") from error
    except ValueError as error:
        raise DataError(f"{labelled.source} {error}.") from error


def find_trained_on(run: Finished) -> set[str]:
    """Return the hashes of a run's training examples, as far as the run recorded them.

    A run that was grown without its old examples lists these in statistics.npz only.
    """
    known: set[str] = set()
    try:
        arrays = read_arrays(run.path("probabilities.npz"))
        known |= set(arrays["digests"][arrays["splits"] == "train"].tolist())
        kept = run.path("statistics.npz")
        known |= set(growable.load(kept).digests if kept.is_file() else ())
    except (OSError, ValueError, KeyError, RunError):
        return known  # the files are needed for nothing else here
    return known


def load_labelled(
    run: Finished, data: str | os.PathLike | Examples | Found, data_dir: str | os.PathLike | None
) -> Found:
    """Find labelled examples, without a split that nobody asked for.

    The run's own data is split as the run split it.
    """
    if isinstance(data, Found):
        return data
    source = data if isinstance(data, Examples) else os.fspath(data)
    if not isinstance(source, Examples) and same(
        run.settings().get("data", {}).get("value"), source
    ):
        source = load_own_examples(run, data_dir)
    if isinstance(source, Examples):
        return Found(
            files=source.files,
            names=source.task.texts(source.labels, source.classes),
            classes=None if source.task.CLASSES else source.classes,
            read=source.read,
            source=source.source,
            splits=source.splits,
        )
    kind, task = run.kind(), run.task()
    labels = run.settings().get("label", {}).get("value") or (() if task.CLASSES else run.classes())
    labelled = find_source(source, data_dir, judging=True, kind=kind, task=task, labels=labels)
    if labelled is None:
        raise no_source(source)
    return labelled


def load_own_examples(
    run: Finished, data_dir: str | os.PathLike | None, examples: Examples | None = None
) -> Examples:
    """Return the run's own examples, as it split them.

    Args:
        examples: the examples themselves, where they were made in Python.

    Raises:
        DataError: the examples are gone, or no longer those that the run was fitted on.
    """
    settings = {name: setting["value"] for name, setting in run.settings().items()}
    data = run.setting("data", lambda value: isinstance(value, str), "the data of the run")
    seed = run.setting("seed", lambda value: type(value) is int, "a number")
    skip = run.setting("skip_bad_images", lambda value: isinstance(value, bool), "true or false")
    own_dir = run.setting(
        "data_dir", lambda value: value is None or isinstance(value, str), "a folder"
    )
    if data_dir is None and own_dir is not None and not run.is_own():
        # TensorFlow Datasets writes its downloads into that folder; examples are only read.
        raise DataError(
            f"{run.folder} was not written by you on this machine and under this path, and names "
            f"the folder {own_dir} for data. Say where the data is with --data-dir."
        )
    if examples is None:
        if "call" in settings and data.endswith(IN_MEMORY) and not os.path.exists(data):
            raise DataError(
                f"only the Python program that made {run.folder} had them ({data}). Pass them on "
                "in Python, as tfxfer.serving.export_litert(..., data=examples)."
            )
        examples = load(
            data,
            data_dir=data_dir or own_dir,
            seed=seed,
            skip_bad_images=skip,
            task=run.task().NAME,
            labels=settings.get("label") or (),
        )
    added = settings.get("added_data", [])
    noted = settings.get("first_fingerprint" if added else "data_fingerprint", examples.fingerprint)
    if not skip and examples.fingerprint != noted:
        raise DataError(
            f"{data} is no longer what {run.folder} was fitted on, and would be split otherwise. "
            f"Put the {run.kind().MANY} back, run again, or give new ones a folder of their own."
        )
    if added:
        run.setting("added_data", are_parts, "the source and the fingerprint of each data")
    for part in added:
        more = load_more(
            part["data"],
            kind=run.kind(),
            data_dir=data_dir or own_dir,
            seed=seed,
            skip_bad_images=skip,
            labels=settings.get("label") or (),
        )
        if not skip and more.fingerprint != part["fingerprint"]:
            raise DataError(
                f"{part['data']} is no longer what was added to {run.folder}. Put the "
                f"{run.kind().MANY} back, or run again on all {run.kind().MANY}."
            )
        examples = add_examples(examples, more)
    return examples


def are_parts(value: Any) -> bool:
    """Whether a setting lists the data that `tfxfer grow` has added."""
    return isinstance(value, list) and all(
        isinstance(part, dict)
        and isinstance(part.get("data"), str)
        and isinstance(part.get("fingerprint"), str)
        for part in value
    )
