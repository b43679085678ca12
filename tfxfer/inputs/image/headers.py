"""Read the size of an image from its header, in TensorFlow operations.

An image that is too large is refused before it is decoded. `tfxfer.inputs.image.check` does the
same in plain Python, before anything is computed. Both use the bounds of `limits`.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from tfxfer.inputs.image.jpegxl import HEADER, read_header
from tfxfer.limits import (
    MOST_BOXES,
    MOST_BYTES,
    MOST_EXTRA_CHANNELS,
    MOST_GIF_RUNS,
    MOST_HEAVY_PIXELS,
    MOST_PIXELS,
    MOST_SCANNED_PIXELS,
    MOST_SCANS,
)
from tfxfer.process.pipelines import as_one_operation

PNG, GIF, WEBP, BMP, JXL = range(1, 6)  # 0 is none of these

RUN = 4096  # blocks of a GIF that are looked at together

HEAD = 64  # bytes at the beginning of a file


class Measured(NamedTuple):
    """An image file that is no JPEG and has been checked.

    Args:
        encoded: the file, string; for a GIF, only the part with the first frame.
        form: the format, one of the numbers above, int32.
        pixels: the number of pixels, int64.
        head: the first 64 bytes, uint8.
    """

    encoded: tf.Tensor
    form: tf.Tensor
    pixels: tf.Tensor
    head: tf.Tensor


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether an encoded image, a scalar string, is a JPEG file."""
    return tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"


