"""Features: every example goes once through the network; they are kept, resumed and never stale."""

import hashlib
import io
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from PIL import Image

from tfxfer import data, features
from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.errors import CacheError, ImageError
from tfxfer.features import extract, plain_values
from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image import decode as preprocess

EXTRACTOR = """
import sys, resource
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
from tfxfer import data, features
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
features.extraction.CHUNK = 16
examples, prefix = data.load(sys.argv[1]), Backbone(sys.argv[2], trainable=False).prefix(3)
print("ready", flush=True)
features.extract(examples, prefix, cache=Cache(sys.argv[3]), batch_size=4, progress=False)
"""


@pytest.fixture(scope="module")
def prefix(tiny_savedmodel) -> Prefix:
    return Backbone(tiny_savedmodel, trainable=False).prefix(3)


@pytest.fixture
def examples(photos) -> Examples:
    return data.load(photos)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def listed(folder, encoded: list[bytes]) -> Examples:
    """Files that nobody has checked: the extraction is the first to read them."""
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(encoded):
        (folder / f"{i}.jpg").write_bytes(content)
    digests = tuple(hashlib.sha256(content).hexdigest() for content in encoded)
    labels = np.arange(len(encoded), dtype=np.int32) % 2
    names = tuple(f"{i}.jpg" for i in range(len(encoded)))
    return Examples(
        files=names,
        labels=labels,
        splits=("train",) * len(encoded),
        classes=("a", "b"),
        digests=digests,
        read=lambda i: (folder / names[i]).read_bytes(),
        source=str(folder),
    )


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    return buffer.getvalue()


def expected(examples: Examples, prefix: Prefix, tiny: str) -> np.ndarray:
    pixels = tf.stack([prefix.takes.decode(examples.read(i)) for i in range(len(examples))])
    return Backbone(tiny, trainable=False, taps=3)(pixels).numpy()


@pytest.mark.long
def test_features_are_what_the_layer_gives(examples, prefix, cache, tiny_savedmodel):
    found = extract(examples, prefix, cache=cache, progress=False)
    assert (
        found.shape == (len(examples), sum(found.tap_widths))
        and len(found) == len(examples)
        and found.examples is examples
    )
    np.testing.assert_allclose(found[:], expected(examples, prefix, tiny_savedmodel), atol=2e-5)
    np.testing.assert_array_equal(np.concatenate(list(found.blocks(size=7))), found[:])
    np.testing.assert_array_equal(
        np.concatenate(list(found.blocks([5, 3, 9], size=2))), found[[5, 3, 9]]
    )


@pytest.mark.long
def test_the_output_alone_is_the_first_columns_of_the_last_tap(
    examples, prefix, cache, tiny_savedmodel
):
    found = extract(examples, prefix, cache=cache, progress=False)
    pixels = prefix.takes.decode(examples.read(3))
    np.testing.assert_allclose(
        found.output[3], Backbone(tiny_savedmodel, trainable=False)(pixels[None])[0], atol=2e-5
    )


@pytest.mark.long
def test_taken_features_are_those_of_the_taken_examples(examples, prefix, cache):
    found = extract(examples, prefix, cache=cache, progress=False)
    part = found.take([4, 1])
    assert part.examples.files == (examples.files[4], examples.files[1])
    np.testing.assert_array_equal(part[:], found[[4, 1]])


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_no_bit(batch_size, examples, prefix, cache, tmp_path):
    one = extract(examples, prefix, cache=cache, progress=False)[:]
    assert (
        extract(
            examples, prefix, cache=Cache(tmp_path / "other"), batch_size=batch_size, progress=False
        )[:].tobytes()
        == one.tobytes()
    )


@pytest.mark.long
def test_what_is_cached_is_not_computed_again(examples, prefix, cache, monkeypatch):
    one = extract(examples, prefix, cache=cache, progress=False)[:]
    monkeypatch.setitem(
        features.computation.ENGINES, "tensorflow", lambda *a: pytest.fail("computed again")
    )
    assert extract(examples, prefix, cache=cache, progress=False)[:].tobytes() == one.tobytes()


