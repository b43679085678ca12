"""What is a class and what is a part, in the folders that people download.

Also tables and arrays as other programs write them.
"""

import itertools
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import keras
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
    ("01_train", "02_test"),
    ("TrainImages", "ValImages"),
    ("train-128x128", "test-128x128"),
    ("traindata", "testdata"),
    ("training_data", "validating_data"),
    ("train", "test1"),
    ("train/images", "test/images"),
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


@pytest.mark.parametrize("parts", [("train", "val"), ("images/train", "images/test")])
def test_parts_without_class_folders_are_no_classes_and_the_table_is_named(parts, tmp_path):
    folder(tmp_path, dict.fromkeys(parts, 8))
    (tmp_path / parts[0]).parent.joinpath("train.csv").write_text("id,label\n")
    with pytest.raises(DataError, match=r"no class folders.*train\.csv"):
        load(tmp_path)


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "Testing")])
def test_parts_within_the_class_folders_are_kept(parts, tmp_path):
    counts = dict(zip(parts, (8, 4), strict=True))
    folder(tmp_path, {f"{name}/{part}": n for name in "ab" for part, n in counts.items()})
    examples = load(tmp_path)
    assert examples.classes == ("a", "b") and len(examples.where("train")) == 16
    assert len(examples.where("test")) == 8 and len(examples.where("validation")) == 0


def test_folders_apart_that_hold_the_same_folders_are_no_classes(tmp_path):
    layout = {"here": ("apple", "lime"), "middle": ("bus", "car"), "there": ("apple", "lime")}
    folder(tmp_path, {f"{top}/{name}": 4 for top, names in layout.items() for name in names})
    with pytest.raises(DataError, match="here/ and there/"):
        load(tmp_path)


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
    with pytest.raises(DataError, match="all photos are of one class"):
        load(folder(tmp_path, {"cats/inner": 10}))


def test_folders_below_a_class_are_said(tmp_path):
    folder(tmp_path, {"apple/red": 4, "apple/green": 5, "lime": 9})
    assert "apple/ has subfolders: green/ 5, red/ 4" in notes(load(tmp_path))


@pytest.mark.parametrize(
    "below", ["masks", "Mask", "Ground Truth", "annotations", "labels", "gt_masks", "Trimaps"]
)
def test_drawings_below_a_class_are_refused(below, tmp_path):
    folder(tmp_path, {f"{name}/{inner}": 4 for name in ("a", "b") for inner in ("images", below)})
    with pytest.raises(DataError, match=f"a/{below}/ .*: 4 images"):
        load(tmp_path)


def test_people_with_and_without_masks_are_photos(tmp_path):
    tops = ("city", "town")
    folder(tmp_path, {f"{top}/{name}": 4 for top in tops for name in ("with_mask", "no_mask")})
    with pytest.raises(DataError, match="may be the classes"):
        load(tmp_path)
    assert load(tmp_path / "city").classes == ("no_mask", "with_mask")


@pytest.mark.parametrize("drawn", ["000_mask.png", "000-Mask_1.png", "000_seg.png", "000 GT.png"])
def test_drawings_beside_their_photos_are_refused(drawn, tmp_path):
    folder(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / drawn).write_bytes(image(99))
    with pytest.raises(DataError, match=f"{drawn} on 000.png"):
        load(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("000_aug2.png", "000.png"),
        ("000-flipped.png", "000.png"),
        ("IMG_E0007.PNG", "IMG_0007.png"),
        ("IMG_E0007.PNG", "IMG_0007.webp"),
        ("PXL_2023~2.png", "PXL_2023.png"),
        ("x_jpg.rf.0123456789ab.png", "x_jpg.rf.ba9876543210.png"),
    ],
)
def test_altered_copies_of_a_photo_are_said(names, tmp_path):
    folder(tmp_path, {"a": 6, "b": 6})
    for number, name in enumerate(names):
        (tmp_path / "a" / name).write_bytes(image(98 + number))
    said = notes(load(tmp_path))
    assert "1 image is an altered copy" in said and all(name in said for name in names)


