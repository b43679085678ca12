"""Fits side by side, each with one BLAS thread: the same bits on any number of cores."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from tfxfer.distribute.devices import cores

MOST_WORKERS = 4  # a fit on 2,000 examples needs a quarter of a gigabyte
Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread(function: Callable) -> Callable:
    """Run a function with one BLAS thread.

    It then gives the same bits whatever the number of cores, and no waiting threads use up a busy
    machine.
    """
    return threadpool_limits.wrap(limits=1, user_api="blas")(function)


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what a function returns for each item; each call has one BLAS thread.

    It works on as many items at once as there are cores, up to `MOST_WORKERS`. Ctrl-C ends it when
    those that it works on are done.
    """
    # Some BLAS libraries have one setting for the process, which stays until all threads are done;
    # others have one for each thread.
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(min(cores(), MOST_WORKERS)) as pool,
    ):
        return list(pool.map(one_thread(function), items))
