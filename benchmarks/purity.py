"""Measures how exactly a SavedModel read as a pure function is the original.

    python benchmarks/purity.py [--keras] [NETWORK ...]

For EfficientNet-Lite0, six `keras.applications` families with random weights and a ViT, it prints
the largest difference of outputs, inference-mode gradients, training-mode gradients and BatchNorm
updates, each relative to the largest absolute value over all tensors; batch 4, fixed seed.
Expected: outputs and inference-mode gradients within 1e-6; training-mode gradients and updates
within 2e-5. Exit 1 where one is not.

All this is about the graph as it was read. A Backbone makes a BatchNorm a part of the convolution
before it (`savedmodel/folded.py`), and adds numbers up in another order then. `folded` is the
difference of its outputs, expected within 1e-5. benchmarks/LOG.md compares its gradients with those
in float64.

The training-mode gradients of a deep random network can be rounding more than anything else. Where
they differ by more, those of the original in float32 are compared with those in float64, and the
difference may be a hundredth of that: MobileNetV3 in float32 is off by 3.3e-2 itself.

With `--keras` the six families are not saved: the Keras models themselves, which return maps, are
compared with `Backbone(model)`.

TensorFlow's graph optimizer is off on both sides: it adds numbers up in another order in another
graph, and in the deep random networks here that alone makes the *original*, called eagerly and in a
tf.function, differ from itself by 6e-5 (EfficientNetV2, training). `--optimized` leaves it on.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import keras
import numpy as np
import tensorflow as tf
from savedmodels import save_reusable, vision_transformer

from tfxfer import handles, savedmodel
from tfxfer.backbone import Backbone
from tfxfer.savedmodel import graph

FAMILIES = {
    "resnet": keras.applications.ResNet50,
    "mobilenetv3": keras.applications.MobileNetV3Large,
    "efficientnetv2": keras.applications.EfficientNetV2B0,
    "densenet": keras.applications.DenseNet121,
    "inception": keras.applications.InceptionV3,
    "convnext": keras.applications.ConvNeXtTiny,
}
BOUNDS = {
    "output": 1e-6,
    "inference gradient": 1e-6,
    "training gradient": 2e-5,
    "updates": 2e-5,
    "folded": 1e-5,
}


def folder_of(name: str, scratch: str) -> str:
    if name == "efficientnet-lite0":
        return str(handles.resolve(name).path)
    keras.utils.set_random_seed(0)
    if name == "vit":
        return save_reusable(vision_transformer(), f"{scratch}/vit")
    network = FAMILIES[name](
        weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3)
    )
    return save_reusable(network, f"{scratch}/{name}")


def relative(expected, found) -> float:
    largest = max(float(np.abs(e).max()) for e in expected)
    return (
        max(
            float(np.abs(np.asarray(e, "f8") - np.asarray(f, "f8")).max())
            for e, f in zip(expected, found, strict=True)
        )
        / largest
    )


def gradients(call, variables, x, training: bool):
    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(x, training=training) ** 2)
        return tape.gradient(loss, variables)

    return [g.numpy() for g in run(x)]


def measure_keras(name: str) -> dict[str, float]:
    keras.utils.set_random_seed(0)
    network = FAMILIES[name](weights=None, include_top=False, input_shape=(96, 96, 3))
    layer = Backbone(network)

    def original(x, training):
        return tf.reduce_mean(network(x, training=training), [1, 2])

    named = {
        weight.name: mine
        for weight, mine in zip(layer._pretrained.it.weights, layer._own, strict=True)
    }
    state = {variable.path.replace("/", "."): variable for variable in network.variables}
    theirs = [variable.value for variable in network.trainable_variables]
    ours = [named[v.path.replace("/", ".")].value for v in network.trainable_variables]
    return compare(layer, original, theirs=theirs, ours=ours, named=named, state=state)


def rounding(name: str) -> float:
    """How far the original's training-mode gradients in float32 are from those in float64."""
    results, values = [], []
    for dtype in ("float32", "float64"):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(dtype)
        network = FAMILIES[name](weights=None, include_top=False, input_shape=(96, 96, 3))
        values = values or [variable.numpy() for variable in network.variables]
        for variable, value in zip(network.variables, values, strict=True):
            variable.assign(value.astype(variable.dtype))

        def original(x, training, network=network):
            return tf.reduce_mean(network(x, training=training), [1, 2])

        trained = [variable.value for variable in network.trainable_variables]
        x = np.random.default_rng(0).random((4, 96, 96, 3), dtype=np.float32)
        results.append(gradients(original, trained, tf.constant(x, dtype), True))
    keras.config.set_dtype_policy("float32")
    return relative(results[1], results[0])


def measure(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder_of(name, scratch)
        original, layer = tf.saved_model.load(folder), Backbone(folder)
    named = {
        weight.name: mine
        for weight, mine in zip(layer._pretrained.it.weights, layer._own, strict=True)
    }
    theirs = list(original.trainable_variables)
    ours = [named[v.name.split(":")[0].replace("/", ".")].value for v in theirs]
    state = {v.name.split(":")[0].replace("/", "."): v for v in savedmodel.variables_of(original)}
    return compare(layer, original, theirs=theirs, ours=ours, named=named, state=state)


def compare(layer, original, *, theirs, ours, named, state) -> dict[str, float]:
    """The largest differences between a layer and the original.

    named, state: the weights of both after training, by their names.
    """
    x = tf.constant(np.random.default_rng(0).random((4, *layer.image_size, 3), dtype=np.float32))
    output = original(x, training=False)
    apart = relative([output], [layer(x, training=False)])
    layer._functions.it.clear()
    graph.fold_batch_norms = lambda unchanged, fetched: unchanged
    found = {"output": relative([output], [layer(x, training=False)]), "folded": apart}
    layer.batch_norm = "inference"
    found["inference gradient"] = relative(
        gradients(original, theirs, x, False), gradients(layer, ours, x, False)
    )
    layer.batch_norm = "train"
    found["training gradient"] = relative(
        gradients(original, theirs, x, True), gradients(layer, ours, x, True)
    )
    found["updates"] = relative(
        [state[n].numpy() for n in named], [v.numpy() for v in named.values()]
    )
    return found


def main(names: list[str]) -> int:
    failed = 0
    options = [name for name in names if name in ("--optimized", "--keras")]
    names = [name for name in names if name not in options]
    usual = FAMILIES if "--keras" in options else ["efficientnet-lite0", *FAMILIES, "vit"]
    for name in names or usual:
        # A process each: nine networks with their gradients don't fit side by side.
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, *options], capture_output=True, text=True
        )
        print(done.stdout.strip() or f"{name}: failed\n{done.stderr[-2000:]}", flush=True)
        failed |= done.returncode
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        if "--optimized" not in sys.argv:
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        name = sys.argv[2]
        found = (measure_keras if "--keras" in sys.argv else measure)(name)
        bounds = dict(BOUNDS)
        if name in FAMILIES and found["training gradient"] > bounds["training gradient"]:
            bounds["training gradient"] = rounding(name) / 100
        print(
            f"{name:20s}",
            "  ".join(
                f"{what} {value:.1e} (bound {bounds[what]:.0e})" for what, value in found.items()
            ),
        )
        sys.exit(any(value > bounds[what] for what, value in found.items()))
    sys.exit(main(sys.argv[1:]))
