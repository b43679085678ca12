"""Read the tensors of a .safetensors file.

The file is the length of a header (uint64, little-endian), the header as JSON, and the bytes of all
tensors. Nothing in it is run (https://github.com/huggingface/safetensors, "Format").
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.errors import HandleError
from tfxfer.files import read_regular

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
MOST_HEADER = 16 * 1024**2  # bytes


def read(path: Path, most: int) -> dict[str, np.ndarray]:
    """Return the tensors by their names.

    Args:
        most: the largest size of the file in bytes.

    Raises:
        HandleError: the file can't be read, is too large, or is no .safetensors file.
    """
    try:
        content = read_regular(path, most)
    except OSError as error:
        raise HandleError(f"{path} can't be read ({error.strerror or error}).") from error
    try:
        length = int.from_bytes(content[:8], "little")
        if not 0 < length <= min(MOST_HEADER, len(content) - 8):
            raise ValueError(f"its header has {length:,} bytes")
        header = json.loads(content[8 : 8 + length])
        values = memoryview(content)[8 + length :]
        return {
            name: tensor_of(values, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HandleError(f"{path} is no .safetensors file: {error}.") from error


def tensor_of(values: memoryview, entry: dict[str, Any]) -> np.ndarray:
    """Return a tensor from its entry in the header: dtype, shape and the place of its bytes."""
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(values):
        raise ValueError(f"a tensor lies at {start:,} to {end:,} of {len(values):,} bytes")
    array = np.frombuffer(values[start:end], np.dtype(DTYPES[entry["dtype"]]))
    return array.reshape(entry["shape"])
