"""Is this an image that can be decoded? A quick look at the structure: magic bytes, size, and whether the end is there. Standard library only.

It reads no pixel, so that a folder is checked in the time it takes to hash it. What only decoding can find is found while extracting.
"""

import struct
from collections.abc import Callable, Iterator

MOST_PIXELS = 178_956_970  # where Pillow, too, speaks of a decompression bomb
READ = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".jxl"}
EXTRA = {".heic", ".heif", ".hif", ".avif", ".tif", ".tiff"}  # read through the extra: see heic.py
ENDINGS = READ | EXTRA
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}


class Damaged(Exception):
    """What is wrong with a file, as the second half of a sentence about it."""


def kind(data: bytes) -> str | None:
    """The format by its first bytes; None where it is none that we know. The file's name plays no part."""
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
    """What keeps these bytes from being decoded, in a few words; None where nothing was found."""
    if not data:
        return "is empty"
    form = kind(data)
    if form is None:
        return f"is no image, it begins with {data[:12]!r}"
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
    if width * height > MOST_PIXELS:
        return f"is a {form} of {width} x {height} pixels, more than the {MOST_PIXELS // 10**6} million that are read"
    return None


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None where they can't be told."""
    try:
        return SIZE_OF[kind(data) or ""](data)
    except (KeyError, Damaged, struct.error, IndexError):
        return None


def _jpeg(data: bytes) -> tuple[int, int]:
    size = None
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise Damaged("has no marker where one should be")
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
    if size is None:
        raise Damaged("has no size")
    # Looked for behind the header only: a thumbnail in the EXIF block has an end of its own. Bytes behind the end (phones write some) are no harm.
    if data.rfind(b"\xff\xd9", at) < 0:
        raise Damaged("is truncated: its end is missing")
    return size


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    at, pixels = 8, False
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        pixels = pixels or name == b"IDAT"
        if name == b"IEND":
            if not pixels:
                raise Damaged("holds no image")
            return width, height
        at += 12 + length
    raise Damaged("is truncated: its end is missing")


def _gif(data: bytes) -> tuple[int, int]:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while True:  # until the first frame is over, for only that is read
        if data[at] == 0x21:
            at = _skip_blocks(data, at + 2)
        elif data[at] == 0x2C:
            local = data[at + 9]
            _skip_blocks(
                data,
                at + 11 + (3 << (local & 7) + 1 if local & 0x80 else 0),
                "is truncated: its first frame has no end",
            )
            return width, height
        else:
            raise Damaged("holds no image")


def _skip_blocks(data: bytes, at: int, missing: str = "ends in its header") -> int:
    while at < len(data):
        if data[at] == 0:
            return at + 1
        at += 1 + data[at]
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
            "has fewer than 8 or just 16 bits a pixel, is packed, or of the OS/2 kind, which can't be read; save it as PNG"
        )
    if width < 1:
        return width, abs(height)
    if start + (bits // 8 * width + 3) // 4 * 4 * abs(height) > len(data):
        raise Damaged("is truncated: its end is missing")
    return width, abs(height)


def _jxl(data: bytes) -> tuple[int, int]:
    bits = _bits(_codestream(data)[2:12])

    def number(count: int) -> int:
        return sum(next(bits) << i for i in range(count))

    def side(small: int) -> int:
        return 8 * (number(5) + 1) if small else 1 + number((9, 13, 18, 30)[number(2)])

    small = number(1)
    height = side(small)
    ratio = number(3)
    parts = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
    width = height * parts[ratio - 1][0] // parts[ratio - 1][1] if ratio else side(small)
    return width, height


def _codestream(data: bytes) -> bytes:
    if data.startswith(b"\xff\x0a"):
        return data
    at = 12
    while at + 16 <= len(data):  # boxes, as in MP4
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"jxlc", b"jxlp"):
            return data[at + (8 if name == b"jxlc" else 12) :]
        if length < 8:
            break
        at += length
    raise Damaged("holds no image")


def _bits(data: bytes) -> Iterator[int]:
    for byte in data:
        for i in range(8):
            yield byte >> i & 1
    raise IndexError


SIZE_OF: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "JPEG XL": _jxl,
}
