"""Folders of images: found, checked, split, and described in sentences."""

import hashlib
import io
import os
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tfxfer.data import Examples, from_arrays, from_dataset, load
from tfxfer.data.split import split
from tfxfer.errors import DataError, ImageError
from tfxfer.inputs.image.png import png


def image(number: int, size: int = 6) -> bytes:
    """A small PNG, another one for each number."""
    return png(np.random.default_rng(number).integers(0, 256, (size, size, 3)).astype(np.uint8))


def folder(root, layout: dict[str, int], start: int = 0):
    """Class folders with so many images each, no two alike."""
    for path, count in layout.items():
        (root / path).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            start += 1
            (root / path / f"{i:03d}.png").write_bytes(image(start))
    return root


def notes(examples: Examples) -> str:
    return " ".join(examples.notes)


def test_class_folders_are_split_in_three_class_by_class(tmp_path):
    examples = load(folder(tmp_path, {"dogs": 40, "cats": 20, "birds": 3}))
    assert examples.classes == ("birds", "cats", "dogs")
    assert {part: list(counts) for part, counts in examples.counts().items()} == {
        "train": [1, 14, 28],
        "validation": [1, 3, 6],
        "test": [1, 3, 6],
    }
    assert examples.labels.dtype == np.int32 and examples.files[0] == "birds/000.png"
    assert examples.read(5) == (tmp_path / examples.files[5]).read_bytes()
    assert examples.digests[5] == hashlib.sha256(examples.read(5)).hexdigest()


def test_given_parts_stay_exactly_as_they_are(tmp_path):
    folder(tmp_path, {"train/a": 5, "train/b": 4, "val/a": 2, "val/b": 1, "test/a": 3, "test/b": 2})
    examples = load(tmp_path)
    assert {part: list(counts) for part, counts in examples.counts().items()} == {
        "train": [5, 4],
        "validation": [2, 1],
        "test": [3, 2],
    }
    assert all(
        file.split("/")[0].startswith(part[:3])
        for file, part in zip(examples.files, examples.splits, strict=True)
    )


@pytest.mark.parametrize("name", ["validation", "valid", "Val"])
def test_a_missing_part_stays_missing(tmp_path, name):
    examples = load(folder(tmp_path, {"train/a": 5, "train/b": 4, f"{name}/a": 2, f"{name}/b": 1}))
    assert (
        len(examples.where("test")) == 0
        and len(examples.where("validation")) == 3
        and len(examples.where("train")) == 9
    )


def test_a_class_named_train_is_a_class(tmp_path):
    examples = load(folder(tmp_path, {"train": 10, "bus": 10}))
    assert examples.classes == ("bus", "train") and len(examples.where("test")) == 4


def test_the_split_hangs_on_content_not_on_names(tmp_path):
    first = load(folder(tmp_path / "one", {"a": 30, "b": 30}))
    for path in sorted((tmp_path / "one" / "a").iterdir()):
        path.rename(path.with_name(f"z{path.name[::-1]}.png"))
    second = load(tmp_path / "one")
    assert dict(zip(first.digests, first.splits, strict=True)) == dict(
        zip(second.digests, second.splits, strict=True)
    )
    assert load(tmp_path / "one", seed=1).splits != second.splits


def test_one_image_more_moves_at_most_one_from_each_part_to_the_next():
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(101)]
    before = split(["a"] * 100, digests[:100])
    moves = Counter()
    for more in range(100, 160):
        extra = hashlib.sha256(str(more).encode()).hexdigest()
        after = split(["a"] * 101, [*digests[:100], extra])
        moves[sum(x != y for x, y in zip(before, after, strict=False))] += 1
    assert max(moves) <= 2 and moves[0] > 0


def test_identical_content_is_never_torn_apart_by_a_split(tmp_path):
    folder(tmp_path, {"a": 20, "b": 20})
    for i in range(20):
        (tmp_path / "a" / f"copy{i}.png").write_bytes(
            (tmp_path / "a" / f"{i:03d}.png").read_bytes()
        )
    examples = load(tmp_path)
    assert len(examples) == 60
    where = {}
    assert all(
        where.setdefault(digest, part) == part
        for digest, part in zip(examples.digests, examples.splits, strict=True)
    )


def test_identical_files_in_two_splits_are_dropped_from_the_training_side(tmp_path):
    folder(
        tmp_path,
        {
            "train/a": 6,
            "train/b": 6,
            "validation/a": 3,
            "validation/b": 3,
            "test/a": 3,
            "test/b": 3,
        },
    )
    seen = (tmp_path / "test/a/000.png").read_bytes()
    (tmp_path / "train/a/leak.png").write_bytes(seen)
    (tmp_path / "validation/a/leak.png").write_bytes(seen)
    (tmp_path / "train/b/other.png").write_bytes((tmp_path / "validation/b/001.png").read_bytes())
    examples = load(tmp_path)
    assert [len(examples.where(part)) for part in ("train", "validation", "test")] == [12, 6, 6]
    assert "2 photos were dropped from train: identical to one in another split" in notes(examples)
    assert "train/a/leak.png = test/a/000.png" in notes(
        examples
    ) and "1 photo was dropped from validation" in notes(examples)


