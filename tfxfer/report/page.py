"""Show a run folder as one self-contained HTML page, and as JSON.

The folder is read, and nothing else.
"""

import base64
import csv
import io
import json
import math
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tfxfer import inputs, tasks
from tfxfer.errors import RunError
from tfxfer.evaluate import called, pays, reliability
from tfxfer.files import check_zip, open_regular
from tfxfer.inputs import TELLING, Kind
from tfxfer.limits import MOST_ROWS, MOST_THUMBNAILS
from tfxfer.report import pictures, words
from tfxfer.report.scatter import Map, scatter
from tfxfer.run import read_json, read_labels
from tfxfer.run.attempt import Failure, attempt, failures
from tfxfer.safety.arrays import read_arrays
from tfxfer.safety.names import csv_text, printable
from tfxfer.tasks import Task

AFTER = {
    "raw_pixels": ", without a pretrained network",
    "tf_idf": ", without a pretrained network",
    "last_layer_logistic": " of the pretrained network",
}
MISTAKES = 20
MOST_NUMBERS = 4  # numbers that have a picture each
CLASSES = 12  # lines of the table of classes that are shown at once; the others are folded away
MATRIX = 1000  # classes above which a confusion matrix shows nothing, and takes gigabytes
# The review of a run that has none, since an earlier version made it.
NOTHING: dict[str, Any] = {
    "counts": {},
    "samples": {},
    "notes": [],
    "label_errors": {"count": 0, "examined": 0},
    "odd": {"count": 0},
}
Tried = dict[str, pictures.Picture | Map | Failure]
NOTHING |= {name: [] for name in ("mistakes", "right", "duplicates", "map", "occlusion")}


