"""The networks of `keras.applications`, without loading Keras."""

import difflib

from tfxfer.errors import HandleError

# Height and width in pixels of the images that each network was trained on.
SIZES = {
    "ConvNeXtBase": 224,
    "ConvNeXtLarge": 224,
    "ConvNeXtSmall": 224,
    "ConvNeXtTiny": 224,
    "ConvNeXtXLarge": 224,
    "DenseNet121": 224,
    "DenseNet169": 224,
    "DenseNet201": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2L": 480,
    "EfficientNetV2M": 480,
    "EfficientNetV2S": 384,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Large": 224,
    "MobileNetV3Small": 224,
    "NASNetLarge": 331,
    "NASNetMobile": 224,
    "ResNet101": 224,
    "ResNet101V2": 224,
    "ResNet152": 224,
    "ResNet152V2": 224,
    "ResNet50": 224,
    "ResNet50V2": 224,
    "VGG16": 224,
    "VGG19": 224,
    "Xception": 299,
}


def find_name(name: str) -> str:
    """Return a name as `keras.applications` writes it; upper and lower case do not matter.

    Raises:
        HandleError: there is no such network.
    """
    known = {one.casefold(): one for one in SIZES}
    if name.casefold() not in known:
        near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.4)
        nearest = f" The nearest names: {', '.join(known[one] for one in near)}." if near else ""
        raise HandleError(f"keras.applications has no network {name!r}.{nearest}")
    return known[name.casefold()]
