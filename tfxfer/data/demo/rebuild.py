"""Make fashion-mnist.xz again from the original files.

Run `python -m tfxfer.data.demo.rebuild FOLDER`, where FOLDER holds the four .gz files.
"""

import gzip
import hashlib
import lzma
import sys
from pathlib import Path

import numpy as np

from tfxfer.data.demo import COUNTS, SIDE

ORIGINAL = {"train": "train", "test": "t10k"}
ALLOWED = 3 * 10**6  # the most bytes that the file may add to the wheel


def rebuild(folder: Path) -> bytes:
    """Return the content of the file: the first images of each class, class by class.

    The training images come before the test images. An image that was taken before is skipped.

    Args:
        folder: holds the four .gz files.
    """
    taken: list[bytes] = []
    for part, count in COUNTS.items():
        pixels = np.frombuffer(
            gzip.decompress((folder / f"{ORIGINAL[part]}-images-idx3-ubyte.gz").read_bytes()),
            np.uint8,
            offset=16,
        ).reshape(-1, SIDE * SIDE)
        labels = np.frombuffer(
            gzip.decompress((folder / f"{ORIGINAL[part]}-labels-idx1-ubyte.gz").read_bytes()),
            np.uint8,
            offset=8,
        )
        seen = set(taken)
        for label in range(10):
            images = dict.fromkeys(
                image.tobytes() for image in pixels[labels == label] if image.tobytes() not in seen
            )
            taken += list(images)[:count]
    filters = [
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}
    ]
    return lzma.compress(b"".join(taken), lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=filters)


def main() -> None:
    """Write the file beside this one, and print its size and SHA-256."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = rebuild(Path(sys.argv[1]))
    if len(data) > ALLOWED:
        sys.exit(f"{len(data)} bytes, more than {ALLOWED}.")
    path = Path(__file__).parent / "fashion-mnist.xz"
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
