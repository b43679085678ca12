"""The number of a row of a table in messages: its line in the file, and its spreadsheet row."""

from tfxfer.data.quotes import Row


class Line(int):
    """The number of a row's last line, which as text also says the row, such as "261 = row 5".

    Where cells hold line breaks, an editor counts other numbers than a spreadsheet. Names of
    examples, such as TABLE:LINE, hold `int(line)` alone.
    """

    row: int

    def __new__(cls, line: int, row: int) -> "Line":
        """Make the number of a line in a row of the table."""
        made = super().__new__(cls, line)
        made.row = row
        return made

    def __str__(self) -> str:
        """Return both numbers."""
        return f"{int(self)} = row {self.row}"


def line_of(row: Row) -> int:
    """Return the number of a row's last line; a `Line` where a spreadsheet has another number."""
    return Line(row.ends, row.number) if row.number not in (0, row.ends) else row.ends
