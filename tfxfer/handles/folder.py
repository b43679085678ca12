"""A SavedModel folder on disk: whether it is one, whether it is whole, and how one is put in its place."""

import os
import shutil
import time
import uuid
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfxfer.errors import HandleError
from tfxfer.files import sync_folder

ABANDONED = 24 * 3600  # seconds until an unfinished folder is taken for that of a dead process


def check(path: Path) -> Path:
    """`path`, if it is a folder that holds a whole SavedModel.

    Raises:
        HandleError: it is something else, with what it is; or it is damaged, with what is missing.
    """
    if path.suffix.lower() in (".h5", ".hdf5", ".keras") and path.is_file():
        raise HandleError(
            f"{path} is a Keras model file; expected a SavedModel folder with saved_model.pb. "
            'Load it with keras.models.load_model("...") and write it with model.export("folder/"), then use that folder.'
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
    proto = SavedModel.FromString((path / "saved_model.pb").read_bytes())
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
        proto = SavedModel.FromString((path / "saved_model.pb").read_bytes())
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
    try:
        reader = tf.train.load_checkpoint(str(variables / "variables"))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError, IndexError) as error:
        shards = ", ".join(sorted(p.name for p in variables.iterdir())) or "nothing"
        return f"the values in variables/ can't be read (it holds {shards}; {first_line(error)})"
    return ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


# --- putting a folder in its place ------------------------------------------------------------------------------------------------------------


def unique_beside(folder: Path) -> Path:
    """A free name beside `folder`, on the same disk, so that it can be renamed to it. Sweeps out what killed processes left there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob("*.tmp"):
            if left.stat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
    except FileNotFoundError:
        pass  # another process swept first
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    return folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:12]}.tmp")


def publish(aside: Path, folder: Path) -> None:
    """Rename the finished folder `aside` to `folder`, everything on disk first; where another process was faster, its folder stays."""
    try:
        for place, _, files in os.walk(aside, topdown=False):
            for name in files:
                with open(Path(place, name), "rb+") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(place))
        os.rename(aside, folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not folder.exists():
            raise unwritable(folder, error) from error


def set_aside(folder: Path, found: str) -> None:
    """Remove a folder of the cache in which `problem` found something, so that it can be made again.

    It is renamed first, and looked at again under its new name: if another process put a whole one there in between, that one goes back.
    """
    aside = unique_beside(folder)
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HandleError(
            f"{folder} is not whole ({found}) and can't be removed ({error.strerror}). Remove it by hand."
        ) from error
    if not problem(aside):
        publish(aside, folder)
    else:
        shutil.rmtree(aside, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> HandleError:
    return HandleError(
        f"{folder} can't be written ({error.strerror or error}). Choose another folder for the cache with TFXFER_CACHE_DIR."
    )
