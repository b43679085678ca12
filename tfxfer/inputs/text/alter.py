"""Alter texts for training, in TensorFlow operations only: leave out words, or exchange sentences.

What is done depends only on the text and on a seed.
"""

import tensorflow as tf

DROPOUT, ORDER = "dropout", "order"
KINDS = (DROPOUT, ORDER)
LEFT_OUT = 0.1  # share of the words that are left out
# The end of a sentence, with what closes it, and the spaces behind it. Chinese and Japanese have no
# spaces there, and full stops, quotation marks and brackets of their own.
STOPS = r"\x{3002}\x{ff01}\x{ff1f}\x{ff61}"
CLOSING = r"\x{300d}\x{300f}\x{ff63}\x{ff09}\x{3011}\x{201d}\x{2019}"
END = rf"""([.!?][.!?"')\]]*)\s+|([{STOPS}][{STOPS}{CLOSING}"')\]]*)\s*|\n\s*\n"""


def alter_text(text: tf.Tensor, seed: tf.Tensor, kinds: tuple[str, ...]) -> tf.Tensor:
    """Return a text that was altered at random, string [].

    Args:
        text: string [].
        seed: int32 [2].
        kinds: any of "dropout" (about 10 % of the words are left out, never all) and "order" (the
            sentences stand in another order).

    Raises:
        ValueError: an unknown kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"Expected kinds from {', '.join(KINDS)}. Received: {unknown[0]!r}")
    if ORDER in kinds:
        text = exchange_sentences(text, seed)
    if DROPOUT in kinds:
        text = leave_out_words(text, seed)
    return text


def leave_out_words(text: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a text without some of its words; at least one stays."""
    words = tf.strings.split(text)
    draws = tf.random.stateless_uniform(tf.shape(words), seed)
    kept = (draws >= LEFT_OUT) | (draws >= tf.reduce_max(draws))
    return tf.strings.reduce_join(tf.boolean_mask(words, kept), separator=" ")


def exchange_sentences(text: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return the sentences of a text in a random order; a text of one sentence stays as it is."""
    marked = tf.strings.regex_replace(tf.strings.strip(text), END, "\\1\\2\x1e")
    parts = tf.strings.split(marked, "\x1e")
    sentences = tf.boolean_mask(parts, tf.strings.length(parts) > 0)
    draws = tf.random.stateless_uniform(tf.shape(sentences), seed)
    mixed = tf.strings.reduce_join(tf.gather(sentences, tf.argsort(draws)), separator=" ")
    return tf.cond(tf.size(sentences) > 1, lambda: mixed, lambda: text)
