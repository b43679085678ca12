"""Networks for texts as public recipes make them, with small random weights.

nnlm        a vocabulary that is an asset, a table, and words of any number (the recipe of
            tensorflow/hub, examples/text_embeddings_v2/export_v2.py)
sentences   strings in, vectors out, without a table (in the manner of the Universal Sentence
            Encoder)
pair        a preprocessor with TensorFlow Text, and an encoder of its numbers (in the manner of
            bert_en_uncased_preprocess and small_bert)
languages   strings in, vectors out, by a SentencePiece model (in the manner of the multilingual
            Universal Sentence Encoder)
"""

import io
from pathlib import Path

import numpy as np
import sentencepiece
import tensorflow as tf

WORDS = ["rose", "tulip", "soil", "water", "bread", "salt", "oven", "the", "a", "is", "good", "my"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "##s", "##ing", ",", "."]
WIDTH = 16


def random(rng: np.random.Generator, *shape: int, scale: float = 0.5) -> tf.Variable:
    return tf.Variable(rng.normal(0, scale, shape), dtype=tf.float32)


def write_vocabulary(folder: Path, words: list[str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocabulary.txt"
    path.write_text("\n".join(words) + "\n")
    return str(path)


def table_of(vocabulary: str) -> tf.lookup.StaticVocabularyTable:
    """A table from the words in the lines of a file to their numbers."""
    lines = tf.lookup.TextFileIndex
    initializer = tf.lookup.TextFileInitializer(
        vocabulary, tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER
    )
    return tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)


class Nnlm(tf.Module):
    """The mean of the vectors of a text's words, times the root of their number."""

    def __init__(self, vocabulary: str, seed: int = 0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.embeddings = [random(rng, len(WORDS) + 1, WIDTH)]
        self.table = table_of(vocabulary)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, sentences):
        plain = tf.reshape(tf.strings.regex_replace(sentences, r"\pP", ""), [-1])
        words = tf.strings.split(plain, " ").to_sparse()
        words, _ = tf.sparse.fill_empty_rows(words, "")
        words = tf.sparse.reset_shape(words)
        ids = tf.SparseTensor(words.indices, self.table.lookup(words.values), words.dense_shape)
        return tf.nn.safe_embedding_lookup_sparse(self.embeddings, ids, None, combiner="sqrtn")


class Sentences(tf.Module):
    """Means of hashed words and pairs of words, then two dense layers."""

    BUCKETS = 64

    def __init__(self, seed: int = 0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.words = random(rng, self.BUCKETS, WIDTH)
        self.pairs = random(rng, self.BUCKETS, WIDTH)
        self.first, self.second = random(rng, 2 * WIDTH, 24), random(rng, 24, WIDTH)

    def mean_of(self, words, table):
        ids = tf.strings.to_hash_bucket_fast(words.values, self.BUCKETS)
        vectors = words.with_values(tf.gather(table, ids))
        return tf.math.divide_no_nan(
            tf.reduce_sum(vectors, 1), tf.cast(words.row_lengths(), tf.float32)[:, None]
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, inputs):
        words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(inputs), r"\pP", " "))
        pairs = tf.strings.ngrams(words, 2)
        x = tf.concat([self.mean_of(words, self.words), self.mean_of(pairs, self.pairs)], -1)
        x = tf.nn.relu(x @ self.first)
        return tf.math.l2_normalize(x @ self.second, -1)


def sentencepiece_model(**options) -> bytes:
    """A SentencePiece model of a few words, which it cuts into pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{one} {other}" for one in WORDS for other in WORDS]),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


class Languages(tf.Module):
    """The mean of the vectors of a text's pieces, then a dense layer."""

    def __init__(self, model: bytes, seed: int = 0):
        import tensorflow_text as text

        super().__init__()
        rng = np.random.default_rng(seed)
        self.tokenizer = text.SentencepieceTokenizer(model)
        self.pieces = random(rng, int(self.tokenizer.vocab_size()), WIDTH)
        self.dense = random(rng, WIDTH, WIDTH)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, inputs):
        pieces = self.tokenizer.tokenize(inputs)
        vectors = pieces.with_values(tf.gather(self.pieces, pieces.values))
        count = tf.cast(pieces.row_lengths(), tf.float32)[:, None]
        mean = tf.math.divide_no_nan(tf.reduce_sum(vectors, 1), count)
        return tf.math.l2_normalize(mean @ self.dense, -1)


