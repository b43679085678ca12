"""Find JPEG and WebP files that are damaged although decoders read them.

Decoders guess the missing part of such an image. libjpeg only warns if a scan ends too early or a
code does not exist, and the warning does not name the file. So each JPEG file is decoded once to an
eighth of its size, which takes about half the time of a full decode, and a warning counts as
damage. libwebp gives no warning at all. In a WebP file, zeros at the end show that a download broke
off.
"""

import re
import struct
import threading
from typing import Any

import simplejpeg

from tfxfer.inputs.image.check import MARKER, end_of_scans, kind, size
from tfxfer.inputs.input import Damage
from tfxfer.limits import LARGE_PIXELS, MOST_PIECES, MOST_PIXELS

# The key under which the cache stores the result for each checked file: 0 if no damage was found,
# else 1.
KEY: dict[str, Any] = {
    "kind": "damaged images",
    "version": 1,  # raise it when the result changes for any file
    "simplejpeg": simplejpeg.__version__,
}
CORRUPT = "Corrupt JPEG data: "
ODD_SCANS = "Inconsistent progression sequence"
# Faults that make TensorFlow's decoder fail, too.
UNREADABLE = {
    "Premature end of JPEG file": "is truncated: its end is missing",
    "Invalid JPEG file structure: two SOI markers": "is cut off: another image begins in it",
}
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
# Some cameras write a few extra bytes after a scan. More bytes are the rest of a damaged scan.
MOST_PADDING = 8
# How many zeros at the end of the data of a WebP image count as damage: at least so many bytes, and
# at least this share of the data, by the kind of image. If the lower part of an undamaged lossy
# image is plain, half of its bytes can be zeros at the end. A lossless one ends in at most three.
FEWEST_ZEROS, SHARE_OF_ZEROS = 64, {b"VP8 ": 0.6, b"VP8L": 0.0}
RESTARTS = range(0xD0, 0xD8)
LOOKED_AT = ("JPEG", "WebP")
ALONE = threading.Lock()


def find_damage(data: bytes) -> Damage | None:
    """Return the damage of a JPEG or WebP file, or None if none was found.

    Damage can't be found in other formats, or in JPEG files with unusual chroma subsampling, such
    as every third pixel, which simplejpeg does not read. Call `check.problem` first.
    """
    if kind(data) == "WebP":
        return _zeros_in_webp(data)
    sides = size(data) if kind(data) == "JPEG" else None
    if sides is None or sides[0] * sides[1] > MOST_PIXELS:
        return None
    plain = without_notes(data[: end_of_scans(data, sides)])
    if sides[0] * sides[1] <= LARGE_PIXELS:
        return _decode(plain)
    # A progressive image is held in memory as a whole, even if it is decoded to a small size. So
    # large images are decoded one at a time.
    with ALONE:
        return _decode(plain)


def _zeros_in_webp(data: bytes) -> Damage | None:
    at = 12
    for _ in range(MOST_PIECES):
        if at + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, at)
        if name in SHARE_OF_ZEROS:
            held = data[at + 8 : at + 8 + length]
            zeros = len(held) - len(held.rstrip(b"\0"))
            if zeros >= max(FEWEST_ZEROS, SHARE_OF_ZEROS[name] * len(held)):
                return Damage(f"its last {zeros:,} bytes are zeros", readable=True)
            break
        at += 8 + length + length % 2
    return None


def _decode(data: bytes) -> Damage | None:
    try:
        # simplejpeg ignores min_factor unless a minimum height or width is given.
        simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True
        )
    except ValueError as error:
        return _meaning(str(error))
    return None


def _meaning(warning: str) -> Damage | None:
    """Return the damage that a warning of libjpeg stands for, or None if it is harmless."""
    for beginning, reason in UNREADABLE.items():
        if warning.startswith(beginning):
            return Damage(reason, readable=False)
    if not warning.startswith((CORRUPT, ODD_SCANS)):
        return None
    reason = warning.removeprefix(CORRUPT)
    if extraneous := EXTRANEOUS.match(reason):
        count, marker = int(extraneous[1]), int(extraneous[2], 16)
        if count <= MOST_PADDING and marker not in RESTARTS:
            return None
    return Damage(reason, readable=True)


def without_notes(data: bytes) -> bytes:
    """Return a JPEG file without the parts of its header that decoding does not need.

    libjpeg reports only its first warning. A harmless warning on a comment, or on bytes between two
    segments, would hide a warning on the image itself.
    """
    parts, at = [data[:2]], 2
    for _ in range(MOST_PIECES):
        if (match := MARKER.search(data, at)) is None:
            break
        at = match.end() - 2
        marker = data[at + 1]
        if marker == 0xDA:
            return b"".join([*parts, data[at:]])
        after = at + 2
        if marker != 0x01 and marker not in RESTARTS:
            after += int.from_bytes(data[at + 2 : at + 4], "big")
            if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                parts.append(data[at:after])
        at = after
    return data
