"""A Pretrained as it is kept in files: its graphs as bytes, and a short outline without them.

A model's file holds both. Keras makes the layers from the model's config, which holds the outline,
and fills them afterwards from the model's weights, where the graphs are stored, too. The graphs are
not assets in the sense of Keras, since `save_weights` writes no assets, and `save_model` with
`zipped=False` loses them where its path is relative (Keras 3.15).
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer.distribute import parcel
from tfxfer.errors import SavedModelError
from tfxfer.limits import FREE_GRAPH, GRAPH_RATIO, MOST_MESSAGE
from tfxfer.savedmodel.check import all_nodes, check_constants, check_graph
from tfxfer.savedmodel.graph import Pretrained, PureGraph, Tokenizer, Weight
from tfxfer.savedmodel.stages import Stage
from tfxfer.savedmodel.tf_text import load_operations

GRAPHS = ":graphs"  # their name among the weights; the name of a weight holds no colon
WHERE = "this file's graph"
CHANGED = (
    "is not the one that was saved: the file was changed or damaged, or is of another network. "
    "Take the file from where it was written."
)
NO_GRAPH = PureGraph(graph=GraphDef(), input=None, output="", weights=())
NO_STAGE = -1
NUMBERS = "biuf"  # the kinds of NumPy's types that weights may have
LEVEL = 5  # of zlib; the tables of a tokenizer take 30 times as long with 9, and become no smaller


@dataclass(frozen=True)
class Kept:
    """A Pretrained for a file.

    Args:
        graphs: everything but the values of the weights, compressed.
        digest: SHA-256 of what `graphs` unpacks to, in hexadecimal.
        outline: see `outline_of`.
    """

    graphs: bytes
    digest: str
    outline: str


def keep(pretrained: Pretrained) -> Kept:
    """Return what a file holds of a Pretrained, besides the values of its weights."""
    tokenizer = pretrained.tokenizer
    values = {
        "inference": graph_values(pretrained.inference),
        "training": graph_values(pretrained.training),
        "regularization": graph_values(pretrained.regularization),
        "weights": [
            [w.name, list(w.value.shape), w.value.dtype.name, w.trainable]
            for w in pretrained.weights
        ],
        "stages": [[s.name, s.cut, [f"weight_{i}" for i in s.weights]] for s in pretrained.stages],
        "last_map": pretrained.last_map,
        "input_shape": list(pretrained.input_shape),
        "features": pretrained.features,
        "reason": pretrained.reason,
        **({} if tokenizer is None else {"tokenizer": tokenizer_values(tokenizer)}),
    }
    content = parcel.pack(values)
    return Kept(zlib.compress(content, LEVEL), digest_of(content), outline_of(pretrained))


def graph_values(pure: PureGraph | None) -> dict[str, Any] | None:
    """Return a graph as values that `parcel.pack` takes."""
    if pure is None:
        return None
    return {
        "graph": bytes_of(pure.graph),
        "input": pure.input,
        "output": pure.output,
        "weights": list(pure.weights),
        "updates": [list(update) for update in pure.updates],
        **({"rows": pure.rows, "parts": pure.parts} if pure.rows else {}),
    }


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer as values that `parcel.pack` takes."""
    return {
        "graph": bytes_of(tokenizer.graph),
        "length": tokenizer.length,
        "parts": tokenizer.parts,
        "unit": tokenizer.unit,
    }


def tokenizer_of(values: dict[str, Any] | None, trust: bool) -> Tokenizer | None:
    """Return a tokenizer from the values of a file, after its graph was checked."""
    if values is None:
        return None
    graph = checked_graph(values["graph"], trust)
    return Tokenizer(graph, values["length"], values["parts"], values["unit"])


def bytes_of(graph: GraphDef) -> np.ndarray:
    """Return a graph as uint8 [n]."""
    return np.frombuffer(graph.SerializeToString(deterministic=True), np.uint8)


