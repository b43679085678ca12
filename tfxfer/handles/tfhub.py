"""Handles on the web: tfhub.dev, Kaggle Models, any server that speaks as they do, and gs:// folders, through `tensorflow_hub.resolve`.

tensorflow_hub asks the URL with `?tf-hub-format=compressed` for a .tar.gz and unpacks it into TFHUB_CACHE_DIR; TFHUB_MODEL_LOAD_FORMAT and
TFHUB_DOWNLOAD_PROGRESS are its own too. Where TFHUB_CACHE_DIR is not set, tfxfer's cache is used rather than the temporary folder, which
systems sweep. tensorflow_hub takes any folder there that is not empty for a whole model (tensorflow/hub #646, #850, #896): each one is
looked at here, and one that is not whole is removed and fetched again, once.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import tarfile
import urllib.error
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfxfer.cache import default_folder
from tfxfer.errors import HandleError
from tfxfer.handles.folder import check, first_line, problem, publish, set_aside, unique_beside

with warnings.catch_warnings():
    # It imports pkg_resources, which warns that it is going away; the user can do nothing about it.
    warnings.simplefilter("ignore")
    import tensorflow_hub

SILENCE = (
    60.0  # seconds without a byte until a server counts as gone; tensorflow_hub would wait for ever
)
BROKEN = (
    EOFError,
    zlib.error,
    tarfile.TarError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)


def is_url(text: str) -> bool:
    """Whether `tensorflow_hub.resolve` is to find it."""
    return text.startswith(("https://", "http://", "gs://"))


def fetch(url: str) -> Path:
    """The local SavedModel folder of a URL, downloaded where it is not in the cache or not whole there.

    Raises:
        HandleError: no network, an answer such as 404, something other than an archive of a SavedModel, or a download that broke off twice.
    """
    found = ""
    with environment() as folder:
        forget_dead_download(folder / hashlib.sha1(url.encode()).hexdigest())
        for _ in range(2):
            try:
                path = tensorflow_hub.resolve(url)
            except (*BROKEN, OSError, ValueError, tf.errors.OpError) as error:
                if not broke_off(error):
                    raise HandleError(f"{url} can't be fetched: {reason(error)}") from error
                found = f"the connection broke off ({first_line(error.__context__ or error)})"
                continue
            if "://" in path:
                return copy(path)
            found = problem(Path(path))
            if not found:
                return check(Path(path))
            set_aside(Path(path), found)
    raise HandleError(
        f"{url} was fetched twice and did not arrive whole: {found}. Try again later, or fetch the archive by hand and use its path."
    )


def broke_off(error: Exception) -> bool:
    """Whether a download ended early. tensorflow_hub calls a short archive "not a valid module", as it does a web page."""
    return isinstance(error, BROKEN) or (
        isinstance(error.__context__, tarfile.ReadError)
        and "unexpected end of data" in str(error.__context__)
    )


def reason(error: Exception) -> str:
    """What an error of tensorflow_hub means, and what to try."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"the server answers {error.code} ({error.reason}). {hint(error.code)}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection to the server ({error.reason}). Is there a network? `efficientnet-lite0` needs none."
    if "does not appear to be a valid module" in str(error):
        return "the server sent something other than an archive of a SavedModel, perhaps a web page. Is the URL that of a TensorFlow 2 model?"
    return f"{first_line(error)}."


def hint(code: int) -> str:
    if code in (404, 410):
        return "Check the name and the version at its end; `tfxfer backbones` lists handles."
    if code in (401, 403):
        return "The model may need an account or a consent: fetch the archive by hand and use its path."
    return "Try again later."


@contextlib.contextmanager
def environment() -> Iterator[Path]:
    """tensorflow_hub's cache folder, ours where the user chose none, and an end to waiting, for as long as the block runs."""
    chosen = tensorflow_hub.resolver.tfhub_cache_dir()
    folder = Path(chosen or default_folder() / "tfhub")
    timeout = socket.getdefaulttimeout()
    try:
        if "://" not in (chosen or ""):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HandleError(
            f"{folder} can't be written ({error.strerror}). Choose another folder with TFHUB_CACHE_DIR."
        ) from error
    try:
        if not chosen:
            os.environ["TFHUB_CACHE_DIR"] = str(folder)
        if timeout is None:
            socket.setdefaulttimeout(SILENCE)
        yield folder
    finally:
        socket.setdefaulttimeout(timeout)
        if not chosen:
            os.environ.pop("TFHUB_CACHE_DIR", None)


def forget_dead_download(folder: Path) -> None:
    """Remove the lock of a download whose process on this machine is dead; tensorflow_hub would wait ten minutes for it."""
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        host, pid, uid = lock.read_text().rsplit(".", 2)
        if os.name != "posix" or host != socket.gethostname():
            return
        os.kill(int(pid), 0)
    except ProcessLookupError:
        lock.unlink(missing_ok=True)
        shutil.rmtree(folder.with_name(f"{folder.name}.{uid}.tmp"), ignore_errors=True)
    except (OSError, ValueError):
        return


def copy(path: str) -> Path:
    """A local copy of a folder on a file system of TensorFlow's, such as gs://, under a key of its names, sizes and times."""
    top = path.rstrip("/")
    try:
        tf.io.gfile.listdir(top)  # raises what `walk` would swallow
        names = sorted(
            f"{place}/{name}" for place, _, files in tf.io.gfile.walk(top) for name in files
        )
        if not names:
            raise HandleError(f"{path} is empty; expected a SavedModel folder.")
        stats = [
            (name, stat.length, stat.mtime_nsec)
            for name in names
            for stat in [tf.io.gfile.stat(name)]
        ]
        folder = default_folder() / "copies" / hashlib.sha256(repr(stats).encode()).hexdigest()[:32]
        if folder.exists() and (found := problem(folder)):
            set_aside(folder, found)
        if not folder.exists():
            aside = unique_beside(folder)
            aside.mkdir()
            for name in names:
                to = aside / name[len(top) + 1 :]
                to.parent.mkdir(parents=True, exist_ok=True)
                tf.io.gfile.copy(name, str(to))
            publish(aside, folder)
        return check(folder)
    except (OSError, tf.errors.OpError) as error:
        raise HandleError(f"{path} can't be copied into the cache: {first_line(error)}.") from error
