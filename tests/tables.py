"""Tables that commands print as CSV, and the comparison of two of them."""

import csv
import io
import re

import pytest

NUMBER = re.compile(r"-?\d+\.\d+")  # a score or a measured number; others are texts
LAST_BITS = 1e-5


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a CSV table that was printed, without the steps before it."""
    return list(csv.DictReader(io.StringIO(text[re.search(r"^(.*,)?file,", text, re.M).start() :])))


def value_of(cell: str) -> str | float:
    return float(cell) if NUMBER.fullmatch(cell) else cell


def check_same_table(text: str, expected: str) -> None:
    """Check that two printed tables have the same texts, and the same numbers but for last bits.

    The last bits of a number depend on what the process computed before, and on the processor.
    """
    rows, others = rows_of(text), rows_of(expected)
    assert rows and len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert list(row) == list(other)
        values = [value_of(cell) for cell in other.values()]
        assert [value_of(cell) for cell in row.values()] == pytest.approx(values, abs=LAST_BITS)
