"""Convert HEIC, AVIF and TIFF files, which TensorFlow can't decode, to PNG.

They are read with Pillow (and pillow-heif), which `pip install "tfxfer[heic]"` installs.
"""

import io
from typing import Any

import numpy as np

from tfxfer.errors import ImageError, MissingExtraError
from tfxfer.inputs.image.check import kind, too_large
from tfxfer.inputs.image.png import png

FOREIGN = ("HEIC", "AVIF", "TIFF")


def readable(data: bytes, file: str = "") -> bytes:
    """Return an image file that TensorFlow decodes.

    HEIC, AVIF and TIFF files (only the first page) become PNG files, turned upright. Other files
    are returned as they are.

    Args:
        file: the name of the file, for errors.

    Raises:
        MissingExtraError: Pillow or pillow-heif is needed, and is not installed.
        ImageError: the file is damaged or too large.
    """
    form = kind(data)
    if form not in FOREIGN:
        return data
    opened = _opener(form, file)
    try:
        with opened(io.BytesIO(data)) as image:
            width, height = image.size
            problem = too_large(form, width, height, heavy=image.mode.startswith("I;16"))
            if problem is None:
                return png(pixels_of(image))
    # On damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        # Pillow's text ends in the memory address of the object that it read, which is cut off.
        reason = str(error).split(" <_io.")[0]
        raise ImageError(f"{file} is a {form} that can't be decoded: {reason}".lstrip()) from error
    raise ImageError(f"{file} {problem}".lstrip())


def _opener(form: str, file: str) -> Any:
    try:
        from PIL import Image, features

        if form == "AVIF" and not features.check("avif"):
            raise ImportError("this Pillow has no AVIF")
        if form == "HEIC":
            from pillow_heif import HeifImageFile, register_heif_opener

            register_heif_opener()
            return HeifImageFile
    except ImportError as error:
        raise MissingExtraError(
            f"{file}: reading {form} files".removeprefix(": "), "heic"
        ) from error
    return Image.open


def pixels_of(image: Any) -> np.ndarray:
    """Return the pixels of an image of Pillow, upright: grey, RGB or RGBA, of 8 or 16 bits.

    Raises:
        ValueError: its numbers have 32 bits.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return np.asarray(upright).astype(np.uint16)
    if upright.mode in ("I", "F"):
        raise ValueError("32-bit numbers are not colours; save it with 8 or 16 bits a channel")
    clear = upright.has_transparency_data
    if upright.mode not in ("L", "RGB") or clear:
        upright = upright.convert("RGBA" if clear else "L" if upright.mode == "1" else "RGB")
    return np.asarray(upright)
