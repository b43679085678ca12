"""Answers that are no classes: several labels of one example, and numbers."""

import csv
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import crops
from PIL import Image
from savedmodels import save_reusable, tiny_network
from sklearn.metrics import average_precision_score, f1_score, median_absolute_error, r2_score
from tables import check_same_table, rows_of

import tfxfer
from tfxfer import data, explore, heads, report, serving, tasks, tuning
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.cli import main
from tfxfer.data import odd_cells
from tfxfer.data.examples import Found
from tfxfer.errors import DataError, RunError, ServingError
from tfxfer.explore import next_labels
from tfxfer.features import Extractor
from tfxfer.heads import train
from tfxfer.heads.several import fit_several, held_out_outputs, known_together
from tfxfer.tasks import multilabel, regress, written_lists
from tfxfer.tasks.cells import join_cells, split_cells
from tfxfer.tuning import activations

pytestmark = pytest.mark.usefixtures("opened_once")

COUNT = 120
RANGE = 0.0, 1.0  # of the pixels that the network expects; otherwise the labels tell, in seconds
RANGED = ("--value-range", "0,1")
PARTS = ["train"] * 70 + ["validation"] * 15 + ["test"] * 35


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def tinted(tmp_path_factory) -> Path:
    """Photos of which each is dimmed, and its red made weaker, by a known factor."""
    folder, rng = tmp_path_factory.mktemp("tinted"), np.random.default_rng(0)
    half = COUNT // 2
    photos = [*crops("china.jpg", half, 1), *crops("flower.jpg", half, 2)]
    rows = []
    for i in rng.permutation(COUNT):
        red, light = rng.uniform(0.2, 1.0, 2)
        pixels = np.asarray(photos[i].resize((40, 40)), float) * light * np.array([red, 1, 1])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{len(rows):03d}.png")
        rows.append((red, light))
    table = [["path", "split", "red", "light", "warm", "dark", "tags"]]
    for i, (red, light) in enumerate(rows):
        warm, dark = red > 0.6, light < 0.6
        tags = [name for name, there in (("warm", warm), ("dark", dark)) if there]
        cells = [f"{red:.4f}", f"{light:.4f}", str(int(warm)), "yes" if dark else "no"]
        table.append([f"{i:03d}.png", PARTS[i], *cells, "|".join(tags) or "none"])
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return folder


@pytest.fixture(scope="module")
def numbers(tinted, tiny_savedmodel, tmp_path_factory) -> Path:
    """A finished run whose answers are two numbers."""
    run = tmp_path_factory.mktemp("runs") / "numbers"
    words = ("--data", tinted / "photos.csv", "--backbone", tiny_savedmodel, "--out", run)
    options = ("--task", "regress", "--label", "red", "--label", "light", *RANGED)
    done("run", "frozen", *words, *options)
    return run


@pytest.fixture(scope="module")
def labels(tinted, tiny_savedmodel, tmp_path_factory) -> Path:
    """A finished run whose answers are two labels."""
    run = tmp_path_factory.mktemp("runs") / "labels"
    words = ("--data", tinted / "photos.csv", "--backbone", tiny_savedmodel, "--out", run)
    options = ("--task", "multilabel", "--label", "warm", "--label", "dark", *RANGED)
    done("run", "frozen", *words, *options)
    return run


@pytest.fixture(scope="module")
def both(tinted, tiny_savedmodel, tmp_path_factory) -> Path:
    """A finished run whose answers are a class and a number."""
    run = tmp_path_factory.mktemp("runs") / "both"
    words = ("--data", tinted / "photos.csv", "--backbone", tiny_savedmodel, "--out", run)
    options = ("--head", "linear", "--mirror", "no", *RANGED)
    done("run", "frozen", *words, "--label", "dark", "--label", "red", *options)
    return run


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.long
def test_numbers_are_better_than_always_the_mean(numbers):
    metrics = metrics_of(numbers)
    assert metrics["test"]["n"] == 35
    assert metrics["test"]["R2"] > 0.5 > metrics["baselines"]["majority"]["R2"]
    assert set(metrics["test"]["numbers"]) == {"red", "light"}


@pytest.mark.long
def test_a_number_comes_with_an_interval(numbers, tinted):
    files = [tinted / f"{i:03d}.png" for i in range(85, 120)]
    rows = rows_of(done("predict", numbers, *files))
    for row in rows:
        assert float(row["red_low"]) < float(row["red"]) < float(row["red_high"])
    truth = list(csv.DictReader((tinted / "photos.csv").open()))[85:]
    for name in ("red", "light"):
        inside = [
            float(row[f"{name}_low"]) <= float(true[name]) <= float(row[f"{name}_high"])
            for row, true in zip(rows, truth, strict=True)
        ]
        expected = metrics_of(numbers)["test"]["numbers"][name]["inside"]
        assert np.mean(inside) == pytest.approx(expected)


@pytest.mark.long
def test_labels_are_better_than_always_the_same_ones(labels):
    metrics = metrics_of(labels)
    assert metrics["test"]["F1"] > metrics["baselines"]["majority"]["F1"]
    assert metrics["test"]["mAP"] > 0.8


@pytest.mark.long
def test_labels_come_as_a_list_and_a_probability_each(labels, tinted):
    rows = json.loads(done("predict", labels, tinted / "100.png", "--format", "json"))
    limits = json.loads((labels / "decision.json").read_text())["thresholds"]
    (row,) = rows
    given = [
        name for name, limit in zip(("warm", "dark"), limits, strict=True) if row[name] >= limit
    ]
    assert row["labels"] == given and set(row) == {"file", "labels", "warm", "dark"}


@pytest.mark.long
def test_all_formats_take_them(labels, numbers, tinted, tmp_path):
    for run in (labels, numbers):
        answers = tfxfer.load(run).predict(tinted / "100.png")
        for form in ("csv", "json", "jsonl", "parquet", "xlsx"):
            serving.write(answers, form, tmp_path / f"{run.name}.{form}")
            assert (tmp_path / f"{run.name}.{form}").stat().st_size > 20