@pytest.mark.long
def test_the_same_picture_twice_is_computed_once(prefix, cache, tmp_path):
    examples = listed(tmp_path / "files", [picture(i % 3) for i in range(9)])
    found = extract(examples, prefix, cache=cache, progress=False)
    assert cache.summary()[0].rows == 3
    np.testing.assert_array_equal(found[3:6], found[:3])


@pytest.mark.long
def test_a_mirrored_feature_is_the_mean_of_both_views(examples, prefix, cache, tiny_savedmodel):
    plain = extract(examples, prefix, cache=cache, progress=False)[:]
    both = extract(examples, prefix, cache=cache, mirror=True, progress=False)
    pixels = tf.stack([prefix.takes.decode(examples.read(i))[:, ::-1] for i in range(4)])
    mirrored = Backbone(tiny_savedmodel, trainable=False, taps=3)(pixels).numpy()
    np.testing.assert_allclose(both[:4], (plain[:4] + mirrored) / 2, atol=2e-5)
    assert both.one_side[:].tobytes() == plain.tobytes()
    assert [entry.description["view"] for entry in cache.summary()] == [0, 1]


@pytest.mark.long
def test_a_changed_picture_is_computed_again(prefix, cache, tmp_path):
    one = extract(
        listed(tmp_path / "files", [picture(i) for i in range(6)]),
        prefix,
        cache=cache,
        progress=False,
    )[:]
    other = extract(
        listed(tmp_path / "files", [picture(i + 10 * (i == 2)) for i in range(6)]),
        prefix,
        cache=cache,
        progress=False,
    )[:]
    assert [i for i in range(6) if not np.array_equal(one[i], other[i])] == [2]
    assert cache.summary()[0].rows == 7


@pytest.mark.long
def test_a_changed_weight_is_another_backbone(examples, prefix, cache, tiny_savedmodel):
    one = extract(examples, prefix, cache=cache, progress=False)[:]
    backbone = Backbone(tiny_savedmodel, trainable=False)
    backbone.weights[0].assign(backbone.weights[0] + 0.01)
    assert not np.array_equal(
        extract(examples, backbone.prefix(3), cache=cache, progress=False)[:], one
    )


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "openvino"},
        {"precision": "bf16"},
        {"view": 1},
        {"fingerprint": "other"},
        {"tap_widths": (5,)},
        {"takes": ImageInput((32, 32), (-1.0, 1.0))},
        {"takes": ImageInput((64, 64))},
    ],
)
def test_everything_that_changes_a_feature_is_in_the_key(change, prefix):
    call = {"engine": "tensorflow", "precision": "float32", "view": 0}
    own = {name: value for name, value in change.items() if name not in call}
    changed = features.key_of(
        replace(prefix, **own),
        **(call | {name: value for name, value in change.items() if name in call}),
    )
    assert changed != features.key_of(prefix, **call)


@pytest.mark.long
def test_a_file_that_changes_during_extraction_is_not_cached_under_its_old_name(
    prefix, cache, tmp_path
):
    examples = listed(tmp_path / "files", [picture(i) for i in range(4)])
    (tmp_path / "files" / "1.jpg").write_bytes(picture(99))
    with pytest.raises(
        ImageError, match=r"1\.jpg \(it was changed after it was listed; run again\)"
    ):
        extract(examples, prefix, cache=cache, progress=False)


def bad_pile(folder) -> Examples:
    """Twelve files, three of them bad: text, a truncated JPEG, and one that goes away."""
    encoded = [picture(i) for i in range(12)]
    encoded[3], encoded[7] = b"this is no picture", encoded[7][:300]
    examples = listed(folder, encoded)
    (folder / "10.jpg").unlink()
    return examples


