"""Draw charts as inline SVG in the page's own text colour.

One picture therefore serves a light and a dark page. This is the only file that imports matplotlib.
"""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tfxfer.report.words import short

INK = "#010203"  # stands for the page's text colour until the picture is inline
ACCENT = "#3b82c4"
STYLE: dict[Any, Any] = {
    # Text stays text: it can be selected, it is small, and it is drawn with the reader's fonts,
    # which have more letters.
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
HELD_OUT = "#e69f00"  # a colour-blind person tells it from the accent
LOSS_MEANS = "How far the answers are from the labels; 0 is best."
BARS, NUMBERS, NARROW = 40, 20, 10
# Widths in inches: half of the page, which a phone shrinks only a little, and the whole page.
HALF, WHOLE = 4.8, 9.6
LETTERS = 14  # most letters of a class's name beside a picture


@dataclass(frozen=True)
class Picture:
    """An inline picture.

    Args:
        title: what to call it.
        caption: how to read it.
        alt: what it shows, in words.
        svg: its markup.
        wide: whether it needs the page's whole width.
    """

    title: str
    caption: str
    alt: str
    svg: Markup
    wide: bool = False


def confusion(rows: Sequence[Any], classes: list[str], called: str, many: str) -> Picture:
    """Counts of true against predicted class; colour is the share of the true class.

    Args:
        called: what was judged, such as "test photos".
        many: what several examples are called.
    """
    count = len(classes)
    numbers = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((count, count), int)
    for row in rows:
        matrix[numbers[row.true], numbers[row.predicted]] += 1
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wide = NARROW < count <= BARS
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WHOLE, 8) if wide else (HALF, 4.2), layout="constrained")
        axes = bare(figure)
        rgb = matplotlib.colors.to_rgb(ACCENT)
        axes.imshow(
            np.dstack([*(np.full_like(share, c) for c in rgb), 0.75 * share]),
            interpolation="nearest",
        )
        if count <= BARS:
            names = [short(name, LETTERS) for name in classes]
            longest = max(map(len, names), default=0)
            upright = count > 3 and longest > 3
            axes.set_xticks(range(count), names, rotation=90 if upright else 0)
            axes.set_yticks(range(count), names)
        if count <= NUMBERS:
            for i, j in np.argwhere(matrix):
                axes.text(j, i, str(matrix[i, j]), ha="center", va="center")
        axes.set_xlabel("the model says")
        axes.set_ylabel("it is")
        wrong = matrix - np.diag(np.diag(matrix))
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        worst = (
            f" The most frequent confusion: {classes[i]} taken for {classes[j]}, "
            f"{wrong[i, j]} times."
            if wrong.any()
            else ""
        )
        return Picture(
            title="What is taken for what?",
            caption=f"Each row holds the {many} of one class, each column one answer. Right "
            "answers are on the line from the upper left to the lower right. (A confusion matrix.)",
            alt=f"Confusion matrix on {called}: {np.trace(matrix)} of {matrix.sum()} are "
            f"right.{worst}",
            svg=inline(figure, "confusion"),
            wide=wide,
        )


