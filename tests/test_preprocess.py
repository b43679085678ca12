"""Pixels: the same by every way of calling, and the same as Pillow makes of the file."""

import base64
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from tfxfer.inputs.image.decode import fingerprint, pixels

SIZE = (48, 64)
STORED_AS = {  # how a file with this orientation lies
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Made with pillow-jxl-plugin 1.3.8, lossless, 12 x 8: the upper four rows are 30, the lower four
# are 200. The second image has alpha 128 on the left half.
JXL = base64.b64decode("/woBQSQIAAEAdABLGIsVANQgGWNj1AVCAGAkyTCCnCoZ49qE4AcEBg==")
JXL_ALPHA = base64.b64decode("/woBwUoIABAAjABLGJOOg4MAqCEyxkj1AkIABFMutEBODZC4fWHAoL5hKwFvAA==")


def photo(height=123, width=171) -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")[100 : 100 + height, 200 : 200 + width])


def saved(image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int, big: bool = True) -> bytes:
    """An EXIF block, written by hand: maker, orientation, and a LONG behind them."""
    order = ">" if big else "<"
    entries = [
        struct.pack(f"{order}HHI", 0x010F, 2, 4) + b"abc\0",
        struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0),
        struct.pack(f"{order}HHII", 0x0201, 4, 1, 3),
    ]
    header = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}IH", 8, len(entries))
    return b"Exif\0\0" + header + b"".join(entries) + bytes(4)