@pytest.mark.long
def test_files_that_can_not_be_decoded_stop_it_by_name(prefix, cache, tmp_path):
    with pytest.raises(ImageError) as caught:
        extract(bad_pile(tmp_path / "files"), prefix, cache=cache, progress=False)
    said = str(caught.value)
    assert (
        said.startswith("3 photos can't be decoded: 3.jpg (")
        and "7.jpg (" in said
        and "10.jpg (" in said
    )
    assert said.endswith("Remove or mend them, or leave them out with --skip-bad-images.")
    assert "function_node" not in said and "Traceback" not in said and "\n" not in said


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [2, 32])
def test_bad_files_are_left_out_and_listed_where_asked(batch_size, prefix, cache, tmp_path):
    found = extract(
        bad_pile(tmp_path / "files"),
        prefix,
        cache=cache,
        batch_size=batch_size,
        skip_bad_images=True,
        progress=False,
    )
    left = [0, 1, 2, 4, 5, 6, 8, 9, 11]
    assert found.examples.files == tuple(f"{i}.jpg" for i in left) and len(found) == 9
    note = found.examples.notes[-1]
    assert (
        note.startswith("left out 3 files that can't be decoded:\n  3.jpg: ")
        and len(note.splitlines()) == 4
    )
    whole = extract(
        listed(tmp_path / "whole", [picture(i) for i in left]),
        prefix,
        cache=Cache(tmp_path / "second"),
        progress=False,
    )
    assert found[:].tobytes() == whole[:].tobytes()


@pytest.mark.long
def test_a_pile_of_bad_files_alone_is_refused(prefix, cache, tmp_path):
    with pytest.raises(ImageError, match=r"none of the 2 photos can be decoded: 0\.jpg: "):
        extract(
            listed(tmp_path / "files", [b"no", b"neither"]),
            prefix,
            cache=cache,
            skip_bad_images=True,
            progress=False,
        )


@pytest.mark.long
def test_a_damaged_shard_is_computed_again(examples, prefix, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(features.extraction, "CHUNK", 16)
    one = extract(examples, prefix, cache=cache, batch_size=8, progress=False)[:]
    shards = sorted((tmp_path / "cache" / "shards").iterdir())
    assert len(shards) == 4
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    assert (
        extract(examples, prefix, cache=cache, batch_size=8, progress=False)[:].tobytes()
        == one.tobytes()
    )


def start(photos, tiny: str, cache, *limit: str) -> subprocess.Popen:
    words = [python(), "-c", EXTRACTOR, str(photos), tiny, str(cache), *limit]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_a_killed_extraction_resumes_to_the_same_bytes(
    photos, examples, prefix, cache, tmp_path, tiny_savedmodel
):
    """It is killed three times.

    That is when it is ready, when the first shard is there, and at a random moment after.
    """
    whole = extract(examples, prefix, cache=cache, progress=False)[:]
    folder, rng = tmp_path / "killed", np.random.default_rng(0)
    for kill in range(3):
        process = start(photos, tiny_savedmodel, folder)
        process.stdout.readline()
        until = time.monotonic() + 30
        while (
            kill
            and process.poll() is None
            and time.monotonic() < until
            and not list(folder.glob("shards/*.npy"))
        ):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = extract(examples, prefix, cache=Cache(folder), progress=False)
    assert found[:].tobytes() == whole.tobytes()


@pytest.mark.long
def test_two_extractions_at_once_share_a_cache(
    photos, examples, prefix, cache, tmp_path, tiny_savedmodel
):
    whole = extract(examples, prefix, cache=cache, progress=False)[:]
    processes = [start(photos, tiny_savedmodel, tmp_path / "shared") for _ in range(2)]
    assert [(process.communicate()[1], process.returncode)[1] for process in processes] == [0, 0]
    shared = Cache(tmp_path / "shared")
    assert extract(examples, prefix, cache=shared, progress=False)[:].tobytes() == whole.tobytes()
    assert shared.summary()[0].rows == len(examples)


@pytest.mark.long
def test_a_full_disk_while_extracting_says_what_to_try_and_resumes(
    photos, examples, prefix, cache, tmp_path, tiny_savedmodel
):
    folder = tmp_path / "full"
    process = start(photos, tiny_savedmodel, folder, "3000")
    said = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 1 and re.search(
        r"CacheError: the cache in .*full can't be .*--cache DIR", said
    ), said
    whole = extract(examples, prefix, cache=cache, progress=False)[:]
    shutil.rmtree(folder)  # an index that could not even be begun
    assert (
        extract(examples, prefix, cache=Cache(folder), progress=False)[:].tobytes()
        == whole.tobytes()
    )


def test_no_room_is_seen_before_the_network_is_run(examples, prefix, cache, monkeypatch):
    monkeypatch.setitem(
        features.computation.ENGINES, "tensorflow", lambda *a: pytest.fail("began to compute")
    )
    with pytest.raises(CacheError, match=r"No space left. Needed: .* more, .* free on that disk"):
        extract(examples, replace(prefix, width=10**12), cache=cache, progress=False)


@pytest.mark.long
def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    examples, prefix, cache, monkeypatch, capsys
):
    monkeypatch.setattr(features.progress, "LINE_EVERY", 3600.0)
    extract(examples, prefix, cache=cache)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.fullmatch(
        r"features: 60 of 60 photos, \d+ photos/s, 0 s left", lines[0]
    )


