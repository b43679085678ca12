"""Trace a network for inference and for training, and take the graphs apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.inputs import KINDS
from tfxfer.savedmodel import bag, stages
from tfxfer.savedmodel.check import check_graph
from tfxfer.savedmodel.float32 import (
    convert_to_float32,
    convert_weights,
    is_other_precision,
)
from tfxfer.savedmodel.gradient import doubtful_gradient, same_gradient
from tfxfer.savedmodel.graph import (
    Pretrained,
    PureGraph,
    Tokenizer,
    Weight,
    known_shapes,
    mean_of,
    shapes_of,
)
from tfxfer.savedmodel.open import FLAGS, Opened
from tfxfer.savedmodel.pooling import pooled
from tfxfer.savedmodel.pure import NotPure, Weights, freeze_variables, purify
from tfxfer.savedmodel.stages import node_of
from tfxfer.savedmodel.tokenizer import split_tokenizer
from tfxfer.savedmodel.trial import check_answers

# Allowed difference of gradients, relative to the largest one, for a network in float16.
ROUNDED = 5e-2


def trace(
    opened: Opened,
    *,
    image_size: tuple[int, int] | None,
    arguments: dict[str, Any],
    output: str | None = None,
    trust: bool = True,
    held: set[str] | None = None,
) -> Pretrained:
    """Turn a network into pure graphs.

    Args:
        image_size: (H, W) in pixels, needed where the network takes images of any size.
        arguments: further arguments of its call.
        output: the name of the output that is used, where there are several. An output that is a
            map is pooled: the features are its mean over all positions.
        trust: skip the check of its graphs.
        held: names of the operations in its file. Only these are checked (see `check_graph`); with
            None, all are.

    Raises:
        ValueError: `arguments` holds `training`.
        SavedModelError: its input fits no kind of example, its output is not features, or not those
            of each example alone (see `trial`), or it does not take these arguments.
        DeniedOperationError: a graph holds an operation that is not allowed.
    """
    check_arguments(arguments)
    taken = input_spec(opened, image_size)
    opened = replace(opened, call=pooled(opened, output, taken.dtype))
    spec = taken if taken.dtype == tf.string else tf.TensorSpec(taken.shape, name=taken.name)
    inference = trace_call(opened, spec, arguments, training=False)
    check_output(inference, opened.name)
    training = None
    if opened.kind == "call":
        training = trace_call(opened, spec, arguments, training=True)
    graphs: list[PureGraph | None]
    try:
        weights = Weights(
            opened.variables,
            opened.trainable,
            opened.names,
            makers=opened.makers,
            big_constants=spec.dtype != tf.string,
        )
        concretes = (inference, training, sum_of(opened.losses))
        graphs = [purify(concrete, weights) if concrete else None for concrete in concretes]
        tokenizer, graphs = without_tokenizer(graphs, spec)
        reason = why_untrainable(opened.kind, opened.trainable)
    except NotPure as error:
        if spec.dtype == tf.string:
            raise SavedModelError(f"{opened.name} can't be used: {error}.") from error
        weights, tokenizer = Weights({}, set()), None
        graphs = [freeze_variables(inference, weights), None, None]
        reason = str(error)
    found_weights, bounds = weights.found, (1e-2, 1e-4)
    if graphs[0] is not None and is_other_precision(graphs[0].graph):
        bounds = (ROUNDED, ROUNDED)
        graphs = [convert_to_float32(one) if one else None for one in graphs]
        found_weights = convert_weights(found_weights)
    if not trust:
        found = [one.graph for one in graphs if one]
        for graph in [*found, *([tokenizer.graph] if tokenizer else [])]:
            check_graph(graph, opened.name, held)
    pretrained = assemble(graphs, found_weights, inference, reason=reason, tokenizer=tokenizer)
    checked = [
        (concrete, graph, bound)
        for concrete, graph, bound in zip(
            (training, inference), (graphs[1], graphs[0]), bounds, strict=True
        )
        if graph
    ]
    # The training call comes first: it changes the variables of the network, while `weights` holds
    # the values from before.
    doubtful = [] if reason else [check for check in checked if doubtful_gradient(check[0])]
    if not all(
        same_gradient(concrete, graph, bound, pretrained=pretrained, weights=weights, spec=spec)
        for concrete, graph, bound in doubtful
    ):
        reason = (
            "it uses a custom gradient that can't be kept, so training would use wrong gradients"
        )
        pretrained = assemble(graphs, found_weights, inference, reason=reason, tokenizer=tokenizer)
    # A network that can't compute fails here, where its name is known, and not later, among the
    # user's examples.
    check_answers(pretrained, opened)
    return pretrained


def without_tokenizer(
    graphs: list[PureGraph | None], spec: tf.TensorSpec
) -> tuple[Tokenizer | None, list[PureGraph | None]]:
    """Take the tokenizer off the graphs of a network for texts; others stay as they are.

    Returns:
        the tokenizer of the inference graph, and the graphs of what follows.

    Raises:
        NotPure: they can't be divided.
    """
    if spec.dtype != tf.string:
        return None, graphs
    tokenizer: Tokenizer | None = None
    rest: list[PureGraph | None] = []
    for graph in graphs:
        if graph is None or graph.input is None:
            rest.append(graph)
            continue
        tokenizer, after = split_tokenizer(graph, like=tokenizer)
        rest.append(after)
    return tokenizer, rest


def check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse an argument that callers must not give.

    Raises:
        ValueError: `arguments` holds `training`.
    """
    if "training" in arguments:
        raise ValueError(
            "Expected arguments without `training`, which Keras sets in each call. "
            f"Received: {arguments=}"
        )


