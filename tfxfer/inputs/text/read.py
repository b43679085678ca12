"""Read texts: bytes of any encoding become UTF-8, and what is no text is told."""

import codecs

from charset_normalizer import from_bytes

from tfxfer.errors import ImageError

MOST_BYTES = 10 * 1024**2  # of one text
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
