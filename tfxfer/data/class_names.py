"""Check the names of classes, bring them into one form, and make notes on odd ones."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from urllib.parse import unquote

from tfxfer.data.duplicates import shown
from tfxfer.data.examples import Found
from tfxfer.data.parts import part_of
from tfxfer.data.split import LONGEST_NAME
from tfxfer.errors import DataError

# Separators between the words of a name. Between two digits they are kept, since there they matter.
BETWEEN = re.compile(r"(?<=\w)[-_. ]*[-_ ][-_. ]*(?=\w)")
BETWEEN_FIGURES = re.compile(r"(?<=\d)[-_ ]+(?=\d)")
# Dashes and quotes, which keyboards and word processors write differently, and invisible variation
# selectors.
SIGNS = {
    **dict.fromkeys(range(0x2010, 0x2016), "-"),
    0x2212: "-",
    **dict.fromkeys(range(0xFE00, 0xFE10)),
}
SIGNS |= dict.fromkeys(map(ord, "\u2018\u2019\u201a\u00b4`"), "'")
SIGNS |= dict.fromkeys(map(ord, "\u201c\u201d\u201e\u00ab\u00bb"), '"')
END = re.compile(r"(?<=[^\W\d])[.,;:!]+$")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
SEVERAL = re.compile("[|;,]")  # separators of labels if a photo has several
# What file managers add to the name of a copy, and other programs to a second file of the same
# name.
COPY = re.compile(r"( - |[ _-])(copy|kopie|copie|copia)( ?\(?\d+\)?)?$| ?\(\d+\)$|^copy of ", re.I)
DRAWINGS = {"masks", "annotations", "segmentation", "segmentations", "groundtruth", "gt"}
ANSWERS = {"yes", "no", "y", "n", "true", "false", "t", "f", "0", "1"}
# What programs write if a cell is empty.
NOTHING = {
    "nan",
    "none",
    "null",
    "n/a",
    "#n/a",
    "na",
    "<na>",
    "nil",
    "undefined",
    "?",
    "-",
    "#ref!",
}
NOTHING |= {"new folder", "untitled folder", "neuer ordner", "nouveau dossier", "nueva carpeta"}
WRITTEN_LIST = re.compile(r"[\[{(]\s*[\"'{\[].*[\]})]")  # ['a', 'b'] or {"choices": ["a"]}
# Letters of other alphabets that look like Latin ones, Cyrillic first, then Greek.
LOOK_ALIKE = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445"
    "\u0456\u0458\u0455"
    "\u03b1\u03b2\u03b5\u03b7\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxijsabenikvoptux",
)


def check_class_names(names: Iterable[str], source: str) -> None:
    """Check that each name is one line of text, since labels.txt has one line for each class.

    Raises:
        DataError: a name is empty, or holds a line break or a zero byte. The message shows it.
    """
    for name in sorted(set(names)):
        if (
            not name.strip()
            or len(name.splitlines()) != 1
            or name.splitlines()[0] != name
            or "\0" in name
        ):
            # A quote too many in a table can make half the file one name, so it is cut.
            shown_name = repr(name[:LONGEST_NAME]) + ("..." if len(name) > LONGEST_NAME else "")
            raise DataError(
                f"{source}: the class name {shown_name} holds a line break or a zero byte, or is "
                "empty. Expected names of one line: rename it."
            )


def with_plain_names(found: Found) -> tuple[Found, list[str]]:
    """Bring class names into one form, and make notes on those that were written in several forms.

    People do not see how many blanks there are and of which kind. A Mac writes an accent as a
    character of its own (Unicode NFD), where other systems have one character (NFC).

    Returns:
        A copy of `found` with the new names, and the notes.

    Raises:
        DataError: the list of classes then holds a name twice.
    """
    plain = {name: plain_name(name) for name in {*found.names, *(found.classes or ())}}
    classes = None if found.classes is None else [plain[name] for name in found.classes]
    if classes and (twice := [name for name, count in Counter(classes).items() if count > 1]):
        raise DataError(f"{found.source}: the class {twice[0]!r} is there more than once.")
    written: dict[str, set[str]] = {}
    for name in set(found.names):
        written.setdefault(plain[name], set()).add(name)
    notes = [
        f"Read as one class, {name!r}: {', '.join(map(ascii, sorted(several)))}."
        for name, several in sorted(written.items())
        if len(several) > 1
    ]
    return replace(found, names=[plain[name] for name in found.names], classes=classes), notes


def plain_name(name: str) -> str:
    """Return a class name in Unicode's composed form, with one blank between its words."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def notes_on(names: Iterable[str]) -> list[str]:
    """Return notes on names that a person should check."""
    names = sorted(set(names))
    return (
        said_of_alike(names, "classes")
        + several_in_one(names)
        + nothing_said(names)
        + named_like_parts(names)
        + named_like_drawings(names)
        + spelled_answers(names)
        + wrongly_decoded(names)
        + measured(names)
    )


