"""Read TensorFlow Datasets by name, once, into a temporary file, encoded as they are stored."""

from os import PathLike
from typing import Any

import tensorflow_datasets as tfds

from tfxfer.data.arrays import Spool
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import SPLITS, Found
from tfxfer.data.parts import part_of
from tfxfer.errors import DataError
from tfxfer.inputs.image.png import png


def read_tfds(name: str, data_dir: str | PathLike[str] | None) -> Found:
    """Read a dataset of images with one label each.

    It is downloaded and prepared unless it is already in `data_dir`. The parts train, validation
    and test are kept as they are. The images of a dataset that only has `train` are split by
    content.

    Raises:
        DataError: there is no such dataset or no internet, or the dataset has no part train, no
            images or no labels.
    """
    builder = _builder(name, data_dir)
    image, label = _keys(builder, name)
    parts = {name: part for name in builder.info.splits if (part := part_of(name))}
    if "train" not in parts:
        raise DataError(
            f"tfds:{name} has no part named train. Found: {shown(list(builder.info.splits), 10)}"
        )
    left = [name for name in builder.info.splits if name not in parts]
    feature = builder.info.features[label]
    spool, names, splits, files = Spool(), [], [], []
    for part in sorted(parts, key=lambda part: SPLITS.index(parts[part])):
        dataset = builder.as_dataset(
            split=part, shuffle_files=False, decoders={image: tfds.decode.SkipDecoding()}
        )
        for i, element in enumerate(dataset.as_numpy_iterator()):
            data = element[image]
            spool.append(data if isinstance(data, bytes) else png(data))
            names.append(feature.int2str(int(element[label])))
            splits.append(parts[part])
            files.append(f"{part}/{i:06d}")
    spool.close()
    notes = (
        [f"Left out, because they are not train, validation or test: {shown(left)}."]
        if left
        else []
    )
    return Found(
        files=files,
        names=names,
        read=spool.read,
        source=f"tfds:{name}",
        splits=splits if len(parts) > 1 else None,
        classes=feature.names,
        notes=tuple(notes),
    )


def _builder(name: str, data_dir: str | PathLike[str] | None) -> Any:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except tfds.core.registered.DatasetNotFoundError as error:
        raise DataError(
            f"tfds:{name} is not a dataset that TensorFlow Datasets {tfds.__version__} knows or "
            f"finds in {data_dir or 'its folder'}. Check the name, or give --data-dir."
        ) from error
    # A download can fail in many ways: requests, urllib3, checksums, a full disk, the code of the
    # dataset's builder.
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise DataError(
            f"tfds:{name} can't be loaded: {type(error).__name__}: {''.join(first)}. Is this "
            "computer online? If the dataset is on disk already, give its folder as --data-dir."
        ) from error
    return builder


def _keys(builder: Any, name: str) -> tuple[str, str]:
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    if not isinstance(features, tfds.features.FeaturesDict) or any(
        key not in features for key in keys[:2]
    ):
        raise DataError(f"tfds:{name} is not a dataset of images with a label. Found: {features}")
    image, label = keys[:2]
    if not isinstance(features[image], tfds.features.Image) or not isinstance(
        features[label], tfds.features.ClassLabel
    ):
        raise DataError(
            f"tfds:{name} is not for image classification: {image} is {features[image]}, {label} "
            f"is {features[label]}."
        )
    return image, label
