"""Labelled images from anywhere -> one frozen `Examples`: files that are known, checked and split, and read one at a time."""

from os import PathLike, fspath
from pathlib import Path

from tfxfer.cache import Cache
from tfxfer.data.arrays import from_arrays, from_dataset
from tfxfer.data.assemble import assemble, drop_undecodable
from tfxfer.data.class_names import with_plain_names
from tfxfer.data.demo import read_demo
from tfxfer.data.examples import SPLITS, Examples, Found
from tfxfer.data.folder import find_images, find_photos, read_folder
from tfxfer.data.heic import readable
from tfxfer.data.packed import is_packed, unpacked
from tfxfer.data.table import read_table
from tfxfer.data.tfds import read_tfds
from tfxfer.errors import DataError

TABLES = {".csv", ".tsv", ".txt"}
# What to do with files that are often given and not read, by how their names end.
CURES = {
    (".xlsx", ".xls", ".ods", ".numbers"): " It is a workbook: save its table as CSV UTF-8.",
    (".json", ".jsonl", ".parquet", ".feather", ".arrow", ".pkl"): " Write its table as a .csv.",
    (".001", ".002", ".z01"): " It is a piece of an archive: unpack all pieces together first.",
    (".crdownload", ".part", ".partial", ".download"): " Its download is not finished.",
    (".tfrecord", ".tfrecords"): " In Python tfxfer.data.from_dataset takes a tf.data.Dataset.",
    (".npz", ".npy", ".mat", ".h5", ".hdf5"): " In Python tfxfer.data.from_arrays takes arrays.",
    (".7z", ".rar", ".bz2", ".tbz2", ".xz", ".txz", ".gz", ".zst"): " Unpack it first.",
}

__all__ = [
    "SPLITS",
    "Examples",
    "Found",
    "check_source",
    "drop_undecodable",
    "find_images",
    "find_photos",
    "find_source",
    "from_arrays",
    "from_dataset",
    "load",
    "no_source",
    "readable",
    "with_plain_names",
]


def load(
    data: str | PathLike[str] | Examples,
    *,
    data_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    skip_bad_images: bool = False,
    cache: str | PathLike[str] | None = None,
) -> Examples:
    """Find, check and, where needed, split labelled images.

    Args:
        data: "demo" (a folder of that name is "./demo"), a folder of class folders, a .zip or .tar
            of one, a .csv table with
            the columns path and label (also split, group), or "tfds:NAME". Folders that are named
            like parts, such as train/,
            val/ and test/, may lie around the class folders, and the parts are kept exactly: a
            missing one stays missing. One
            pile is split by content into train, validation and test. `Examples` are returned as
            they are.
        data_dir: where TensorFlow Datasets keeps its files.
        seed: another seed, another split.
        skip_bad_images: leave out what can't be decoded, and note it, instead of raising; also what
            is damaged and decoded all the same, which else is only noted.
        cache: a folder (see `tfxfer.Cache`) that remembers which files are whole, so that each is
            looked at once; None: all are looked at each time.

    Raises:
        DataError: no images, one class, a class of one image where a split must be made, a class that is only in test, an unreadable table.
        ImageError: files that can't be decoded.
        CacheError: the cache can't be used.
        MissingExtraError: HEIC, AVIF and TIFF need `tfxfer[heic]`.
    """
    if isinstance(data, Examples):
        return data
    source = fspath(data)
    found = find_source(source, data_dir)
    if found is None:
        raise no_source(source)
    kept = None if cache is None else Cache(cache)
    return assemble(found, seed=seed, skip_bad_images=skip_bad_images, cache=kept)


def check_source(source: str, judging: bool = False) -> None:
    """Tell what is wrong with the names of folders, files and columns, in a moment: no photo is
    read, and no TensorFlow.

    Args:
        judging: see `find_source`.

    Raises:
        DataError: as `load`, but of names alone.
    """
    if source == "demo" or source.startswith("tfds:"):
        return  # it is there, or TensorFlow Datasets tells
    if find_source(source, judging=judging) is None:
        raise no_source(source)


def no_source(source: str) -> DataError:
    """The error for what is no labelled data."""
    what = (
        "is a file, but no .csv table and no .zip or .tar of photos"
        if Path(source).expanduser().exists()
        else "does not exist"
    )
    cure = next((cure for ends, cure in CURES.items() if source.lower().endswith(ends)), "")
    if not Path(source).expanduser().exists():
        cure = ""
    return DataError(
        f"{source} {what}.{cure} Expected a folder with a folder for each class, a .zip or .tar of "
        "one, a .csv file with the columns path and label, tfds:NAME, or demo."
    )


def find_source(
    source: str, data_dir: str | PathLike[str] | None = None, judging: bool = False
) -> Found | None:
    """What a source holds, not checked and not split, with the reader that its form asks for; None
    where it is no source (see `load`).

    With `judging` nothing is trained, so that a folder may hold test/ alone.
    """
    if source == "demo":
        return read_demo()
    if source.startswith("tfds:"):
        return read_tfds(source.removeprefix("tfds:"), data_dir)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, source, judging)
    if path.suffix.lower() in TABLES and path.exists():
        return read_table(path, source)
    if is_packed(path):
        return read_folder(unpacked(path, source), source, judging)
    return None
