"""The beginning of a text, for people."""

from tfxfer.safety.names import one_line

LETTERS = 300
# Networks read less of a text.
BYTES = 64 * 1024


def beginning(content: bytes) -> str:
    """Return the beginning of a text, without broken letters where it was cut."""
    return content[:BYTES].decode("utf-8", "ignore")


def excerpt(content: bytes) -> str:
    """Return the first words of a text on one line, with "…" where more follow.

    Characters that are invisible, or that change the direction of a text, are escaped.
    """
    line = one_line(" ".join(beginning(content).split()))
    if len(line) <= LETTERS and len(content) <= BYTES:
        return line
    cut = line[:LETTERS]
    whole, blank, _ = cut.rpartition(" ")
    return f"{whole if blank else cut}…"
