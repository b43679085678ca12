"""A pretrained SavedModel as an ordinary Keras layer."""

import base64
import hashlib
import math
import os
import warnings
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf
from keras.src.saving import (
    serialization_lib,
)  # private: the only way to ask whether `safe_mode` is on
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer import handles, savedmodel
from tfxfer.errors import SavedModelError
from tfxfer.limits import FREE_GRAPH, GRAPH_RATIO, MOST_MESSAGE
from tfxfer.savedmodel import Pretrained, PureGraph, Weight
from tfxfer.stages import Stage

FORMAT = 1
T = TypeVar("T")
KNOWN: weakref.WeakValueDictionary[str, Pretrained] = (
    weakref.WeakValueDictionary()
)  # what this process has read, so that a clone starts from its weights


Precision: TypeAlias = Literal["float32", "mixed"]


@dataclass(frozen=True)
class Prefix:
    """A frozen network as one constant graph, from pixels to features.

    Args:
        graph: every weight is a constant.
        input: placeholder, float32 [None, H, W, 3] in `value_range`.
        output: float32 [None, width].
        tap_widths: columns of each tap from input to output; () where the output is the network's own.
        fingerprint: hexadecimal, of the graph, its weights and its taps.
    """

    graph: GraphDef
    input: str
    output: str
    image_size: tuple[int, int]
    value_range: tuple[float, float]
    width: int
    feature_size: int
    tap_widths: tuple[int, ...]
    fingerprint: str


RangeFrom = Literal["given", "catalog", "graph", "assumed"]


def told_range(
    given: tuple[float, float] | None, known: tuple[float, float] | None, pretrained: Pretrained
) -> tuple[float, float, RangeFrom]:
    """The range of pixels that a network expects, and where it was told."""
    if given is not None:
        return *given, "given"
    if known is not None:
        return *known, "catalog"
    if pretrained.inference.input and (found := savedmodel.range_of(pretrained)) is not None:
        return *found, "graph"
    return 0.0, 1.0, "assumed"


class Hidden(Generic[T]):
    """Holds what Keras must not walk into: graphs and functions are no layers."""

    def __init__(self, it: T):
        self.it = it


