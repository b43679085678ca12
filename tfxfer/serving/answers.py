"""Compute the probabilities of files, in order, also where some of the files are damaged."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.errors import ImageError, TfxferError
from tfxfer.features import reason
from tfxfer.limits import MOST_BYTES
from tfxfer.process.cores import cores
from tfxfer.safety.names import one_line
from tfxfer.serving.model import Served

SHOWN = 10
Row = dict[str, np.ndarray]  # "probabilities" [C] and, where the model knows it, "unknown"


def list_files(texts: list[str]) -> str:
    return "; ".join(texts[:SHOWN]) + (
        f"; and {len(texts) - SHOWN} more." if len(texts) > SHOWN else "."
    )


def say_damage(files: Sequence[str], damaged: dict[int, str]) -> None:
    """Print to stderr which photos were answered although a part of them is missing.

    Args:
        damaged: the position of a photo -> what is missing in it, see `answers`.
    """
    for i, missing in damaged.items():
        text = f"{files[i]} is damaged ({missing}): its answer is for what could be read of it"
        print(one_line(text), file=sys.stderr)


def answers(
    model: Served,
    read: Callable[[int], bytes],
    files: Sequence[str],
    batch_size: int,
    damaged: dict[int, str],
) -> Iterator[Row | str]:
    """Yield the model's answer for each file in order, or a sentence on why there is none.

    Batches are computed one by one, in another thread than the caller's.

    Args:
        damaged: is filled with what is missing in images that are answered although they are
            damaged, by position. An entry is made before the answer of its image is yielded.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1. Received: batch_size={batch_size}")

    kind = model.kind

    def ready(i: int) -> bytes:
        encoded = kind.readable(read(i), files[i])
        if problem := kind.problem(encoded):
            raise ImageError(f"{files[i]} {problem}")
        return encoded

    def ask(several: list[bytes]) -> list[Row]:
        outputs = {
            name: rows.numpy()
            for name, rows in model.answer(tf.constant(several, tf.string)).items()
        }
        return [{name: rows[i] for name, rows in outputs.items()} for i in range(len(several))]

    def batch(positions: range) -> list[Row | str]:
        rows: list[Row | str] = []
        held: dict[int, Any] = {}
        for i in positions:
            held[i] = attempt(files[i], partial(ready, i))
            if sum(len(each) for each in held.values()) > MOST_BYTES:
                rows += answer(held)
                held = {}
        return rows + answer(held)

    def answer(results: dict[int, Any]) -> list[Row | str]:
        good = {i: encoded for i, encoded in results.items() if isinstance(encoded, bytes)}
        looked = {i: lookers.submit(kind.find_damage, encoded) for i, encoded in good.items()}
        try:
            results |= zip(good, ask(list(good.values())), strict=True)
        except (tf.errors.OpError, MemoryError):
            # One bad image makes the whole batch fail. It is found by asking one by one.
            for i, encoded in good.items():
                rows = attempt(files[i], partial(ask, [encoded]))
                results[i] = rows if isinstance(rows, str) else rows[0]
        for i, row in results.items():
            # An export with on_bad_image="null" answers bad images with zeros.
            if not isinstance(row, str) and not row["probabilities"].any():
                results[i] = f"{files[i]} can't be decoded"
        for i, look in looked.items():
            damage = look.result()
            if damage and not isinstance(results[i], str):
                damaged[i] = damage.reason
        return list(results.values())

    waiting: deque[Future] = deque()
    # The model runs in one thread, since two threads in TensorFlow's fused convolutions crash, see
    # tfxfer.features.engines. Other threads look for damage at the same time.
    with ThreadPoolExecutor(cores()) as lookers, ThreadPoolExecutor(1) as pool:
        try:
            for first in range(0, len(files), batch_size):
                waiting.append(
                    pool.submit(batch, range(first, min(first + batch_size, len(files))))
                )
                if len(waiting) > 2:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def attempt(file: str, call: Callable[[], Any]) -> Any:
    """What a call returns, or a sentence on why this image can't be read or decoded."""
    try:
        return call()
    except ImageError as error:
        return str(error)
    except (OSError, TfxferError, MemoryError) as error:
        return (
            f"{file} can't be read: "
            f"{getattr(error, 'strerror', None) or error or 'not enough memory'}"
        )
    except tf.errors.OpError as error:
        return f"{file} can't be decoded: {reason(error)}"
