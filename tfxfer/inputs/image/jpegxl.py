"""Read the size of a JPEG XL image from the first bits of its codestream.

Python and TensorFlow share this one definition. Nothing here branches on what was read, so that the
numbers may also be tensors of a graph: a field that a file does not have is read with a count of 0
bits. The format is defined in ISO/IEC 18181-1, annex D.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Number of bytes after the codestream's two-byte signature that hold all that is read here.
HEADER = 48
# A size may be given as the height and one of these ratios of width to height.
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

Read = Callable[[Any], Any]  # number of bits -> the number in the next bits, 0 for no bits
Choose = Callable[[Any, Sequence[Any]], Any]  # the item at a position


class Header(NamedTuple):
    """Size in pixels, number of channels besides colour, and 1 where a preview follows, else 0."""

    width: Any
    height: Any
    extra_channels: Any
    preview: Any


def read_header(read: Read, choose: Choose) -> Header:
    """Read the size and the beginning of the metadata."""
    width, height = read_size(read, choose, 1)
    full = 1 - read(1)  # 0: all metadata has its default value, and is not stored
    fields = read(full)
    read(3 * fields)  # orientation
    read_size(read, choose, read(fields))  # the size at which the image should be shown
    preview = read(fields)
    animation = read(fields)
    for lengths in ((0, 0, 10, 30), (0, 0, 8, 10), (0, 3, 16, 32)):  # ticks per second, loops
        read(choose(read(2 * animation), lengths))
    read(animation)
    floating = read(full)
    read(choose(read(2 * full), (0, 0, 0, 6)))  # bits per sample
    read(4 * floating)
    read(full)
    form = read(2 * full)
    number = read(choose(form, (0, 0, 4, 12)))
    extra_channels = choose(form, (number, number + 1, number + 2, number + 1))
    return Header(width=width, height=height, extra_channels=extra_channels, preview=preview)


def read_size(read: Read, choose: Choose, present: Any) -> tuple[Any, Any]:
    """Read width and height where `present` is 1; nothing is read where it is 0."""

    def read_side(small: Any, present: Any) -> Any:
        length = choose(read(2 * (1 - small) * present), (9, 13, 18, 30))
        return (1 + read(choose(small, (length, 5)) * present)) * choose(small, (1, 8))

    small = read(present)
    height = read_side(small, present)
    ratio = read(3 * present)
    own = read_side(small, present * choose(ratio, (1, 0, 0, 0, 0, 0, 0, 0)))
    widths = [height * wide // high for wide, high in RATIOS]
    return choose(ratio, (own, *widths)), height
