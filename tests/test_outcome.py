"""What a run found: the Gaussian's own picture, and what mirror images are worth."""

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import from_arrays, load
from tfxfer.errors import ImageError, SavedModelError
from tfxfer.evaluate.baselines import Baselines
from tfxfer.features import Decoder, Features
from tfxfer.heads import gaussian as head
from tfxfer.heads.fitted import normalise_taps
from tfxfer.heads.layers import join
from tfxfer.heads.statistics import gather
from tfxfer.outcome import Answers, judge, of_model
from tfxfer.run import Run
from tfxfer.steps.extraction import new_notes
from tfxfer.steps.head import gaussian
from tfxfer.steps.tune_network import board
from tfxfer.tasks import CLASSIFY


@pytest.mark.parametrize("n", [12, 400])
def test_means_and_precision_give_the_logits_of_the_gaussian_head(n, tmp_path):
    rng = np.random.default_rng(0)
    x, labels, widths = rng.normal(size=(n, 60)).astype(np.float32), np.arange(n) % 4, (20, 30)
    gaussian(gather(x, labels, 4, widths))(str(tmp_path / "gaussian.npz"))
    with np.load(tmp_path / "gaussian.npz") as found:
        m, p = found["means"], found["P"]
        assert tuple(found["widths"]) == widths
    np.testing.assert_array_equal(p, p.T)
    logits = normalise_taps(x[:, -50:], widths) @ p @ m.T - np.einsum("cd,de,ce->c", m, p, m) / 2
    expected = head(x, labels, 4, widths=widths).logits(x)
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True),
        expected - expected.mean(1, keepdims=True),
        atol=2e-5 * np.abs(expected).max(),
    )


def test_the_only_example_of_a_class_says_nothing_of_the_model():
    probabilities = np.array([[0.0, 1.0], [0.2, 0.8], [0.9, 0.1]])
    assert CLASSIFY.can_judge(np.array([0, 0, 1]), probabilities).tolist() == [False, True, True]


def test_tensorboard_finds_every_epoch(tmp_path):
    show = board(Run(tmp_path / "run"))
    for epoch in range(1, 7):
        show(epoch, {"fold 1/loss": 1 / epoch})
    (path,) = (tmp_path / "run" / "logs").iterdir()
    found = [
        (event.step, value.tag)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert found == [(epoch, "fold 1/loss") for epoch in range(1, 7)]


def some_examples():
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), np.uint8)
    return from_arrays(images, [0, 1] * 3, splits=["train"] * 4 + ["test"] * 2)


def test_what_is_left_out_while_decoding_is_said_and_long_lists_are_cut():
    before = replace(some_examples(), notes=("said before",))
    files = "\n".join(f"  {i}.jpg: torn" for i in range(2777))
    after = replace(before, notes=(*before.notes, f"left out 2777 files:\n{files}", "short"))
    first, second = new_notes(before, after)
    assert first.startswith("left out 2777 files:\n  0.jpg: torn\n") and "2,758 more" in first
    assert len(first.splitlines()) == 21 and second == "short"
    assert new_notes(after, after) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_an_error_that_names_a_file(value):
    examples = some_examples()
    said = np.array([[0.5, 0.5], [value, 0.5]])
    answers = Answers(lambda positions: said, lambda positions: said, 2)
    with pytest.raises(SavedModelError, match=examples.files[5]):
        judge(examples, answers, np.zeros(0, int), probabilities=np.zeros((0, 2)))


def test_without_a_test_part_a_run_says_that_its_network_was_compared_with_nothing():
    examples = replace(some_examples(), splits=("train",) * 4 + ("validation",) * 2)
    said = np.array([[0.9, 0.1], [0.2, 0.8]])
    answers = Answers(lambda positions: said[: len(positions)], lambda positions: said, 2)
    outcome = judge(examples, answers, np.zeros(0, int), probabilities=np.zeros((0, 2)))
    summary = outcome.summary(Baselines({"majority": None}, {}))
    assert "validation photos" in summary and "no test part" in summary
    assert "no test part" in outcome.verdict(Baselines({}, {}))


def test_figures_are_aligned_however_long_the_names_are():
    examples = replace(some_examples(), splits=("train",) * 4 + ("test",) * 2)
    said = np.array([[0.9, 0.1], [0.2, 0.8]])
    answers = Answers(lambda positions: said[: len(positions)], lambda positions: said, 2)
    outcome = judge(examples, answers, np.zeros(0, int), probabilities=np.zeros((0, 2)))
    figures = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 2}
    name = "a simpler model whose name is longer than the column was before"
    lines = outcome.summary(Baselines({name: figures, "majority": figures}, {})).splitlines()
    assert len({line.index("  (") for line in lines if "n = 2)" in line}) == 1


@pytest.mark.long
def test_a_photo_that_vanishes_before_a_tuned_model_is_judged_is_named(
    photos, tiny_savedmodel, tmp_path
):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    examples = load(folder)
    backbone = Backbone(tiny_savedmodel, trainable=False)
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)])
    model = join(backbone, head, backbone.entry_shape)
    pixels = Decoder(examples, backbone.takes, 4)
    answers = of_model(
        pixels, model, Features(examples=examples, views=(), tap_widths=(), feature_size=16)
    )
    assert answers.probabilities(np.arange(3)).shape == (3, 2)
    (folder / examples.files[3]).unlink()
    with pytest.raises(ImageError, match=examples.files[3]):
        answers.probabilities(np.arange(4))


def test_what_a_run_says_is_clean(tmp_path, capsys):
    Run(tmp_path / "run").say("a\x1b[2J\u202eb", "c\n  d\te")
    assert capsys.readouterr().out == "a\\x1b[2J\\u202eb\nc\n  d\te\n"


def test_copies_of_an_image_count_once_in_the_figures():
    examples = some_examples()
    copied = replace(examples, digests=(examples.digests[0],) * len(examples))
    labels = len(set(examples.labels.tolist()))
    assert len(copied.distinct(np.arange(len(copied)))) == labels
    assert len(examples.distinct(np.arange(len(examples)))) == len(examples)
