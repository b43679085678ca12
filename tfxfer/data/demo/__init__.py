"""The embedded demo data: 2,000 training and 1,000 test images of Fashion-MNIST.

See README.md beside this file.
"""

import lzma
from importlib.resources import files as resources

import numpy as np

from tfxfer.data.examples import Found
from tfxfer.inputs.image.png import png

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
SIDE = 28
COUNTS = {"train": 200, "test": 100}  # images of each class


def read_demo() -> Found:
    """Return the images, 28 x 28 and grey, as PNG files.

    There is no validation part, because cross-validation makes better use of 2,000 images.
    """
    raw = np.frombuffer(
        lzma.decompress((resources(__package__) / "fashion-mnist.xz").read_bytes()), np.uint8
    )
    pixels = raw.reshape(-1, SIDE, SIDE)  # train, then test, each of them class by class
    files, names, splits = [], [], []
    for part, count in COUNTS.items():
        for name in CLASSES:
            files += [f"{part}/{name}/{i:03d}.png" for i in range(count)]
            names += [name] * count
            splits += [part] * count
    return Found(
        files=files,
        names=names,
        read=lambda i: png(pixels[i]),
        source="demo",
        splits=splits,
        classes=CLASSES,
    )