def why_untrainable(kind: str, trainable: set[int]) -> str:
    """Return why the weights can't be trained; "" where they can."""
    if trainable:
        return ""
    if kind == "signature":
        return (
            "it has signatures only, without a training graph (Keras' model.export writes such "
            "files; to train it, export it with keras.export.ExportArchive and an endpoint named "
            "__call__)"
        )
    return "its author marked no weight as trainable"


def assemble(
    graphs: list[PureGraph | None],
    weights: list[Weight],
    inference: Any,
    reason: str,
    tokenizer: Tokenizer | None = None,
) -> Pretrained:
    """Return a network from its pure graphs: find its stages, its last map and its shapes.

    Args:
        graphs: for inference, for training, and of its regularization loss; the last two may be
            None.
        inference: the concrete function of the first one.
        reason: why the weights can't be trained; "" where they can.
    """
    pure, training, regularization = graphs
    assert pure is not None
    shape = tuple(int(side) for side in inference.inputs[0].shape[1:])
    shape = (pure.rows,) if pure.rows else shape
    features = int(inference.outputs[0].shape[-1])
    last_map = mean_of(pure)
    (found_shape,) = shapes_of(pure, shape, [last_map])
    if found_shape is None or found_shape[-1] != features:
        last_map = pure.output
    reads = {f"weight_{i}": stages.Read(number=i, rank=weights[i].value.ndim) for i in pure.weights}
    blocks = stages.find_stages(
        pure.graph,
        node_of(pure.input or ""),
        node_of(last_map),
        weights=reads,
        aside=pure.rows > 0,
    )
    # Where a block ends in a tensor that does not have one row for each example (such as the tokens
    # of a batch merged into one axis), it is merged with the next block.
    cuts = [stage.cut for stage in blocks]
    shapes = known_shapes(pure, shape, cuts, weights=weights, tokenizer=tokenizer)
    blocks = stages.merge_stages(blocks, [one is not None for one in shapes])
    if tokenizer is not None:
        pure, first = bag.with_words(pure, tokenizer.unit)
        blocks = (first, *blocks)
    if reason:
        weights = [Weight(w.name, w.value, False) for w in weights]
    return Pretrained(
        inference=pure,
        training=training,
        regularization=regularization,
        weights=tuple(weights),
        stages=blocks,
        last_map=last_map,
        input_shape=shape,
        features=features,
        reason=reason,
        tokenizer=tokenizer,
    )


