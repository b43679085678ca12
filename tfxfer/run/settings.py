"""The options that every recipe has, and how settings are written down."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tfxfer.cache import default_folder
from tfxfer.safety.names import one_line


@dataclass(frozen=True, kw_only=True)
class Place:
    """The options that choose the folder of a run."""

    out: Annotated[
        Path | None, "Folder for the results; by default a new one, runs/<recipe>-<number>."
    ] = None
    resume: Annotated[
        bool,
        "Continue the run in --out where it stopped; without --out, the latest run of this recipe. "
        "If there is none, a new one starts.",
    ] = False
    overwrite: Annotated[bool, "Delete the old run in --out and start again."] = False


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options that every recipe has, besides those of `Place`."""

    seed: Annotated[
        int,
        "Random seed: for the data split, cross-validation, initial weights and shuffling.",
        range(2**32),
    ] = 0
    task: Annotated[
        str,
        "Kind of answer. classify: each example belongs to one of several classes. multilabel: an "
        "example has any number of labels. regress: a number, or several.",
    ] = "classify"
    label: Annotated[
        tuple[str, ...],
        "Name of the column of labels in a .csv table; repeat it for several columns.",
    ] = ()
    cache: Annotated[
        str | None,
        "Folder that keeps computed features for later runs; off: they are deleted when "
        "the run is finished. By default $TFXFER_CACHE_DIR or ~/.cache/tfxfer.",
    ] = None
    engine: Annotated[
        Literal["tensorflow", "openvino"],
        "Library that runs the pretrained network; openvino can be faster on a CPU.",
    ] = "tensorflow"
    engine_precision: Annotated[
        Literal["float32", "bf16"],
        "Number format in which the engine computes; bf16 is faster, and needs --engine "
        "openvino and a CPU with bfloat16.",
    ] = "float32"
    batch_size: Annotated[
        int, "Number of examples that go through the network at a time.", range(1, 2**20)
    ] = 32
    device: Annotated[
        Literal["auto", "cpu", "gpu", "tpu"],
        "Hardware to use; tfxfer devices lists what this machine has. auto: a TPU or a GPU if "
        "there is one, otherwise the CPU.",
    ] = "auto"
    strategy: Annotated[
        Literal["auto", "one", "mirrored", "multiworker", "tpu"],
        "How devices share the work. one: one device. mirrored: several GPUs or CPU cores of "
        "this machine. multiworker: several processes (see tfxfer launch). tpu: a TPU. auto: "
        "all workers, or a TPU or all GPUs if there are any, otherwise one device.",
    ] = "auto"
    replicas: Annotated[
        int | None,
        "Number of devices for --strategy mirrored; by default all GPUs, or one for each CPU core.",
        range(1, 2**10),
    ] = None
    precision: Annotated[
        Literal["float32", "mixed"],
        "Number format in training; mixed (bfloat16) is faster on a GPU or a TPU.",
    ] = "float32"
    global_batch: Annotated[
        int | None,
        "Number of examples in one training step on all devices together; by default --batch-size.",
        range(1, 2**20),
    ] = None
    skip_bad_images: Annotated[
        bool, "Leave out files that can't be read or are damaged, and list them."
    ] = False
    image_size: Annotated[
        int | None,
        "Input size in pixels, for networks that accept any size.",
        range(1, 2**13),
    ] = None
    length: Annotated[
        int | None,
        "How many word pieces of each text are read, where the network leaves it open; by default "
        "128 with minilm, 512 with static.",
        range(8, 513),
    ] = None
    value_range: Annotated[
        tuple[float, float] | None,
        "Range of pixel values that the network expects, such as 0,1; needed only if tfxfer "
        "can't find it out.",
    ] = None
    backbone_output: Annotated[
        str | None, "Name of the output that has the features, for networks with several outputs."
    ] = None
    backbone_preprocess: Annotated[
        str | None,
        "Handle of the preprocessor, for an encoder of texts that needs one (TensorFlow Hub names "
        "it on the page of the encoder).",
    ] = None
    data_dir: Annotated[
        Path | None, "Folder where TensorFlow Datasets keeps its files, for --data tfds:NAME."
    ] = None
    trust: Annotated[
        bool,
        "Load the network even if it contains operations that can read files, run code or use "
        "the internet. Only if you trust its source.",
    ] = False

    @property
    def step_size(self) -> int:
        """The number of images in one training step, on all devices together."""
        return self.global_batch or self.batch_size

    def cache_folder(self, run: Path) -> Path:
        """Return the folder of the features.

        With `--cache off` it is inside the run's folder, until the run is finished.
        """
        if self.cache == "off":
            return run / "checkpoints" / "cache"
        return Path(self.cache).expanduser() if self.cache else default_folder()

    def as_settings(self) -> dict[str, Any]:
        """Return what settings.json holds: an image size is noted as height and width."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.image_size is not None:
            values["image_size"] = (self.image_size, self.image_size)
        return values


# The names of these options.
OPTIONS = {field.name for field in fields(Common)}


def read_common(values: Mapping[str, Any]) -> Common:
    """Return the options from what settings.json holds."""
    # A run of an earlier version has no value for an option that is new.
    options = {name: values[name] for name in OPTIONS if name in values}
    if options["image_size"] is not None:
        options["image_size"] = options["image_size"][0]
    if options["value_range"] is not None:
        options["value_range"] = tuple(options["value_range"])
    if "label" in options:
        names = options["label"]  # in Python it may be one name
        options["label"] = (names,) if isinstance(names, str) else tuple(names)
    if options["data_dir"] is not None:
        options["data_dir"] = Path(options["data_dir"])
    return Common(**options)


def chosen_names(common: Common) -> set[str]:
    """Return the names of the options that differ from their defaults."""
    return {field.name for field in fields(Common) if getattr(common, field.name) != field.default}


def as_words(value: Any) -> str:
    """Format a setting's value for a sentence, on one line."""
    return one_line(str(value))[:200]


