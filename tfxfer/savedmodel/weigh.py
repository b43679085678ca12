"""Check a model.keras file before Keras opens it: its graphs, its unpacked size, and its memory.

Keras' own limits begin at 4 GiB, and do not cover layers that are large and have no values in the
file.
"""

import io
import math
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfxfer.files import check_zip, open_regular
from tfxfer.limits import FREE_WEIGHTS, MOST_ELEMENTS, MOST_JSON
from tfxfer.savedmodel.kept import GRAPHS, restore

WEIGHTS = "model.weights.h5"
MEMBERS = {"metadata.json", "config.json", WEIGHTS}
MOST_CONFIG = 4 * MOST_JSON  # a config of tfxfer 0.1 holds the network's graphs


class Part(io.RawIOBase):
    """A range of bytes of a file, as a file that can only be read."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(base + offset, 0)
        return self.at

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        count = max(0, min(len(buffer), self.size - self.at))
        self.file.seek(self.start + self.at)
        content = self.file.read(count)
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)


def weigh(path: Path, *, trust: bool = False) -> int:
    """Check a model.keras, and return the number of bytes of all weights in it.

    The graphs among the weights are checked, too.

    Args:
        trust: whether operations of the graphs may reach files, Python and the internet.

    Raises:
        OSError: the file can't be read.
        SavedModelError: a graph is damaged or too large, or holds an operation that is not allowed.
        ValueError: it is not an archive as Keras writes it, unpacks to far more than its size, or
            its weights are in another file.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        check_zip(archive)
        names = {info.filename for info in archive.infolist()}
        odd = {name for name in names - MEMBERS if not name.startswith("assets/")}
        if odd or not names >= MEMBERS or len(names) < len(archive.infolist()):
            raise ValueError(
                f"expected {', '.join(sorted(MEMBERS))} in it; found {sorted(names)[:5]}"
            )
        links = [i.filename for i in archive.infolist() if stat.S_ISLNK(i.external_attr >> 16)]
        if links:
            raise ValueError(f"its member {links[0]!r} is a link")
        config = archive.getinfo("config.json")
        if config.file_size > MOST_CONFIG:
            raise ValueError(f"its config.json has {config.file_size / 2**20:,.0f} MiB")
        return weigh_values(values_of(file, archive), trust)


def values_of(file: BinaryIO, archive: zipfile.ZipFile) -> BinaryIO:
    """Return the file of weights in an archive.

    It need not be read for this where it is stored as Keras writes it, uncompressed.
    """
    info = archive.getinfo(WEIGHTS)
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(info))
    with archive.open(info):
        pass  # opening it compares both headers
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    start = info.header_offset + 30 + name + extra
    return io.BufferedReader(Part(file, start, info.file_size))  # type: ignore[return-value]


def weigh_values(file: BinaryIO, trust: bool) -> int:
    """Return the number of bytes of all data sets of an HDF5 file.

    Raises:
        ValueError: the values of a data set are not all in the file as they are.
    """
    total = 0
    with h5py.File(file, "r") as opened:
        waiting, seen = [opened["/"]], set()
        while waiting:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name!r} in {WEIGHTS} is a link to another place")
                member = group[name]
                place = h5py.h5o.get_info(member.id).addr
                if place in seen:
                    continue
                seen.add(place)
                if isinstance(member, h5py.Group):
                    waiting.append(member)
                elif isinstance(member, h5py.Dataset):
                    total += weigh_data(name, member)
                    if name == GRAPHS:
                        restore(member[()], None, trust=trust)
    return total


def weigh_data(name: str, data: h5py.Dataset) -> int:
    """Return the number of bytes of a data set.

    Raises:
        ValueError: its values are not all in the file as they are.
    """
    size = math.prod(data.shape or ()) * data.dtype.itemsize
    elsewhere = data.external or data.is_virtual
    if elsewhere or size > data.id.get_storage_size():
        what = "lies in another file" if elsewhere else "is larger than what the file holds of it"
        raise ValueError(f"{name!r} in {WEIGHTS}, {data.dtype} {data.shape}, {what}")
    return size


@contextmanager
def bounded_variables(held: int) -> Iterator[None]:
    """Refuse variables that are together much larger than the values that a file has for them.

    They are refused before they are made.

    Raises:
        ValueError: names the first variable that is too much.
    """
    left = held + FREE_WEIGHTS

    def create(create_next: Any, **options: Any) -> Any:
        nonlocal left
        shape = shape_before(options.get("initial_value"))
        if shape is not None:
            dtype = options.get("dtype") or "float32"
            left -= math.prod(shape) * max(np.dtype(tf.as_dtype(dtype).as_numpy_dtype).itemsize, 1)
        if left < 0:
            raise ValueError(
                f"a weight {tuple(shape or ())} is asked for, which is not in the file: it holds"
                f" {held / 2**20:,.0f} MiB of weights"
            )
        return create_next(**options)

    with tf.variable_creator_scope(create):
        yield


def shape_before(initial: Any) -> tuple[int, ...] | None:
    """The shape that a Keras variable will have, from the function that makes its first value."""
    for cell in getattr(initial, "__closure__", None) or ():
        if isinstance(cell.cell_contents, keras.Variable):
            return tuple(cell.cell_contents.shape)
    return None


def check_outputs(model: keras.Model) -> None:
    """Refuse a model with a layer whose output for one image would not fit into memory.

    Raises:
        ValueError: names the shape.
    """
    for operation in getattr(model, "operations", model.layers):
        for node in getattr(operation, "_inbound_nodes", ()):
            for tensor in node.output_tensors:
                check_size(tuple(tensor.shape))
        if isinstance(operation, keras.Model):
            check_outputs(operation)


def check_size(shape: Any) -> None:
    """Refuse a shape with too many elements; anything that is not a shape is ignored.

    Raises:
        ValueError: names the shape.
    """
    if not isinstance(shape, list | tuple):
        return
    sizes = [size for size in shape if isinstance(size, int)]
    if math.prod(max(abs(size), 1) for size in sizes) > MOST_ELEMENTS:
        raise ValueError(f"a layer has the shape {shape}, more than fits into memory")
