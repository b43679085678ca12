"""What a person should look at.

That is label errors, duplicates, odd pictures, a map, and the parts of an image that an answer
depends on.
"""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tfxfer.data import from_arrays, load
from tfxfer.inputs.image.occlusion import occlusion
from tfxfer.inputs.image.odd import find_odd, said_of_many
from tfxfer.report.review.chart import place_on_plane
from tfxfer.report.review.duplicates import find_nearest
from tfxfer.report.review.look import drawn_by_lot
from tfxfer.tasks.suspects import find_suspects


def test_a_wrong_label_is_suspected_and_the_right_one_is_suggested():
    probabilities = np.full((30, 3), 0.05)
    truth = np.arange(30) % 3
    probabilities[np.arange(30), truth] = 0.9
    labels = truth.copy()
    labels[[4, 7]] = [0, 2]
    probabilities[7] = [0.0, 1.0, 0.0]
    assert find_suspects(labels, probabilities) == [(7, 1), (4, 1)]


def test_the_thresholds_are_mean_confidences_of_each_class():
    # The mean confidence is 0.6 for class 0 and 0.8 for class 1: 0.65 is confident for class 0, and
    # is not for class 1.
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
    assert [i for i, _ in find_suspects(labels, probabilities)] == sorted(
        expected, key=lambda i: own[i]
    )


def test_a_class_without_examples_is_never_suggested():
    assert find_suspects(np.array([0, 1]), np.array([[0.4, 0.1, 0.5], [0.1, 0.4, 0.5]])) == []


def test_the_pair_that_is_the_same_picture_comes_first():
    x = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32)
    x[2500] = 3 * x[17]
    pairs = find_nearest(x, np.arange(2000, 3000), np.arange(2000), most=5)
    assert pairs[0][:2] == (2500, 17) and pairs[0][2] == pytest.approx(1.0, abs=1e-5)
    assert (
        len(pairs) == 5
        and len({j for _, j, _ in pairs}) == 5
        and [s for *_, s in pairs] == sorted((s for *_, s in pairs), reverse=True)
    )
    assert find_nearest(x, np.arange(0), np.arange(5), most=5) == []


def test_no_training_image_weighs_more_than_another():
    x = np.random.default_rng(0).normal(size=(1125, 6)).astype(np.float32)
    train, judged = np.arange(1025), np.arange(1025, 1125)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    z = z - z[train].mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert find_nearest(x, judged, train, most=1)[0][2] == pytest.approx(
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
    found = {examples.files[i]: why for i, why in find_odd(examples, pixels)}
    assert found == {
        "b/1.png": "blank",
        "a/2.png": "black",
        "b/5.png": "small: 9 pixels, where half of all have 64 or more",
    }


def deep_pictures(folder, nearly_black: int):
    """Twenty 16-bit pictures of two classes, of which some hold 10-bit data."""
    rng = np.random.default_rng(0)
    for i in range(20):
        most = 2**10 if i < nearly_black else 2**16
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, most, (32, 32), np.uint16)).save(path)
    examples = load(folder)
    pixels = [np.asarray(Image.open(io.BytesIO(examples.read(i)))).ravel() for i in range(20)]
    return examples, np.stack(pixels).astype(np.float32) / 65535


def test_many_pictures_that_are_nearly_black_are_told_with_an_example(tmp_path):
    examples, pixels = deep_pictures(tmp_path, nearly_black=6)
    (note,) = said_of_many(examples, find_odd(examples, pixels))
    assert "6 of 20" in note and "a/00.png" in note and "16-bit" in note


def test_a_few_pictures_that_are_nearly_black_are_no_note(tmp_path):
    examples, pixels = deep_pictures(tmp_path, nearly_black=3)
    strange = find_odd(examples, pixels)
    assert len(strange) == 3 and said_of_many(examples, strange) == []


