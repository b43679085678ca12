"""Find pictures that look broken: dark, blank, or (files only) much smaller than the others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tfxfer.inputs.image.check import size
from tfxfer.inputs.input import Files
from tfxfer.process.parts import map_in_parts

# A picture is dark if the mean of its pixels, from 0 to 1, is below the first number, and blank if
# their standard deviation is below the second.
DARK, BLANK = 0.04, 0.02
MANY = 0.2  # share of all pictures from which on a note says so
SMALL = 4  # a picture is small if its shorter side is below the median by this factor
BLOCK = 1024
READERS = 8  # files read at once, for their size


def find_odd(examples: Files, pixels: Any) -> list[tuple[int, str]]:
    """Find odd pictures: (position, what is odd about it), in the order of the examples.

    Args:
        pixels: each picture made small, float32 [n, m] in [0, 1].
    """
    oddities: dict[int, list[str]] = {}
    for start in range(0, len(examples.files), BLOCK):
        block = np.asarray(pixels[np.arange(start, min(start + BLOCK, len(examples.files)))])
        for i in np.flatnonzero(block.mean(1) < DARK).tolist():
            oddities.setdefault(start + i, []).append("dark")
        for i in np.flatnonzero(block.std(1) < BLANK).tolist():
            oddities.setdefault(start + i, []).append("blank")
    sides: list[int] = []
    if examples.paths is not None:
        with ThreadPoolExecutor(READERS) as pool:
            parts = map_in_parts(pool, lambda i: shorter(examples, i), len(examples.files))
            sides = [side for part in parts for side in part]
    usual = np.median([side for side in sides if side]) if any(sides) else 0
    for i, side in enumerate(sides):
        if side and side * SMALL < usual:
            oddities.setdefault(i, []).append(
                f"small: {side} pixels, where half of all have {usual:.0f} or more"
            )
    return [(i, ", ".join(said(reasons))) for i, reasons in sorted(oddities.items())]


def said_of_many(examples: Files, strange: Sequence[tuple[int, str]]) -> list[str]:
    """Notes that are written if a large share of the pictures is nearly black, or of one colour.

    Each note names an example, and says what to do.

    Args:
        strange: what `find_odd` returned.
    """
    kinds: dict[str, list[int]] = {"black": [], "blank": []}
    for position, why in strange:
        reasons = why.split(", ")
        if "black" in reasons or "dark" in reasons:
            kinds["black"].append(position)
        elif "blank" in reasons:
            kinds["blank"].append(position)
    notes = []
    for kind, positions in kinds.items():
        if len(positions) < MANY * len(examples.files) or not positions:
            continue
        share = f"{len(positions):,} of {len(examples.files):,} photos"
        example = examples.files[positions[0]]
        if kind == "black":
            notes.append(
                f"{share} are nearly black, such as {example}. Often these are 10- or 12-bit data "
                "in 16-bit files: stretch their values to the whole range, 0 to 65535, and run "
                "again."
            )
        else:
            notes.append(
                f"{share} are of one colour, such as {example}. Look at them: there is nothing to "
                "learn from, and figures are too low by their share. Repair or remove them."
            )
    return notes


def said(reasons: Sequence[str]) -> list[str]:
    """The reasons, with "black" for a picture that is both dark and blank."""
    return (
        ["black"] + [reason for reason in reasons if reason not in ("dark", "blank")]
        if {"dark", "blank"} <= set(reasons)
        else list(reasons)
    )


def shorter(examples: Files, position: int) -> int:
    """The shorter side in pixels; 0 if it is unknown, or known only by converting the file."""
    if not examples.paths or not examples.paths[position]:
        return 0
    sides = size(examples.read(position))
    return min(sides) if sides else 0