def test_identical_files_within_a_split_are_kept_and_odd_labels_noted(tmp_path):
    folder(tmp_path, {"train/a": 3, "train/b": 3})
    (tmp_path / "train/a/again.png").write_bytes((tmp_path / "train/a/000.png").read_bytes())
    (tmp_path / "train/b/same.png").write_bytes((tmp_path / "train/a/001.png").read_bytes())
    examples = load(tmp_path)
    assert len(examples) == 8
    assert "more than one label (train/a/001.png as 'a' = train/b/same.png as 'b')" in notes(
        examples
    )


def test_hidden_and_other_files_are_counted_not_fatal(tmp_path):
    folder(tmp_path, {"a": 4, "b": 4})
    for name in (
        "a/.DS_Store",
        "a/Thumbs.db",
        "b/notes.txt",
        "b/more.txt",
        "a/._000.png",
        "README.md",
    ):
        (tmp_path / name).write_text("not an image")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "b/.ipynb_checkpoints").mkdir()
    (tmp_path / "b/.ipynb_checkpoints/000.png").write_bytes(image(1))
    (tmp_path / "empty").mkdir()
    examples = load(tmp_path)
    assert len(examples) == 8 and examples.classes == ("a", "b")
    assert "Ignored: 7 files that are no photos" in notes(examples) and "2 .txt" in notes(examples)
    assert "without photos, which are left out: empty/" in notes(examples)


def test_images_of_formats_that_are_not_read_are_named(tmp_path):
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.ppm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"P6 1 1 255 abc")
    with pytest.raises(DataError, match=r"not read: \.ppm"):
        load(tmp_path)
    for i in range(8):
        (tmp_path / "ab"[i % 2] / f"{i}.png").write_bytes(image(i))
    found = notes(load(tmp_path))
    assert "8 .ppm" in found and "no photos" not in found


def test_odd_names_and_links_are_fine(tmp_path):
    folder(tmp_path / "real", {"a": 3})
    folder(tmp_path / "data", {"größe no 1/unter ordner": 3, "日本": 3}, start=10)
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "data" / "日本" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "日本" / "000.png").rename(tmp_path / "data" / "日本" / "ÄÖ 1.PNG")
    (tmp_path / "data" / "日本" / "001.png").rename(tmp_path / "data" / "日本" / "no ending")
    examples = load(tmp_path / "data")
    assert examples.classes == ("größe no 1", "linked", "日本")
    assert (
        "日本/ÄÖ 1.PNG" in examples.files
        and "日本/no ending" in examples.files
        and "größe no 1/unter ordner/000.png" in examples.files
    )


def test_photos_without_class_folders_get_the_layout_drawn(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(image(i))
    with pytest.raises(DataError, match=r"3 photos, but no class folders(.|\n)*cats/  one.jpg"):
        load(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(DataError, match="no photos found.*the folder is empty"):
        load(tmp_path)
    with pytest.raises(
        DataError,
        match=r"nowhere does not exist. Expected a folder with a folder for each class",
    ):
        load(tmp_path / "nowhere")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"data.zip is neither a ZIP nor a TAR"):
        load(tmp_path / "data.zip")


def test_one_class_is_not_enough(tmp_path):
    with pytest.raises(
        DataError, match="all photos are of one class, 'cats'. Expected at least two"
    ):
        load(folder(tmp_path / "pile", {"cats": 5}))
    with pytest.raises(DataError, match="all photos are of one class, 'cats'"):
        load(folder(tmp_path / "parts", {"train/cats": 5, "test/cats": 2}))


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    with pytest.raises(
        DataError,
        match="the class 'rare' has 1 example, and the data has to be split.*Expected at least 2",
    ):
        load(folder(tmp_path / "pile", {"cats": 5, "rare": 1}))
    assert len(load(folder(tmp_path / "parts", {"train/cats": 5, "train/rare": 1}))) == 6


def test_a_class_of_copies_cannot_be_split(tmp_path):
    folder(tmp_path, {"cats": 5, "same": 1})
    (tmp_path / "same/copy.png").write_bytes((tmp_path / "same/000.png").read_bytes())
    with pytest.raises(DataError, match="the class 'same' has 2 examples, but all the same"):
        load(tmp_path)


def test_a_photo_of_two_classes_that_empties_one_is_named_with_its_copy(tmp_path):
    folder(tmp_path, {"dogs": 8, "horse": 1})
    (tmp_path / "horse/000.png").write_bytes((tmp_path / "dogs/003.png").read_bytes())
    with pytest.raises(DataError, match=r"horse/000\.png is the same as dogs/003\.png"):
        load(tmp_path)


def test_a_copy_in_a_class_too_small_is_named(tmp_path):
    folder(tmp_path, {"cats": 8, "few": 2})
    (tmp_path / "few/001.png").write_bytes((tmp_path / "cats/000.png").read_bytes())
    with pytest.raises(DataError, match=r"few/001\.png is the same as cats/000\.png"):
        load(tmp_path)


def test_a_class_of_two_is_trained_and_tested(tmp_path):
    examples = load(folder(tmp_path, {"cats": 20, "few": 2}))
    assert [int(examples.counts()[part][1]) for part in ("train", "validation", "test")] == [
        1,
        0,
        1,
    ]
    assert "Validation has no photo of 'few'" in notes(examples)


def test_a_class_that_is_only_in_test_is_an_error(tmp_path):
    with pytest.raises(
        DataError, match=r"the class 'c' is in test but not in train.*In train: 'a', 'b'"
    ):
        load(folder(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, "test/c": 1}))


