"""Fits side by side, each with one BLAS thread: the same bits on any number of cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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
    """Return what a function returns for each item; see `in_threads`.

    Ctrl-C ends it when the items that it works on are done.
    """
    with in_threads() as each:
        return list(each(function, items))


@contextmanager
def in_threads() -> Iterator[Callable[..., Iterator]]:
    """Yield a `map` whose calls have one BLAS thread each.

    It works on as many items at once as there are cores, up to `MOST_WORKERS`.
    """
    # Some BLAS libraries have one setting for the process, which stays until all threads are done;
    # others have one for each thread.
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(min(cores(), MOST_WORKERS), initializer=limit_thread) as pool,
    ):
        yield pool.map


def limit_thread() -> None:
    """Give this thread one BLAS thread for as long as it lives."""
    threadpool_limits(limits=1, user_api="blas")


@contextmanager
def in_background() -> Iterator[Callable[[Callable[[], Result]], Future[Result]]]:
    """Yield a function that begins to call another one in a thread, beside the block.

    All calls have one BLAS thread, as the block has, and one core is left to it. Where the block
    raises an exception, calls that were not begun are dropped; those that were are waited for.
    """
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(
            max(min(cores() - 1, MOST_WORKERS), 1), initializer=limit_thread
        ) as pool,
    ):
        try:
            yield pool.submit
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
