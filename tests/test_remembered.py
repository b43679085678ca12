"""What was read of a SavedModel is kept in the cache, and is the same as what is read anew."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from savedmodels import save_reusable, tiny_network

import tfxfer
from tfxfer import handles, savedmodel
from tfxfer.cache import remove_networks
from tfxfer.cli import main
from tfxfer.handles import checksum
from tfxfer.savedmodel import remembered


def save_small(folder: Path) -> str:
    """Save a network that is soon read."""
    return save_reusable(tiny_network(widths=(8,), activation="relu"), folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    return save_small(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of the kept networks, in a cache of the test's own."""
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


def read_count(said) -> int:
    """How often a network was read from its SavedModel."""
    return sum("Reading the network" in line for line in said)


@pytest.mark.long
def test_a_network_is_read_once_and_stays_the_same(tiny_savedmodel, kept, said):
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    first = tfxfer.Backbone(tiny_savedmodel, trainable=True)
    second = tfxfer.Backbone(tiny_savedmodel, trainable=True)
    assert read_count(said) == 1
    assert savedmodel.keep(first.pretrained).digest == savedmodel.keep(second.pretrained).digest
    assert [one.name for one in first.stages] == [one.name for one in second.stages]
    for training in (False, True):
        tf.random.set_seed(0)
        expected = first(images, training=training)
        tf.random.set_seed(0)
        np.testing.assert_array_equal(second(images, training=training), expected)
    assert len(second.trainable_weights) == len(first.trainable_weights) > 0


@pytest.mark.long
def test_another_content_or_size_is_read_anew(tmp_path, kept, said):
    folder = save_small(tmp_path / "model")
    tfxfer.Backbone(folder)
    save_small(tmp_path / "model")  # other weights
    tfxfer.Backbone(folder)
    tfxfer.Backbone(folder, image_size=32)
    assert read_count(said) == len(list(kept.iterdir())) == 3


@pytest.mark.long
@pytest.mark.parametrize("damage", ["cut short", "changed", "no archive", "a link"])
def test_a_damaged_file_is_written_anew(damage, small, kept, said, tmp_path):
    # Of one image alone, oneDNN's last bits depend on what the process computed before.
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    expected = tfxfer.Backbone(small)(images)
    (file,) = kept.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "changed":
        for i in range(len(content) // 4, len(content), 97):
            content[i] ^= 255
    elif damage == "no archive":
        content = bytearray(b"hello")
    file.write_bytes(content)
    if damage == "a link":
        file.unlink()
        file.symlink_to(tmp_path / "nowhere")
    np.testing.assert_array_equal(tfxfer.Backbone(small)(images), expected)
    tfxfer.Backbone(small)
    assert read_count(said) == 2
    assert not (tmp_path / "nowhere").exists()  # nothing is written through a link


@pytest.mark.long
def test_a_network_of_a_fixed_content_is_read_each_time(small, kept, said):
    fixed = f"{small}#sha256={checksum.of_folder(Path(small))}"
    tfxfer.Backbone(small)
    tfxfer.Backbone(fixed)
    tfxfer.Backbone(fixed)
    assert read_count(said) == 3


@pytest.mark.long
def test_networks_are_listed_and_removed_with_the_cache(small, kept):
    tfxfer.Backbone(small)
    (kept / "mine.npz").write_text("somebody's own")
    assert "networks read" in CliRunner().invoke(main, ["cache"]).output
    CliRunner().invoke(main, ["cache", "--clear"])
    assert [path.name for path in kept.iterdir()] == ["mine.npz"]


@pytest.mark.long
def test_the_oldest_networks_make_room(small, kept):
    for size in (None, 32):
        tfxfer.Backbone(small, image_size=size)
    newest = max(kept.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    remove_networks(kept.parent, newest.stat().st_size)
    assert list(kept.iterdir()) == [newest]


@pytest.mark.long
def test_without_a_place_for_the_cache_it_is_read_each_time(small, tmp_path, monkeypatch, said):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "file"))
    tfxfer.Backbone(small)
    tfxfer.Backbone(small)
    assert read_count(said) == 2


def test_a_network_that_is_not_allowed_is_never_taken_from_the_cache(kept, said, tmp_path):
    class Reads(tf.Module):
        def __init__(self):
            super().__init__()
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
        def __call__(self, x):
            length = tf.strings.length(tf.io.read_file("/etc/hostname"))
            return tf.reduce_mean(x, [1, 2]) * self.weight + tf.cast(length, tf.float32)

    folder = str(tmp_path / "reads")
    tf.saved_model.save(Reads(), folder)
    tfxfer.Backbone(folder, trust=True)
    (file,) = kept.iterdir()
    # As if somebody had given the file the name that it has for those who do not trust it.
    options = {"image_size": None, "arguments": {}, "output": None}
    other = remembered.place_of(handles.resolve(folder), options, trust=False)
    assert other is not None and other != file
    file.rename(other)
    with pytest.raises(tfxfer.errors.DeniedOperationError):
        tfxfer.Backbone(folder)
    assert read_count(said) == 2
