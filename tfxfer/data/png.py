"""Arrays as PNG files. Not compressed, so that the same pixels give the same bytes with every version of every library."""

import struct
import zlib

import numpy as np

COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's number for grey, grey and alpha, RGB, RGBA


def png(image: np.ndarray) -> bytes:
    """uint8 or uint16 [h, w] or [h, w, 1 to 4] -> the content of a PNG file."""
    image = image[..., None] if image.ndim == 2 else image
    height, width, channels = image.shape
    values = np.ascontiguousarray(image, ">u2" if image.dtype == np.uint16 else np.uint8)
    rows = np.zeros(
        (height, 1 + width * channels * values.itemsize), np.uint8
    )  # each row begins with its filter: none
    rows[:, 1:] = values.view(np.uint8).reshape(height, -1)
    raw = rows.tobytes()
    blocks = [raw[at : at + 0xFFFF] for at in range(0, len(raw), 0xFFFF)]
    stored = [
        struct.pack("<BHH", at == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for at, block in enumerate(blocks)
    ]
    pixels = b"\x78\x01" + b"".join(stored) + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, COLOUR[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
