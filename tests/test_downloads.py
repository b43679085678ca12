"""Folders as downloads, phones and file servers leave them.

What is not a class is reported or refused.
"""

import pytest
from test_data import folder, image, notes

from tfxfer.data import load
from tfxfer.errors import DataError


@pytest.mark.parametrize(
    "parts",
    [
        ("apprentissage", "essai"),
        ("Entraînement", "Test"),
        ("entrenamiento", "prueba"),
        ("Trainingsdaten", "Testdaten"),
        ("训练集", "测试集"),
    ],
)
def test_parts_are_known_in_other_languages(parts, tmp_path):
    counts = dict(zip(parts, (8, 4), strict=True))
    folder(tmp_path, {f"{part}/{name}": n for part, n in counts.items() for name in "ab"})
    examples = load(tmp_path)
    assert examples.classes == ("a", "b")
    assert len(examples.where("train")) == 16 and len(examples.where("test")) == 8


def test_a_folder_that_may_be_a_part_is_asked_about(tmp_path):
    tops = ("train", "test", "query")
    folder(tmp_path, {f"{top}/{name}": 4 for top in tops for name in "ab"})
    assert "query/ holds the same folders as a part (a, b)" in notes(load(tmp_path))


@pytest.mark.parametrize(
    "tops",
    [
        ("photos-20240101T120000Z-001/photos", "photos-20240101T120000Z-002/photos"),
        ("archive (1)", "archive (2)"),
        ("dataset_part1", "dataset_part2"),
        ("train/batch_1", "train/batch_2"),
        ("images_001/images", "images_002/images"),
    ],
)
def test_pieces_of_one_download_are_no_classes(tops, tmp_path):
    folder(tmp_path, {f"{tops[0]}/cat": 5, f"{tops[0]}/dog": 5, f"{tops[1]}/emu": 5})
    folder(tmp_path, {f"test/{name}": 2 for name in ("cat", "dog")} if "train" in tops[0] else {})
    with pytest.raises(DataError, match=r"pieces of one set.*into one folder"):
        load(tmp_path)


@pytest.mark.parametrize("names", [("grade1", "grade2"), ("Batch 1", "Batch 2")])
def test_numbered_classes_are_classes(names, tmp_path):
    below = {"grade1": "grade1/ann", "grade2": "grade2/bob"}  # photos of each person
    folder(tmp_path, {below.get(name, name): 8 for name in names})
    assert load(tmp_path).classes == names


def test_pieces_full_of_images_are_no_classes_and_the_table_is_named(tmp_path):
    folder(tmp_path, {"HAM10000_images_part_1": 5, "HAM10000_images_part_2": 5})
    (tmp_path / "HAM10000_metadata.csv").write_text("image_id,dx\n")
    with pytest.raises(DataError, match=r"pieces of one set.*HAM10000_metadata\.csv"):
        load(tmp_path)


def test_folders_that_hold_the_same_folders_in_images_are_no_classes(tmp_path):
    tops = ("amazon", "dslr", "webcam")  # as in Office-31
    folder(tmp_path, {f"{top}/images/{name}": 4 for top in tops for name in ("bike", "mug")})
    with pytest.raises(DataError, match="may be the classes"):
        load(tmp_path)


def test_folders_in_images_are_said(tmp_path):
    folder(tmp_path, {"cat/images/ann": 4, "cat/images/bob": 4, "dog/images/eve": 4})
    assert "images/ann/ 4" in notes(load(tmp_path))


def test_a_folder_of_drawings_on_the_photos_of_another_is_no_class(tmp_path):
    with pytest.raises(DataError, match="cat_masks/ holds drawings on the photos in cat/"):
        load(folder(tmp_path, {"cat": 5, "cat_masks": 5, "dog": 5}))


@pytest.mark.parametrize("names", [("face", "face_mask"), ("mask", "123")])
def test_masks_that_are_worn_are_classes(names, tmp_path):
    assert set(load(folder(tmp_path, dict.fromkeys(names, 5))).classes) == set(names)


def test_a_second_copy_of_all_classes_is_no_class(tmp_path):
    names = ("daisy", "rose", "flowers/daisy", "flowers/rose")  # as in Flowers Recognition
    with pytest.raises(DataError, match=r"flowers/ holds folders .*daisy/, rose/"):
        load(folder(tmp_path, {f"flowers/{name}": 4 for name in names}))


def test_a_part_within_a_part_that_holds_loose_photos_is_left_out(tmp_path):
    # As in ASL Alphabet.
    train, test = "asl_train/asl_train", "asl_test/asl_test"
    examples = load(folder(tmp_path, {f"{train}/A": 5, f"{train}/B": 5, test: 2}))
    assert examples.classes == ("A", "B") and "asl_test/" in notes(examples)