def second_way(encoded: bytes, size=SIZE) -> np.ndarray:
    """Pillow's decoder, EXIF, alpha and resize, from 0 to 1."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode.startswith("I;16"):
        values = np.repeat(np.asarray(image, np.float32)[..., None] / 65535, 3, -1)
    else:
        rgba = np.asarray(image.convert("RGBA"), np.float32) / 255
        values = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    height, width = values.shape[:2]
    factor = max(size[0] / height, size[1] / width)
    new = max(round(height * factor), size[0]), max(round(width * factor), size[1])
    channels = [
        np.asarray(Image.fromarray(values[..., i]).resize(new[::-1], Image.Resampling.BILINEAR))
        for i in range(3)
    ]
    top, left = (new[0] - size[0]) // 2, (new[1] - size[1]) // 2
    return np.stack(channels, -1)[top : top + size[0], left : left + size[1]]


def difference(encoded: bytes, size=SIZE) -> float:
    return float(np.abs(pixels(encoded, size).numpy() - second_way(encoded, size)).max())


FILES = {
    "jpeg": lambda: saved(photo(), "JPEG", quality=90),
    "jpeg_progressive": lambda: saved(photo(), "JPEG", quality=90, progressive=True),
    "jpeg_grey": lambda: saved(photo().convert("L"), "JPEG", quality=90),
    "png": lambda: saved(photo()),
    "png_grey": lambda: saved(photo().convert("L")),
    "png_bilevel": lambda: saved(photo().convert("1")),
    "png_palette": lambda: saved(photo().quantize(64)),
    "png_transparent_colour": lambda: saved(photo().quantize(64), transparency=3),
    "png_grey_alpha": lambda: saved(clear(photo()).convert("LA")),
    "png_alpha": lambda: saved(clear(photo())),
    "webp": lambda: saved(photo(), "WEBP", quality=90),
    "webp_lossless_alpha": lambda: saved(clear(photo()), "WEBP", lossless=True),
    "gif": lambda: saved(photo().quantize(64), "GIF"),
    "bmp": lambda: saved(photo(), "BMP"),
    "bmp_grey": lambda: saved(photo().convert("L"), "BMP"),
    "bmp_palette": lambda: saved(photo().quantize(64), "BMP"),
    "bmp_with_bytes_behind": lambda: saved(photo(), "BMP") + b"\0\0",
}


def clear(image: Image.Image) -> Image.Image:
    """The image, from opaque on the left to nearly transparent on the right."""
    alpha = np.tile(np.linspace(255, 5, image.width).astype(np.uint8), (image.height, 1))
    return Image.fromarray(np.dstack([np.asarray(image), alpha]))


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_what_pillow_gives(name):
    # WebP's lossy decoders differ in how they spread colour over neighbours, by no more than 2 of
    # 255. Pillow rounds grey and alpha when it converts.
    assert difference(FILES[name]()) < (0.01 if name == "webp" else 2e-5)


def test_sixteen_bits_are_not_cut_off_to_eight():
    ramp = np.linspace(0, 65535, 120 * 120).astype(np.uint16).reshape(120, 120)
    encoded = saved(Image.fromarray(ramp))
    assert difference(encoded) < 1e-5
    assert len(np.unique(pixels(encoded, (120, 120)).numpy())) > 10_000


def test_cmyk_is_close_to_pillow_and_not_inverted():
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:32, :32], colours[:32, 32:], colours[32:, :32], colours[32:, 32:] = (
        (255, 0, 0),
        (0, 160, 0),
        (0, 0, 255),
        (240, 240, 240),
    )
    encoded = saved(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(pixels(encoded, (64, 64)).numpy() - second_way(encoded, (64, 64))).mean() < 0.005


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        encoded = saved(
            frames[0],
            form,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if form == "WEBP" else {}),
        )
        np.testing.assert_allclose(
            pixels(encoded, (4, 4)).numpy(), np.broadcast_to([1.0, 0, 0], (4, 4, 3)), atol=1e-6
        )


def test_jpeg_xl_is_read_and_its_alpha_laid_over_white():
    plain, clear = pixels(JXL, (8, 12)).numpy() * 255, pixels(JXL_ALPHA, (8, 12)).numpy() * 255
    np.testing.assert_allclose(plain[:4], 30, atol=0.01)
    np.testing.assert_allclose(plain[4:], 200, atol=0.01)
    np.testing.assert_allclose(clear[0, 0], 30 * 128 / 255 + 127, atol=0.01)
    np.testing.assert_allclose(clear[0, -1], 30, atol=0.01)


@pytest.mark.long
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_a_rotated_photo_equals_the_upright_one(orientation, form):
    # 171 x 123 leaves an odd number of spare pixels, so that the crop's rounding shows.
    lossless = {"lossless": True} if form == "WEBP" else {}
    upright = pixels(saved(photo(), form, **lossless), SIZE).numpy()
    stored = photo().transpose(STORED_AS[orientation]) if orientation in STORED_AS else photo()
    for big in (True, False):
        turned = pixels(saved(stored, form, exif=exif(orientation, big), **lossless), SIZE).numpy()
        np.testing.assert_allclose(turned, upright, atol=2e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_jpeg_is_turned_as_pillow_turns_it(orientation):
    stored = photo().transpose(STORED_AS[orientation]) if orientation in STORED_AS else photo()
    for big in (True, False):
        assert difference(saved(stored, "JPEG", quality=92, exif=exif(orientation, big))) < 2e-5


def test_odd_exif_means_upright():
    upright = pixels(saved(photo(), "JPEG"), SIZE).numpy()
    huge = exif(6)[:14] + b"\xff\xff" + exif(6)[16:]  # a directory of 65,535 entries
    far = b"Exif\0\0MM\0*\x7f\xff\xff\xff" + b"\0" * 40
    for odd in (
        b"Exif\0\0",
        b"Exif\0\0MM",
        b"Exif\0\0XX\0*\0\0\0\x08",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0",
        far,
        exif(0),
        exif(9),
        exif(600),
        b"http://ns.adobe.com/xap/1.0/\0",
    ):
        np.testing.assert_array_equal(
            pixels(saved(photo(), "JPEG", exif=odd), SIZE).numpy(), upright
        )
    assert pixels(saved(photo(), "JPEG", exif=huge), SIZE).shape == (*SIZE, 3)


def test_an_orientation_behind_other_segments_is_found():
    encoded = saved(photo(), "JPEG", exif=exif(3))
    comment = b"\xff\xfe" + (30_002).to_bytes(2, "big") + b"x" * 30_000
    assert encoded[2:4] == b"\xff\xe1" or encoded[2:4] == b"\xff\xe0"
    np.testing.assert_array_equal(
        pixels(encoded[:2] + comment + encoded[2:], SIZE).numpy(), pixels(encoded, SIZE).numpy()
    )


@pytest.mark.long
@pytest.mark.parametrize("size", [(224, 224), (48, 64), (64, 48), (7, 200), (1, 1)])
@pytest.mark.parametrize("shape", [(123, 171), (171, 123), (50, 50), (3, 400), (1, 1)])
def test_resizing_and_cropping_at_once_equals_resizing_then_cropping(size, shape):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    factor = max(size[0] / shape[0], size[1] / shape[1])
    new = max(round(shape[0] * factor), size[0]), max(round(shape[1] * factor), size[1])
    top, left = (new[0] - size[0]) // 2, (new[1] - size[1]) // 2
    expected = (
        tf.image.resize(values, new, antialias=True).numpy()[
            top : top + size[0], left : left + size[1]
        ]
        / 255
    )
    np.testing.assert_allclose(
        pixels(saved(Image.fromarray(values)), size).numpy(), expected, atol=1e-4
    )


def test_a_large_jpeg_is_decoded_smaller_and_stays_close():
    encoded = saved(Image.fromarray(load_sample_image("china.jpg")), "JPEG", quality=90)
    off = np.abs(pixels(encoded, (100, 100)).numpy() - second_way(encoded, (100, 100)))
    assert 0 < off.mean() < 2.5 / 255  # a half: 427 rows, twice 100 and more
    assert difference(encoded, (108, 108)) < 2e-5  # 427 is less than 4 x 108: decoded whole


@pytest.mark.long
def test_eager_tf_data_and_an_exported_function_agree_bit_for_bit(tmp_path):
    files = [make() for make in FILES.values()] + [
        saved(photo(), "JPEG", exif=exif(6)),
        saved(photo(500, 400), "JPEG"),
        JXL_ALPHA,
    ]
    eager = [pixels(encoded, SIZE, (-1.0, 1.0)).numpy() for encoded in files]
    dataset = tf.data.Dataset.from_tensor_slices(files).map(
        lambda encoded: pixels(encoded, SIZE, (-1.0, 1.0)), num_parallel_calls=2
    )
    np.testing.assert_array_equal(list(dataset.as_numpy_iterator()), eager)
    module = tf.Module()

    def batch(encoded):
        return tf.map_fn(
            lambda one: pixels(one, SIZE, (-1.0, 1.0)), encoded, fn_output_signature=tf.float32
        )

    module.serve = tf.function(batch, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "export"))
    np.testing.assert_array_equal(
        tf.saved_model.load(str(tmp_path / "export")).serve(tf.constant(files)), eager
    )


def test_no_python_runs_inside():
    function = tf.function(
        lambda encoded: pixels(encoded, SIZE), input_signature=[tf.TensorSpec([], tf.string)]
    ).get_concrete_function()
    graph = function.graph.as_graph_def()
    used = {node.op for node in graph.node} | {
        node.op for inner in graph.library.function for node in inner.node_def
    }
    assert not used & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile"}
    assert function.output_shapes == (*SIZE, 3)


def test_the_value_range_comes_last():
    encoded = saved(photo())
    unit = pixels(encoded, SIZE).numpy()
    assert unit.min() >= 0 and unit.max() <= 1 and unit.dtype == np.float32
    np.testing.assert_allclose(pixels(encoded, SIZE, (-1.0, 1.0)).numpy(), unit * 2 - 1, atol=1e-6)
    np.testing.assert_allclose(pixels(encoded, SIZE, (0.0, 255.0)).numpy(), unit * 255, rtol=1e-6)


def test_what_is_no_image_fails_with_the_formats_that_are_read():
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG, JPEG XL, PNG, GIF, BMP, WebP"):
        pixels(b"hello, this is text and no image at all", SIZE)
    with pytest.raises(tf.errors.InvalidArgumentError):
        pixels(b"", SIZE)
    with pytest.raises(tf.errors.InvalidArgumentError):
        pixels(saved(photo(), "JPEG")[:2000], SIZE)
    for start in (b"BM", b"RIFF\0\0\0\0WEBP", b"\x89PNG", b"\xff\xd8\xff", b"GIF89a"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            pixels(start + b"\0" * 60, SIZE)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"image_size=\(0, 5\)"):
        pixels(JXL, (0, 5))
    with pytest.raises(ValueError, match=r"value_range=\(1, 0\)"):
        pixels(JXL, (5, 5), (1, 0))


def test_the_fingerprint_holds_all_that_decides_a_pixel():
    assert fingerprint((48, 64), (-1, 1)) == {
        "version": 2,
        "image_size": [48, 64],
        "value_range": [-1.0, 1.0],
    }


def test_the_orientation_of_a_second_picture_in_the_file_is_not_taken():
    plain, turned = saved(photo(), "JPEG"), saved(photo().resize((20, 10)), "JPEG", exif=exif(6))
    np.testing.assert_array_equal(pixels(plain + turned, SIZE), pixels(plain, SIZE))
