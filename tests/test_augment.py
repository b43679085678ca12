"""Augmented views depend on the content of the image and a number alone."""

import numpy as np
import pytest
import tensorflow as tf

from tfxfer.inputs import seed_of
from tfxfer.inputs.image.augment import augment_images

IMAGES = np.random.default_rng(0).random((16, 24, 24, 3), dtype=np.float32)


def seeds(number: int) -> np.ndarray:
    return np.array([seed_of(f"{i:07x}", number) for i in range(16)], np.int32)


def test_the_same_number_gives_the_same_view_whatever_stands_beside_it():
    whole = augment_images(IMAGES, seeds(1), ("flip", "crop")).numpy()
    np.testing.assert_array_equal(
        augment_images(IMAGES[5:7], seeds(1)[5:7], ("flip", "crop")).numpy(), whole[5:7]
    )
    data = tf.data.Dataset.from_tensors((IMAGES, seeds(1))).map(
        lambda x, s: augment_images(x, s, ("flip", "crop"))
    )
    np.testing.assert_allclose(next(iter(data)).numpy(), whole, atol=1e-6)
    assert not np.array_equal(augment_images(IMAGES, seeds(2), ("flip", "crop")).numpy(), whole)


def test_flip_exchanges_left_and_right_of_some():
    views = augment_images(IMAGES, seeds(0), ("flip",)).numpy()
    flipped = [
        np.array_equal(view, image[:, ::-1]) for view, image in zip(views, IMAGES, strict=True)
    ]
    same = [np.array_equal(view, image) for view, image in zip(views, IMAGES, strict=True)]
    assert 3 < sum(flipped) < 13 and sum(flipped) + sum(same) == 16


def test_crop_shows_a_part_at_the_same_size():
    ramp = np.broadcast_to(
        np.linspace(0, 1, 24, dtype=np.float32)[None, None, :, None], (16, 24, 24, 3)
    )
    views = augment_images(tf.constant(ramp), seeds(0), ("crop",)).numpy()
    assert views.shape == ramp.shape
    spans = views[:, 0, -1, 0] - views[:, 0, 0, 0]
    assert (spans > 0.6).all() and (spans <= 1).all() and np.ptp(spans) > 0.1


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"Expected kinds from flip, crop. Received: 'rotate'"):
        augment_images(IMAGES, seeds(0), ("rotate",))
