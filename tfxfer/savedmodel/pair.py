"""Join a preprocessor of texts and an encoder of its numbers into one network.

TensorFlow Hub keeps BERT and its relatives in two SavedModels. The preprocessor turns strings into
a dict of `input_word_ids`, `input_mask` and `input_type_ids`, int32 [B, L] each. The encoder turns
these into a dict with `sequence_output`, [B, L, H], `pooled_output`, [B, H], and
`encoder_outputs`, the output of each block.
(https://www.tensorflow.org/hub/common_saved_model_apis/text)

A preprocessor has its two steps as attributes, too: `tokenize`, and `bert_pack_inputs`, which takes
the length of the rows as `seq_length`.

KerasHub has both as layers, with other names in the dict: `token_ids`, `padding_mask` and
`segment_ids`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.savedmodel.open import Opened
from tfxfer.savedmodel.sentencepiece import makers_of

ORDER = ("input_word_ids", "input_mask", "input_type_ids")  # of encoders that take a list
PIECES, MASKS = (ORDER[0], "token_ids"), (ORDER[1], "padding_mask")
SEQUENCE = "sequence_output"
STEPS = ("tokenize", "bert_pack_inputs")


def join(preprocessor: Opened, encoder: Opened) -> Opened:
    """Return the network from strings to the outputs of the encoder.

    An output with a vector for each word piece is averaged over the pieces that are not padding.
    Where no output is chosen, `sequence_output` is used: before fine-tuning it tells more than
    `pooled_output`.

    Raises:
        SavedModelError: the encoder doesn't take what the preprocessor gives.
    """
    names = {spec.name for one in encoder.offered for spec in one}
    listed = any(len(one) == len(ORDER) for one in encoder.offered) and not names & set(ORDER)

    @tf.autograph.experimental.do_not_convert
    def call(texts: tf.Tensor, **options: Any) -> Any:
        pieces = preprocessor.call(texts)
        check_pieces(pieces, preprocessor.name)
        as_list = listed and ORDER[0] in pieces
        given = [pieces[name] for name in ORDER] if as_list else pieces
        answer = encoder.call(given, **options)
        masks = [pieces[name] for name in MASKS if name in pieces]
        there = masks[0] if masks else tf.not_equal(first_of(pieces, PIECES), 0)
        return tf.nest.map_structure(lambda one: mean_over(one, there), answer)

    return replace(
        encoder,
        call=call,
        offered=preprocessor.offered,
        variables=preprocessor.variables | encoder.variables,
        makers=dict(preprocessor.makers) | dict(encoder.makers),
        owner=(preprocessor.owner, encoder.owner),
        preferred=SEQUENCE,
    )


def with_length(preprocessor: Opened, length: int) -> Opened:
    """Return a preprocessor that gives rows of another length.

    Raises:
        SavedModelError: it has no step that takes a length.
    """
    tokenize, pack = (getattr(preprocessor.owner, name, None) for name in STEPS)
    if not callable(tokenize) or not callable(pack):
        raise SavedModelError(
            f"{preprocessor.name} gives rows of a length of its own: it lacks "
            f"{' or '.join(STEPS)}, by which TensorFlow Hub's preprocessors take another one. "
            "Leave --length out."
        )

    @tf.autograph.experimental.do_not_convert
    def call(texts: tf.Tensor) -> Any:
        pieces = pack([tokenize(texts)], seq_length=tf.constant(length, tf.int32))
        return {name: tf.ensure_shape(row, (None, length)) for name, row in pieces.items()}

    return replace(preprocessor, call=call)


def check_pieces(pieces: Any, name: str) -> None:
    """Refuse a preprocessor that gives no dict of pieces.

    Raises:
        SavedModelError: says what it gives.
    """
    if not isinstance(pieces, Mapping) or not any(name in pieces for name in PIECES):
        found = ", ".join(pieces) if isinstance(pieces, Mapping) else type(pieces).__name__
        raise SavedModelError(
            f"{name} is no preprocessor of texts: it gives {found}; expected a dict with "
            f"{', '.join(ORDER)}."
        )


def first_of(values: Mapping[str, tf.Tensor], names: Sequence[str]) -> tf.Tensor:
    """Return the value of the first of these names that there is."""
    return next(values[name] for name in names if name in values)


def layer_as_preprocessor(layer: Callable) -> Opened:
    """Return a layer of KerasHub, from strings to a dict of pieces, as a network that is opened."""
    return Opened(
        name="the preprocessor",
        call=layer,
        kind="call",
        offered=[[tf.TensorSpec([None], tf.string)]],
        arguments=(),
        variables={},
        trainable=set(),
        losses=(),
        makers=makers_of(layer),
        owner=layer,
    )


def mean_over(output: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
    """Return the mean of an output [B, L, H] over the pieces that are there; others stay."""
    if output.shape.rank != 3:
        return output
    weight = tf.cast(there, output.dtype)[:, :, None]
    return tf.math.divide_no_nan(tf.reduce_sum(output * weight, 1), tf.reduce_sum(weight, 1))