# What figures, tables and pictures raise if a file does not have the form that runs write.
ODD = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    csv.Error,
    jinja2.TemplateError,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of predictions.csv.

    probability: that of the predicted class; where answers are no classes, the score of the answer.
    """

    file: str
    split: str
    true: str
    predicted: str
    probability: float


def facts(folder: Path) -> dict[str, Any]:
    """Read all that the page says: JSON values, and a list of `Row` as "judged".

    It comes from settings.json, labels.txt, metrics.json, predictions.csv and the other files of
    the run.

    Raises:
        RunError: one of these four files is missing, or a file is damaged.
    """
    folder = Path(folder)
    with read_report(folder):
        return read_facts(folder)


@contextmanager
def read_report(folder: Path) -> Iterator[None]:
    """Turn the error of a damaged file of a run into a RunError that names the folder."""
    try:
        yield
    except (OSError, RunError, *ODD) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise RunError(
            f"{folder} can't be reported on: {reason[0]}. "
            "A report needs settings.json, labels.txt, metrics.json and predictions.csv."
        ) from error


def read_facts(folder: Path) -> dict[str, Any]:
    """As `facts`, but a damaged file may raise any error of `ODD`."""
    settings = read_json(folder / "settings.json")
    metrics = read_json(folder / "metrics.json")
    settings.pop("signature", None)
    classes = read_labels(folder / "labels.txt")
    rows = read_predictions(folder / "predictions.csv")
    review = NOTHING | (
        there(
            folder / "review.json",
            read_json,
        )
        or {}
    )
    history = there(folder / "history.csv", epochs) or []
    task = tasks.find(settings.get("task", {}).get("value", tasks.CLASSIFY.NAME))
    kind = inputs.find(settings.get("input", {}).get("value", inputs.DEFAULT))
    split = "test" if metrics["test"] else "validation" if metrics["validation"] else None
    judged = [row for row in rows if row.split == split]
    called = split or ""
    if split == "validation" and not judged:
        # Without a validation part, its figure is that of the training examples, each judged by
        # a head that was fitted without that example.
        judged, called = [row for row in rows if row.split == "train"], "held-out training"
    bins = (
        there(
            folder / "probabilities.npz",
            lambda path: calibration(path, "train" if called.endswith("training") else called),
        )
        if judged and "calibration" in task.PICTURES
        else None
    )
    part = "train" if called.endswith("training") else called
    shown = judged and "numbers" in task.PICTURES
    pairs = there(folder / "probabilities.npz", lambda path: of_part(path, part)) if shown else None
    decision = there(folder / "decision.json", read_json) or {}
    if task.CLASSES:
        mistakes = sorted(
            (row for row in judged if row.true != row.predicted),
            key=lambda row: (-row.probability, row.file),
        )
    else:
        mistakes = sorted(
            (row for row in judged if row.probability < 1),
            key=lambda row: (row.probability, row.file),
        )
    verdict = settings.pop("verdict", {}).get("value") or pays(metrics, task=task, kind=kind)
    return {
        "title": folder.resolve().name,
        "task": task.NAME,
        "kind": kind.NAME,
        "score": task.SCORE,
        "split": split,
        "called": called,
        "figures": metrics[split] if split else None,
        "validation": metrics["validation"] if split == "test" else None,
        "verdict": verdict
        if split
        else (
            "There is no test part and no validation part, so nothing is known about new examples."
        ),
        "baselines": transfer(metrics, split, task, kind),
        "candidates": metrics.get("candidates", {}),
        "why": settings.pop("why", {}).get("value"),
        "sets": metrics.get("sets"),
        "unknown": metrics.get("unknown"),
        "classes": classes,
        "counts": review["counts"] or counts(rows),
        "history": history,
        "reliability": bins or [],
        "numbers": pairs or [],
        "decision": tasks.check_decision(decision, len(classes)),
        "judged": judged,
        "mistakes": [asdict(row) for row in mistakes],
        "review": review,
        "failures": failures(folder),
        "command": settings.get("command", {}).get("value"),
        "call": settings.get("call", {}).get("value"),
        "settings": settings,
    }


def make_page(folder: Path, tried: Tried | None = None) -> str:
    """The page of a run folder (see `facts`).

    Args:
        tried: is filled with the pictures, or with the reasons why some could not be drawn, which
            the page shows, too.
    """
    with read_report(folder):
        return draw_page(folder, {} if tried is None else tried)


def make_head(folder: Path) -> str:
    """The first lines of the page as HTML, for notebooks: how often the model is right."""
    report = facts(folder)
    task = tasks.find(report["task"])
    figures, parts = (
        report["figures"],
        [Markup("<h3>{}</h3>").format(words.heading(report["classes"], task))],
    )
    if figures:
        line = Markup(
            "<p><strong>{}</strong> {}. On more {} like these it is probably {} "
            "to {} (95&nbsp;% interval).</p>"
        )
        score = said_of_share(figures[report["score"]], task)
        low, high = (said_of_share(figures[name], task) for name in ("low", "high"))
        if task.PERCENT:
            low = low.removesuffix(" %")
        many = inputs.find(report["kind"]).MANY
        parts.append(line.format(score, said_of_score(report), many, low, high))
    if report["verdict"]:
        parts.append(Markup("<p>{}</p>").format(report["verdict"]))
    return printable("".join(parts))


def said_of_share(value: float, task: Task) -> str:
    """Return a score as text: in percent, where it is a share."""
    return f"{100 * value:.1f} %" if task.PERCENT else f"{value:.3f}"


def said_of_score(report: dict[str, Any]) -> str:
    """Return the end of the sentence that begins with the score; `report` is from `facts`."""
    figures = report["figures"]
    judged = f"{figures['n']:,} {report['called']} {inputs.find(report['kind']).MANY}"
    return tasks.find(report["task"]).said_of_score(figures, judged)


def draw_page(folder: Path, tried: Tried) -> str:
    """As `make_page`, but a damaged file may raise any error of `ODD`."""
    report = read_facts(folder)
    for title, draw in drawings(report).items():
        tried[title] = attempt(title, draw)
    shown = [picture for picture in tried.values() if not isinstance(picture, Failure)]
    undrawn = [str(picture) for picture in tried.values() if isinstance(picture, Failure)]
    report["failures"] = list(dict.fromkeys([*report["failures"], *undrawn]))
    review = report["review"]
    task, figures = tasks.find(report["task"]), report["figures"]
    kind = inputs.find(report["kind"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["score"] = lambda value: said_of_share(value, task)
    environment.filters["short"] = words.short
    environment.filters["thousands"] = words.thousands
    thumbnails = there(Path(folder) / "thumbnails.zip", embed_pictures) or {}
    mistakes = (
        review["mistakes"]
        if review["mistakes"] and (thumbnails or any(map(has_excerpt, review["mistakes"])))
        else [row | {"label": row["true"]} for row in report["mistakes"][:MISTAKES]]
    )
    text = environment.get_template("page.html.j2").render(
        **{name: value for name, value in report.items() if name not in ("mistakes", "judged")},
        pictures=[picture for picture in shown if isinstance(picture, pictures.Picture)],
        map=next((picture for picture in shown if isinstance(picture, Map)), None),
        thumbnails=thumbnails,
        shows=bool(thumbnails) or any(map(has_excerpt, [*mistakes, *review["right"]])),
        one=kind.ONE,
        many=kind.MANY,
        twins=kind.TWINS,
        mistakes=mistakes,
        n_mistakes=len(report["mistakes"]),
        n_judged=len(report["judged"]),
        heading=words.heading(report["classes"], task),
        of_classes=task.CLASSES,
        noun=task.NOUN,
        in_percent=task.PERCENT,
        description=words.description(report["settings"], report["counts"], kind),
        said_of_score=figures and said_of_score(report),
        more_said=task.more_said(figures) if figures else [],
        further=task.further(figures) if figures else [],
        steps=words.next_steps(report, str(folder)),
        called_candidate=words.candidate,
        called_setting=words.setting,
        setting_names=words.setting_names(report["settings"]),
        judged_how=words.judged_how(report),
        rows=worst_first((figures or {}).get("classes") or {}),
        open_rows=CLASSES,
        telling=[row for row in review["occlusion"] if row["most"] >= TELLING],
        similar=[row for row in review["duplicates"] if row["similarity"] >= kind.SIMILAR],
        threshold=kind.SIMILAR,
    )
    return printable(text)  # names may hold invisible characters


def has_excerpt(row: dict[str, Any]) -> bool:
    """Return whether a row of review.json holds the beginning of a text."""
    return "excerpt" in row


def worst_first(classes: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The figures of each class; the class that was recognised least often comes first."""
    return sorted(
        classes.items(), key=lambda item: (item[1]["recall"] is None, item[1]["recall"] or 0.0)
    )


