"""Build the network `static`, the mean of vectors of words, from a Python package.

The package wordllama holds the vectors of https://github.com/dleemiller/WordLlama (MIT), which were
learnt from those of large language models. The network takes texts, cuts them into pieces (see
`bytepairs`), and returns the mean of their vectors, scaled to length one. It is about ten
times as fast as `minilm`, and does not see the order of words.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfxfer.errors import HandleError
from tfxfer.files import read_regular
from tfxfer.handles import checksum, safetensors
from tfxfer.handles.build import build_once, folder_of, published
from tfxfer.handles.bytepairs import BytePairs
from tfxfer.handles.catalog import Entry

BUILDER = 1  # raise it when the built network changes
LENGTH = 512  # pieces of a text that are read where nobody asks for another number
PACKAGE = "wordllama"
VECTORS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
# The SHA-256 of these two files in version 0.4.0.post1 of the package.
PUBLISHED = {
    VECTORS: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    TOKENIZER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
MOST_BYTES = 64 * 1024**2  # of one of these files


def build(entry: Entry, wanted: str = "", length: int = LENGTH) -> tuple[Path, str]:
    """Return the SavedModel folder, built on first use, and the SHA-256 of its vectors' file.

    Args:
        wanted: the SHA-256 that the file with the vectors must have; "" for any.
        length: how many pieces of a text are read.

    Raises:
        MissingExtraError: the package with the vectors is not installed.
        HandleError: a file is not the published one or not the one that was asked for, or the cache
            can't be written.
    """
    folder = folder_of(entry, PACKAGE, PACKAGE)
    digest = published(folder / VECTORS, PUBLISHED[VECTORS], MOST_BYTES)
    published(folder / TOKENIZER, PUBLISHED[TOKENIZER], MOST_BYTES)
    checksum.check(f"the file with the vectors of {entry.name}", digest, wanted)
    name = entry.name if length == LENGTH else f"{entry.name}-{length}"
    return build_once(name, BUILDER, digest, lambda: read_network(folder, length)), digest


class Network(tf.__internal__.tracking.AutoTrackable):
    """From string [B] to float32 [B, D]: the mean of the vectors of a text's pieces."""

    def __init__(self, vectors: np.ndarray, tokenizer: BytePairs):
        self.tokenizer = tokenizer
        self.vectors = tf.Variable(vectors, name="vectors")
        self.serving = tf.function(
            lambda inputs: {"features": self(inputs)},
            input_signature=[tf.TensorSpec([None], tf.string, name="inputs")],
        )
        self.trainable_variables = self.variables = [self.vectors]
        self.regularization_losses: list = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        ids = self.tokenizer(texts)
        there = tf.cast(tf.not_equal(ids, 0), tf.float32)[:, :, None]
        total = tf.reduce_sum(tf.gather(self.vectors, ids) * there, 1)
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(there, 1))
        return tf.math.l2_normalize(mean, -1, epsilon=1e-24)


def read_network(folder: Path, length: int = LENGTH) -> Network:
    """Return the network of the package's folder."""
    tensors = safetensors.read(folder / VECTORS, MOST_BYTES)
    vectors = tensors["embedding.weight"].astype(np.float32)
    return Network(vectors, read_tokenizer(folder / TOKENIZER, length))


def read_tokenizer(path: Path, length: int = LENGTH) -> BytePairs:
    """Return the tokenizer in a file of the library `tokenizers`.

    Raises:
        HandleError: it is no such file.
    """
    try:
        model = json.loads(read_regular(path, MOST_BYTES))["model"]
        pairs = [pair.split(" ") for pair in model["merges"]]
        merges = [(first, second) for first, second in pairs]
        vocabulary = dict(model["vocab"])
    except (KeyError, TypeError, ValueError) as error:
        raise HandleError(f"{path} is no file of a tokenizer: {error!r}.") from error
    return BytePairs(vocabulary, merges, length)
