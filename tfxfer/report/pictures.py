"""Figures as inline SVG whose ink is the page's own text colour, so that one picture serves light and dark. The only file with matplotlib."""

import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tfxfer.names import one_line

INK = "#010203"  # stands for the page's text colour until the picture is inline
ACCENT = "#3b82c4"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, small, and drawn by the reader's fonts, which know more letters
    "svg.hashsalt": "tfxfer",  # the same run gives the same page
    "text.parse_math": False,  # a label may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
# Colours that a colour-blind person tells apart (Okabe and Ito), readable on white and on black; shapes tell apart what shares one.
COLOURS = ("#3b82c4", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
SHAPES = ("o", "s", "^", "D", "v", "P")
BARS, NUMBERS, LETTERS = 40, 20, 28
LEGEND = 24  # classes of a map that are told apart


@dataclass(frozen=True)
class Picture:
    """An inline picture: what to call it, what it shows in words, and its markup."""

    title: str
    alt: str
    svg: Markup


def intervals(table: list[dict[str, Any]], split: str) -> Picture:
    """Accuracy of the run and of the baselines as points with 95 % intervals."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.4 * len(table)), layout="constrained")
        axes = bare(figure)
        for i, row in enumerate(table):
            colour = ACCENT if row["own"] else INK
            axes.plot(
                [100 * row["low"], 100 * row["high"]],
                [i, i],
                color=colour,
                linewidth=4,
                alpha=0.45,
                solid_capstyle="butt",
            )
            axes.plot([100 * row["accuracy"]], [i], "o", color=colour)
        axes.set_yticks(range(len(table)), [row["name"] for row in table])
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.set_xlabel(f"accuracy on {split} images, %")
        axes.grid(axis="x", color=INK, alpha=0.15)
        words = "; ".join(
            f"{row['name']} {100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
            for row in table
        )
        return Picture(
            "Accuracy with 95 % intervals", f"Accuracy on {split} images: {words}.", inline(figure)
        )


def confusion(rows: Sequence[Any], classes: list[str], split: str) -> Picture:
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
        axes.imshow(
            np.dstack([*(np.full_like(share, c) for c in rgb), 0.75 * share]),
            interpolation="nearest",
        )
        if len(classes) <= BARS:
            axes.set_xticks(
                range(len(classes)), map(short, classes), rotation=90 if len(classes) > 3 else 0
            )
            axes.set_yticks(range(len(classes)), map(short, classes))
        if len(classes) <= NUMBERS:
            for i, j in np.argwhere(matrix):
                axes.text(j, i, str(matrix[i, j]), ha="center", va="center")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        wrong = matrix - np.diag(np.diag(matrix))
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        worst = (
            f" The most frequent confusion: {classes[i]} taken for {classes[j]}, {wrong[i, j]} times."
            if wrong.any()
            else ""
        )
        return Picture(
            "Confusion matrix",
            f"Confusion matrix on {split} images: {np.trace(matrix)} of {matrix.sum()} are right.{worst}",
            inline(figure),
        )


def recalls(rows: Sequence[Any], classes: list[str], split: str) -> Picture:
    """The share of each class that was recognised; the worst classes where there are many."""
    n, right = (
        Counter(row.true for row in rows),
        Counter(row.true for row in rows if row.true == row.predicted),
    )
    shown = sorted(
        (name for name in classes if n[name]), key=lambda name: (right[name] / n[name], name)
    )[:BARS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.28 * len(shown)), layout="constrained")
        axes = bare(figure)
        axes.barh(
            range(len(shown)),
            [100 * right[name] / n[name] for name in shown],
            color=ACCENT,
            alpha=0.75,
            height=0.7,
        )
        for i, name in enumerate(shown):
            axes.text(1, i, f"{right[name]} of {n[name]}", va="center", fontsize=9)
        axes.set_yticks(range(len(shown)), map(short, shown))
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"recognised of the {split} images, %")
        title = (
            "Recall of each class, worst first"
            if len(shown) == len(n)
            else f"Recall of the {len(shown)} worst of {len(n)} classes"
        )
        return Picture(
            title,
            f"Recall on {split} images: "
            + "; ".join(f"{name} {right[name]} of {n[name]}" for name in shown)
            + ".",
            inline(figure),
        )


def reliability(bins: list[dict[str, Any]], split: str) -> Picture:
    """How often what is said with some confidence is right, with 95 % intervals."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
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
        axes.set_xlabel("probability that was said, %")
        axes.set_ylabel(f"right of the {split} images, %")
        words = "; ".join(
            f"said {100 * row['confidence']:.0f} %, right {100 * row['accuracy']:.0f} % of {row['n']}"
            for row in bins
        )
        return Picture(
            "Are its probabilities right?",
            f"Calibration on {split} images: {words}.",
            inline(figure),
        )


def curves(history: list[dict[str, float]], whose: str) -> Picture:
    """Loss and accuracy of each epoch."""
    kinds = [
        kind for kind in ("loss", "accuracy") if kind in history[0] or f"val_{kind}" in history[0]
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(kinds) + 0.6, 3.2), layout="constrained")
        for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds))), kinds, strict=True):
            bared(axes)
            for name, label, line in ((kind, "training", "-"), (f"val_{kind}", "held out", "--")):
                if points := [(row["epoch"], row[name]) for row in history if name in row]:
                    axes.plot(
                        *zip(*points, strict=True),
                        line,
                        marker="o",
                        markersize=3,
                        color=ACCENT if line == "-" else COLOURS[1],
                        label=label,
                    )
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("epoch")
            axes.set_title(kind, fontsize=10)
            axes.legend(frameon=False)
        last = ", ".join(
            f"{name.replace('val_', 'held-out ')} {value:.3g}"
            for name, value in history[-1].items()
            if name != "epoch"
        )
        return Picture(
            f"Learning curves{whose}",
            f"Learning curves of {len(history)} epochs; at the end {last}.",
            inline(figure),
        )


