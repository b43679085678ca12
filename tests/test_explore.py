"""What features alone show: similar photos, which to label next, vectors for other programs."""

import csv
import io
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import tfxfer
from tfxfer import explore
from tfxfer.cli import main
from tfxfer.errors import ImageError, ServingError, TfxferError
from tfxfer.explore import next_labels
from tfxfer.explore.next_labels import alternate, reason
from tfxfer.tasks import CLASSIFY

pytestmark = pytest.mark.usefixtures("opened_once")


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a CSV table that was printed, without the steps before it."""
    return list(
        csv.DictReader(io.StringIO(text[re.search(r"^(file|path),", text, re.M).start() :]))
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos, tiny_savedmodel):
    """A finished run on photos of two classes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ("run", "frozen", "--data", photos, "--backbone", tiny_savedmodel, "--head", "gaussian")
    done(*words, "--out", folder)
    return folder


@pytest.mark.long
def test_a_copy_is_the_most_similar_photo_and_the_photo_itself_is_not_listed(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "all")
    photo = tmp_path / "all" / "china" / "china03.jpg"
    shutil.copy(photo, tmp_path / "all" / "copy.jpg")
    rows = rows_of(done("similar", run, photo, tmp_path / "all", "--count", 5))
    assert [row["file"] for row in rows][:1] == [str(tmp_path / "all" / "copy.jpg")]
    similarities = [float(row["similarity"]) for row in rows]
    assert similarities == sorted(similarities, reverse=True) and len(rows) == 5
    assert similarities[0] == pytest.approx(1, abs=1e-5) and str(photo) not in str(rows)


@pytest.mark.long
def test_similar_photos_are_those_with_the_most_similar_features(run, photos, tiny_savedmodel):
    files = sorted((photos / "flower").iterdir())
    found = explore.find_alike(run, [files[0]], files, count=3)
    vectors = explore.seen.look_at(run, files).vectors
    expected = np.argsort(-(vectors @ vectors[0]))[1:4]
    assert [one.like for one in found] == [str(files[i]) for i in expected]


@pytest.mark.long
def test_photos_between_two_classes_come_first_and_copies_once(run, photos, tmp_path):
    for i in range(4):
        shutil.copy(photos / "china" / "china05.jpg", tmp_path / f"copy{i}.jpg")
    picks = explore.pick_next(run, [photos, tmp_path], count=20)
    between = [one.margin for one in picks if one.why == "between two classes"]
    sure = [one.margin for one in picks if one.why == next_labels.SURE]
    assert between + sure and between + sure == sorted(between + sure)
    assert all(one.margin == pytest.approx(one.probability - one.probability_2) for one in picks)
    assert sum("copy" in one.file or "china05" in one.file for one in picks) <= 1


@pytest.mark.parametrize(("second", "wavers"), [(0.45, True), (0.25, True), (0.03, False)])
def test_a_photo_whose_class_is_clear_is_not_said_to_be_between_two(second, wavers):
    answers = np.array([[1 - second, second]])
    unsure = CLASSIFY.unsure(answers, ("china", "flower"), {})
    assert (reason(unsure, 0, strange=False) == "between two classes") == wavers
    assert reason(unsure, 0, strange=True) == "unlike every class"


def test_strange_photos_and_others_take_turns():
    ranked, strange = np.array([3, 1, 0, 2, 4]), np.array([False, True, False, True, False])
    assert alternate(ranked, strange) == [0, 3, 2, 1, 4]


@pytest.mark.long
def test_the_list_is_a_table_to_fill_in_and_a_page_to_look_at(run, photos, tmp_path):
    table, page = tmp_path / "next.csv", tmp_path / "next.html"
    done("next", run, photos, "--count", 6, "--to", table, "--page", page)
    rows = list(csv.DictReader(table.read_text("utf-8-sig").splitlines()))
    assert 0 < len(rows) <= 6 and {row["label"] for row in rows} == {""}
    html = page.read_text()
    assert html.count("<img") == len(rows) and not re.search(r"(src|href)=\"(?!data:)", html)
    # The labels that a person fills in make it a table of photos.
    lines = [f"{row['path']},{'ab'[i % 2]}" for i, row in enumerate(rows * 2)]
    table.write_text("\n".join(["path,label", *dict.fromkeys(lines)]))
    assert set(tfxfer.data.load(str(table)).classes) <= {"a", "b"}


@pytest.mark.long
def test_paths_in_the_list_are_relative_to_the_list(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    (tmp_path / "lists").mkdir()
    done("next", run, photos.name, "--count", 2, "--to", tmp_path / "lists" / "next.csv")
    text = (tmp_path / "lists" / "next.csv").read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows
    for row in rows:
        assert (tmp_path / "lists" / row["path"]).is_file()


@pytest.mark.long
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_done(run, photos, tmp_path, capsys):
    shutil.copy(photos / "china" / "china01.jpg", tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no photo")
    assert [one.file for one in explore.pick_next(run, [tmp_path])] == [str(tmp_path / "good.jpg")]
    assert "bad.jpg" in capsys.readouterr().err
    with pytest.raises(ImageError, match="1 files"):
        explore.pick_next(run, [tmp_path / "bad.jpg"])


@pytest.mark.long
@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_features_are_those_of_the_network(ending, photos, tiny_savedmodel, tmp_path):
    to = tmp_path / f"vectors.{ending}"
    done("features", photos, "--backbone", tiny_savedmodel, "--to", to)
    examples = tfxfer.data.load(str(photos))
    if ending == "parquet":
        table = pq.read_table(to).to_pydict()
        files, labels, vectors = table["file"], table["label"], np.array(table["vector"])
        assert table["split"] == list(examples.splits)
    else:
        with np.load(to) as arrays:
            files, labels, vectors = (arrays[name] for name in ("files", "labels", "vectors"))
    assert list(files) == list(examples.files)
    assert list(labels) == [examples.classes[label] for label in examples.labels]
    assert vectors.shape == (60, 16) and np.isfinite(vectors).all()


def test_another_ending_is_refused(photos, tiny_savedmodel, tmp_path):
    words = ("features", photos, "--backbone", tiny_savedmodel, "--to", tmp_path / "vectors.txt")
    assert "vectors.txt" in done(*words, code=1)


@pytest.mark.long
def test_an_export_has_no_features(run, photos, tmp_path):
    done("export", run, tmp_path / "served")
    with pytest.raises(ServingError, match="served"):
        explore.pick_next(tmp_path / "served", [photos])


@pytest.mark.long
def test_a_run_that_is_not_first_is_told(run, photos):
    assert "The run comes first" in done("next", photos / "china" / "china01.jpg", run, code=2)


@pytest.mark.long
def test_nothing_is_written_over_a_photo(run, photos):
    photo = photos / "china" / "china01.jpg"
    before = photo.read_bytes()
    done("next", run, photos, "--to", photo, code=1)
    assert photo.read_bytes() == before


def test_vectors_need_a_place(photos, tiny_savedmodel, tmp_path):
    features = tfxfer.features.extract(
        tfxfer.data.load(str(photos)),
        tfxfer.Backbone(tiny_savedmodel, trainable=False, value_range=(0, 1)).prefix(1),
        cache=tfxfer.Cache(tmp_path / "cache"),
        progress=False,
    )
    with pytest.raises(TfxferError, match="missing"):
        explore.write_vectors(features, tmp_path / "missing" / "vectors.npz")
