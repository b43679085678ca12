"""Cells that are lists as Python or JSON writes them, such as ['red', 'round']."""

import ast
import json
import re

ITEM = r"""(?:'(?:[^'\\]|\\['"\\])*'|"(?:[^"\\]|\\.)*")"""
LIST = re.compile(rf"\[\s*(?:{ITEM}\s*(?:,\s*{ITEM}\s*)*(?:,\s*)?)?\]")
# Signs that brackets hold several things, and are no part of a name. Blanks are: [Not Rated].
SEVERAL = re.compile(r"""["'|;,\[{(]""")


def is_list(text: str) -> bool:
    """Whether a text is a list of strings, which may be empty."""
    return _strings_in(text) is not None


def read_list(text: str) -> list[str]:
    """Return the strings of a list.

    Raises:
        ValueError: it is no list of strings; see `is_list`.
    """
    strings = _strings_in(text)
    if strings is None:
        raise ValueError(f"is no list of strings: {text!r}")
    return strings


def seems_list(text: str) -> bool:
    """Whether a text looks like a list, a tuple or a set, but is no list of strings."""
    text = text.strip()
    if LIST.fullmatch(text) is not None:
        return not is_list(text)
    if (text[:1], text[-1:]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return False
    inside = text[1:-1].strip()
    if text[0] != "[":
        return inside[:1] in ("'", '"')
    return inside[:1] == "[" or ("]" not in inside and SEVERAL.search(inside) is not None)


def _strings_in(text: str) -> list[str] | None:
    """Return the strings of a list; None where a text is no list, or one of them can't be read."""
    text = text.strip()
    if LIST.fullmatch(text) is None:
        return None
    try:
        return list(json.loads(text))
    except ValueError:
        pass
    try:
        return list(map(_read_string, re.findall(ITEM, text)))
    except (SyntaxError, ValueError):  # such as "a\x", or a line break in a string
        return None


def _read_string(item: str) -> str:
    """Return a string as Python or JSON writes it.

    Raises:
        SyntaxError, ValueError: it is no such string.
    """
    if item[0] == '"':
        try:
            return str(json.loads(item))
        except ValueError:
            pass
    return str(ast.literal_eval(item))
