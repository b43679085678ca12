"""What a pixel is: encoded bytes -> float tensor, in TensorFlow operations only.

The one definition, used by training, prediction and serving. It runs the same, bit for bit, eagerly, in `tf.data` and in an exported SavedModel:
decode, turn upright (EXIF), lay over white, resize the shorter side (bilinear, antialiased), crop the centre, scale the values.
"""

from typing import Any

import tensorflow as tf

VERSION = 1  # raise it whenever any pixel of any image changes: cached features hang on it
HEAD = 1 << 17  # how far into a JPEG or PNG the EXIF block is looked for; one APP segment is at most 64 KiB long

# The orientations of EXIF 0 (none), 1 to 8: swap the axes first, then reverse the rows, then the columns.
TRANSPOSED = (0, 0, 0, 0, 0, 1, 1, 1, 1)
ROWS_REVERSED = (0, 0, 0, 1, 1, 0, 0, 1, 1)
COLUMNS_REVERSED = (0, 0, 1, 1, 0, 0, 1, 1, 0)


def fingerprint(image_size: tuple[int, int], value_range: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    """All that decides a pixel besides the file, as JSON values: part of every cache key."""
    return {"version": VERSION, "image_size": [int(side) for side in image_size], "value_range": [float(end) for end in value_range]}


def pixels(encoded: tf.Tensor, image_size: tuple[int, int], value_range: tuple[float, float] = (0.0, 1.0)) -> tf.Tensor:
    """Decode one image to what a network reads.

    JPEG (also CMYK), PNG (8 and 16 bit, grey, palette, alpha), WebP, BMP, GIF (first frame) and JPEG XL. The EXIF orientation of JPEG, PNG and WebP is
    obeyed (JPEG XL carries its own). Alpha is laid over white, except in BMP, where it is ignored, and in GIF, whose transparent pixels are black.

    Args:
        encoded: the file's content, a scalar string tensor.
        image_size: height and width in pixels; the shorter side is resized to cover it and the centre is kept.
        value_range: what black and white become.

    Returns:
        float32 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no image of these formats, or damaged.
        ValueError: a wrong `image_size` or `value_range`.
    """
    height, width = image_size
    low, high = value_range
    if height < 1 or width < 1 or not low < high:
        raise ValueError(f"Expected image_size of at least (1, 1) and value_range (low, high). Received: {image_size=}, {value_range=}")
    encoded = tf.ensure_shape(tf.convert_to_tensor(encoded, tf.string), [])
    size = (int(height), int(width))
    jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    image = tf.cond(jpeg, lambda: _cover(*_jpeg(encoded, size), size), lambda: _cover(*_not_jpeg(encoded), size))
    return tf.ensure_shape(image * ((high - low) / 255.0) + low, [*size, 3])


# --- Formats: encoded -> [H, W, 3] from 0 to 255 as stored, and the orientation -----------------------------------------------------------------------


def _jpeg(encoded: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8. The size is what it is wanted for."""
    # INTEGER_ACCURATE is what Pillow and browsers use. INTEGER_FAST, TensorFlow's default, saved 4 % of decoding at 256 and at 1,000 px and moved every
    # pixel by 1 / 255 on average: not worth it. A photo at least twice as large as needed is decoded at half, a quarter or an eighth (libjpeg's scaled
    # DCT), but never below twice the target, so that the antialiased resize still decides: see benchmarks/decode.py for what it wins and moves.
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=HEAD)
    turn = _orientation(head, _jpeg_exif(head))
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.float64)
    spare = tf.reduce_min(shape / tf.cast(_swap(size, turn), tf.float64)) / 2
    step = tf.reduce_sum(tf.cast(spare >= [2.0, 4.0, 8.0], tf.int32))

    def decode(ratio: int) -> Any:
        return lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    return tf.switch_case(step, [decode(1), decode(2), decode(4), decode(8)]), turn


def _not_jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """float32, alpha laid over white. The first bytes tell the format; the file's name plays no part."""
    data = tf.io.decode_raw(tf.strings.join([encoded, b"\0" * 32]), tf.uint8)
    png = _is(data, 0, b"\x89PNG")
    deep = png & (data[24] == 16)  # the bits of a channel; read as 8 they would be cut off, not rounded
    webp = _is(data, 0, b"RIFF") & _is(data, 8, b"WEBP")
    bmp = _is(data, 0, b"BM")
    number = tf.reduce_sum(tf.cast([png, deep, webp, bmp], tf.int32) * [1, 1, 3, 4])
    anything = lambda: tf.io.decode_image(encoded, expand_animations=False)  # noqa: E731
    readers = [
        lambda: _over_white(anything()),  # JPEG XL, GIF, and the errors
        # Four channels always, for the decoder expands palette, grey and tRNS only then.
        lambda: _over_white(tf.io.decode_png(encoded, channels=4)),
        lambda: _over_white(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16)),
        lambda: _over_white(anything()),  # three channels or four, as the WebP has them
        lambda: _bmp(encoded, data),
    ]
    exif = tf.case([(png, lambda: _png_exif(data)), (webp, lambda: _webp_exif(data))], default=lambda: tf.constant(-1))
    return tf.switch_case(number, readers), _orientation(data, exif)


def _bmp(encoded: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    start, header, bits = (_number(data, at, count, False) for at, count in ((10, 4), (14, 4), (28, 2)))
    width, height = _number(data, 18, 4, False), tf.abs(tf.bitcast(data[22:26], tf.int32))
    # The decoder refuses files with bytes behind the pixels, as some programs leave them.
    needed = start + (bits // 8 * width + 3) // 4 * 4 * height
    image = tf.io.decode_bmp(tf.strings.substr(encoded, 0, tf.maximum(needed, 32)), channels=3)

    def colours() -> tf.Tensor:  # the decoder takes the numbers of the colours for greys
        palette = tf.reshape(data[14 + header : tf.maximum(start - (start - 14 - header) % 4, 14 + header)], [-1, 4])[:256, 2::-1]
        return tf.gather(tf.concat([palette, tf.zeros([256, 3], tf.uint8)], 0), tf.cast(image[..., 0], tf.int32))

    return tf.cast(tf.cond(bits == 8, colours, lambda: image), tf.float32)


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """uint8 or uint16 [H, W, 1 to 4] -> float32 [H, W, 3] from 0 to 255; the second or fourth channel is alpha."""
    channels, whole = tf.shape(image)[-1], image.dtype.max
    colour = tf.cond(channels < 3, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3])
    colour = tf.cast(colour, tf.float32) * (255.0 / whole)

    def laid() -> tf.Tensor:
        opacity = tf.cast(image[..., -1:], tf.float32) / whole
        return colour * opacity + 255.0 * (1.0 - opacity)

    return tf.cond(channels % 2 == 0, laid, lambda: colour)


# --- Pixels -------------------------------------------------------------------------------------------------------------------------------------------


def _swap(size: tuple[int, int], turn: tf.Tensor) -> tf.Tensor:
    """The size in the frame of the stored image: orientations 5 to 8 lie on their side."""
    return tf.where(turn >= 5, size[::-1], size)


def _cover(image: tf.Tensor, turn: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """[H, W, 3] of any number type -> float32 [height, width, 3]: resize so that the size is covered, crop the centre, turn upright.

    Equal to `tf.image.resize(antialias=True)` to the rounded size followed by the crop, up to rounding in float32; only what is kept is computed.
    """
    target, shape = _swap(size, turn), tf.shape(image)[:2]
    shape64 = tf.cast(shape, tf.float64)
    rounded = tf.maximum(tf.cast(tf.round(shape64 * tf.reduce_max(tf.cast(target, tf.float64) / shape64)), tf.int32), target)
    spare = rounded - target
    # An odd spare pixel goes to the same side of the upright image however the file stores it.
    reversed_axes = tf.stack([tf.gather(ROWS_REVERSED, turn), tf.gather(COLUMNS_REVERSED, turn)])
    reversed_axes = tf.where(turn >= 5, reversed_axes[::-1], reversed_axes)
    start = tf.where(reversed_axes == 1, spare - spare // 2, spare // 2)
    scale = tf.cast(rounded, tf.float64) / shape64
    reach = 1.0 / tf.minimum(scale, 1.0) + 2.0  # of the antialiasing kernel, in pixels of the file, and some
    first = tf.maximum(tf.cast(tf.cast(start, tf.float64) / scale - reach, tf.int32), 0)
    last = tf.minimum(tf.cast(tf.cast(start + target, tf.float64) / scale + reach, tf.int32) + 1, shape)
    offset = tf.cast(tf.cast(first, tf.float64) * scale - tf.cast(start, tf.float64), tf.float32)
    scale = tf.cast(scale, tf.float32)
    image = image[first[0] : last[0], first[1] : last[1]]
    # Rows, then columns by the same rows-only operation on the transposed image: ScaleAndTranslate's own pass over columns isn't vectorised and made
    # the whole 2.3 times slower. The numbers are the same, bit for bit.
    sideways = tf.transpose(_resize_rows(image, target[0], scale[0], offset[0]), [1, 0, 2])
    done = _resize_rows(sideways, target[1], scale[1], offset[1])  # [columns, rows, 3]
    return tf.ensure_shape(_upright(done, turn), [*size, 3])


def _resize_rows(image: tf.Tensor, rows: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] -> float32 [rows, W, 3]; a row is taken for one pixel with 3 W channels."""
    shape = tf.shape(image)
    flat = tf.reshape(image, [1, shape[0], 1, shape[1] * 3])
    resized = tf.raw_ops.ScaleAndTranslate(
        images=flat, size=tf.stack([rows, 1]), scale=tf.stack([scale, 1.0]), translation=tf.stack([offset, 0.0]), kernel_type="triangle", antialias=True
    )
    return tf.reshape(resized, [rows, shape[1], 3])


def _upright(sideways: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Stored [columns, rows, 3] -> upright [height, width, 3]."""
    image = tf.transpose(sideways, tf.where(turn >= 5, [0, 1, 2], [1, 0, 2]))

    def reverse() -> tf.Tensor:
        step = 1 - 2 * tf.stack([tf.gather(ROWS_REVERSED, turn), tf.gather(COLUMNS_REVERSED, turn)])
        return image[:: step[0], :: step[1]]

    return tf.cond((turn == 1) | (turn == 5), lambda: image, reverse)


# --- EXIF: where it starts, and the orientation in it; anything odd means upright ----------------------------------------------------------------------


def _number(data: tf.Tensor, at: tf.Tensor | int, count: int, big: tf.Tensor | bool) -> tf.Tensor:
    """The unsigned number of `count` bytes at a place, int32; 0 where the data ends before it, the largest int32 where it is larger."""
    at = tf.clip_by_value(tf.convert_to_tensor(at, tf.int32), 0, tf.size(data))
    part = tf.cast(tf.concat([data[at : at + count], tf.zeros([count], tf.uint8)], 0)[:count], tf.int64)
    part = tf.where(big, part[::-1], part)
    return tf.cast(tf.minimum(tf.reduce_sum(part * [256**i for i in range(count)]), tf.int32.max), tf.int32)


def _is(data: tf.Tensor, at: tf.Tensor, text: bytes) -> tf.Tensor:
    part = data[at : at + len(text)]
    return tf.cond(tf.size(part) == len(text), lambda: tf.reduce_all(part == list(text)), lambda: tf.constant(False))


def _walk(data: tf.Tensor, start: int, block: Any) -> tf.Tensor:
    """Follow a chain of blocks. `block(at)` -> (EXIF starts here or -1, the next block or -1). Returns where EXIF starts, or -1."""

    def step(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found, following = block(at)
        forward = (following > at) & (following < tf.size(data) - 16)  # always on, or a damaged file would never end
        return tf.where(forward, following, -1), found

    return tf.while_loop(lambda at, found: (at >= 0) & (found < 0), step, (tf.constant(start), tf.constant(-1)))[1]


def _jpeg_exif(data: tf.Tensor) -> tf.Tensor:
    def block(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        marker = _number(data, at, 2, True)
        exif = (marker == 0xFFE1) & _is(data, at + 4, b"Exif\0\0")
        more = ((marker >= 0xFFE0) & (marker <= 0xFFEF)) | (marker == 0xFFFE)
        return tf.where(exif, at + 10, -1), tf.where(more, at + 2 + _number(data, at + 2, 2, True), -1)

    return _walk(data, 2, block)


def _png_exif(data: tf.Tensor) -> tf.Tensor:
    def block(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.minimum(_number(data, at, 4, True), HEAD)
        pixel_data = _is(data, at + 4, b"IDAT")
        return tf.where(_is(data, at + 4, b"eXIf"), at + 8, -1), tf.where(pixel_data, -1, at + 12 + length)

    return _walk(data, 8, block)


def _webp_exif(data: tf.Tensor) -> tf.Tensor:
    def block(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.minimum(_number(data, at + 4, 4, False), tf.size(data))
        start = tf.where(_is(data, at + 8, b"Exif\0\0"), at + 14, at + 8)
        return tf.where(_is(data, at, b"EXIF"), start, -1), at + 8 + length + length % 2

    return _walk(data, 12, block)


def _orientation(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, of the TIFF block at `start`; 1 where there is none."""

    def read() -> tf.Tensor:
        tiff = data[start:]
        big = _number(tiff, 0, 2, True) == 0x4D4D
        known = big | (_number(tiff, 0, 2, True) == 0x4949)
        directory = _number(tiff, 4, 4, big)
        directory = tf.minimum(directory, tf.size(tiff))
        count = tf.clip_by_value((tf.size(tiff) - directory - 2) // 12, 0, _number(tiff, directory, 2, big))
        entries = tf.cast(tf.reshape(tiff[directory + 2 : directory + 2 + 12 * count], [-1, 12]), tf.int32)
        place = tf.where(big, [256, 1], [1, 256])
        tag, kind, value = (tf.reduce_sum(entries[:, i : i + 2] * place, axis=1) for i in (0, 2, 8))
        right = (tag == 0x0112) & (kind == 3) & (value >= 1) & (value <= 8) & known
        return tf.maximum(tf.reduce_max(tf.where(right, value, 0)), 1)  # of an empty list: the smallest int32, so 1

    return tf.cond(start >= 0, read, lambda: tf.constant(1))