def drawings(report: dict[str, Any]) -> dict[str, Callable[[], pictures.Picture | Map]]:
    """The functions that draw the pictures of the page, by title; `report` is from `facts`."""
    judged, classes, many = report["judged"], report["classes"], inputs.find(report["kind"]).MANY
    called = f"{report['called']} {many}"
    history, review, bins = report["history"], report["review"], report["reliability"]
    makers: dict[str, Callable[[], pictures.Picture | Map]] = {}
    task = tasks.find(report["task"])
    if judged and len(classes) <= MATRIX and "confusion" in task.PICTURES:
        makers["The confusion matrix"] = lambda: pictures.confusion(judged, classes, called, many)
    if bins:
        makers["The picture of calibration"] = lambda: pictures.reliability(bins, called, many)
    widths = report["decision"].get("half_widths") or [None] * len(classes)
    for name, (truth, said), half in zip(classes, report["numbers"], widths, strict=False):
        if len(truth) > 1 and len(makers) < MOST_NUMBERS:
            draw_one = partial(
                pictures.numbers, name, np.array(truth), np.array(said), half, called
            )
            makers[f"The picture of {name}"] = draw_one
    settings = report["settings"]
    rejected = settings.get("chosen", {}).get("value") == "frozen"
    whose = " (the tuned model, not chosen)" if rejected else ""
    tuning = settings.get("tuning", {}).get("value")
    folds = isinstance(tuning, dict) and rejected and tuning.get("folds", 1) > 1
    meaning = {"loss": pictures.LOSS_MEANS, task.SCORE: task.SCORE_MEANS}
    for kind, means in meaning.items():
        if any({kind, f"val_{kind}"} & row.keys() for row in history):
            draw = partial(
                pictures.curve, history, kind, means, whose=whose, folds=folds, many=many
            )
            makers[f"The learning curve of {kind}"] = draw
    if review["map"]:
        makers["The picture of the map"] = lambda: scatter(review["map"], classes, many)
    return makers


