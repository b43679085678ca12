"""The input of a network of images for one example.

TensorFlow is loaded only by what decodes: a report describes the input without it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from tfxfer.inputs import image


@dataclass(frozen=True)
class ImageInput:
    """Pixels of one size, in the range that a network expects.

    Args:
        size: height and width in pixels.
        value_range: the values of black and white.
    """

    KIND: ClassVar[str] = "image"
    TOGETHER: ClassVar[int] = 1
    padded: ClassVar[int] = 0

    size: tuple[int, int]
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        return (*self.size, 3)

    def decode(self, content: Any) -> Any:
        """Decode the content of a file; see `tfxfer.inputs.image.pixels`."""
        return image.pixels(content, self.size, self.value_range)

    def decode_many(self, contents: Any) -> Any:
        """Decode the contents of files one after the other."""
        return image.pixels_of_many(contents, self.size, self.value_range)

    def decode_unless_large(self, content: Any) -> tuple[Any, Any]:
        """Decode it only where it is not large; see `pixels_unless_large`."""
        return image.pixels_unless_large(content, self.size, self.value_range)

    def pack(self, decoded: Any) -> Any:
        """Return pixels as whole numbers from 0 to 255, uint8."""
        return image.pack(decoded, self.value_range)

    def unpack(self, packed: Any) -> Any:
        """Return whole numbers from 0 to 255 as pixels, float32."""
        return image.unpack(packed, self.value_range)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the pixels besides the file, as JSON values."""
        return image.fingerprint(self.size, self.value_range)

    def settings(self) -> dict[str, Any]:
        """Return what settings.json holds."""
        return {"image_size": self.size, "value_range": self.value_range}

    def apart(self) -> bytes:
        """Return nothing: the settings hold all."""
        return b""

    def described(self) -> str:
        """Return size and range, and what is done with photos of other sizes."""
        (height, width), (low, high) = self.size, self.value_range
        return (
            f"RGB images of {height} x {width} pixels, values {low} to {high}; photos are turned "
            "upright, made to cover that and cropped"
        )

    def sample(self) -> bytes:
        """Return a grey image of this size, as a JPEG."""
        return image.grey_jpeg(self.size)