def test_many_pictures_of_one_colour_are_told_with_an_example():
    images = (
        np.full((10, 8, 8, 3), 200, np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    )
    examples = from_arrays(images, [0, 1] * 5, splits=["train"] * 8 + ["test"] * 2)
    strange = find_odd(examples, np.full((10, 12), 0.8, np.float32))
    (note,) = said_of_many(examples, strange)
    assert "10 of 10" in note and examples.files[0] in note


def test_a_plane_puts_like_next_to_like():
    x, labels = load_digits(return_X_y=True)
    positions = np.arange(300)
    shown, places = place_on_plane(x.astype(np.float32), positions, labels[positions], seed=0)
    assert places.min() == 0 and places.max() == 1
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    assert np.mean(labels[shown][distances.argmin(1)] == labels[shown]) > 0.8


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_examples_are_not_drawn(count):
    assert (
        len(
            place_on_plane(
                np.eye(12, dtype=np.float32), np.arange(count), np.zeros(count, int), seed=0
            )[0]
        )
        == 0
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


def test_lots_are_drawn_from_every_class_and_the_same_ones_each_time():
    labels = np.repeat([0, 1, 2], [80, 15, 5])
    drawn = drawn_by_lot(list(range(100)), labels, 12, seed=0)
    assert drawn == drawn_by_lot(list(range(100)), labels, 12, seed=0)
    assert len(set(drawn)) == 12 and np.bincount(labels[drawn]).tolist() == [4, 4, 4]
    assert sorted(drawn_by_lot([3, 99], labels, 12, seed=0)) == [3, 99]
    assert drawn_by_lot([], labels, 12, seed=0) == []


def test_pictures_from_memory_are_looked_at_too():
    images = np.random.default_rng(0).integers(0, 9, (6, 8, 8, 3), np.uint8)
    examples = from_arrays(images, [0, 1] * 3, splits=["train"] * 4 + ["test"] * 2)
    assert {why for _, why in find_odd(examples, np.zeros((6, 12), np.float32))} == {"black"}


# --- features that say nothing, and some that are no numbers ---


def degenerate(count: int = 60, width: int = 16) -> dict[str, np.ndarray]:
    """Return degenerate features.

    They are equal, nearly equal, of a few values, or beyond what float32 holds.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, width))
    one = rng.normal(size=(1, width))
    equal = np.repeat(one, count, 0)
    number = np.arange(count)[:, None]
    found = {
        "equal": equal,
        "ones": np.ones_like(noise),
        "zeros": np.zeros_like(noise),
        "one column": np.ones((count, 1)),
        "signs in one column": np.sign(noise[:, :1]),
        "numbers in one column": noise[:, :1],
        "two values": np.where(number % 2, one, -one),
        "three values": noise[np.arange(count) % 3],
        "one apart": np.where(number == 7, noise, one),
        "all equal but eleven": np.where(number < 11, noise, one),
        "zeros but one": np.where(number == 7, noise, 0),
        "on a line": one + number * noise[:1],
        "denormal": 1e-40 * noise,
        "lost in squares": 1e-22 * noise,
        "too large to square": 1e30 * noise,
        "near the largest": 3e38 * np.sign(noise),
        "one is no number": np.where(number == 7, np.nan, noise),
        "one is infinite": np.where(number == 7, np.inf, noise),
        "none is a number": np.full_like(noise, np.nan),
    }
    found |= {f"apart by 1e-{n}": one + 10.0**-n * noise for n in range(3, 10)}
    return {name: x.astype(np.float32) for name, x in found.items()}


FLAT = ("equal", "ones", "zeros", "one column", "denormal", "too large to square", "apart by 1e-9")
DEGENERATE = degenerate()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_plane_of_odd_features_has_places_for_all_or_for_none(name):
    x = DEGENERATE[name]
    shown, places = place_on_plane(x, np.arange(len(x)), np.arange(len(x)) % 2, seed=0)
    assert places.shape == (len(shown), 2) and len(shown) in (0, len(x))
    assert np.isfinite(places).all() and not np.any((places < 0) | (places > 1))
    assert name not in FLAT or not len(shown)


@pytest.mark.parametrize("name", DEGENERATE)
def test_pairs_of_odd_features_have_similarities_that_are_numbers(name):
    x = DEGENERATE[name]
    pairs = find_nearest(x, np.arange(30, 60), np.arange(30), most=5)
    assert all(0 < similarity <= 1 + 1e-5 for *_, similarity in pairs)
    assert name not in FLAT or not pairs


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0])
def test_answers_that_say_nothing_make_no_label_suspect_and_hang_on_no_part(value):
    assert find_suspects(np.arange(30) % 3, np.full((30, 3), value)) in (
        [],
        [(i, 0) for i in range(30) if i % 3],
    )
    assert find_suspects(np.zeros(0, int), np.zeros((0, 3))) == []
    for pixels in (np.zeros((70, 70, 3)), np.full((3, 5, 3), np.nan), np.zeros((1, 1, 3))):
        heat = occlusion(lambda batch: np.full((len(batch), 2), value), pixels, 0)
        assert heat.shape == (7, 7) and not heat.any()


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_pixels_that_are_no_numbers_are_not_called_dark(value):
    images = np.random.default_rng(0).integers(0, 9, (6, 8, 8, 3), np.uint8)
    examples = from_arrays(images, [0, 1] * 3, splits=["train"] * 4 + ["test"] * 2)
    found = find_odd(examples, np.full((6, 12), value, np.float32))
    assert {why for _, why in found} <= {"blank"}
