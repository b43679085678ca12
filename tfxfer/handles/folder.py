"""A SavedModel folder on disk: whether it is one, whether it is whole, and how one is put in its place."""

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

GLOBBED = re.compile(r"[\[\]*?\\]")  # TensorFlow takes them for patterns


def check(path: Path) -> Path:
    """`path`, if it is a folder that holds a whole SavedModel.

    Raises:
        HandleError: it is something else, with what it is; or it is damaged, with what is missing.
    """
    if path.suffix.lower() in (".h5", ".hdf5", ".keras") and path.is_file():
        raise HandleError(
            f"{path} is a Keras model file; expected a SavedModel folder with saved_model.pb. "
            'Load it with keras.models.load_model("...") and write it with model.export("folder/"), then use that folder. '
            "An export answers only. To fine-tune it too, write it so: "
            "archive = keras.export.ExportArchive(); archive.track(model); "
            'archive.add_endpoint("__call__", model, [tf.TensorSpec((None, *model.input_shape[1:]))]); '
            'archive.write_out("folder/").'
        )
    if path.is_file():
        raise HandleError(
            f"{path} is a file; expected a SavedModel folder with saved_model.pb, or an archive of one (.tar.gz, .tgz)."
        )
    if not path.exists():
        raise HandleError(
            f"{path} does not exist; expected a SavedModel folder with saved_model.pb. Is the path right?"
        )
    if not (path / "saved_model.pb").exists():
        raise HandleError(
            f"{path} exists but holds no saved_model.pb, so it is not a SavedModel folder.{advice(path)}"
        )
    if found := problem(path):
        raise HandleError(f"{path} is a damaged SavedModel: {found}. Fetch or export it again.")
    if is_tf1_hub(path):
        raise HandleError(
            f"{path} is a module in the TF1 Hub format (tfhub_module.pb), which can't be fine-tuned. Look for a TF2 version of the model."
        )
    return path


def is_tf1_hub(path: Path) -> bool:
    """Whether a whole SavedModel is in the TF1 Hub format. Some TF2 models carry a tfhub_module.pb too; only these have an object graph."""
    if not (path / "tfhub_module.pb").exists():
        return False
    proto = SavedModel.FromString(read_regular(path / "saved_model.pb", MOST_GRAPH))
    return not any(graph.object_graph_def.nodes for graph in proto.meta_graphs)


def advice(path: Path) -> str:
    """What to try with a folder that is not itself a SavedModel."""
    if below := sorted(path.glob("*/saved_model.pb")):
        return f" {below[0].parent} does: use that."
    if (path / "saved_model.pbtxt").exists():
        return " It holds a saved_model.pbtxt; the text form is not read. Load it with tf.saved_model.load and save it again."
    if (path / "keras_metadata.pb").exists() or any(path.glob("*.h5")) or any(path.glob("*.keras")):
        return " It holds Keras files: load one with keras.models.load_model and write it with model.export, then use that folder."
    return ""


def problem(path: Path) -> str:
    """Why the SavedModel at `path` is not whole, "" where it is.

    Reads the graph, looks for the assets that it names, and reads every tensor once, which checks the length and checksum of each.
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
        # A TF2 model always has it, be it of constants only; where a TF1 model has none, it is not this room that refuses it.
        return (
            "variables/variables.index is missing"
            if any(graph.object_graph_def.nodes for graph in proto.meta_graphs)
            else ""
        )
    return checkpoint_problem(path / "variables")


def checkpoint_problem(variables: Path) -> str:
    """Why the variables can't all be read, "" where they can."""
    shards: list[str] = []
    try:
        size = 0
        for path in sorted(variables.iterdir()):
            shards.append(path.name)
            found = path.stat()
            # TensorFlow would wait for ever to open a pipe.
            if not stat.S_ISREG(found.st_mode):
                return f"variables/{path.name} is no regular file"
            size += found.st_size
        reader = tf.train.load_checkpoint(str(plain_path(variables) / "variables"))
        dtypes = reader.get_variable_to_dtype_map()
        for name, shape in reader.get_variable_to_shape_map().items():
            # Its memory is taken before its bytes are looked for.
            if math.prod(shape) * dtypes[name].size > size:
                return f"variables/ has {size:,} bytes, too few for {name} of shape {shape}"
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError, IndexError) as error:
        listed = ", ".join(shards) or "nothing"
        return f"the values in variables/ can't be read (it holds {listed}; {first_line(error)})"
    return ""


# --- a path that TensorFlow can read -----------------------------------------------------------------------------------------------------------


def plain_path(folder: Path) -> Path:
    """A path to an existing folder in which TensorFlow takes nothing for a pattern: `folder` itself, or a symbolic link to it.

    TensorFlow takes `[1]`, `*`, `?` and a backslash in the path of a checkpoint for a pattern, and can't
    take a name that is not UTF-8. The link lives as long as this process, since what was loaded may read
    its assets later.

    Raises:
        HandleError: there is no place for a link.
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
    """Whether TensorFlow takes this path as it is."""
    text = str(path)
    return not GLOBBED.search(text) and not any("\ud800" <= letter <= "\udfff" for letter in text)


@functools.cache
def link_to(folder: Path) -> Path:
    """A symbolic link to `folder`, in a folder that goes when this process ends."""
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
    """Remove a link and its folder, where this is the process that made them and not a copy of it."""
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            link.unlink()
            link.parent.rmdir()


# --- putting a folder in its place ------------------------------------------------------------------------------------------------------------


def set_aside(folder: Path, found: str) -> None:
    """Remove a folder of the cache in which `problem` found something, so that it can be made again.

    It is renamed first, and looked at again under its new name: if another process put a whole one there in between, that one goes back.
    """
    with beside(folder) as aside:
        if move(folder, aside, f"it is not whole: {found}") and not problem(aside):
            publish(aside, folder)


def discard(folder: Path, why: str) -> None:
    """Remove a folder of the cache, whole or not, if it is there."""
    with beside(folder) as aside:
        move(folder, aside, why)


def move(folder: Path, aside: Path, why: str) -> bool:
    """Whether it was there."""
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HandleError(
            f"{folder} can't be removed ({error.strerror}), and must be, since {why}. Remove it by hand."
        ) from error
    return True
