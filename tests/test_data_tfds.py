"""TensorFlow Datasets, with real ones that tensorflow-datasets itself writes, offline."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfxfer.data import load
from tfxfer.errors import DataError
from tfxfer.inputs.image.check import kind


def write(folder, name: str, parts: dict[str, int], encoding: str = "png", bare: bool = False):
    """Write a dataset as `download_and_prepare` leaves it on disk.

    No code of it is registered, so that it is read from its files.
    """
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format=encoding),
        "label": tfds.features.ClassLabel(names=["left", "right"]),
    }
    datasets = {}
    for part, count in parts.items():
        images = (
            np.random.default_rng(len(part)).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
        )
        values = {"image": images, "label": np.arange(count) % 2}
        datasets[part] = tf.data.Dataset.from_tensor_slices({"image": images} if bare else values)
    if bare:
        del features["label"]
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=datasets,
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_parts_are_kept_and_images_come_encoded(tmp_path, encoding):
    examples = load(
        "tfds:tiny_sides",
        data_dir=write(tmp_path, "tiny_sides", {"train": 12, "validation": 4, "test": 6}, encoding),
    )
    assert {part: list(counts) for part, counts in examples.counts().items()} == {
        "train": [6, 6],
        "validation": [2, 2],
        "test": [3, 3],
    }
    assert examples.classes == ("left", "right") and examples.source == "tfds:tiny_sides"
    assert {kind(examples.read(i)) for i in range(22)} == {encoding.upper()}
    assert len(set(examples.digests)) == 22


def test_a_dataset_with_train_alone_is_split_in_three(tmp_path):
    examples = load("tfds:tiny_pile", data_dir=write(tmp_path, "tiny_pile", {"train": 40}))
    assert [len(examples.where(part)) for part in ("train", "validation", "test")] == [28, 6, 6]


def test_other_parts_are_left_out_and_noted(tmp_path):
    examples = load(
        "tfds:tiny_more", data_dir=write(tmp_path, "tiny_more", {"train": 8, "test": 4, "extra": 4})
    )
    assert len(examples) == 12 and any("extra" in note for note in examples.notes)


def test_what_cannot_be_used_is_named(tmp_path):
    write(tmp_path, "tiny_bare", {"train": 4}, bare=True)
    with pytest.raises(DataError, match="tfds:tiny_bare is not a dataset of images"):
        load("tfds:tiny_bare", data_dir=tmp_path)
    write(tmp_path, "tiny_test", {"test": 4})
    with pytest.raises(DataError, match="tfds:tiny_test has no part named train. Found: test"):
        load("tfds:tiny_test", data_dir=tmp_path)


def test_an_unknown_name_is_named(tmp_path):
    with pytest.raises(DataError, match="tfds:no_such_thing_at_all is not a dataset"):
        load("tfds:no_such_thing_at_all", data_dir=tmp_path)
