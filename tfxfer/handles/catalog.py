"""Backbones by short name, in one table that needs only the standard library.

Every handle and figure is copied from the page of the model: it is published, and not verified
here. A figure that the page does not give is None, and a model whose page was not found has no row.
Today Kaggle Models answers the handles of tfhub.dev. If a page names no licence, the rule of the
site applies: "The default assumed license for a published model is Apache 2.0" (README of
github.com/tensorflow/tfhub.dev).
"""

from dataclasses import dataclass

UNIT = (0.0, 1.0)
DOCS = "https://github.com/tensorflow/tfhub.dev/blob/master/assets/docs/"
SLIM = "https://github.com/tensorflow/models/blob/master/research/slim/nets/mobilenet/README.md"
LITE = "https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/README.md"
VIT = "https://github.com/google-research/vision_transformer/blob/main/vit_jax/configs/models.py"
BIT = "https://github.com/keras-team/keras-io/blob/master/examples/vision/bit.py"


@dataclass(frozen=True)
class Entry:
    """A row of the catalog.

    Args:
        name: the short name that a user types.
        handle: the builder of an installed package ("lite0"), or a URL.
        licence: the licence of the weights, as an SPDX name.
        image_size: the height and width of an input image in pixels.
        value_range: the lowest and highest value of a pixel.
        features: the width of the output.
        parameters: the published, rounded number of weights, including the ImageNet classifier;
            None if no page gives it.
        top1: the published ImageNet-1k top-1 accuracy in percent, with that classifier; None if no
            page gives it.
        offline: whether a Python package holds the model, so that no internet connection is needed.
        source: the page from which the handle and the figures were taken, or several pages with a
            space between them.
        extra: the optional dependency of tfxfer that installs the package, or None.
        takes: the kind of example that it takes. For texts, `image_size` is 0.
        builder: the module of `tfxfer.handles` that builds it from its package, if it is offline.
    """

    name: str
    handle: str
    licence: str
    image_size: int
    value_range: tuple[float, float]
    features: int
    parameters: int | None
    top1: float | None
    offline: bool
    source: str
    extra: str | None = None
    takes: str = "image"
    builder: str = "lite"


def hub(
    name: str,
    path: str,
    page: str,
    size: int,
    features: int,
    parameters: int | None = None,
    top1: float | None = None,
    more: str = "",
    values=UNIT,
) -> Entry:
    """Make a row for a model of tfhub.dev.

    Args:
        page: the path of its page in the documentation of tfhub.dev.
        more: the URL of another page with figures.
    """
    return Entry(
        name=name,
        handle=f"https://tfhub.dev/{path}",
        licence="Apache-2.0",
        image_size=size,
        value_range=values,
        features=features,
        parameters=parameters,
        top1=top1,
        offline=False,
        source=f"{DOCS}{page}.md {more}".strip(),
    )


def google(name: str, path: str, *figures) -> Entry:
    return hub(name, f"google/imagenet/{path}", f"google/models/imagenet/{path}", *figures)


def v2(variant: str, trained: str, size: int, parameters: int, top1: float | None) -> Entry:
    """Make a row for an EfficientNet V2.

    Args:
        trained: imagenet1k; or imagenet21k_ft1k: trained on ImageNet-21k and then on ImageNet-1k
            (the pages of these give no accuracy for b0 to b3).
    """
    suffix = "-21k" if trained == "imagenet21k_ft1k" else ""
    return google(
        f"efficientnet-v2-{variant}{suffix}",
        f"efficientnet_v2_{trained}_{variant}/feature_vector/2",
        size,
        1280,
        parameters,
        top1,
    )


def vit(name: str, module: str, features: int) -> Entry:
    return hub(
        name,
        f"sayakpaul/{module}/1",
        f"sayakpaul/{module}/1",
        size=224,
        features=features,
        parameters=None,
        top1=None,
        more=VIT,
        values=(-1.0, 1.0),
    )


