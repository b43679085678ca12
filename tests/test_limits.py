"""Images that are too large, and things that are no plain files.

The check, the decoder and an export judge them alike.
"""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import CLASSES, encoded, load_photo, write_run
from test_preprocess import JXL

from tfxfer import data, heads, serving
from tfxfer.backbone import Backbone, Prefix
from tfxfer.cache import Cache
from tfxfer.errors import DataError, ImageError
from tfxfer.features import extract, plain_values
from tfxfer.files import read_regular
from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image.check import problem
from tfxfer.inputs.image.decode import pixels
from tfxfer.limits import MOST_BYTES, MOST_SCANS
from tfxfer.serving.model import decoder

SIZE = (16, 16)
SPEC = [tf.TensorSpec((), tf.string)]


def put(content: bytes, at: int, form: str, *numbers: int) -> bytes:
    """Return the bytes with other numbers at an offset."""
    new = struct.pack(form, *numbers)
    return content[:at] + new + content[at + len(new) :]


def png_of(depth: int, width: int, height: int) -> bytes:
    """A PNG of one black line, whose header says another size."""
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_of(width: int, height: int) -> bytes:
    photo = encoded(load_photo(), "JPEG")
    return put(photo, photo.index(b"\xff\xc0") + 5, ">HH", height, width)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    photo = encoded(load_photo(), "JPEG", progressive=True)
    last = photo.rindex(b"\xff\xda")
    return photo[:last] + photo[last:-2] * count + photo[-2:]


