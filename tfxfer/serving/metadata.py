"""The metadata of a LiteRT file: how pixels become its input, and what its outputs are called.

It is a flatbuffer by TensorFlow's metadata_schema.fbs ("M001") in a buffer of the model, and the
labels are in a zip archive behind the end of the file. MediaPipe and the TFLite Task Library read
both. The metadata is written with `flatbuffers` by hand, since the package that had classes for it
ends at Python 3.11.
"""

import io
import zipfile
from collections.abc import Callable, Sequence

import flatbuffers

LABELS = "labels.txt"
NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
# Numbers of the schema: union members and enum values.
IMAGE_PROPERTIES, NORMALIZATION, RGB, AXIS_LABELS = 2, 1, 1, 2
Field = tuple[int, Callable[[int], None]]  # its number, and a function that stores its value


def of_image_classifier(description: str, classes: Sequence[str], mean: float, std: float) -> bytes:
    """Return the metadata of a model from one RGB image to one probability for each class.

    The image is normalised as (x - mean) / std, with x from 0 to 255.
    """
    builder = flatbuffers.Builder(1024)

    def table(*fields: Field) -> int:
        builder.StartObject(max(number for number, _ in fields) + 1)
        for number, put in fields:
            put(number)
        return builder.EndObject()

    def at(number: int, offset: int) -> Field:
        return number, lambda n: builder.PrependUOffsetTRelativeSlot(n, offset, 0)

    def byte(number: int, value: int) -> Field:
        return number, lambda n: builder.PrependUint8Slot(n, value, 0)

    def text(value: str) -> int:
        return builder.CreateString(value.encode("utf-8", "replace"))

    def floats(values: Sequence[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return builder.EndVector()

    def tables(*offsets: int) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    properties = table(byte(0, RGB))
    content = table(byte(0, IMAGE_PROPERTIES), at(1, properties))
    normalization = table(at(0, floats([mean])), at(1, floats([std])))
    unit = table(byte(0, NORMALIZATION), at(1, normalization))
    low, high = -mean / std, (255 - mean) / std
    stats = table(at(0, floats([high])), at(1, floats([low])))
    image = table(
        at(0, text("image")),
        at(1, text("RGB pixels")),
        at(3, content),
        at(4, tables(unit)),
        at(5, stats),
    )
    labels = table(
        at(0, text(LABELS)), at(1, text("the classes, one a line")), byte(2, AXIS_LABELS)
    )
    shares = table(at(0, floats([1.0])), at(1, floats([0.0])))
    output = table(
        at(0, text("probability")),
        at(1, text("of each class")),
        at(5, shares),
        at(6, tables(labels)),
    )
    subgraph = table(at(2, tables(image)), at(3, tables(output)))
    model = table(at(0, text("tfxfer")), at(1, text(description)), at(3, tables(subgraph)))
    builder.Finish(model, IDENTIFIER)
    return bytes(builder.Output())


def as_lines(classes: Sequence[str]) -> bytes:
    """Return the content of labels.txt: the classes, one on each line."""
    return "".join(f"{name}\n" for name in classes).encode("utf-8", "surrogateescape")


def archived(content: bytes, classes: Sequence[str]) -> bytes:
    """Return the file with a zip archive of its labels behind its end."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # A fixed date, so that the same run gives the same file.
        archive.writestr(
            zipfile.ZipInfo(LABELS),
            as_lines(classes),
        )
    return content + buffer.getvalue()
