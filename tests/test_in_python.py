"""A recipe called from Python does all that the command line does, and its files say so."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import crops

import tfxfer
from tfxfer.errors import RunError
from tfxfer.recipes.frozen import frozen
from tfxfer.run import open_run

pytestmark = pytest.mark.usefixtures("opened_once")

CLASSES = ("china", "flower")


@pytest.fixture(scope="module")
def examples() -> tfxfer.data.Examples:
    """60 photos from memory."""
    photos = [
        np.asarray(photo.resize((48, 48)))
        for name, seed in zip(CLASSES, (1, 2), strict=True)
        for photo in crops(f"{name}.jpg", 30, seed)
    ]
    return tfxfer.data.from_arrays(np.stack(photos), np.repeat([0, 1], 30), classes=CLASSES)


@pytest.fixture(scope="module")
def folder(examples, tiny_savedmodel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    frozen(tfxfer.Run(folder, seed=3), data=examples, backbone=tiny_savedmodel, head="linear")
    return folder


@pytest.mark.long
def test_the_run_predicts_and_is_exported(folder, photos, tmp_path):
    file = next((photos / "flower").iterdir())
    (row,) = tfxfer.serving.predict(folder, [file])
    assert row.predicted in CLASSES
    assert (tfxfer.serving.export(folder, tmp_path / "served") / "saved_model.pb").is_file()


@pytest.mark.long
def test_the_run_is_judged_on_its_own_test_part(folder, examples):
    figures = tfxfer.serving.evaluate(folder, examples)
    assert figures["n"] == len(examples.where("test"))
    assert figures["accuracy"] == open_run(folder).metrics()["test"]["accuracy"]


@pytest.mark.long
def test_photos_that_the_model_was_trained_on_are_said(folder, examples, said):
    train, test = (examples.take(examples.where(part)) for part in ("train", "test"))
    tfxfer.serving.evaluate(folder, train)
    assert f"trained on {len(train)} of these {len(train)} photos" in " ".join(said)
    said.clear()
    tfxfer.serving.evaluate(folder, test)
    assert "trained on" not in " ".join(said)


@pytest.mark.long
def test_the_settings_name_the_recipe_and_what_was_chosen(folder):
    settings = open_run(folder).settings()
    assert settings["recipe"]["value"] == "frozen"
    for name, origin in (("seed", "given"), ("head", "given"), ("mirror", "default")):
        assert settings[name]["origin"] == origin, name


@pytest.mark.long
@pytest.mark.parametrize("file", ["MODEL_CARD.md", "report.html"])
def test_card_and_page_say_how_it_was_made(folder, file):
    text = (folder / file).read_text()
    for expected in ("tfxfer.Run(", "seed=3", "60 photos of 2 classes", "from tfxfer.recipes"):
        assert expected in text, expected
    assert "tfxfer run " not in text and "Examples(" not in text
    assert "None" not in text.replace("None of", "")


@pytest.mark.long
@pytest.mark.parametrize("file", ["MODEL_CARD.md", "report.html"])
def test_card_and_page_use_no_words_of_the_code(folder, file):
    text = re.sub(r"<style>.*?</style>|<[^>]*>", "", (folder / file).read_text(), flags=re.DOTALL)
    words = ("taps?", "chosen_taps", "out.of.fold", "transfer pays", "majority", "ece")
    assert not re.findall(rf"\b(?:{'|'.join(words)})\b", text, re.IGNORECASE)


@pytest.mark.long
def test_the_call_in_the_card_is_python(folder):
    call = open_run(folder).settings()["call"]["value"]
    compile(call, "call", "exec")
    assert f"```python\n{call}\n```" in (folder / "MODEL_CARD.md").read_text()


@pytest.mark.long
def test_examples_of_a_folder_are_named_by_it(photos, tiny_savedmodel, tmp_path):
    frozen(
        tfxfer.Run(tmp_path / "run"),
        data=tfxfer.data.load(photos),
        backbone=tiny_savedmodel,
        head="gaussian",
    )
    assert open_run(tmp_path / "run").settings()["data"]["value"] == str(photos)
    assert tfxfer.serving.evaluate(tmp_path / "run", photos)["n"] < 60  # its test part alone


@pytest.mark.long
def test_the_same_seed_gives_the_same_head(examples, tiny_savedmodel, tmp_path):
    for name in ("one", "two"):
        frozen(
            tfxfer.Run(tmp_path / name, seed=1),
            data=examples,
            backbone=tiny_savedmodel,
            head="mlp",
            epochs=1,
        )
    one, two = (
        np.load(tmp_path / name / "probabilities.npz")["probabilities"] for name in ("one", "two")
    )
    assert np.array_equal(one, two)


def test_a_call_that_fails_at_once_leaves_no_folder(examples, tmp_path):
    with pytest.raises(tfxfer.TfxferError):
        frozen(tfxfer.Run(tmp_path / "run"), data=examples, backbone=str(tmp_path / "nothing"))
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_finished_run_is_not_made_again(folder, examples, capsys):
    before = open_run(folder).path("model.keras").stat().st_mtime_ns
    assert frozen(tfxfer.Run(folder, resume=True), data=examples) is None
    assert str(folder) in capsys.readouterr().out
    assert open_run(folder).path("model.keras").stat().st_mtime_ns == before


def test_a_run_of_another_recipe_is_not_resumed(examples, tmp_path):
    tfxfer.Run(tmp_path / "run", recipe="full").close()
    with pytest.raises(RunError, match="full.*frozen"):
        frozen(tfxfer.Run(tmp_path / "run", resume=True), data=examples)


def test_who_stopped_it_in_python_is_told_to_go_on_there(tmp_path):
    @tfxfer.recipe
    def mine(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine(tfxfer.Run(tmp_path / "run"))
    with pytest.raises(RunError, match="resume=True"):
        open_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):  # nothing else holds the folder
        mine(tfxfer.Run(tmp_path / "run", resume=True))