def measure_jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Check a JPEG file, and refuse it where it is too large.

    The function is short, since most images are JPEG files and each operation costs time.

    Returns:
        The file; its number of pixels, int64; and the bytes before its first scan. The file is cut
        off after the largest number of scans that is allowed. Ordinary files have fewer; others
        then lack their end.

    Raises:
        tf.errors.InvalidArgumentError: in the graph: the file has no header, or is too large.
    """
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(encoded, tf.int64))
    pixels = height * width
    encoded = _bounded(encoded, pixels, MOST_PIXELS)
    scans = tf.clip_by_value(MOST_SCANNED_PIXELS // tf.maximum(pixels, 1), 1, MOST_SCANS)
    parts = tf.raw_ops.StringSplitV2(
        input=encoded[None], sep=b"\xff\xda", maxsplit=MOST_SCANS + 1
    ).values
    kept = tf.strings.length(parts)[: tf.cast(scans, tf.int32) + 1]
    whole = tf.reduce_sum(kept) + 2 * (tf.size(kept) - 1)
    return tf.strings.substr(encoded, 0, whole), pixels, parts[0]


def measure(encoded: tf.Tensor) -> Measured:
    """Find the format and size of an image that is no JPEG, and refuse it where it is too large.

    Args:
        encoded: the file, a scalar string.

    Raises:
        tf.errors.InvalidArgumentError: in the graph: no image of these formats, or too large.
    """
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=HEAD)
    begins = [
        has(head, 0, b"\x89PNG"),
        has(head, 0, b"GIF8"),
        has(head, 0, b"RIFF") & has(head, 8, b"WEBP"),
        has(head, 0, b"BM"),
        has(head, 0, b"\xff\x0a") | has(head, 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ]
    form = tf.reduce_sum(tf.cast(begins, tf.int32) * [PNG, GIF, WEBP, BMP, JXL])
    known = tf.debugging.Assert(
        form > 0, [b"it is no image. Expected JPEG, JPEG XL, PNG, GIF, BMP, WebP"]
    )
    with tf.control_dependencies([known] if known is not None else []):
        form = tf.identity(form)
    readers = [_png, _gif, _webp, _bmp, _jxl]
    encoded, shape, most = tf.switch_case(
        form - PNG, [lambda reader=reader: reader(encoded, head) for reader in readers]
    )
    pixels = tf.reduce_prod(shape)  # both sides are below 2**31, so the product fits into int64
    return Measured(encoded=_bounded(encoded, pixels, most), form=form, pixels=pixels, head=head)


def _bounded(encoded: tf.Tensor, pixels: tf.Tensor, most: int | tf.Tensor) -> tf.Tensor:
    """Return the encoded image, after the checks that every format needs."""
    checks = [
        tf.debugging.Assert(
            tf.strings.length(encoded) <= MOST_BYTES,
            [f"the file is larger than the {MOST_BYTES >> 20} MiB that are read".encode()],
        ),
        tf.debugging.Assert(pixels > 0, [b"it holds no whole image that can be read"]),
        tf.debugging.Assert(
            pixels <= most,
            [
                f"it has more than the {MOST_PIXELS // 10**6} million pixels that are read "
                f"(PNG with 16 bits and JPEG XL: {MOST_HEAVY_PIXELS // 10**6} million)".encode()
            ],
        ),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(encoded)


def has(data: tf.Tensor, at: int, text: bytes) -> tf.Tensor:
    """Whether `data` has `text` at position `at`."""
    return tf.reduce_all(data[at : at + len(text)] == list(text))


# --- Formats: each function returns (the file, height and width as int64 [2], most pixels) ---


@as_one_operation
def _png(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    shape = tf.stack([_big(head[20:24]), _big(head[16:20])])
    deep = head[24] == 16
    return encoded, shape, tf.where(deep, _most(MOST_HEAVY_PIXELS), _most(MOST_PIXELS))


@as_one_operation
def _webp(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Read the size; for an animation, whose first frame alone is decoded, that of the canvas."""
    extended = tf.stack([_little(head[27:30]), _little(head[24:27])]) + 1
    bits = _little(head[21:25])
    lossless = tf.stack([bits // 2**14 % 2**14, bits % 2**14]) + 1
    lossy = tf.stack([_little(head[28:30]), _little(head[26:28])]) % 2**14
    shape = tf.where(
        has(head, 12, b"VP8X"), extended, tf.where(has(head, 12, b"VP8L"), lossless, lossy)
    )
    return encoded, shape, _most(MOST_PIXELS)


@as_one_operation
def _bmp(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    sides = tf.stack([_little(head[22:26]), _little(head[18:22])])
    # A negative height means that the rows run from top to bottom; a negative width is an error.
    signed = tf.where(sides >= 2**31, sides - 2**32, sides)
    return encoded, tf.stack([tf.abs(signed[0]), signed[1]]), _most(MOST_PIXELS)


@as_one_operation
def _gif(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cut the file off after its first frame, and move that frame to the top left corner.

    Otherwise later frames would be decoded, too.
    """
    data = tf.io.decode_raw(encoded, tf.uint8)
    length = tf.size(data)
    record, extension, picture, done, bad = range(5)

    def number(at: tf.Tensor) -> tf.Tensor:
        return tf.cast(data[tf.minimum(at, length - 1)], tf.int32)

    def table(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 128, tf.bitwise.left_shift(6, flags % 8), 0)

    def go_on(at: tf.Tensor, state: tf.Tensor, frame: tf.Tensor, runs: tf.Tensor) -> tf.Tensor:
        return (state < done) & (at < length) & (runs < MOST_GIF_RUNS)

    def step(at: tf.Tensor, state: tf.Tensor, frame: tf.Tensor, runs: tf.Tensor) -> tuple:
        byte = number(at)

        def begin() -> tuple:
            image = byte == 0x2C
            known = image | (byte == 0x21)
            onward = tf.where(image, 11 + table(number(at + 9)), 2)
            next_state = tf.where(image, picture, tf.where(known, extension, bad))
            return at + onward, next_state, tf.where(image, at, frame)

        def skip() -> tuple:
            run = data[at : at + RUN * (byte + 1) : byte + 1]
            others = tf.concat([tf.cast(run, tf.int32) != byte, [True]], 0)
            count = tf.argmax(tf.cast(others, tf.int8), output_type=tf.int32)
            over = byte == 0
            after = tf.where(state == extension, record, done)
            return (
                at + tf.where(over, 1, count * (byte + 1)),
                tf.where(over, after, state),
                frame,
            )

        at, state, frame = tf.cond(state == record, begin, skip)
        return at, state, frame, runs + 1

    start = 13 + table(tf.cast(head[10], tf.int32))
    at, state, frame, _ = tf.while_loop(go_on, step, (start, record, 0, 0), parallel_iterations=1)
    cut = tf.strings.join(
        [
            tf.strings.substr(encoded, 0, frame + 1),
            b"\0\0\0\0",
            tf.strings.substr(
                encoded, tf.minimum(frame + 5, length), tf.maximum(at - frame - 5, 0)
            ),
            b";",
        ]
    )
    descriptor = tf.strings.substr(encoded, tf.minimum(frame, length), 9)
    descriptor = tf.io.decode_raw(descriptor, tf.uint8, fixed_length=9)
    shape = tf.stack([_little(descriptor[7:9]), _little(descriptor[5:7])])
    screen = tf.stack([_little(head[8:10]), _little(head[6:8])])
    whole = (state == done) & (at <= length) & tf.reduce_all(shape > 0)
    # The decoder allocates no memory for the screen, but other programs do. So the larger of screen
    # and frame counts.
    larger = tf.where(tf.reduce_prod(screen) > tf.reduce_prod(shape), screen, shape)
    return cut, tf.where(whole, larger, 0), _most(MOST_PIXELS)


@as_one_operation
def _jxl(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Read the size; it is 0 where the header can't be followed.

    That is so where the image has a preview, or many extra channels.
    """
    length = tf.strings.length(encoded)

    def go_on(at: tf.Tensor, start: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return (start < 0) & (at + 16 <= length) & (boxes < MOST_BOXES)

    def step(at: tf.Tensor, start: tf.Tensor, boxes: tf.Tensor) -> tuple:
        box = tf.io.decode_raw(tf.strings.substr(encoded, at, 16), tf.uint8, fixed_length=16)
        size = tf.cast(tf.minimum(_big(box[:4]), MOST_BYTES), tf.int32)
        whole = has(box, 4, b"jxlc") & ((size == 0) | (size >= 8))
        part = has(box, 4, b"jxlp") & ((size == 0) | (size >= 12 + 2 + HEADER))
        start = tf.where(whole, at + 8, tf.where(part, at + 12, start))
        return tf.where(size < 8, length, at + size), start, boxes + 1

    bare = has(head, 0, b"\xff\x0a")
    _, start, _ = tf.while_loop(go_on, step, (12, tf.where(bare, 0, -1), 0), parallel_iterations=1)
    begin = tf.clip_by_value(start, 0, length)
    data = tf.io.decode_raw(
        tf.strings.substr(encoded, begin, 2 + HEADER), tf.uint8, fixed_length=2 + HEADER
    )
    bits = tf.cast(data[2:, None], tf.int64) // [1 << i for i in range(8)] % 2
    bits = tf.concat([tf.reshape(bits, [-1]), tf.zeros(32, tf.int64)], 0)
    at: Any = tf.constant(0, tf.int64)

    def read(count: Any) -> tf.Tensor:
        nonlocal at
        count = tf.cast(count, tf.int64)
        number = _bits(bits, at, count)
        at += count
        return number

    def choose(position: tf.Tensor, items: Any) -> tf.Tensor:
        if all(isinstance(item, int) for item in items):
            return tf.gather(tf.constant(items, tf.int64), position)
        return tf.gather(tf.stack([tf.cast(item, tf.int64) for item in items]), position)

    header = read_header(read, choose)
    readable = (
        (start >= 0)
        & has(data, 0, b"\xff\x0a")
        & (header.preview == 0)
        & (header.extra_channels <= MOST_EXTRA_CHANNELS)
    )
    shape = tf.where(readable, tf.stack([header.height, header.width]), 0)
    return encoded, shape, _most(MOST_HEAVY_PIXELS)


@as_one_operation
def _bits(bits: tf.Tensor, at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return the number in the next `count` bits, at most 32.

    A header has dozens of numbers, which would take long to trace if this were not a function of
    its own.
    """
    first = tf.minimum(at, 8 * HEADER)
    window = bits[first : first + 32]
    places = tf.range(32, dtype=tf.int64)
    return tf.reduce_sum(
        tf.where(places < count, tf.bitwise.left_shift(window, places), tf.zeros_like(window))
    )


def _most(pixels: int) -> tf.Tensor:
    return tf.constant(pixels, tf.int64)


def _little(data: tf.Tensor) -> tf.Tensor:
    weights = [256**i for i in range(data.shape[0])]
    return tf.reduce_sum(tf.cast(data, tf.int64) * weights)


def _big(data: tf.Tensor) -> tf.Tensor:
    return _little(data[::-1])