@keras.saving.register_keras_serializable(package="tfxfer")
class Backbone(keras.layers.Layer):
    """A pretrained image network as a Keras layer with weights of its own.

    Args:
        handle: catalog name, folder, archive or URL of a TF2 SavedModel (see `tfxfer.handles.resolve`).
        trainable: False freezes all; True trains what `unfreeze` names, everything where it was never called.
        taps: None for the network's own output; k for one [B, F] tensor of the last k stages (see Output shape).
        arguments: further arguments of the SavedModel's call.
        image_size: (height, width) or one number, in pixels, where neither the graph nor the catalog knows it.
        value_range: (low, high) of the pixels it expects. Where it is left out, the catalog tells
            it, or what the graph does with
            pixels first; where nothing does, (0, 1) is assumed (`range_from` says which).
        batch_norm: "inference" never moves BatchNorm statistics and never drops out; "train" does whenever the layer trains in `fit`;
            "auto" only where every stage trains.
        precision: "mixed" computes convolutions and products in bfloat16, for a GPU or a TPU; weights and features stay float32.
        trust: also read graphs that can reach files, Python or the network.

    Input shape: float32 [B, H, W, 3] in `value_range`.

    Output shape: float32 [B, feature_size]. With `taps=k` [B, sum(tap_widths)]: for each of the last k stages, from input to output, the mean
    over all positions, then the maximum; the last map is the last tap (where the output is not the mean of a map, the output itself).

    Raises: HandleError, SavedModelError; ValueError for wrong arguments.

    Example:

        model = keras.Sequential([keras.Input((224, 224, 3)), Backbone("efficientnet-lite0", trainable=False), keras.layers.Dense(2)])
    """

    def __init__(
        self,
        handle: str | os.PathLike | Pretrained,
        *,
        trainable: bool = True,
        taps: int | None = None,
        arguments: dict[str, Any] | None = None,
        image_size: int | tuple[int, int] | None = None,
        value_range: tuple[float, float] | None = None,
        batch_norm: Literal["auto", "inference", "train"] = "auto",
        precision: Precision = "float32",
        trust: bool = False,
        name: str | None = None,
    ):
        if batch_norm not in ("auto", "inference", "train"):
            raise ValueError(
                f'Expected batch_norm to be "auto", "inference" or "train". Received: batch_norm={batch_norm!r}'
            )
        if (backend := keras.config.backend()) != "tensorflow":
            raise SavedModelError(
                f"Keras runs on {backend}; a SavedModel is TensorFlow's, and its layer needs "
                "Keras on tensorflow. "
                "Unset KERAS_BACKEND, or set it to tensorflow, before Keras is imported."
            )
        if precision not in ("float32", "mixed"):
            raise ValueError(
                f'Expected precision to be "float32" or "mixed". Received: precision={precision!r}'
            )
        # `precision` says how the graph computes, whatever the policy is; Keras must not cast its weights.
        super().__init__(name=name, dtype="float32", autocast=False)
        with tf.init_scope():  # also where Keras traces, as in the build() of a model
            pretrained, self.handle, known, self.sha256 = opened(
                handle, image_size, arguments, trust
            )
        if taps is not None and not 1 <= taps <= len(pretrained.stages):
            raise ValueError(
                f"Expected taps from 1 to {len(pretrained.stages)}, the number of stages. Received: taps={taps}"
            )
        self.taps, self.batch_norm, self.precision = taps, batch_norm, precision
        low, high, self.range_from = told_range(value_range, known, pretrained)
        self.value_range = (float(low), float(high))
        self._pretrained = Hidden(pretrained)
        self._plan: tuple[str, ...] | None = None
        self._warned = False  # of a batch on another scale
        self._own = [
            self.add_weight(
                name=w.name,
                shape=w.value.shape,
                dtype=w.value.dtype.name,
                trainable=w.trainable,
                initializer=constant(w.value),
                # BatchNorm's statistics are the mean of all replicas'; each replica's seeds move alike by themselves.
                aggregation="mean" if w.value.dtype.kind == "f" else "none",
            )
            for w in pretrained.weights
        ]
        self._functions = Hidden[dict[Any, Any]]({})
        self._fitted: tuple[bool, ...] | None = None  # what trained when `fit` last traced a step
        self.built = True
        self._apply(trainable)

    # --- what it is like ---

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._pretrained.it.image_size

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Shape of one input: (height, width, 3), or that of the activations that a part of a network starts from (see `cut`)."""
        return self._pretrained.it.input_shape

    @property
    def pretrained(self) -> Pretrained:
        """Graphs, stages and weights, these as they are now."""
        found = self._pretrained.it
        return replace(
            found,
            weights=tuple(
                Weight(w.name, mine.numpy(), w.trainable)
                for w, mine in zip(found.weights, self._own, strict=True)
            ),
        )

    @property
    def feature_size(self) -> int:
        """Width of the network's own output."""
        return self._pretrained.it.features

    @property
    def stages(self) -> tuple[Stage, ...]:
        """From input to output; the unit of `taps` and of `unfreeze`."""
        return self._pretrained.it.stages

    @property
    def why_frozen(self) -> str:
        """Why the weights can't be trained; "" where they can."""
        return self._pretrained.it.reason

    @property
    def tap_widths(self) -> tuple[int, ...]:
        """Columns of each tap of the output, from input to output; () without taps."""
        return self._widths(self.taps)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; changes with the graph and with any weight."""
        digest = hashlib.sha256(
            self._pretrained.it.inference.graph.SerializeToString(deterministic=True)
        )
        for i in self._pretrained.it.inference.weights:
            digest.update(np.ascontiguousarray(self._own[i].numpy()).tobytes())
        return digest.hexdigest()

    def _maps(self, taps: int | None) -> tuple[str, ...] | None:
        return None if taps is None else tuple(stage.cut for stage in self.stages[-taps:])

    def _widths(self, taps: int | None) -> tuple[int, ...]:
        if taps is None:
            return ()
        return tuple(
            shape[-1] * (2 if len(shape) > 1 else 1)
            for shape in self._pretrained.it.stage_shapes[-taps:]
        )

    def prefix(self, taps: int | None = None) -> Prefix:
        """The whole network in inference mode as one constant graph, with its weights as they are now."""
        maps, widths = self._maps(taps), self._widths(taps)
        graph = savedmodel.constant_graph(self._pretrained.it, [v.numpy() for v in self._own], maps)
        key = hashlib.sha256(f"{self.fingerprint} {maps}".encode()).hexdigest()
        width = sum(widths) or self.feature_size
        return Prefix(
            graph,
            "pixels:0",
            "features:0",
            self.image_size,
            self.value_range,
            width,
            self.feature_size,
            widths,
            key,
        )

    def tapped(self, taps: int | None) -> "Backbone":
        """The same network with the same weights and other taps, frozen; BatchNorm in inference mode where there are taps, which exist in no other."""
        how: dict[str, Any] = {
            "taps": taps,
            "batch_norm": "inference" if taps else self.batch_norm,
            "precision": self.precision,
        }
        other = Backbone(self._pretrained.it, trainable=False, value_range=self.value_range, **how)
        other.handle = self.handle
        other.take_weights(self)
        return other

    def cut(self, stages: int, taps: int | None = None) -> tuple[Prefix, "Backbone"]:
        """The network in two before its last `stages` stages: what comes before as a constant graph, and the rest as a layer that trains.

        The first gives rows of numbers, float32 [B, W]: the activations that the rest starts from, one after the other (`rest.entry_shape`), then those of the
        last `taps` taps that lie before the cut, pooled. The rest is a Backbone in inference mode from activations, with the other taps.

        Raises:
            ValueError: there is nothing before or after that cut.
            SavedModelError: the network can't be cut there, or can't be fine-tuned.
        """
        first = len(self.stages) - stages
        if not 1 <= stages < len(self.stages):
            raise ValueError(
                f"Expected 1 to {len(self.stages) - 1} stages after the cut. Received: stages={stages}"
            )
        values = [v.numpy() for v in self._own]
        early = (
            tuple(stage.cut for stage in self.stages[:first])[-(taps - stages) :]
            if taps is not None and taps > stages
            else ()
        )
        widths = self._widths(taps)[: len(early)]
        graph = savedmodel.before(self._pretrained.it, values, first, early)
        key = hashlib.sha256(
            f"{self.fingerprint} {self.stages[first - 1].cut} {early}".encode()
        ).hexdigest()
        width = math.prod(self._pretrained.it.stage_shapes[first - 1]) + sum(widths)
        prefix = Prefix(
            graph,
            "pixels:0",
            "features:0",
            self.image_size,
            self.value_range,
            width,
            width,
            (),
            key,
        )
        part = savedmodel.after(self._pretrained.it, values, first)
        rest = Backbone(
            part,
            trainable=not self.why_frozen,
            taps=None if taps is None else min(taps, stages),
            batch_norm="inference",
        )
        rest.handle = self.handle
        return prefix, rest

    def take_weights(self, other: "Backbone") -> None:
        """The weights of another Backbone of the same network, or of a part of it, by name."""
        mine = dict(zip((w.name for w in self._pretrained.it.weights), self._own, strict=True))
        for weight, value in zip(other._pretrained.it.weights, other._own, strict=True):
            mine[weight.name].assign(value)

    def stage_sizes(self) -> list[tuple[Stage, tuple[int, ...], int, int]]:
        """For each stage: its output's shape without the batch, its parameters, and the bytes of its output an example, in float32."""
        weights, rows = self._pretrained.it.weights, []
        for stage, shape in zip(self.stages, self._pretrained.it.stage_shapes, strict=True):
            count = sum(
                weights[int(name.removeprefix("weight_"))].value.size for name in stage.weights
            )
            rows.append((stage, shape, count, 4 * math.prod(shape)))
        return rows

    # --- what trains ---

    @property
    def trainable(self) -> bool:
        """False freezes all; True trains what the plan says, everything where `unfreeze` was never called."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if hasattr(self, "_own"):
            self._apply(bool(value))
        else:
            self._trainable = bool(value)

    def unfreeze(self, stages: int | str) -> None:
        """Train the last `stages` stages, or all from the stage of that name on, or "all". Compile the model anew afterwards."""
        names = [stage.name for stage in self.stages]
        if stages == "all":
            plan = tuple(names)
        elif isinstance(stages, str):
            if stages not in names:
                raise ValueError(
                    f"Expected the name of a stage. Received: {stages!r}. The stages are: {', '.join(names)}"
                )
            plan = tuple(names[names.index(stages) :])
        elif isinstance(stages, int | np.integer) and 0 <= stages <= len(names):
            plan = tuple(names[len(names) - stages :])
        else:
            raise ValueError(
                f"Expected a number of stages from 0 to {len(names)}. Received: {stages!r}. The stages are: {', '.join(names)}"
            )
        # Every stage by its number or name is everything: BatchNorm must not tell the two apart.
        before, self._plan = self._plan, None if plan == tuple(names) else plan
        try:
            self._apply(True)
        except (SavedModelError, ValueError):
            self._plan = before
            raise

    def freeze(self) -> None:
        """Train nothing; the plan of `unfreeze` is kept for `trainable = True`."""
        self._apply(False)

    def _apply(self, trainable: bool) -> None:
        if trainable and self.why_frozen:
            raise SavedModelError(
                f"{self.handle} can't be fine-tuned: {self.why_frozen}. Use it frozen, with trainable=False."
            )
        if trainable and self._plan is not None and self.batch_norm == "train":
            raise ValueError(
                'Expected batch_norm="auto" or "inference" for a partly frozen Backbone: "train" would move statistics of frozen stages.'
            )
        self._trainable = trainable
        planned = {
            name
            for stage in self.stages
            if self._plan is None or stage.name in self._plan
            for name in stage.weights
        }
        for i, (mine, weight) in enumerate(
            zip(self._own, self._pretrained.it.weights, strict=True)
        ):
            if weight.trainable:
                mine.trainable = trainable and (self._plan is None or f"weight_{i}" in planned)
        if self._fitted is not None and self._fitted != tuple(v.trainable for v in self._own):
            self._fitted = None
            warnings.warn(
                "what trains in this Backbone has changed since the model was compiled, and `fit` would go on as before: call compile() with a new optimizer.",
                stacklevel=3,
            )

    # --- the computation ---

    def _graph(self, training: bool) -> PureGraph:
        pretrained = self._pretrained.it
        moves = self.batch_norm == "train" or (self.batch_norm == "auto" and self._plan is None)
        if training and self.trainable and moves and pretrained.training is not None:
            return pretrained.training
        return pretrained.inference

    def _run(
        self, graph: PureGraph, maps: tuple[str, ...] | None, *inputs: tf.Tensor, fast: bool = False
    ) -> list[tf.Tensor]:
        low = self.precision == "mixed"
        key = (id(graph), maps, fast, low)
        if key not in self._functions.it:
            with tf.init_scope():
                self._functions.it[key] = savedmodel.function(
                    graph,
                    self._pretrained.it.weights,
                    self._pretrained.it.input_shape,
                    maps,
                    fast,
                    low,
                )
        values = [tf.convert_to_tensor(self._own[i].value) for i in graph.weights]
        # Frozen weights must not cost a backward pass.
        values = [
            v if self._own[i].trainable or not v.dtype.is_floating else tf.stop_gradient(v)
            for i, v in zip(graph.weights, values, strict=True)
        ]
        return self._functions.it[key](*inputs, *values)

    def call(self, x, training=False):
        if (found := tuple(x.shape[1:])) != self.entry_shape:
            raise ValueError(
                f"Expected images of shape (batch, {', '.join(map(str, self.entry_shape))}). Received: shape={(None, *found)}"
            )
        if not self._warned and tf.executing_eagerly():
            self._warn_of_range(x)
        if training and tf.inside_function():
            self._fitted = tuple(v.trainable for v in self._own)
        graph = self._graph(bool(training))
        fast = (
            bool(training)
            and self.trainable
            and len(tf.config.list_logical_devices()) == len(tf.config.list_logical_devices("CPU"))
        )
        x, count = tf.cast(x, tf.float32), tf.shape(x)[0]
        if several := tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # A replica may be left without an example, and TensorFlow's convolutions on a CPU (2.21) give an empty batch a wrong shape.
            x = tf.pad(x, [[0, tf.cast(count == 0, tf.int32)], *([0, 0] for _ in self.entry_shape)])
        features, *updates = self._run(graph, self._training_maps(graph), x, fast=fast)
        features = features[:count] if several else features
        for (i, _), value in zip(graph.updates, updates, strict=True):
            self._own[i].assign(value)
        # Once, however often the layer is called in a model: it depends on the weights alone.
        if (
            self.trainable
            and (loss := self._pretrained.it.regularization) is not None
            and not self._losses
        ):
            self.add_loss(self._run(loss, None)[0])
        return features

    def _warn_of_range(self, x: Any) -> None:
        """Once, where pixels are on another scale than those that the network expects.

        Only of values that are known: not while `fit` traces.
        """
        low, high = self.value_range
        if len(self.entry_shape) != 3 or self.entry_shape[-1] != 3 or not len(x):
            return
        least, most = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        room = (high - low) / 2
        dark = high > 2 and 0 < most <= 1  # 0 to 1, where 0 to 255 is expected
        if least < low - room or most > high + room or dark:
            self._warned = True
            warnings.warn(
                f"The pixels of this batch go from {least:g} to {most:g}; {self.name} expects "
                f"them from {low:g} to "
                f"{high:g}. Scale them first, such as with keras.layers.Rescaling, or say what "
                "the network "
                "expects with value_range.",
                stacklevel=2,
            )

    def _training_maps(self, graph: PureGraph) -> tuple[str, ...] | None:
        if self.taps is not None and graph is not self._pretrained.it.inference:
            raise SavedModelError(
                'taps are places in the inference graph: use batch_norm="inference" to fine-tune a Backbone with taps.'
            )
        return self._maps(self.taps)

    def compute_output_shape(self, shape):
        """(batch, width)."""
        if tuple(shape[1:]) != self.entry_shape:
            raise ValueError(
                f"Expected images of shape (batch, {', '.join(map(str, self.entry_shape))}). Received: shape={tuple(shape)}"
            )
        return (shape[0], sum(self.tap_widths) or self.feature_size)

    # --- keeping it ---

    def get_config(self) -> dict[str, Any]:
        """Graphs and all; the weights are kept by Keras."""
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "handle": str(self.handle),
            "taps": self.taps,
        }
        config |= {
            "value_range": list(self.value_range),
            "batch_norm": self.batch_norm,
            "precision": self.precision,
            "plan": None if self._plan is None else list(self._plan),
        }
        return config | {"format": FORMAT, "graphs": packed(self._pretrained.it)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Backbone":
        """Rebuild from graphs, with the pretrained weights where this process has read them; in another one they are zero until they are loaded."""
        config = dict(config)
        if config.pop("format", None) != FORMAT:
            raise SavedModelError(
                f"this Backbone was saved by another version of tfxfer; expected format {FORMAT}. Export it again with this version."
            )
        pretrained, plan, handle, trainable = (
            unpacked(config.pop("graphs")),
            config.pop("plan"),
            config.pop("handle"),
            config.pop("trainable"),
        )
        layer = cls(pretrained, trainable=False, **config)
        layer.handle, layer._plan = handle, None if plan is None else tuple(plan)
        layer._apply(trainable)
        return layer

    def save_own_variables(self, store) -> None:
        """By name, so that their order doesn't matter."""
        for weight, mine in zip(self._pretrained.it.weights, self._own, strict=True):
            store[weight.name] = mine.numpy()

    def load_own_variables(self, store) -> None:
        """By name."""
        for weight, mine in zip(self._pretrained.it.weights, self._own, strict=True):
            if weight.name not in store:
                raise SavedModelError(
                    f"the saved weights lack {weight.name!r}; expected one value for each weight of {self.handle}."
                )
            mine.assign(store[weight.name])
        # A clone of this layer begins with what was loaded, as one of a layer that read the
        # SavedModel does.
        known = self._pretrained.it
        values = {w.name: np.array(store[w.name]) for w in known.weights}
        loaded = replace(
            known, weights=tuple(replace(w, value=values[w.name]) for w in known.weights)
        )
        self._pretrained.it = loaded
        packed(loaded)  # makes it known