def restore(graphs: Any, digest: str | None, *, trust: bool) -> Pretrained:
    """Return a Pretrained from what `keep` made, with zeros as weights.

    Args:
        graphs: uint8 [n], `Kept.graphs` of a file that anybody may have written.
        digest: the digest that they must have; None where it is not known.
        trust: whether operations may reach files, Python and the internet.

    Raises:
        SavedModelError: the graphs are damaged, too large, or have another digest.
        DeniedOperationError: the graphs hold an operation that is not allowed; names it.
    """
    array = np.asarray(graphs)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise SavedModelError(f"{WHERE} is {array.dtype} {array.shape}; expected bytes.")
    content = inflate(array.tobytes())
    if digest is not None and digest_of(content) != digest:
        raise SavedModelError(f"{WHERE} {CHANGED}")
    return pretrained_of(parcel_values(content), trust=trust)


def restore_format_1(values: Any, *, trust: bool) -> Pretrained:
    """Return a Pretrained from the config of a layer that tfxfer 0.1 saved.

    The weights and errors are those of `restore`.
    """
    said = sorted((key, repr(value)) for key, value in values.items() if key != "digest")
    if digest_of(repr(said).encode()) != values.get("digest"):
        raise SavedModelError(f"{WHERE} {CHANGED}")
    values = dict(values)
    for name in ("inference", "training", "regularization"):
        if values[name] is not None:
            graph = inflate(base64.b64decode(values[name]["graph"]))
            values[name] = values[name] | {"graph": np.frombuffer(graph, np.uint8)}
    return pretrained_of(values, trust=trust)


