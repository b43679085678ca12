"""Read arrays from .npz files that anybody may have written.

Pickled objects are refused, and so is a file that unpacks to far more memory than its size.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.files import check_zip, open_regular
from tfxfer.limits import FREE_ARRAYS, MOST_ARRAYS

# What NumPy and zipfile raise for files that are damaged or have another format.
DAMAGED = (
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file into a dict, by name.

    Each array is read to its end, which compares its checksum.

    Raises:
        OSError: the file can't be read.
        ValueError: the file is damaged, holds Python objects, or unpacks to far more than its size.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                check_zip(archive, free=FREE_ARRAYS, members=MOST_ARRAYS)
                return {
                    info.filename.removesuffix(".npy"): read_array(archive.read(info))
                    for info in archive.infolist()
                }
        except OSError:
            raise
        except Exception as error:
            if isinstance(error, DAMAGED) or type(error).__module__ in ("zlib", "tokenize"):
                raise ValueError(str(error) or "it is damaged") from error
            raise


def read_array(content: bytes) -> np.ndarray:
    """Read the array of a .npy file.

    Raises:
        ValueError: the header promises another number of bytes than follows, or Python objects.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read: Any = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    count = 1
    for size in shape:
        count *= size
    if dtype.hasobject or count < 0 or count * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of {dtype} {shape} is not what the file holds")
    values = np.frombuffer(content, dtype, offset=file.tell()) if count else np.zeros(0, dtype)
    return values.reshape(shape, order="F" if in_columns else "C").copy(order="K")