def gif_of(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    gif = encoded(Image.new("P", (10, 10)), "GIF")
    gif = put(gif, 6, "<HH", *screen)
    return put(gif, gif.index(b",\0\0\0\0") + 5, "<HH", *frame)


def webp_extended(width: int, height: int) -> bytes:
    image = Image.new("RGBA", (10, 10), (1, 2, 3, 4))
    webp = encoded(image, "WEBP", exif=Image.Exif(), xmp=b"x")
    assert webp[12:16] == b"VP8X"
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return webp[:24] + sides + webp[30:]


def webp_lossless(width: int, height: int) -> bytes:
    webp = encoded(Image.new("RGB", (10, 10)), "WEBP", lossless=True)
    return put(webp, 21, "<I", (width - 1) | (height - 1) << 14)


def jxl_of(side: int) -> bytes:
    """A header of a square of `side` pixels a side, and the rest of a real file behind it."""
    bits = 3 << 1 | (side - 1) << 3 | 1 << 33 | 1 << 36
    return b"\xff\x0a" + bits.to_bytes(8, "little") + JXL[10:]


TOO_MUCH = {
    "bmp": lambda: put(encoded(load_photo(), "BMP"), 18, "<ii", 30_000, 30_000),
    "bmp from the top": lambda: put(encoded(load_photo(), "BMP"), 18, "<ii", 30_000, -30_000),
    "gif frame": lambda: gif_of((10, 10), (20_000, 20_000)),
    "gif screen": lambda: gif_of((65_535, 65_535), (10, 10)),
    "jpeg": lambda: jpeg_of(60_000, 60_000),
    "jpeg of many scans": lambda: jpeg_with_scans(MOST_SCANS + 10),
    "jpeg xl": lambda: jxl_of(6_000),
    "png of 1 bit": lambda: png_of(1, 30_000, 30_000),
    "png of 16 bits": lambda: png_of(16, 6_000, 6_000),
    "png of 2**31 a side": lambda: png_of(8, 2**31 - 1, 2**31 - 1),
    "webp": lambda: put(encoded(load_photo(), "WEBP"), 26, "<HH", 16_383, 16_383),
    "webp lossless": lambda: webp_lossless(16_384, 16_384),
    "webp extended": lambda: webp_extended(16_777_216, 16_777_216),
}


@pytest.fixture(scope="module")
def alone():
    return tf.function(lambda one: pixels(one, SIZE), input_signature=SPEC)


@pytest.fixture(scope="module")
def served():
    """The decoder of an export that answers bad images with null."""
    function = decoder(ImageInput(SIZE), "null")
    spec = [tf.TensorSpec((None,), tf.string)]
    return tf.function(function, input_signature=spec, autograph=False)


@pytest.fixture(scope="module")
def told(alone, served) -> dict[str, tuple[str | None, bool, list[int]]]:
    """What the check says of each file, whether the decoder refuses it, and what an export answers.

    The last is which of three images the export answers. All files are looked at in one go: in each
    test that sets the seed, TensorFlow would make its functions anew, which takes seconds.
    """
    photo, found = encoded(load_photo(), "JPEG"), {}
    for name, make in TOO_MUCH.items():
        try:
            alone(tf.constant(make()))
            refused = False
        except tf.errors.InvalidArgumentError:
            refused = True
        _, places = served(tf.constant([photo, make(), photo]))
        found[name] = problem(make()), refused, places.numpy().tolist()
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_told_by_the_check_the_decoder_and_an_export(name, told):
    said, refused, answered = told[name]
    assert len(TOO_MUCH[name]()) < 1e6
    assert said is not None
    assert refused
    assert answered == [0, 2]


@pytest.mark.long
def test_of_a_gif_with_many_frames_the_first_alone_is_decoded(alone, served):
    frames = [load_photo().rotate(i) for i in range(40)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    again = io.BytesIO(whole)
    first = np.asarray(Image.open(again).convert("RGB"))
    expected = alone(encoded(Image.fromarray(first), "PNG"))
    assert problem(whole) is None
    np.testing.assert_array_equal(alone(whole), expected)
    np.testing.assert_array_equal(served(tf.constant([whole]))[0][0], expected)


def test_a_file_of_too_many_bytes_is_never_read_whole(tmp_path):
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(OSError, match=f"{MOST_BYTES >> 20} MiB"):
        read_regular(tmp_path / "large.jpg")


# --- no plain files ---


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_socket(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{place}/{path.name}")
    finally:
        os.close(place)


ODD = [make_pipe, make_device, make_loop, make_socket]


@pytest.fixture
def few(photos, tmp_path) -> Path:
    """Eight photos of each class, to put something beside them."""
    for name in ("china", "flower"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:8]:
            (tmp_path / "few" / name / path.name).write_bytes(path.read_bytes())
    return tmp_path / "few"


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_plain_file_is_named_among_photos(few, make):
    make(few / "china" / "odd.jpg")
    with pytest.raises(ImageError, match=r"china/odd\.jpg"):
        data.load(few)
    examples = data.load(few, skip_bad_images=True)
    assert len(examples) == 16 and list(examples.left_out) == ["china/odd.jpg"]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_plain_file_is_passed_over_where_it_has_no_ending(few, make):
    make(few / "china" / "odd")
    assert len(data.load(few)) == 16


def test_a_folder_that_is_called_like_a_photo_is_searched(few):
    (few / "china" / "more.jpg").mkdir()
    (few / "china" / "more.jpg" / "one.jpg").write_bytes(encoded(load_photo(), "JPEG"))
    assert "china/more.jpg/one.jpg" in data.load(few).files


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x85", "\x0b"])
def test_a_class_whose_name_is_more_than_one_line_is_refused(few, end):
    (few / "flower").rename(few / f"flo{end}wer")
    with pytest.raises(DataError) as error:
        data.load(few)
    assert repr(f"flo{end}wer") in str(error.value)


def test_a_label_of_a_table_that_is_more_than_one_line_is_refused(few):
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in few.rglob("*.jpg")]
    rows[0] = rows[0].rsplit(",", 1)[0] + ',"x\nants"'
    (few / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError) as error:
        data.load(few / "labels.csv")
    assert repr("x\nants") in str(error.value)


# --- what skip_bad_images leaves out ---


@pytest.fixture(scope="module")
def prefix(tiny_savedmodel) -> Prefix:
    return Backbone(tiny_savedmodel, trainable=False).prefix(3)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_savedmodel) -> Path:
    """A finished run of a head with random weights."""
    head = keras.layers.Dense(len(CLASSES))
    model = heads.join(Backbone(tiny_savedmodel, trainable=False), head, (32, 32, 3))
    return write_run(tmp_path_factory.mktemp("runs") / "run", model)


def torn() -> bytes:
    """A PNG that only decoding finds damaged."""
    content = bytearray(encoded(load_photo(), "PNG"))
    content[200:300] = bytes(100)
    return bytes(content)


@pytest.mark.long
@pytest.mark.parametrize("content", [b"no image", torn()])
def test_a_class_that_loses_all_its_images_is_dropped_and_said(content, few, prefix, tmp_path):
    (few / "torn").mkdir()
    for i in range(8):
        (few / "torn" / f"{i}.png").write_bytes(content + bytes([i]))
    examples = data.load(few, skip_bad_images=True)
    found = extract(examples, prefix, cache=Cache(tmp_path), skip_bad_images=True, progress=False)
    kept = found.examples
    assert kept.classes == ("china", "flower") and kept.labels.max() == 1
    assert sorted(kept.left_out) == [f"torn/{i}.png" for i in range(8)]
    assert any("torn/7.png" in note for note in kept.notes)


@pytest.mark.long
@pytest.mark.parametrize("content", [b"no image", torn()])
def test_one_class_alone_is_refused_where_the_other_can_not_be_read(content, few, prefix, tmp_path):
    for i, path in enumerate((few / "flower").iterdir()):
        path.write_bytes(content + bytes([i]))
    with pytest.raises(DataError, match="china|flower"):
        examples = data.load(few, skip_bad_images=True)
        extract(examples, prefix, cache=Cache(tmp_path), skip_bad_images=True, progress=False)


@pytest.mark.long
def test_a_photo_that_is_deleted_after_its_features_were_computed_is_named(few, prefix, tmp_path):
    examples, cache = data.load(few), Cache(tmp_path)
    extract(examples, prefix, cache=cache, progress=False)
    gone = examples.files[3]
    (few / gone).unlink()
    with pytest.raises(ImageError, match=gone):
        plain_values(examples, cache=cache, skip_bad_images=True)


@pytest.mark.long
def test_every_file_that_can_not_be_predicted_is_named_on_a_line(run_folder, few, capsys):
    for i in range(30):
        (few / f"bad{i:02}.jpg").write_bytes(b"no image")
    make_pipe(few / "pipe.jpg")
    rows, found = [], serving.predict(run_folder, [few])
    with pytest.raises(ImageError, match="31 of 47"):
        rows.extend(found)
    lines = capsys.readouterr().err.splitlines()
    assert len(rows) == 16
    named = [line for line in lines if str(few) in line]
    assert len(named) == 31 and "bad29.jpg" in named[29] and "pipe.jpg" in named[30]
