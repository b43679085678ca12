"""Labelled images from anywhere -> one frozen `Examples`: files that are known, checked and split, and read one at a time."""

from os import PathLike, fspath
from pathlib import Path

from tfxfer.data.arrays import from_arrays, from_dataset
from tfxfer.data.assemble import assemble
from tfxfer.data.demo import read_demo
from tfxfer.data.examples import SPLITS, Examples
from tfxfer.data.folder import find_images, read_folder
from tfxfer.data.heic import readable
from tfxfer.data.table import read_table
from tfxfer.data.tfds import read_tfds
from tfxfer.errors import DataError

__all__ = ["SPLITS", "Examples", "find_images", "from_arrays", "from_dataset", "load", "readable"]


def load(data: str | PathLike[str] | Examples, *, data_dir: str | PathLike[str] | None = None, seed: int = 0, skip_bad_images: bool = False) -> Examples:
    """Find, check and, where needed, split labelled images.

    Args:
        data: "demo" (a folder of that name is "./demo"), a folder of class folders, with train/, validation/ (or val/, valid/) and test/ above them or
            not, a .csv file with the columns path and label (also split, group), or "tfds:NAME". Given parts are kept exactly, and a missing one
            stays missing; one pile is split by content into train, validation and test. `Examples` are returned as they are.
        data_dir: where TensorFlow Datasets keeps its files.
        seed: another seed, another split.
        skip_bad_images: leave out what can't be decoded, and note it, instead of raising.

    Raises:
        DataError: no images, one class, a class of one image where a split must be made, a class that is only in test, an unreadable table.
        ImageError: files that can't be decoded.
        MissingExtraError: HEIC, AVIF and TIFF need `tfxfer[heic]`.
    """
    if isinstance(data, Examples):
        return data
    source = fspath(data)
    if data == "demo":
        found = read_demo()
    elif source.startswith("tfds:"):
        found = read_tfds(source.removeprefix("tfds:"), data_dir)
    elif (path := Path(source).expanduser()).is_dir():
        found = read_folder(path, source)
    elif path.suffix.lower() == ".csv" and path.is_file():
        found = read_table(path, source)
    else:
        what = "is a file, but no .csv table" if path.exists() else "does not exist"
        raise DataError(f"{source} {what}. Expected a folder with a folder for each class, a .csv file with the columns path and label, tfds:NAME, or demo.")
    return assemble(found, seed=seed, skip_bad_images=skip_bad_images)
