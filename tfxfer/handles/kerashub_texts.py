"""How KerasHub prepares texts for a preset, in operations that become part of a network."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf
from keras_hub import models
from keras_hub.src.tokenizers.byte_pair_tokenizer import split_strings_for_bpe
from keras_hub.tokenizers import BytePairTokenizer

from tfxfer.errors import HandleError, MissingExtraError
from tfxfer.handles.bytepairs import ByteLevel
from tfxfer.handles.keras_network import KerasNetwork

LENGTH = 128  # pieces of a text that are read where nobody asks for another number
# These name the classes of what turns texts into numbers.
CONFIGS = ("tokenizer.json", "preprocessor.json")
# A SentencePiece model, as KerasHub and as Transformers call it.
SENTENCEPIECE = (
    str(Path("assets", "tokenizer", "vocabulary.spm")),
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)


def network_of_texts(preset: str, handle: str, length: int | None) -> KerasNetwork:
    """Return a backbone for texts, and the layer that makes its inputs of strings.

    Args:
        length: how many pieces of a text are read; by default 128.

    Raises:
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
    prepare = models.TextClassifierPreprocessor.from_preset(
        preset, sequence_length=length or LENGTH
    )
    if isinstance(prepare.tokenizer, BytePairTokenizer):
        prepare.tokenizer.tokenize = tokenize_without_memory(prepare.tokenizer)
    return KerasNetwork(model=model, preprocess=prepare, takes="text")


def tokenize_without_memory(tokenizer: BytePairTokenizer) -> Callable:
    """Return what a tokenizer computes, from string [B] to whole numbers [B, none].

    That of KerasHub remembers words in a table that changes, which no file of a network can hold.
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