def chart(points: list[dict[str, Any]], classes: list[str]) -> Picture:
    """Held-out examples on a plane: like next to like, mistakes crossed out."""
    few = len(classes) <= LEGEND
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        axes = bare(figure)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for i, name in enumerate(classes if few else [""]):
            mine = [point for point in points if not few or point["label"] == name]
            look = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": SHAPES[i // len(COLOURS) % len(SHAPES)],
            }
            axes.scatter(
                [point["x"] for point in mine],
                [point["y"] for point in mine],
                s=14,
                linewidths=0,
                label=str(i),
                **look,
            )
        wrong = [point for point in points if not point["right"]]
        axes.scatter(
            [point["x"] for point in wrong],
            [point["y"] for point in wrong],
            s=40,
            marker="x",
            color=INK,
            linewidths=1,
            label="answered wrongly",
        )
        legend = figure.legend(
            loc="outside right upper", frameon=False, markerscale=1.4, fontsize=9
        )
        # Given as labels, names that begin with a line below would be left out.
        for text, name in zip(legend.get_texts(), classes if few else ["right"], strict=False):
            text.set_text(short(name))
        words = f"{len(points)} held-out images by what the pretrained network sees in them, of which {len(wrong)} were answered wrongly and are crossed out."
        return Picture("Held-out images, like next to like", words, inline(figure))


def bare(figure: Figure) -> Any:
    return bared(figure.subplots())


def bared(axes: Any) -> Any:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def short(name: str) -> str:
    """A name for a picture: on one line, visible, and not so long that nothing else has room."""
    name = one_line(" ".join(name.split())) or repr(name)
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def inline(figure: Figure) -> Markup:
    """The figure as SVG markup for the body of a page, in the page's colours and font."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Widths are measured with matplotlib's font, which lacks many scripts; the reader's fonts draw them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(f'(?<=[ "]){INK}(?=[;"])', "currentColor", text)  # where it is a colour
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(
        re.sub(
            r'(<svg[^>]*?) width="([\d.]+)pt"',
            r'\1 style="width: 100%; max-width: \2pt" aria-hidden="true"',
            text,
            count=1,
        )
    )
