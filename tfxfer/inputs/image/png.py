"""Write arrays as PNG files.

They are not compressed, so that the same pixels give the same bytes with every version of every
library.
"""

import struct
import zlib

import numpy as np

# The colour type in PNG for each number of channels: grey, grey with alpha, RGB, RGBA.
COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}


def png(image: np.ndarray) -> bytes:
    """Return an image, uint8 or uint16 [h, w] or [h, w, 1 to 4], as the content of a PNG file."""
    image = image[..., None] if image.ndim == 2 else image
    height, width, channels = image.shape
    values = np.ascontiguousarray(image, ">u2" if image.dtype == np.uint16 else np.uint8)
    # Each row begins with a byte for its filter, where 0 means none.
    rows = np.zeros((height, 1 + width * channels * values.itemsize), np.uint8)
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
