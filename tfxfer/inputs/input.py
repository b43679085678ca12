"""The input of a network for one example, and how it is made from a file."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

# A part of an example matters if the answer's probability falls by at least so much without it.
TELLING = 0.1


class Input(Protocol):
    """A decoded example, as a network takes it. Two inputs that are equal give the same values."""

    KIND: ClassVar[str]  # the name of its kind, see `tfxfer.inputs.kind`
    TOGETHER: ClassVar[
        int
    ]  # how many examples are worth decoding at once; 1 where it doesn't matter

    def __hash__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, float32."""

    @property
    def padded(self) -> int:
        """How many rows of one length stand side by side, with zeros at their ends as padding.

        0 where an example has no padding.
        """

    def decode(self, content: Any) -> Any:
        """Return an example from the content of a file, in TensorFlow operations only.

        Training, prediction and serving share it.
        """

    def decode_many(self, contents: Any) -> Any:
        """Return examples from the contents of files, [B, *shape]; only where `TOGETHER` is not 1.

        The values are those of `decode`.
        """

    def decode_unless_large(self, content: Any) -> tuple[Any, Any]:
        """Return an example and False; where it needs much memory, any values and True.

        Files are decoded in parallel by this function, and the large ones then one by one. It is
        called eagerly where there are few files, and in a graph where there are many, and must
        return the same bits both ways.
        """

    def pack(self, decoded: Any) -> Any:
        """Return decoded examples in fewer bytes, to keep them in memory; of the same shape.

        Training sees all examples as `unpack` returns them, whether they are kept or not.
        """

    def unpack(self, packed: Any) -> Any:
        """Return packed examples as float32."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the values besides the file, as JSON values: for cache keys."""

    def settings(self) -> dict[str, Any]:
        """Return what a run records of it, from which `Kind.restore` makes it again."""

    def apart(self) -> bytes:
        """Return what `settings` can't hold, such as a large table; b"" if there is nothing."""

    def described(self) -> str:
        """Return what it is, in words, for the model card."""

    def sample(self) -> bytes:
        """Return the content of a file that can be decoded, to warm up a server."""


class Files(Protocol):
    """Examples, as far as a kind looks at their files."""

    @property
    def files(self) -> Sequence[str]: ...
    @property
    def paths(self) -> Sequence[str] | None: ...
    @property
    def read(self) -> Callable[[int], bytes]: ...


class AppInput(NamedTuple):
    """What an app gives to a LiteRT file, and what it needs for that.

    names: what the inputs are called: the parts of an example, in their order.
    dtype: the dtype of each input.
    files: what lies beside the file: name and content.
    note: what the app has to do, in a sentence for the user; "" if the file says it.
    calibrated: whether int8 also applies to what the network computes, with ranges from examples;
        otherwise to its weights alone.
    """

    names: tuple[str, ...]
    dtype: str
    files: dict[str, bytes]
    note: str
    calibrated: bool


class Damage(NamedTuple):
    """The damage of a file, and whether a decoder can read the file nevertheless."""

    reason: str
    readable: bool


def seed_of(digest: str, number: int) -> tuple[int, int]:
    """Return the seed of an example's altered view of that number, from the hash of its content."""
    return int(digest[:7], 16), number