@pytest.mark.long
def test_evaluate_finds_the_figures_of_the_run(numbers, labels, tinted):
    for run in (numbers, labels):
        judged = json.loads(done("evaluate", run, tinted / "photos.csv", "--format", "json"))
        expected = metrics_of(run)["test"]
        name = "R2" if run is numbers else "F1"
        assert judged[name] == pytest.approx(expected[name], abs=1e-5)
        assert judged["n"] == 35


@pytest.mark.long
def test_an_export_gives_the_same_answers(numbers, labels, tinted, tmp_path):
    files = [tinted / f"{i:03d}.png" for i in range(85, 95)]
    for run, outputs in ((numbers, {"numbers", "low", "high"}), (labels, {"classes", "scores"})):
        done("export", run, tmp_path / run.name)
        own = done("predict", run, *files)
        check_same_table(done("predict", tmp_path / run.name, *files), own)
        served = tf.saved_model.load(str(tmp_path / run.name / "1")).signatures["serving_default"]
        answers = served(inputs=tf.constant([files[0].read_bytes()]))
        assert set(answers) == outputs


@pytest.mark.long
def test_a_column_is_answered_as_in_a_run_of_its_own(both, tinted, tiny_savedmodel):
    files = [tinted / f"{i:03d}.png" for i in range(85, 120)]
    answers = [one.values for one in tfxfer.load(both).predict(files)]
    alone = tfxfer.Transfer(tiny_savedmodel, head="linear", label=("dark",), value_range=RANGE)
    classes = alone.fit(tinted / "photos.csv", mirror="no").predict(files)
    assert [one["dark"] for one in answers] == [one.predicted for one in classes]
    sure = [one["dark_probability"] for one in answers]
    np.testing.assert_allclose(sure, [one.probability for one in classes], atol=1e-5)
    alone = tfxfer.Transfer(tiny_savedmodel, task="regress", label=("red",), value_range=RANGE)
    numbers = alone.fit(tinted / "photos.csv", mirror="no").predict(files)
    for name in ("red", "red_low", "red_high"):
        own = [one.values[name] for one in numbers]
        np.testing.assert_allclose([one[name] for one in answers], own, atol=1e-5)


@pytest.mark.long
def test_figures_of_columns_are_those_of_each(both, tinted):
    metrics = metrics_of(both)
    assert set(metrics["test"]["columns"]) == {"dark", "red"}
    judged = json.loads(done("evaluate", both, tinted / "photos.csv", "--format", "json"))
    for column, score in (("dark", "accuracy"), ("red", "R2")):
        expected = metrics["test"]["columns"][column][score]
        assert judged["columns"][column][score] == pytest.approx(expected, abs=1e-5)
    assert metrics["test"]["mean score"] > metrics["baselines"]["majority"]["mean score"]


@pytest.fixture(scope="module")
def served(both, tmp_path_factory) -> Path:
    """The export of the run whose answers are a class and a number."""
    folder = tmp_path_factory.mktemp("exports") / "served"
    done("export", both, folder)
    return folder


@pytest.mark.long
def test_an_export_has_an_output_for_each_column(both, served, tinted):
    files = [tinted / "100.png", tinted / "101.png"]
    check_same_table(done("predict", served, *files), done("predict", both, *files))
    answer = tf.saved_model.load(str(served / "1")).signatures["serving_default"]
    answers = answer(inputs=tf.constant([file.read_bytes() for file in files]))
    expected = {"dark", "dark_probability", "red", "red_low", "red_high"}
    assert set(answers) == expected and answers["dark"].shape == (2,)


def test_columns_may_have_gaps(tmp_path):
    path = table(tmp_path, "kind,size,split", "a,1.5,train", ",2.5,train", "b,,train")
    examples = data.load(path, labels=["kind", "size"])
    assert examples.task_name == "columns:classify*2,regress*1"
    assert examples.classes == ("kind: a", "kind: b", "size")
    np.testing.assert_array_equal(examples.labels, [[0, 1.5], [np.nan, 2.5], [1, np.nan]])
    targets = examples.labels
    outputs = np.array([[2.0, 0, 1.0], [0, 2, 2.5], [2, 0, 7]])
    np.testing.assert_array_equal(examples.task.scores(outputs, targets)[1:], [1, 0])
    codes = examples.task.codes(targets, 3)
    np.testing.assert_array_equal(codes[1], [np.nan, np.nan, 2.5])


@pytest.mark.long
def test_a_class_that_a_column_does_not_know_is_named(both, tmp_path):
    path = table(tmp_path, "dark,red", "no,0.5", "perhaps,0.1", "yes,0.2")
    with pytest.raises(DataError, match="perhaps"):
        tfxfer.load(both).evaluate(path)


def test_a_column_with_one_class_is_named(tmp_path):
    path = table(tmp_path, "kind,size,split", "a,1.5,train", "a,2.5,train", "a,2,train")
    with pytest.raises(DataError, match="kind"):
        data.load(path, labels=["kind", "size"])


@pytest.mark.long
def test_columns_that_do_not_fit_the_names_are_refused(served, tinted, tmp_path):
    changed = Path(shutil.copytree(served, tmp_path / "served"))
    (changed / "1" / "assets.extra" / "task.txt").write_text("columns:classify*7,regress*1\n")
    with pytest.raises(ServingError, match="task.txt"):
        list(serving.predict(changed, [tinted / "100.png"]))


def test_in_python_one_column_may_be_named_by_a_text(tinted):
    examples = data.load(tinted / "photos.csv", labels="dark")
    assert examples.classes == ("no", "yes")


@pytest.mark.parametrize("name", ["columns:", "columns:classify*x", "columns:multilabel*2"])
def test_a_changed_name_of_columns_is_refused(name):
    with pytest.raises(ValueError, match="columns"):
        tasks.find(name)


@pytest.mark.long
def test_two_runs_are_compared(numbers, tinted, tiny_savedmodel, tmp_path):
    other = tmp_path / "other"
    words = ("--data", tinted / "photos.csv", "--backbone", tiny_savedmodel, "--out", other)
    options = ("--task", "regress", "--label", "light", "--label", "red", "--head", "huber")
    done("run", "frozen", *words, *options, *RANGED)
    header, *_ = done("compare", numbers, other).splitlines()
    assert "R2" in header and "median error of red" in header