def constant(value: np.ndarray):
    return lambda shape, dtype=None: tf.constant(value)


def opened(
    handle: Any, image_size: Any, arguments: Any, trust: bool
) -> tuple[Pretrained, str, tuple[float, float] | None, str | None]:
    """A handle resolved and read, with the value range that the catalog knows and the hash of its files."""
    if isinstance(handle, Pretrained):
        return handle, "a SavedModel read before", None, None
    size = (
        (image_size, image_size)
        if isinstance(image_size, int)
        else tuple(image_size)
        if image_size
        else None
    )
    found = handles.resolve(handle)
    if size is None and found.entry is not None:
        size = (found.entry.image_size, found.entry.image_size)
    return (
        savedmodel.read(found.path, image_size=size, arguments=arguments, trust=trust),
        str(handle),
        found.entry.value_range if found.entry else None,
        found.sha256,
    )


def packed(pretrained: Pretrained) -> dict[str, Any]:
    """Plain JSON values of everything but the weights' values, with a digest of the graphs."""

    def graph(pure: PureGraph | None) -> dict[str, Any] | None:
        if pure is None:
            return None
        data = base64.b64encode(
            zlib.compress(pure.graph.SerializeToString(deterministic=True), 9)
        ).decode()
        return {
            "graph": data,
            "input": pure.input,
            "output": pure.output,
            "weights": list(pure.weights),
            "updates": [list(u) for u in pure.updates],
        }

    values = {
        "inference": graph(pretrained.inference),
        "training": graph(pretrained.training),
        "regularization": graph(pretrained.regularization),
        "weights": [
            [w.name, list(w.value.shape), w.value.dtype.name, w.trainable]
            for w in pretrained.weights
        ],
        "stages": [[s.name, s.cut, list(s.weights)] for s in pretrained.stages],
        "last_map": pretrained.last_map,
        "input_shape": list(pretrained.input_shape),
        "features": pretrained.features,
        "reason": pretrained.reason,
    }
    digest = digest_of(values)
    KNOWN[digest] = pretrained
    return values | {"digest": digest}


def digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(
        repr(sorted((k, repr(v)) for k, v in values.items() if k != "digest")).encode()
    ).hexdigest()


def unpacked(values: dict[str, Any]) -> Pretrained:
    if digest_of(values) != values.get("digest"):
        raise SavedModelError(
            "this file's graph is not the one that was saved: it was changed or damaged. Take the file from where it was written."
        )
    if (known := KNOWN.get(values["digest"])) is not None:
        for pure in filter(None, (known.inference, known.training, known.regularization)):
            allow(pure.graph)
        return known

    def graph(value: dict[str, Any] | None) -> PureGraph | None:
        if value is None:
            return None
        proto = GraphDef.FromString(inflated(base64.b64decode(value["graph"])))
        savedmodel.check_constants(proto, "this file's graph")
        allow(proto)
        return PureGraph(
            proto,
            value["input"],
            value["output"],
            tuple(value["weights"]),
            tuple((i, name) for i, name in value["updates"]),
        )

    inference = graph(values["inference"])
    if inference is None:
        raise SavedModelError("this file has no graph to compute features with.")
    return Pretrained(
        inference,
        graph(values["training"]),
        graph(values["regularization"]),
        tuple(
            Weight(name, zeros(shape, dtype), trainable)
            for name, shape, dtype, trainable in values["weights"]
        ),
        tuple(Stage(name, cut, tuple(weights)) for name, cut, weights in values["stages"]),
        values["last_map"],
        tuple(values["input_shape"]),
        values["features"],
        values["reason"],
    )


def inflated(data: bytes) -> bytes:
    """A graph's bytes, of at most so many as graphs of that size have.

    Raises:
        SavedModelError: there are more, or they are damaged.
    """
    most = min(max(FREE_GRAPH, GRAPH_RATIO * len(data)), MOST_MESSAGE)
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most)
    except zlib.error as error:
        raise SavedModelError(f"this file's graph is damaged: {error}.") from error
    if not stream.eof:
        raise SavedModelError(
            f"this file's graph is cut short, or unpacks to more than {most / 2**20:,.0f} MiB from"
            f" {len(data):,} bytes."
        )
    return found


def zeros(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Zeros that take no memory until they are copied: what a file says of a shape is not yet true."""
    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise SavedModelError(f"this file's weights are {dtype}; expected numbers.")
    return np.broadcast_to(np.zeros((), kind), tuple(shape))


def allow(graph: GraphDef) -> None:
    """Refuse a file's graph that can do more than compute, unless Keras' safe mode is off."""
    if serialization_lib.in_safe_mode() is not False:
        savedmodel.check_graph(graph, "this file's graph")