def pretrained_of(values: dict[str, Any], *, trust: bool) -> Pretrained:
    """Return a Pretrained from the values of a file, after its graphs were checked."""
    try:
        inference = graph_of(values["inference"], trust)
        if inference is None:
            raise SavedModelError("this file has no graph to compute features with.")
        weights = [
            Weight(name, zeros(shape, dtype), trainable)
            for name, shape, dtype, trainable in values["weights"]
        ]
        return Pretrained(
            inference=inference,
            training=graph_of(values["training"], trust),
            regularization=graph_of(values["regularization"], trust),
            weights=tuple(weights),
            stages=tuple(stage_of(*stage, count=len(weights)) for stage in values["stages"]),
            last_map=values["last_map"],
            input_shape=tuple(values["input_shape"]),
            features=values["features"],
            reason=values["reason"],
            tokenizer=tokenizer_of(values.get("tokenizer"), trust),
        )
    except (AttributeError, DecodeError, KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{WHERE} is damaged: {error!r}.") from error


def stage_of(name: str, cut: str, nodes: Sequence[str], *, count: int) -> Stage:
    """Return a stage from the values of a file, which names the nodes of its weights.

    Raises:
        ValueError: there are only `count` weights, and a node reads none of them.
    """
    weights = tuple(int(node.removeprefix("weight_")) for node in nodes)
    if not all(0 <= i < count for i in weights):
        raise ValueError(f"the stage {name} has weights {weights} of {count}")
    return Stage(name=name, cut=cut, weights=weights)


def graph_of(value: dict[str, Any] | None, trust: bool) -> PureGraph | None:
    """Return a graph from the values of a file, after it was checked."""
    if value is None:
        return None
    graph = checked_graph(value["graph"], trust)
    updates = tuple((i, name) for i, name in value["updates"])
    return PureGraph(
        graph=graph,
        input=value["input"],
        output=value["output"],
        weights=tuple(value["weights"]),
        updates=updates,
        rows=value.get("rows", 0),
        parts=value.get("parts", 1),
    )


def checked_graph(content: np.ndarray, trust: bool) -> GraphDef:
    """Return a graph from its bytes in a file, after it was checked."""
    graph = GraphDef.FromString(content.tobytes())
    check_constants(graph, WHERE)
    if not trust:
        check_graph(graph, WHERE)
    load_operations({node.op for node in all_nodes(graph)}, "this file")
    return graph


def check_kept(pretrained: Pretrained) -> None:
    """Refuse a Pretrained whose graphs can do more than compute.

    Raises:
        DeniedOperationError: names the operations.
    """
    for pure in (pretrained.inference, pretrained.training, pretrained.regularization):
        if pure is not None:
            check_graph(pure.graph, WHERE)
    if pretrained.tokenizer is not None:
        check_graph(pretrained.tokenizer.graph, WHERE)


def outline_of(pretrained: Pretrained) -> str:
    """Return a short text from which a layer is made before its graphs are there.

    The text says which weights there are, in which stage each of them is, and what goes in and
    comes out. The values are stored column by column, since similar values next to each other
    compress better.
    """
    numbers = dict.fromkeys(range(len(pretrained.weights)), NO_STAGE)
    for number, stage in enumerate(pretrained.stages):
        for i in stage.weights:
            numbers[i] = number
    values = [
        [weight.name for weight in pretrained.weights],
        [list(weight.value.shape) for weight in pretrained.weights],
        [weight.value.dtype.name for weight in pretrained.weights],
        [weight.trainable for weight in pretrained.weights],
        list(numbers.values()),
        [stage.name for stage in pretrained.stages],
        list(pretrained.input_shape),
        pretrained.features,
        pretrained.reason,
    ]
    return base64.b64encode(zlib.compress(parcel.pack(values), 9)).decode()


def outlined(outline: str) -> Pretrained:
    """Return a Pretrained without graphs, from the text of `outline_of`.

    Its weights are zeros, and it can't compute.

    Raises:
        SavedModelError: the text is damaged.
    """
    try:
        values = parcel_values(inflate(base64.b64decode(outline)))
        names, shapes, dtypes, trainable, numbers, stages, input_shape, features, reason = values
        weights = [
            Weight(name, zeros(shape, dtype), trains)
            for name, shape, dtype, trains in zip(names, shapes, dtypes, trainable, strict=True)
        ]
        if len(numbers) != len(weights):
            raise ValueError(f"it has stages of {len(numbers)} of {len(weights)} weights")
        parts = []
        for number, name in enumerate(stages):
            weights_inside = tuple(i for i, stage in enumerate(numbers) if stage == number)
            parts.append(Stage(name=name, cut="", weights=weights_inside))
        return Pretrained(
            inference=NO_GRAPH,
            training=None,
            regularization=None,
            weights=tuple(weights),
            stages=tuple(parts),
            last_map="",
            input_shape=tuple(input_shape),
            features=features,
            reason=reason,
        )
    except (TypeError, ValueError) as error:
        raise SavedModelError(f"this file's outline of a network is damaged: {error}.") from error


def parcel_values(content: bytes) -> Any:
    """Return the values in a parcel.

    Raises:
        SavedModelError: the bytes are not a parcel.
    """
    try:
        return parcel.unpack(content)
    except ValueError as error:
        raise SavedModelError(f"{WHERE} is damaged: {error}.") from error


def digest_of(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def inflate(data: bytes) -> bytes:
    """Decompress bytes, up to the largest size that graphs have for so many compressed bytes.

    Raises:
        SavedModelError: there are more, or they are damaged.
    """
    most = min(max(FREE_GRAPH, GRAPH_RATIO * len(data)), MOST_MESSAGE)
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most)
    except zlib.error as error:
        raise SavedModelError(f"{WHERE} is damaged: {error}.") from error
    if not stream.eof:
        raise SavedModelError(
            f"{WHERE} is cut short, or unpacks to more than {most / 2**20:,.0f} MiB from"
            f" {len(data):,} bytes."
        )
    return content


def zeros(shape: Any, dtype: str) -> np.ndarray:
    """Return zeros that take no memory until they are copied.

    The shape comes from a file and may be wrong, so memory must not be reserved for it yet.
    """
    kind = np.dtype(dtype)
    if kind.kind not in NUMBERS:
        raise SavedModelError(f"this file's weights are {dtype}; expected numbers.")
    return np.broadcast_to(np.zeros((), kind), tuple(shape))