def test_the_first_batch_tells_nothing_of_the_speed(monkeypatch, capsys):
    monkeypatch.setattr(features.progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(features.progress, "SHARE", 0.0)
    shown = features.Progress(60, True)
    for _ in range(3):
        time.sleep(0.01)
        shown.update(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "features: 20 of 60 examples"
    assert ["s left" in line for line in lines] == [False, True, True]


def test_what_is_quick_says_nothing(capsys):
    shown = features.Progress(60, True, quick=True)
    for _ in range(3):
        shown.update(20)
    shown.close()
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = features.Progress(10, True)
    shown.update(10)
    shown.close()
    assert re.search(r"features: +100%.*10/10 \[.*examples/s\]", capsys.readouterr().err)


@pytest.mark.long
def test_the_plain_values_of_images_are_small_images(examples, cache):
    found = plain_values(examples, cache=cache)
    assert found.shape == (len(examples), 32 * 32 * 3)
    np.testing.assert_allclose(
        found[5].reshape(32, 32, 3), preprocess.pixels(examples.read(5), (32, 32)), atol=1e-7
    )
    assert found[:].min() >= 0 and found[:].max() < 1.00001


@pytest.mark.parametrize("wrong", [{"engine": "torch"}, {"precision": "int8"}, {"batch_size": 0}])
def test_wrong_arguments_are_a_value_error(wrong, examples, prefix, cache):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"Expected {name}.*Received: {name}={value!r}"):
        extract(examples, prefix, cache=cache, **wrong)


@pytest.mark.long
def test_what_comes_from_the_cache_is_told(prefix, cache, tmp_path, capsys):
    six = listed(tmp_path / "photos", [picture(seed) for seed in range(6)])
    extract(six.take([0, 1, 2, 3]), prefix, cache=cache, progress=False)
    extract(six, prefix, cache=cache)
    said = capsys.readouterr().err
    assert "4 of 6 photos are already in the cache" in said and str(cache.folder) in said


def test_the_key_of_altered_copies_of_images_is_that_of_earlier_versions(tiny_savedmodel):
    prefix = Backbone(tiny_savedmodel, trainable=False).prefix(3)
    (key,) = features.of_prefix(prefix, "tensorflow", "float32", augment=("flip",), number=2).keys
    assert key["view"] == ["flip", 2]