def said_of_alike(names: Iterable[str], what: str) -> list[str]:
    """Return a note for each group of names that look like the same name to a person.

    Args:
        what: what has these names, such as "classes".
    """
    return [
        f"The {what} {' and '.join(map(repr, group))} look almost the same. Are they one? Then "
        "give them one name."
        for group in group_names(names, look_of)
        # Names that are all numbered, such as cat (1) and cat (2), are not copies.
        if not all(map(COPY.search, group))
    ]


def group_names(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """Return the groups of different names that have the same key."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def several_in_one(names: Iterable[str]) -> list[str]:
    """Return a note if names are lists of names, as in tables of photos with several labels."""
    single = set(names)
    lists = [
        name
        for name in sorted(single)
        if (SEVERAL.search(name) and {part.strip() for part in SEVERAL.split(name)} & single)
        or (" " in name and set(name.split()) < single)
    ]
    if written := [name for name in sorted(single) if WRITTEN_LIST.fullmatch(name)]:
        return [
            f"Some class names are lists as programs write them: {shown(written)}. Write the name "
            "alone. An example with several labels is taken for one of a class of its own."
        ]
    if not lists:
        return []
    return [
        f"Some class names are lists of other ones: {shown([repr(name) for name in lists])}. Has "
        "an example several labels? tfxfer takes one: each list counts as a class of its own. Give "
        "each example the label that matters most."
    ]


def nothing_said(names: Iterable[str]) -> list[str]:
    """Return a note on names such as "nan", which may mean that photos have no label."""
    empty = [repr(name) for name in sorted(set(names)) if name.casefold() in NOTHING]
    if not empty:
        return []
    what = "class" if len(empty) == 1 else "classes"
    return [
        f"The {what} {', '.join(empty)} may hold examples without a label, by the name. If so, "
        "leave them out."
    ]


def named_like_parts(names: Iterable[str]) -> list[str]:
    """Return a note on classes with names such as test or val.

    There is none on train, which may be a class of trains, and none on valid beside invalid.
    """
    judged = "invalid" in {name.casefold() for name in names}
    parts = [
        repr(name)
        for name in names
        if part_of(name) in ("test", "validation") and not (judged and name.casefold() == "valid")
    ]
    if not parts:
        return []
    return [
        f"The class {parts[0]} has the name of a part. If its examples have no label, or are of "
        "the other classes, move them elsewhere."
    ]


def named_like_drawings(names: Iterable[str]) -> list[str]:
    """Return a note on classes such as masks, which may hold drawings on the photos of others."""
    drawings = [repr(name) for name in names if look_of(name) in DRAWINGS]
    if not drawings:
        return []
    return [
        f"The class {drawings[0]} may hold drawings on the other photos, by its name. If so, move "
        "them elsewhere."
    ]


def spelled_answers(names: Sequence[str]) -> list[str]:
    """Return a note if yes and no are written in several ways."""
    if len(names) < 3 or not {name.casefold() for name in names} <= ANSWERS:
        return []
    return [
        f"The classes {', '.join(map(repr, names))} seem to be two answers, written in several "
        "ways. Give each one name."
    ]


def wrongly_decoded(names: Sequence[str]) -> list[str]:
    """Return notes on names in UTF-8 that a program has read in an old code page."""
    notes = []
    for name in names:
        meant = next(filter(None, (_meant(name, page) for page in ("cp1252", "cp437"))), None)
        if meant:
            notes.append(f"The class {name!r} may be {meant!r}, read in a wrong code page.")
    return notes


def _meant(name: str, page: str) -> str:
    """Return what a name in UTF-8 was that was read in a code page; "" if it was not."""
    try:
        meant = name.encode(page).decode()
    except UnicodeError:
        return ""
    return meant if meant != name else ""


def measured(names: Iterable[str]) -> list[str]:
    """Return a note if all names are numbers and some have decimals, like measured values."""
    numbers = [name.replace(",", ".", 1) for name in sorted(set(names))]
    if not all(NUMBER.fullmatch(number) for number in numbers):
        return []
    broken = [number for number in numbers if not float(number).is_integer()]
    if not broken:
        return []
    return [
        f"The classes are numbers with decimals ({shown(broken)}). If they measure something, each "
        "value counts as a class of its own here: tfxfer tells classes apart, it does not measure."
    ]


def look_of(name: str) -> str:
    """Return a key that is the same for class names that look the same to a person.

    The key ignores upper and lower case, separators between words, punctuation around them,
    invisible characters, the ending of a copied file, and the way a letter or a number is written,
    including the escapes of web pages and URLs.
    """
    name = unquote(html.unescape(name), errors="replace").translate(SIGNS)
    seen = [
        character
        for character in COPY.sub("", name) or name
        if unicodedata.category(character) != "Cf"
    ]
    plain = unicodedata.normalize("NFKC", "".join(seen)).casefold()
    if NUMBER.fullmatch(plain):
        number = format(Decimal(plain) or Decimal(0), "f")  # all digits, however many there are
        return number.rstrip("0").rstrip(".") if "." in number else number
    plain = END.sub("", plain.strip("'\"")) or plain
    plain = BETWEEN_FIGURES.sub("\0", plain.translate(LOOK_ALIKE))
    return BETWEEN.sub("", plain)