def as_option(name: str, value: Any) -> list[str]:
    """Format an option as it is typed on the command line."""
    flag = "--" + name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if name == "image_size" and isinstance(value, list) and value:
        return [flag, str(value[0])]
    if name == "label":
        return [word for one in value for word in (flag, str(one))]
    if isinstance(value, list):
        return [flag, ",".join(map(str, value))]
    return [flag, str(value)]


def as_argument(name: str, value: Any) -> str:
    """Format an option as a Python argument.

    The value of an object is written as the option's name, because its `repr` can't be run.
    """
    if name == "image_size" and isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, Path):
        value = str(value)
    return f"{name}={value!r}" if is_simple(value) else f"{name}={name}"


def describe_call(function: str, own: Sequence[str], options: Mapping[str, Any]) -> str:
    """Write a call as Python: its own arguments, then options by their names."""
    return f"{function}({', '.join([*own, *(as_argument(*one) for one in options.items())])})"


def is_simple(value: Any) -> bool:
    """Whether Python makes the same value from its `repr`."""
    return value is None or isinstance(value, str | int | float | list | tuple)


def same(old: Any, new: Any) -> bool:
    """Whether two values are equal, or are two spellings of one path."""
    return old == new or (
        isinstance(old, str)
        and isinstance(new, str)
        and os.path.exists(old)
        and os.path.exists(new)
        and os.path.samefile(old, new)
    )


def plain(value: Any) -> Any:
    """Convert a value to what JSON can hold."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, str | int | float | bool | dict | None):
        return value
    if hasattr(value, "origin"):  # `Examples`
        return str(value.origin)
    if not isinstance(value, os.PathLike) and isinstance(name := getattr(value, "name", None), str):
        return f"{type(value).__name__} {name}, made in Python"  # a Keras model or layer
    return str(value)


def as_text(value: Any) -> str:
    """Format a value as JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