@pytest.mark.parametrize(
    "name", ["mask.png", "crop.png", "wall_crop.png", "rot13.png", "IMG_E0007.png"]
)
def test_a_name_alone_makes_no_copy(name, tmp_path):
    folder(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / name).write_bytes(image(99))
    assert "copies" not in notes(load(tmp_path))


def test_photos_and_masks_are_no_classes(tmp_path):
    with pytest.raises(DataError, match="images/, masks/"):
        load(folder(tmp_path, {"images": 10, "masks": 10}))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x_train", "train"),
        ("DevSet", "validation"),
        ("testImgs", "test"),
        ("contest", None),
        ("train_test", None),
        ("trains", None),
    ],
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
    ("names", "encoding"),
    [
        (("cat\u00fc", "dog\u00fc"), "latin-1"),
        (("Caf\u00e9", "Th\u00e9"), "cp1252"),
        (("\u043a\u043e\u0448\u043a\u0430", "\u0441\u043e\u0431\u0430\u043a\u0430"), "cp1251"),
    ],
)
def test_a_few_letters_of_an_old_code_page_are_read_and_said(names, encoding, tmp_path):
    file = table(tmp_path, "", 16)
    text = "path,label\n" + "\n".join(f"{p},{names[c == 'b']}" for p, c, _ in ROWS)
    file.write_bytes(text.encode(encoding))
    examples = load(file)
    assert set(examples.classes) == set(names) and encoding.replace("latin-1", "cp1252") in notes(
        examples
    )


def test_one_row_in_another_encoding_is_named_by_its_line(tmp_path):
    file = table(tmp_path, "", 16)
    rows = [f"{p},K\u00e4se {c}" for p, c, _ in ROWS]
    lines = [b"path,label", *(row.encode() for row in rows)]
    lines[5] = rows[4].encode("latin-1")
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="line 6"):
        load(file)


def test_a_second_byte_order_mark_is_left_out_and_said(tmp_path):
    file = table(tmp_path, "", 16)
    rows = "\n".join(f"{p},{c}" for p, c, _ in ROWS)
    file.write_text(f"\ufeff\ufeffpath,label\n{rows}")
    examples = load(file)
    assert examples.classes == ("a", "b") and "byte order marks" in notes(examples)


def test_utf_16_without_a_byte_order_mark_is_told(tmp_path):
    file = table(tmp_path, "", 16)
    rows = "\n".join(f"{p},{c}" for p, c, _ in ROWS)
    file.write_bytes(f"path,label\n{rows}".encode("utf-16-le"))
    with pytest.raises(DataError, match="UTF-16"):
        load(file)


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
    assert "column set (test, train)." in said and "Then call it split." in said
    assert "patient_id" in said and "Then call it group." in said
    assert "column note (x)." in said


@pytest.mark.parametrize("column", ["is_test", "is_valid", "Usage", "fold", "phase"])
def test_a_column_that_may_tell_the_parts_is_asked_about(column, tmp_path):
    text = f"path,label,{column}\n" + "\n".join(
        f"{p},{c},{i % 2}" for i, (p, c, _) in enumerate(ROWS)
    )
    said = notes(load(table(tmp_path, text, 16)))
    assert column.casefold() in said and "call it split" in said


def test_longer_words_for_parts_are_read_in_the_column_split(tmp_path):
    text = "path,label,split\n" + "\n".join(f"{p},{c},{s.title()} set" for p, c, s in ROWS)
    examples = load(table(tmp_path, text, 16))
    assert len(examples.where("test")) == 4 and len(examples.where("train")) == 12


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"\r'])
def test_the_first_line_that_excel_writes_is_no_header(first, tmp_path):
    text = f"{first}\npath;label\n" + "\n".join(f"{p};{c}" for p, c, _ in ROWS)
    assert load(table(tmp_path, text, 16)).classes == ("a", "b")