@pytest.mark.long
def test_runs_with_other_answers_are_not_compared(numbers, labels):
    with pytest.raises(RunError):
        report.compare_runs([numbers, labels])


@pytest.mark.long
def test_options_for_classes_are_refused(numbers, tinted):
    model = tfxfer.load(numbers)
    for options in ({"top_k": 2}, {"sets": 0.9}, {"unknown": True}):
        with pytest.raises(ServingError, match="regress"):
            model.predict(tinted / "100.png", **options)
    with pytest.raises(ServingError, match="regress"):
        explore.pick_next(numbers, [tinted])


def test_columns_of_new_data_may_stand_in_another_order():
    names = ("form: long", "form: round", "colour: blue", "colour: red")
    task = tasks.find("columns:classify*2,classify*2")
    texts = task.texts(np.array([[0, 1], [1, np.nan]], np.float32), names)
    other = [join_cells(split_cells(text)[::-1]) for text in texts]
    given = task.encode_known(other, ("colour", "form"), names)
    np.testing.assert_array_equal(given, task.encode_known(texts, names, names))
    swapped = (*names[2:], *names[:2])  # the outputs of a run with --label colour --label form
    np.testing.assert_array_equal(task.encode_known(other, swapped, names), given)


def test_thresholds_are_not_judged_on_the_examples_that_they_come_from():
    rng = np.random.default_rng(0)
    targets = (rng.uniform(size=(300, 4)) < 0.2).astype(np.float32)
    noise = rng.uniform(size=targets.shape)  # no threshold is better than another
    names, decision = "abcd", multilabel.decide(targets, noise)
    honest = multilabel.held_out_figures(targets, noise, names, decision)
    assert honest["macro_f1"] < multilabel.figures(targets, noise, names, decision)["macro_f1"]
    assert honest["F1"] == multilabel.figures(targets, noise, names, decision)["F1"]
    # Where a threshold tells the label exactly, it also does so for other examples.
    sure = multilabel.held_out_figures(targets, targets, names, multilabel.decide(targets, targets))
    assert sure["macro_f1"] == 1


