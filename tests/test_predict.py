"""Predict and evaluate: files to classes and figures, by a run or by an export of it."""

import csv
import io
import json
import resource
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import openpyxl
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image
from pyarrow import parquet
from runs import CLASSES, SIZE, encoded, load_photo, some_doubt, write_run

from tfxfer import heads, serving
from tfxfer.backbone import Backbone
from tfxfer.cli import main
from tfxfer.data import load
from tfxfer.errors import DataError, ImageError, ServingError
from tfxfer.serving.formats import as_json
from tfxfer.serving.model import open_model
from tfxfer.serving.predict import predictions

pytestmark = pytest.mark.usefixtures("opened_once")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel) -> Path:
    """A finished run of a head with random weights."""
    keras.utils.set_random_seed(1)
    backbone = Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    return write_run(
        tmp_path_factory.mktemp("runs") / "frozen-1",
        heads.join(backbone, keras.layers.Dense(len(CLASSES)), (*SIZE, 3)),
    )


@pytest.fixture
def mixed(photos, tmp_path) -> Path:
    """Photos two folders deep, hidden files and notes beside them."""
    folder = tmp_path / "mixed"
    (folder / "deep/er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(("b.jpg", "a.JPG", "deep/er/c.jpeg", ".d.jpg", ".hidden/e.jpg")):
        (folder / name).write_bytes((photos / f"china/china{i:02d}.jpg").read_bytes())
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.long
def test_few_and_many_photos_are_answered_alike(run_folder, photos, monkeypatch):
    small = io.BytesIO()
    Image.open(photos / "flower/flower00.jpg").rotate(9).save(small, "PNG")
    files = sorted((photos / "china").iterdir())[:4]
    contents = tf.constant([small.getvalue(), *(file.read_bytes() for file in files)])
    few = open_model(run_folder).answer(contents)
    monkeypatch.setattr("tfxfer.serving.model.FEW", 0)
    many = open_model(run_folder).answer(contents)
    assert few.keys() == many.keys()
    for name, values in few.items():
        np.testing.assert_array_equal(values, many[name])


@keras.saving.register_keras_serializable(package="test_predict")
class TracedHead(keras.layers.Layer):
    """A user's own head, which TensorFlow traces by itself."""

    def __init__(self, count: int, **options):
        super().__init__(**options)
        self.count = count

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.count), name="kernel")

    @tf.function
    def call(self, features):
        return tf.matmul(features, self.kernel)

    def get_config(self):
        return super().get_config() | {"count": self.count}


@pytest.mark.long
def test_a_head_that_was_traced_before_is_exported(tiny_savedmodel, photos, tmp_path):
    network = Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    model = heads.join(network, TracedHead(len(CLASSES)), (*SIZE, 3))
    run = write_run(tmp_path / "run", model)
    exported = serving.export(run, tmp_path / "served")
    files = sorted((photos / "china").iterdir())[:3]
    answers = [list(serving.predict(folder, files)) for folder in (run, exported)]
    for one, other in zip(*answers, strict=True):
        assert one.predicted == other.predicted
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


@pytest.mark.long
def test_folders_are_searched_and_files_are_named_as_found_or_given(run_folder, mixed, said):
    given = f"{mixed}/deep/../b.jpg"
    rows = list(serving.predict(run_folder, [given, mixed]))
    assert [row.file for row in rows] == [
        given,
        f"{mixed}/a.JPG",
        f"{mixed}/b.jpg",
        f"{mixed}/deep/er/c.jpeg",
    ]
    assert rows[0].predicted == rows[2].predicted
    assert rows[0].probability == pytest.approx(rows[2].probability, abs=1e-5)
    assert {row.predicted for row in rows} <= set(CLASSES)
    assert f"{mixed}: 3 files that are no photos are ignored" in said


@pytest.mark.long
def test_the_size_of_a_batch_changes_nothing(run_folder, photos):
    several, one = (
        {row.file: row for row in serving.predict(run_folder, [photos], batch_size=n)}
        for n in (64, 7)
    )
    assert list(several) == list(one) and len(one) == 60
    np.testing.assert_allclose(
        [row.probability for row in several.values()],
        [row.probability for row in one.values()],
        atol=1e-6,
    )


