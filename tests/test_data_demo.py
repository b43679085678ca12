"""The embedded data."""

import gzip
import io
import lzma
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from tfxfer.data import load
from tfxfer.data.demo.rebuild import rebuild


def test_the_demo_data_has_two_thousand_and_one_thousand_images_of_ten_classes():
    examples = load("demo")
    assert {part: list(counts) for part, counts in examples.counts().items()} == {
        "train": [200] * 10,
        "validation": [0] * 10,
        "test": [100] * 10,
    }
    assert (
        examples.classes[0] == "t-shirt"
        and examples.classes[9] == "ankle-boot"
        and examples.notes == ()
    )
    assert len(set(examples.digests)) == 3000
    opened = Image.open(io.BytesIO(examples.read(2999)))
    assert (
        opened.size == (28, 28)
        and opened.mode == "L"
        and examples.files[2999] == "test/ankle-boot/099.png"
    )


def test_trousers_look_like_trousers():
    examples = load("demo")
    mean = np.mean(
        [np.asarray(Image.open(io.BytesIO(examples.read(i)))) for i in range(200, 400)], 0
    )
    # It is darker between the legs.
    assert mean[20, 14] < mean[20, 9] and mean[20, 14] < mean[20, 17]


def test_it_is_small_and_has_its_licence():
    folder = files("tfxfer.data.demo")
    assert (
        sum(
            len(folder.joinpath(name).read_bytes())
            for name in ("fashion-mnist.xz", "LICENSE", "README.md", "rebuild.py")
        )
        < 3_000_000
    )
    assert "Copyright (c) 2017 Zalando SE" in folder.joinpath("LICENSE").read_text()


@pytest.mark.long
def test_rebuilding_takes_the_first_of_each_class(tmp_path):
    for name, start, count in (("train", 0, 2100), ("t10k", 1950, 1100)):
        pixels, labels = np.zeros((count, 784), np.uint8), (np.arange(count) % 10).astype(np.uint8)
        # The first 50 test images are training images.
        pixels[:, :4] = np.arange(start, start + count, dtype=np.int32)[:, None].view(np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(bytes(16) + pixels.tobytes())
        )
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(bytes(8) + labels.tobytes())
        )
    taken = (
        np.frombuffer(lzma.decompress(rebuild(tmp_path)), np.uint8)
        .reshape(-1, 784)[:, :4]
        .copy()
        .view(np.int32)[:, 0]
    )
    assert list(taken[200:400]) == list(range(1, 2000, 10))
    # An image that was taken before is not taken again.
    assert len(taken) == 3000 and min(taken[2000:]) == 2000
