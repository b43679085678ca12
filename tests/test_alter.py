"""Altered copies of texts depend on the text and a number alone."""

import numpy as np
import pytest
import tensorflow as tf

from tfxfer.inputs import seed_of
from tfxfer.inputs.text import alter_text

MAIL = "The rose is red. Is it? (I think so!) Water it on Monday and again on Friday, please"


def altered(text: str, kinds: tuple[str, ...], count: int = 40) -> list[str]:
    seeds = [tf.constant(seed_of(f"{i:07x}", 1)) for i in range(count)]
    return [alter_text(tf.constant(text), seed, kinds).numpy().decode() for seed in seeds]


def test_a_tenth_of_the_words_is_left_out_and_the_others_keep_their_order():
    words = [f"word{i}" for i in range(100)]
    copies = [copy.split() for copy in altered(" ".join(words), ("dropout",))]
    assert all(copy == sorted(copy, key=words.index) for copy in copies)
    assert 85 < np.mean([len(copy) for copy in copies]) < 95
    assert len({tuple(copy) for copy in copies}) == len(copies)


@pytest.mark.parametrize("text", ["word", "  word ", "a b"])
def test_a_word_always_stays(text):
    assert all(copy.split() for copy in altered(text, ("dropout",), count=300))


def test_sentences_are_exchanged_and_stay_whole():
    sentences = ["The rose is red.", "Is it?", "(I think so!)"]
    last = "Water it on Monday and again on Friday, please"
    copies = altered(MAIL, ("order",))
    for copy in copies:
        rest = copy
        for sentence in (*sentences, last):
            assert copy.count(sentence) == 1
            rest = rest.replace(sentence, "")
        assert not rest.strip()
    assert len(set(copies)) > 10


JAPANESE = (
    "\u3070\u3089\u306f\u8d64\u3044\u3002",
    "\u8d64\u3044\uff1f\uff01",
    "\u300c\u305d\u3046\u3060\u3002\u300d",
    "\u6708\u66dc\u306b\u6c34\uff61",
)


def test_sentences_without_spaces_between_them_are_exchanged():
    copies = altered("".join(JAPANESE), ("order",))
    assert all(sorted(copy.split(" ")) == sorted(JAPANESE) for copy in copies)
    assert len(set(copies)) > 10


@pytest.mark.parametrize(
    "text", [JAPANESE[0], "Pay 3.50 now", "one sentence. ", "no end\nof a line"]
)
def test_a_text_of_one_sentence_keeps_its_order(text):
    assert set(altered(text, ("order",))) == {text}


def test_the_same_number_gives_the_same_copy_in_a_pipeline_and_alone():
    kinds = ("dropout", "order")
    seeds = [seed_of(f"{i:07x}", 1) for i in range(40)]
    pipeline = tf.data.Dataset.from_tensor_slices(tf.constant(seeds)).map(
        lambda seed: alter_text(tf.constant(MAIL), seed, kinds)
    )
    assert [copy.decode() for copy in pipeline.as_numpy_iterator()] == altered(MAIL, kinds)


def test_an_unknown_kind_of_alteration_is_refused():
    with pytest.raises(ValueError, match="flip"):
        alter_text(tf.constant(MAIL), tf.constant((0, 1)), ("flip",))