@pytest.mark.long
def test_bad_files_are_named_after_all_others_were_predicted(run_folder, mixed):
    whole = (mixed / "a.JPG").read_bytes()
    (mixed / "bad.jpg").write_text("this is text")
    (mixed / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed / "sick.png").write_bytes(
        encoded(Image.new("RGB", (90, 90)), "PNG").replace(b"IDAT", b"IDAT\xff\xff\xff", 1)
    )
    rows, found = [], serving.predict(run_folder, [mixed], batch_size=2)
    with pytest.raises(ImageError) as error:
        rows.extend(found)
    assert [Path(row.file).name for row in rows] == ["a.JPG", "b.jpg", "c.jpeg"]
    text = str(error.value)
    assert text.startswith(
        "3 of 6 files can't be predicted, the others were predicted: "
        f"{mixed}/bad.jpg is not an image, it begins with b'this is text'; "
    )
    assert (
        "short.jpg is a JPEG that is truncated: its end is missing" in text and "sick.png" in text
    )


def test_json_begins_with_the_first_answer():
    file = io.StringIO()

    def rows():
        assert not file.getvalue()  # the steps are shown until there is an answer
        yield ROWS[0]

    as_json(rows(), file)
    assert [row["file"] for row in json.loads(file.getvalue())] == [ROWS[0].file]


@pytest.mark.long
@pytest.mark.parametrize("count", [3, 12])
def test_each_bad_file_is_named_once(run_folder, mixed, count):
    for number in range(count):
        (mixed / f"bad{number}.jpg").write_text("this is text")
    done = CliRunner().invoke(main, ["predict", str(run_folder), str(mixed)])
    assert done.exit_code == 1
    assert all(done.output.count(f"/bad{number}.jpg is") == 1 for number in range(1, count))


@pytest.mark.long
def test_an_image_that_only_decoding_finds_damaged_is_named(run_folder, tmp_path, photos):
    (tmp_path / "good.jpg").write_bytes((photos / "china/china00.jpg").read_bytes())
    (tmp_path / "sick.webp").write_bytes(
        encoded(Image.new("RGB", (9, 9)), "WEBP", lossless=True)[:-8] + bytes(8)
    )
    png = bytearray(encoded(load_photo(), "PNG"))
    png[200:300] = bytes(100)
    (tmp_path / "sick.png").write_bytes(png)
    rows = []
    with pytest.raises(ImageError, match=r"sick\.png can't be decoded: "):
        rows.extend(serving.predict(run_folder, [tmp_path]))
    assert any(row.file.endswith("good.jpg") for row in rows)


def test_a_path_that_does_not_exist_is_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(
        DataError, match=r"nowhere\.jpg does not exist\. Expected photos, or folders of them\."
    ):
        serving.predict(tmp_path / "no run", [tmp_path / "nowhere.jpg"])


def test_a_folder_without_images_is_refused(run_folder, tmp_path):
    with pytest.raises(
        DataError,
        match=r"there is no photo to predict\. Expected photos, or folders of them\.",
    ):
        serving.predict(run_folder, [tmp_path])


def test_predictions_are_written_as_csv(tmp_path):
    rows = [
        serving.Prediction('a "b",\n.jpg', "café", 0.123456789),
        serving.Prediction("\udcff.jpg", "x", 1.0),
    ]
    serving.write(rows, to=tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_bytes().decode("utf-8-sig", "surrogateescape")
    assert text.startswith("file,predicted,probability\n")
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        ['a "b",\n.jpg', "café", "0.123457"],
        ["\udcff.jpg", "x", "1.000000"],
    ]


def test_rows_before_an_error_are_in_the_csv(tmp_path):
    def rows():
        yield serving.Prediction("a.jpg", "x", 0.5)
        raise ImageError("b.jpg is bad")

    with pytest.raises(ImageError, match=r"b\.jpg is bad"):
        serving.write(rows(), to=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(
        "utf-8-sig"
    ) == "file,predicted,probability\na.jpg,x,0.500000\n"


def test_a_csv_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ServingError,
        match=r"file/out\.csv can't be written: Not a directory\. Choose another file with --to\.",
    ):
        serving.write([], to=tmp_path / "file/out.csv")


@pytest.mark.long
def test_an_export_predicts_as_the_run_does(run_folder, photos, tmp_path):
    how = {"top_k": 3, "sets": 0.8, "unknown": True}
    expected = list(serving.predict(run_folder, [photos], **how))
    for bad in ("error", "null"):
        serving.export(run_folder, tmp_path / "serving", on_bad_image=bad)
        found = list(serving.predict(tmp_path / "serving", [photos], **how))
        assert [(row.file, row.predicted, row.set, row.unknown) for row in found] == [
            (row.file, row.predicted, row.set, row.unknown) for row in expected
        ]
        np.testing.assert_allclose(
            [row.probability for row in found], [row.probability for row in expected], atol=1e-5
        )