def test_parts_that_contradict_each_other_are_an_error(tmp_path):
    with pytest.raises(DataError, match="val/ and valid/ both mean validation"):
        load(folder(tmp_path / "two", {"train/a": 2, "val/a": 2, "valid/a": 2}))
    with pytest.raises(DataError, match=r"there is test/, but no train/"):
        load(folder(tmp_path / "none", {"test/a": 2, "test/b": 2}))


def test_a_folder_beside_the_parts_is_noted(tmp_path):
    examples = load(folder(tmp_path, {"train/a": 2, "train/b": 2, "rejected/a": 2}))
    assert len(examples) == 4 and "rejected/" in notes(examples)


def test_unequal_classes_are_noted_above_five_to_one(tmp_path):
    assert "unequal" not in notes(load(folder(tmp_path / "even", {"train/a": 10, "train/b": 2})))
    assert "11 training photos of 'a', 2 of 'b', more than 5 to 1" in notes(
        load(folder(tmp_path / "odd", {"train/a": 11, "train/b": 2}))
    )


def test_bad_images_stop_the_run_with_their_paths(tmp_path):
    folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a/text.jpg").write_text("hello, no image")
    (tmp_path / "b/half.png").write_bytes(image(99)[:-30])
    with pytest.raises(ImageError) as caught:
        load(tmp_path)
    text = str(caught.value)
    assert (
        "2 of 12 photos can't be read" in text
        and "a/text.jpg is not an image, it begins with b'hello, no im'" in text
    )
    assert (
        "b/half.png is a PNG that is truncated" in text
        and "--skip-bad-images" in text
        and "\n" not in text
    )


def test_skipped_bad_images_are_all_listed(tmp_path):
    folder(tmp_path, {"a": 5, "b": 5})
    for i in range(9):
        (tmp_path / f"a/bad{i}.jpg").write_text("x")
    examples = load(tmp_path, skip_bad_images=True)
    assert len(examples) == 10 and "9 photos were left out (--skip-bad-images)" in notes(examples)
    assert all(f"a/bad{i}.jpg" in notes(examples) for i in range(9))


def test_a_folder_with_nothing_but_bad_images_is_an_error_even_then(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bad.jpg").write_text("x")
    with pytest.raises(DataError, match="none of the 1 photos can be read"):
        load(tmp_path, skip_bad_images=True)


def test_a_png_named_jpg_is_fine(tmp_path):
    folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a/000.png").rename(tmp_path / "a/000.jpg")
    assert len(load(tmp_path)) == 6


@pytest.mark.long
def test_five_thousand_small_files_take_less_than_four_seconds(tmp_path):
    content = image(1, 28)
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2500):
            (tmp_path / label / f"{i}.png").write_bytes(content + bytes(f"{label}{i}", "ascii"))
    start = time.process_time()
    assert len(load(tmp_path)) == 5000
    assert time.process_time() - start < 4


def test_examples_are_told_as_a_table(tmp_path):
    table = load(
        folder(tmp_path, {"train/ants": 12, "train/bees": 3, "test/ants": 4, "test/bees": 1})
    ).table()
    assert table.splitlines() == [
        "class          train  validation  test",
        "ants              12           -     4",
        "bees               3           -     1",
        "all 2 classes     15           -     5",
    ]


def test_of_many_classes_the_smallest_are_listed():
    labels = np.repeat(np.arange(60), 4)
    table = from_arrays(
        np.arange(240 * 4, dtype=np.uint16).view(np.uint8).reshape(240, 2, 4),
        labels,
        splits=["train"] * 240,
    ).table()
    assert "(the 10 smallest of 60)" in table and len(table.splitlines()) == 13