def reliability(bins: list[dict[str, Any]], called: str, many: str) -> Picture:
    """How often the answers of each confidence are right, with 95 % intervals.

    Args:
        called, many: as for `confusion`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(HALF, 4.2), layout="constrained")
        axes = bare(figure)
        axes.plot([0, 100], [0, 100], color=INK, alpha=0.4, linewidth=1, linestyle="--")
        for row in bins:
            x = 100 * row["confidence"]
            axes.plot(
                [x, x],
                [100 * row["low"], 100 * row["high"]],
                color=ACCENT,
                linewidth=4,
                alpha=0.45,
                solid_capstyle="butt",
            )
        axes.scatter(
            [100 * row["confidence"] for row in bins],
            [100 * row["accuracy"] for row in bins],
            color=ACCENT,
            zorder=3,
        )
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("how probable the model calls its answer, %")
        axes.set_ylabel("how often the answer is right, %")
        words = "; ".join(
            f"said {100 * row['confidence']:.0f} %, "
            f"right {100 * row['accuracy']:.0f} % of {row['n']}"
            for row in bins
        )
        return Picture(
            title="Is it right as often as it says?",
            caption=f"Each point stands for the {called} whose answers were called about "
            "equally probable. On the dashed line it is right as often as it says, below it less "
            f"often. A long bar means few {many} (its 95 % interval).",
            alt=f"Calibration on {called}: {words}.",
            svg=inline(figure, "reliability"),
        )


def numbers(
    name: str, truth: np.ndarray, said: np.ndarray, half: float | None, called: str
) -> Picture:
    """The answer against the true number, for each example.

    Args:
        truth, said: float [n].
        half: half the width of the interval around an answer; None where it is not known.
        called: what was judged, such as "test photos".
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(HALF, 4.2), layout="constrained")
        axes = bare(figure)
        ends = [float(min(truth.min(), said.min())), float(max(truth.max(), said.max()))]
        if half is not None:
            low, high = ([end + side * half for end in ends] for side in (-1, 1))
            axes.fill_between(ends, low, high, color=ACCENT, alpha=0.15, linewidth=0)
        axes.plot(ends, ends, color=INK, alpha=0.4, linewidth=1, linestyle="--")
        axes.scatter(truth, said, s=12, color=ACCENT, alpha=0.6, linewidths=0)
        axes.set_xlabel(f"{short(name, LETTERS)} is")
        axes.set_ylabel("the model says")
        error = float(np.median(np.abs(said - truth)))
        band = "" if half is None else " The band is the width of the interval."
        return Picture(
            title=f"How near are the answers for {short(name)}?",
            caption=f"Each point is one of {len(truth):,} {called}; on the dashed line the "
            f"answer is right.{band}",
            alt=f"Answers against true numbers on {called}; half are off by less than {error:.3g}.",
            svg=inline(figure, f"numbers {name}"),
        )


def curve(
    history: list[dict[str, float]],
    kind: str,
    means: str,
    *,
    whose: str,
    folds: bool,
    many: str,
) -> Picture:
    """Loss or score of each epoch.

    Args:
        kind: "loss" or the name of the score.
        means: what that is, as a sentence.
        whose: text at the end of the title, such as that the model was not chosen.
        folds: whether the figures are the means of several trainings.
        many: what several examples are called.
    """
    lines = (
        (kind, f"{many} it trains on", "-", ACCENT),
        (f"val_{kind}", f"{many} held out", "--", HELD_OUT),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(HALF, 3.2), layout="constrained")
        axes = bare(figure)
        for name, label, line, colour in lines:
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    line,
                    marker="o",
                    markersize=4,
                    color=colour,
                    label=label,
                )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(f"epoch (once through all training {many})")
        axes.set_ylabel(kind)
        axes.legend(frameon=False)
        last = ", ".join(
            f"{label} {history[-1][name]:.3g}" for name, label, *_ in lines if name in history[-1]
        )
        caption = means
        if not any(f"val_{kind}" in row for row in history):
            caption += f" On the {many} that it trains on, so better than on new ones."
        if folds:
            caption += f" The mean of several trainings, each without a part of the {many}."
        return Picture(
            title=f"{kind.capitalize()} while it trained{whose}",
            caption=caption,
            alt=f"{kind.capitalize()} of {len(history)} epochs; at the end: {last}.",
            svg=inline(figure, kind),
        )


def bare(figure: Figure) -> Any:
    """The figure's axes, without a frame."""
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def inline(figure: Figure, name: str) -> Markup:
    """The figure as SVG markup for the body of a page, in the page's colours and font.

    Args:
        name: what its ids are made from, so that two pictures on a page share none.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": f"tfxfer {name}"}):
        # Widths are measured with matplotlib's font, which lacks many scripts; the text is drawn
        # with the reader's fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(f'(?<=[ "]){INK}(?=[;"])', "currentColor", text)  # where it is a colour
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every picture of the page has the same ids
    # The page's style gives it a width, and the viewBox the shape.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 aria-hidden="true"', text, count=1))
