"""JPEG files that are damaged and decoded all the same: they are named, and whole ones are not."""

import io
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import crops, jpeg
from PIL import Image
from runs import CLASSES, SIZE, encoded, write_run
from sklearn.datasets import load_sample_image
from test_preprocess import exif

from tfxfer import heads, serving
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.data import load
from tfxfer.errors import ImageError
from tfxfer.inputs.image import damage
from tfxfer.inputs.image.damage import find_damage
from tfxfer.limits import MOST_PIXELS

pytestmark = pytest.mark.usefixtures("opened_once")

SCAN = b"\xff\xda"


def picture() -> Image.Image:
    return Image.fromarray(load_sample_image("flower.jpg")).resize((160, 120))


def whole(**options) -> bytes:
    return jpeg(picture(), **options)


def body(data: bytes) -> int:
    """Where the first scan's bits begin."""
    return data.index(SCAN) + 2 + data[data.index(SCAN) + 3]


def middle(data: bytes) -> int:
    """A place in the middle of the bits that is not within a marker."""
    at = (body(data) + len(data)) // 2
    while 0xFF in data[at - 1 : at + 1]:
        at += 1
    return at


def restart(data: bytes, number: int) -> int:
    """Where a restart marker stands."""
    return data.index(bytes([0xFF, 0xD0 + number]), body(data))


# --- damage ---


def cut_and_closed() -> bytes:
    data = whole()
    return data[: middle(data)] + b"\xff\xd9"


def zeros_in_the_middle() -> bytes:
    data = whole()
    at = middle(data)
    return data[:at] + bytes(1000) + data[at + 1000 :]


def flipped_bytes() -> bytes:
    data = bytearray(whole(restart_marker_blocks=4))
    at = middle(data)
    for i in range(at, at + 12):
        if 0xFF not in data[i - 1 : i + 1]:
            data[i] ^= 0x5A
    return bytes(data)


def without_a_restart_marker() -> bytes:
    data = whole(restart_marker_blocks=4)
    at = restart(data, 3)
    return data[:at] + data[at + 2 :]


def without_an_interval() -> bytes:
    data = whole(restart_marker_blocks=4)
    return data[: restart(data, 3)] + data[restart(data, 4) :]


def cut_with_a_whole_picture_behind() -> bytes:
    return cut_and_closed() + jpeg(picture().resize((40, 30)))


def scan_without_its_end() -> bytes:
    """Progressive; the first scan lacks its last bytes, the others are whole."""
    data = whole(progressive=True)
    table = data.index(b"\xff\xc4", body(data))
    return data[: table - 80] + data[table:]


def last_scan_is_cut() -> bytes:
    return whole(progressive=True)[:-400] + b"\xff\xd9"


def junk_behind_a_scan() -> bytes:
    return whole()[:-2] + bytes(range(1, 100)) + b"\xff\xd9"


def hidden_by_a_harmless_warning() -> bytes:
    """libjpeg reports only its first warning, which is here about bytes between segments."""
    data = cut_and_closed()
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0\0" + data[at:]


def hidden_by_its_version() -> bytes:
    data = cut_and_closed()
    return data[:11] + b"\x05" + data[12:]


def grey_and_closed() -> bytes:
    data = jpeg(picture().convert("L"))
    return data[: middle(data)] + b"\xff\xd9"


def cmyk_and_closed() -> bytes:
    data = jpeg(picture().convert("CMYK"))
    return data[: middle(data)] + b"\xff\xd9"


def webp(zeros: float, **options) -> bytes:
    """A WebP whose last part was never downloaded: the file had its full length from the start."""
    file = io.BytesIO()
    picture().save(file, "WEBP", **options)
    data = file.getvalue()
    missing = int(zeros * len(data))
    return data[: len(data) - missing] + bytes(missing)


def webp_that_ends_in_zeros() -> bytes:
    return webp(0.7)


def lossless_webp_that_ends_in_zeros() -> bytes:
    return webp(0.4, lossless=True)


def webp_with_a_black_part() -> bytes:
    """A sound WebP of a photo above black: it ends in hundreds of zeros."""
    photo = np.asarray(picture()).copy()
    photo[len(photo) // 5 :] = 0
    return encoded(Image.fromarray(photo), "WEBP")


DAMAGED: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        cut_and_closed,
        zeros_in_the_middle,
        flipped_bytes,
        without_a_restart_marker,
        without_an_interval,
        cut_with_a_whole_picture_behind,
        scan_without_its_end,
        last_scan_is_cut,
        junk_behind_a_scan,
        hidden_by_a_harmless_warning,
        hidden_by_its_version,
        grey_and_closed,
        cmyk_and_closed,
        webp_that_ends_in_zeros,
        lossless_webp_that_ends_in_zeros,
    )
}


