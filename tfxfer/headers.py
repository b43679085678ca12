"""How large an image is, told by its header in TensorFlow operations: what is too much is refused before it is decoded.

`data.images` tells the same in plain Python, before anything is computed. Both obey `limits`.
"""

from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from tfxfer.jpegxl import HEADER, read_header
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

JPEG, PNG, GIF, WEBP, BMP, JXL = range(1, 7)  # 0 is none of these
SMALLEST_SCAN = 10  # bytes

# TensorFlow visits the operations of branches that are not taken, too, and takes 1 microsecond for each.
# A branch that is one call of a function stays cheap.
apart = partial(tf.function, autograph=False, experimental_attributes={"_noinline": True})

RUN = 4096  # blocks of a GIF that are looked at together


class Measured(NamedTuple):
    """An image file, checked.

    Args:
        encoded: the file, string; of a GIF and of a JPEG with too many scans only the first part.
        form: one of the numbers above, int32.
        pixels: how many it has, int64.
        head: its first 64 bytes, uint8.
    """

    encoded: tf.Tensor
    form: tf.Tensor
    pixels: tf.Tensor
    head: tf.Tensor


def measure(encoded: tf.Tensor) -> Measured:
    """Tell format and size of an encoded image, a scalar string, and refuse what is too much.

    Raises:
        tf.errors.InvalidArgumentError: in the graph: no image of these formats, or too large.
    """
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=64)
    marks = [
        has(head, 0, b"\xff\xd8\xff"),
        has(head, 0, b"\x89PNG"),
        has(head, 0, b"GIF8"),
        has(head, 0, b"RIFF") & has(head, 8, b"WEBP"),
        has(head, 0, b"BM"),
        has(head, 0, b"\xff\x0a") | has(head, 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ]
    form = tf.reduce_sum(tf.cast(marks, tf.int32) * [JPEG, PNG, GIF, WEBP, BMP, JXL])
    known = tf.debugging.Assert(
        form > 0, [b"it is no image. Expected JPEG, JPEG XL, PNG, GIF, BMP, WebP"]
    )
    short = tf.debugging.Assert(
        tf.strings.length(encoded) <= MOST_BYTES,
        [f"the file is larger than the {MOST_BYTES >> 20} MiB that are read".encode()],
    )
    with tf.control_dependencies([op for op in (known, short) if op is not None]):
        encoded = tf.identity(encoded)
    encoded, shape, most = tf.switch_case(
        form,
        [
            lambda: (encoded, tf.zeros(2, tf.int64), tf.constant(0, tf.int64)),
            lambda: _jpeg(encoded),
            lambda: _png(encoded, head),
            lambda: _gif(encoded, head),
            lambda: _webp(encoded, head),
            lambda: _bmp(encoded, head),
            lambda: _jxl(encoded, head),
        ],
    )
    held = tf.debugging.Assert(
        tf.reduce_all(shape > 0), [b"it holds no whole image that can be read"]
    )
    pixels = tf.reduce_prod(shape)
    small = tf.debugging.Assert(
        # The product of two sides below 2**31 fits.
        pixels <= most,
        [
            f"it has more than the {MOST_PIXELS // 10**6} million pixels that are read "
            f"(PNG with 16 bits and JPEG XL: {MOST_HEAVY_PIXELS // 10**6} million)".encode()
        ],
    )
    with tf.control_dependencies([op for op in (held, small) if op is not None]):
        return Measured(tf.identity(encoded), form, tf.identity(pixels), head)


def has(data: tf.Tensor, at: int, text: bytes) -> tf.Tensor:
    """Is this text there?"""
    return tf.reduce_all(data[at : at + len(text)] == list(text))


# --- Each format: (the file, height and width as int64 [2], most pixels) ---


def _jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The file is cut off behind as many scans as may be: honest files have fewer, others then lack their end."""
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)
    scans = tf.clip_by_value(
        MOST_SCANNED_PIXELS // tf.maximum(tf.reduce_prod(shape), 1), 1, MOST_SCANS
    )
    length = tf.strings.length(encoded)

    def cut() -> tf.Tensor:
        parts = tf.raw_ops.StringSplitV2(
            input=encoded[None], sep=b"\xff\xda", maxsplit=MOST_SCANS + 1
        ).values
        kept = tf.strings.length(parts)[: tf.cast(scans, tf.int32) + 1]
        whole = tf.reduce_sum(kept) + 2 * (tf.size(kept) - 1)
        return tf.cond(
            tf.size(parts) > tf.size(kept),
            lambda: tf.strings.substr(encoded, 0, whole),
            lambda: encoded,
        )

    few = tf.cast(length, tf.int64) <= SMALLEST_SCAN * scans
    return tf.cond(few, lambda: encoded, cut), shape, _most(MOST_PIXELS)


@apart
def _png(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    shape = tf.stack([_big(head[20:24]), _big(head[16:20])])
    deep = head[24] == 16
    return encoded, shape, tf.where(deep, _most(MOST_HEAVY_PIXELS), _most(MOST_PIXELS))


@apart
def _webp(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of an animation, whose first frame alone is decoded, the canvas."""
    extended = tf.stack([_little(head[27:30]), _little(head[24:27])]) + 1
    bits = _little(head[21:25])
    lossless = tf.stack([bits // 2**14 % 2**14, bits % 2**14]) + 1
    lossy = tf.stack([_little(head[28:30]), _little(head[26:28])]) % 2**14
    shape = tf.where(
        has(head, 12, b"VP8X"), extended, tf.where(has(head, 12, b"VP8L"), lossless, lossy)
    )
    return encoded, shape, _most(MOST_PIXELS)


@apart
def _bmp(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    sides = tf.stack([_little(head[22:26]), _little(head[18:22])])
    # A negative height means that the rows run from the top down; a negative width means nothing.
    signed = tf.where(sides >= 2**31, sides - 2**32, sides)
    return encoded, tf.stack([tf.abs(signed[0]), signed[1]]), _most(MOST_PIXELS)


@apart
def _gif(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The file up to the end of the first frame, which is moved to the corner: else later frames would be decoded, too."""
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
        found = number(at)

        def begin() -> tuple:
            image = found == 0x2C
            known = image | (found == 0x21)
            onward = tf.where(image, 11 + table(number(at + 9)), 2)
            next_state = tf.where(image, picture, tf.where(known, extension, bad))
            return at + onward, next_state, tf.where(image, at, frame)

        def skip() -> tuple:
            run = data[at : at + RUN * (found + 1) : found + 1]
            others = tf.concat([tf.cast(run, tf.int32) != found, [True]], 0)
            count = tf.argmax(tf.cast(others, tf.int8), output_type=tf.int32)
            over = found == 0
            after = tf.where(state == extension, record, done)
            return (
                at + tf.where(over, 1, count * (found + 1)),
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
    # The decoder makes no room for the screen, but other programs do: the larger one is bounded.
    larger = tf.where(tf.reduce_prod(screen) > tf.reduce_prod(shape), screen, shape)
    return cut, tf.where(whole, larger, 0), _most(MOST_PIXELS)


@apart
def _jxl(encoded: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """No pixels where the header can't be followed: a preview, or many extra channels."""
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
        first = tf.minimum(at, 8 * HEADER)
        at += count
        window = bits[first : first + 32]
        places = tf.range(32, dtype=tf.int64)
        return tf.reduce_sum(
            tf.where(places < count, tf.bitwise.left_shift(window, places), tf.zeros_like(window))
        )

    def choose(position: tf.Tensor, items: Any) -> tf.Tensor:
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


def _most(pixels: int) -> tf.Tensor:
    return tf.constant(pixels, tf.int64)


def _little(data: tf.Tensor) -> tf.Tensor:
    weights = [256**i for i in range(data.shape[0])]
    return tf.reduce_sum(tf.cast(data, tf.int64) * weights)


def _big(data: tf.Tensor) -> tf.Tensor:
    return _little(data[::-1])
