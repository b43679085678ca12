"""Make names that come from strangers harmless for the place where they are shown.

A file, a class or a folder may have any name. The name itself is kept wherever programs read it.
These functions are for places where people or other programs would take a part of it for a command.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

# Characters that move the cursor, ring the bell, clear the screen, reverse the direction of the
# text, or are invisible, so that two names look alike. Joiners (U+200C, U+200D), combining marks
# and variation selectors stay: without them, names in many scripts, and emoji, can't be read.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\ufdd0-\ufdef"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Characters that are markup anywhere in Markdown; characters that make a list or a heading where a
# line begins with them; characters that make a link without brackets.
MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&$@]|^[-+=:]|(?<=:)/(?=/)|(?<=www)\.")
NUMBERED = re.compile(r"^([0-9]+)([.)])(?=\s|$)")
# How progress bars draw: back to the start of the line, then the bar; or some lines down, then up.
BAR = re.compile(r"\r|\n*(\x1b\[A)+\Z")


def printable(text: str) -> str:
    """Escape control, direction and invisible characters, such as `\\x1b`, for the terminal.

    Tabs and line feeds stay, since our own tables and lists need them; `one_line` escapes them too.
    """
    return UNSEEN.sub(lambda match: escaped(match[0]), text)


def one_line(text: str) -> str:
    """Escape a name for one line of text: like `printable`, but also tabs and line feeds."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def escaped(character: str) -> str:
    """Return a character as Python would write it in a string."""
    return character.encode("unicode_escape").decode()


def json_text(value: Any) -> str:
    """Return JSON for people: letters of all scripts stay, invisible characters are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], text)


def csv_cell(text: str) -> str:
    """Put a quote before a cell's text where a spreadsheet would run it as a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection. A plain number such as -1.5 is no
    formula and stays. A text that begins with quotes and such a sign gets one more quote, so that
    `csv_text` can restore every text.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """Return the text from which `csv_cell` made this cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def markdown(text: str) -> str:
    """Escape a text for Markdown: it shows no markup, and stays on its line."""
    line = MARKUP.sub(r"\\\g<0>", one_line(text).strip())
    return NUMBERED.sub(r"\1\\\2", line)


def code_span(text: str) -> str:
    """Return a text as inline code in Markdown, between more backticks than it has in a row."""
    line = one_line(text)
    fence = "`" * (longest_backticks(line) + 1)
    blank = " " if not line.strip() or line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Return a text as a block of code in Markdown, with fences longer than any backticks in it."""
    fence = "`" * max(3, longest_backticks(text) + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def longest_backticks(text: str) -> int:
    """Return the length of the longest row of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


class Terminal:
    """A stream for people that escapes control characters in names.

    All else is that of the wrapped stream. It has no `buffer`, so that nobody writes past it.
    Progress bars can still draw.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped by `printable`."""
        bar = BAR.match(text)
        drawn = bar[0] if bar else ""
        self.stream.write(drawn + printable(text[len(drawn) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "stream"):
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stream)
