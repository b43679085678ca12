"""Read the tensors of a legacy PyTorch `.pth` file without torch.

The file is a sequence of pickles (magic number, protocol, system, state dict, storage keys),
followed by the length and the raw bytes of each storage. A pickle can call any function, so this
reader allows only ordered dictionaries, tensors and their storages, and refuses every other name.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from tfxfer.errors import HandleError

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "HalfStorage": np.float16,
}


class Restricted(pickle.Unpickler):
    """An unpickler that allows only ordered dictionaries, tensors and their storages."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        super().__init__(file)
        self.path, self.storages = path, dict[str, np.dtype]()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: (
                storage,
                offset,
                tuple(size),
                tuple(stride),
            )
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise HandleError(
            f"{self.path} asks for {module}.{name}; expected tensors only. The file is not the "
            "published one: install its package again."
        )

    def persistent_load(self, key: Any) -> str:
        kind, dtype, name, *_ = key
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise HandleError(
                f"{self.path} holds a reference of kind {kind!r}; expected tensor storages only. "
                "Install its package again."
            )
        self.storages[name] = dtype
        return name


def read(path: Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file, by name, as arrays of their own dtype and shape.

    Raises:
        HandleError: the file is not a legacy `.pth` file, is damaged or can't be read, or asks for
            anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            if Restricted(file, path).load() != MAGIC:
                raise HandleError(
                    f"{path} is not a legacy PyTorch file. Install its package again."
                )
            Restricted(file, path).load()
            Restricted(file, path).load()
            reader = Restricted(file, path)
            tensors = reader.load()
            keys = Restricted(file, path).load()
            values = {}
            for key in keys:
                dtype = reader.storages[key]
                (count,) = np.frombuffer(file.read(8), np.int64)
                values[key] = np.frombuffer(file.read(int(count) * dtype.itemsize), dtype)
                if len(values[key]) != count:
                    raise EOFError
        return {
            name: tensor(values[key], offset, size, stride=stride)
            for name, (key, offset, size, stride) in tensors.items()
        }
    except (
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise HandleError(
            f"{path} is damaged ({type(error).__name__}). Install its package again."
        ) from error
    except OSError as error:
        raise HandleError(
            f"{path} can't be read ({error.strerror}). Install its package again."
        ) from error


def tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    """Copy a tensor out of its storage.

    Args:
        storage: a one-dimensional array.
        offset: the index of the first element in the storage.
        size: the shape of the tensor.
        stride: for each axis, the step in the storage, in elements.

    Raises:
        ValueError: the tensor does not lie inside its storage. `as_strided` does not check this.
    """
    last = (
        offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if all(size)
        else offset
    )
    if offset < 0 or min(stride, default=0) < 0 or last >= max(len(storage), 1):
        raise ValueError("a tensor outside its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * storage.itemsize for s in stride]
    ).copy()
