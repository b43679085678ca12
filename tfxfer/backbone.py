"""A pretrained SavedModel as an ordinary Keras layer."""

import base64
import hashlib
import math
import os
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf

# Private: the only way to ask whether `safe_mode` is on, whether Keras only asks for shapes, and
# whether it writes a file in its old format.
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.saving import serialization_lib
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer import inputs, savedmodel
from tfxfer.errors import SavedModelError
from tfxfer.inputs import Input
from tfxfer.inputs.image import ImageInput
from tfxfer.inputs.image.scale import Watch
from tfxfer.savedmodel import Kept, Network, Pretrained, PureGraph, Weight
from tfxfer.savedmodel.stages import Stage

FORMAT = 2  # in format 1, of tfxfer 0.1, the config held the graphs
T = TypeVar("T")
# Networks that this process has read, by the digest of their graphs, so that a clone starts from
# their weights.
KNOWN: weakref.WeakValueDictionary[str, Pretrained] = weakref.WeakValueDictionary()

Precision: TypeAlias = Literal["float32", "mixed"]


@dataclass(frozen=True)
class Prefix:
    """A frozen network as one constant graph, from pixels to features.

    Args:
        graph: graph in which every weight is a constant.
        input: name of the placeholder, float32 [None, *takes.shape].
        output: name of the output, float32 [None, width].
        takes: what goes in, for one example.
        tap_widths: number of columns of each tap, from input to output; () if the output is the
            network's own.
        fingerprint: hexadecimal hash of the graph, its weights and its taps.
    """

    graph: GraphDef
    input: str
    output: str
    takes: Input
    width: int
    feature_size: int
    tap_widths: tuple[int, ...]
    fingerprint: str


RangeFrom = Literal["given", "catalog", "package", "layer", "graph", "assumed", "none"]


def told_range(
    given: tuple[float, float] | None, network: Network
) -> tuple[float, float, RangeFrom]:
    """The range of pixels that a network expects, and the source that told it.

    Where it takes something else than pixels, the range is not used, and its source is "none".
    """
    pretrained = network.pretrained
    takes = inputs.of_shape(pretrained.input_shape, (0.0, 1.0), pretrained.tokenizer)
    if pretrained.inference.rows or (takes is not None and takes.KIND != ImageInput.KIND):
        return 0.0, 1.0, "none"
    if given is not None:
        return *given, "given"
    if network.value_range is not None:
        return *network.value_range, network.range_from
    if pretrained.inference.input and (value_range := savedmodel.range_of(pretrained)) is not None:
        return *value_range, "graph"
    return 0.0, 1.0, "assumed"


@dataclass(frozen=True)
class Awaited:
    """The contents that a layer made from a config lacks until its weights are loaded.

    Args:
        digest: digest of the graphs, see `savedmodel.keep`.
        outline: outline of the network, see `savedmodel.keep`.
        width: width of the layer's output.
        trust: whether the graphs' operations may reach files, Python and the internet.
    """

    digest: str
    outline: str
    width: int
    trust: bool


class Hidden(Generic[T]):
    """Holds an object that Keras must not search for layers, such as graphs and functions."""

    def __init__(self, it: T):
        self.it = it


