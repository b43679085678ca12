"""Load a folder once, trace it for inference and for training, and return a `Pretrained`."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.handles.folder import plain_path
from tfxfer.inputs import KINDS
from tfxfer.savedmodel import stages
from tfxfer.savedmodel.check import check_graph, check_saved_model
from tfxfer.savedmodel.gradient import marked_gradient, same_gradient
from tfxfer.savedmodel.graph import Pretrained, PureGraph, Weight, mean_of, node_of, shapes_of
from tfxfer.savedmodel.pure import NotPure, Weights, freeze_variables, purify

LOG = logging.getLogger(__name__)


def read(
    folder: str | os.PathLike,
    *,
    image_size: tuple[int, int] | None = None,
    arguments: dict[str, Any] | None = None,
    trust: bool = False,
) -> Pretrained:
    """Read a TF2 SavedModel of an image feature extractor as pure functions.

    Args:
        folder: the folder that holds `saved_model.pb`. Its call takes float32 images [B, H, W, 3]
            and returns float32 features [B, F].
        image_size: (H, W) in pixels, needed where the graph doesn't fix it.
        arguments: further arguments of the model's call, such as `{"batch_norm_momentum": 0.99}`.
        trust: also read graphs that hold operations which can reach files, Python or the network.

    Raises:
        SavedModelError: TF1 format, damaged files, other inputs or outputs, unknown arguments.
        DeniedOperationError: the graph holds an operation that is not allowed; names it (see
            `operations`).
        ValueError: `arguments` holds `training`.
    """
    arguments = arguments or {}
    if "training" in arguments:
        raise ValueError(
            "Expected arguments without `training`, which Keras decides in each call. "
            f"Received: {arguments=}"
        )
    folder = Path(folder)
    LOG.info("Reading the network")
    held = check_saved_model(folder, trust=trust)
    with explain_failure(folder):
        loaded = load(folder)
        pretrained, inference = take_apart(
            loaded, folder, image_size, arguments=arguments, held=None if trust else held
        )
        # A network that can't compute fails here, where the folder's name is known, and not later,
        # among the user's images.
        inference(tf.zeros((1, *pretrained.input_shape)))
    return pretrained


def take_apart(
    loaded: Any,
    folder: Path,
    image_size: tuple[int, int] | None,
    arguments: dict[str, Any],
    held: set[str] | None,
) -> tuple[Pretrained, Any]:
    """Turn what was loaded into pure graphs.

    Args:
        held: the operations in the file, which are checked; None where the file is trusted.

    Returns: a `Pretrained`, and the concrete function of the model's call for inference.
    """
    call, kind = callable_of(loaded, folder)
    spec = input_spec(call, image_size, folder)
    inference = trace(call, spec, arguments, training=False, folder=folder)
    output_of(inference, folder)
    training = (
        trace(call, spec, arguments, training=True, folder=folder) if kind == "call" else None
    )
    losses = [loss for loss in getattr(loaded, "regularization_losses", ()) or () if callable(loss)]
    variables = {id(v.handle): v for v in variables_of(loaded)}
    trainable = trainable_of(loaded, variables) if kind == "call" else set()
    graphs: list[PureGraph | None]
    try:
        weights = Weights(variables, trainable)
        concretes = (inference, training, sum_of(losses))
        graphs = [purify(concrete, weights) if concrete else None for concrete in concretes]
        reason = why_untrainable(kind, trainable)
    except NotPure as error:
        weights = Weights({}, set())
        graphs = [freeze_variables(inference, weights), None, None]
        reason = str(error)
    for graph in filter(None, graphs):
        if held is not None:
            check_graph(graph.graph, str(folder), held)
    pretrained = assemble(graphs, weights.found, inference, reason=reason)
    checked = [
        (concrete, graph, bound)
        for concrete, graph, bound in zip(
            (training, inference), (graphs[1], graphs[0]), (1e-2, 1e-4), strict=True
        )
        if graph
    ]
    # The training call comes first: it changes the variables of the loaded object, while `weights`
    # holds the values from before.
    doubtful = [] if reason else [check for check in checked if marked_gradient(check[0])]
    if not all(
        same_gradient(concrete, graph, bound, pretrained=pretrained, weights=weights, spec=spec)
        for concrete, graph, bound in doubtful
    ):
        reason = "it holds a custom gradient that can't be kept (its gradients would be wrong)"
        pretrained = assemble(graphs, weights.found, inference, reason=reason)
    return pretrained, inference


def trainable_of(loaded: Any, variables: dict[int, tf.Variable]) -> set[int]:
    """The variables that the author marked as trainable, by the identity of their handles."""
    marked = getattr(loaded, "trainable_variables", None)
    if marked is None:
        marked = [variable for variable in variables.values() if variable.trainable]
    return {id(variable.handle) for variable in marked}


def why_untrainable(kind: str, trainable: set[int]) -> str:
    """Return why the weights can't be trained; "" where they can."""
    if trainable:
        return ""
    if kind == "signature":
        return (
            "it has signatures only, which hold no training graph (as Keras' model.export writes "
            "them; keras.export.ExportArchive with an endpoint called __call__ keeps it)"
        )
    return "its author marked no weight as trainable"