CATALOG: tuple[Entry, ...] = (
    Entry(
        name="efficientnet-lite0",
        handle="lite0",
        licence="Apache-2.0",
        image_size=224,
        value_range=UNIT,
        features=1280,
        parameters=4_700_000,
        top1=75.1,
        offline=True,
        source=LITE,
    ),
    Entry(
        name="efficientnet-lite1",
        handle="lite1",
        licence="Apache-2.0",
        image_size=240,
        value_range=UNIT,
        features=1280,
        parameters=5_400_000,
        top1=76.7,
        offline=True,
        source=LITE,
        extra="lite1",
    ),
    Entry(
        name="efficientnet-lite2",
        handle="lite2",
        licence="Apache-2.0",
        image_size=260,
        value_range=UNIT,
        features=1280,
        parameters=6_100_000,
        top1=77.6,
        offline=True,
        source=LITE,
        extra="lite2",
    ),
    Entry(
        name="minilm",
        handle="minilm",
        licence="Apache-2.0",
        image_size=0,
        value_range=UNIT,
        features=384,
        parameters=22_700_000,
        top1=None,
        offline=True,
        source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        extra="minilm",
        takes="text",
        builder="minilm",
    ),
    Entry(
        name="static",
        handle="static",
        licence="MIT",
        image_size=0,
        value_range=UNIT,
        features=256,
        parameters=8_190_000,
        top1=None,
        offline=True,
        source="https://github.com/dleemiller/WordLlama",
        extra="static",
        takes="text",
        builder="wordllama",
    ),
    google(
        "mobilenet-v2", "mobilenet_v2_100_224/feature_vector/5", 224, 1280, 3_470_000, 71.8, SLIM
    ),
    google(
        "mobilenet-v3-small",
        "mobilenet_v3_small_100_224/feature_vector/5",
        224,
        1024,
        2_900_000,
        67.5,
        SLIM,
    ),
    google(
        "mobilenet-v3-large",
        "mobilenet_v3_large_100_224/feature_vector/5",
        224,
        1280,
        5_400_000,
        75.2,
        SLIM,
    ),
    v2("b0", "imagenet1k", 224, parameters=7_100_000, top1=78.7),
    v2("b1", "imagenet1k", 240, parameters=8_100_000, top1=79.8),
    v2("b2", "imagenet1k", 260, parameters=10_100_000, top1=80.5),
    v2("b3", "imagenet1k", 300, parameters=14_400_000, top1=82.1),
    v2("s", "imagenet1k", 384, parameters=21_500_000, top1=83.9),
    v2("b0", "imagenet21k_ft1k", 224, parameters=7_100_000, top1=None),
    v2("b1", "imagenet21k_ft1k", 240, parameters=8_100_000, top1=None),
    v2("b2", "imagenet21k_ft1k", 260, parameters=10_100_000, top1=None),
    v2("b3", "imagenet21k_ft1k", 300, parameters=14_400_000, top1=None),
    v2("s", "imagenet21k_ft1k", 384, parameters=21_500_000, top1=84.9),
    hub(
        "resnet-50",
        "tensorflow/resnet_50/feature_vector/1",
        "tensorflow/models/resnet_50/feature_vector/1",
        size=224,
        features=2048,
    ),
    # This model accepts any size. Its own page names neither a size nor a value range, so both are
    # those of the keras.io example.
    hub(
        "bit-m-r50x1",
        "google/bit/m-r50x1/1",
        "google/models/bit/m-r50x1/1",
        size=224,
        features=2048,
        parameters=None,
        top1=None,
        more=BIT,
    ),
    vit("vit-s16", "vit_s16_fe", 384),
    vit("vit-b16", "vit_b16_fe", 768),
)


def find(name: str) -> Entry | None:
    """Return the row of a short name or a handle, with or without #sha256=, or None."""
    wanted = name.partition("#sha256=")[0].rstrip("/")
    return next(
        (
            entry
            for entry in CATALOG
            if wanted == entry.name or (wanted == entry.handle and not entry.offline)
        ),
        None,
    )
