"""Read TensorFlow Datasets by name, once, into a temporary file, encoded as they are stored."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from tfxfer.data.arrays import Spool
from tfxfer.data.cells import BETWEEN, find_held
from tfxfer.data.duplicates import shown
from tfxfer.data.examples import SPLITS, Found
from tfxfer.data.parts import part_of
from tfxfer.data.strings import HOLDER
from tfxfer.errors import DataError
from tfxfer.inputs import DEFAULT
from tfxfer.inputs.image.png import png


class Keys(NamedTuple):
    """The features of a dataset that are read.

    content: those that make up an example, in the order of their joining.
    label: the one with the label.
    kind_name: name of the kind of example.
    """

    content: tuple[str, ...]
    label: str
    kind_name: str

    def read(self, element: Mapping[str, Any]) -> bytes:
        """Return an example as the content of a file."""
        if len(self.content) > 1:
            return BETWEEN.encode().join(filter(None, (element[key] for key in self.content)))
        data = element[self.content[0]]
        return data if isinstance(data, bytes) else png(data)


def read_tfds(name: str, data_dir: str | PathLike[str] | None) -> Found:
    """Read a dataset of images or texts with one label each.

    It is downloaded and prepared unless it is already in `data_dir`. The parts train, validation
    and test are kept as they are. The examples of a dataset that only has `train` are split by
    content. Examples whose label is hidden, as in the test part of a contest, are left out.

    Raises:
        DataError: there is no such dataset or no internet, or the dataset has no part train, no
            images or texts, or no labels.
    """
    builder = _builder(name, data_dir)
    keys = _keys(builder, name)
    parts = {name: part for name in builder.info.splits if (part := part_of(name))}
    if "train" not in parts:
        raise DataError(
            f"tfds:{name} has no part named train. Found: {shown(list(builder.info.splits), 10)}"
        )
    left = [name for name in builder.info.splits if name not in parts]
    feature, bare = builder.info.features[keys.label], 0
    # Images stay encoded; a text is not encoded.
    skip = {key: tfds.decode.SkipDecoding() for key in keys.content}
    encoded = skip if keys.kind_name == DEFAULT else {}
    spool, names, splits, files = Spool(), [], [], []
    for part in sorted(parts, key=lambda part: SPLITS.index(parts[part])):
        dataset = builder.as_dataset(split=part, shuffle_files=False, decoders=encoded)
        for i, element in enumerate(dataset.as_numpy_iterator()):
            number = int(element[keys.label])
            if number < 0:
                bare += 1
                continue
            spool.append(keys.read(element))
            names.append(feature.int2str(number))
            splits.append(parts[part])
            files.append(f"{part}/{i:06d}")
    spool.close()
    notes = []
    if keys.kind_name != DEFAULT:
        notes.append(f"Read as {keys.kind_name}: {shown(keys.content)}.")
    if left:
        notes.append(f"Left out, because they are not train, validation or test: {shown(left)}.")
    if bare:
        notes.append(f"Left out: {bare:,} examples without a label.")
    return Found(
        files=files,
        names=names,
        read=spool.read,
        source=f"tfds:{name}",
        splits=splits if len(parts) > 1 else None,
        classes=feature.names,
        notes=tuple(notes),
        kind_name=keys.kind_name,
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


def _keys(builder: Any, name: str) -> Keys:
    """Return the features to read: an image and its label, or else texts and their label.

    Raises:
        DataError: there are none, or several texts of which nothing says which ones are meant.
    """
    features = builder.info.features
    supervised: tuple[str, ...] = tuple(builder.info.supervised_keys or ())
    if isinstance(features, tfds.features.FeaturesDict) and not any(
        isinstance(feature, tfds.features.Image) for feature in features.values()
    ):
        # Sorted: TensorFlow Datasets lists features in another order in each process.
        texts = sorted(key for key, one in features.items() if isinstance(one, tfds.features.Text))
        labels = [key for key, one in features.items() if isinstance(one, tfds.features.ClassLabel)]
        label = supervised[1] if len(supervised) > 1 else "label"
        if texts and label in labels:
            return Keys(_texts(texts, supervised, f"tfds:{name}"), label, HOLDER.NAME)
    keys = supervised or ("image", "label")
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
    return Keys((image,), label, DEFAULT)


def _texts(texts: Sequence[str], supervised: Sequence[str], source: str) -> tuple[str, ...]:
    """Return which features that are texts make up an example.

    Raises:
        DataError: there are several, and neither their names nor the dataset say which ones.
    """
    if len(texts) == 1:
        return (texts[0],)
    if held := find_held(texts, source):
        spelled = {key.casefold(): key for key in texts}
        return tuple(spelled[column] for column in held.columns)
    if supervised and supervised[0] in texts:
        return (supervised[0],)
    raise DataError(
        f"{source} has several texts: {shown(texts, 10)}. Expected one of the names "
        f"{shown(HOLDER.CELLS[-1], 20)}. In Python, tfxfer.data.from_dataset takes a "
        "tf.data.Dataset of (text, label)."
    )