@contextmanager
def explain_failure(folder: Path) -> Iterator[None]:
    """Turn the errors that TensorFlow raises for a damaged graph into one with the folder's name.

    TensorFlow may raise almost any error there.
    """
    try:
        yield
    except (
        tf.errors.OpError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines() or [""]
        raise SavedModelError(
            f"{folder} can't be loaded, it seems damaged: {type(error).__name__}: {lines[0]} "
            "Fetch or export it again."
        ) from error


def assemble(
    graphs: list[PureGraph | None], weights: list[Weight], inference: Any, reason: str
) -> Pretrained:
    pure, training, regularization = graphs
    assert pure is not None
    shape = tuple(int(side) for side in inference.inputs[0].shape[1:])
    features = int(inference.outputs[0].shape[-1])
    last_map = mean_of(pure)
    (found_shape,) = shapes_of(pure, shape, [last_map])
    if found_shape is None or found_shape[-1] != features:
        last_map = pure.output
    reads = {f"weight_{i}": stages.Read(number=i, rank=weights[i].value.ndim) for i in pure.weights}
    found = stages.find_stages(
        pure.graph, node_of(pure.input or ""), node_of(last_map), weights=reads
    )
    # Where a block ends in a tensor that does not have one row for each example (such as the tokens
    # of a batch merged into one axis), it is merged with the next block.
    found = stages.merge_stages(
        found, [one is not None for one in shapes_of(pure, shape, [stage.cut for stage in found])]
    )
    if reason:
        weights = [Weight(w.name, w.value, False) for w in weights]
    return Pretrained(
        inference=pure,
        training=training,
        regularization=regularization,
        weights=tuple(weights),
        stages=found,
        last_map=last_map,
        input_shape=shape,
        features=features,
        reason=reason,
    )


def load(folder: Path) -> Any:
    """Call `tf.saved_model.load` outside any strategy scope.

    Raises:
        SavedModelError: called inside a strategy scope; or the file is from the time of Keras 2,
            and tf_keras, which it needs, is not installed.
    """
    if tf.distribute.has_strategy():
        raise SavedModelError(
            "a SavedModel must be read outside the strategy's scope: read it first, and make the "
            "layer inside the scope."
        )
    try:
        try:
            return tf.saved_model.load(str(plain_path(folder)))
        except AttributeError as error:
            # The file holds optimizer slots of Keras 2. Only tf_keras registers their type.
            if "add_slot" not in str(error):
                raise
            importlib.import_module("tf_keras")
            return tf.saved_model.load(str(plain_path(folder)))
    except ImportError as error:
        raise SavedModelError(
            f"{folder} was written by Keras 2 with its optimizer. Install tf_keras to read it: pip "
            "install tf_keras"
        ) from error


def callable_of(loaded: Any, folder: Path) -> tuple[Callable, str]:
    if callable(loaded) and hasattr(loaded.__call__, "concrete_functions"):
        return loaded, "call"
    signatures = dict(getattr(loaded, "signatures", {}))
    for name in ("serving_default", "default", *signatures):
        if name in signatures:
            return signatures[name], "signature"
    raise SavedModelError(
        f"{folder} has neither a call nor a signature. A feature extractor is a tf.Module with "
        "`__call__(images, training=False)`."
    )


def input_spec(call: Any, image_size: tuple[int, int] | None, folder: Path) -> tf.TensorSpec:
    """Return the spec of the one input, of which only the batch is open.

    Raises:
        SavedModelError: no kind of example fits.
    """
    if hasattr(call, "structured_input_signature"):
        offered = [list(call.structured_input_signature[1].values())]
    else:
        offered = [
            [
                a
                for a in tf.nest.flatten(c.structured_input_signature[0][:1])
                if isinstance(a, tf.TensorSpec)
            ]
            for c in call.__call__.concrete_functions
        ]
    for kind in KINDS.values():
        if (spec := kind.spec(offered, image_size, folder)) is not None:
            return spec
    raise SavedModelError(
        f"{folder} takes {offered[0]}; expected one input of float32 images with shape "
        "[batch, height, width, 3]."
    )


def trace(
    call: Any, spec: tf.TensorSpec, arguments: dict[str, Any], training: bool, folder: Path
) -> Any:
    """Return the concrete function of one call; None where the model takes no `training=True`.

    Raises:
        SavedModelError: the model can't be called like this.
    """
    if hasattr(call, "structured_input_signature"):
        (name,) = call.structured_input_signature[1]
        return tf.function(lambda x: call(**{name: x})).get_concrete_function(spec)
    errors = []
    for extra in ({"training": training}, {}) if not training else ({"training": True},):
        try:
            return tf.function(
                lambda x, extra=extra: call(x, **extra, **arguments)
            ).get_concrete_function(spec)
        except (ValueError, TypeError) as error:
            errors.append(error)
    if training:
        return None
    names = sorted(
        {name for c in call.__call__.concrete_functions for name in c.structured_input_signature[1]}
    )
    detail = (
        f"Received arguments {sorted(arguments)}; its call takes {names or 'x only'}."
        if arguments
        else str(errors[-1]).strip().splitlines()[0]
    )
    raise SavedModelError(
        f"{folder} can't be called on {' x '.join(map(str, spec.shape[1:]))} values. {detail}"
    ) from errors[-1]


def output_of(concrete: Any, folder: Path) -> None:
    """Refuse a function that does not return one float32 output [B, F].

    Raises:
        SavedModelError: says what it returns.
    """
    outputs = concrete.structured_outputs
    if isinstance(outputs, dict) and len(outputs) > 1:
        listed = ", ".join(
            f"{name} {tuple(value.shape)}" for name, value in sorted(outputs.items())
        )
        raise SavedModelError(
            f"{folder} has several outputs ({listed}); expected one. Wrap it in a tf.Module whose "
            "__call__ returns the features, and save that."
        )
    if len(concrete.outputs) != 1:
        raise SavedModelError(
            f"{folder} has {len(concrete.outputs)} outputs; expected one. Wrap it in a tf.Module "
            "whose __call__ returns the features."
        )
    (output,) = concrete.outputs
    if output.dtype != tf.float32 or output.shape.rank != 2 or output.shape[-1] is None:
        raise SavedModelError(
            f"{folder} returns {output.dtype.name} with shape {output.shape}; expected float32 "
            "features with shape [batch, features]. Of a Keras network, build it with "
            'include_top=False, pooling="avg" and export that.'
        )


def variables_of(root: Any) -> Iterator[tf.Variable]:
    """Yield every variable below `root`.

    Seed states are included, which `root.variables` leaves out.
    """
    seen, todo = set[int](), [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            yield node
        elif hasattr(node, "_trackable_children"):
            todo += list(node._trackable_children().values())


def sum_of(losses: list[Callable]) -> Any:
    return (
        tf.function(
            lambda: tf.add_n([tf.reduce_sum(loss()) for loss in losses])
        ).get_concrete_function()
        if losses
        else None
    )
