"""Read texts: bytes of any encoding become UTF-8, and what is no text is told."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tfxfer.errors import ImageError
from tfxfer.inputs.encoding import (
    MOST_JUDGED,
    decodes,
    fits,
    guess_encoding,
    has_zeros,
    is_damaged_utf8,
    known_encoding,
)
from tfxfer.process.cores import cores

MOST_BYTES = 10 * 1024**2  # of one text
# Before the subject of an answer or of a forwarded mail, in several languages.
ANSWER = re.compile(r"^\s*((re|fw|fwd|aw|wg|sv|vs|tr|rv)\s*(\[\d+\])?:\s*)+", re.IGNORECASE)
NO_WORD = re.compile(r"[\W_]+")
TOGETHER = 256  # texts that a thread reads before it gives them back
SAMPLE = 1024 * 1024  # bytes of texts that are no UTF-8, from which their encoding is guessed
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
    encoding = known_encoding(content)
    if encoding is None:
        if b"\x00" in content:
            return content
        encoding = guess_encoding(content)
    if encoding is None or not decodes(content, encoding):
        raise ImageError(
            f"{file} is text of an unknown encoding, or UTF-8 with wrong bytes. Save it as UTF-8."
        )
    text = content.decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")


def read_together(
    read: Callable[[int], bytes], files: Sequence[str]
) -> tuple[Callable[[int], bytes], list[str]]:
    """Find one encoding for all texts that are not UTF-8; see `Kind.read_together`.

    A text alone is often too short to show it.
    """

    def unknown(rows: range) -> list[tuple[int, bytes]]:
        found = []
        for i in rows:
            try:
                content = read(i)
            except OSError:
                continue  # the file is named where the texts are checked
            no_text = not content or b"\x00" in content or other_kind(content) is not None
            if no_text or known_encoding(content) is not None or is_damaged_utf8(content):
                continue
            found.append((i, content[:MOST_JUDGED]))
        return found

    foreign, sample = set[int](), bytearray()
    parts = [range(i, min(i + TOGETHER, len(files))) for i in range(0, len(files), TOGETHER)]
    with ThreadPoolExecutor(min(8, 2 * cores())) as pool:
        for found in pool.map(unknown, parts):
            for i, content in found:
                foreign.add(i)
                if len(sample) < SAMPLE:
                    sample += content + b"\n"
    if not foreign:
        return read, []
    encoding = guess_encoding(bytes(sample))
    how = "each in the encoding that seems to fit it" if encoding is None else f"as {encoding}"
    note = (
        f"Read {how}, not as UTF-8: {len(foreign):,} of {len(files):,} texts, such as "
        f"{files[min(foreign)]}. Check that their letters are right; if not, save them as UTF-8."
    )

    fitting = dict[int, bool]()  # to judge a text takes longer than to read it

    def decode(i: int) -> bytes:
        content = read(i)
        if encoding is None or i not in foreign:
            return content
        if i not in fitting:
            fitting[i] = fits(content, encoding)
        return content.decode(encoding).encode("utf-8", "replace") if fitting[i] else content

    return decode, [note]


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
        advice = "; if it is UTF-16, save it as UTF-8" if has_zeros(content) else ""
        return f"is no text: it holds bytes of zero{advice}"
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
