"""Turn the bytes of an image file into pixels, a float tensor, in TensorFlow operations only.

Training, prediction and serving all use this one definition. It gives the same result, bit for bit,
eagerly, in `tf.data` and in an exported SavedModel. The steps are: decode, turn upright (EXIF), lay
over white, resize the shorter side (bilinear, antialiased), crop the centre, scale the values.
"""

from typing import Any

import numpy as np
import simplejpeg
import tensorflow as tf

from tfxfer.inputs.image.headers import (
    BMP,
    PNG,
    WEBP,
    Measured,
    has,
    is_jpeg,
    measure,
    measure_jpeg,
)
from tfxfer.limits import LARGE_PIXELS, MOST_BYTES
from tfxfer.process.pipelines import as_one_operation

VERSION = 2  # raise it whenever any pixel of any image changes: cached features depend on it
SMALL = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))  # in place of a skipped image
HEAD = 1 << 17  # bytes from the start of a file within which the EXIF block may begin
EXIF = 1 << 16  # bytes that the EXIF block may have

# How a file stores the image, for EXIF's orientations 0 (none) to 8: is it lying on its side, are
# its rows reversed, are its columns reversed?
LYING = (0, 0, 0, 0, 0, 1, 1, 1, 1)
REVERSED = ((0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (1, 0), (1, 1), (0, 1))


def fingerprint(
    image_size: tuple[int, int], value_range: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    """Return all that decides a pixel besides the file, as JSON values: part of every cache key."""
    return {
        "version": VERSION,
        "image_size": [int(side) for side in image_size],
        "value_range": [float(end) for end in value_range],
    }


# AutoGraph has nothing to convert here, and looking for it doubles the time of tracing.
@tf.autograph.experimental.do_not_convert
def pixels(
    encoded: tf.Tensor, image_size: tuple[int, int], value_range: tuple[float, float] = (0.0, 1.0)
) -> tf.Tensor:
    """Decode one image to the pixels that a network expects.

    The formats are JPEG (also CMYK), PNG (8 and 16 bit, grey, palette, alpha), WebP, BMP, GIF
    (first frame) and JPEG XL. The EXIF orientation of JPEG, PNG and WebP is applied (JPEG XL has
    its own). Alpha is laid over white, except in BMP, where it is ignored, and in GIF, whose
    transparent pixels are black.

    Args:
        encoded: the file's content, a scalar string tensor.
        image_size: height and width in pixels; the shorter side is resized to cover it and the
            centre is kept.
        value_range: the values of black and white.

    Returns:
        float32 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no image of these formats, or are damaged.
        ValueError: a wrong `image_size` or `value_range`.
    """
    height, width = image_size
    low, high = value_range
    if height < 1 or width < 1 or not low < high:
        raise ValueError(
            "Expected image_size of at least (1, 1) and value_range (low, high). Received: "
            f"{image_size=}, {value_range=}"
        )
    return _decode(encoded, (int(height), int(width)), value_range, skip_large=False)[0]


@tf.autograph.experimental.do_not_convert
def pixels_unless_large(
    encoded: tf.Tensor, image_size: tuple[int, int], value_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one image like `pixels`, but only where it is not large.

    Many images are decoded at once, and the memory that a large one needs, times the number of
    cores, may be more than there is. So decode with this function in parallel, and then decode the
    large images with `pixels`, one after the other.

    Returns:
        The pixels, and False; for a large image any pixels, and True.
    """
    return _decode(encoded, image_size, value_range, skip_large=True)


def pixels_of_many(
    encoded: tf.Tensor, image_size: tuple[int, int], value_range: tuple[float, float]
) -> tf.Tensor:
    """Decode images, string [B], like `pixels`, one after the other."""
    return tf.map_fn(
        lambda one: pixels(one, image_size, value_range), encoded, fn_output_signature=tf.float32
    )


def pack(decoded: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
    """Return pixels as whole numbers from 0 to 255, uint8."""
    low, high = value_range
    whole = tf.round((decoded - low) * (255 / (high - low)))
    return tf.cast(tf.clip_by_value(whole, 0, 255), tf.uint8)


def unpack(packed: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
    """Return whole numbers from 0 to 255 as pixels, float32."""
    low, high = value_range
    return low + (high - low) / 255 * tf.cast(packed, tf.float32)


def grey_jpeg(image_size: tuple[int, int]) -> bytes:
    """Return a grey image of this size, as a JPEG."""
    return tf.io.encode_jpeg(tf.fill((*image_size, 3), tf.constant(128, tf.uint8))).numpy()


def _decode(
    encoded: tf.Tensor, size: tuple[int, int], value_range: tuple[float, float], skip_large: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the pixels, and whether the image is large."""
    low, high = value_range
    encoded = tf.ensure_shape(tf.convert_to_tensor(encoded, tf.string), [])
    read = _any_format
    if tf.executing_eagerly():  # most photos are JPEG, and the other formats take a second to trace
        read = _only_jpeg if is_jpeg(encoded) else _measured
    image, large = read(encoded, tf.constant(size, tf.int32), tf.constant(skip_large))
    return tf.ensure_shape(image * ((high - low) / 255.0) + low, [*size, 3]), large


# Tracing takes two seconds. As the wanted size is a tensor, it is done once for all networks.
SIGNATURE = [tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.bool)]


@tf.function(autograph=False, input_signature=SIGNATURE)
def _any_format(
    encoded: tf.Tensor, size: tf.Tensor, skip_large: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one image to float32 [height, width, 3] from 0 to 255, and say whether it is large.

    JPEG has a single branch, since each branch costs a tenth of a millisecond.

    Args:
        size: height and width of the result.
        skip_large: whether a large image may be left undecoded.
    """
    return tf.cond(
        is_jpeg(encoded),
        lambda: _measured_jpeg(encoded, size, skip_large),
        lambda: _measured(encoded, size, skip_large),
    )


def _measured_jpeg(
    encoded: tf.Tensor, size: tf.Tensor, skip_large: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a JPEG; see `_any_format`."""
    encoded, pixels, before = measure_jpeg(encoded)
    large = pixels > LARGE_PIXELS
    # A large image that may be skipped is replaced by a small one, which saves a branch.
    encoded = tf.where(large & skip_large, SMALL, encoded)
    return _cover(*_jpeg(encoded, before, size), size), large


_only_jpeg = tf.function(_measured_jpeg, autograph=False, input_signature=SIGNATURE)


@as_one_operation
def _measured(
    encoded: tf.Tensor, size: tf.Tensor, skip_large: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode an image of another format; see `_any_format`."""
    measured = measure(encoded)
    large = measured.pixels > LARGE_PIXELS
    image = tf.cond(
        large & skip_large,
        lambda: tf.zeros(tf.concat([size, [3]], 0)),
        lambda: _not_jpeg(measured, size),
    )
    return image, large


# --- Formats: encoded -> the image as stored, [H, W, 1 to 4], and the orientation ---


def _jpeg(encoded: tf.Tensor, before: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a JPEG file to uint8.

    Args:
        before: the bytes before the first scan.
        size: height and width to which the image will be resized.
    """
    # INTEGER_ACCURATE is what Pillow and browsers use. INTEGER_FAST, TensorFlow's default, saves
    # 4 % of the time for decoding (256 and 1,000 px) and changes each pixel by 0.9 of 255 on
    # average, which is not worth it.
    # A photo that is larger than needed is decoded at a half or a quarter of its size (libjpeg's
    # scaled DCT), but never below twice the target, so that the antialiased resize still decides
    # the result. For a target of 224 this takes 5.0 instead of 7.1 ms at 1,000 px and 17 instead of
    # 44 ms at 3,000 px. The pixels differ by 1 to 2 of 255 on average just above the size where it
    # begins. An eighth made that 3 of 255, and is left out.
    # Decoding only what the crop keeps (decode_and_crop_jpeg) saved 0 to 8 %, which is not worth
    # its rules for borders.
    # After the first scan, another picture may have an EXIF block of its own.
    turn = _orientation(before, b"Exif\0\0", HEAD, skip=0)
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.float64)
    spare = tf.reduce_min(shape / _as_stored(size, turn)) / 2
    step = tf.reduce_sum(tf.cast(spare >= [2.0, 4.0], tf.int32))

    def decode(ratio: int) -> Any:
        return lambda: tf.io.decode_jpeg(
            encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    return tf.switch_case(step, [decode(1), decode(2), decode(4)]), turn


def _not_jpeg(measured: Measured, size: tf.Tensor) -> tf.Tensor:
    """Decode another format to float32 [height, width, 3] from 0 to 255.

    The first bytes tell the format; the file's name does not matter.
    """
    encoded, form, _, head = measured
    # The EXIF block of a WebP comes last, and has its length after its mark.
    webp = form == WEBP
    turn = _orientation(
        encoded,
        tf.where(webp, b"EXIF", b"eXIf"),
        tf.where(webp, tf.int32.max, HEAD),
        skip=tf.where(webp, 4, 0),
    )
    return tf.cond(
        (form == PNG) & (head[24] == 16),
        # If 16 bits were read as 8, the values would be cut off, not rounded.
        lambda: _cover(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16), turn, size),
        lambda: _cover(_eight_bits(encoded, form, head), turn, size),
    )


def _eight_bits(encoded: tf.Tensor, form: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """Decode a file with at most 8 bits per channel to uint8 [H, W, 1 to 4]."""
    png = form == PNG
    animated = (form == WEBP) & has(head, 12, b"VP8X") & (tf.bitwise.bitwise_and(head[20], 2) != 0)
    # TensorFlow 2.21 decodes an animation to four channels. Unless the file says that it has alpha,
    # there is memory for three only, and the process crashes (decode_image_op.cc: DecodeWebP). So
    # we change the file to say so: 0x12 is "animation, alpha".
    file = encoded
    encoded = tf.cond(
        animated,
        lambda: tf.strings.join(
            [
                tf.strings.substr(file, 0, 20),
                b"\x12",
                tf.strings.substr(file, 21, tf.int32.max),
            ]
        ),
        lambda: file,
    )
    readers = [
        # JPEG XL, GIF, WebP: as many channels as the file has.
        lambda: tf.io.decode_image(encoded, expand_animations=False),
        # Always four channels, since the decoder expands palette, grey and tRNS only then.
        lambda: tf.io.decode_png(encoded, channels=4),
        lambda: _opaque(tf.io.decode_png(encoded, channels=4), head[24]),
        lambda: _bmp(encoded),
    ]
    number = tf.reduce_sum(tf.cast([png, png & (head[24] < 8), form == BMP], tf.int32) * [1, 1, 3])
    return tf.switch_case(number, readers)


def _opaque(image: tf.Tensor, depth: tf.Tensor) -> tf.Tensor:
    """Correct the alpha channel of a PNG with less than 8 bits.

    Where such a file has no alpha, the decoder returns 2**depth - 1 as alpha instead of 255
    (png_io.cc: the filler is not scaled).
    """
    alpha = image[..., 3:]
    filler = tf.bitwise.left_shift(tf.constant(1, tf.uint8), depth) - 1
    return tf.concat(
        [
            image[..., :3],
            tf.where(tf.reduce_all(alpha == filler), tf.constant(255, tf.uint8), alpha),
        ],
        -1,
    )


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(encoded, tf.uint8, fixed_length=2048)
    numbers = tf.bitcast(tf.reshape(tf.gather(data, [*range(10, 26)]), [4, 4]), tf.int32)
    start, header, width, height = tf.unstack(tf.cast(numbers, tf.int64))
    deep = tf.cast(data[28], tf.int64)
    # The decoder refuses files with bytes after the pixels, which some programs write.
    needed = start + (deep // 8 * width + 3) // 4 * 4 * tf.abs(height)
    needed = tf.clip_by_value(needed, 32, MOST_BYTES)
    image = tf.io.decode_bmp(tf.strings.substr(encoded, 0, tf.cast(needed, tf.int32)), channels=3)

    def colours() -> tf.Tensor:
        # The decoder returns indices into the palette as if they were greys.
        first = 14 + tf.clip_by_value(header, 12, 1000)
        palette = tf.reshape(data[first : first + 1024], [256, 4])[:, 2::-1]
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    return tf.cond(deep == 8, colours, lambda: image)


def _over_white(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Lay an image over white: uint8 or uint16 [H, W, 1 to 4] -> [H, W, 3], and the value of white.

    The second or fourth channel is alpha. 8 bits become uint16, which holds the product of colour
    and alpha exactly and takes half the memory of float32; so the result does not depend on the
    order in which an optimizer multiplies. 16 bits become float32.
    """
    channels, whole = tf.shape(image)[-1], image.dtype.max
    wide = tf.uint16 if image.dtype == tf.uint8 else tf.float32
    alpha = image[..., -1:]

    def colour() -> tf.Tensor:
        grey = tf.cond(
            channels < 3, lambda: tf.tile(image[..., :1], [1, 1, 3]), lambda: image[..., :3]
        )
        return tf.cast(grey, wide)

    def laid() -> tuple[tf.Tensor, tf.Tensor]:
        background = tf.cast(whole - alpha, wide) * whole
        return colour() * tf.cast(alpha, wide) + background, tf.constant(float(whole) ** 2)

    return tf.cond(
        (channels % 2 == 0) & tf.reduce_any(alpha != whole),
        laid,
        lambda: (colour(), tf.constant(float(whole))),
    )


# --- Pixels: crop, resize, turn ---


def _as_stored(size: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Return the wanted size on the axes of the image as it is stored, float64 [2]."""
    return tf.cast(tf.where(tf.gather(LYING, turn) == 1, size[::-1], size), tf.float64)


def _cover(image: tf.Tensor, turn: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Lay over white, resize so that the size is covered, crop the centre, and turn upright.

    It maps [H, W, 1 to 4] to float32 [height, width, 3] from 0 to 255. Up to rounding in float32,
    the result equals that of `tf.image.resize(antialias=True)` to the rounded size followed by the
    crop, but only the pixels that are kept are computed.
    """
    white = None
    target, whole = _as_stored(size, turn), tf.shape(image)[:2]
    shape = tf.cast(whole, tf.float64)
    rounded = tf.maximum(tf.round(shape * tf.reduce_max(target / shape)), target)
    # If an odd number of pixels is cropped, the extra one is on the same side of the upright image
    # however the file stores the image.
    start = tf.floor((rounded - target + tf.gather(tf.constant(REVERSED, tf.float64), turn)) / 2)
    scale = rounded / shape
    # Radius of the antialiasing kernel, in pixels of the file, and some more.
    reach = 1.0 / tf.minimum(scale, 1.0) + 2.0
    first = tf.maximum(tf.floor(start / scale - reach), 0.0)
    last = tf.minimum(tf.math.ceil((start + target) / scale + reach), shape)
    image = tf.slice(
        image,
        tf.pad(tf.cast(first, tf.int32), [[0, 1]]),
        tf.pad(tf.cast(last - first, tf.int32), [[0, 1]], constant_values=-1),
    )
    if image.shape[-1] != 3:  # static shape: only JPEG has 3 here, and it has no alpha
        image, white = _over_white(image)
    # Resize rows, then columns by the same operation on the transposed image: ScaleAndTranslate's
    # own pass over columns isn't vectorised, and made the whole 2.3 times slower. The numbers are
    # the same, bit for bit.
    rows, columns = tf.unstack(tf.cast(target, tf.int32))
    (high, wide), (down, right) = (
        tf.unstack(tf.cast(scale, tf.float32)),
        tf.unstack(tf.cast(first * scale - start, tf.float32)),
    )
    sideways = tf.transpose(_resize_rows(image, rows, high, offset=down), [1, 0, 2])
    done = _resize_rows(sideways, columns, wide, offset=right)  # [columns, rows, 3]
    upright = tf.cond(
        turn == 1, lambda: tf.transpose(done, [1, 0, 2]), lambda: _upright(done, turn)
    )
    if white is not None:
        upright *= 255.0 / white
    return upright


def _resize_rows(
    image: tf.Tensor, rows: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor
) -> tf.Tensor:
    """Resize [H, W, 3] to float32 [rows, W, 3]; each row is treated as a pixel of 3 W channels."""
    shape = tf.shape(image)
    flat = tf.reshape(image, [1, shape[0], 1, -1])
    resized = tf.raw_ops.ScaleAndTranslate(
        images=flat,
        size=[rows, 1],
        scale=[scale, 1.0],
        translation=[offset, 0.0],
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(resized, [rows, shape[1], 3])


def _upright(sideways: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turn an image upright: stored [columns, rows, 3] -> upright [height, width, 3]."""
    image = tf.transpose(sideways, tf.where(tf.gather(LYING, turn) == 1, [0, 1, 2], [1, 0, 2]))
    reverse = tf.gather(REVERSED, turn)
    step = 1 - 2 * tf.where(tf.gather(LYING, turn) == 1, reverse[::-1], reverse)
    return image[:: step[0], :: step[1]]


# --- EXIF ---


def _orientation(
    encoded: tf.Tensor, mark: bytes | tf.Tensor, reach: int | tf.Tensor, skip: int | tf.Tensor
) -> tf.Tensor:
    """Return the orientation, 1 to 8, int32; it is 1, upright, where the EXIF block is unusual.

    The EXIF block is found by a search for its mark within the first `reach` bytes, not by reading
    segment after segment, since a loop costs more than the search. Bytes that only look like a mark
    are not followed by a TIFF header.
    """
    parts = tf.raw_ops.StringSplitV2(
        input=tf.strings.substr(encoded, 0, reach)[None], sep=mark, maxsplit=1
    ).values

    def read() -> tf.Tensor:
        data = tf.io.decode_raw(parts[1], tf.uint8, fixed_length=EXIF)[skip:]
        # Some programs that write WebP put these six bytes before the TIFF header.
        tiff = tf.cond(has(data, 0, b"Exif\0\0"), lambda: data[6:], lambda: tf.identity(data))
        return tf.cond(
            has(tiff, 0, b"II*\0") | has(tiff, 0, b"MM\0*"),
            lambda: _tiff_orientation(tiff),
            lambda: tf.constant(1),
        )

    return tf.cond(tf.size(parts) > 1, read, lambda: tf.constant(1))


def _tiff_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Return the SHORT with tag 0x0112 in the first directory; 1 where none is within reach."""
    big = tiff[0] == ord("M")

    def numbers(data: tf.Tensor, *shape: int) -> tf.Tensor:  # numbers of two bytes each
        return tf.reduce_sum(
            tf.cast(tf.reshape(data, [*shape, 2]), tf.int32) * tf.where(big, [256, 1], [1, 256]), -1
        )

    offset = numbers(tiff[4:8], 2)
    high, low = tf.where(big, offset[0], offset[1]), tf.where(big, offset[1], offset[0])
    directory = tf.where(high == 0, tf.minimum(low, EXIF // 2), EXIF // 2)
    count = tf.minimum(numbers(tiff[directory : directory + 2], 1)[0], 1000)
    # Each entry: tag, type, count (2), value (2).
    entries = numbers(tiff[directory + 2 : directory + 2 + 12 * count], -1, 6)
    tag, kind, value = entries[:, 0], entries[:, 1], entries[:, 4]
    right = (tag == 0x0112) & (kind == 3) & (value >= 1) & (value <= 8)
    # The maximum of no values is the smallest int32, which becomes 1.
    return tf.maximum(tf.reduce_max(tf.where(right, value, 0)), 1)
