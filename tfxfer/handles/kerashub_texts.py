"""How KerasHub prepares texts for a preset, in operations that become part of a network."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from keras_hub import models
from keras_hub.src.tokenizers.byte_pair_tokenizer import split_strings_for_bpe
from keras_hub.tokenizers import BytePairTokenizer, SentencePieceTokenizer

from tfxfer.errors import (
    UNSAFE_MODEL,
    DeniedOperationError,
    HandleError,
    MissingExtraError,
)
from tfxfer.handles.bytepairs import ByteLevel
from tfxfer.handles.keras_network import KerasNetwork

LENGTH = 128  # pieces of a text that are read where nobody asks for another number
# These name the classes of what turns texts into numbers.
CONFIGS = ("tokenizer.json", "preprocessor.json")


def network_of_texts(preset: str, handle: str, length: int | None, *, trust: bool) -> KerasNetwork:
    """Return a backbone for texts, and the layer that makes its inputs of strings.

    Args:
        length: how many pieces of a text are read; by default 128, or as many as it can read.
        trust: whether the preset may hold a SentencePiece model.

    Raises:
        DeniedOperationError: it holds one, and `trust` is False.
        HandleError: the backbone has no places for so many pieces.
        MissingExtraError: TensorFlow Text is not installed.
    """
    try:
        importlib.import_module("tensorflow_text")
    except (ImportError, OSError) as error:
        raise MissingExtraError(handle, "text") from error
    model = models.Backbone.from_preset(preset, dtype="float32")
    most = getattr(model, "max_sequence_length", None)
    if length is not None and most is not None and length > most:
        raise HandleError(
            f"{handle} reads at most {most} pieces of a text, and --length is {length}. Give "
            f"--length {most} or less."
        )
    length = length or min(LENGTH, most or LENGTH)
    with sentencepiece_models(trust, handle):
        prepare = models.TextClassifierPreprocessor.from_preset(preset, sequence_length=length)
    if isinstance(prepare.tokenizer, BytePairTokenizer):
        prepare.tokenizer.tokenize = tokenize_without_memory(prepare.tokenizer)
    return KerasNetwork(model=model, preprocess=prepare, takes="text")


@contextmanager
def sentencepiece_models(allowed: bool, handle: str) -> Iterator[None]:
    """Let KerasHub read a SentencePiece model in this context only where that is allowed.

    A preset may hold it in several places, such as a file, or a config. All of them end in one
    method. The library is not safe with every model, see `tfxfer.savedmodel.sentencepiece`.

    Raises:
        DeniedOperationError: KerasHub is about to read one.
    """
    own = SentencePieceTokenizer.set_proto
    denied = DeniedOperationError(f"{handle} cuts texts by a SentencePiece model. {UNSAFE_MODEL}")
    tried = []

    def refuse(self: Any, proto: Any) -> None:
        if proto is not None:
            tried.append(type(self))
            raise denied
        own(self, proto)

    if not allowed:
        SentencePieceTokenizer.set_proto = refuse
    try:
        yield
    except Exception as error:  # Keras makes another one of it, with the whole model in its text
        if tried:
            raise denied from error
        raise
    finally:
        SentencePieceTokenizer.set_proto = own


def tokenize_without_memory(tokenizer: BytePairTokenizer) -> Callable:
    """Return a function that tokenizes texts, from string [B] to whole numbers [B, none].

    KerasHub's own keeps words in a table that changes, which no file of a network can hold.
    """
    kept = tuple(tokenizer.unsplittable_tokens or ())
    cut = ByteLevel(tokenizer.vocabulary, list(pairs_of(tokenizer)), kept)

    def tokenize(texts: tf.Tensor) -> tf.RaggedTensor:
        spaced = tf.strings.join([" ", texts]) if tokenizer.add_prefix_space else texts
        return tf.cast(cut(split_strings_for_bpe(spaced, list(kept))), tokenizer.compute_dtype)

    return tokenize


def pairs_of(tokenizer: BytePairTokenizer) -> Iterator[tuple[str, str]]:
    """Yield the merges of a tokenizer; its file may begin with a line that names a version."""
    for line in tokenizer.merges:
        if "#version:" not in line:
            first, second = line.split(" ")
            yield first, second