@pytest.mark.long
def test_photos_near_a_threshold_are_labelled_next(labels, tinted, tmp_path):
    done("next", labels, tinted, "--count", 8, "--to", tmp_path / "next.csv")
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text("utf-8-sig").splitlines()))
    assert {(row["warm"], row["dark"]) for row in rows} == {("", "")}
    wavering = [row for row in rows if row["why"].startswith("with or without")]
    margins = [float(row["margin"]) for row in wavering]
    assert margins and margins == sorted(margins)
    for row in wavering:
        assert float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1, abs=1e-5)
    # Filled in, it is a table of photos.
    for i, row in enumerate(rows):
        row.update(warm="01"[i % 2], dark="01"[i % 2])
    with (tmp_path / "next.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    told = data.load(tmp_path / "next.csv", task="multilabel", labels=["warm", "dark"])
    assert told.classes == ("warm", "dark")


@pytest.mark.long
def test_the_title_of_a_report_names_the_columns(both):
    title = re.search("<h1>(.*)</h1>", (both / "report.html").read_text())[1]
    assert title == "Answering dark and red"


def test_the_classifiers_of_each_column_stand_under_its_name():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    targets = np.stack([np.arange(60) % 2, x[:, 0]], 1).astype(np.float32)
    task = tasks.find("columns:classify*2,regress*1")
    said = heads.choose(x, targets, 3, tap_widths=(6,), task=task).said(("dark", "red"))
    assert [line for line in said if line.startswith("column")] == ["column dark", "column red"]
    assert "accuracy" in said[1] and "R2" in said[said.index("column red") + 1]


@pytest.mark.long
def test_of_columns_the_one_that_wavers_most_is_named(both, tinted):
    picks = explore.pick_next(both, [tinted], count=4)
    reasons = {"between two classes of dark", "unlike every class", next_labels.SURE}
    assert {one.why for one in picks} <= reasons
    assert {one.predicted for one in picks} <= {"no", "yes"}


@pytest.mark.long
def test_features_of_a_table_without_a_column_label(tinted, tiny_savedmodel, tmp_path):
    done(
        "features",
        tinted / "photos.csv",
        "--backbone",
        tiny_savedmodel,
        "--label",
        "red",
        "--task",
        "regress",
        "--to",
        tmp_path / "v.npz",
    )
    arrays = np.load(tmp_path / "v.npz")
    assert arrays["vectors"].shape == (COUNT, 16)
    assert len(set(arrays["labels"].tolist())) > COUNT // 2


def test_the_columns_are_found_by_what_they_hold(tinted):
    examples = data.load(tinted / "photos.csv", task="regress")
    assert set(examples.classes) == {"red", "light", "warm"}  # 0 and 1 are numbers, too
    assert data.load(tinted / "photos.csv", task="multilabel").classes == ("warm", "dark")


def test_a_column_of_several_labels_says_the_same_as_a_column_each(tinted):
    one = data.load(tinted / "photos.csv", task="multilabel", labels=["tags"])
    several = data.load(tinted / "photos.csv", task="multilabel", labels=["dark", "warm"])
    assert one.classes == several.classes == ("dark", "warm")
    np.testing.assert_array_equal(one.labels, several.labels)
    assert one.labels.sum() > 0 and (one.labels.sum(1) == 0).any()


def test_a_label_column_of_any_name_can_be_the_class(tinted, tmp_path):
    examples = data.load(tinted / "photos.csv", labels=["dark"])
    assert examples.classes == ("no", "yes")


def table(folder: Path, header: str, *rows: str) -> Path:
    """A table of three photos."""
    for name in "abc":
        Image.new("RGB", (8, 8), (2 * ord(name), 0, 0)).save(folder / f"{name}.png")
    lines = [f"{name}.png,{row}" for name, row in zip("abc", rows, strict=True)]
    (folder / "table.csv").write_text("\n".join([f"path,{header}", *lines]) + "\n")
    return folder / "table.csv"


@pytest.mark.parametrize(
    ("task", "header", "rows", "named"),
    [
        ("regress", "label", ("1.5", "cat", "2"), "cat"),
        ("regress", "label", ("1,5", "2", "3"), "1"),
        ("regress", "label", ("2", "2", "2"), "2"),
        ("regress", "label,split", ("7,train", "7,train", "9,test"), "7"),
        ("regress", "label", ("", "", ""), "label"),
        ("regress", "label", ("nan", "inf", "1"), "inf"),
        ("regress", "species", ("cat", "dog", "cat"), "species"),
        ("multilabel", "red,round,split", ("1,0,train", "0,0,train", "1,0,train"), "round"),
        ("multilabel", "red,round,split", ("1,1,train", "0,1,train", "1,1,train"), "round"),
        ("multilabel", "red,round", (",", ",", ","), "red"),
        ("multilabel", "label", ("", "", ""), "label"),
        ("classify", "colour,kind", ("a,b", "a,c", "d,c"), "kind"),
    ],
)
def test_labels_that_can_not_be_learnt_are_named(tmp_path, task, header, rows, named):
    rows = tuple(f'"{row}"' if row == "1,5" else row for row in rows)
    with pytest.raises(DataError, match=named):
        data.load(table(tmp_path, header, *rows), task=task)


def many(folder: Path, header: str, rows: Sequence[str]) -> Path:
    """A table of photos, one for each row."""
    lines = [f"path,{header}"]
    for i, row in enumerate(rows):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{row}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.mark.parametrize(
    "cells",
    [
        ("\"['cat', 'dog']\"", "['cat']", "[]"),
        ('"[\'cat\',""dog""]"', '"[""cat""]"', "[ ]"),
        ('"[""cat"", ""dog""]"', "cat", "none"),
        ('"[""c\\u0061t"",""dog""]"', "['cat']", "[]"),
        ("cat;dog", "['cat']", "-"),
    ],
)
def test_lists_of_labels_are_read_as_programs_write_them(cells, tmp_path):
    examples = data.load(many(tmp_path, "label", cells * 8), task="multilabel")
    assert examples.classes == ("cat", "dog")
    np.testing.assert_array_equal(examples.labels, [[1, 1], [1, 0], [0, 0]] * 8)


@pytest.mark.parametrize(
    "cell",
    [
        '"[1, 2]"',
        "['cat' 'dog']",
        "\"('cat', 'dog')\"",
        r'"[""C:\Users""]"',
        r'"[""cat\x""]"',
        r'"[""cat]\u12""]"',
    ],
)
def test_lists_that_can_not_be_read_are_named_with_their_line(cell, tmp_path):
    path = many(tmp_path, "label", ["cat", "dog", "cat;dog", cell] * 6)
    with pytest.raises(DataError, match="line 5"):
        data.load(path, task="multilabel")


def test_a_list_with_a_line_break_in_a_label_is_named_with_its_line(tmp_path):
    path = many(tmp_path, "label", ["cat", "dog", "cat;dog"] * 6 + ["\"['cat\nfish']\""])
    with pytest.raises(DataError, match="line 21"):
        data.load(path, task="multilabel")


def test_a_broken_list_does_not_hide_that_a_photo_has_several_rows(tmp_path):
    path = many(tmp_path, "label", ["cat", "dog", r'"[""C:\Users""]"'] * 6)
    path.write_text(path.read_text() + "0.png,dog\n")
    with pytest.raises(DataError, match="line 4"):
        data.load(path, task="multilabel")


def test_names_of_several_words_may_stand_in_brackets(tmp_path):
    path = many(tmp_path, "label", ["[Not Rated]", "[spoken word];jazz", "jazz"] * 8)
    examples = data.load(path, task="multilabel")
    assert examples.classes == ("[Not Rated]", "[spoken word]", "jazz")


def test_many_blanks_in_a_list_take_no_time():
    text = "['a'" + " " * 100_000 + "{}]"
    begin = time.perf_counter()
    assert not written_lists.is_list(text.format("x"))
    assert written_lists.read_list(text.format(",")) == ["a"]
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        (("haze primary", "haze", "primary"), "haze primary"),
        (("cat|dog", "cat;bird", "dog"), "cat;bird"),
        (("cat/dog", "cat", "dog"), "cat/dog"),
        (("cat+dog", "dog", "cat"), "cat+dog"),
        (("cat;Dog", "Cat", "dog"), "'Dog' and 'dog'"),
        (("cat;nan", "dog", "cat"), "nan"),
        (("cat", "yes", "dog"), "yes"),
    ],
)
def test_odd_names_of_labels_are_noted(cells, named, tmp_path):
    notes = data.load(many(tmp_path, "label", cells * 8), task="multilabel").notes
    assert any(named in note and "label" in note for note in notes)


@pytest.mark.parametrize(
    "cells",
    [
        ("polar bear", "brown bear", "polar bear;brown bear"),
        ("red car;blue car", "red bike", "red car"),
        ("AC/DC;rock", "rock", "pop"),
        ("Sci-Fi & Fantasy", "Fantasy", "War & Politics", "War"),
        ("pl/sql", "sql", "c++"),
        ("red car", "red bus", "blue car", "blue bus"),
        ("0;1", "1;2", "2"),
    ],
)
def test_usual_names_of_labels_need_no_note(cells, tmp_path):
    assert data.load(many(tmp_path, "label", cells * 8), task="multilabel").notes == ()


@pytest.mark.parametrize(
    ("cells", "odd"),
    [
        (["yes", "no", "unknown"] * 8, "line 4, has 'unknown'"),
        (["0", "1"] * 11 + ["2"], "line 24, has '2'"),
        (["1 0", "0 1", "1 1"] * 8, "line 2, has '1 0'"),
        (["1;0;1", "0;0;1"] * 8, "line 2, has '1;0;1'"),
    ],
)
def test_a_column_that_says_more_than_yes_and_no_is_no_list_of_labels(cells, odd, tmp_path):
    with pytest.raises(DataError, match=odd):
        data.load(many(tmp_path, "label", cells), task="multilabel")


