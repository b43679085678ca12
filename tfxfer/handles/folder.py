"""Check that a folder is a complete SavedModel, and remove or replace damaged ones in the cache."""

import atexit
import contextlib
import functools
import math
import os
import re
import stat
import tempfile
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfxfer.errors import HandleError
from tfxfer.files import read_regular
from tfxfer.handles.aside import beside, first_line, publish
from tfxfer.limits import MOST_GRAPH

GLOBBED = re.compile(r"[\[\]*?\\]")  # characters that TensorFlow reads as a pattern in a path


def check(path: Path) -> Path:
    """Check that `path` is a folder that holds a complete SavedModel, and return it.

    Raises:
        HandleError: it is something else, or it is damaged. The message says what it is, or what is
            missing.
    """
    if path.suffix.lower() in (".h5", ".hdf5") and path.is_file():
        raise HandleError(
            f"{path} is a Keras model in the old format; expected a .keras file or a SavedModel. "
            'Load it with keras.models.load_model("...") and write it with '
            'model.save("model.keras"), then use that file.'
        )
    if path.is_file():
        raise HandleError(
            f"{path} is a file; expected a SavedModel folder with saved_model.pb, an archive of "
            "one (.tar.gz, .tgz), or a .keras file."
        )
    if not path.exists():
        raise HandleError(
            f"{path} does not exist; expected a SavedModel folder with saved_model.pb. Is the path "
            "right?"
        )
    if not (path / "saved_model.pb").exists():
        raise HandleError(
            f"{path} exists but holds no saved_model.pb, so it is not a SavedModel folder."
            f"{advice(path)}"
        )
    if fault := problem(path):
        raise HandleError(f"{path} is a damaged SavedModel: {fault}. Fetch or export it again.")
    if is_tf1_hub(path):
        raise HandleError(
            f"{path} is a module in the TF1 Hub format (tfhub_module.pb), which can't be "
            "fine-tuned. Look for a TF2 version of the model."
        )
    return path


def is_tf1_hub(path: Path) -> bool:
    """Return whether a complete SavedModel is in the TF1 Hub format.

    Some TF2 models have a tfhub_module.pb too, but only TF2 models have an object graph.
    """
    if not (path / "tfhub_module.pb").exists():
        return False
    proto = SavedModel.FromString(read_regular(path / "saved_model.pb", MOST_GRAPH))
    return not any(graph.object_graph_def.nodes for graph in proto.meta_graphs)


def advice(path: Path) -> str:
    """Return advice for a folder that is not itself a SavedModel, or "" if there is none."""
    if below := sorted(path.glob("*/saved_model.pb")):
        return f" {below[0].parent} does: use that."
    if (path / "saved_model.pbtxt").exists():
        return (
            " It holds a saved_model.pbtxt; the text form is not read. Load it with "
            "tf.saved_model.load and save it again."
        )
    if (path / "manifest.json").exists() and (path / "model.keras").exists():
        return (
            " It is a run: write its network with tfxfer export RUN FOLDER --format reusable, and "
            "use that folder."
        )
    if files := sorted(path.glob("*.keras")):
        return f" {files[0]} is a network: use that."
    if (path / "keras_metadata.pb").exists() or any(path.glob("*.h5")):
        return (
            " It holds Keras files: load one with keras.models.load_model and write it with "
            'model.save("network.keras"), then use that file.'
        )
    return ""


def problem(path: Path) -> str:
    """Return why the SavedModel at `path` is not complete, or "" if it is.

    The function reads the graph, looks for the assets that it names, and reads every tensor once,
    which checks the length and the checksum of each.
    """
    try:
        proto = SavedModel.FromString(read_regular(path / "saved_model.pb", MOST_GRAPH))
    except FileNotFoundError:
        return "saved_model.pb is missing"
    except DecodeError:
        return "saved_model.pb is cut off or is not a SavedModel"
    except OSError as error:
        return f"saved_model.pb can't be read ({error.strerror})"
    if not proto.meta_graphs:
        return "saved_model.pb holds no graph"
    for graph in proto.meta_graphs:
        for asset in graph.asset_file_def:
            if not (path / "assets" / asset.filename).exists():
                return f"assets/{asset.filename} is missing"
    if not (path / "variables" / "variables.index").exists():
        # A TF2 model always has this file, even if it holds only constants. A TF1 model without it
        # is not refused here.
        return (
            "variables/variables.index is missing"
            if any(graph.object_graph_def.nodes for graph in proto.meta_graphs)
            else ""
        )
    return checkpoint_problem(path / "variables")


