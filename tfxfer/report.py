"""A run folder as one HTML page with pictures. Reads the folder and nothing else; the only room with matplotlib.

The page is self-contained: pictures are inline SVG whose ink is the page's own text colour, so that one picture serves light and dark.
"""

import csv
import io
import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tfxfer.errors import RunError
from tfxfer.evaluate import pays

INK = "#010203"  # stands for the page's text colour until the picture is inline
ACCENT = "#3b82c4"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, small, and drawn by the reader's fonts, which know more letters
    "svg.hashsalt": "tfxfer",  # the same run gives the same page
    "text.parse_math": False,  # a label may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
NAMES = {
    "majority": "always the most frequent class",
    "raw_pixels": "logistic regression on raw pixels",
    "last_layer_logistic": "logistic regression on the last layer",
}
MISTAKES, BARS, NUMBERS, LETTERS = 20, 40, 20, 28


@dataclass(frozen=True)
class Row:
    """One line of predictions.csv."""

    file: str
    split: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Picture:
    """An inline picture: what to call it, what it shows in words, and its markup."""

    title: str
    alt: str
    svg: Markup


def page(folder: Path) -> str:
    """The HTML page of a run folder, from its settings.json, labels.txt, metrics.json and predictions.csv.

    Raises: RunError where one of them is missing or damaged.
    """
    folder = Path(folder)
    try:
        settings, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("settings.json", "metrics.json"))
        classes = (folder / "labels.txt").read_text("utf-8").splitlines()
        with open(folder / "predictions.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = [Row(line["file"], line["split"], line["true"], line["predicted"], float(line["probability"])) for line in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{folder} can't be reported on: {error}. A report needs settings.json, labels.txt, metrics.json and predictions.csv.") from error
    split = "test" if metrics["test"] else "validation" if metrics["validation"] else None
    judged = [row for row in rows if row.split == split]
    called = split or ""
    if split == "validation" and not judged:
        # Without a validation part its figure is that of the training images, each judged by a head that was fitted without it.
        judged, called = [row for row in rows if row.split == "train"], "held-out training"
    table, verdict = transfer(metrics, split), settings.pop("verdict", {}).get("value") or pays(metrics)
    pictures = [intervals(table, called), confusion(judged, classes, called), recalls(judged, classes, called)] if judged else []
    mistakes = sorted((row for row in judged if row.true != row.predicted), key=lambda row: (-row.probability, row.file))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    text = environment.get_template("report.html.j2").render(
        title=folder.resolve().name,
        split=split,
        figures=metrics[split] if split else None,
        verdict=verdict if split else "There is no test part and no validation part, so nothing is known about new examples.",
        called=called,
        counts=counts(rows, classes),
        classes=classes,
        table=table,
        pictures=pictures,
        mistakes=mistakes[:MISTAKES],
        n_mistakes=len(mistakes),
        candidates=metrics.get("candidates", {}),
        why=settings.pop("why", {}).get("value"),
        settings=settings,
        command=settings.get("command", {}).get("value"),
    )
    # Names of files need not be valid Unicode.
    return text.encode("utf-8", "replace").decode()


def counts(rows: list[Row], classes: list[str]) -> dict[str, Counter]:
    """Images of each class in each split that was predicted."""
    found: dict[str, Counter] = {}
    for row in rows:
        found.setdefault(row.split, Counter())[row.true] += 1
    return found


def transfer(metrics: dict[str, Any], split: str | None) -> list[dict[str, Any]]:
    """The run beside its baselines: name, accuracy, low, high, balanced_accuracy, n."""
    if split is None:
        return []
    # Baselines are measured on test alone.
    baselines = {NAMES.get(name, name): value for name, value in metrics["baselines"].items() if value} if split == "test" else {}
    return [{"name": name, "own": False, **value} for name, value in baselines.items()] + [{"name": "this run", "own": True, **metrics[split]}]


# --- pictures ---------------------------------------------------------------------------------------------------------------------------------


def intervals(table: list[dict[str, Any]], split: str) -> Picture:
    """Accuracy of the run and of the baselines as points with 95 % intervals."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.4 * len(table)), layout="constrained")
        axes = bare(figure)
        for i, row in enumerate(table):
            colour = ACCENT if row["own"] else INK
            axes.plot([100 * row["low"], 100 * row["high"]], [i, i], color=colour, linewidth=4, alpha=0.45, solid_capstyle="butt")
            axes.plot([100 * row["accuracy"]], [i], "o", color=colour)
        axes.set_yticks(range(len(table)), [row["name"] for row in table])
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.set_xlabel(f"accuracy on {split} images, %")
        axes.grid(axis="x", color=INK, alpha=0.15)
        words = "; ".join(f"{row['name']} {100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})" for row in table)
        return Picture("Accuracy with 95 % intervals", f"Accuracy on {split} images: {words}.", inline(figure))


def confusion(rows: list[Row], classes: list[str], split: str) -> Picture:
    """Counts of true against predicted class; colour is the share of the true class."""
    numbers = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), int)
    for row in rows:
        matrix[numbers[row.true], numbers[row.predicted]] += 1
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with matplotlib.rc_context(STYLE):
        size = min(1.6 + 0.45 * len(classes), 8)
        figure = Figure(figsize=(size + 1, size), layout="constrained")
        axes = bare(figure)
        rgb = matplotlib.colors.to_rgb(ACCENT)
        axes.imshow(np.dstack([*(np.full_like(share, c) for c in rgb), 0.75 * share]), interpolation="nearest")
        if len(classes) <= BARS:
            axes.set_xticks(range(len(classes)), map(short, classes), rotation=90 if len(classes) > 3 else 0)
            axes.set_yticks(range(len(classes)), map(short, classes))
        if len(classes) <= NUMBERS:
            for i, j in np.argwhere(matrix):
                axes.text(j, i, str(matrix[i, j]), ha="center", va="center")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        wrong = matrix - np.diag(np.diag(matrix))
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        worst = f" The most frequent confusion: {classes[i]} taken for {classes[j]}, {wrong[i, j]} times." if wrong.any() else ""
        return Picture("Confusion matrix", f"Confusion matrix on {split} images: {np.trace(matrix)} of {matrix.sum()} are right.{worst}", inline(figure))


def recalls(rows: list[Row], classes: list[str], split: str) -> Picture:
    """The share of each class that was recognised; the worst classes where there are many."""
    n, right = Counter(row.true for row in rows), Counter(row.true for row in rows if row.true == row.predicted)
    shown = sorted((name for name in classes if n[name]), key=lambda name: (right[name] / n[name], name))[:BARS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.28 * len(shown)), layout="constrained")
        axes = bare(figure)
        axes.barh(range(len(shown)), [100 * right[name] / n[name] for name in shown], color=ACCENT, alpha=0.75, height=0.7)
        for i, name in enumerate(shown):
            axes.text(1, i, f"{right[name]} of {n[name]}", va="center", fontsize=9)
        axes.set_yticks(range(len(shown)), map(short, shown))
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"recognised of the {split} images, %")
        title = "Recall of each class, worst first" if len(shown) == len(n) else f"Recall of the {len(shown)} worst of {len(n)} classes"
        return Picture(title, f"Recall on {split} images: " + "; ".join(f"{name} {right[name]} of {n[name]}" for name in shown) + ".", inline(figure))


def bare(figure: Figure) -> Any:
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def inline(figure: Figure) -> Markup:
    """The figure as SVG markup for the body of a page, in the page's colours and font."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Widths are measured with matplotlib's font, which lacks many scripts; the reader's fonts draw them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="width: 100%; max-width: \2pt" aria-hidden="true"', text, count=1))