@pytest.mark.long
def test_an_export_that_answers_bad_images_with_nothing_names_them_too(
    run_folder, photos, tmp_path
):
    serving.export(run_folder, tmp_path / "serving", on_bad_image="null")
    (tmp_path / "sick.png").write_bytes(
        encoded(load_photo(), "PNG")[:200] + bytes(100) + encoded(load_photo(), "PNG")[300:]
    )
    rows = []
    with pytest.raises(
        ImageError,
        match=(
            "1 of 2 files can't be predicted, the others were predicted: "
            r".*sick\.png can't be decoded\."
        ),
    ):
        rows.extend(
            serving.predict(
                tmp_path / "serving" / "1", [photos / "china/china00.jpg", tmp_path / "sick.png"]
            )
        )
    assert len(rows) == 1


@pytest.mark.long
def test_the_next_classes_are_named_and_sets_hold_what_their_threshold_lets_in(run_folder, photos):
    rows = list(serving.predict(run_folder, [photos], top_k=2, sets=0.5))
    least = some_doubt(16).least(0.5)
    for row in rows:
        probabilities = {row.predicted: row.probability, **dict(row.others)}
        assert len(probabilities) == 2 and row.others[0][1] <= row.probability
        assert row.predicted == row.set[0] and all(
            probabilities.get(name, 1.0) >= least for name in row.set[1:]
        )
    assert all(
        len(row.set) == 3
        for row in serving.predict(run_folder, [photos / "china/china00.jpg"], sets=0.999)
    )


@pytest.mark.long
def test_some_images_fit_no_class(run_folder, photos):
    assert {row.unknown for row in serving.predict(run_folder, [photos], unknown=True)} <= {
        True,
        False,
    }
    assert {row.unknown for row in serving.predict(run_folder, [photos])} == {None}


def told(caplog, make) -> list[str]:
    """Return the log lines about unknown photos while answers are made."""
    caplog.clear()
    with caplog.at_level("INFO", "tfxfer"):
        list(make())
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if "--unknown" in line]


@pytest.mark.long
@pytest.mark.parametrize(("unlike", "said"), [(9, ["9 of 60"]), (3, [])])
def test_more_than_one_in_twenty_photos_unlike_every_class_are_told(
    run_folder, photos, caplog, unlike, said
):
    model = open_model(run_folder)
    files = sorted(map(str, photos.rglob("*.jpg")))
    encoded = tf.constant([Path(file).read_bytes() for file in files])
    limit = np.sort(model.answer(encoded)["unknown"].numpy())[-unlike - 1]
    doubt = replace(model.doubt, known=np.full(60, limit, np.float32))
    model = replace(model, doubt=doubt)

    def read(i: int) -> bytes:
        return Path(files[i]).read_bytes()

    lines = told(caplog, lambda: predictions(model, files, read, 60))
    assert [line[: len("9 of 60")] for line in lines] == said
    assert told(caplog, lambda: predictions(model, files, read, 60, unknown=True)) == []


@pytest.mark.long
def test_what_knows_no_unknown_photos_counts_none(tiny_savedmodel, photos, tmp_path, caplog):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(3), (*SIZE, 3)
    )
    for name, how in (("none", {"thresholds": False}), ("few", {"known": 18})):
        folder = write_run(tmp_path / name, model, **how)
        assert told(caplog, lambda folder=folder: serving.predict(folder, [photos])) == []


@pytest.mark.long
def test_a_run_without_held_out_examples_knows_neither_sets_nor_unknown_images(
    tiny_savedmodel, photos, tmp_path
):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(3), (*SIZE, 3)
    )
    folder = write_run(tmp_path / "run", model, thresholds=False)
    for how in ({"sets": 0.9}, {"unknown": True}):
        with pytest.raises(
            ServingError,
            match=(
                r"has no doubt\.npz, which prediction sets and unknown photos need: "
                "no example was held out"
            ),
        ):
            serving.predict(folder, [photos], **how)
    assert len(list(serving.predict(folder, [photos]))) == 60


def test_too_few_held_out_images_say_nothing_of_unknown_ones(tiny_savedmodel, photos, tmp_path):
    folder = write_run(
        tmp_path / "run",
        heads.join(Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(3), (*SIZE, 3)),
        known=18,
    )
    with pytest.raises(
        ServingError,
        match=(
            "18 held-out photos are too few to tell what fits no class; "
            r"at least 19 are needed\."
        ),
    ):
        serving.predict(folder, [photos], unknown=True)


