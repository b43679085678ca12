"""The commands print steps and errors on stderr, and answers on stdout."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from tfxfer.safety.names import Terminal, one_line


class Steps(logging.Handler):
    """Prints on stderr what is being done, for people who wait."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line for each step that a module logs."""
        click.echo(one_line(record.getMessage()), err=True)


@contextmanager
def steps_on_stderr() -> Iterator[None]:
    """Show what tfxfer's modules log. In Python, the program that calls them decides on that."""
    logger, handler = logging.getLogger("tfxfer"), Steps()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # other packages give the root logger a handler, which would repeat it
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def one_line_usage_errors() -> Iterator[None]:
    """Keep each error of click on one line, whatever an unknown option or file is called."""
    try:
        yield
    except click.ClickException as error:
        error.message = one_line(error.message)  # type: ignore[misc]
        raise


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, each on one line, with columns that are aligned by blanks."""
    rows = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def to_stderr(line: str) -> None:
    """Print a line for people, apart from the answers for programs on standard output."""
    click.echo(line, err=True)


@contextmanager
def as_it_is_for_programs() -> Iterator[None]:
    """Print names unescaped on standard output, unless it is a terminal."""
    shown = sys.stdout
    if isinstance(shown, Terminal) and not shown.isatty():
        sys.stdout = shown.stream
    try:
        yield
    finally:
        sys.stdout = shown