def test_the_number_of_a_grade_is_no_answer(tmp_path):
    cells = ["no"] * 60 + ["grade 1"] * 20 + ["grade 2"] * 20
    examples = data.load(many(tmp_path, "label", cells), task="multilabel")
    assert examples.classes == ("grade 1", "grade 2", "no")


def test_true_and_false_may_be_one_letter_in_columns_that_are_named(tmp_path):
    path = many(tmp_path, "wet,red", ["t,1", "F,0", "T,1"] * 8)
    for labels in (["wet"], ["wet", "red"]):
        examples = data.load(path, task="multilabel", labels=labels)
        assert set(examples.classes) == set(labels)
        wet = examples.labels[:3, examples.classes.index("wet")]
        assert wet.tolist() == [1, 0, 1]
    assert data.load(path, task="multilabel").classes == ("red",)


def test_a_list_says_no_of_each_label_that_it_does_not_name():
    names = ["bird", "cat", "dog"]
    targets = multilabel.encode_known(["dog", "none", "['cat']", ""], None, names)
    np.testing.assert_array_equal(targets[:3], [[0, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert np.isnan(targets[3]).all()
    column = [join_cells(["1"]), join_cells(["0"])]
    given = multilabel.encode_known(column, ["dog"], names)
    np.testing.assert_array_equal(given, [[np.nan, np.nan, 1], [np.nan, np.nan, 0]])


def test_rows_of_one_photo_are_joined(tmp_path):
    path = many(tmp_path, "label,group", [f"{'ab'[i % 2]},{i}" for i in range(20)])
    text = path.read_text()
    path.write_text(text + "".join(f"./{i}.png,wet,{i}\n" for i in range(0, 20, 3)))
    examples = data.load(path, task="multilabel")
    assert examples.classes == ("a", "b", "wet") and len(examples) == 20
    assert examples.labels[:2].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert any("7 rows" in note and "22" in note for note in examples.notes)
    path.write_text(text + "0.png,wet,other\n")
    with pytest.raises(DataError, match="lines 2 and 22"):
        data.load(path, task="multilabel")


def test_rows_that_are_joined_may_say_their_part_and_group_in_several_ways(tmp_path):
    rows = [f"{'ab'[i % 2]},{('train', 'val', 'test')[i // 2 % 3]}," for i in range(24)]
    path = many(tmp_path, "label,split,group", rows)
    path.write_text(path.read_text() + "0.png,wet,Train,nan\n2.png,wet,validation,\n")
    examples = data.load(path, task="multilabel")
    assert len(examples) == 24 and examples.classes == ("a", "b", "wet")
    assert list(examples.splits[:3]) == ["train", "train", "validation"]


def test_only_rows_that_are_joined_must_say_the_same(tmp_path):
    path = many(tmp_path, "label,group", [f"{'ab'[i % 2]},{i}" for i in range(20)])
    path.write_text(path.read_text() + "0.png,wet,0\n1.png,b,other\n")
    examples = data.load(path, task="multilabel")
    assert list(examples.files).count("0.png") == 1 and "wet" in examples.classes


def test_a_word_among_numbers_is_named_with_line_and_column(tmp_path):
    path = many(tmp_path, "id,weight", [*(f"{i},{i / 7}" for i in range(29)), "29,3 kg"])
    with pytest.raises(DataError, match="3 kg") as error:
        data.load(path, task="regress", labels=["weight"])
    assert "line 31" in str(error.value) and "weight" in str(error.value)
    assert data.load(path, task="regress", labels=["id"]).classes == ("id",)
    path = many(tmp_path, "weight", [*(f"{i / 7}" for i in range(29)), "3 kg"])
    with pytest.raises(DataError, match="3 kg"):
        data.load(path, task="regress")


@pytest.mark.parametrize(
    ("task", "header", "row", "odd"),
    [
        ("regress", "price,house_no", "{0}.5,{0}", "7.5,12a"),
        ("multilabel", "red,round,count", "{1},{2},{1}", "1,0,2"),
    ],
)
def test_an_odd_cell_of_a_column_beside_the_labels_is_noted(task, header, row, odd, tmp_path):
    rows = [row.format(i, i % 2, i // 2 % 2) for i in range(24)]
    examples = data.load(many(tmp_path, header, [*rows, odd]), task=task)
    *labels, other = header.split(",")
    assert set(examples.classes) == set(labels)
    assert any(other in note and "line 26" in note for note in examples.notes)


def test_many_odd_cells_take_no_time():
    cells = ["1.5", "2.5"] * 50_000 + ["beta"] * 10_000
    begin = time.perf_counter()
    assert "beta" in odd_cells.notes_on_classes("version", cells, range(len(cells)))[0]
    assert time.perf_counter() - begin < 5


def test_a_column_of_numbers_with_one_word_is_no_column_of_classes(tmp_path):
    cells = [f"{'ab'[i % 2]},{i / 7}" for i in range(29)]
    path = many(tmp_path, "kind,weight", [*cells, "a,-"])
    with pytest.raises(DataError, match="weight.*'-' .*line 31"):
        data.load(path, labels=["kind", "weight"])
    versions = [f"{'ab'[i % 2]},{i % 3}.5" for i in range(29)]
    examples = data.load(
        many(tmp_path, "kind,version", [*versions, "a,beta"]), labels=["kind", "version"]
    )
    assert examples.task_name == "columns:classify*2,classify*4"
    assert any("version" in note and "beta" in note for note in examples.notes)


@pytest.mark.parametrize("number", ["1e39", "-1e300"])
def test_a_number_that_is_too_large_is_named_with_its_place(number, tmp_path):
    path = many(
        tmp_path, "size,kind", [*(f"{i / 7},{'ab'[i % 2]}" for i in range(20)), f"{number},a"]
    )
    with pytest.raises(DataError, match=f"line 22, has the number {number}"):
        data.load(path, task="regress", labels=["size"])
    with pytest.raises(DataError, match=f"line 22, has the number {number}"):
        data.load(path, labels=["size", "kind"])
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="07"):
        data.from_arrays(images, np.where(np.arange(20) == 7, 1e39, np.arange(20)), task="regress")


def test_numbers_that_become_the_same_are_noted(tmp_path):
    times = [f"{1_700_000_000 + 20 * i},{'ab'[i % 2]}" for i in range(24)]
    path = many(tmp_path, "time,kind", times)
    for options in ({"task": "regress", "labels": ["time"]}, {"labels": ["time", "kind"]}):
        notes = data.load(path, **options).notes
        assert any("1700000000 and 1700000020" in note and "time" in note for note in notes)
    path = many(tmp_path, "size", [f"{i / 7:.17f}" for i in range(20)] + ["0.1", "0.1000000000001"])
    assert not any("same" in note for note in data.load(path, task="regress").notes)


@pytest.mark.parametrize(
    ("cell", "meant"),
    [("1,234", ("1234", "1.234")), ("1,234.5", ("1234.5",)), ("1,5", ("point",))],
)
def test_what_a_number_with_a_comma_may_mean_is_said(cell, meant, tmp_path):
    path = many(tmp_path, "size", [*map(str, range(20)), f'"{cell}"'])
    with pytest.raises(DataError) as error:
        data.load(path, task="regress", labels=["size"])
    assert all(one in str(error.value) for one in meant)


@pytest.mark.parametrize(
    ("column", "kinds"),
    [
        ("kind", ("Error: disk", "Error: timeout", "ok")),
        ("kind", ("E: x", "E: y", "E: z")),
        ("Q1: kind", ("E: x", "F: x: y", "ok")),
        ("Q1: kind", ("a", "b", "c")),
    ],
)
def test_names_of_columns_and_classes_may_have_colons(column, kinds, tmp_path):
    rows = [f"{kinds[i % 3]},{i / 7},{'no' if i % 2 else 'yes'}" for i in range(24)]
    path = many(tmp_path, f"{column},size,dark", rows)
    examples = data.load(path, labels=[column, "size", "dark"])
    task = tasks.find(examples.task_name)
    assert task.label_columns(examples.classes) == (column, "size", "dark")
    assert task.sizes == (3, 1, 2)
    target = examples.labels[0]
    assert task.said_of_target(target, examples.classes).startswith(f"{column} {kinds[0]};")
    texts = task.texts(examples.labels, examples.classes)
    given = task.encode_known(texts, examples.classes, examples.classes)
    np.testing.assert_array_equal(given, examples.labels)
    assert task.named(examples.classes) == examples.task_name


@pytest.mark.long
def test_a_run_whose_classes_have_colons_is_evaluated(tiny_savedmodel, tmp_path):
    rows = [f"{('E: dim', 'E: lit')[i > 59]},{i / 7}" for i in range(120)]
    path = many(tmp_path, "kind,size", rows)
    model = tfxfer.Transfer(tiny_savedmodel, label=("kind", "size"), value_range=RANGE)
    model.fit(path, mirror="no")
    assert set(model.evaluate(path)["columns"]) == {"kind", "size"}
    assert model.predict(tmp_path / "119.png")[0].values["kind"] in ("E: dim", "E: lit")


def test_labels_are_written_as_in_the_table(tmp_path):
    path = table(tmp_path, "Red,Very round", "1,0", "0,1", "1,1")
    examples = data.load(path, task="multilabel")
    assert examples.classes == ("Red", "Very round")
    assert any("--label" in note for note in examples.notes)


def test_a_label_that_only_a_test_photo_has_is_noted(tmp_path):
    path = table(tmp_path, "label,split", "red,train", "round,train", "blue;red,test")
    examples = data.load(path, task="multilabel")
    assert examples.classes == ("blue", "red", "round")
    assert any("'blue'" in note for note in examples.notes)


def test_a_word_among_yes_and_no_is_named(tmp_path):
    with pytest.raises(DataError, match="perhaps"):
        data.load(
            table(tmp_path, "red,round", "1,0", "0,perhaps", "1,1"),
            task="multilabel",
            labels=["red", "round"],
        )


@pytest.mark.long
@pytest.mark.parametrize("labels", [["colour"], ["path"]])
def test_a_column_that_is_not_there_is_named(tinted, labels):
    with pytest.raises(DataError, match=labels[0]):
        data.load(tinted / "photos.csv", labels=labels)


def test_a_column_is_only_for_tables(photos):
    with pytest.raises(DataError, match="colour"):
        data.load(photos, labels=["colour"])


def test_rows_without_any_label_are_left_out(tmp_path):
    path = table(tmp_path, "red,round,split", "1,0,train", ",,train", "0,1,train")
    examples = data.load(path, task="multilabel")
    assert examples.files == ("a.png", "c.png")
    assert any("1 row " in note for note in examples.notes)


def test_an_empty_cell_is_not_no(tmp_path):
    path = table(tmp_path, "red,round,split", "1,0,train", "0,,train", ",1,train")
    examples = data.load(path, task="multilabel")
    np.testing.assert_array_equal(examples.labels, [[1, 0], [0, np.nan], [np.nan, 1]])


@pytest.mark.long
def test_arrays_with_unknown_labels(tiny_savedmodel):
    rng = np.random.default_rng(0)
    images = rng.random((80, 40, 40, 3)) * rng.uniform(0.2, 1, (80, 1, 1, 1))
    light = images.mean((1, 2, 3))
    targets = np.column_stack([light > np.median(light), light > 0.2]).astype(float)
    targets[:5, 1] = np.nan
    model = tfxfer.Transfer(tiny_savedmodel, task="multilabel", value_range=RANGE).fit(
        images, targets, classes=["light", "not dark"], mirror="no"
    )
    assert model.evaluate(images, targets)["F1"] > 0.7
    answer = model.predict(images[:3])[0]
    assert set(answer.values) == {"labels", "light", "not dark"}
    measured = tfxfer.Transfer(tiny_savedmodel, task="regress", value_range=RANGE).fit(
        images, light, mirror="no"
    )
    assert measured.evaluate(images, light)["R2"] > 0.5


@pytest.mark.long
def test_datasets_of_numbers(tiny_savedmodel):
    rng = np.random.default_rng(0)
    images = (rng.random((60, 40, 40, 3)) * rng.uniform(0.2, 1, (60, 1, 1, 1))).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, images.mean((1, 2, 3)))).batch(16)
    model = tfxfer.Transfer(tiny_savedmodel, task="regress", value_range=RANGE).fit(dataset)
    assert model.evaluate(dataset)["R2"] > 0.5


@pytest.mark.long
def test_labels_that_the_model_does_not_know_are_named(labels, tmp_path):
    path = table(tmp_path, "flat,round", "1,0", "0,1", "1,1")
    with pytest.raises(DataError, match="round"):
        tfxfer.load(labels).evaluate(path)


@pytest.mark.long
def test_labels_that_the_data_lacks_count_for_nothing(labels, tmp_path):
    path = table(tmp_path, "warm,other", "1,a", "0,b", "1,c")
    figures = tfxfer.load(labels).evaluate(path)
    assert figures["classes"]["warm"]["n"] == 2 and figures["classes"]["dark"]["n"] == 0


@pytest.mark.long
def test_a_changed_threshold_file_is_refused(labels, tmp_path):
    run = tfxfer.load(labels).run.copy_to(tmp_path / "copy")
    (run.folder / "decision.json").write_text('{"thresholds": [0.5]}')
    with pytest.raises(RunError, match=r"decision\.json"):
        run.decision()


# --- figures, against scikit-learn ---


def drawn(count: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(count, outputs))
    return (rng.random((count, outputs)) < 1 / (1 + np.exp(-logits))).astype(np.float32), logits


def test_figures_of_labels_are_those_of_scikit_learn():
    targets, logits = drawn(200, 3)
    p = multilabel.predictions(logits)
    figures = multilabel.figures(targets, p, ["a", "b", "c"], {"thresholds": [0.4, 0.5, 0.6]})
    said = p >= [0.4, 0.5, 0.6]
    assert figures["mAP"] == pytest.approx(average_precision_score(targets, p, average="macro"))
    assert figures["micro_f1"] == pytest.approx(f1_score(targets, said, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(targets, said, average="macro"))
    samples = f1_score(targets, p > 0.5, average="samples", zero_division=1)
    assert figures["F1"] == pytest.approx(samples)


def test_figures_of_numbers_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(100, 2)) * [1, 50]
    said = truth + rng.normal(size=(100, 2)) * [0.5, 10]
    figures = regress.figures(truth, said, ["a", "b"], {})
    assert figures["R2"] == pytest.approx(r2_score(truth, said))
    for k, name in enumerate("ab"):
        error = median_absolute_error(truth[:, k], said[:, k])
        assert figures["numbers"][name]["median_absolute_error"] == pytest.approx(error)


def test_unknown_cells_change_no_figure():
    targets, logits = drawn(100, 2)
    more = np.concatenate([targets, np.full((20, 2), np.nan, np.float32)])
    wrong = np.concatenate([logits, np.full((20, 2), 9.0)])
    names, limits = ["a", "b"], {"thresholds": [0.5, 0.5]}
    few = multilabel.figures(targets, multilabel.predictions(logits), names, limits)
    many = multilabel.figures(more, multilabel.predictions(wrong), names, limits)
    assert many["mAP"] == few["mAP"] and many["classes"] == few["classes"]


def test_a_threshold_has_the_best_f1_of_all():
    targets, logits = drawn(300, 1)
    p = multilabel.predictions(logits)[:, 0]
    threshold = multilabel.best_threshold(targets[:, 0], p)
    best = max(f1_score(targets[:, 0], p >= one) for one in p)
    assert f1_score(targets[:, 0], p >= threshold) == pytest.approx(best)
    assert multilabel.best_threshold(np.array([1.0, 0.0]), np.array([0.1, 0.2])) == 0.5


def test_intervals_hold_the_share_that_they_promise():
    rng = np.random.default_rng(0)
    half = regress.half_width(np.abs(rng.standard_normal(2000)))
    inside = np.mean(np.abs(rng.standard_normal(20_000)) <= half)
    assert inside == pytest.approx(regress.COVERAGE, abs=4 * np.sqrt(0.09 / 2000))
    assert regress.half_width(np.ones(5)) is None


def test_calibration_gives_the_probabilities_that_made_the_labels():
    targets, logits = drawn(20_000, 1)
    skewed = 3 * logits - 2
    divided = skewed / multilabel.temperature(skewed, targets)
    np.testing.assert_allclose(divided + multilabel.offset(divided, targets), logits, atol=0.15)


# --- heads ---


def test_each_output_is_fitted_on_the_examples_that_have_it():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 12)).astype(np.float32)
    y = (x @ rng.standard_normal((12, 2))).astype(np.float64)
    gaps = y.copy()
    gaps[:30, 1] = np.nan
    for head in ("ridge", "huber", "linear"):
        codes = (gaps > 0).astype(float) + 0 * gaps if head == "linear" else gaps
        both = fit_several(head, x, codes, (12,))
        alone = fit_several(head, x, codes[:, 1:], (12,), rows=np.arange(30, 90))
        np.testing.assert_allclose(both.logits(x)[:, 1:], alone.logits(x), rtol=1e-3, atol=1e-3)
    assert [known.tolist() for _, known in known_together(gaps)] == [
        list(range(30, 90)),
        list(range(90)),
    ] or len(list(known_together(gaps))) == 2


