"""Pixels and labels in Python as people have them: read, reported, or refused with a remedy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from test_data import folder, notes

import tfxfer
from tfxfer.data import from_arrays, from_dataset
from tfxfer.data.arrays import find_in_arrays
from tfxfer.errors import DataError
from tfxfer.inputs.image import pixels

PICTURES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
TRUE = np.arange(24) % 2
SLICES = tf.data.Dataset.from_tensor_slices


def test_digits_of_scikit_learn_are_said_to_be_dark():
    digits = load_digits(n_class=2)
    for examples in (
        from_arrays(digits.images, digits.target),
        from_dataset(SLICES((digits.images, digits.target))),
    ):
        assert "No image has a value above 16" in notes(examples)
        assert "multiply them by 255 / 16" in notes(examples)


@pytest.mark.parametrize("pixels", [PICTURES // 128, PICTURES // 16, PICTURES / 255.0 * 100])
def test_dark_images_of_any_type_are_said(pixels):
    assert "all are dark" in notes(from_arrays(pixels, TRUE))
    assert "all are dark" in notes(from_dataset(SLICES((pixels, TRUE))))


@pytest.mark.parametrize("pixels", [PICTURES, PICTURES / 255, PICTURES.astype("float32")])
def test_nothing_is_said_of_ordinary_images(pixels):
    assert not from_arrays(pixels, TRUE).notes
    assert not from_dataset(SLICES((pixels, TRUE))).notes


def test_true_and_false_are_white_and_black():
    expected = from_arrays((PICTURES > 127) * np.uint8(255), TRUE)
    assert from_arrays(PICTURES > 127, TRUE).digests == expected.digests


def opened(mode: str) -> Image.Image:
    """An image of Pillow, of large squares of colours, so that no mode changes it much."""
    colours = np.kron(PICTURES[0, :2, :3] // 32 * 36, np.ones((8, 8, 1), np.uint8))
    image = Image.fromarray(colours.astype(np.uint8))
    if mode == "PA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image.quantize(16, method=Image.Quantize.FASTOCTREE)
    if mode == "turned":
        image.getexif()[0x0112] = 6
        return image
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["P", "PA", "CMYK", "YCbCr", "HSV", "LA", "I;16", "1", "turned"])
def test_images_of_pillow_are_read_as_they_look(mode):
    image = opened(mode)
    content = find_in_arrays([image, image], [0, 1]).read(0)
    if mode == "turned":
        expected = image.transpose(Image.Transpose.ROTATE_270)
    elif mode == "I;16":
        expected = Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    elif mode in ("PA", "LA"):  # what is transparent is white
        clear = image.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear)
    else:
        expected = image
    expected = np.asarray(expected.convert("RGB"))
    seen = np.asarray(pixels(content, expected.shape[:2])) * 255
    assert np.abs(seen - expected).max() < 2


def test_images_of_pillow_of_several_modes_are_read_together():
    modes = ["RGB", "P", "L", "RGBA"]
    found = find_in_arrays([opened(mode) for mode in modes], [0, 1, 0, 1])
    for i, mode in enumerate(modes):
        expected = np.asarray(opened(mode).convert("RGB"))
        seen = np.asarray(pixels(found.read(i), expected.shape[:2])) * 255
        assert np.abs(seen - expected).max() < 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_images_of_pillow_and_their_arrays_are_the_same_examples(mode):
    images = [Image.fromarray(picture).convert(mode) for picture in PICTURES]
    arrays = np.stack([np.asarray(image) for image in images])
    assert from_arrays(images, TRUE).digests == from_arrays(arrays, TRUE).digests


@pytest.mark.parametrize(
    ("pixels", "cure"),
    [
        (PICTURES / 255 * 1.02, r"clip\(x, 0, 1\)"),  # what bicubic resizing adds
        (PICTURES / 255 * 1.02 - 0.01, r"clip\(x, 0, 1\)"),
        (PICTURES * 1.01, r"clip\(x, 0, 255\)"),
        (PICTURES / 127.5 - 1, r"\(x \+ 1\) / 2"),
        ((PICTURES / 255 - 0.45) / 0.22, "Undo the normalisation"),
        (PICTURES.astype("uint16") * 16, "4095 for 12 bits"),
        (np.where(PICTURES > 250, np.nan, PICTURES / 255), "not numbers"),
    ],
)
def test_pixels_on_other_scales_are_refused_with_a_cure(pixels, cure):
    for make in (
        lambda: from_arrays(pixels, TRUE),
        lambda: from_dataset(SLICES((pixels, TRUE)).batch(8)),
    ):
        with pytest.raises(ValueError, match=cure):
            make()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.moveaxis(PICTURES, -1, 1), "Put the colours last"),
        ([PICTURES[0], PICTURES[1][:4]] * 12, "images of one size"),
        ([f"{i}.png" for i in range(24)], "Files are read from a folder"),
    ],
)
def test_what_is_no_array_of_images_is_refused_with_a_cure(pixels, said):
    with pytest.raises(ValueError, match=said):
        from_arrays(pixels, TRUE)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", "dog"] * 12, r"numpy\.unique"),
        (np.array([b"cat", b"dog"] * 12), r"numpy\.unique"),
        (np.array(["cat", "dog"] * 12, object), r"numpy\.unique"),
        ([[0], [0, 1]] * 12, "one label for each image"),
        (np.where(TRUE, 1, -1), "Received: -1"),
        (np.where(TRUE, 1, np.nan), "whole numbers"),
    ],
)
def test_labels_that_are_no_numbers_from_0_on_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        from_arrays(PICTURES, labels)


@pytest.mark.parametrize("labels", [TRUE + 1, TRUE * 7, TRUE.astype("uint64") + np.uint64(2**63)])
def test_numbers_with_gaps_and_huge_ones_are_names(labels):
    examples = from_arrays(PICTURES, labels)
    assert [int(examples.classes[i]) for i in examples.labels] == labels.tolist()


@pytest.mark.parametrize("classes", ["ab", {"b": 1, "a": 0}, {"a", "b"}])
def test_class_names_without_an_order_are_refused(classes):
    with pytest.raises(ValueError, match="a list of names"):
        from_arrays(PICTURES, TRUE, classes=classes)


@pytest.mark.parametrize("task", ["multilabel", "regress"])
def test_labels_for_another_task_are_refused_with_its_name(task):
    labels = {"regress": TRUE + 0.25, "multilabel": (np.arange(72).reshape(24, 3) % 5 < 2) * 1}[
        task
    ]
    with pytest.raises(ValueError, match=f'task="{task}"'):
        from_arrays(PICTURES, labels)
    assert len(from_arrays(PICTURES, labels, task=task)) == 24


def test_masked_numbers_are_not_known():
    values = np.ma.masked_array(TRUE * 1.5, mask=TRUE * np.arange(24) > 20)
    examples = from_arrays(PICTURES, values, task="regress")
    assert np.isnan(examples.labels[[21, 23]]).all() and np.isnan(examples.labels).sum() == 2


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (PICTURES, np.ma.masked_array(TRUE, mask=np.arange(24) == 17)),
        (
            np.ma.masked_array(PICTURES, mask=np.zeros_like(PICTURES)),
            [*TRUE[:17], np.ma.masked, *TRUE[18:]],
        ),
        (np.ma.masked_array(PICTURES, mask=np.arange(24 * 192).reshape(24, 8, 8, 3) == 3300), TRUE),
        (np.ma.masked_array([f"one {i}" for i in range(24)], mask=np.arange(24) == 17), TRUE),
    ],
)
def test_masked_classes_and_examples_are_named_by_their_position(images, labels):
    with pytest.raises(ValueError, match="positions 17"):
        from_arrays(images, labels)


def test_a_mask_that_hides_nothing_changes_nothing():
    examples = from_arrays(np.ma.masked_array(PICTURES), np.ma.masked_array(TRUE))
    assert examples.fingerprint == from_arrays(PICTURES, TRUE).fingerprint


def test_a_class_that_no_image_has_is_said():
    examples = from_arrays(PICTURES, TRUE, classes=["cat", "dog", "emu"])
    assert examples.classes == ("cat", "dog") and "no photo of 'emu'" in notes(examples)


def test_an_image_without_a_group_stands_alone():
    groups = [None, "", float("nan"), *range(21)]
    assert from_arrays(PICTURES, TRUE, groups=groups).digests == from_arrays(PICTURES, TRUE).digests


class Shuffled:
    """Like the column of a shuffled data frame: indexed by the labels of rows, listed in order."""

    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, label):
        return self.values[::-1][label]


def test_parts_of_a_shuffled_data_frame_stay_in_their_order():
    parts = ["train"] * 16 + ["validation"] * 3 + ["test"] * 5
    assert from_arrays(PICTURES, TRUE, splits=Shuffled(parts)).splits == tuple(parts)
    assert from_arrays(PICTURES, TRUE, splits=np.array(parts)).splits == tuple(parts)


def test_groups_of_a_shuffled_data_frame_stay_in_their_order():
    groups = ["a"] * 4 + [f"b{i // 2}" for i in range(20)]
    expected = from_arrays(PICTURES, TRUE, groups=groups)
    assert from_arrays(PICTURES, TRUE, groups=Shuffled(groups)).splits == expected.splits


@pytest.mark.parametrize("odd", [None, float("nan"), "valid", np.ma.masked, 1])
def test_what_is_no_part_is_named_by_its_position(odd):
    with pytest.raises(ValueError, match="at position 22"):
        from_arrays(PICTURES, TRUE, splits=["train", "test"] * 11 + [odd, "test"])


@pytest.mark.parametrize("splits", ["train", dict.fromkeys(range(24), "train"), {"train"}])
def test_parts_without_an_order_are_refused(splits):
    with pytest.raises(ValueError, match=type(splits).__name__):
        from_arrays(PICTURES, TRUE, splits=splits)


@pytest.mark.parametrize(
    "options", [{"groups": [1, 2]}, {"groups": [1] * 24, "splits": ["train"] * 24}]
)
def test_groups_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match="Expected 24 groups, and no splits"):
        from_arrays(PICTURES, TRUE, **options)


def test_parts_of_keras_that_count_other_classes_are_refused(tmp_path):
    folder(tmp_path, {"train/a": 4, "train/b": 4, "train/c": 4, "val/a": 2, "val/c": 2})
    train, val = (
        keras.utils.image_dataset_from_directory(tmp_path / part, image_size=(6, 6), verbose=False)
        for part in ("train", "val")
    )
    with pytest.raises(ValueError, match="class_names"):
        from_dataset(train, val)


@pytest.mark.parametrize(
    "element",
    [
        ({"image": PICTURES}, TRUE),
        (PICTURES, tf.ragged.constant([[0], [0, 1]] * 12)),
        (PICTURES, tf.sparse.from_dense(np.eye(2)[TRUE])),
        (PICTURES[:, None], TRUE),
        (PICTURES[:, None, None], TRUE[:, None]),
    ],
)
def test_elements_of_other_kinds_are_refused_with_their_spec(element):
    with pytest.raises(ValueError, match="Received: element_spec"):
        from_dataset(SLICES(element))


def test_weights_of_examples_are_said_not_to_be_used():
    weights = np.linspace(0, 1, 24, dtype="float32")
    assert "weights" in notes(from_dataset(SLICES((PICTURES, TRUE, weights)).batch(8)))


def test_an_empty_part_is_named():
    data = SLICES((PICTURES, TRUE))
    with pytest.raises(ValueError, match="validation, which is empty"):
        from_dataset(data, data.take(0))


def test_parts_of_the_same_images_are_no_parts():
    data = SLICES((PICTURES, TRUE))
    with pytest.raises(DataError, match="also in validation or test"):
        from_dataset(data, test=data)


@pytest.mark.long
def test_examples_are_a_dataset_for_fit_on_the_networks_scale(photos, tiny_savedmodel):
    examples = tfxfer.data.load(photos)
    backbone = tfxfer.Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    batches = examples.dataset("test", backbone, batch_size=4)
    assert batches.class_names == ["china", "flower"]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    rows = examples.where("test")
    np.testing.assert_array_equal(labels, examples.labels[rows])
    expected = tfxfer.inputs.image.pixels(examples.read(int(rows[5])), (32, 32), (-1.0, 1.0))
    np.testing.assert_array_equal(images[5], expected)


@pytest.mark.long
def test_each_epoch_of_the_training_part_has_an_order_of_its_own(photos, tiny_savedmodel):
    examples = tfxfer.data.load(photos)
    backbone = tfxfer.Backbone(tiny_savedmodel, trainable=False)
    batches = examples.dataset("train", backbone, batch_size=8)
    first, second = (np.concatenate([labels for _, labels in batches]) for _ in range(2))
    assert sorted(first) == sorted(second) and first.tolist() != second.tolist()
