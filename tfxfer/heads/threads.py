"""Fits that run side by side, each with one BLAS thread: they give the same bits on any machine."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from tfxfer.distribute.devices import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread(function: Callable) -> Callable:
    """Run a function with one BLAS thread.

    It then gives the same bits whatever the number of cores, and no waiting threads use up a busy
    machine.
    """
    return threadpool_limits.wrap(limits=1, user_api="blas")(function)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what a function returns for each item; it works on as many at once as there are cores.

    The number of BLAS threads is set once for the whole process, so functions of `one_thread` can
    be called.
    """
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(function, items))
