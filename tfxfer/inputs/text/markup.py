"""Notice texts that are pages or mails in HTML, whose tags would count as words."""

import re
from collections.abc import Sequence

MARKUP = re.compile(
    rb"</?(html|head|body|div|span|p|br|table|tr|td|ul|ol|li|a|img|font|style|script|h[1-6])"
    rb"(\s[^<>]*)?/?>|&nbsp;",
    re.IGNORECASE,
)
SHARE = 0.1  # of the texts, from which on the note is made
LONGEST_SHOWN = 30  # characters of the first markup that was found


def said_of_markup(contents: Sequence[bytes]) -> list[str]:
    """Return a note if a good share of texts holds markup; tags in a few texts are ordinary."""
    found = [match for content in contents if (match := MARKUP.search(content)) is not None]
    if not found or len(found) < SHARE * len(contents):
        return []
    first = found[0][0].decode("utf-8", "replace")
    if len(first) > LONGEST_SHOWN:
        first = f"{first[:LONGEST_SHOWN]}..."
    return [
        f"{100 * len(found) / len(contents):.0f} % of the texts hold HTML, such as {first}, which "
        "is read as words. To remove it first, see Texts with markup in docs/texts.md."
    ]