def test_the_table_says_which_part_lacks_classes():
    pixels = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    parts = ["train", "train", "train", "test"]
    table = from_arrays(pixels, [0, 0, 1, 1], splits=parts).table()
    assert table.splitlines()[-1] == "test has photos of 1 of them"


def test_taking_keeps_everything_in_step(tmp_path):
    examples = load(folder(tmp_path, {"a": 5, "b": 5}))
    some = examples.take([7, 2])
    assert (
        some.files == (examples.files[7], examples.files[2])
        and some.read(1) == examples.read(2)
        and len(some) == 2
    )
    assert some.take([1]).read(0) == examples.read(2)
    np.testing.assert_array_equal(
        examples.take(examples.where("test")).labels, examples.labels[examples.where("test")]
    )
    with pytest.raises(ValueError, match="split='tset'"):
        examples.where("tset")


def test_the_fingerprint_follows_content_labels_and_splits(tmp_path):
    one, two = (
        load(folder(tmp_path / "one", {"a": 5, "b": 5})),
        load(folder(tmp_path / "two", {"a": 5, "b": 5})),
    )
    assert one.fingerprint == two.fingerprint != load(tmp_path / "one", seed=3).fingerprint
    (tmp_path / "two/a/000.png").write_bytes(image(500))
    assert load(tmp_path / "two").fingerprint != one.fingerprint
    assert load(one) is one


def test_arrays_become_png_files():
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 7, 3)).astype(np.uint8)
    examples = from_arrays(
        images, np.arange(20) % 2, classes=["even", "odd"], splits=["train"] * 12 + ["test"] * 8
    )
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(examples.read(3)))), images[3])
    assert examples.classes == ("even", "odd") and len(examples.where("test")) == 8
    floats = from_arrays(
        images / np.float32(255),
        np.arange(20) % 2,
        classes=["even", "odd"],
        splits=["train"] * 12 + ["test"] * 8,
    )
    assert floats.digests == examples.digests
    grey = from_arrays(images[..., 0], np.arange(20) % 2)
    assert (
        set(grey.splits) == {"train", "validation", "test"}
        and Image.open(io.BytesIO(grey.read(0))).mode == "L"
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (300, 400, 4)])
def test_pillow_reads_our_png_files(shape, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    opened = Image.open(io.BytesIO(png(values)))
    opened.load()
    assert opened.size == (7, 5) or opened.size == (400, 300)
    if dtype == np.uint8 or len(shape) == 2:
        np.testing.assert_array_equal(np.asarray(opened), values)


def test_wrong_arrays_are_named():
    images = np.zeros((4, 5, 5), np.uint8)
    for wrong, text in (
        (lambda: from_arrays(images[0], [0]), r"images.shape=\(5, 5\)"),
        (lambda: from_arrays(images, [0, 1]), r"labels.shape=\(2,\)"),
        (lambda: from_arrays(images, [0.5, 1, 1, 0]), "Received: 0.5"),
        (
            lambda: from_arrays(images, [0, 1, 2, 0], classes=["a", "b"]),
            "Expected labels from 0 to 1. Received: 0 to 2",
        ),
        (
            lambda: from_arrays(images, [0, 1, 1, 0], splits=["train", "tset", "test", "test"]),
            "'tset'",
        ),
        (
            lambda: from_arrays(images - 1.0, [0, 1, 1, 0]),
            "Received: float64 from -1.0 to -1.0",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            wrong()


def test_tf_data_is_read_batched_or_not():
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3)).astype(np.uint8)
    labels = np.arange(30) % 3
    single = tf.data.Dataset.from_tensor_slices((images, labels))
    hot = tf.data.Dataset.from_tensor_slices((images, np.eye(3, dtype=np.float32)[labels])).batch(4)
    files = tf.data.Dataset.from_tensor_slices(([png(one) for one in images], labels))
    expected = from_arrays(images, labels)
    for dataset in (single, single.batch(7), hot, files, files.batch(7)):
        examples = from_dataset(dataset)
        assert examples.digests == expected.digests and examples.splits == expected.splits
        assert list(examples.labels) == list(labels) and examples.read(11) == png(images[11])
    parts = from_dataset(single.take(20), test=single.skip(20), classes=["x", "y", "z"])
    assert (
        len(parts.where("test")) == 10
        and parts.classes == ("x", "y", "z")
        and parts.files[-1] == "test/000009"
    )
    with pytest.raises(ValueError, match=r"Expected a dataset of \(image, label\)"):
        from_dataset(tf.data.Dataset.from_tensor_slices(images))


def test_a_file_that_cannot_be_opened_is_a_bad_image(tmp_path):
    folder(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match=r"a/gone.png can't be read: No such file"):
        load(tmp_path)
    assert len(load(os.fspath(tmp_path), skip_bad_images=True)) == 8
