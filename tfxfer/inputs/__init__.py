"""The kinds of examples, a file or folder each: how they are read, checked, altered and shown.

kind        the functions of a kind, and `find`, which looks a kind up by its name
input       what one network takes for one example
image/      images
"""

from tfxfer.inputs import image
from tfxfer.inputs.input import TELLING, Damage, Files, Input, seed_of
from tfxfer.inputs.kind import KINDS, Kind, find, of_shape

__all__ = [
    "KINDS",
    "TELLING",
    "Damage",
    "Files",
    "Input",
    "Kind",
    "find",
    "image",
    "of_shape",
    "seed_of",
]
