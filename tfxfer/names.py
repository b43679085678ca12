"""Names that come from strangers, made harmless for the place where they are shown.

A file, a class or a folder may be called anything. The name itself is kept everywhere where programs
read it; these functions are for where people or other programs would take a part of it for a command.
"""

import re

# What moves the cursor, rings, clears the screen, or turns round the direction of the text.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """A text for the terminal: control and direction characters as escapes such as `\\x1b`.

    Tabs and line feeds stay, since our own tables and lists need them; `one_line` takes these too.
    """
    return UNSEEN.sub(lambda found: escaped(found[0]), text)


def one_line(text: str) -> str:
    """A name for one line of text: as `printable`, tabs and line feeds escaped too."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def escaped(character: str) -> str:
    """A character as Python would write it in a string."""
    return character.encode("unicode_escape").decode()


def csv_cell(text: str) -> str:
    """A text for a cell of a table: with a quote before it where a spreadsheet would run it as a formula.

    So is a text that is such a text already, so that `from_csv_cell` finds every text again.
    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def from_csv_cell(cell: str) -> str:
    """The text that `csv_cell` made a cell of."""
    if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA):
        return cell[1:]
    return cell


def markdown(text: str) -> str:
    """A text for Markdown: characters that are markup are escaped, and it stays on its line."""
    line = one_line(text)
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", line)
