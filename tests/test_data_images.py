"""The quick look at a file's structure: whole files pass, files that are cut off are reported."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from PIL import Image
from test_preprocess import FILES, JXL, JXL_ALPHA, exif, photo, saved

from tfxfer.data import decoding, load
from tfxfer.data.decoding import Decoder
from tfxfer.errors import ImageError, MissingExtraError
from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image.check import kind, problem
from tfxfer.inputs.image.decode import pixels
from tfxfer.inputs.image.heic import readable
from tfxfer.inputs.image.png import png
from tfxfer.serving.model import decode_each


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def large_png(side: int) -> bytes:
    """A real PNG of side x side, 1 bit a pixel, all black."""
    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


@pytest.mark.long
def test_few_and_many_photos_are_decoded_alike(photos, monkeypatch):
    decoder = Decoder(load(photos), ImageInput((24, 32), (-1.0, 1.0)), 8)

    def decoded() -> tuple[list, np.ndarray]:
        batches = list(decoder.batches(range(20), None))
        each = list(decoder.dataset(range(20)).as_numpy_iterator())
        np.testing.assert_array_equal(np.concatenate([one for _, one in batches])[:20], each)
        return [positions for positions, _ in batches], np.stack(each)

    few = decoded()
    monkeypatch.setattr(decoding, "FEW", 10)
    many = decoded()
    assert few[0] == many[0] == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    np.testing.assert_array_equal(few[1], many[1])


@pytest.mark.long
def test_a_large_photo_is_decoded_alone_to_the_same_bits(photos, tmp_path, monkeypatch):
    for label, content in (("one", large_png(3600)), ("two", saved(photo(), "PNG"))):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(content)
        name = "china/china00.jpg" if label == "one" else "flower/flower00.jpg"
        (tmp_path / label / "2.jpg").write_bytes((photos / name).read_bytes())
    takes, examples = ImageInput((24, 32)), load(tmp_path)
    assert takes.decode_unless_large(examples.read(0))[1]
    few = np.stack(list(Decoder(examples, takes, 2).each(range(4))))
    monkeypatch.setattr(decoding, "FEW", 1)
    many = np.stack(list(Decoder(examples, takes, 2).each(range(4))))
    served = decode_each(takes, tf.constant([examples.read(i) for i in range(4)]))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(few, served)
    assert few[0].max() == few[0].min()


WHOLE = {
    **FILES,
    "jxl": lambda: JXL,
    "jxl_alpha": lambda: JXL_ALPHA,
    "jpeg_exif": lambda: saved(photo(), "JPEG", exif=exif(6)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass(name):
    assert problem(WHOLE[name]()) is None


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [name for name in WHOLE if "jxl" not in name and "behind" not in name]
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files_are_found(name, share):
    data = WHOLE[name]()
    assert "truncated" in problem(data[: int(len(data) * share)]) or "header" in problem(
        data[: int(len(data) * share)]
    )


def test_a_thumbnails_end_is_not_the_photos_end():
    thumbnail = saved(photo(20, 20), "JPEG")
    data = saved(photo(), "JPEG", exif=exif(1) + thumbnail)
    assert problem(data) is None
    assert problem(data[: len(data) - 500]) == "is a JPEG that is truncated: its end is missing"


def test_bytes_behind_the_end_do_no_harm():
    for form in ("JPEG", "PNG", "GIF"):
        assert (
            problem(
                saved(photo().quantize(9).convert("RGB"), form) + b"trailing bytes of some phone"
            )
            is None
        )


def test_a_png_of_twenty_thousand_pixels_a_side_is_refused():
    data = large_png(20_000)
    assert len(data) < 1e6
    assert (
        problem(data) == "is a PNG of 20000 x 20000 pixels, more than the 50 million that are read"
    )


def test_what_is_no_image_is_quoted():
    assert problem(b"") == "is empty"
    assert problem(b"{'error': 404}") == "is not an image, it begins with b\"{'error': 40\""
    assert problem(b"BM, a text") == "is not an image, it begins with b'BM, a text'"


def test_kinds_that_tensorflow_cannot_decode_are_named():
    four = saved(photo().quantize(8), "BMP")
    four = four[:28] + struct.pack("<H", 4) + four[30:]
    assert "which can't be read; save it as PNG" in problem(four)
    lossless = saved(photo(), "JPEG").replace(b"\xff\xc0", b"\xff\xc3", 1)
    assert "lossless or arithmetically coded" in problem(lossless)


def test_no_bytes_whatever_raise():
    rng = np.random.default_rng(0)
    starts = [make()[:40] for make in WHOLE.values()]
    for i in range(2000):
        data = bytearray(starts[i % len(starts)] + rng.bytes(60))
        for at in rng.integers(0, 60, 3):
            data[at] = rng.integers(256)
        found = problem(bytes(data[: rng.integers(1, 100)]))
        assert found is None or isinstance(found, str)


@pytest.mark.long
@pytest.mark.parametrize("form", ["TIFF", "AVIF", "HEIF"])
def test_foreign_formats_are_read_as_png_and_turned_upright(form):
    if form == "HEIF":
        pillow_heif.register_heif_opener()
    options = {} if form == "TIFF" else {"quality": 95}
    data = saved(photo(), form, **options)
    assert kind(data) == {"TIFF": "TIFF", "AVIF": "AVIF", "HEIF": "HEIC"}[form]
    found = readable(data)
    assert kind(found) == "PNG" and readable(found) == found
    expected = pixels(saved(photo()), (64, 64)).numpy()
    assert np.abs(pixels(found, (64, 64)).numpy() - expected).mean() < (
        1e-6 if form == "TIFF" else 0.02
    )
    side = Image.Exif()
    side[0x0112] = 6
    turned = readable(
        saved(photo().transpose(Image.Transpose.ROTATE_90), form, exif=side.tobytes(), **options)
    )
    assert np.abs(pixels(turned, (64, 64)).numpy() - expected).mean() < (
        1e-6 if form == "TIFF" else 0.03
    )


@pytest.mark.long
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_tiffs_of_every_kind_are_read(mode):
    image = (
        Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000)
        if mode == "I;16"
        else photo(6, 8).convert(mode)
    )
    assert pixels(readable(saved(image, "TIFF")), (6, 8)).shape == (6, 8, 3)


def test_a_damaged_tiff_is_an_image_error(tmp_path):
    data = saved(photo(), "TIFF", compression="tiff_lzw")
    with pytest.raises(ImageError, match=r"a/one.tif is a TIFF that can't be decoded"):
        readable(data[: len(data) // 3], "a/one.tif")
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(4):
            (tmp_path / label / f"{i}.tif").write_bytes(saved(photo(8 + i, 8 + ord(label)), "TIFF"))
    (tmp_path / "a/one.tif").write_bytes(data[: len(data) // 3])
    with pytest.raises(
        ImageError, match=r"1 of 9 photos can't be read: a/one.tif is a TIFF that can't be decoded"
    ):
        load(tmp_path)
    examples = load(tmp_path, skip_bad_images=True)
    assert len(examples) == 8 and kind(examples.read(0)) == "PNG"


def test_without_the_extra_the_line_to_type_is_named(tmp_path, monkeypatch):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            (tmp_path / label / f"{i}.png").write_bytes(
                png(np.full((4, 4), 2 * ord(label) + 5 * i, np.uint8))
            )
    (tmp_path / "a/phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    # With None in sys.modules, Python raises the same error as where a package is missing.
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(
        MissingExtraError,
        match=r'a/phone.HEIC: reading HEIC files needs .* pip install "tfxfer\[heic\]"',
    ):
        load(tmp_path)
    (tmp_path / "b/empty.png").touch()
    with pytest.raises(ImageError, match=r'b/empty\.png is empty.*pip install "tfxfer\[heic\]"'):
        load(tmp_path)
    examples = load(tmp_path, skip_bad_images=True)
    assert len(examples) == 6 and any(
        "a/phone.HEIC" in note and 'pip install "tfxfer[heic]"' in note for note in examples.notes
    )


def test_grey_with_alpha_keeps_its_alpha():
    assert Image.open(io.BytesIO(readable(saved(photo().convert("LA"), "TIFF")))).mode == "RGBA"


@pytest.mark.long
@pytest.mark.parametrize("between", [b"\0\0", b"junk", b"\xff\xff\xff", b"\xff\0"])
def test_bytes_between_the_segments_of_a_jpeg_do_no_harm(between):
    whole = saved(photo(), "JPEG")
    at = whole.index(b"\xff\xdb")
    odd = whole[:at] + between + whole[at:]
    assert problem(odd) is None
    np.testing.assert_array_equal(pixels(odd, (32, 32)), pixels(whole, (32, 32)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page"),
        (b"%PDF-1.7", "a PDF"),
        (bytes(4096), "zeros"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a film"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_what_lies_in_place_of_a_photo_is_named(content, said):
    assert said in (problem(content) or "")


def test_no_place_in_memory_is_told_of_a_damaged_file():
    with pytest.raises(ImageError) as error:
        readable(b"II*\0" + bytes(40), "scan.tif")
    assert "0x" not in str(error.value)