def as_json(folder: Path) -> str:
    """What the page says, for programs: `facts` as JSON.

    The judged examples are left out, because predictions.csv and probabilities.npz have them.
    """
    report = facts(folder)
    # ASCII, since names of files need not be valid Unicode.
    return (
        json.dumps(
            {name: value for name, value in report.items() if name not in ("judged", "numbers")},
            indent=2,
        )
        + "\n"
    )


def there(path: Path, read: Callable[[Path], Any]) -> Any:
    """Read a file; None if there is no such file, as in a run of an earlier version."""
    return read(path) if path.is_file() else None


def read_predictions(path: Path) -> list[Row]:
    """Read predictions.csv; a text that many lines share is kept in memory once."""
    rows = []
    for line in islice(read_lines(path), MOST_ROWS + 1):
        split, true, predicted = (
            sys.intern(csv_text(line[name])) for name in ("split", "true", "predicted")
        )
        row = Row(
            file=csv_text(line["file"]),
            split=split,
            true=true,
            predicted=predicted,
            probability=float(line["probability"] if "probability" in line else line["score"]),
        )
        rows.append(row)
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{path} has more than {MOST_ROWS:,} lines")
    return rows


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a CSV file, each as a dict."""
    with (
        open_regular(path) as file,
        io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="") as text,
    ):
        yield from csv.DictReader(text)


def epochs(path: Path) -> list[dict[str, float]]:
    """Read history.csv: one dict for each epoch."""
    return [
        {
            name: float(value)
            for name, value in line.items()
            if value and math.isfinite(float(value))
        }
        for line in islice(read_lines(path), MOST_ROWS)
    ]


def calibration(path: Path, split: str) -> list[dict[str, Any]]:
    """`reliability` of one split."""
    arrays = read_arrays(path)
    mine = arrays["splits"] == split
    return reliability(arrays["labels"][mine], arrays["probabilities"][mine]) if mine.any() else []


def of_part(path: Path, split: str) -> list[tuple[list[float], list[float]]]:
    """The known true numbers and the answers to these, for each output, of one split."""
    arrays = read_arrays(path)
    mine = arrays["splits"] == split
    truth, said = arrays["labels"][mine], arrays["probabilities"][mine]
    known = ~np.isnan(truth)
    return [
        (truth[known[:, k], k].tolist(), said[known[:, k], k].tolist())
        for k in range(truth.shape[1])
    ]


def embed_pictures(path: Path) -> dict[str, str]:
    """Thumbnails as data URLs, by name."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_zip(archive, free=MOST_THUMBNAILS)
            return {
                name: f"data:image/jpeg;base64,{base64.b64encode(archive.read(name)).decode()}"
                for name in archive.namelist()
            }
    except (
        OSError,
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
        RuntimeError,
        *ODD,
    ) as error:
        raise RunError(f"{path} can't be read: {error}. Run it again.") from error


def counts(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Number of examples of each class, for each split that was predicted."""
    counters: dict[str, Counter] = {}
    for row in rows:
        counters.setdefault(row.split, Counter())[row.true] += 1
    return {split: dict(each) for split, each in counters.items()}


def transfer(
    metrics: dict[str, Any], split: str | None, task: Task, kind: Kind
) -> list[dict[str, Any]]:
    """Figures of the baselines and the run: name, own, and those of the task."""
    if split is None:
        return []
    # Baselines are measured on the test part alone.
    baselines = (
        {
            called(name, task, kind) + AFTER.get(name, ""): value
            for name, value in metrics["baselines"].items()
            if value
        }
        if split == "test"
        else {}
    )
    return [{"name": name, "own": False, **value} for name, value in baselines.items()] + [
        {"name": "this run", "own": True, **metrics[split]}
    ]
