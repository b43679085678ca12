"""Pack values into bytes, to send them from one worker to another.

What comes over the network may come from anybody, so that reading it must not be able to run code,
as `pickle` would. Therefore only a fixed set of types is allowed, and no code is among them. A
parcel is JSON text, followed by the bytes of the arrays; the JSON names the types that JSON does
not have.
"""

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LENGTH = 8  # bytes at the start that hold the length of the JSON
PLAIN = (str, bool, int, type(None))
DTYPES = {dtype.str: dtype for dtype in map(np.dtype, "?bBhHiIlLqQefd")}


def pack(value: Any, known: Sequence[type] = ()) -> bytes:
    """Pack a value into bytes.

    Args:
        value: None, bool, int, float, str, tuple, list, dict with keys of str, NumPy arrays and
            scalars of bool, integers or floats, and dataclasses of `known`; also nested.
        known: dataclasses, all with different names.

    Raises:
        TypeError: there is a value of another type in it.
    """
    arrays: list[np.ndarray] = []
    names = {kind: kind.__name__ for kind in known}
    text = json.dumps(described(value, names, arrays), allow_nan=False).encode()
    parts = [np.ascontiguousarray(array).tobytes() for array in arrays]
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *parts])


def unpack(content: bytes, known: Sequence[type] = ()) -> Any:
    """The value that was packed; bytes after it are ignored.

    Raises:
        ValueError: it is no parcel, or holds a type that is not known.
    """
    size = int.from_bytes(content[:LENGTH], "little")
    if len(content) < LENGTH + size:
        raise ValueError("a parcel that was cut off")
    text = content[LENGTH : LENGTH + size]
    buffer = io.BytesIO(content[LENGTH + size :])
    kinds = {kind.__name__: kind for kind in known}
    try:
        return restored(json.loads(text), kinds, buffer)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"a parcel that can't be read ({error!r})") from error


def described(value: Any, names: dict[type, str], arrays: list[np.ndarray]) -> Any:
    """The value in JSON's types: other types become {kind: ...}, and arrays go into `arrays`."""
    # By the exact type, because a subclass may hold more than its base class does.
    if type(value) in PLAIN:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is list:
        return [described(part, names, arrays) for part in value]
    if type(value) is tuple:
        return {"tuple": [described(part, names, arrays) for part in value]}
    if type(value) is dict:
        if any(type(key) is not str for key in value):
            raise TypeError(f"expected a dict with keys of str. Received: {list(value)[:3]}")
        return {"dict": {key: described(part, names, arrays) for key, part in value.items()}}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.str in DTYPES:
        arrays.append(np.asarray(value))
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.str, list(value.shape)]}
    if type(value) in names:
        fields = {
            field.name: described(getattr(value, field.name), names, arrays)
            for field in dataclasses.fields(value)
        }
        return {names[type(value)]: fields}
    raise TypeError(f"a value of {type(value)} can't be sent to other workers: {value!r:.100}")


def restored(said: Any, kinds: dict[str, type], buffer: io.BytesIO) -> Any:
    """The value that `described` put into JSON's types."""
    if isinstance(said, list):
        return [restored(part, kinds, buffer) for part in said]
    if not isinstance(said, dict):
        return said
    ((kind, inner),) = said.items()
    if kind == "float":
        return float(inner)
    if kind == "tuple":
        return tuple(restored(part, kinds, buffer) for part in inner)
    if kind == "dict":
        return {key: restored(part, kinds, buffer) for key, part in inner.items()}
    if kind in ("array", "scalar"):
        name, shape = inner
        array = restored_array(name, shape, buffer)
        return array if kind == "array" else array[()]
    fields = {key: restored(part, kinds, buffer) for key, part in inner.items()}
    return kinds[kind](**fields)


def restored_array(name: str, shape: list[int], buffer: io.BytesIO) -> np.ndarray:
    """Read the next array.

    Raises:
        ValueError: its bytes are not all there.
    """
    dtype = DTYPES[name]
    size = math.prod(shape) * dtype.itemsize
    if size < 0 or size > len(buffer.getbuffer()):
        raise ValueError(f"an array of shape {shape} that is not there")
    return np.frombuffer(buffer.read(size), dtype).reshape(shape).copy()
