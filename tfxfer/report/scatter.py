"""The map of the judged examples as SVG, with marks that differ in colour and in shape."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from tfxfer.report.words import short

# Readable on white and on black. A colour-blind person tells apart the first six (Okabe and Ito).
COLOURS = (
    "#3b82c4",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#9a6a3c",
    "#8b929b",
    "#8e63c7",
    "#a3a300",
)
# Outlines within a box from -1 to 1. Eight shapes and ten colours: 40 marks.
SHAPES = (
    "M0-1A1 1 0 1 0 0 1 1 1 0 1 0 0-1Z",
    "M-.9-.9H.9V.9H-.9Z",
    "M0-1.1L1.1.9H-1.1Z",
    "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    "M0-1.3L1.2 0 0 1.3-1.2 0Z",
    "M0 1.1L1.1-.9H-1.1Z",
    "M0-1.1A1.1 1.1 0 1 0 0 1.1 1.1 1.1 0 1 0 0-1.1ZM0-.5A.5.5 0 1 1 0 .5.5.5 0 1 1 0-.5Z",
    "M-1-1H1V1H-1ZM-.5-.5V.5H.5V-.5Z",
)
MOST = 24  # classes up to which each one gets a mark of its own
WIDTH, HEIGHT, EDGE = 560, 420, 12
SIZE = 5.0  # half of a mark's width


@dataclass(frozen=True)
class Mark:
    """One line of the legend: a mark, its class, and how many of its examples were wrong."""

    svg: Markup
    name: str
    n: int
    wrong: int


@dataclass(frozen=True)
class Map:
    """An inline picture with its legend, and what it shows in words."""

    alt: str
    svg: Markup
    legend: tuple[Mark, ...]
    n: int
    wrong: int


def scatter(points: list[dict[str, Any]], classes: list[str], many: str) -> Map:
    """Draw examples on a plane; each class has its own mark, and wrong answers are circled.

    Args:
        points: "x" and "y" from 0 to 1, "label", and whether it was "right".
        classes: names of all classes; more than 24 all get the same mark.
        many: what several examples are called.
    """
    told_apart = classes if len(classes) <= MOST else []
    numbers = {name: i for i, name in enumerate(told_apart)}
    wrong = [point for point in points if not point["right"]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'class="map" aria-hidden="true">'
    ]
    for point in points:
        x, y = place(point)
        parts.append(
            f'<path transform="translate({x:.1f} {y:.1f}) scale({SIZE})" '
            f"{look(numbers.get(point['label'], 0))}/>"
        )
    for point in wrong:
        x, y = place(point)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 * SIZE}" fill="none" '
            'stroke="currentColor" stroke-width="1.6"/>'
        )
    parts.append("</svg>")
    words = (
        f"Map of {len(points):,} {many} by what the pretrained network finds in them, of which "
        f"{len(wrong):,} were answered wrongly and are circled."
    )
    return Map(
        alt=words,
        svg=Markup("".join(parts)),
        legend=tuple(
            Mark(
                svg=sample(i),
                name=short(name),
                n=sum(point["label"] == name for point in points),
                wrong=sum(point["label"] == name for point in wrong),
            )
            for i, name in enumerate(told_apart)
        ),
        n=len(points),
        wrong=len(wrong),
    )


def place(point: dict[str, Any]) -> tuple[float, float]:
    """Where a point lies in the picture."""
    return (
        EDGE + float(point["x"]) * (WIDTH - 2 * EDGE),
        EDGE + (1 - float(point["y"])) * (HEIGHT - 2 * EDGE),
    )


def look(number: int) -> str:
    """The attributes of a class's mark: colours and outlines, and no text from a run."""
    shape, colour = SHAPES[number % len(SHAPES)], COLOURS[number % len(COLOURS)]
    return f'd="{escape(shape)}" fill="{colour}" fill-rule="evenodd"'


def sample(number: int) -> Markup:
    """A class's mark, for the legend."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1.6 -1.6 3.2 3.2" class="mark" '
        f'aria-hidden="true"><path {look(number)}/></svg>'
    )
