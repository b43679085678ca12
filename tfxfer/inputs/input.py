"""The input of a network for one example, and how it is made from a file."""

from typing import Any, Protocol


class Input(Protocol):
    """A decoded example, as a network takes it. Two inputs that are equal give the same values."""

    def __hash__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, float32."""

    def decode(self, content: Any) -> Any:
        """Return an example from the content of a file, in TensorFlow operations only.

        Training, prediction and serving share it.
        """

    def decode_unless_large(self, content: Any) -> tuple[Any, Any]:
        """Return an example and False; where it needs much memory, any values and True.

        Files are decoded in parallel by this function, and the large ones then one by one.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the values besides the file, as JSON values: for cache keys."""
