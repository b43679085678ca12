"""Find out in which encoding bytes are text."""

import codecs
import re

from charset_normalizer import from_bytes

# UTF-16 and UTF-32 say so with their first bytes; the longer marks come first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
    (codecs.BOM_UTF8, "utf_8_sig"),
)
WESTERN = "cp1252"
SHORT = 32  # bytes; charset_normalizer guesses at random in less
MOST_ODD = 0.035  # of what charset_normalizer calls chaos, from 0 to 1
# What Western Europe has in no word, but other code pages have letters for.
SIGN_IN_WORD = re.compile(
    "(?<=[^\\W\\d_])[\u201a\u201e\u201d\u2020-\u2022\u2122\u00a1-\u00bf](?=[a-z])"
)
# Hungarian has its two longest vowels where cp1252 has these; French and Portuguese have them, too,
# but never without one of the others.
HUNGARIAN = re.compile("[\u00f5\u00fb]", re.IGNORECASE)
ROMANCE = re.compile("[\u00e0\u00e2\u00e3\u00e7\u00ea\u00ee]", re.IGNORECASE)
MOST_JUDGED = 100_000  # bytes of a text
ZEROS = 4  # in UTF-16, at least one of so many bytes of Latin letters is zero


def known_encoding(content: bytes) -> str | None:
    """Return the name of the encoding of a text that has a mark (BOM) or is valid UTF-8."""
    marked = (name for mark, name in MARKS if content.startswith(mark))
    return next((name for name in (*marked, "utf_8") if decodes(content, name)), None)


def guess_encoding(content: bytes) -> str | None:
    """Return the probable encoding of a text that has no known one; None if none fits.

    It is what charset_normalizer guesses, unless the text also reads as cp1252, the code page of
    Western Europe, without odd mixtures of letters. A few umlauts among ASCII fit dozens of code
    pages, up to Chinese ones, and charset_normalizer takes any of them.

    The content should be long: all files of a folder together, or a whole table. Even then it is a
    guess, of which users must be told. Nothing is guessed of bytes of zero, nor of UTF-8 with a few
    wrong bytes: as anything else, all its letters would be wrong.
    """
    if b"\x00" in content or is_damaged_utf8(content):
        return None
    nearly_ascii = sum(byte > 127 for byte in content[:SHORT]) * 3 <= len(content)
    if len(content) < SHORT and nearly_ascii and decodes(content, WESTERN):
        return WESTERN
    western = from_bytes(content, cp_isolation=[WESTERN]).best()
    if western is not None and western.chaos <= MOST_ODD:
        text = str(western)
        signs = len(SIGN_IN_WORD.findall(text))
        if ROMANCE.search(text) is None:
            signs += len(HUNGARIAN.findall(text))
        if 20 * signs <= foreign_letters(text):
            return WESTERN
    guess = from_bytes(content).best()
    return None if guess is None else guess.encoding


def fits(content: bytes, encoding: str) -> bool:
    """Return whether a text may be in an encoding that other texts of the same folder are in.

    One with few letters that are not ASCII is in it if it can be. One with many shows it by itself:
    of Russian, cp1252 makes mixtures of letters that no language has.
    """
    if not decodes(content, encoding):
        return False
    if sum(byte > 127 for byte in content[:MOST_JUDGED]) < SHORT:
        return True
    judged = from_bytes(content[:MOST_JUDGED], cp_isolation=[encoding]).best()
    return judged is not None and judged.chaos <= MOST_ODD


def is_damaged_utf8(content: bytes) -> bool:
    """Return whether bytes are UTF-8 but for a few, such as those of a text that was cut off."""
    text = content.decode("utf-8", "replace")
    return 2 * text.count("\ufffd") < foreign_letters(text)


def foreign_letters(text: str) -> int:
    """Return the number of characters that are not ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def decodes(content: bytes, encoding: str) -> bool:
    """Return whether bytes are valid in an encoding."""
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def has_zeros(content: bytes) -> bool:
    """Return whether so many bytes are zero that this may be UTF-16 without a mark."""
    return ZEROS * content.count(0) >= len(content) > 0
