"""Thresholds for doubt: prediction sets and "none of these".

They come from examples that no figure is reported on.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from tfxfer.data import from_arrays
from tfxfer.evaluate import doubt


def examples(splits):
    images = np.random.default_rng(0).integers(0, 255, (len(splits), 4, 4, 3), np.uint8)
    return from_arrays(images, np.arange(len(splits)) % 2, classes=("a", "b"), splits=splits)


def found(splits) -> doubt.Doubt:
    x = np.random.default_rng(1).normal(size=(len(splits), 6)).astype(np.float32)
    return doubt.doubt(
        examples(splits),
        lambda at: x[at],
        6,
        held_out=(np.zeros(30, int), np.tile([0.7, 0.3], (30, 1))),
        seed=0,
    )


@pytest.mark.parametrize(
    ("validation", "by", "count"),
    [
        (0, "folds of train", 40),
        (25, "validation and folds of train", 65),
        (200, "validation", 200),
    ],
)
def test_the_threshold_is_that_of_validation_and_of_folds_where_that_is_small(
    validation, by, count
):
    judged = found(["train"] * 40 + ["validation"] * validation)
    assert (judged.by, len(judged.known)) == (by, count)


def test_at_most_one_known_image_in_twenty_is_above_the_threshold():
    judged = found(["train"] * 100)
    assert np.sum(judged.known > judged.threshold) <= 0.05 * 100
    assert judged.fewest == 19
    assert (
        replace(judged, known=judged.known[:18]).threshold
        == math.inf
        > replace(judged, known=judged.known[:19]).threshold
    )


def test_figures_are_json_values_of_test():
    judged = found(["train"] * 100)
    figures = judged.figures(
        (np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])),
        np.array([-1e9, 1e9, -1e9]),
    )
    assert (
        figures["sets"]["probability"] == pytest.approx(0.7)
        and figures["sets"]["calibrated_on"] == 30
    )
    assert (figures["sets"]["test"]["accuracy"], figures["sets"]["test"]["mean_size"]) == (
        pytest.approx(2 / 3),
        1.0,
    )
    assert (figures["unknown"]["false_alarms"], figures["unknown"]["test"]["accuracy"]) == (
        0.05,
        pytest.approx(2 / 3),
    )


def test_what_is_saved_is_what_is_loaded(tmp_path):
    judged = found(["train"] * 40)
    judged.save(tmp_path / "doubt.npz")
    again, x = (
        doubt.load(tmp_path / "doubt.npz"),
        np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32),
    )
    assert (again.tail, again.by, again.threshold) == (6, "folds of train", judged.threshold)
    np.testing.assert_array_equal(again.unknown.scores(x), judged.unknown.scores(x))
    np.testing.assert_array_equal(again.strangest, judged.strangest)
