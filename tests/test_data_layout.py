"""What is a class and what is a part, in the folders that people download; and tables and arrays as
other programs write them.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_data import folder, image, notes
from test_data_table import rows, table

from tfxfer.data import from_arrays, from_dataset, load
from tfxfer.data.parts import part_in
from tfxfer.errors import DataError

SPELT = [
    ("Training", "Test"),
    ("seg_train", "seg_test"),
    ("TRAIN", "Val", "testing"),
    ("trainingSet", "testSet"),
    ("train_images", "valid_images", "test_images"),
    ("train2017", "val2017"),
    ("training", "validation", "evaluation"),
    ("My Train Data", "My Test Data"),
    ("training/training", "validation/validation"),
    ("archive/dataset/train", "archive/dataset/test"),
    ("fruits/Training", "fruits/Test"),
]


@pytest.mark.parametrize("parts", SPELT)
def test_parts_are_known_by_their_names(parts, tmp_path):
    counts = dict(zip(parts, (8, 4, 3), strict=False))
    folder(
        tmp_path, {f"{part}/{name}": n for part, n in counts.items() for name in ("apple", "lime")}
    )
    examples = load(tmp_path)
    assert examples.classes == ("apple", "lime")
    assert len(examples.where("train")) == 16
    assert len(examples.where("test")) + len(examples.where("validation")) == len(examples) - 16 > 0


def test_a_part_without_class_folders_is_left_out_and_said(tmp_path):
    folder(tmp_path, {"seg_train/a": 6, "seg_train/b": 6, "seg_test/a": 3, "seg_test/b": 3})
    folder(tmp_path, {"seg_pred": 5}, start=100)
    examples = load(tmp_path)
    assert examples.classes == ("a", "b") and len(examples) == 18 and "seg_pred/" in notes(examples)


@pytest.mark.parametrize("names", [("train", "bus"), ("test tube", "beaker"), ("valley", "hill")])
def test_a_class_may_be_called_like_a_part(names, tmp_path):
    assert load(folder(tmp_path, dict.fromkeys(names, 10))).classes == tuple(sorted(names))


@pytest.mark.parametrize("pair", [("one", "two"), ("Test", "rest"), ("2019", "2020")])
def test_folders_that_hold_the_same_folders_are_no_classes(pair, tmp_path):
    folder(tmp_path, {f"{top}/{name}": 4 for top in pair for name in ("apple", "lime", "plum")})
    with pytest.raises(DataError, match="apple/"):
        load(tmp_path)


@pytest.mark.parametrize("wrapper", ["archive", "archive/clothing-dataset", "a/b/c"])
def test_class_folders_that_lie_deeper_are_found_and_said(wrapper, tmp_path):
    examples = load(folder(tmp_path, {f"{wrapper}/hat": 10, f"{wrapper}/shoes": 10}))
    assert examples.classes == ("hat", "shoes") and f"in {wrapper}/." in notes(examples)
    assert examples.files[0] == f"{wrapper}/hat/000.png"


def test_one_class_alone_stays_an_error(tmp_path):
    with pytest.raises(DataError, match="all images are of one class"):
        load(folder(tmp_path, {"cats/inner": 10}))


def test_folders_below_a_class_are_said(tmp_path):
    folder(tmp_path, {"apple/red": 4, "apple/green": 5, "lime": 9})
    assert "apple/ has subfolders: green/ 5, red/ 4" in notes(load(tmp_path))


@pytest.mark.parametrize("below", ["masks", "Mask", "Ground Truth", "annotations", "labels"])
def test_drawings_below_a_class_are_refused(below, tmp_path):
    folder(tmp_path, {f"{name}/{inner}": 4 for name in ("a", "b") for inner in ("images", below)})
    with pytest.raises(DataError, match=f"a/{below}/ holds 4 images"):
        load(tmp_path)


def test_photos_and_masks_are_no_classes(tmp_path):
    with pytest.raises(DataError, match="images/, masks/"):
        load(folder(tmp_path, {"images": 10, "masks": 10}))


@pytest.mark.parametrize(
    ("name", "part"),
    [("x_train", "train"), ("DevSet", "validation"), ("contest", None), ("train_test", None)],
)
def test_a_word_of_a_name_tells_the_part(name, part):
    assert part_in(name) == part


# --- tables ---


ROWS = [(f"photos/{i}.png", "ab"[i % 2], ("train", "test")[i % 4 == 0]) for i in range(16)]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_delimiters_and_encodings_of_other_programs_are_read(delimiter, encoding, tmp_path):
    lines = [("path", "label", "split"), *((p, "é" + c, s) for p, c, s in ROWS)]
    file = table(tmp_path, "", 16)
    bom = "\ufeff" if encoding == "utf-16-le" else ""
    text = bom + "\r\n".join(delimiter.join(cells) for cells in lines)
    file.write_bytes(text.encode(encoding))
    examples = load(file)
    assert examples.classes == ("éa", "éb") and len(examples.where("test")) == 4


def test_an_old_code_page_is_read_and_said(tmp_path):
    file = table(tmp_path, "", 16)
    names = ("Äpfel aus Köln", "Birnen für Jürgen")
    text = "path;label\n" + "\n".join(f"{p};{names[c == 'b']}" for p, c, _ in ROWS)
    file.write_bytes(text.encode("cp1252"))
    examples = load(file)
    assert set(examples.classes) == set(names) and "not as UTF-8" in notes(examples)


@pytest.mark.parametrize(
    "header", ["filename,class", "image,category", "File Name,Class", "img_path,class_name"]
)
def test_columns_that_are_called_otherwise_are_read_and_said(header, tmp_path):
    text = f"{header}\n" + "\n".join(f"{p},{c}" for p, c, _ in ROWS)
    examples = load(table(tmp_path, text, 16))
    assert examples.classes == ("a", "b")
    assert all(name.casefold() in notes(examples) for name in header.split(","))


@pytest.mark.parametrize(
    "header", ["path,label,label", "filename,image,label", "path,class,target"]
)
def test_a_name_that_stands_twice_or_could_be_either_is_an_error(header, tmp_path):
    text = f"{header}\n" + "\n".join(f"{p},{c},{c}" for p, c, _ in ROWS)
    with pytest.raises(DataError, match="more than once|could all be"):
        load(table(tmp_path, text, 16))


def test_a_column_that_is_not_used_is_named_with_what_it_may_be(tmp_path):
    text = "path,label,set,patient_id,note\n" + "\n".join(
        f"{p},{c},{s},{i // 2},x" for i, (p, c, s) in enumerate(ROWS)
    )
    said = notes(load(table(tmp_path, text, 16)))
    assert "column set (test, train). Is it the split? Then call it split." in said
    assert "patient_id" in said and "Then call it group." in said
    assert "column note (x)." in said


def test_numbers_of_rows_without_a_name_are_no_column(tmp_path):
    text = ",path,label\n" + "\n".join(f"{i},{p},{c}" for i, (p, c, _) in enumerate(ROWS))
    assert "Not used" not in notes(load(table(tmp_path, text, 16)))


def test_paths_as_windows_writes_them_are_read_and_said(tmp_path):
    text = "path,label\n" + rows(16, lambda i: (f"photos\\{i}.png", "ab"[i % 2]))
    examples = load(table(tmp_path, text, 16))
    assert examples.files[3] == "photos/3.png" and "16 paths" in notes(examples)


def test_paths_of_another_machine_are_named(tmp_path):
    text = "path,label\n" + rows(4, lambda i: (rf"C:\data\{i}.png", "ab"[i % 2]))
    with pytest.raises(DataError, match="Windows"):
        load(table(tmp_path, text, 4))


def test_a_column_whose_name_tells_of_a_part_is_asked_for(tmp_path):
    folder(tmp_path, {"cat": 5, "dog": 5})
    files = sorted(tmp_path.rglob("*.png"))
    rows = [f"{file},{file.parent.name},{i % 2}" for i, file in enumerate(files)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label,is_test", *rows]))
    assert "is_test (0, 1). Does it tell the split?" in notes(load(table))


# --- names ---


def test_names_that_look_the_same_are_one_class(tmp_path):
    folder(tmp_path, {"cafe\u0301": 5, "caf\u00e9": 5, "lime ": 5, "lime": 5})
    examples = load(tmp_path)
    assert examples.classes == ("caf\u00e9", "lime") and "'lime '" in notes(examples)


@pytest.mark.parametrize(
    "one, other",
    [
        ("Cat", "cat"),
        ("STRASSE", "stra\u00dfe"),
        ("cat\u200b", "cat"),
        ("black  cat", "black cat"),
        ("black\u00a0cat", "black cat"),
    ],
)
def test_names_that_nobody_can_tell_apart_are_said(one, other, tmp_path):
    examples = load(folder(tmp_path, {one: 5, other: 5, "dog": 5}))
    assert len(examples.classes) == 3
    assert ascii(one) in notes(examples) and ascii(other) in notes(examples)


# --- arrays and datasets ---


PICTURES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
TRUE = np.arange(24) % 2
ONE_HOT = np.eye(2, dtype="float32")[TRUE]
LABELS = {
    "whole numbers": TRUE,
    "a column": TRUE[:, None],
    "a column of floats": TRUE[:, None].astype("float32"),
    "one-hot": ONE_HOT,
    "one-hot integers": ONE_HOT.astype("int32"),
    "booleans": TRUE.astype(bool),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_what_they_are(name):
    labels = LABELS[name]
    data = tf.data.Dataset.from_tensor_slices((PICTURES, labels))
    for examples in (
        from_arrays(PICTURES, labels),
        from_dataset(data),
        from_dataset(data.batch(8)),
    ):
        assert [int(examples.classes[label]) for label in examples.labels] == TRUE.tolist()


@pytest.mark.parametrize("row", [[1.0, 0, 1], [0.0, 0, 0], [0.7, 0.3, 0], [2, 0, 0], [0, -1, 0]])
def test_labels_of_several_or_no_class_are_refused(row):
    labels = np.tile(np.array(row, "float32"), (24, 1))
    data = tf.data.Dataset.from_tensor_slices((PICTURES, labels))
    for make in (lambda: from_arrays(PICTURES, labels), lambda: from_dataset(data.batch(8))):
        with pytest.raises(ValueError, match="one-hot"):
            make()


def test_a_dataset_without_an_end_is_refused():
    data = tf.data.Dataset.from_tensor_slices((PICTURES, TRUE)).repeat()
    with pytest.raises(ValueError, match=r"Leave out repeat\(\)"):
        from_dataset(data.batch(8))


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_floats_from_0_to_255_and_from_0_to_1_are_the_same_pictures(scale):
    expected = from_arrays(PICTURES, TRUE).digests
    floats = (PICTURES * scale).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((floats, TRUE))
    assert from_dataset(data.batch(5)).digests == from_arrays(floats, TRUE).digests == expected


def test_dark_pictures_before_bright_ones_are_on_the_same_scale():
    floats = np.concatenate([np.eye(8)[None, :, :, None] * np.ones(3), PICTURES[1:]]).astype(
        "float32"
    )
    data = tf.data.Dataset.from_tensor_slices((floats, TRUE))
    assert from_dataset(data).digests == from_arrays(floats, TRUE).digests
    assert np.unique(from_arrays(floats, TRUE).digests).size == 24


def test_grey_batches_and_single_colour_images_are_told_apart():
    grey = tf.data.Dataset.from_tensor_slices((PICTURES[..., 0], TRUE))
    expected = from_arrays(PICTURES[..., 0], TRUE).digests
    assert from_dataset(grey).digests == from_dataset(grey.batch(5)).digests == expected


@pytest.mark.parametrize("mode", ["int", "binary", "categorical"])
def test_what_keras_reads_from_a_folder_goes_through_as_it_is(mode, tmp_path):
    import keras

    folder(tmp_path, {"a": 10, "b": 10})
    data = keras.utils.image_dataset_from_directory(
        tmp_path, label_mode=mode, image_size=(8, 8), batch_size=4, shuffle=False, verbose=False
    )
    examples = from_dataset(data, classes=["a", "b"])
    assert sorted(examples.labels.tolist()) == [0] * 10 + [1] * 10
    assert examples.read(0) != image(1)


# --- archives ---


def packed(tmp_path, form: str):
    folder(tmp_path / "photos", {"set/hat": 10, "set/shoes": 10})
    return shutil.make_archive(str(tmp_path / "all"), form, tmp_path / "photos")


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_of_photos_is_read_as_if_unpacked(form, tmp_path):
    examples = load(packed(tmp_path, form))
    assert examples.classes == ("hat", "shoes") and len(examples) == 20
    assert examples.digests == load(tmp_path / "photos").digests


def test_a_damaged_archive_of_photos_is_named(tmp_path):
    path = Path(packed(tmp_path, "zip"))
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"all\.zip"):
        load(path)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png"])
def test_an_archive_that_leaves_its_folder_is_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(name, image(1))
    with pytest.raises(DataError, match="evil"):
        load(tmp_path / "all.zip")


def test_an_archive_of_zeros_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/one.png", bytes(100 * 1024**2))
    with pytest.raises(DataError, match="MiB"):
        load(tmp_path / "all.zip")


def test_examples_are_shown_in_one_line(tmp_path):
    shown = repr(load(folder(tmp_path, {"a": 20, "b": 20})))
    assert "40 images of 2 classes" in shown and len(shown) < 300 and "\n" not in shown


def test_copies_within_a_part_are_counted_and_said(tmp_path):
    folder(tmp_path, {"train/a": 5, "train/b": 5})
    for i in range(3):
        (tmp_path / f"train/a/copy{i}.png").write_bytes((tmp_path / "train/a/000.png").read_bytes())
    assert "3 of 13 train images are copies" in notes(load(tmp_path))


def test_an_image_under_two_labels_counts_once_for_each(tmp_path):
    folder(tmp_path, {"train/a": 5, "train/b": 5})
    content = (tmp_path / "train/a/000.png").read_bytes()
    for path in ("train/a/copy.png", "train/b/copy.png"):
        (tmp_path / path).write_bytes(content)
    examples = load(tmp_path)
    assert len(examples.distinct(examples.where("train"))) == 11
    assert "1 of 12 train images" in notes(examples) and "n = 11" in notes(examples)
