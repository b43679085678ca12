"""Load the folder of a SavedModel, and find its call, its variables and what it takes."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.handles.folder import plain_path


@dataclass(frozen=True, eq=False)
class Opened:
    """A network that can be called, before it is traced.

    Args:
        name: what it is called in errors, such as its folder.
        call: `call(x, training=..., **arguments)` for "call", `call(x)` for "signature".
        kind: "call", or "signature", which has one behaviour only.
        offered: for each way to call it, the specs of its inputs.
        arguments: the names of further arguments of its call.
        variables: its variables, by the identity of their handles.
        trainable: the identities of the handles of those that its author marked as trainable.
        losses: its regularization losses.
        owner: what must live as long as it is called.
        names: better names of variables than their own, by the identity of their handles.
        preferred: the output that is used where it has a dict of several, and none is chosen.
    """

    name: str
    call: Callable
    kind: str
    offered: Sequence[Sequence[tf.TensorSpec]]
    arguments: tuple[str, ...]
    variables: dict[int, tf.Variable]
    trainable: set[int]
    losses: tuple[Callable, ...]
    owner: Any
    names: Mapping[int, str] = field(default_factory=dict)
    preferred: str | None = None


def open_folder(folder: str | os.PathLike) -> Opened:
    """Load the folder that holds `saved_model.pb`; inside a strategy scope this is refused.

    Raises:
        SavedModelError: called inside a strategy scope; the file is from the time of Keras 2, and
            tf_keras, which it needs, is not installed; or there is nothing to call.
    """
    folder = Path(folder)
    loaded = load(folder)
    call, kind = callable_of(loaded, folder)
    variables = {id(v.handle): v for v in variables_of(loaded)}
    losses = getattr(loaded, "regularization_losses", ()) or ()
    if kind == "signature":
        offered = [list(call.structured_input_signature[1].values())]
        arguments: set[str] = set()
    else:
        functions = call.__call__.concrete_functions
        offered = [
            [
                spec
                for spec in tf.nest.flatten(one.structured_input_signature[0][:1])
                if isinstance(spec, tf.TensorSpec)
            ]
            for one in functions
        ]
        arguments = {name for one in functions for name in one.structured_input_signature[1]}
    return Opened(
        name=str(folder),
        call=by_position(call) if kind == "signature" else call,
        kind=kind,
        offered=offered,
        arguments=tuple(sorted(arguments)),
        variables=variables,
        trainable=trainable_of(loaded, variables) if kind == "call" else set(),
        losses=tuple(loss for loss in losses if callable(loss)),
        owner=loaded,
    )


def check_scope() -> None:
    """Refuse to read a network where its variables would belong to a strategy.

    Raises:
        SavedModelError: called inside a strategy scope.
    """
    if tf.distribute.has_strategy():
        raise SavedModelError(
            "a network can't be read inside a strategy scope: read it before "
            "`with strategy.scope():`, and make only the layer inside."
        )


def load(folder: Path) -> Any:
    """Call `tf.saved_model.load`; inside a strategy scope this is refused.

    Raises:
        SavedModelError: called inside a strategy scope; or the file is from the time of Keras 2,
            and tf_keras, which it needs, is not installed.
    """
    check_scope()
    try:
        return tf.saved_model.load(str(plain_path(folder)))
    except AttributeError as error:
        # The file holds optimizer slots of Keras 2. Only tf_keras registers their type.
        if "add_slot" not in str(error):
            raise
    try:
        importlib.import_module("tf_keras")
    except ImportError as error:
        raise SavedModelError(
            f"{folder} was written by Keras 2 with its optimizer. Install tf_keras to read it: pip "
            "install tf_keras"
        ) from error
    return tf.saved_model.load(str(plain_path(folder)))


def by_position(signature: Any) -> Callable:
    """Return a signature as a function of its only input, or of a dict of its inputs."""

    def call(x: Any) -> Any:
        if isinstance(x, dict):
            return signature(**x)
        (name,) = signature.structured_input_signature[1]
        return signature(**{name: x})

    return call


def callable_of(loaded: Any, folder: Path) -> tuple[Any, str]:
    if callable(loaded) and hasattr(loaded.__call__, "concrete_functions"):
        return loaded, "call"
    signatures = dict(getattr(loaded, "signatures", {}))
    for name in ("serving_default", "default", *signatures):
        if name in signatures:
            return signatures[name], "signature"
    raise SavedModelError(
        f"{folder} can't be called: it has no __call__ and no signature. Export a tf.Module that "
        "has __call__(images, training=False)."
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


def trainable_of(loaded: Any, variables: dict[int, tf.Variable]) -> set[int]:
    """The variables that the author marked as trainable, by the identity of their handles."""
    marked = getattr(loaded, "trainable_variables", None)
    if marked is None:
        marked = [variable for variable in variables.values() if variable.trainable]
    return {id(variable.handle) for variable in marked}
