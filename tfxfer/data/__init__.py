"""Load labelled images from any source as `Examples`: checked, split and read one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path

from tfxfer.cache import Cache
from tfxfer.data.arrays import from_arrays, from_dataset, task_named
from tfxfer.data.assemble import assemble, drop_undecodable
from tfxfer.data.class_names import with_plain_names
from tfxfer.data.demo import read_demo
from tfxfer.data.examples import SPLITS, Examples, Found
from tfxfer.data.folder import find_examples, find_files, read_folder
from tfxfer.data.layout import find_only_table, is_kept
from tfxfer.data.packed import is_packed, unpack_data
from tfxfer.data.parts import part_in
from tfxfer.data.table import read_table
from tfxfer.data.tfds import read_tfds
from tfxfer.data.unlabelled import Unlabelled, check_any, find_unlabelled, free_name
from tfxfer.errors import DataError, NoClassFoldersError
from tfxfer.inputs import Kind
from tfxfer.tasks import CLASSIFY, Task

TABLES = {".csv", ".tsv", ".txt"}
_TableReader = Callable[[Path, str], Found]
# Advice for kinds of files that users often give and that are not read, by the end of the name.
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
    "Unlabelled",
    "check_any",
    "check_source",
    "drop_undecodable",
    "find_examples",
    "find_files",
    "find_source",
    "find_unlabelled",
    "free_name",
    "from_arrays",
    "from_dataset",
    "load",
    "no_source",
    "with_plain_names",
]


def load(
    data: str | PathLike[str] | Examples,
    *,
    data_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    skip_bad_images: bool = False,
    cache: str | PathLike[str] | None = None,
    task: str = CLASSIFY.NAME,
    labels: Sequence[str] = (),
) -> Examples:
    """Find, check and, where needed, split labelled images.

    Args:
        data: one of:

            - a folder that holds a folder for each class, or a .zip or .tar of one. The class
              folders may lie in folders that are named like parts, such as train/, val/ and test/.
              These parts are kept exactly: a missing part stays missing. Without such folders the
              images are split by content into train, validation and test.
            - a .csv table with the columns path and label, and optionally split and group.
            - "tfds:NAME", a dataset of TensorFlow Datasets.
            - "demo", the embedded demo data. A folder of that name is "./demo".
            - `Examples`, which are returned as they are.
        data_dir: the folder in which TensorFlow Datasets keeps its files.
        seed: the seed of the split.
        skip_bad_images: whether to leave out images that can't be decoded, and note them, instead
            of raising an error. Images that are damaged but can be decoded are then left out too;
            otherwise they are only noted.
        cache: a folder (see `tfxfer.Cache`) that stores which files are not damaged, so that each
            is checked only once. None: all files are checked each time.
        task: name of the kind of answer, see `tfxfer.tasks`.
        labels: names of the columns of a table that hold the labels; by default the column label,
            or for numbers and several labels all columns that look like it.

    Raises:
        DataError: there are no images or only one class, a class has only one image and a split
            must be made, a class is only in test, or a table can't be read.
        ImageError: files can't be decoded.
        CacheError: the cache can't be used.
        MissingExtraError: there are HEIC, AVIF or TIFF files, and `tfxfer[heic]` is not installed.
    """
    if isinstance(data, Examples):
        return data
    wanted = task_named(task)
    source = fspath(data)
    found = find_source(source, data_dir, task=wanted, labels=labels)
    if found is None:
        raise no_source(source)
    if found.task == CLASSIFY.NAME:  # a table of several columns says itself what they are
        found = replace(found, task=task)
    kept = None if cache is None else Cache(cache)
    return assemble(found, seed=seed, skip_bad_images=skip_bad_images, cache=kept)


def check_source(
    source: str,
    judging: bool = False,
    *,
    task: str = CLASSIFY.NAME,
    labels: Sequence[str] = (),
) -> None:
    """Check quickly the names of folders, files and columns, without reading images.

    TensorFlow is not loaded.

    Args:
        judging: see `find_source`.
        task, labels: see `load`.

    Raises:
        DataError: an error of `load` that the names alone show.
    """
    if source == "demo" or source.startswith("tfds:"):
        return  # demo always exists, and TensorFlow Datasets checks its names itself
    if _list_source(source, None, judging, None, task=task_named(task), labels=labels) is None:
        raise no_source(source)


def no_source(source: str) -> DataError:
    """Make the error for a source that is not labelled data."""
    what = (
        "is a file, but no .csv table and no .zip or .tar of class folders"
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
    source: str,
    data_dir: str | PathLike[str] | None = None,
    judging: bool = False,
    kind: Kind | None = None,
    *,
    task: Task = CLASSIFY,
    labels: Sequence[str] = (),
) -> Found | None:
    """List what a source holds, with the reader for its kind.

    Args:
        source: see `data` of `load`.
        judging: whether nothing will be trained, so that a folder may hold test/ alone.
        kind: what the files of a folder or table are; None: the first kind that has a file there.
        task, labels: what the labels of a table are, and in which columns they stand; with
            `judging`, columns that are not there are left out.

    Returns:
        The images, not checked and not split, or None if `source` is not a source.

    Raises:
        DataError: the names of files, folders or columns are wrong; or columns of labels are given
            for what is no table.
    """
    found = _list_source(source, data_dir, judging, kind, task=task, labels=labels)
    if found is None:
        return None
    read, said = found.kind.read_together(found.read, found.files)
    return replace(found, read=read, notes=(*found.notes, *said))


def _list_source(
    source: str,
    data_dir: str | PathLike[str] | None,
    judging: bool,
    kind: Kind | None,
    *,
    task: Task,
    labels: Sequence[str],
) -> Found | None:
    """List what a source holds, without reading examples; see `find_source`."""
    labels = (labels,) if isinstance(labels, str) else labels
    path = Path(source).expanduser()
    if path.suffix.lower() in TABLES and path.is_file() and not source.startswith("tfds:"):
        return read_table(path, source, kind, task=task, labels=labels, judging=judging)
    packed = is_packed(path) and not source.startswith("tfds:")
    unpacked = unpack_data(path, source) if packed else None
    read: _TableReader = partial(
        read_table,
        kind=kind,
        task=task,
        labels=labels,
        judging=judging,
        inside=None if unpacked is None else unpacked.folder,
    )
    if unpacked is not None:
        if labels and not judging:
            found = _read_labels(unpacked.folder, source, labels, read=read)
        else:
            found = _read_folder_or_table(unpacked.folder, source, judging, kind, read=read)
        # A table in an archive can't be given by its name, so the archive stays the source.
        return replace(found, source=source, notes=(*unpacked.notes, *found.notes))
    if labels and not judging:
        return _read_labels(path, source, labels, read=read)
    if source == "demo":
        return read_demo()
    if source.startswith("tfds:"):
        return read_tfds(source.removeprefix("tfds:"), data_dir)
    if path.is_dir():
        return _read_folder_or_table(path, source, judging, kind, read=read)
    if path.suffix.lower() in TABLES and path.exists():
        return read_table(path, source, kind, task=task)  # a pipe, for example
    return None


def _read_labels(folder: Path, source: str, labels: Sequence[str], *, read: _TableReader) -> Found:
    """Read the only table in a folder, of which the user named columns.

    Raises:
        DataError: there is no such folder, not one table in it, or it can't be read.
    """
    table = find_only_table(folder) if folder.is_dir() else None
    if table is None:
        raise DataError(
            f"--label {labels[0]} names a column, but {source} is no table. Expected a .csv file."
        )
    return read(table, f"{source.rstrip('/')}/{table.name}")


def _read_folder_or_table(
    folder: Path, source: str, judging: bool, kind: Kind | None, *, read: _TableReader
) -> Found:
    """Read a folder of class folders or, if it is none, the only table in it.

    A model may be judged on one class alone. But if a table lies beside a single class folder, that
    folder may as well be images/ of many classes, so the table counts if it can be read.

    Raises:
        NoClassFoldersError: the folder holds no class folders, and no table.
        DataError: the class folders can't be read, or neither can the table.
    """
    try:
        folders = read_folder(folder, source, judging, kind)
    except NoClassFoldersError as error:
        table = find_only_table(folder)
        if table is None:
            raise
        try:
            found = read(table, f"{source.rstrip('/')}/{table.name}")
        except DataError as error_of_table:
            raise DataError(f"{error} Its table can't be read, either: {error_of_table}") from error
        note = f"There are no class folders, so {table.name} says what the {found.kind.MANY} are."
        return replace(found, notes=(note, *found.notes))
    table = find_only_table(folder) if judging and len(set(folders.names)) == 1 else None
    return folders if table is None else _read_table_or_class(folders, table, source, read=read)


def _read_table_or_class(folders: Found, table: Path, source: str, *, read: _TableReader) -> Found:
    """Read the table beside a single class folder or, if that fails, take the folder as the class.

    Raises:
        DataError: the table can't be read, and the name of the folder is that of no class.
    """
    name = folders.names[0]
    try:
        found = read(table, f"{source.rstrip('/')}/{table.name}")
    except DataError as error:
        if is_kept(name) or part_in(name):
            raise
        note = f"Every label is {name}, since {table.name} beside {name}/ can't be read: {error}"
        return replace(folders, notes=(note, *folders.notes))
    note = f"There is only the folder {name}/, so {table.name} says what the labels are."
    return replace(found, notes=(note, *found.notes))
