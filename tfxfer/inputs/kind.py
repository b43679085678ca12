"""The functions of a kind of example, and a table of the kinds.

A kind is a module with the names of `Kind`. The rest of tfxfer reads, checks, decodes and shows
examples only through them.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from os import PathLike
from typing import Any, Protocol

import numpy as np

from tfxfer.inputs.image import kind as image
from tfxfer.inputs.input import AppInput, Damage, Files, Input
from tfxfer.inputs.text import kind as text


class Kind(Protocol):
    """A kind of example.

    Attributes:
        NAME: its name in settings and tables.
        ONE, MANY: what one and several such examples are called in sentences.
        CLASSIFIER: what a model is called that tells classes of them apart, as a sentence begins.
        TAG: the task of such a model, by its name on Hugging Face.
        FILE: name of a file that stands for any such example in a command.
        VALUES: what `plain` decodes, in words.
        SIMILAR: the similarity of features from which two examples may be the same.
        TWINS: two examples that belong together, so that one must not test what the other taught.
        ELSEWHERE: where examples may come from that differ from those of training.
        ENDINGS: endings of files that are such examples, in lower case and with the point.
        UNREAD: endings of such examples in formats that are not read.
        OTHERS: endings of files that are not. If an ending is in none of these sets, the first
            bytes decide.
        BESIDE: endings of files that devices write beside another file of the same example.
        CELLS: names of columns of a table that hold examples themselves, in groups. A table has at
            most one column of each group, and the last group must be there; their cells are joined
            in this order. () where a table names files.
        NETWORK: the network that is used where the user names none.
        PLAIN: name of the model without a network, in metrics.json: "raw_pixels", or another one
            that `tfxfer.evaluate.baselines` knows.
        FEATURE: name of the content in a tf.Example.
        DAMAGE_KEY: key under which a cache keeps which files are not damaged; None where damage is
            not looked for.
        AUGMENTATIONS: names of the ways in which examples are altered for training.
        AS_NEW: those of them after which a training example is new to a model.
        ALTERS_CONTENTS: whether they alter the content of an example (`alter`), and not the decoded
            example (`augment`).
        ALTERATION: version of what `alter` does, in the cache keys of altered copies. It rises by
            one whenever the same seed alters an example in another way. 0 without `alter`.
        MIRROR: the augmentation that makes a mirror image. Features of both are averaged. None if
            there is none.
    """

    NAME: str
    ONE: str
    MANY: str
    CLASSIFIER: str
    TAG: str
    FILE: str
    VALUES: str
    SIMILAR: float
    TWINS: str
    ELSEWHERE: str
    ENDINGS: Set[str]
    UNREAD: Set[str]
    OTHERS: Set[str]
    BESIDE: Set[str]
    CELLS: Sequence[Sequence[str]]
    NETWORK: str
    PLAIN: str
    FEATURE: str
    DAMAGE_KEY: dict[str, Any] | None
    AUGMENTATIONS: tuple[str, ...]
    AS_NEW: tuple[str, ...]
    ALTERS_CONTENTS: bool
    ALTERATION: int
    MIRROR: str | None

    # --- files ---

    def begins_one(self, head: bytes, /) -> bool:
        """Return whether the first bytes of a file show that it is such an example."""

    def formats(self) -> str:
        """Return the formats that are read, for people."""

    def said_of_unread(self, endings: Set[str], /) -> str:
        """Return advice on files of `UNREAD`; "" if there are none among these endings."""

    def read_together(
        self, read: Callable[[int], bytes], files: Sequence[str]
    ) -> tuple[Callable[[int], bytes], list[str]]:
        """Find out what one file alone does not show, such as its encoding, from all of them.

        Args:
            read: a function from the index of a file to its content; called from several threads.
            files: the name of each file, for notes.

        Returns:
            A function like `read`, whose contents show it, and notes for the user.
        """

    def readable(self, content: bytes, file: str, /) -> bytes:
        """Return the content in a format that `Input.decode` reads.

        Args:
            file: name of the file, for errors.

        Raises:
            ImageError: it can't be converted.
            MissingExtraError: a package is needed for that.
        """

    def problem(self, content: bytes, /) -> str | None:
        """Return in a few words why this content can't be decoded; None if no reason was found."""

    def format_of(self, content: bytes, /) -> str | None:
        """Return the name of the format; None if it is unknown."""

    def essence(self, content: bytes, /) -> bytes:
        """Return what counts when copies are looked for: two examples are the same if it is."""

    def can_hide_damage(self, content: bytes, /) -> bool:
        """Return whether a decoder may read a damaged file of this format without an error."""

    def find_damage(self, content: bytes, /) -> Damage | None:
        """Return the damage of a file that has no `problem`; None if none was found."""

    # --- a network's input ---

    def spec(
        self,
        offered: Sequence[Sequence[Any]],
        size: tuple[int, int] | None,
        folder: str | PathLike[str],
    ) -> Any | None:
        """Return the spec of the input of a network for such examples, with only the batch open.

        Its dtype is what the network takes. Examples that are not strings are float32 all the same,
        and are cast in front of the network.

        Args:
            offered: the specs of the inputs of each call that the network has.
            size: height and width, if the user gave them.
            folder: the network's folder, for errors.

        Returns:
            None if the network takes something else.

        Raises:
            SavedModelError: it takes such examples, but not like this.
        """

    def takes(
        self, shape: tuple[int, ...], value_range: tuple[float, float], tokenizer: Any, /
    ) -> Input | None:
        """Return the input of that shape, float32; None if an example never has this shape.

        Args:
            tokenizer: a graph from strings to rows of numbers; None for a network without one.
        """

    def restore(self, values: Any, apart: bytes = b"") -> Input:
        """Return the input that `Input.settings` described.

        Args:
            values: a mapping; it may also hold other settings.
            apart: what `Input.apart` returned; without it, the input may not be able to decode.

        Raises:
            ValueError: a value is missing or not allowed; says which, and what was expected.
        """

    def plain(self) -> Input | None:
        """Return a small input; a baseline is fitted on its values, without a network.

        None where the values have to be learnt from the training examples (see `fit_plain`).
        """

    def fit_plain(self, contents: Sequence[bytes], train: int, seed: int) -> np.ndarray:
        """Return rows for the baseline, float32 [n, F]; only where `plain` returns None.

        Args:
            train: how many of the contents, from the first, are training examples.
        """

    def augment(self, batch: Any, seeds: Any, names: tuple[str, ...]) -> Any:
        """Return a random view of each example; only where not `ALTERS_CONTENTS`.

        Args:
            batch: float32 [B, *shape].
            seeds: int32 [B, 2].
            names: some of `AUGMENTATIONS`.
        """

    def alter(self, content: Any, seed: Any, names: tuple[str, ...]) -> Any:
        """Return the content of an example, altered at random, in TensorFlow operations only.

        Only where `ALTERS_CONTENTS`.

        Args:
            content: string [].
            seed: int32 [2].
            names: some of `AUGMENTATIONS`.
        """

    def mirror(self, batch: np.ndarray) -> np.ndarray:
        """Return the mirror image of each example; only where there is a `MIRROR`."""

    def said_of_read(self, contents: Sequence[bytes], takes: Input) -> list[str]:
        """Return notes for the user on how much of examples a network reads.

        Args:
            contents: some of the examples.
        """

    def for_app(self, takes: Input, contents: Iterable[bytes]) -> AppInput:
        """Return what an app needs to give decoded examples to a LiteRT file.

        Args:
            takes: the input of the network.
            contents: some of the examples. Each is read from its file when it is asked for, so a
                kind takes only as many as it needs.

        Raises:
            ServingError: no app can decode examples for this network.
        """

    # --- a report ---

    def preview(self, content: bytes, weight: np.ndarray | None = None) -> bytes | None:
        """Return a small picture of an example as a JPEG; None if it has none.

        Args:
            weight: what `explain` returned; what matters for the answer is bright.
        """

    def excerpt(self, content: bytes, /) -> str:
        """Return the beginning of an example that is read by people; "" if there is none."""

    def parts(self, content: bytes, /) -> list[str]:
        """Return the parts that `explain` leaves out, as text; [] if they are no text."""

    def explain(
        self,
        answers: Callable[[np.ndarray], np.ndarray],
        takes: Input,
        content: bytes,
        column: int,
    ) -> np.ndarray | None:
        """Return how much the probability of an answer depends on each part of an example.

        Args:
            answers: batches of decoded examples to predictions [n, K].
            takes: the input of the network, which decodes.
            content: one example.
            column: index of the answer.

        Returns:
            by how much the probability falls without each part, in the order of `parts` where there
            are any; None if parts can't be told apart.
        """

    def find_odd(self, examples: Files, plain: Any, /) -> list[tuple[int, str]]:
        """Return the examples that look broken, by their position, with the reason.

        Args:
            plain: the values of `plain` for each example, float32 [n, m]; None without them.
        """

    def said_of_odd(self, examples: Files, odd: Sequence[tuple[int, str]], /) -> list[str]:
        """Return notes for the user on what `find_odd` found."""


# A new kind of example is one file, and one row here. Where data hold files of several kinds, the
# first kind in this table that has a file there is used.
KINDS: dict[str, Kind] = {image.NAME: image, text.NAME: text}
DEFAULT = image.NAME  # the kind of data that hold no example, and of files of early versions


def find(name: str) -> Kind:
    """Return the kind of that name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"has the kind of example {name!r}; expected one of {', '.join(KINDS)}")
    return KINDS[name]


def of_shape(
    shape: tuple[int, ...], value_range: tuple[float, float], tokenizer: Any = None
) -> Input | None:
    """Return the input of the first kind whose examples may have this shape; None without any."""
    inputs = (kind.takes(shape, value_range, tokenizer) for kind in KINDS.values())
    return next((takes for takes in inputs if takes is not None), None)


def how_many(count: int, kind: Kind) -> str:
    """Return a number of examples with their noun: "1 photo" or "2,000 photos"."""
    return f"1 {kind.ONE}" if count == 1 else f"{count:,} {kind.MANY}"