# --- whole ---


def between_segments(between: bytes) -> bytes:
    data = whole()
    at = data.index(b"\xff\xdb")
    return data[:at] + between + data[at:]


def with_odd_sampling() -> bytes:
    """A grey JPEG with colours for every third pixel, which no encoder at hand writes."""
    data = bytearray(jpeg(Image.new("RGB", (48, 32), (128, 128, 128)), subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x31
    # A unit has three blocks of brightness and two of colour, each without any difference.
    text = ("001010" * 3 + "0000" * 2) * 8
    text += "1" * (-len(text) % 8)
    bits = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    return bytes(data[: body(data)]) + bits + b"\xff\xd9"


def multi_picture() -> bytes:
    file = io.BytesIO()
    picture().save(file, "MPO", save_all=True, append_images=[picture().rotate(180)])
    return file.getvalue()


WHOLE: dict[str, Callable[[], bytes]] = {
    "baseline": whole,
    "progressive": lambda: whole(progressive=True),
    "optimised": lambda: whole(optimize=True),
    "restart_intervals": lambda: whole(restart_marker_blocks=4),
    "restart_rows": lambda: whole(restart_marker_rows=1, progressive=True),
    "grey": lambda: jpeg(picture().convert("L")),
    "grey_progressive": lambda: jpeg(picture().convert("L"), progressive=True),
    "cmyk": lambda: jpeg(picture().convert("CMYK")),
    "colours_of_every_pixel": lambda: whole(subsampling=0),
    "colours_of_every_second": lambda: whole(subsampling=1),
    "odd_sampling": with_odd_sampling,
    "rgb": lambda: whole(keep_rgb=True),
    "tensorflow": lambda: tf.io.encode_jpeg(np.asarray(picture())).numpy(),
    "tensorflow_progressive": lambda: tf.io.encode_jpeg(
        np.asarray(picture()), progressive=True
    ).numpy(),
    "zeros_between_segments": lambda: between_segments(b"\0\0"),
    "junk_between_segments": lambda: between_segments(b"junk" * 100),
    "filled_between_segments": lambda: between_segments(b"\xff\xff\xff"),
    "bytes_behind_the_end": lambda: whole() + b"written by a phone" * 50,
    "film_behind_the_end": lambda: whole() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    "picture_behind_the_end": lambda: whole() + whole(progressive=True),
    "padded_before_the_end": lambda: whole()[:-2] + bytes(4) + b"\xff\xd9",
    "thumbnail": lambda: whole(exif=exif(6) + jpeg(picture().resize((40, 30)))),
    "damaged_thumbnail": lambda: whole(exif=exif(1) + cut_and_closed()[:4000]),
    "comment": lambda: whole(comment=b"\xff\xd9 is not the end"),
    "unknown_version": lambda: whole()[:11] + b"\x05" + whole()[12:],
    "mpo": multi_picture,
    "one_pixel": lambda: jpeg(Image.new("RGB", (1, 1))),
    "webp": lambda: webp(0),
    "webp_with_a_black_part": webp_with_a_black_part,
    "webp_of_one_colour": lambda: encoded(Image.new("RGB", (1500, 1500)), "WEBP"),
    "no_jpeg": lambda: tf.io.encode_png(np.asarray(picture())).numpy(),
}


# --- fixtures ---


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel) -> Path:
    """A finished run of a head with random weights."""
    backbone = Backbone(tiny_savedmodel, trainable=False, value_range=(-1, 1))
    return write_run(
        tmp_path_factory.mktemp("runs") / "frozen-1",
        heads.join(backbone, keras.layers.Dense(len(CLASSES)), (*SIZE, 3)),
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of four whole photos each."""
    for number, name in enumerate(CLASSES[:2]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, image in enumerate(crops("china.jpg", 4, number)):
            (tmp_path / "data" / name / f"{i}.jpg").write_bytes(jpeg(image))
    return tmp_path / "data"


# --- what is found ---


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_found_in_a_file_that_tensorflow_reads(name):
    data = DAMAGED[name]()
    assert tf.io.decode_image(data).shape.rank >= 3
    found = find_damage(data)
    assert found is not None and found.readable


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_found_in_a_whole_file(name):
    data = WHOLE[name]()
    assert tf.io.decode_image(data).shape.rank >= 3
    assert find_damage(data) is None


def test_too_many_pixels_are_not_decoded():
    data = bytearray(cut_and_closed())
    at = data.index(b"\xff\xc0")
    side = int(MOST_PIXELS**0.5) + 1
    data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
    assert find_damage(bytes(data)) is None


def test_scans_behind_the_limit_are_not_decoded(monkeypatch):
    assert find_damage(last_scan_is_cut()) is not None
    monkeypatch.setattr("tfxfer.inputs.image.check.MOST_SCANS", 1)
    assert find_damage(last_scan_is_cut()) is None


# --- load ---


@pytest.mark.parametrize("name", DAMAGED)
def test_load_keeps_and_names_a_damaged_file(name, folder):
    file = f"{CLASSES[0]}/0.jpg"
    (folder / file).write_bytes(DAMAGED[name]())
    examples = load(folder)
    assert list(examples.damaged) == [file] and len(examples) == 8
    assert any(file in note and examples.damaged[file] in note for note in examples.notes)


def test_load_names_no_whole_file(folder):
    for name, make in WHOLE.items():
        (folder / CLASSES[0] / f"{name}.jpg").write_bytes(make())
    examples = load(folder)
    assert not examples.damaged and not any(".jpg (" in note for note in examples.notes)


def test_load_names_all_of_several(folder):
    files = [f"{CLASSES[0]}/{i}.jpg" for i in range(4)]
    for file, make in zip(files, list(DAMAGED.values())[:4], strict=True):
        (folder / file).write_bytes(make())
    note = next(note for note in load(folder).notes if files[0] in note)
    assert all(file in note for file in files)


def test_load_leaves_a_damaged_file_out_with_skip_bad_images(folder):
    file = f"{CLASSES[0]}/0.jpg"
    (folder / file).write_bytes(cut_and_closed())
    examples = load(folder, skip_bad_images=True)
    assert len(examples) == 7 and list(examples.left_out) == [file] and not examples.damaged
    assert any(file in note for note in examples.notes)


def test_load_refuses_a_picture_within_a_picture_that_no_decoder_reads(folder):
    data = whole()
    within = data[: middle(data)] + whole()
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_jpeg(within)
    (folder / CLASSES[0] / "0.jpg").write_bytes(within)
    with pytest.raises(ImageError, match=rf"{CLASSES[0]}/0\.jpg"):
        load(folder)


# --- what is remembered ---


def test_a_whole_file_is_decoded_once(folder, tmp_path, monkeypatch):
    load(folder, cache=tmp_path / "cache")
    seen = []
    monkeypatch.setattr(damage, "find_damage", seen.append)
    load(folder, cache=tmp_path / "cache")
    assert not seen


def test_damage_is_named_again_from_the_cache(folder, tmp_path):
    (folder / CLASSES[0] / "0.jpg").write_bytes(cut_and_closed())
    first, second = (load(folder, cache=tmp_path / "cache") for _ in range(2))
    assert first.damaged and first.damaged == second.damaged and first.notes == second.notes


def test_a_file_that_changed_is_decoded_again(folder, tmp_path):
    load(folder, cache=tmp_path / "cache")
    (folder / CLASSES[0] / "0.jpg").write_bytes(cut_and_closed())
    assert list(load(folder, cache=tmp_path / "cache").damaged) == [f"{CLASSES[0]}/0.jpg"]


def test_a_cleared_cache_is_filled_again(folder, tmp_path):
    cache = Cache(tmp_path / "cache")
    load(folder, cache=cache.folder)
    cache.clear()
    load(folder, cache=cache.folder)
    assert len(cache.digests(damage.KEY)) == 8


# --- predict and evaluate ---


@pytest.mark.long
@pytest.mark.parametrize("name", DAMAGED)
def test_predict_answers_and_names_a_damaged_file(name, run_folder, tmp_path, capsys):
    bad, good = tmp_path / "bad.jpg", tmp_path / "good.jpg"
    bad.write_bytes(DAMAGED[name]())
    good.write_bytes(whole())
    rows = list(serving.predict(run_folder, [bad, good], batch_size=1))
    said = capsys.readouterr().err.splitlines()
    assert [row.file for row in rows] == [str(bad), str(good)]
    assert [str(bad) in line for line in said if ".jpg" in line] == [True]


@pytest.mark.long
def test_predict_names_no_whole_file(run_folder, tmp_path, capsys):
    for name, make in WHOLE.items():
        (tmp_path / f"{name}.jpg").write_bytes(make())
    assert len(list(serving.predict(run_folder, [tmp_path]))) == len(WHOLE)
    assert ".jpg" not in capsys.readouterr().err


def test_evaluate_counts_and_names_a_damaged_file(run_folder, folder, capsys):
    file = f"{CLASSES[0]}/0.jpg"
    (folder / file).write_bytes(cut_and_closed())
    figures = serving.evaluate(run_folder, folder)
    said = capsys.readouterr().err.splitlines()
    assert figures["n"] == 8
    assert [file in line for line in said if ".jpg" in line] == [True]