def input_spec(opened: Opened, image_size: tuple[int, int] | None) -> tf.TensorSpec:
    """Return the spec of the only input; every dimension but the batch is fixed.

    Raises:
        SavedModelError: no kind of example fits.
    """
    for kind in KINDS.values():
        if (spec := kind.spec(opened.offered, image_size, opened.name)) is not None:
            return spec
    several = [one for one in opened.offered if len(one) > 1]
    if any(spec.dtype == tf.int32 for one in several for spec in one):
        raise SavedModelError(
            f"{opened.name} takes the numbers of word pieces, not texts. Give the handle of its "
            "preprocessor, which its page on TensorFlow Hub names: --backbone-preprocess HANDLE "
            "(preprocess=HANDLE in Python)."
        )
    raise SavedModelError(
        f"{opened.name} takes {described(opened.offered[0])}; expected one input of float32 images "
        "with shape [batch, height, width, 3], or of texts, string [batch]."
    )


def described(inputs: Sequence[tf.TensorSpec]) -> str:
    """Return what a call takes, in words."""
    listed = []
    for spec in inputs:
        shape = "an unknown shape"
        if spec.shape.rank is not None:
            shape = f"shape {tuple(spec.shape)}"
        listed.append(f"{spec.dtype.name} of {shape}")
    if not listed:
        return "no tensor"
    return listed[0] if len(listed) == 1 else f"{len(listed)} inputs ({'; '.join(listed)})"


def trace_call(
    opened: Opened, spec: tf.TensorSpec, arguments: dict[str, Any], training: bool
) -> Any:
    """Return the concrete function of one call; None if the call with `training=True` fails.

    Raises:
        SavedModelError: the model can't be called like this.
    """
    call = opened.call
    if opened.kind == "signature":
        if arguments:
            raise SavedModelError(
                f"{opened.name} has signatures only, which take no arguments. "
                f"Received arguments {sorted(arguments)}."
            )
        return tf.function(lambda x: call(x), autograph=False).get_concrete_function(spec)
    errors = []
    named = [name for name in FLAGS[1:] if name in opened.arguments and name not in arguments]
    flags: list[dict[str, bool]] = [{name: training} for name in (FLAGS[0], *named)]
    for extra in flags if training else [*flags, {}]:
        try:
            return tf.function(
                lambda x, extra=extra: call(x, **extra, **arguments),
                autograph=False,  # it would add lines to error messages
            ).get_concrete_function(spec)
        except (ValueError, TypeError) as error:
            errors.append(error)
    if training:
        return None
    missing = [name for name in opened.required if name not in arguments and name not in FLAGS]
    if missing:
        detail = (
            f"Its call needs the argument {', '.join(missing)}. Give it in Python: "
            f"arguments={{{missing[0]!r}: ...}}."
        )
    elif arguments:
        detail = (
            f"Received arguments {sorted(arguments)}; "
            f"its call takes {list(opened.arguments) or 'one input only'}."
        )
    else:
        detail = str(errors[-1]).strip().splitlines()[0]
    raise SavedModelError(
        f"{opened.name} can't be called on an input of shape {tuple(spec.shape[1:])}. {detail}"
    ) from errors[-1]


def check_output(concrete: Any, name: str) -> None:
    """Refuse a function that does not return one float32 output [B, F].

    Raises:
        SavedModelError: says what it returns.
    """
    outputs = concrete.structured_outputs
    if isinstance(outputs, dict) and len(outputs) > 1:
        listed = ", ".join(f"{key} {tuple(value.shape)}" for key, value in sorted(outputs.items()))
        raise SavedModelError(
            f"{name} has several outputs ({listed}); expected one. Choose it with "
            "--backbone-output NAME (output=NAME in Python)."
        )
    if len(concrete.outputs) != 1:
        raise SavedModelError(
            f"{name} has {len(concrete.outputs)} outputs; expected one. Choose it by its number, "
            'from 0, with --backbone-output 0 (output="0" in Python).'
        )
    (output,) = concrete.outputs
    if output.dtype != tf.float32 or output.shape.rank != 2 or output.shape[-1] is None:
        raise SavedModelError(
            f"{name} returns {output.dtype.name} with shape {output.shape}; expected "
            "floating-point features with shape [batch, features] and a fixed number of features. "
            'If it is a Keras network, build it with include_top=False, pooling="avg", and export '
            "that."
        )


def sum_of(losses: Sequence[Callable]) -> Any:
    """Return the sum of losses as a concrete function; None if there are none."""
    return (
        tf.function(
            lambda: tf.add_n([tf.reduce_sum(loss()) for loss in losses])
        ).get_concrete_function()
        if losses
        else None
    )