def test_ridge_leaves_each_example_out_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6))
    y = x @ rng.standard_normal((6, 1)) + rng.standard_normal((40, 1))
    outputs, strengths = held_out_outputs("ridge", x @ x.T, y, np.arange(40) % 5, grouped=False)
    rest = np.arange(1, 40)
    alpha, bias, _, _ = heads.closed.ridge_dual(x[rest] @ x[rest].T, y[rest], strengths[0])
    np.testing.assert_allclose(outputs[0], x[0] @ x[rest].T @ alpha + bias, rtol=1e-6)


def test_huber_is_not_drawn_away_by_a_few_wrong_numbers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    truth = x @ rng.standard_normal((8, 1))
    wrong = truth.copy()
    wrong[::10] += 30
    errors = {
        head: np.median(np.abs(fit_several(head, x, wrong, (8,)).logits(x) - truth))
        for head in ("ridge", "huber")
    }
    assert errors["huber"] < errors["ridge"] / 5


def test_the_keras_layer_of_a_head_gives_the_same_numbers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 10)).astype(np.float32)
    y = (100 * x @ rng.standard_normal((10, 2)) + 5).astype(np.float32)
    choice = heads.choose(x, y, 2, tap_widths=(10,), task=tasks.find("regress"))
    layer = choice.fitted.layer()
    np.testing.assert_allclose(layer(x), choice.fitted.logits(x), rtol=1e-4, atol=1e-2)
    kernel = layer.get_layer("logits").get_weights()[0]
    assert np.abs(kernel).max() < 10 < np.abs(choice.fitted.kernel).max()


