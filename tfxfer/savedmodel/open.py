"""Load the folder of a SavedModel, and find its call, its variables and what it takes."""

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfxfer.errors import SavedModelError
from tfxfer.handles.folder import plain_path
from tfxfer.savedmodel.sentencepiece import makers_of
from tfxfer.savedmodel.stages import nodes_of
from tfxfer.savedmodel.trackables import trackables_of

LOG = logging.getLogger(__name__)
# What networks call the argument that tells whether they are trained; Keras sets the first.
FLAGS = ("training", "is_training", "train", "is_train")
# Operations that read files of pictures.
DECODERS = frozenset(
    "DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWebP".split()
)


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
        makers: the functions that make its resources, by the identity of their handles.
        owner: what must live as long as it is called.
        names: better names of variables than their own, by the identity of their handles.
        preferred: the output that is used where it has a dict of several, and none is chosen.
        required: those of `arguments` that have no default.
        signature: the name of the signature that is called; None for "call".
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
    makers: Mapping[int, Callable] = field(default_factory=dict)
    preferred: str | None = None
    required: tuple[str, ...] = ()
    signature: str | None = None


def open_folder(folder: str | os.PathLike, output: str | None = None) -> Opened:
    """Load the folder that holds `saved_model.pb`; inside a strategy scope this is refused.

    Args:
        output: the name of a signature that is used in place of the usual one, where there is one
            of that name and no call. Otherwise it is not looked at.

    Raises:
        SavedModelError: called inside a strategy scope; the file is from the time of Keras 2, and
            tf_keras, which it needs, is not installed; there is nothing to call; or it takes
            nothing but the content of files.
    """
    folder = Path(folder)
    loaded = load(folder)
    functions = functions_of(loaded)
    signatures = dict(getattr(loaded, "signatures", {}))
    variables = {id(v.handle): v for v in variables_of(loaded)}
    makers = makers_of(loaded)
    if functions and not any(decodes_files(one) for one in functions):
        losses = getattr(loaded, "regularization_losses", ()) or ()
        arguments, required = arguments_of(loaded, functions)
        return Opened(
            name=str(folder),
            call=by_position(loaded, functions),
            kind="call",
            offered=[inputs_of(one) for one in functions],
            arguments=arguments,
            required=required,
            variables=variables,
            trainable=trainable_of(loaded, variables),
            losses=tuple(loss for loss in losses if callable(loss)),
            makers=makers,
            owner=loaded,
        )
    if is_chosen(output, signatures):
        name = str(output)
    else:
        name = choose_signature(signatures, loaded, folder)
    return Opened(
        name=str(folder),
        call=call_of_signature(signatures[name], output if name == output else None),
        kind="signature",
        offered=[list(signatures[name].structured_input_signature[1].values())],
        arguments=(),
        variables=variables,
        trainable=set(),
        losses=(),
        makers=makers,
        owner=loaded,
        signature=name,
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


def functions_of(loaded: Any) -> list[Any]:
    """Return the traced functions of the call of a loaded object; [] where it has none."""
    if not callable(loaded):
        return []
    return list(getattr(loaded.__call__, "concrete_functions", ()))


def inputs_of(function: Any) -> list[tf.TensorSpec]:
    """Return the specs of the tensors in the first argument of a function."""
    positional, named = function.structured_input_signature
    first = positional[:1] if positional else list(named.values())
    return [spec for spec in tf.nest.flatten(first) if isinstance(spec, tf.TensorSpec)]


def by_position(loaded: Any, functions: Sequence[Any]) -> Callable:
    """Return the call of a loaded object as a function of its input, then named arguments.

    The call may take its only input in a dict, or by its name alone.
    """
    ways = {name_of_input(one) for one in functions}
    if ways == {("", "")} or len(ways) > 1:
        return loaded
    ((keyword, key),) = ways

    @tf.autograph.experimental.do_not_convert
    def call(x: Any, **options: Any) -> Any:
        given = {key: x} if key and not isinstance(x, dict) else x
        return loaded(**{keyword: given}, **options) if keyword else loaded(given, **options)

    return call


def name_of_input(function: Any) -> tuple[str, str]:
    """Return the keyword of the only input of a function, and its key in a dict; "" for none."""
    positional, named = function.structured_input_signature
    if positional:
        first = positional[0]
        return "", next(iter(first)) if isinstance(first, dict) and len(first) == 1 else ""
    keywords = [name for name, spec in named.items() if isinstance(spec, tf.TensorSpec)]
    return keywords[0] if len(keywords) == 1 else "", ""


def arguments_of(loaded: Any, functions: Sequence[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the further arguments of a call, and of those without a default."""
    names = {name for one in functions for name in one.structured_input_signature[1]}
    required: tuple[str, ...] = ()
    if (kind := getattr(loaded.__call__, "function_type", None)) is not None:
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        further = [one for one in kind.parameters.values() if one.kind not in several][1:]
        names |= {one.name for one in further}
        required = tuple(one.name for one in further if not one.optional)
    keywords = {name_of_input(one)[0] for one in functions}
    return tuple(sorted(names - keywords)), required


def call_of_signature(signature: Any, output: str | None = None) -> Callable:
    """Return a signature as a function of its only input, or of a dict of its inputs.

    Args:
        output: the only output that is returned, where there is one of that name.
    """

    def call(x: Any) -> Any:
        if isinstance(x, dict):
            return signature(**x)
        (name,) = signature.structured_input_signature[1]
        answer = signature(**{name: x})
        return {output: answer[output]} if output in answer else answer

    return call


def first_of(signatures: Mapping[str, Any]) -> str:
    """Return the name of the signature that is used where none is chosen; "" without any."""
    return next(
        (one for one in ("serving_default", "default", *signatures) if one in signatures), ""
    )


def is_chosen(output: str | None, signatures: Mapping[str, Any]) -> bool:
    """Return whether a name is that of a signature which can be used, and not of an output."""
    if output is None or output not in signatures:
        return False
    if output in outputs_of(signatures[first_of(signatures)]):
        return False
    return not decodes_files(signatures[output])


def choose_signature(signatures: Mapping[str, Any], loaded: Any, folder: Path) -> str:
    """Return the name of the signature that is used where none is chosen.

    Raises:
        SavedModelError: there is none; or the usual one takes the content of files, and not exactly
            one other takes numbers.
    """
    first = first_of(signatures)
    if not first and callable(loaded) and not functions_of(loaded):
        raise SavedModelError(
            f"{folder} can't be called: its __call__ was never called before it was saved, so no "
            "graph of it was saved. Call it once, or give it an input_signature, such as "
            "tf.function(call, input_signature=[tf.TensorSpec((None, 224, 224, 3))]), and save it "
            "again."
        )
    if not first and not functions_of(loaded):
        raise SavedModelError(
            f"{folder} can't be called: it has no __call__ and no signature. Export a tf.Module "
            "that has __call__(images, training=False)."
        )
    if first and not decodes_files(signatures[first]) and not functions_of(loaded):
        warn_of_others(signatures, first, folder)
        return first
    plain = [name for name, one in signatures.items() if takes_numbers(one)]
    if len(plain) != 1:
        listed = (
            f"signatures that take numbers: {', '.join(plain)}" if plain else "no other signature"
        )
        raise SavedModelError(
            f"{folder} takes the content of files, such as JPEG, which it decodes itself; expected "
            f"a network of float32 images [batch, height, width, 3]. It has {listed}. "
            + (
                f"Choose one with --backbone-output {plain[0]} (output={plain[0]!r} in Python)."
                if plain
                else "Export it with a signature that takes decoded images."
            )
        )
    LOG.warning(
        "%s takes the content of files, which it decodes itself. Its signature %s is used, which "
        "takes decoded images and returns %s.",
        folder,
        plain[0],
        ", ".join(outputs_of(signatures[plain[0]])),
    )
    return plain[0]


def warn_of_others(signatures: Mapping[str, Any], used: str, folder: Path) -> None:
    """Log a warning where other signatures take the same input and return something else."""
    inputs = sorted(map(kind_of, signatures[used].structured_input_signature[1].values()))
    listed = []
    for name, one in signatures.items():
        same = sorted(map(kind_of, one.structured_input_signature[1].values())) == inputs
        if name != used and same and outputs_of(one) != outputs_of(signatures[used]):
            listed.append(f"{name} ({', '.join(outputs_of(one))})")
    if listed:
        LOG.warning(
            "%s has several signatures, and %s (%s) is used. There are also: %s. Choose one with "
            "--backbone-output NAME (output=NAME in Python).",
            folder,
            used,
            ", ".join(outputs_of(signatures[used])),
            ", ".join(listed),
        )


def kind_of(spec: tf.TensorSpec) -> str:
    """Return dtype and shape of an input, without its name."""
    return f"{spec.dtype.name} {spec.shape}"


def outputs_of(signature: Any) -> dict[str, str]:
    """Return the outputs of a signature, by their names, with dtype and shape."""
    found = signature.structured_outputs
    return {name: kind_of(one) for name, one in found.items()} if isinstance(found, dict) else {}


def decodes_files(function: Any) -> bool:
    """Return whether a function takes strings that are files of pictures."""
    if not any(one.dtype == tf.string for one in function.inputs):
        return False
    return any(node.op in DECODERS for node in nodes_of(function.graph.as_graph_def()))


def takes_numbers(signature: Any) -> bool:
    """Return whether a signature has one input, of numbers with four axes."""
    specs = list(signature.structured_input_signature[1].values())
    return len(specs) == 1 and specs[0].dtype != tf.string and specs[0].shape.rank == 4


def variables_of(root: Any) -> Iterator[tf.Variable]:
    """Return every variable below `root`.

    Seed states are included, which `root.variables` leaves out.
    """
    return (node for node in trackables_of(root) if isinstance(node, tf.Variable))


def trainable_of(loaded: Any, variables: dict[int, tf.Variable]) -> set[int]:
    """The variables that the author marked as trainable, by the identity of their handles."""
    marked = getattr(loaded, "trainable_variables", None)
    if marked is None:
        marked = [variable for variable in variables.values() if variable.trainable]
    return {id(variable.handle) for variable in marked}