ROWS = [
    serving.Prediction(
        file='a "b",\n.jpg',
        predicted="café",
        probability=0.75,
        others=(("x", 0.25),),
        set=("café", "x"),
        unknown=False,
    ),
    serving.Prediction(
        file="b.jpg",
        predicted="x",
        probability=0.5,
        others=(("café", 0.5),),
        set=("x",),
        unknown=True,
    ),
]


def test_all_formats_say_the_same(tmp_path):
    for form in ("csv", "json", "jsonl", "parquet"):
        serving.write(iter(ROWS), form, tmp_path / f"out.{form}")
    as_json = json.loads((tmp_path / "out.json").read_text())
    assert as_json == [
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert as_json[0] == {
        "file": ROWS[0].file,
        "predicted": "café",
        "probability": 0.75,
        "others": [{"predicted": "x", "probability": 0.25}],
        "set": ["café", "x"],
        "unknown": False,
    }
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert table[1] == {
        "file": "b.jpg",
        "predicted": "x",
        "probability": 0.5,
        "predicted_2": "café",
        "probability_2": 0.5,
        "set": ["x"],
        "unknown": True,
    }
    with open(tmp_path / "out.csv", encoding="utf-8-sig", newline="") as file:
        flat = list(csv.DictReader(file))
    assert [
        (row["file"], row["predicted_2"], json.loads(row["set"]), json.loads(row["unknown"]))
        for row in flat
    ] == [(row.file, row.others[0][0], list(row.set), row.unknown) for row in ROWS]


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_a_bad_file_among_many_leaves_the_rest_written(run_folder, photos, tmp_path, form):
    (tmp_path / "bad.jpg").write_text("this is text")
    with pytest.raises(
        ImageError,
        match=(
            "1 of 61 files can't be predicted, the others were predicted: "
            r".*bad\.jpg is not an image"
        ),
    ):
        serving.write(
            serving.predict(run_folder, [tmp_path / "bad.jpg", photos]),
            form,
            tmp_path / "out",
        )
    text = (tmp_path / "out").read_bytes()
    count = {
        "csv": lambda: text.count(b"\n") - 1,
        "json": lambda: len(json.loads(text)),
        "jsonl": lambda: text.count(b"\n"),
    }
    assert count.get(form, lambda: parquet.read_metadata(tmp_path / "out").num_rows)() == 60


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_full_disk_is_said(tmp_path, form):
    rows = [serving.Prediction(f"{i:0200}.jpg", f"class {i}", 0.5) for i in range(2000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(
            ServingError,
            match=r"out can't be written: File too large\. Choose another file with --to\.",
        ):
            serving.write(rows, form, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_workbook_has_the_columns_of_csv_as_texts_and_numbers(run_folder, photos, tmp_path):
    rows = [
        serving.Prediction(
            file="=1+1.jpg",
            predicted="café",
            probability=0.5,
            others=(),
            set=("café", "x"),
            unknown=True,
        ),
        serving.Prediction(
            file="a\x1b.jpg", predicted="x", probability=1.0, others=(), set=("x",), unknown=False
        ),
    ]
    assert serving.write(rows, "xlsx", tmp_path / "out.xlsx") == 2
    header, first, second = openpyxl.load_workbook(tmp_path / "out.xlsx").active.iter_rows()
    assert [cell.value for cell in header] == ["file", "predicted", "probability", "set", "unknown"]
    assert [cell.value for cell in first] == ["=1+1.jpg", "café", 0.5, "café, x", True]
    assert first[0].data_type == "s" and second[0].value == r"a\x1b.jpg"


def test_parquet_needs_a_file():
    with pytest.raises(
        ServingError, match=r"parquet is not for a terminal\. Expected a file: --to out\.parquet"
    ):
        serving.write(ROWS, "parquet")


# --- evaluate -------------------------------------------------------------------------------------


def copied(photos, folder, places):
    for i, place in enumerate(places):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"{i}.jpg").write_bytes(
            sorted((photos / Path(place).name).iterdir())[i].read_bytes()
        )
    return folder


@pytest.mark.long
def test_all_images_of_other_data_are_judged(run_folder, photos, said):
    found = serving.evaluate(run_folder, photos)
    right = sum(
        Path(row.file).parent.name == row.predicted for row in serving.predict(run_folder, [photos])
    )
    assert (found["n"], found["accuracy"]) == (60, right / 60)
    assert f"{photos}: all photos, 60 of 60" in said


@pytest.mark.long
def test_of_data_with_a_test_part_that_part_is_judged(run_folder, photos, tmp_path, said):
    folder = copied(photos, tmp_path, ["train/china", "train/flower", "test/china"])
    assert serving.evaluate(run_folder, folder)["classes"]["china"]["n"] == 1
    assert f"{folder}: the test part, 1 of 3" in said


@pytest.mark.long
def test_of_the_runs_own_data_the_test_part_of_its_split_is_judged(
    tiny_savedmodel, photos, tmp_path
):
    model = heads.join(
        Backbone(tiny_savedmodel, trainable=False), keras.layers.Dense(2), (*SIZE, 3)
    )
    folder = write_run(tmp_path / "run", model, classes=("china", "flower"), data=photos)
    assert serving.evaluate(folder, photos)["n"] == len(load(photos).where("test"))


@pytest.mark.long
def test_one_class_alone_can_be_judged(run_folder, photos, tmp_path):
    found = serving.evaluate(run_folder, copied(photos, tmp_path, ["flower"]))
    assert found["n"] == 1 and found["classes"]["china"]["recall"] is None


def test_classes_that_the_model_does_not_know_are_named(run_folder, photos, tmp_path):
    copied(photos, tmp_path, ["china", "flower"])
    (tmp_path / "flower").rename(tmp_path / "rose")
    with pytest.raises(
        DataError,
        match=(
            r"has classes that the model doesn't know: 'rose'\. It knows: 'china', 'flower', "
            r"'none <of> these'\."
        ),
    ):
        serving.evaluate(run_folder, tmp_path)


@pytest.mark.long
def test_images_that_can_not_be_judged_are_named(run_folder, photos, tmp_path):
    (copied(photos, tmp_path, ["china", "flower"]) / "china/0.jpg").write_text("text")
    with pytest.raises(
        ImageError,
        match=(
            r"1 of 2 photos can't be judged: china/0\.jpg is not an image, it begins with "
            r"b'text'\. Repair or remove them\."
        ),
    ):
        serving.evaluate(run_folder, tmp_path)


def test_data_that_is_none_is_refused(run_folder, tmp_path):
    with pytest.raises(
        DataError,
        match=r"nothing does not exist\. Expected a folder with a folder for each class",
    ):
        serving.evaluate(run_folder, tmp_path / "nothing")


@pytest.fixture
def test_set(photos, tmp_path) -> Path:
    """A table of names as in a competition, with its photos in test/."""
    (tmp_path / "test").mkdir()
    for i, name in enumerate(("0002", "0001", "10", "=1+1")):
        photo = (photos / f"china/china{i:02d}.jpg").read_bytes()
        (tmp_path / "test" / f"{name}.jpg").write_bytes(photo)
    (tmp_path / "test.csv").write_text("id,predicted\n0002,x\n0001,y\n10,\n=1+1,z\n")
    return tmp_path / "test.csv"


@pytest.mark.long
def test_answers_keep_the_columns_of_a_table_in_its_order(run_folder, test_set, tmp_path):
    for form in ("csv", "json", "parquet"):
        serving.write(serving.predict(run_folder, [test_set]), form, tmp_path / f"out.{form}")
    with open(tmp_path / "out.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["id", "predicted_given", "file", "predicted", "probability"]
    assert [row["id"] for row in rows] == ["0002", "0001", "10", "'=1+1"]
    assert [row["predicted_given"] for row in rows] == ["x", "y", "", "z"]
    [alone] = serving.predict(run_folder, [tmp_path / "test" / "0001.jpg"])
    assert rows[1]["file"] == alone.file and rows[1]["predicted"] == alone.predicted
    nested = json.loads((tmp_path / "out.json").read_text())
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for one in (nested[3], table[3]):
        assert one["id"] == "=1+1" and one["predicted_given"] == "z"


@pytest.mark.long
def test_tables_of_other_columns_are_answered_without_these(run_folder, test_set, tmp_path):
    (tmp_path / "more.csv").write_text("path\ntest/10.jpg\n")
    rows = list(serving.predict(run_folder, [test_set, tmp_path / "more.csv"]))
    assert len(rows) == 5 and all(row.given is None for row in rows)


def test_a_table_without_names_of_files_is_an_error(run_folder, test_set):
    test_set.write_text("number,size\n7,8\n9,10\n")
    with pytest.raises(DataError, match="Found: number, size"):
        serving.predict(run_folder, [test_set])
    test_set.write_text("id\n0001\n0003\n")
    with pytest.raises(DataError, match="Found: id"):
        serving.predict(run_folder, [test_set])


def test_the_answer_is_never_written_over_what_a_table_names(run_folder, test_set, tmp_path):
    target = str(tmp_path / "test" / "10.jpg")
    done = CliRunner().invoke(main, ["predict", str(run_folder), str(test_set), "--to", target])
    assert done.exit_code and "10.jpg" in done.output