def test_groups_of_similar_numbers_are_of_one_size():
    groups = regress.strata(np.arange(100.0)[:, None])
    assert np.bincount(groups).tolist() == [10] * 10


def test_no_group_of_labels_has_one_example_alone():
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 8)) < 0.2).astype(np.float32)
    assert np.bincount(multilabel.strata(targets))[np.unique(multilabel.strata(targets))].min() > 1


def test_labels_are_split_evenly():
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 2)) < [0.5, 0.1]).astype(np.float32)
    images = rng.integers(0, 255, (300, 4, 4, 3)).astype(np.uint8)
    examples = data.from_arrays(images, targets, task="multilabel")
    for part in ("train", "test"):
        own = examples.labels[examples.where(part)]
        np.testing.assert_allclose(own.mean(0), targets.mean(0), atol=0.06)


def test_a_text_of_cells_is_read_in_its_order():
    targets, names = multilabel.encode([join_cells(["1", ""]), join_cells(["no", "x"])], ["a", "b"])
    np.testing.assert_array_equal(targets, [[1, np.nan], [0, 1]])
    assert names == ("a", "b") and isinstance(Found.task, str)


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory) -> str:
    """A network of which `full` trains all stages at once, and `partial` the last one."""
    network = tiny_network(widths=(8, 8), dropout=0.3)
    return save_reusable(network, tmp_path_factory.mktemp("network") / "two")


