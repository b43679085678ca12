"""Find the words of a text that the answer depends on.

They are those that lower its probability most when they are left out.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tfxfer.inputs.input import Input
from tfxfer.inputs.text.excerpt import beginning
from tfxfer.safety.names import one_line

MOST = 30  # words of a text that are left out, one after the other
LETTERS = 40  # most letters of a word that are shown


def first_words(content: bytes) -> list[str]:
    """Return the words of a text that `explain` leaves out, as they are shown."""
    return [shown(word) for word in beginning(content).split()[:MOST]]


def shown(word: str) -> str:
    """Return a word without invisible characters, cut to at most `LETTERS`."""
    letters = one_line(word[: LETTERS + 1])
    return letters if len(letters) <= LETTERS else f"{letters[: LETTERS - 1]}…"


def explain(
    answers: Callable[[np.ndarray], np.ndarray], takes: Input, content: bytes, column: int
) -> np.ndarray | None:
    """Return how much the probability of an answer falls without each word; see `Kind.explain`.

    Returns:
        float64 [n] for the n words of `first_words`, at least 0; None if there are no words.
    """
    pieces = beginning(content).split(maxsplit=MOST)
    count = len(pieces[:MOST])
    if not count:
        return None
    without = [" ".join(pieces[:i] + pieces[i + 1 :]) for i in range(count)]
    probabilities = answers(decode(takes, [" ".join(pieces), *without]))[:, column]
    return np.maximum(probabilities[0] - probabilities[1:], 0)


def decode(takes: Input, texts: Sequence[str]) -> np.ndarray:
    """Return decoded texts, [n, *shape]."""
    return np.asarray(takes.decode_many([text.encode() for text in texts]))
