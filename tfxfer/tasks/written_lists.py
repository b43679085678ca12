"""Cells that are lists as Python or JSON writes them, such as ['red', 'round']."""

import ast
import json
import re

ITEM = r"""(?:'(?:[^'\\]|\\['"\\])*'|"(?:[^"\\]|\\.)*")"""
LIST = re.compile(rf"\[\s*(?:{ITEM}\s*(?:,\s*{ITEM}\s*)*,?\s*)?\]")
# Signs that brackets hold several things, and are no part of a name.
SEVERAL = re.compile(r"""["'|;,\s\[{(]""")


def is_list(text: str) -> bool:
    """Whether a text is a list of strings, which may be empty."""
    return LIST.fullmatch(text.strip()) is not None


def read_list(text: str) -> list[str]:
    """Return the strings of a list.

    Raises:
        ValueError: it is no list of strings; see `is_list`.
    """
    text = text.strip()
    if LIST.fullmatch(text) is None:
        raise ValueError(f"is no list of strings: {text!r}")
    try:
        return list(json.loads(text))
    except ValueError:
        return list(map(_read_string, re.findall(ITEM, text)))


def seems_list(text: str) -> bool:
    """Whether a text looks like a list, a tuple or a set, but is no list of strings."""
    text = text.strip()
    if is_list(text) or (text[:1], text[-1:]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return False
    inside = text[1:-1].strip()
    if text[0] != "[":
        return inside[:1] in ("'", '"')
    return inside[:1] == "[" or ("]" not in inside and SEVERAL.search(inside) is not None)


def _read_string(item: str) -> str:
    if item[0] == '"':
        try:
            return str(json.loads(item))
        except ValueError:
            pass
    return str(ast.literal_eval(item))