@pytest.mark.parametrize("name", ["groundtruth", "Masks", "GT"])
def test_a_class_of_drawings_by_its_name_is_said(name, tmp_path):
    assert "may hold drawings" in notes(load(folder(tmp_path, {"au": 5, "tp": 5, name: 5})))


@pytest.mark.parametrize("name", ["test", "Validation"])
def test_a_class_that_is_called_like_a_part_is_said(name, tmp_path):
    assert "name of a part" in notes(load(folder(tmp_path, {"cat": 5, "dog": 5, name: 5})))


def test_a_set_beside_another_set_is_no_class(tmp_path):
    folder(tmp_path, {"fruit/train/apple": 4, "fruit/train/lime": 4, "roots/carrot": 4})
    with pytest.raises(DataError, match="fruit/train/"):
        load(tmp_path)


@pytest.mark.parametrize("drawn", ["SegmentationClass", "GT_Masks"])
@pytest.mark.parametrize("photos", ["JPEGImages", "Original Images"])
def test_photos_and_drawings_are_no_classes_however_they_are_written(photos, drawn, tmp_path):
    with pytest.raises(DataError, match="drawings on them"):
        load(folder(tmp_path, {f"VOC/{photos}": 8, f"VOC/{drawn}": 8}))


@pytest.mark.parametrize(
    "name", ["$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle"]
)
def test_folders_of_the_system_are_no_classes(name, tmp_path):
    folder(tmp_path, {"cat": 5, "dog": 5, f"{name}/S-1": 3, f"cat/{name}": 2})
    examples = load(tmp_path)
    assert examples.classes == ("cat", "dog") and len(examples) == 10


def test_a_part_with_loose_photos_alone_is_left_out_and_said(tmp_path):
    # As in Tiny ImageNet: test/images/ has no class folders.
    folder(tmp_path, {"train/n1/images": 4, "train/n2/images": 4, "test/images": 4})
    examples = load(tmp_path)
    assert examples.classes == ("n1", "n2") and "test/" in notes(examples)
    assert "subfolders" not in notes(examples)


def test_labels_of_places_beside_the_photos_are_named(tmp_path):
    folder(tmp_path, {"train/images": 4, "valid/images": 4})
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "000.txt").write_text("0 .5 .5 .1 .1")
    with pytest.raises(DataError, match=r"no class folders.*labels/ may mark places"):
        load(tmp_path)


@pytest.mark.parametrize("place", [".", "images", "train"])
def test_classes_in_the_names_of_files_are_seen_and_said(place, tmp_path):
    folder(tmp_path, {place: 0, "test1": 4} if place == "train" else {place: 0})
    for number in range(8):
        name = f"{('cat', 'dog')[number % 2]}.{number}.png"
        (tmp_path / place / name).write_bytes(image(number))
    with pytest.raises(DataError, match="file names begin with cat, dog"):
        load(tmp_path)


@pytest.mark.parametrize("copy", ["cat - Copy", "cat copy 2", "cat (1)", "Copy of cat"])
def test_a_copied_class_folder_is_said(copy, tmp_path):
    examples = load(folder(tmp_path, {"cat": 5, copy: 5, "dog": 5}))
    assert repr(copy) in notes(examples) and "look almost the same" in notes(examples)


@pytest.mark.parametrize("names", [("gala (1)", "gala (2)"), ("valid", "invalid")])
def test_classes_with_names_that_are_meant_are_fine(names, tmp_path):
    assert not load(folder(tmp_path, dict.fromkeys(names, 5))).notes


@pytest.mark.parametrize("name", ["nan", "None", "#N/A", "?", "New folder"])
def test_names_that_say_nothing_are_said(name, tmp_path):
    target = tmp_path / ("photos" if "/" in name else ".")
    if "/" in name:
        folder(target, {"a": 12})
        labels = ("cat", "dog", name)
        rows = [f"photos/a/{i:03d}.png,{labels[i % 3]}" for i in range(12)]
        target = tmp_path / "t.csv"
        target.write_text("\n".join(["path,label", *rows]))
    else:
        folder(target, {"cat": 4, "dog": 4, name: 4})
    assert f"The class {name!r} may hold examples without a label" in notes(load(target))


@pytest.mark.parametrize("names", [("0.5", "1.5"), ("0,25", "3")])
def test_numbers_that_measure_something_are_said(names, tmp_path):
    assert "numbers with decimals" in notes(load(folder(tmp_path, dict.fromkeys(names, 4))))


@pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1.0"), ("v1.5", "v2.5")])
def test_numbers_that_name_classes_are_fine(names, tmp_path):
    assert "decimals" not in notes(load(folder(tmp_path, dict.fromkeys(names, 4))))


@pytest.mark.parametrize(
    ("names", "said"),
    [(("['cat', 'dog']", "['cat']"), "as programs write them"), (("cat dog", "dog"), "lists")],
)
def test_lists_of_names_in_other_forms_are_said(names, said, tmp_path):
    assert said in notes(load(folder(tmp_path, dict.fromkeys([*names, "cat"], 4))))


@pytest.mark.parametrize("name", ["000-Edit.png", "000_thumb.png", "000 - Kopie.png", "000.webp"])
def test_second_versions_of_a_photo_are_said(name, tmp_path):
    folder(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / name).write_bytes(image(99))
    assert f"{name} of 000.png" in notes(load(tmp_path))


@pytest.mark.parametrize("name", ["000 (1).png", "001.jpg"])
def test_what_browsers_and_scrapers_call_other_photos_is_fine(name, tmp_path):
    folder(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / name).write_bytes(image(99))
    assert "copies" not in notes(load(tmp_path))


@pytest.mark.parametrize("ending", ["", ".jpg?w=300", ".jpg!d", ".image", ".png_"])
@pytest.mark.parametrize("parts", [(), ("train", "test")])
def test_photos_whose_ending_says_nothing_are_photos(parts, ending, tmp_path):
    tops = [f"{part}/{name}" for part in parts for name in "ab"] or ["a", "b"]
    folder(tmp_path, dict.fromkeys(tops, 6))
    for photo in list(tmp_path.rglob("*.png")):
        photo.rename(photo.with_suffix("").as_posix() + ending)
    examples = load(tmp_path)
    assert examples.classes == ("a", "b") and len(examples) == 6 * len(tops)


def test_photos_that_a_cloud_has_not_sent_are_said(tmp_path):
    folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / ".IMG_1.jpg.icloud").write_bytes(b"bplist00")
    assert "1 files are only in iCloud" in notes(load(tmp_path))
    (tmp_path / "a" / "IMG_2.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/IMG_2\.jpg is empty.*cloud drive"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("photos.zip", b"PK\3\4 and so on", "whose end is missing"),
        ("photos.zip", b"<html>Quota exceeded", "it begins with b'<html>Quota"),
        ("photos.zip.001", b"PK\3\4", "a piece of an archive"),
        ("photos.zip.crdownload", b"PK\3\4", "not finished"),
        ("train.tfrecord", b"", "from_dataset"),
        ("images.npz", b"PK\3\4", "from_arrays"),
    ],
)
def test_files_that_are_no_photos_are_told_what_to_do_with(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load(tmp_path / name)


def test_answers_in_several_spellings_are_said(tmp_path):
    folder(tmp_path, {"yes": 5, "No": 5, "n": 5})
    assert "two answers" in notes(load(tmp_path))


def test_names_in_a_wrong_code_page_are_said(tmp_path):
    folder(tmp_path, {"caf\u00c3\u00a9": 5, "th\u00e9": 5})
    said = notes(load(tmp_path))
    assert "may be 'caf\u00e9'" in said and said.count("may be") == 1


NAMES = ["person{}_bacteria_{}", "Patient-0{}_{}", "clip{}_frame_{:04d}", "x_subject 1{} ({})"]


@pytest.mark.parametrize("name", NAMES)
def test_images_of_one_person_or_video_by_their_names_are_said(name, tmp_path):
    folder(tmp_path, {"a": 8, "b": 8})
    for i, photo in enumerate(sorted(tmp_path.rglob("*.png"))):
        photo.rename(photo.with_name(name.format(i // 4, i) + ".png"))
    said = notes(load(tmp_path))
    assert "16 examples are of 4 persons, videos" in said and "column group" in said


def test_persons_in_several_parts_are_said(tmp_path):
    folder(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    for i, photo in enumerate(sorted(tmp_path.rglob("*.png"))):
        photo.rename(photo.with_name(f"person{i % 3}_{i}.png"))
    assert "in several parts (person0, person1, person2)" in notes(load(tmp_path))


@pytest.mark.parametrize("name", ["case_{}", "IMG_2024_{}", "suitcase1_{}", "video{}"])
def test_numbers_alone_are_no_persons(name, tmp_path):
    folder(tmp_path, {"a": 8, "b": 8})
    for i, photo in enumerate(sorted(tmp_path.rglob("*.png"))):
        photo.rename(photo.with_name(name.format(i) + ".png"))
    assert "persons" not in notes(load(tmp_path))