@pytest.mark.long
def test_a_network_can_be_tuned_for_columns(tinted, two_stages):
    model = tfxfer.Transfer(two_stages, label=("dark", "red"), value_range=RANGE)
    model.fit(tinted / "photos.csv", recipe="full", epochs=3)
    assert model.run.metrics()["candidates"]["tuned"]["mean score"] > 0.3
    assert model.model.output_shape == (None, 3)
    assert set(model.predict(tinted / "100.png")[0].values) >= {"dark", "red"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "score", "recipe"), [("regress", "R2", "full"), ("multilabel", "F1", "partial")]
)
def test_a_network_can_be_tuned_for_them(tinted, tiny_savedmodel, two_stages, recipe, task, score):
    labels = ("red", "light") if task == "regress" else ("warm", "dark")
    network = tiny_savedmodel if recipe == "full" else two_stages
    model = tfxfer.Transfer(network, task=task, label=labels, value_range=RANGE)
    model.fit(tinted / "photos.csv", recipe=recipe, epochs=3, augment="flip")
    candidates = model.run.metrics()["candidates"]
    assert candidates["tuned"][score] > 0.3
    assert model.run.metrics()["test"][score] > 0.4
    served = model.model.output_shape
    assert served == (None, 2)


@pytest.mark.long
def test_tests_before_a_training_for_numbers_tell_differences_of_r2(
    tinted, tiny_savedmodel, tmp_path, said
):
    network = Backbone(tiny_savedmodel, trainable=False, value_range=RANGE)
    extractor = Extractor(Cache(tmp_path / "cache"))
    examples = data.load(tinted / "photos.csv", task="regress", labels=["red"])
    features = extractor(examples, network.prefix(2), progress=False)
    tuning.harmless(features, examples.where("train"), network.prefix(2), extractor)
    prefix, rest = network.cut(1)
    rows = extractor(examples, prefix, dtype="float16")
    activations.precision_of(rows, features.output, rest, seed=0)
    told = [line for line in said if " R2 " in line]
    assert len(told) == 3  # flip, crop and float16
    assert all(re.search(r" by [+-]\d+\.\d{3} ± \d+\.\d{3}( on |: )", line) for line in told)


@pytest.mark.long
def test_a_head_can_be_trained_for_columns(tinted, tiny_savedmodel, monkeypatch):
    monkeypatch.setattr(train, "RATE", 0.03)  # so that few epochs are enough
    model = tfxfer.Transfer(tiny_savedmodel, head="mlp", label=("dark", "red"), value_range=RANGE)
    model.fit(tinted / "photos.csv", epochs=40)
    assert model.run.metrics()["test"]["mean score"] > 0.4


@pytest.mark.long
@pytest.mark.parametrize(("task", "score"), [("regress", "R2"), ("multilabel", "F1")])
def test_a_head_can_be_trained_for_them(tinted, tiny_savedmodel, task, score, monkeypatch):
    monkeypatch.setattr(train, "RATE", 0.01)  # so that few epochs are enough
    labels = ("red", "light") if task == "regress" else ("warm", "dark")
    model = tfxfer.Transfer(tiny_savedmodel, head="mlp", task=task, label=labels, value_range=RANGE)
    model.fit(tinted / "photos.csv", epochs=60)
    assert model.run.metrics()["test"][score] > 0.4


@pytest.mark.long
def test_litert_files_give_them(numbers, labels, tinted, tmp_path):
    for run in (numbers, labels):
        folder = tmp_path / run.name
        done("export", run, folder, "--format", "litert", "--max-accuracy-drop", 1)
        assert {path.name for path in (folder / "1").glob("*.tflite")} >= {"model.float32.tflite"}