def checkpoint_problem(variables: Path) -> str:
    """Return why some of the variables can't be read, or "" if all can."""
    shards: list[str] = []
    try:
        size = 0
        for path in sorted(variables.iterdir()):
            shards.append(path.name)
            status = path.stat()
            # TensorFlow would wait for ever when it opens a pipe.
            if not stat.S_ISREG(status.st_mode):
                return f"variables/{path.name} is no regular file"
            size += status.st_size
        reader = tf.train.load_checkpoint(str(plain_path(variables) / "variables"))
        dtypes = reader.get_variable_to_dtype_map()
        for name, shape in reader.get_variable_to_shape_map().items():
            # TensorFlow allocates the memory of a tensor before it looks for its bytes, so a
            # damaged shape could ask for far too much.
            if math.prod(shape) * dtypes[name].size > size:
                return f"variables/ has {size:,} bytes, too few for {name} of shape {shape}"
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError, IndexError) as error:
        listed = ", ".join(shards) or "nothing"
        return f"the values in variables/ can't be read (it holds {listed}; {first_line(error)})"
    return ""


# --- a path that TensorFlow can read --------------------------------------------------------------


def plain_path(folder: Path) -> Path:
    """Return a path to an existing folder that TensorFlow can read: `folder` or a symbolic link.

    TensorFlow reads `[1]`, `*`, `?` and a backslash in the path of a checkpoint as a pattern, and
    does not accept a name that is not UTF-8. The link exists until this process ends, since a
    loaded model may read its assets later.

    Raises:
        HandleError: a link is needed and can't be made.
    """
    if is_plain(folder):
        return folder
    try:
        return link_to(folder.absolute())
    except OSError as error:
        raise HandleError(
            f"{folder} has one of the characters [ ] * ? \\ in its path, or is not UTF-8, and "
            f"TensorFlow can't read it; a link to it can't be made ({error.strerror or error}). "
            "Rename the folder."
        ) from error


def is_plain(path: Path) -> bool:
    """Return whether TensorFlow can read this path as it is."""
    text = str(path)
    return not GLOBBED.search(text) and not any("\ud800" <= letter <= "\udfff" for letter in text)


@functools.cache
def link_to(folder: Path) -> Path:
    """Make a symbolic link to `folder`, in a folder that is removed when this process ends."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path.cwd(), Path.home()]
    place = next((place for place in places if is_plain(place) and place.is_dir()), None)
    if place is None:
        raise OSError("the folders for temporary files have such characters too")
    links = Path(tempfile.mkdtemp(prefix="tfxfer-link-", dir=place))
    link = links / "folder"
    link.symlink_to(folder, target_is_directory=True)
    atexit.register(remove_link, link, os.getpid())
    return link


def remove_link(link: Path, process: int) -> None:
    """Remove a link and its folder if this is the process that made them, and not a fork of it."""
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            link.unlink()
            link.parent.rmdir()


# --- removing a folder of the cache ---------------------------------------------------------------


def set_aside(folder: Path, fault: str) -> None:
    """Remove a damaged folder of the cache, so that it can be made again.

    It is renamed first, and checked again under its new name. If another process has put a complete
    folder in its place in the meantime, that folder is put back.

    Args:
        fault: what `problem` said about the folder.

    Raises:
        HandleError: the folder can't be removed.
    """
    with beside(folder) as aside:
        if move(folder, aside, f"it is not whole: {fault}") and not problem(aside):
            publish(aside, folder)


def discard(folder: Path, why: str) -> None:
    """Remove a folder of the cache, complete or not, if it exists.

    Args:
        why: the reason, as the end of a sentence, for the message.

    Raises:
        HandleError: the folder can't be removed.
    """
    with beside(folder) as aside:
        move(folder, aside, why)


def move(folder: Path, aside: Path, why: str) -> bool:
    """Rename `folder` to `aside`, and return whether it existed."""
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HandleError(
            f"{folder} can't be removed ({error.strerror}), and must be, since {why}. Remove it by "
            "hand."
        ) from error
    return True
