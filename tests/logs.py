"""The lines that tfxfer logs, for tests."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def logged(each: Callable[[str], None] | None = None) -> Iterator[list[str]]:
    """Collect the lines that are logged in the block; `each` is called with every one of them."""
    lines: list[str] = []
    logger, handler = logging.getLogger("tfxfer"), logging.Handler()

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        if each is not None:
            each(lines[-1])

    handler.emit = emit  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
