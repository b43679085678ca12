"""What a person should look at: label errors, duplicates, odd pictures, a map, and what an answer hangs on."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tfxfer.data import from_arrays, load
from tfxfer.review.chart import plane
from tfxfer.review.duplicates import nearest
from tfxfer.review.labels import suspects
from tfxfer.review.occlusion import occlusion
from tfxfer.review.odd import odd


def test_a_wrong_label_is_suspected_and_the_right_one_is_suggested():
    probabilities = np.full((30, 3), 0.05)
    truth = np.arange(30) % 3
    probabilities[np.arange(30), truth] = 0.9
    labels = truth.copy()
    labels[[4, 7]] = [0, 2]
    probabilities[7] = [0.0, 1.0, 0.0]
    assert suspects(labels, probabilities) == [(7, 1), (4, 1)]


def test_the_thresholds_are_mean_confidences_of_each_class():
    # Class 0 is said with 0.6 on average, class 1 with 0.8: 0.65 for class 1 is not confident, 0.65 for class 0 is.
    probabilities = np.array(
        [[0.6, 0.4], [0.6, 0.4], [0.2, 0.8], [0.2, 0.8], [0.35, 0.65], [0.65, 0.35]]
    )
    labels = np.array([0, 0, 1, 1, 0, 1])
    own = probabilities[np.arange(6), labels]
    threshold = [own[labels == k].mean() for k in (0, 1)]
    assert threshold[0] < 0.65 and threshold[1] < 0.66
    expected = [
        i
        for i in range(6)
        if any(probabilities[i, k] >= threshold[k] for k in (0, 1))
        and probabilities[i].argmax() != labels[i]
    ]
    assert [i for i, _ in suspects(labels, probabilities)] == sorted(expected, key=lambda i: own[i])


def test_a_class_without_examples_is_never_suggested():
    assert suspects(np.array([0, 1]), np.array([[0.4, 0.1, 0.5], [0.1, 0.4, 0.5]])) == []


def test_the_pair_that_is_the_same_picture_comes_first():
    x = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32)
    x[2500] = 3 * x[17]
    pairs = nearest(x, np.arange(2000, 3000), np.arange(2000), 5)
    assert pairs[0][:2] == (2500, 17) and pairs[0][2] == pytest.approx(1.0, abs=1e-5)
    assert (
        len(pairs) == 5
        and len({j for _, j, _ in pairs}) == 5
        and [s for *_, s in pairs] == sorted((s for *_, s in pairs), reverse=True)
    )
    assert nearest(x, np.arange(0), np.arange(5), 5) == []


def test_no_training_image_weighs_more_than_another():
    x = np.random.default_rng(0).normal(size=(1125, 6)).astype(np.float32)
    train, judged = np.arange(1025), np.arange(1025, 1125)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    z = z - z[train].mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert nearest(x, judged, train, 1)[0][2] == pytest.approx(
        (z[judged] @ z[train].T).max(), abs=1e-5
    )


def test_dark_blank_and_small_pictures_are_named(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(8)]
    pictures[1] = np.full((64, 64, 3), 200, np.uint8)
    pictures[2] = np.zeros((64, 64, 3), np.uint8)
    pictures[5] = pictures[5][:9, :12]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    examples = load(tmp_path)
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(examples.read(i))).resize((8, 8)), np.float32).ravel()
            / 255
            for i in range(len(examples))
        ]
    )
    found = {examples.files[i]: why for i, why in odd(examples, pixels)}
    assert found == {
        "b/1.png": "blank",
        "a/2.png": "black",
        "b/5.png": "small: 9 pixels, where half of all have 64 or more",
    }


def test_a_plane_puts_like_next_to_like():
    x, labels = load_digits(return_X_y=True)
    positions = np.arange(300)
    shown, places = plane(x.astype(np.float32), positions, labels[positions], 0)
    assert places.min() == 0 and places.max() == 1
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    assert np.mean(labels[shown][distances.argmin(1)] == labels[shown]) > 0.8


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_examples_are_not_drawn(count):
    assert (
        len(plane(np.eye(12, dtype=np.float32), np.arange(count), np.zeros(count, int), 0)[0]) == 0
    )


def test_the_part_that_the_answer_hangs_on_is_found():
    pixels = np.random.default_rng(0).uniform(size=(70, 70, 3)).astype(np.float32)
    pixels[20:30, 40:50] = 3.0

    def answers(batch):
        seen = batch[:, 20:30, 40:50].mean((1, 2, 3)) / 3
        return np.stack([seen, 1 - seen], 1)

    heat = occlusion(answers, pixels, 0)
    assert heat.shape == (7, 7) and np.unravel_index(heat.argmax(), heat.shape) == (2, 4)
    assert heat[6, 0] == 0


def test_pictures_from_memory_are_looked_at_too():
    images = np.random.default_rng(0).integers(0, 9, (6, 8, 8, 3), np.uint8)
    examples = from_arrays(images, [0, 1] * 3, splits=["train"] * 4 + ["test"] * 2)
    assert {why for _, why in odd(examples, np.zeros((6, 12), np.float32))} == {"black"}
