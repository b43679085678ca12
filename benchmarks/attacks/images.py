"""Image files that were changed at random: the check and both decoders say the same.

The decoders are tfxfer's and that of an export. What the check calls too large, the decoders must
refuse; what one decoder refuses, the other must refuse too, and where both decode they must give
the same pixels.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np
import tensorflow as tf
from runs import write_kinds

from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image.check import problem
from tfxfer.inputs.image.damage import find_damage
from tfxfer.inputs.image.decode import pixels
from tfxfer.serving.model import decoder

SIZE = (32, 32)
state: dict[str, object] = {}


def prepare(folder: Path) -> Path:
    """A small photo in every format, mode and orientation."""
    (folder / "kinds").mkdir()
    write_kinds(folder / "kinds")
    return folder


def decoders(folder: Path) -> tuple:
    """The sources' bytes, and both decoders, made once a process."""
    if not state:
        state["sources"] = [path.read_bytes() for path in sorted((folder / "kinds").iterdir())]
        spec = [tf.TensorSpec((), tf.string)]
        state["one"] = tf.function(lambda encoded: pixels(encoded, SIZE), input_signature=spec)
        batch = decoder(ImageInput(SIZE), "null")
        specs = [tf.TensorSpec((None,), tf.string)]
        state["served"] = tf.function(batch, input_signature=specs, autograph=False)
    return state["sources"], state["one"], state["served"]


def attack(folder: Path, number: int, seed: int) -> str:
    """Change one file, and compare; returns what went wrong, or nothing."""
    draw = random.Random(f"{seed} {number}")
    sources, one, served = decoders(folder)
    content = changed(sources, draw)
    (folder / "last").write_bytes(content)
    said = problem(content)
    try:
        decoded = one(tf.constant(content)).numpy()
    except tf.errors.OpError:
        decoded = None
    rows, places = served(tf.constant([content]))
    if (decoded is None) != (len(places) == 0):
        return f"the decoder {'refuses' if decoded is None else 'reads'} what the export does not"
    if decoded is not None and not np.array_equal(decoded, rows.numpy()[0]):
        return "the export has other pixels"
    if said and "million" in said and decoded is not None:
        return f"decoded, though it {said}"
    damage = None if said else find_damage(content)
    if damage and not damage.readable and decoded is not None:
        return f"decoded, though it {damage.reason}"
    return ""


def changed(sources: list[bytes], draw: random.Random) -> bytes:
    """A file with some changes, most of them to its head, where its sizes are."""
    content = bytearray(draw.choice(sources))
    for _ in range(draw.choice([1, 1, 2, 4])):
        kind = draw.choice(["flip", "flip", "size", "size", "cut", "splice", "repeat", "zeros"])
        reach = min(len(content), draw.choice([32, 64, 700, len(content)]))
        at = draw.randrange(max(reach, 1))
        if kind == "flip":
            content[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == "size":
            width = draw.choice([2, 2, 4])
            number = draw.choice([0, 1, 0x7FFF, 0xFFFF, 10_000, 6_000, 3_000])
            order = draw.choice(["big", "little"])
            content[at : at + width] = number.to_bytes(width, order)
        elif kind == "cut":
            del content[at:]
        elif kind == "splice":
            other = draw.choice(sources)
            place = draw.randrange(len(other))
            content[at : at + 64] = other[place : place + draw.randrange(2000)]
        elif kind == "repeat":
            piece = content[at : at + draw.randrange(1, 2000)]
            content[at:at] = piece * draw.choice([1, 1, 50])
        else:
            content[at : at + draw.randrange(64)] = bytes(draw.randrange(64))
        if not content:
            break
    return bytes(content)
