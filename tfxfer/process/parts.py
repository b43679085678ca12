"""Many small calls in threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

TOGETHER = 32  # calls that a thread makes one after the other
Result = TypeVar("Result")


def map_in_parts(
    pool: Executor, function: Callable[[int], Result], count: int
) -> Iterator[list[Result]]:
    """Yield what a function returns for 0 .. count - 1, in this order, in lists.

    What a pool keeps for each call that waits takes a kilobyte, so it gets `TOGETHER` in one.
    """
    parts = [range(i, min(i + TOGETHER, count)) for i in range(0, count, TOGETHER)]
    return pool.map(lambda part: [function(i) for i in part], parts)