class Preprocessor(tf.Module):
    """Numbers of pieces of words, a mask and types, int32 [B, length] each.

    As on TensorFlow Hub, its steps can be called, too: `tokenize`, and `bert_pack_inputs`, which
    takes the length of the rows.
    """

    def __init__(self, vocabulary: str, length: int = 24):
        import tensorflow_text as text

        super().__init__()
        self.text, self.length = text, length
        self.table = table_of(vocabulary)
        self.tokenizer = text.BertTokenizer(
            self.table, lower_case=True, token_out_type=tf.int32, preserve_unused_token=True
        )

        self.tokenize = tf.function(
            lambda sentences: self.tokenizer.tokenize(sentences),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        self.bert_pack_inputs = tf.function(
            lambda segments, seq_length: self.pack(segments[0], seq_length),
            input_signature=[
                [tf.RaggedTensorSpec([None, None, None], tf.int32)],
                tf.TensorSpec([], tf.int32, name="seq_length"),
            ],
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, sentences):
        return self.pack(self.tokenizer.tokenize(sentences), self.length)

    def pack(self, pieces, length):
        trimmer = self.text.RoundRobinTrimmer(max_seq_length=length - 2)
        (pieces,) = trimmer.trim([pieces.merge_dims(-2, -1)])
        ids, types = self.text.combine_segments(
            [pieces], start_of_sequence_id=2, end_of_segment_id=3
        )
        ids, mask = self.text.pad_model_inputs(ids, length)
        types, _ = self.text.pad_model_inputs(types, length)
        return {
            "input_word_ids": tf.cast(ids, tf.int32),
            "input_mask": tf.cast(mask, tf.int32),
            "input_type_ids": tf.cast(types, tf.int32),
        }


class Encoder(tf.Module):
    """A transformer of two blocks, as `small_bert`: a dict of three int32 to a dict of outputs."""

    def __init__(self, length: int = 24, seed: int = 0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.words = random(rng, len(PIECES) + 1, WIDTH)
        self.places, self.types = random(rng, length, WIDTH), random(rng, 2, WIDTH)
        self.blocks = [
            {name: random(rng, *shape, scale=0.3) for name, shape in shapes.items()}
            for shapes in [
                {
                    "query": (WIDTH, WIDTH),
                    "key": (WIDTH, WIDTH),
                    "value": (WIDTH, WIDTH),
                    "wide": (WIDTH, 32),
                    "narrow": (32, WIDTH),
                }
            ]
            * 2
        ]
        self.pool = random(rng, WIDTH, WIDTH)

    def block(self, x, hidden, weights):
        query, key, value = (x @ weights[name] for name in ("query", "key", "value"))
        attention = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 4.0 + hidden)
        x = x + tf.matmul(attention, value)
        return x + tf.nn.gelu(x @ weights["wide"]) @ weights["narrow"]

    @tf.function(
        input_signature=[
            {
                name: tf.TensorSpec([None, None], tf.int32, name=name)
                for name in ("input_mask", "input_type_ids", "input_word_ids")
            },
            tf.TensorSpec([], tf.bool, name="training"),
        ]
    )
    def __call__(self, inputs, training=False):
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        x = tf.gather(self.words, ids) + tf.gather(self.types, inputs["input_type_ids"])
        x += self.places[: tf.shape(ids)[1]]
        hidden = (1 - tf.cast(mask, tf.float32))[:, None, :] * -1e9
        outputs = []
        for number, weights in enumerate(self.blocks):
            with tf.name_scope(f"layer_{number}"):
                x = self.block(x, hidden, weights)
            outputs.append(x)
        pooled = tf.tanh(x[:, 0] @ self.pool)
        return {
            "sequence_output": x,
            "encoder_outputs": outputs,
            "pooled_output": pooled,
            "default": pooled,
        }


def save(network: tf.Module, folder: Path) -> str:
    """Write a network as a SavedModel, with its trainable variables, and return its folder."""
    tf.saved_model.save(network, str(folder))
    return str(folder)
