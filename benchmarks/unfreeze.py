"""Checks what unfreezing stages moves, weight by weight, on eight networks.

    python benchmarks/unfreeze.py [--keras] [--only NAME ...]

The networks are EfficientNet-Lite0, and seven families of keras.applications with random weights,
written as reusable SavedModels, or with `--keras` given as Keras models. It prints the stages of
each. Then, for the last stage, the last three and all but the first: one step of `fit` must move
every trainable weight of those stages (gamma and beta included), and nothing else anywhere: no
other weight, no moving statistic, no seed. Exit 1 where it does not.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import keras
import numpy as np
from savedmodels import save_reusable

from tfxfer import handles
from tfxfer.backbone import Backbone

SIZE = 96
OPTIONS = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": (SIZE, SIZE, 3)}
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "resnet": lambda: keras.applications.ResNet50V2(**OPTIONS),
    "mobilenetv3": lambda: keras.applications.MobileNetV3Small(
        **OPTIONS, include_preprocessing=False
    ),
    "efficientnetv2": lambda: keras.applications.EfficientNetV2B0(
        **OPTIONS, include_preprocessing=False
    ),
    "densenet": lambda: keras.applications.DenseNet121(**OPTIONS),
    "inception": lambda: keras.applications.InceptionV3(**OPTIONS),
    "convnext": lambda: keras.applications.ConvNeXtTiny(**OPTIONS, include_preprocessing=False),
    "vgg": lambda: keras.applications.VGG16(**OPTIONS),
}


def settled(model: keras.Model) -> keras.Model:
    """Return the model with moving statistics of some noise.

    With the statistics of a new network, deep networks answer 0 to everything, and no gradient gets
    through.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(1).random((8, SIZE, SIZE, 3), dtype=np.float32), training=True)
    return model


def moved(backbone: Backbone, stages: int) -> set[str]:
    """Return the names of the weights that one step moves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model is compiled below, as the warning asks
        backbone.unfreeze(stages)
    shape = (8, *backbone.entry_shape)
    model = keras.Sequential([keras.Input(shape[1:]), backbone, keras.layers.Dense(3)])
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    before = [v.numpy() for v in backbone._own]
    model.fit(np.random.default_rng(0).random(shape, dtype=np.float32), np.arange(8) % 3, verbose=0)
    found = {i for i, v in enumerate(backbone._own) if not np.array_equal(before[i], v.numpy())}
    for variable, value in zip(backbone._own, before, strict=True):
        variable.assign(value)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keras", action="store_true", help="without SavedModels")
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    usual = [*NETWORKS] if options.keras else ["efficientnet-lite0", *NETWORKS]
    held = True
    for name in options.only or usual:
        with tempfile.TemporaryDirectory() as folder:
            keras.utils.set_random_seed(0)
            if name not in NETWORKS:
                backbone = Backbone(str(handles.resolve(name).path), trainable=False)
            elif options.keras:
                backbone = Backbone(settled(NETWORKS[name]()), trainable=False)
            else:
                path = save_reusable(settled(NETWORKS[name]()), Path(folder) / "m")
                backbone = Backbone(path, trainable=False)
            names = [stage.name for stage in backbone.stages]
            print(f"{name}: {len(names)} stages: {', '.join(names)}", flush=True)
            train = {
                i for i, weight in enumerate(backbone._pretrained.it.weights) if weight.trainable
            }
            for stages in sorted({1, min(3, len(names) - 1), len(names) - 1}):
                expected = {
                    weight for stage in backbone.stages[-stages:] for weight in stage.weights
                } & train
                found = moved(backbone, stages)
                held = held and found == expected
                verdict = (
                    "holds"
                    if found == expected
                    else (
                        f"MISSED: too many {sorted(found - expected)}, "
                        f"too few {sorted(expected - found)}"
                    )
                )
                print(
                    (
                        f"  last {stages}: {len(expected)} trainable weights, "
                        f"{len(found)} moved: {verdict}"
                    ),
                    flush=True,
                )
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
