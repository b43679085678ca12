"""The first bits of a JPEG XL codestream: how large the image is. One definition for Python and TensorFlow.

Nothing here branches on what was read, so that the numbers may also be tensors of a graph: what a file
does not have is read with a count of no bits. ISO/IEC 18181-1, annex D.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# How many bytes of the codestream, behind its two-byte signature, hold all that is read here.
HEADER = 48
# A size may be told by the height and one of these ratios of width to height.
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

Read = Callable[[Any], Any]  # the number in the next so many bits, 0 for no bits
Choose = Callable[[Any, Sequence[Any]], Any]  # the item at a position


class Header(NamedTuple):
    """Size in pixels, extra channels beside the colours, and 1 where a preview follows, else 0."""

    width: Any
    height: Any
    extra_channels: Any
    preview: Any


def read_header(read: Read, choose: Choose) -> Header:
    """Read the size and the beginning of the metadata."""
    width, height = read_size(read, choose, 1)
    full = 1 - read(1)  # 0: all metadata is as usual, and not written
    fields = read(full)
    read(3 * fields)  # orientation
    read_size(read, choose, read(fields))  # at which it should be shown
    preview = read(fields)
    animation = read(fields)
    for lengths in ((0, 0, 10, 30), (0, 0, 8, 10), (0, 3, 16, 32)):  # ticks a second, loops
        read(choose(read(2 * animation), lengths))
    read(animation)
    floating = read(full)
    read(choose(read(2 * full), (0, 0, 0, 6)))  # bits a sample
    read(4 * floating)
    read(full)
    form = read(2 * full)
    number = read(choose(form, (0, 0, 4, 12)))
    extra_channels = choose(form, (number, number + 1, number + 2, number + 1))
    return Header(width, height, extra_channels, preview)


def read_size(read: Read, choose: Choose, present: Any) -> tuple[Any, Any]:
    """Width and height, where `present` is 1; nothing is read where it is 0."""

    def read_side(small: Any, present: Any) -> Any:
        length = choose(read(2 * (1 - small) * present), (9, 13, 18, 30))
        return (1 + read(choose(small, (length, 5)) * present)) * choose(small, (1, 8))

    small = read(present)
    height = read_side(small, present)
    ratio = read(3 * present)
    own = read_side(small, present * choose(ratio, (1, 0, 0, 0, 0, 0, 0, 0)))
    widths = [height * wide // high for wide, high in RATIOS]
    return choose(ratio, (own, *widths)), height
