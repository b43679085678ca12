"""The input of a network of texts for one example.

TensorFlow is loaded only by what decodes: a report describes the input without it.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfxfer.errors import SavedModelError
from tfxfer.inputs import text

# A text may be long, and only its beginning is used: so many bytes for each number of a row.
BYTES = 128


@dataclass(frozen=True)
class TextInput:
    """Rows of numbers that a tokenizer makes of texts.

    Args:
        digest: the SHA-256 of the tokenizer's graph, in hexadecimal.
        length: how many positions of a text are read.
        parts: how many numbers there are for each position; those of all positions stand together.
        unit: what is at a position, in words.
        graph: the tokenizer, from `texts:0` to `rows:0`; None where only its digest is known.
    """

    KIND: ClassVar[str] = "text"
    TOGETHER: ClassVar[int] = 256

    digest: str
    length: int
    parts: int
    unit: str
    graph: Any = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(parts * length,)."""
        return (self.parts * self.length,)

    @property
    def padded(self) -> int:
        """The number of parts."""
        return self.parts

    def decode(self, content: Any) -> Any:
        """Return the numbers of a text, float32 [parts * length]; 0 is padding.

        Raises:
            SavedModelError: the tokenizer is not known.
        """
        return self.decode_many(content[None])[0]

    def decode_many(self, contents: Any) -> Any:
        """Return the numbers of texts, float32 [B, parts * length]."""
        if self.graph is None:
            raise SavedModelError("the tokenizer is part of the network, which is not loaded")
        return text.rows_of(self, contents)

    def decode_unless_large(self, content: Any) -> tuple[Any, Any]:
        """Return the numbers, and False: no text needs much memory."""
        return text.rows_unless_large(self, content)

    def pack(self, decoded: Any) -> Any:
        """Return the numbers as int32."""
        return text.pack(decoded)

    def unpack(self, packed: Any) -> Any:
        """Return the numbers as float32."""
        return text.unpack(packed)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the numbers besides the text, as JSON values."""
        return {"tokenizer": self.digest, "length": self.length, "bytes": BYTES}

    def settings(self) -> dict[str, Any]:
        """Return what settings.json holds."""
        return {
            "tokenizer": self.digest,
            "text_length": self.length,
            "text_parts": self.parts,
            "text_unit": self.unit,
        }

    def apart(self) -> bytes:
        """Return the tokenizer's graph."""
        return b"" if self.graph is None else self.graph.SerializeToString(deterministic=True)

    def described(self) -> str:
        """Return the length of a text."""
        return f"texts, of which the first {self.length:,} {self.unit} are read"

    def sample(self) -> bytes:
        """Return a short text."""
        return b"A text."
