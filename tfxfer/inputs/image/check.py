"""Check quickly whether a file is an image that can be decoded.

Only the structure is checked: the magic bytes, the size, and whether the end is there. No pixel is
read, so that checking a folder takes no longer than hashing it. Faults that only decoding shows are
found by `damage`, and when features are extracted. The module needs only the standard library.
"""

import re
import struct
from collections.abc import Callable, Set

from tfxfer.inputs.image import jpegxl
from tfxfer.limits import (
    MOST_BOXES,
    MOST_BYTES,
    MOST_EXTRA_CHANNELS,
    MOST_GIF_RUNS,
    MOST_HEAVY_PIXELS,
    MOST_PIECES,
    MOST_PIXELS,
    MOST_SCANNED_PIXELS,
    MOST_SCANS,
)

READ: Set[str] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".jxl"}
# These need the extra heic: see heic.py.
EXTRA: Set[str] = {".heic", ".heif", ".hif", ".avif", ".tif", ".tiff"}
ENDINGS: Set[str] = READ | EXTRA
# Images of formats that are not read. They are listed so that messages do not call them non-images.
UNREAD: Set[str] = {".ppm", ".pgm", ".pbm", ".pnm", ".dcm", ".jp2", ".j2k", ".exr", ".tga"}
UNREAD |= {".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".ico", ".npy", ".nii"}
# Endings of files that often lie beside photos and are not photos. If an ending is in none of these
# lists, the first bytes of the file decide.
OTHERS: Set[str] = {
    ".txt",
    ".csv",
    ".tsv",
    ".xml",
    ".json",
    ".jsonl",
    ".md",
    ".yaml",
    ".yml",
    ".html",
    ".htm",
}
OTHERS |= {".pdf", ".db", ".ini", ".mp4", ".mov", ".avi", ".xmp", ".aae", ".py", ".ipynb", ".zip"}
OTHERS |= {".tar", ".gz", ".mat", ".npz", ".pkl", ".xlsx", ".docx", ".log", ".icloud"}
MARKER = re.compile(b"\xff[\x01-\xfe]")  # the marker of a segment in a JPEG
GIF_RUN = 4096  # blocks that are compared at once
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
# What is most often found in place of a photo, by its first bytes, in lower case.
INSTEAD = {
    b"version https://git-lfs": " but a pointer of Git LFS; fetch the photo with git lfs pull",
    b"<!doctype html": " but a web page",
    b"<html": " but a web page",
    b"<?xml": " but a text of a web server, or a drawing (SVG)",
    b"<svg": " but a drawing (SVG)",
    b"%pdf": " but a PDF",
    b"pk\3\4": " but a ZIP archive; unpack it",
    b"\x1f\x8b": " but compressed (gzip); unpack it",
    b"\0\0\0\x0cjp  ": " that can be read, but a JPEG 2000; convert it to PNG",
    b"8bps": " that can be read, but a Photoshop file; convert it to PNG",
    b"\x89png\n": " but a PNG whose bytes were changed as if it were text",
}


class Damaged(Exception):
    """A file is damaged. The text of the error is the second half of a sentence about the file."""


def kind(data: bytes) -> str | None:
    """Return the format of a file by its first bytes, or None if it is unknown.

    The name of the file does not matter.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data.startswith(b"BM") and len(data) >= 26:
        return "BMP"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JPEG XL"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if data[4:8] == b"ftyp" and len(data) >= 16:
        brands = {
            data[8:12],
            *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4], "big"), 256), 4)),
        }
        return "AVIF" if brands & AVIF_BRANDS else "HEIC" if brands & HEIF_BRANDS else None
    return None


def problem(data: bytes) -> str | None:
    """Return in a few words why these bytes can't be decoded, or None if no reason was found."""
    if not data:
        return "is empty"
    if len(data) > MOST_BYTES:
        return f"has {len(data) >> 20} MiB, more than the {MOST_BYTES >> 20} that are read"
    form = kind(data)
    if form is None:
        return f"is not an image{_instead(data)}"
    if form not in SIZE_OF:
        return None
    try:
        width, height = SIZE_OF[form](data)
    except Damaged as damage:
        return f"is a {form} that {damage}"
    except (struct.error, IndexError):
        return f"is a {form} that ends in its header"
    if width < 1 or height < 1:
        return f"is a {form} of {width} x {height} pixels"
    return too_large(form, width, height, heavy=form == "JPEG XL" or _deep_png(data))


def _instead(data: bytes) -> str:
    """Return what these bytes are instead of an image, as the end of a sentence."""
    if not data.strip(b"\0"):
        return " but only zeros, as after a broken download"
    if data[4:8] == b"ftyp":
        return " but a film, or a kind of image that is not read"
    beginning = data[:32].lstrip(b"\xef\xbb\xbf \r\n").lower()
    known = (what for begins, what in INSTEAD.items() if beginning.startswith(begins))
    return next(known, f", it begins with {data[:12]!r}")


def too_large(form: str, width: int, height: int, heavy: bool = False) -> str | None:
    """Return the text on an image with too many pixels, or None if it has not too many.

    Args:
        heavy: whether decoding takes twice the memory, so that fewer pixels are allowed.
    """
    most = MOST_HEAVY_PIXELS if heavy else MOST_PIXELS
    if width * height <= most:
        return None
    deep = "with 16 bits a channel " if heavy and form != "JPEG XL" else ""
    return (
        f"is a {form} {deep}of {width} x {height} pixels, "
        f"more than the {most // 10**6} million that are read"
    )


def _deep_png(data: bytes) -> bool:
    return data[:4] == b"\x89PNG" and data[24:25] == b"\x10"


def size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels, or None if they can't be read."""
    try:
        return SIZE_OF[kind(data) or ""](data)
    except (KeyError, Damaged, struct.error, IndexError):
        return None


def _jpeg(data: bytes) -> tuple[int, int]:
    size = None
    at = 2
    for _ in range(MOST_PIECES):
        # Like libjpeg, skip bytes between the segments.
        if (match := MARKER.search(data, at)) is None:
            raise Damaged("ends in its header")
        at = match.end() - 2
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            if marker > 0xC2 or bits != 8:
                raise Damaged(
                    f"is {bits}-bit, lossless or arithmetically coded, which can't be read"
                )
            size = width, height
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise Damaged("holds no image")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    else:
        raise Damaged(f"has more than {MOST_PIECES:,} segments")
    if size is None:
        raise Damaged("has no size")
    end = end_of_scans(data, size)
    # The search begins after the header, since a thumbnail in the EXIF block has an end of its own.
    # Bytes after the end, which some phones write, do no harm.
    if data.rfind(b"\xff\xd9", at, end) < 0:
        if end < len(data):
            raise Damaged("has more scans than are read; save it anew")
        raise Damaged("is truncated: its end is missing")
    return size


def end_of_scans(data: bytes, size: tuple[int, int]) -> int:
    """Return the index up to which a JPEG is read.

    It is read up to the marker of the first scan beyond the most that are allowed; see
    `tfxfer.inputs.image.headers` and `tfxfer.limits`.
    """
    most = min(max(MOST_SCANNED_PIXELS // max(size[0] * size[1], 1), 1), MOST_SCANS)
    at = 0
    for _ in range(most + 1):
        at = data.find(b"\xff\xda", at) + 2
        if at < 2:
            return len(data)
    return at - 2


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        raise Damaged("does not begin with its header")
    at, pixels = 8, False
    for _ in range(MOST_PIECES):
        if at + 12 > len(data):
            raise Damaged("is truncated: its end is missing")
        length, name = struct.unpack_from(">I4s", data, at)
        pixels = pixels or name == b"IDAT"
        if name == b"IEND":
            if not pixels:
                raise Damaged("holds no image")
            return width, height
        at += 12 + length
    raise Damaged(f"has more than {MOST_PIECES:,} chunks")


def _gif(data: bytes) -> tuple[int, int]:
    """Return the size of the first frame or of the screen, whichever has more pixels.

    Later frames are not read.
    """
    screen = struct.unpack_from("<HH", data, 6)
    at, runs = 13 + _colours(data[10]), 0
    while data[at] == 0x21:
        at, runs = _skip_blocks(data, at + 2, runs + 1, missing="ends in its header")
    if data[at] != 0x2C:
        raise Damaged("holds no image")
    width, height, local = struct.unpack_from("<HHB", data, at + 5)
    first = at + 11 + _colours(local)
    _skip_blocks(data, first, runs + 1, missing="is truncated: its first frame has no end")
    if width < 1 or height < 1:
        return width, height
    return max((width, height), screen, key=lambda sides: sides[0] * sides[1])


def _colours(flags: int) -> int:
    return 6 << flags % 8 if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int, runs: int, missing: str) -> tuple[int, int]:
    """Skip the blocks of a GIF.

    Args:
        at: the index of the first block.
        runs: how many runs of blocks of the same length were visited before; see `MOST_GIF_RUNS`.
        missing: the text of the error if the blocks have no end.

    Returns:
        The index after the last block, and how many runs were visited so far.
    """
    while at < len(data):
        if runs >= MOST_GIF_RUNS:
            raise Damaged("has too many blocks before the end of its first frame")
        length = data[at]
        if length == 0:
            return at + 1, runs + 1
        run = data[at : at + GIF_RUN * (length + 1) : length + 1]
        at += (len(run) - len(run.lstrip(bytes([length])))) * (length + 1)
        runs += 1
    raise Damaged(missing)


def _webp(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise Damaged("is truncated: its end is missing")
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes) -> tuple[int, int]:
    start, header, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    if (
        header < 40
        or bits not in (8, 24, 32)
        or packing not in (0, 3)
        or (packing == 3 and bits != 32)
    ):
        raise Damaged(
            "has fewer than 8 or just 16 bits a pixel, is packed, or of the OS/2 kind, which can't "
            "be read; save it as PNG"
        )
    if width < 1:
        return width, abs(height)
    if start + (bits // 8 * width + 3) // 4 * 4 * abs(height) > len(data):
        raise Damaged("is truncated: its end is missing")
    return width, abs(height)


def _jxl(data: bytes) -> tuple[int, int]:
    codestream = _codestream(data)
    if codestream[:2] != b"\xff\x0a":
        raise Damaged("holds no image")
    bits, at = int.from_bytes(codestream[2:], "little"), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return bits >> at - count & (1 << count) - 1

    header = jpegxl.read_header(read, lambda position, items: items[position])
    if at > 8 * len(codestream[2:]):
        raise IndexError
    if header.preview or header.extra_channels > MOST_EXTRA_CHANNELS:
        raise Damaged("has a preview or many extra channels, which can't be read")
    return header.width, header.height


def _codestream(data: bytes) -> bytes:
    """Return the first bytes of the codestream of a JPEG XL file.

    The codestream may be in boxes, whose format is that of MP4.
    """
    length = 2 + jpegxl.HEADER
    if data.startswith(b"\xff\x0a"):
        return data[:length]
    at = 12
    for _ in range(MOST_BOXES):
        if at + 16 > len(data):
            break
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"jxlc" and (size == 0 or size >= 8):
            return data[at + 8 : at + 8 + length]
        if name == b"jxlp" and (size == 0 or size >= 12 + length):
            return data[at + 12 : at + 12 + length]
        if size < 8:
            break
        at += size
    raise Damaged("holds no image")


SIZE_OF: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "JPEG XL": _jxl,
}
