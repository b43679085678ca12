"""Read texts: bytes of any encoding become UTF-8, and what is no text is told."""

import codecs
import re

from charset_normalizer import from_bytes

from tfxfer.errors import ImageError

MOST_BYTES = 10 * 1024**2  # of one text
# Before the subject of an answer or of a forwarded mail, in several languages.
ANSWER = re.compile(r"^\s*((re|fw|fwd|aw|wg|sv|vs|tr|rv)\s*(\[\d+\])?:\s*)+", re.IGNORECASE)
NO_WORD = re.compile(r"[\W_]+")
# UTF-16 and UTF-32 say so with their first bytes; the longer marks come first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# First bytes of files that are no texts, though their endings may say so.
OTHERS = {
    b"%PDF": "a PDF file",
    b"PK\x03\x04": "a ZIP file, such as .docx",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"{\\rtf": "an RTF file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


def to_utf8(content: bytes, file: str) -> bytes:
    """Return a text as UTF-8, with \\n at the ends of lines; what is no text stays as it is.

    Raises:
        ImageError: its encoding can't be found out.
    """
    if other_kind(content) is not None or not content:
        return content
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\x00" in content:
            return content
        guess = from_bytes(content).best()
        if guess is None:
            raise ImageError(
                f"{file} is text of an unknown encoding ({error}). Save it as UTF-8."
            ) from error
        text = str(guess)
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")


def other_kind(content: bytes) -> str | None:
    """Return what a file is that begins like a file of another kind; None for a text."""
    return next((name for start, name in OTHERS.items() if content.startswith(start)), None)


def problem(content: bytes) -> str | None:
    """Return in a few words why this content is no text; None if no reason was found."""
    if not content.strip():
        return "is empty"
    if (kind := other_kind(content)) is not None:
        return f"is no text, but {kind}"
    if b"\x00" in content:
        return "is no text: it holds bytes of zero"
    if len(content) > MOST_BYTES:
        return f"has {len(content):,} bytes; expected at most {MOST_BYTES:,}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is no UTF-8 ({error})"
    return None


def own_words(content: bytes) -> bytes:
    """Return the letters and digits of a text that it does not quote, in lower case, UTF-8.

    A mail and a forwarded copy of it are the same then, and so are texts that differ in spaces,
    signs or capitals. A text of quotations or signs alone stays as it is.
    """
    lines = content.decode("utf-8", "replace").splitlines()
    kept = [ANSWER.sub("", line) for line in lines if not line.lstrip().startswith(">")]
    words = "".join(NO_WORD.split("".join(kept).casefold()))
    return words.encode("utf-8", "replace") if words else content
