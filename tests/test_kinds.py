"""A kind of example and a kind of answer that tfxfer has never seen, each in one file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_grade
import toy_row
from click.testing import CliRunner

import tfxfer
from tfxfer import inputs, tasks
from tfxfer.cli import main


@pytest.fixture
def rows(monkeypatch):
    """The toy kind, beside the built-in ones."""
    monkeypatch.setitem(inputs.KINDS, toy_row.NAME, toy_row)


@pytest.fixture
def grades(monkeypatch):
    """The toy task, beside the built-in ones."""
    monkeypatch.setitem(tasks.TASKS, toy_grade.NAME, toy_grade)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    """A SavedModel from rows of eight numbers to 16 features."""

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            rng = np.random.default_rng(0)
            self.kernels = [
                tf.Variable(rng.standard_normal(shape), dtype=tf.float32)
                for shape in ((toy_row.WIDTH, 16), (16, 16))
            ]

        @tf.function(
            input_signature=[tf.TensorSpec((None, toy_row.WIDTH)), tf.TensorSpec((), bool)]
        )
        def __call__(self, inputs, training=False):
            for kernel in self.kernels:
                inputs = tf.nn.relu(inputs @ kernel)
            return inputs

    folder = tmp_path_factory.mktemp("network") / "rows"
    tf.saved_model.save(Network(), str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Rows of three classes, whose first numbers differ."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 20)):
        for label in range(3):
            (folder / part / f"grade {label + 1}").mkdir(parents=True)
            for i in range(count):
                row = rng.standard_normal(toy_row.WIDTH)
                row[0] += 4 * label
                path = folder / part / f"grade {label + 1}" / f"{i}.json"
                path.write_text(json.dumps(row.round(3).tolist()))
    return folder


def invoke(*words) -> str:
    answer = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.long
def test_a_kind_of_example_is_one_file(rows, network, data, tmp_path):
    run = tmp_path / "run"
    invoke("run", "frozen", "--data", data, "--backbone", network, "--out", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["n"] == 60 and metrics["test"]["accuracy"] > 0.9
    assert metrics["baselines"]["raw_pixels"]["n"] == 60
    page = (run / "report.html").read_text()
    assert "grade 2" in page and "<img" not in page

    new = sorted((data / "test" / "grade 3").iterdir())[:5]
    lines = list(csv.DictReader(invoke("predict", run, *new).splitlines()))
    assert [line["file"] for line in lines] == list(map(str, new))
    assert [line["predicted"] for line in lines].count("grade 3") >= 4
    answers = json.loads(invoke("evaluate", run, data, "--format", "json"))
    assert answers["accuracy"] == pytest.approx(metrics["test"]["accuracy"])

    invoke("export", run, tmp_path / "served")
    signature = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    served = signature(inputs=tf.constant([path.read_bytes() for path in new]))
    assert [name.decode() for name in served["classes"][:, 0].numpy()] == [
        line["predicted"] for line in lines
    ]
    again = list(csv.DictReader(invoke("predict", tmp_path / "served", *new).splitlines()))
    assert [line["predicted"] for line in again] == [line["predicted"] for line in lines]


@pytest.mark.long
def test_a_kind_of_answer_is_one_file(rows, grades, network, data, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    words = ("--data", data, "--backbone", network, "--task", "grade")
    said = invoke("run", "frozen", *words, "--out", run)
    assert "closeness" in said and "accuracy" not in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["closeness"] > max(0.9, metrics["test"]["exact"])
    assert metrics["baselines"]["majority"]["closeness"] < 0.8
    for page in ("report.html", "MODEL_CARD.md"):
        assert "Exactly right" in (run / page).read_text() or "exact" in (run / page).read_text()
        assert "accuracy" not in (run / page).read_text()

    new = sorted((data / "test" / "grade 3").iterdir())[:5]
    lines = list(csv.DictReader(invoke("predict", run, *new).splitlines()))
    assert [line["predicted"] for line in lines].count("grade 3") >= 4
    answers = json.loads(invoke("evaluate", run, data, "--format", "json"))
    assert answers == pytest.approx(metrics["test"], abs=1e-6)
    assert "closeness" in invoke("evaluate", run, data)

    invoke("run", "frozen", *words, "--head", "ridge", "--out", other)
    header, *_ = invoke("compare", run, other).splitlines()
    assert "closeness" in header and "exact" in header
    invoke("export", run, tmp_path / "served", "--require-accuracy", "0.9")
    served = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    found = served(inputs=tf.constant([path.read_bytes() for path in new]))["classes"]
    assert [name.decode() for name in found[:, 0].numpy()] == [line["predicted"] for line in lines]


@pytest.mark.long
def test_a_network_of_another_kind_can_be_tuned(rows, network, data):
    model = tfxfer.Transfer(network).fit(data, recipe="full", epochs=2)
    assert model.run.metrics()["candidates"]["tuned"]["accuracy"] > 0.8
    assert model.evaluate(data)["accuracy"] > 0.9


@pytest.mark.long
def test_a_network_can_be_tuned_for_another_kind_of_answer(rows, grades, network, data):
    model = tfxfer.Transfer(network, task="grade").fit(data, recipe="partial", epochs=2)
    assert model.run.metrics()["candidates"]["tuned"]["closeness"] > 0.8
    assert model.evaluate(data)["closeness"] > 0.8


@pytest.mark.long
def test_a_head_can_be_trained_for_another_kind_of_answer(rows, grades, network, data):
    model = tfxfer.Transfer(network, head="mlp", task="grade").fit(data, epochs=40)
    assert model.evaluate(data)["closeness"] > 0.8
    header, *_ = model.run.path("history.csv").read_text().splitlines()
    assert header == "epoch,loss,closeness"


@pytest.mark.long
def test_a_file_that_is_no_example_of_its_kind_is_named(rows, network, data, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("[1, 2]")
    model = tfxfer.Transfer(network).fit(data)
    with pytest.raises(tfxfer.errors.ImageError, match="bad.json"):
        model.predict(bad)


def test_photos_are_refused_by_a_network_for_rows(rows, network, tmp_path):
    with pytest.raises(tfxfer.errors.DataError, match=toy_row.NAME):
        tfxfer.Transfer(network).fit("demo")
