"""Mirror images: computed for small sets, and kept where they predict better."""

import numpy as np
import pytest

from tfxfer.data import from_arrays
from tfxfer.heads import mirrors
from tfxfer.tasks import CLASSIFY


def sure(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of two classes: 0.9 for the true one where right, else for the other."""
    said = np.where(right, labels, 1 - labels)
    return np.where(np.eye(2)[said] == 1, 0.9, 0.1)


LABELS = np.arange(100) % 2


@pytest.mark.parametrize(
    ("with_them", "without", "better"), [(90, 50, True), (50, 90, False), (90, 90, False)]
)
def test_mirror_images_are_better_where_the_log_loss_falls(with_them, without, better):
    both, alone = (sure(np.arange(100) < right, LABELS) for right in (with_them, without))
    found, said = mirrors.compare(both, alone, LABELS, task=CLASSIFY)
    assert found == better
    assert f"{with_them / 100:.3f} with them and {without / 100:.3f} without" in said


def test_a_loss_that_rises_with_mirror_images_is_said_to_be_larger():
    both, alone = (sure(np.arange(100) < right, LABELS) for right in (60, 90))
    said = mirrors.compare(both, alone, LABELS, task=CLASSIFY)[1]
    assert "log loss larger by 0." in said


def test_an_example_that_was_never_held_out_says_nothing():
    both, alone = sure(LABELS >= 0, LABELS), sure(LABELS >= 0, LABELS)
    alone[0] = 1 - np.eye(2)[LABELS[0]]
    assert not mirrors.compare(both, alone, LABELS, task=CLASSIFY)[0]


@pytest.mark.parametrize(
    ("mirror", "photos", "expected"),
    [("auto", 300, True), ("auto", 5_000, False), ("yes", 5_000, True), ("no", 300, False)],
)
def test_mirror_images_are_computed_for_small_sets(mirror, photos, expected):
    few = from_arrays(np.zeros((4, 2, 2), np.uint8) + np.arange(4)[:, None, None], [0, 0, 1, 1])
    examples = few.take(np.arange(photos) % len(few))
    assert mirrors.are_computed(mirror, examples) == expected