def test_the_first_line_of_excel_counts_in_the_numbers_of_lines(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png \(line 3\)"):
        load(table(tmp_path, "sep=;\npath;label\ngone.png;a\n", 1))


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_a_workbook_in_place_of_a_table_is_said(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match="workbook"):
        load(tmp_path / name)


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
    said = notes(load(table))
    assert "column is_test (0, 1)" in said and "call it split" in said


# --- names ---


def test_names_that_look_the_same_are_one_class(tmp_path):
    folder(tmp_path, {"cafe\u0301": 5, "caf\u00e9": 5, "lime ": 5, "lime": 5})
    examples = load(tmp_path)
    assert examples.classes == ("caf\u00e9", "lime") and "'lime '" in notes(examples)


@pytest.mark.parametrize(
    "name", ["red  fox", "red\u00a0fox", "red\tfox", "red\u3000fox ", "\u2009red fox"]
)
def test_names_that_differ_in_blanks_are_one_class(name, tmp_path):
    examples = load(folder(tmp_path, {name: 5, "red fox": 5, "dog": 5}))
    assert examples.classes == ("dog", "red fox") and "'red fox'" in notes(examples)


@pytest.mark.parametrize(
    "name",
    [
        "Red fox",
        "red_fox",
        "red-fox",
        "red\u2013fox",
        "RedFox",
        "red fox.",
        "'red fox'",
        "red%20fox",
        "red&nbsp;fox",
        "red f\u200box",
        "red fox\ufe0f",
        "\ufeffred fox",
        "re\u00add fox",
        "red ﬀox",
    ],
)
def test_names_that_look_almost_the_same_are_said(name, tmp_path):
    other = "red ffox" if "ﬀ" in name else "red fox"
    examples = load(folder(tmp_path, {name: 5, other: 5, "dog": 5}))
    assert len(examples.classes) == 3
    assert repr(name) in notes(examples) and "look almost the same" in notes(examples)


@pytest.mark.parametrize(
    "names",
    [
        ("1", "1.0"),
        ("01", "1"),
        ("cat", "c\u0430t"),
        ("Pop", "\u03a1op"),
        ("o'neil", "o\u2019neil"),
        ("\u2764", "\u2764\ufe0f"),
    ],
)
def test_numbers_and_letters_that_look_the_same_are_said(names, tmp_path):
    examples = load(folder(tmp_path, dict.fromkeys(names, 5)))
    assert len(examples.classes) == 2
    assert repr(names[1]) in notes(examples) and "look almost the same" in notes(examples)


@pytest.mark.parametrize("name", ["cat|dog", "bird,cat"])
def test_names_that_are_lists_of_names_are_said(name, tmp_path):
    text = "path;label\n" + "".join(
        f"photos/{i}.png;{label}\n" for i, label in enumerate([name, "cat", "fish"] * 5)
    )
    examples = load(table(tmp_path, text, 15))
    assert len(examples.classes) == 3
    assert repr(name) in notes(examples) and "several labels" in notes(examples)


def test_a_name_with_a_comma_is_no_list(tmp_path):
    examples = load(folder(tmp_path, {"Hill, Ann": 5, "Hill, Bob": 5}))
    assert "several labels" not in notes(examples)


@pytest.mark.parametrize(
    "names",
    [
        ("-1", "1"),
        ("a.b", "ab"),
        ("कु", "कू"),
        ("нос", "нот"),
        ("1 2", "12"),
        ("a-1", "a-2"),
    ],
)
def test_names_that_differ_are_not_said_to_look_the_same(names, tmp_path):
    examples = load(folder(tmp_path, dict.fromkeys(names, 5)))
    assert len(examples.classes) == 2 and "look almost" not in notes(examples)


@pytest.mark.parametrize("name", [" ", "\u00a0", "\u3000\u2009"])
def test_a_class_name_of_blanks_is_an_error(name, tmp_path):
    with pytest.raises(DataError, match="is empty"):
        load(folder(tmp_path, {name: 5, "cat": 5}))


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


ENDLESS = {
    "batches": lambda data: data.repeat().batch(8),
    "a mixture": lambda data: tf.data.Dataset.sample_from_datasets([data.repeat()] * 2),
    "behind a filter": lambda data: data.repeat().filter(lambda x, y: y >= 0),
    "behind unbatch": lambda data: data.batch(8).repeat().unbatch(),
    "a generator": lambda data: tf.data.Dataset.from_generator(
        lambda: (pair for _ in itertools.count() for pair in data.as_numpy_iterator()),
        output_signature=data.element_spec,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ENDLESS)
def test_a_dataset_without_an_end_is_refused(name):
    data = tf.data.Dataset.from_tensor_slices((PICTURES, TRUE))
    with pytest.raises(ValueError, match=r"Leave out repeat\(\)"):
        from_dataset(ENDLESS[name](data))


def test_what_repeats_and_ends_is_read():
    data = tf.data.Dataset.from_tensor_slices((PICTURES, TRUE)).repeat(3)
    assert len(from_dataset(data.filter(lambda x, y: y >= 0))) == 72


def test_elements_of_unknown_shape_are_read_batched_or_not():
    data = tf.data.Dataset.from_tensor_slices((PICTURES, TRUE))
    expected = from_dataset(data).digests
    types = (tf.uint8, tf.int64)
    for batched in (data, data.batch(8)):
        unknown = tf.data.Dataset.from_generator(batched.as_numpy_iterator, output_types=types)
        assert from_dataset(unknown).digests == expected


class Sequence8(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return PICTURES[8 * i : 8 * i + 8], TRUE[8 * i : 8 * i + 8]


@pytest.mark.parametrize("what", [(PICTURES, TRUE), [(PICTURES[0], 0)], Sequence8()])
def test_what_is_no_dataset_is_refused(what):
    with pytest.raises(ValueError, match="from_arrays"):
        from_dataset(what)


@pytest.mark.parametrize(
    "elements",
    [
        {"image": PICTURES, "label": TRUE},
        (PICTURES, (TRUE, 1 - TRUE)),
        (PICTURES.reshape(2, 3, 4, 8, 8, 3), TRUE.reshape(2, 12)),
        (tf.ragged.constant([[1, 2]] * 24), TRUE),
    ],
)
def test_elements_that_are_no_image_with_a_label_are_refused(elements):
    with pytest.raises(ValueError, match="Received"):
        from_dataset(tf.data.Dataset.from_tensor_slices(elements))


def test_whole_numbers_0_and_1_are_black_and_white():
    binary = PICTURES // 128
    expected = from_arrays(binary * 255, TRUE).digests
    assert from_arrays(binary.astype("int32"), TRUE).digests == expected
    data = tf.data.Dataset.from_tensor_slices((binary.astype("int32"), TRUE))
    assert from_dataset(data).digests == expected


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
    folder(tmp_path, {"a": 10, "b": 10})
    data = keras.utils.image_dataset_from_directory(
        tmp_path, label_mode=mode, image_size=(8, 8), batch_size=4, shuffle=False, verbose=False
    )
    examples = from_dataset(data)
    assert examples.classes == ("a", "b")
    assert sorted(examples.labels.tolist()) == [0] * 10 + [1] * 10
    assert examples.read(0) != image(1)


@pytest.mark.parametrize("ending", ["", ".md", ".html", ".log", "."])
def test_texts_with_another_ending_are_told_to_end_in_txt(ending, tmp_path):
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}{ending}").write_text(f"the soup number {i} is good")
    with pytest.raises(DataError, match=r"Are these texts.* to \d+\.txt"):
        load(tmp_path)


def test_files_of_numbers_are_not_taken_for_texts(tmp_path):
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}.raw").write_bytes(bytes(range(i, i + 100)))
    with pytest.raises(DataError, match="texts as txt") as error:
        load(tmp_path)
    assert "Are these" not in str(error.value)


# --- archives ---


def packed(tmp_path, form: str):
    folder(tmp_path / "photos", {"set/hat": 10, "set/shoes": 10})
    return shutil.make_archive(str(tmp_path / "all"), form, tmp_path / "photos")


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_of_photos_is_read_as_if_unpacked(form, tmp_path):
    examples = load(packed(tmp_path, form))
    assert examples.classes == ("hat", "shoes") and len(examples) == 20
    assert examples.digests == load(tmp_path / "photos").digests


def test_a_few_pictures_among_texts_are_not_taken_for_the_examples(tmp_path):
    folder(tmp_path, {"work": 3, "spam": 3})
    for name in ("work", "spam"):
        for i in range(10):
            (tmp_path / name / f"{i}.txt").write_text(f"a mail {i} of {name}")
    with pytest.raises(DataError, match="6 photos and 20 texts"):
        load(tmp_path)


def test_photos_without_endings_beside_a_few_texts_stay_the_examples(tmp_path):
    for name in ("hat", "shoes"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{name}{i}").write_bytes(image(i + 10 * (name == "hat")))
        (tmp_path / name / "about.txt").write_text("taken in spring")
    assert load(tmp_path).kind_name == "image" and len(load(tmp_path)) == 20


def test_runs_and_exports_beside_texts_are_no_class(tmp_path):
    for name in ("work", "spam"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.txt").write_text(f"a mail {i} of {name}")
    for made, marks in (("run", ("settings.json", "manifest.json")), ("1", ("saved_model.pb",))):
        (tmp_path / "made" / made).mkdir(parents=True)
        for mark in (*marks, "labels.txt"):
            (tmp_path / "made" / made / mark).write_text("spam")
    examples = load(tmp_path)
    assert examples.classes == ("spam", "work") and len(examples) == 20


class Unflagged(zipfile.ZipInfo):
    """A member whose name is written in an encoding that the archive does not name."""

    encoding = "utf-8"

    def _encodeFilenameFlags(self):
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def zipped(path, names, encoding: str = "utf-8") -> Path:
    """Write an archive of ten photos for each of the names of folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(10 * len(names)):
            info = Unflagged(f"{names[i // 10]}/{i}.png")
            info.encoding = encoding
            archive.writestr(info, image(i))
    return path


def test_names_in_a_zip_of_a_mac_are_utf_8(tmp_path):
    path = zipped(tmp_path / "all.zip", ["caf\u00e9", "th\u00e9"])
    assert load(path).classes == load(path).classes == ("caf\u00e9", "th\u00e9")
    assert not load(path).notes


def test_names_in_a_zip_of_an_unknown_encoding_are_said_each_time(tmp_path):
    # One of them alone would be valid UTF-8.
    path = zipped(tmp_path / "all.zip", ["\u732b", "\u72d7"], "gbk")
    for _ in range(2):
        examples = load(path)
        assert len(examples.classes) == 2 and "cp437" in notes(examples)


def test_class_names_that_were_unpacked_in_a_wrong_code_page_are_said(tmp_path):
    folder(tmp_path, {"caf\u00e9".encode().decode("cp437"): 8, "th\u00e9": 8})
    assert "'caf\u00e9'" in notes(load(tmp_path))


def test_names_in_utf_8_beside_others_are_used(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for i in range(20):
            name = ("\u732b", "\u72d7")[i // 10]
            info = Unflagged(f"{name}/{i}.png")
            info.encoding = "gbk"
            first, second = info.filename.encode("gbk"), info.filename.encode("utf-8")
            field = struct.pack("<BI", 1, zlib.crc32(first)) + second
            info.extra = struct.pack("<HH", 0x7075, len(field)) + field
            archive.writestr(info, image(i))
    examples = load(tmp_path / "all.zip")
    assert set(examples.classes) == {"\u732b", "\u72d7"} and not examples.notes


def test_names_in_a_zip_are_checked_as_they_are_used(tmp_path):
    for name in ("caf\u00e9/..", "caf\u00e9/../../th\u00e9", "caf\u00e9\\th\u00e9"):
        path = zipped(tmp_path / "all.zip", [name, "a", "b"])
        with pytest.raises(DataError, match=r"all\.zip"):
            load(path)


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_a_hidden_folder_of_examples_is_named(form, tmp_path):
    folder(tmp_path / "photos", {".NET": 8, "Java": 8, "Python": 8, ".ipynb_checkpoints": 8})
    path = tmp_path / "photos"
    if form != "folder":
        path = shutil.make_archive(str(tmp_path / "all"), form, path)
    examples = load(path)
    assert examples.classes == ("Java", "Python")
    said = [note for note in examples.notes if ".NET/" in note]
    assert len(said) == 1 and "ipynb" not in said[0]


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


def test_an_archive_with_paths_of_windows_is_not_said_to_leave_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a\\one.png", image(1))
    with pytest.raises(DataError, match="unpack it first"):
        load(tmp_path / "all.zip")


@pytest.mark.parametrize("name", ["photos.tar.xz", "photos.7z", "photos.rar"])
def test_an_archive_that_is_not_read_is_to_be_unpacked(name, tmp_path):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(DataError, match="Unpack it first"):
        load(tmp_path / name)


def test_an_archive_of_zeros_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/one.png", bytes(100 * 1024**2))
    with pytest.raises(DataError, match="MiB"):
        load(tmp_path / "all.zip")


def test_examples_are_shown_in_one_line(tmp_path):
    shown = repr(load(folder(tmp_path, {"a": 20, "b": 20})))
    assert "40 photos of 2 classes" in shown and len(shown) < 300 and "\n" not in shown


def test_copies_within_a_part_are_counted_and_said(tmp_path):
    folder(tmp_path, {"train/a": 5, "train/b": 5})
    for i in range(3):
        (tmp_path / f"train/a/copy{i}.png").write_bytes((tmp_path / "train/a/000.png").read_bytes())
    assert "3 of 13 train photos are copies" in notes(load(tmp_path))


def test_an_image_under_two_labels_counts_once_for_each(tmp_path):
    folder(tmp_path, {"train/a": 5, "train/b": 5})
    content = (tmp_path / "train/a/000.png").read_bytes()
    for path in ("train/a/copy.png", "train/b/copy.png"):
        (tmp_path / path).write_bytes(content)
    examples = load(tmp_path)
    assert len(examples.distinct(examples.where("train"))) == 11
    assert "1 of 12 train photos" in notes(examples) and "n = 11" in notes(examples)


@pytest.mark.parametrize("prefix", ["", "DCIM/", "Photos/"])
@pytest.mark.parametrize(
    "names",
    [
        ("100APPLE", "101APPLE"),
        ("101_PANA", "rose"),
        ("100MSDCF", "102ND750"),
        ("Photos from 2022", "Photos from 2023"),
        ("Fotos de 2022", "Fotos de 2023"),
        ("Camera Roll", "WhatsApp Images"),
        ("202301__", "202302__"),
        ("2023-07-14", "2023-07-15"),
    ],
)
def test_classes_that_a_camera_or_a_service_made_are_named(prefix, names, tmp_path):
    folder(tmp_path, {f"{prefix}{name}": 8 for name in names})
    examples = load(tmp_path)
    assert examples.classes == tuple(sorted(names))
    assert any(f"Read as classes: {names[0]}/" in note for note in examples.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("911 Turbo", "2CV"),
        ("camera", "screenshot"),
        ("100 m", "200 m"),
        ("2022", "2023"),
        ("photos of cats", "photos of dogs"),
        ("10000000", "200_0000"),
    ],
)
def test_other_classes_are_not_taken_for_folders_of_a_camera(names, tmp_path):
    folder(tmp_path, dict.fromkeys(names, 8))
    assert not any("Read as classes" in note for note in load(tmp_path).notes)
