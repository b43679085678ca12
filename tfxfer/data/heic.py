"""HEIC, AVIF and TIFF, which TensorFlow can't decode: read with Pillow (and pillow-heif), handed on as PNG. Needs `pip install "tfxfer[heic]"`."""

import io
from types import ModuleType

from tfxfer.data.images import kind
from tfxfer.errors import ImageError, MissingExtraError

FOREIGN = ("HEIC", "AVIF", "TIFF")


def missing(form: str) -> MissingExtraError | None:
    """The error that says what to install for a format; None where it can be read."""
    try:
        _pillow(form)
    except MissingExtraError as error:
        return error
    return None


def readable(data: bytes, file: str = "") -> bytes:
    """The bytes as they are where TensorFlow decodes them; HEIC, AVIF and TIFF as PNG, turned upright, of a TIFF the first page.

    Raises:
        MissingExtraError: Pillow or pillow-heif is needed and missing.
        ImageError: the file is damaged.
    """
    form = kind(data)
    if form not in FOREIGN:
        return data
    pillow = _pillow(form)
    try:
        with pillow.open(io.BytesIO(data)) as image:
            return _png(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more on damaged files
        raise ImageError(f"{file or 'An image'} is a {form} that can't be decoded: {error}") from error


def _pillow(form: str) -> ModuleType:
    try:
        from PIL import Image, features

        if form == "AVIF" and not features.check("avif"):
            raise ImportError
        if form == "HEIC":
            from pillow_heif import register_heif_opener

            register_heif_opener()
    except ImportError as error:
        raise MissingExtraError(f"Reading {form} files", "heic") from error
    return Image


def _png(image) -> bytes:  # type: ignore[no-untyped-def]
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        upright = upright.convert("I;16") if upright.mode != "I" else upright.convert("I").point(lambda value: value).convert("I;16")
    elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        upright = upright.convert("RGBA" if "A" in upright.mode or "a" in upright.mode else "RGB")
    for key in ("exif", "icc_profile"):  # the orientation was obeyed, and must not be obeyed twice
        upright.info.pop(key, None)
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