@keras.saving.register_keras_serializable(package="tfxfer")
class Backbone(keras.layers.Layer):
    """A pretrained image network as a Keras layer with weights of its own.

    Args:
        handle: catalog name, folder, archive or URL of a TF2 SavedModel (see
            `tfxfer.handles.resolve`); "keras:NAME", a network of `keras.applications`; a .keras
            file; or a Keras model, whose weights are copied.
        trainable: False freezes all weights; True trains the stages that `unfreeze` names, or all
            stages if it was never called.
        taps: None for the network's own output; k for one [B, F] tensor of the last k stages (see
            Output shape).
        arguments: further arguments of the SavedModel's call.
        output: the name of the output to use, where the network has several; or, of a SavedModel
            without a call, the name of a signature. An output that is a map is pooled: the features
            are its mean.
        preprocess: for a Keras model, a .keras file or "keras:NAME", what is applied to its inputs
            first, such as `keras.applications.resnet50.preprocess_input`; for an encoder of texts,
            the handle of its preprocessor (a SavedModel, see `tfxfer.savedmodel.pair`). It becomes
            part of the network.
        image_size: (height, width) or one number, in pixels; needed if neither the graph nor the
            catalog knows it.
        length: how many pieces of a text are read, of 8 to 512; for networks whose tokenizer can
            give rows of any length: "minilm" and KerasHub's presets, which read 128 if it is left
            out, "static" (512), and encoders with a preprocessor of TensorFlow Hub.
        value_range: (low, high) of the pixels that the network expects. If it is left out, it is
            taken from the catalog, from a `Backbone` inside a Keras model, or from what the graph
            does first with pixels; else (0, 1) is assumed (`range_from` says which).
        batch_norm: "inference" never updates BatchNorm statistics and never applies dropout;
            "train" does both whenever the layer trains in `fit`; "auto" does so only if every stage
            trains.
        precision: "mixed" computes convolutions and matrix products in bfloat16, for a GPU or a
            TPU; weights and features stay float32.
        trust: also read graphs that can reach files, Python or the internet.

    Input shape: float32 [B, H, W, 3] in `value_range`; of another kind of network, what it takes.

    Output shape: float32 [B, feature_size]. With `taps=k`, float32 [B, sum(tap_widths)]: for each
    of the last k stages, from input to output, the mean of its map over all positions, then the
    maximum. The last tap is the network's last map, or the output itself if the output is not the
    mean of a map.

    Raises:
        HandleError: the handle can't be resolved.
        SavedModelError: the SavedModel can't be used.
        ValueError: an argument is wrong.

    Example::

        model = keras.Sequential(
            [
                keras.Input((224, 224, 3)),
                Backbone("efficientnet-lite0", trainable=False),
                keras.layers.Dense(2),
            ]
        )
    """

    def __init__(
        self,
        handle: str | os.PathLike | Pretrained | keras.Model,
        *,
        trainable: bool = True,
        taps: int | None = None,
        arguments: dict[str, Any] | None = None,
        output: str | None = None,
        preprocess: Callable | str | os.PathLike | None = None,
        image_size: int | tuple[int, int] | None = None,
        length: int | None = None,
        value_range: tuple[float, float] | None = None,
        batch_norm: Literal["auto", "inference", "train"] = "auto",
        precision: Precision = "float32",
        trust: bool = False,
        name: str | None = None,
    ):
        if batch_norm not in ("auto", "inference", "train"):
            raise ValueError(
                'Expected batch_norm to be "auto", "inference" or "train". '
                f"Received: batch_norm={batch_norm!r}"
            )
        if not isinstance(trainable, bool | np.bool_):
            raise ValueError(
                "Expected trainable to be True or False. To train a part of the network, call "
                f"unfreeze(stages) on the layer. Received: trainable={trainable!r}"
            )
        if taps is not None and (isinstance(taps, bool) or not isinstance(taps, int | np.integer)):
            raise ValueError(f"Expected taps to be a whole number. Received: taps={taps!r}")
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
        # `precision` says how the graph computes, whatever the policy is; Keras must not cast its
        # weights.
        super().__init__(name=name, dtype="float32", autocast=False)
        network = savedmodel.open_network(
            handle,
            image_size=image_size,
            arguments=arguments,
            output=output,
            preprocess=preprocess,
            length=length,
            trust=trust,
        )
        pretrained, self.handle, self.sha256 = network.pretrained, network.name, network.sha256
        if taps is not None and not 1 <= taps <= len(pretrained.stages):
            raise ValueError(
                f"Expected taps from 1 to {len(pretrained.stages)}, the number of stages. "
                f"Received: taps={taps}"
            )
        self.taps, self.batch_norm, self.precision = taps, batch_norm, precision
        check_range(value_range)
        low, high, self.range_from = told_range(value_range, network)
        self.value_range = (float(low), float(high))
        self._pretrained = Hidden(pretrained)
        self._kept = Hidden[Kept | None](None)  # made when it is asked for
        self._awaited: Awaited | None = None
        self._refusal = Hidden[SavedModelError | None](None)  # why a file's graphs were refused
        self._plan: tuple[str, ...] | None = None
        self._watch = Hidden(Watch(self.name))
        self._own = [
            self.add_weight(
                name=w.name,
                shape=w.value.shape,
                dtype=w.value.dtype.name,
                trainable=w.trainable,
                initializer=constant(w.value),
                # BatchNorm's statistics are the mean of those of all replicas; the seeds of all
                # replicas change in the same way by themselves.
                aggregation="mean" if w.value.dtype.kind == "f" else "none",
            )
            for w in pretrained.weights
        ]
        for i, variable in enumerate(self._own):
            # Keras' own layers have each variable as an attribute, by which tf.train.Checkpoint
            # finds it; in a list it would be left out without a word.
            self._track_trackable(variable, name=f"weight_{i}")
        self._functions = Hidden[dict[Any, Any]]({})
        self._fitted: tuple[bool, ...] | None = None  # what trained when `fit` last traced a step
        self.built = True
        self._apply(trainable)

    # --- what it is like ---

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, of a network that takes images."""
        height, width, _ = self.entry_shape
        return height, width

    @property
    def takes(self) -> Input:
        """The input of the network for one example, and how it is made from a file.

        Raises:
            SavedModelError: this is a part of a network, which takes activations.
        """
        takes = inputs.of_shape(self.entry_shape, self.value_range, self.tokenizer)
        if takes is None:
            raise SavedModelError(f"{self.handle} takes activations of shape {self.entry_shape}.")
        return takes

    @property
    def tokenizer(self) -> GraphDef | None:
        """The graph from strings to rows of numbers, of a network for texts; else None."""
        return self._pretrained.it.tokenizer

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch: (height, width, 3), or that of activations.

        A part of a network starts from activations (see `cut`).
        """
        return self._pretrained.it.input_shape

    def _network(self) -> Pretrained:
        """The network that was read.

        Raises:
            SavedModelError: the layer was made from a config, and its graphs are not loaded yet.
        """
        if self._awaited is not None:
            raise SavedModelError(
                f"{self.name} ({self.handle}) has no graph yet: it was made from a config, which "
                "does not hold it. Load the .keras or .weights.h5 file that holds it, with "
                "keras.models.load_model or the model's load_weights, or read the network again "
                "with tfxfer.Backbone."
            )
        return self._pretrained.it

    @property
    def pretrained(self) -> Pretrained:
        """The network's graphs and stages, with its weights as they are now."""
        network = self._network()
        return replace(
            network,
            weights=tuple(
                Weight(w.name, mine.numpy(), w.trainable)
                for w, mine in zip(network.weights, self._own, strict=True)
            ),
        )

    @property
    def feature_size(self) -> int:
        """Number of columns of the network's own output."""
        return self._pretrained.it.features

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages from input to output; `taps` and `unfreeze` count in stages."""
        return self._pretrained.it.stages

    @property
    def why_frozen(self) -> str:
        """Why the weights can't be trained; "" where they can."""
        return self._pretrained.it.reason

    @property
    def supports_jit(self) -> bool:
        """Whether Keras may compile a model that has this layer with XLA, as it does on a GPU.

        True for a frozen network of images. If weights train, XLA would compile each batch again,
        for a minute or more: TensorFlow gives axes and shapes to the gradient as tensors, XLA needs
        them as constants, and so treats the whole input as constant. The rows of texts differ in
        length from batch to batch.
        """
        trains = any(variable.trainable for variable in self._own)
        return self._may_jit and not trains and self.tokenizer is None

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        self._may_jit = value  # Keras sets it to True before the layer has its weights

    @property
    def tap_widths(self) -> tuple[int, ...]:
        """Number of columns of each tap of the output, from input to output; () without taps."""
        return self._widths(self.taps)

    @property
    def fingerprint(self) -> str:
        """A hexadecimal hash that changes with the graph and with any weight."""
        inference = self._network().inference
        digest = hashlib.sha256(inference.graph.SerializeToString(deterministic=True))
        for i in inference.weights:
            digest.update(np.ascontiguousarray(self._own[i].numpy()).tobytes())
        return digest.hexdigest()

    def _maps(self, taps: int | None) -> tuple[str, ...] | None:
        return None if taps is None else tuple(stage.cut for stage in self.stages[-taps:])

    def _widths(self, taps: int | None) -> tuple[int, ...]:
        return widths_of(self._network(), taps)

    def prefix(self, taps: int | None = None) -> Prefix:
        """The whole network in inference mode as one constant graph, with its current weights."""
        maps, widths = self._maps(taps), self._widths(taps)
        graph = savedmodel.constant_graph(self._network(), [v.numpy() for v in self._own], maps)
        key = hashlib.sha256(f"{self.fingerprint} {maps}".encode()).hexdigest()
        width = sum(widths) or self.feature_size
        return Prefix(
            graph=graph,
            input="pixels:0",
            output="features:0",
            takes=self.takes,
            width=width,
            feature_size=self.feature_size,
            tap_widths=widths,
            fingerprint=key,
        )

    def tapped(self, taps: int | None) -> "Backbone":
        """The same network with the same weights and other taps, frozen.

        With taps, BatchNorm is in inference mode, because taps exist only there.
        """
        how: dict[str, Any] = {
            "taps": taps,
            "batch_norm": "inference" if taps else self.batch_norm,
            "precision": self.precision,
        }
        other = Backbone(self._network(), trainable=False, value_range=self.value_range, **how)
        other.handle = self.handle
        other.take_weights(self)
        return other

    def cut(self, stages: int, taps: int | None = None) -> tuple[Prefix, "Backbone"]:
        """Cut the network in two before its last `stages` stages.

        What comes before the cut becomes a constant graph. It gives rows of numbers, float32
        [B, W]: the activations that the rest starts from, flattened (their shape is
        `rest.entry_shape`), then those of the last `taps` taps that lie before the cut, pooled.
        The rest becomes a layer that trains: a Backbone in inference mode, from activations, with
        the other taps.

        Raises:
            ValueError: there is nothing before or after that cut.
            SavedModelError: the network can't be cut there, or can't be fine-tuned.
        """
        network, first = self._network(), len(self.stages) - stages
        if not 1 <= stages < len(self.stages):
            raise ValueError(
                f"Expected 1 to {len(self.stages) - 1} stages after the cut. "
                f"Received: stages={stages}"
            )
        values = [v.numpy() for v in self._own]
        early = self._taps_before(first, taps)
        widths = self._widths(taps)[: len(early)]
        graph = savedmodel.cut_before(network, values, first, taps=early)
        key = hashlib.sha256(
            f"{self.fingerprint} {self.stages[first - 1].cut} {early}".encode()
        ).hexdigest()
        width = math.prod(network.start_shape(first)) + sum(widths)
        prefix = Prefix(
            graph=graph,
            input="pixels:0",
            output="features:0",
            takes=self.takes,
            width=width,
            feature_size=width,
            tap_widths=(),
            fingerprint=key,
        )
        part = savedmodel.cut_after(network, values, first)
        rest = Backbone(
            part,
            trainable=not self.why_frozen,
            taps=None if taps is None else min(taps, stages),
            batch_norm="inference",
        )
        rest.handle = self.handle
        return prefix, rest

    def front(self, stages: int, taps: int | None = None) -> "Backbone":
        """The part before a cut as a frozen Backbone, from pixels to the same rows as in `cut`.

        Args:
            stages, taps: as in `cut`.
        """
        network, first = self.pretrained, len(self.stages) - stages
        part = savedmodel.cut_front(network, first, self._taps_before(first, taps))
        layer = Backbone(
            part, trainable=False, value_range=self.value_range, batch_norm="inference"
        )
        layer.handle = self.handle
        return layer

    def _taps_before(self, first: int, taps: int | None) -> tuple[str, ...]:
        """The maps of those of the last `taps` taps that lie before stage number `first`."""
        early = 0 if taps is None else max(taps - (len(self.stages) - first), 0)
        return tuple(stage.cut for stage in self.stages[first - early : first])

    def take_weights(self, other: "Backbone") -> None:
        """Take the weights of another Backbone of the same network, or of a part of it, by name."""
        mine = dict(zip((w.name for w in self._pretrained.it.weights), self._own, strict=True))
        for weight, value in zip(other._pretrained.it.weights, other._own, strict=True):
            mine[weight.name].assign(value)

    def stage_sizes(self) -> list[tuple[Stage, tuple[int, ...], int, int]]:
        """The size of each stage.

        Returns:
            for each stage: the stage, the shape of its output without the batch, the number of its
            parameters, and the bytes of its output for one example, in float32.
        """
        network = self._network()
        weights, rows = network.weights, []
        for stage, shape in zip(self.stages, network.stage_shapes, strict=True):
            count = sum(weights[i].value.size for i in stage.weights)
            rows.append((stage, shape, count, 4 * math.prod(shape)))
        return rows

    # --- what trains ---

    @property
    def trainable(self) -> bool:
        """False freezes all; True trains what `unfreeze` chose, or all if it was never called."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if hasattr(self, "_own"):
            self._apply(bool(value))
        else:
            self._trainable = bool(value)

    def unfreeze(self, stages: int | str) -> None:
        """Train the last stages only; compile the model again afterwards.

        Args:
            stages: number of stages, name of the first stage that trains, or "all".

        Raises:
            ValueError: there is no such stage, or `batch_norm="train"` does not allow it.
            SavedModelError: the network can't be fine-tuned.
        """
        names = [stage.name for stage in self.stages]
        if stages == "all":
            plan = tuple(names)
        elif isinstance(stages, str):
            if stages not in names:
                raise ValueError(
                    f"Expected the name of a stage. Received: {stages!r}. "
                    f"The stages are: {', '.join(names)}"
                )
            plan = tuple(names[names.index(stages) :])
        elif (
            isinstance(stages, int | np.integer)
            and not isinstance(stages, bool)
            and 0 <= stages <= len(names)
        ):
            plan = tuple(names[len(names) - stages :])
        else:
            raise ValueError(
                f"Expected a number of stages from 0 to {len(names)}. Received: {stages!r}. "
                f"The stages are: {', '.join(names)}"
            )
        # All stages by their number or name are the same as "all": BatchNorm must not differ.
        before, self._plan = self._plan, None if plan == tuple(names) else plan
        try:
            self._apply(True)
        except (SavedModelError, ValueError):
            self._plan = before
            raise

    def freeze(self) -> None:
        """Train nothing; the stages of `unfreeze` are kept for `trainable = True`."""
        self._apply(False)

    def _apply(self, trainable: bool) -> None:
        if trainable and self.why_frozen:
            raise SavedModelError(
                f"{self.handle} can't be fine-tuned: {self.why_frozen}. "
                "Use it frozen, with trainable=False."
            )
        if trainable and self._plan is not None and self.batch_norm == "train":
            raise ValueError(
                'Expected batch_norm="auto" or "inference" for a partly frozen Backbone: '
                '"train" would move statistics of frozen stages.'
            )
        self._trainable = trainable
        planned = {
            i
            for stage in self.stages
            if self._plan is None or stage.name in self._plan
            for i in stage.weights
        }
        for i, (mine, weight) in enumerate(
            zip(self._own, self._pretrained.it.weights, strict=True)
        ):
            if weight.trainable:
                mine.trainable = trainable and (self._plan is None or i in planned)
        if self._fitted is not None and self._fitted != tuple(v.trainable for v in self._own):
            self._fitted = None
            warnings.warn(
                "what trains in this Backbone has changed since the model was compiled, "
                "and `fit` would go on as before: call compile() with a new optimizer.",
                stacklevel=3,
            )

    # --- the computation ---

    def _graph(self, training: bool) -> PureGraph:
        pretrained = self._network()
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
                    taps=maps,
                    fold=True,
                    fast=fast,
                    low=low,
                )
        values = [tf.convert_to_tensor(self._own[i].value) for i in graph.weights]
        # Frozen weights must not cost a backward pass.
        values = [
            v if self._own[i].trainable or not v.dtype.is_floating else tf.stop_gradient(v)
            for i, v in zip(graph.weights, values, strict=True)
        ]
        return self._functions.it[key](*inputs, *values)

    def call(self, x, training=False):
        if (shape := tuple(x.shape[1:])) != self.entry_shape:
            raise ValueError(
                f"Expected inputs of shape (batch, {', '.join(map(str, self.entry_shape))}). "
                f"Received: shape={(None, *shape)}"
            )
        if self._awaited is not None and in_symbolic_scope():
            return tf.zeros((tf.shape(x)[0], self._awaited.width))  # Keras wants the shape alone
        if len(self.entry_shape) == 3 and self.entry_shape[-1] == 3:
            self._watch.it.look(x, *self.value_range)
        if training and tf.inside_function():
            self._fitted = tuple(v.trainable for v in self._own)
        graph = self._graph(bool(training))
        fast = (
            bool(training)
            and self.trainable
            and len(tf.config.list_logical_devices()) == len(tf.config.list_logical_devices("CPU"))
        )
        x, count = tf.cast(x, tf.float32), tf.shape(x)[0]
        may_be_empty = tf.distribute.get_strategy().num_replicas_in_sync > 1 or x.shape[0] == 0
        if may_be_empty:
            # A replica may get no example, and TensorFlow's convolutions on a CPU (2.21) give an
            # empty batch a wrong shape.
            x = tf.pad(x, [[0, tf.cast(count == 0, tf.int32)], *([0, 0] for _ in self.entry_shape)])
        features, *updates = self._run(graph, self._training_maps(graph), x, fast=fast)
        features = features[:count] if may_be_empty else features
        for (i, _), value in zip(graph.updates, updates, strict=True):
            self._own[i].assign(value)
        # Added once, however often a model calls the layer: it depends on the weights alone.
        if (
            self.trainable
            and (loss := self._pretrained.it.regularization) is not None
            and not self._losses
        ):
            self.add_loss(self._run(loss, None)[0])
        return features

    def _training_maps(self, graph: PureGraph) -> tuple[str, ...] | None:
        if self.taps is not None and graph is not self._pretrained.it.inference:
            raise SavedModelError(
                'taps are places in the inference graph: use batch_norm="inference" '
                "to fine-tune a Backbone with taps."
            )
        return self._maps(self.taps)

    def compute_output_shape(self, shape):
        """(batch, width)."""
        if tuple(shape[1:]) != self.entry_shape:
            raise ValueError(
                f"Expected inputs of shape (batch, {', '.join(map(str, self.entry_shape))}). "
                f"Received: shape={tuple(shape)}"
            )
        return (shape[0], self._width())

    def _width(self) -> int:
        if self._awaited is not None:
            return self._awaited.width
        return width_of(self._pretrained.it, self.taps)

    # --- keeping it ---

    def get_config(self) -> dict[str, Any]:
        """Everything but graphs and weights, which Keras keeps (see `save_own_variables`)."""
        if self._awaited is None:
            if not any(weight.value.any() for weight in self._pretrained.it.weights):
                # Keras filled the variables from a .h5 file without telling the layer.
                self._pretrained.it = self.pretrained
            kept = self._keep()
            KNOWN[kept.digest] = self._pretrained.it  # a clone begins with the weights of this one
            digest, outline = kept.digest, kept.outline
        else:
            digest, outline = self._awaited.digest, self._awaited.outline
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "handle": str(self.handle),
            "taps": self.taps,
            "value_range": list(self.value_range),
            "batch_norm": self.batch_norm,
            "precision": self.precision,
            "plan": None if self._plan is None else list(self._plan),
            "format": FORMAT,
            "width": self._width(),
            "digest": digest,
            "outline": outline,
        }
        if get_global_attribute("use_legacy_config") and self._awaited is None:
            # Keras writes a .h5 file, in which layers can store nothing but their variables.
            config["graphs"] = base64.b64encode(self._keep().graphs).decode()
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Backbone":
        """Rebuild the layer, with the pretrained weights where this process has read the network.

        In another process its graphs come with its weights, when these are loaded; until then it
        has shapes, and can't be called on images.
        """
        config = dict(config)
        trust = serialization_lib.in_safe_mode() is False
        awaited: Awaited | None = None
        written, graphs = config.pop("format", None), config.pop("graphs", None)
        if written == FORMAT:
            digest, outline = config.pop("digest"), config.pop("outline")
            awaited = Awaited(
                digest=digest, outline=outline, width=config.pop("width"), trust=trust
            )
            known = KNOWN.get(digest)
            if known is None and graphs is not None:
                content = np.frombuffer(base64.b64decode(graphs), np.uint8)
                known = savedmodel.restore(content, digest, trust=trust)
            pretrained = savedmodel.outlined(outline) if known is None else known
        elif written == 1:
            pretrained = savedmodel.restore_format_1(graphs, trust=trust)
            pretrained = KNOWN.get(savedmodel.keep(pretrained).digest, pretrained)
        else:
            raise SavedModelError(
                f"this Backbone was saved in format {written}, by another version of tfxfer; "
                f"expected 1 to {FORMAT}. Export it again with this version."
            )
        plan, handle = config.pop("plan"), config.pop("handle")
        trainable = config.pop("trainable")
        layer = cls(pretrained, trainable=False, **config)
        layer.handle, layer._plan = handle, None if plan is None else tuple(plan)
        layer._awaited = awaited
        if awaited is not None and known is not None:
            layer._take_graphs(known)
        layer._apply(trainable)
        return layer

    def _keep(self) -> Kept:
        if self._kept.it is None:
            self._kept.it = savedmodel.keep(self._network())
        return self._kept.it

    def _take_graphs(self, network: Pretrained) -> None:
        """Take the graphs that this layer lacks.

        Raises:
            SavedModelError: they are not those that the config describes.
            DeniedOperationError: they hold an operation that is not allowed.
        """
        awaited = self._awaited
        if awaited is None:
            return
        if not awaited.trust:
            savedmodel.check_kept(network)
        same = savedmodel.outline_of(network) == awaited.outline
        if not same or width_of(network, self.taps) != awaited.width:
            raise SavedModelError(
                "this file's config is not the one that was saved: it was changed or damaged. "
                "Take the file from where it was written."
            )
        self._pretrained.it, self._awaited = network, None

    def _load_graphs(self, store: Any) -> None:
        """Take the graphs that this layer lacks from a file, or from what this process has read."""
        awaited = self._awaited
        if awaited is None:
            return
        try:
            if savedmodel.GRAPHS in store:
                content = store[savedmodel.GRAPHS]
                network = savedmodel.restore(content, awaited.digest, trust=awaited.trust)
                self._take_graphs(network)
            elif (known := KNOWN.get(awaited.digest)) is not None:
                self._take_graphs(known)
            elif self._refusal.it is not None:
                # Keras goes on after an error, and asks again with stores that are empty.
                raise self._refusal.it
            else:
                self._network()
        except SavedModelError as error:
            self._refusal.it = error
            raise

    def save_own_variables(self, store) -> None:
        """Store the graphs as bytes, and the weights by name: their order doesn't matter."""
        store[savedmodel.GRAPHS] = np.frombuffer(self._keep().graphs, np.uint8)
        for weight, mine in zip(self._pretrained.it.weights, self._own, strict=True):
            store[weight.name] = mine.numpy()

    def load_own_variables(self, store) -> None:
        """Load the weights by name, and the graphs if the layer was made from a config."""
        self._load_graphs(store)
        known = self._pretrained.it
        names = [weight.name for weight in known.weights]
        if savedmodel.GRAPHS in store and any(name not in store for name in names):
            # Keras numbers the layers of a process, so the same network made again has other names.
            stored = savedmodel.restore(store[savedmodel.GRAPHS], None, trust=False).weights
            shapes = [weight.value.shape for weight in stored]
            if shapes == [weight.value.shape for weight in known.weights]:
                names = [weight.name for weight in stored]
        for name, mine in zip(names, self._own, strict=True):
            if name not in store or tuple(store[name].shape) != tuple(mine.shape):
                raise SavedModelError(
                    f"the saved weights lack {name!r} of shape {tuple(mine.shape)}; "
                    f"expected one value for each weight of {self.handle}."
                )
        values = [np.array(store[name]) for name in names]
        for value, mine in zip(values, self._own, strict=True):
            mine.assign(value)
        # A clone of this layer starts with the loaded weights, as a clone of a layer that read the
        # SavedModel starts with its weights.
        loaded = replace(
            known,
            weights=tuple(
                replace(weight, value=value)
                for weight, value in zip(known.weights, values, strict=True)
            ),
        )
        self._pretrained.it = KNOWN[self._keep().digest] = loaded


def check_range(value_range: Any) -> None:
    """Refuse what is no range of pixels.

    Raises:
        ValueError: it is not two numbers, the smaller one first.
    """
    if value_range is None:
        return
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(
            "Expected value_range to be two numbers, the smaller one first, such as (0, 1). "
            f"Received: value_range={value_range!r}"
        )


def constant(value: np.ndarray):
    return lambda shape, dtype=None: tf.constant(value)


def widths_of(pretrained: Pretrained, taps: int | None) -> tuple[int, ...]:
    """Number of columns of each of the last `taps` taps, in order; () without taps."""
    if taps is None:
        return ()
    shapes = pretrained.stage_shapes[-taps:]
    return tuple(shape[-1] * (2 if len(shape) > 1 else 1) for shape in shapes)


def width_of(pretrained: Pretrained, taps: int | None) -> int:
    """Number of columns of the output of a Backbone with these taps."""
    return sum(widths_of(pretrained, taps)) or pretrained.features
