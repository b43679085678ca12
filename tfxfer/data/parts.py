"""Words that name a part of the data: one list for folders, tables and TensorFlow Datasets."""

import re

TRAIN = ("train", "training", "trn")
VALIDATION = ("validation", "val", "valid", "validate", "validating", "dev")
TEST = ("test", "testing", "tst", "evaluation", "eval", "holdout")
PARTS = {
    **dict.fromkeys(TRAIN, "train"),
    **dict.fromkeys(VALIDATION, "validation"),
    **dict.fromkeys(TEST, "test"),
}
# "traindata" and "testset" have it at their beginning.
ENDS = re.compile(r"(set|data|images?|imgs?|photos?|split|folder|dir)$")
# "seg_train", "trainingSet", "Test Images" and "train2017" each have the word.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def part_of(word: str) -> str | None:
    """The part that a word names, in any case: "train", "validation", "test", or None."""
    plain = word.strip().casefold()
    return PARTS.get(plain) or PARTS.get(ENDS.sub("", plain))


def part_in(name: str) -> str | None:
    """The part that a longer name names with one of its words, such as "seg_train"; None where
    there is none, or two.
    """
    found = {part for word in (name, *WORD.findall(name)) if (part := part_of(word))}
    return found.pop() if len(found) == 1 else None
