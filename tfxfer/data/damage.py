"""JPEG and WebP files that are damaged although every decoder reads them: it guesses what is
missing.

libjpeg only warns of a scan that ends too early or of a code that does not exist, and it does so
without the name of the file. So each file is decoded once to an eighth of its size, which takes
about half the time of decoding it, and a warning is an answer here. libwebp says nothing at all:
there, zeros in place of the rest tell of a download that broke off.
"""

import re
import struct
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from tfxfer.cache import Cache
from tfxfer.data.images import MARKER, end_of_scans, kind, size
from tfxfer.limits import LARGE_PIXELS, MOST_PIECES, MOST_PIXELS

# Under this key the cache remembers the files that were looked at: 0 where nothing was found.
KEY: dict[str, Any] = {
    "kind": "damaged images",
    "version": 1,  # raise it when another verdict is given for any file
    "simplejpeg": simplejpeg.__version__,
}
CORRUPT = "Corrupt JPEG data: "
ODD_SCANS = "Inconsistent progression sequence"
# What stops TensorFlow's decoder, too.
UNREADABLE = {
    "Premature end of JPEG file": "is truncated: its end is missing",
    "Invalid JPEG file structure: two SOI markers": "is cut off: another image begins in it",
}
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
# Some cameras write a few bytes behind a scan. More are the rest of an image that went wrong.
MOST_PADDING = 8
# Zeros at the end of a WebP image's data, at least, and as a share of it. A sound lossy image with
# a plain lower part can end in half as many zeros as it has bytes, a lossless one ends in three.
FEWEST_ZEROS, SHARE_OF_ZEROS = 64, {b"VP8 ": 0.6, b"VP8L": 0.0}
RESTARTS = range(0xD0, 0xD8)
LOOKED_AT = ("JPEG", "WebP")
ALONE = threading.Lock()


class Damage(NamedTuple):
    """The fault of a file, and whether a decoder reads it all the same."""

    reason: str
    readable: bool


def find_damage(data: bytes) -> Damage | None:
    """The damage of a JPEG or WebP file; None where there is none, or where it can't be told.

    It can't be told of other formats, and of colours that are sampled in an unusual way, such as
    every third pixel: simplejpeg does not read these. `images.problem` must have been asked before.
    """
    if kind(data) == "WebP":
        return _zeros_in_webp(data)
    sides = size(data) if kind(data) == "JPEG" else None
    if sides is None or sides[0] * sides[1] > MOST_PIXELS:
        return None
    plain = without_notes(data[: end_of_scans(data, sides)])
    if sides[0] * sides[1] <= LARGE_PIXELS:
        return _decode(plain)
    with ALONE:  # a progressive image is held in memory as a whole, however small it is made
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
        # With neither a least height nor a least width the factor would not be obeyed.
        simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True
        )
    except ValueError as error:
        return _meaning(str(error))
    return None


def _meaning(warning: str) -> Damage | None:
    """The damage that a warning of libjpeg tells of; None where the image is whole."""
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
    """A JPEG file whose header holds only what decoding needs.

    libjpeg tells the first warning only. One of a comment, or of bytes between two segments, which
    harm nothing, would hide one of the image.
    """
    parts, at = [data[:2]], 2
    for _ in range(MOST_PIECES):
        if (found := MARKER.search(data, at)) is None:
            break
        at = found.end() - 2
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


class Checked:
    """`find_damage`, once for each content: files that were found whole are remembered in a cache.

    Args:
        cache: None: nothing is remembered.
    """

    def __init__(self, cache: Cache | None):
        self.cache = cache
        self.known: Mapping[str, float] = {}
        self.new: dict[str, float] = {}
        if cache is not None and (digests := cache.digests(KEY)):
            verdicts = cache.rows(KEY, digests)[:][:, 0].tolist()
            self.known = dict(zip(digests, verdicts, strict=True))

    def find(self, data: bytes, digest: str) -> Damage | None:
        """`find_damage(data)`; may be called from several threads."""
        if kind(data) not in LOOKED_AT or self.known.get(digest) == 0:
            return None
        found = find_damage(data)
        if digest not in self.known:
            self.new[digest] = float(found is not None)
        return found

    def save(self) -> None:
        """Remember what was new."""
        if self.cache is not None and self.new:
            rows = np.array(list(self.new.values()), np.float32)[:, None]
            self.cache.append(KEY, list(self.new), rows)
