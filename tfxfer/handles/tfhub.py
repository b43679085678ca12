"""Fetch models from tfhub.dev, Kaggle Models, servers of the same kind, and gs:// folders.

Like tensorflow_hub, this module requests the URL with `?tf-hub-format=compressed` to get a .tar.gz,
and keeps its content in TFHUB_CACHE_DIR under the SHA-1 of the URL. It also obeys
TFHUB_MODEL_LOAD_FORMAT and TFHUB_DOWNLOAD_PROGRESS, and understands the locks of tensorflow_hub, so
that both can share a cache. These things differ:

- The sizes of the download and of its unpacked content are limited, and the SHA-256 of the download
  is noted in the descriptor beside the model.
- If TFHUB_CACHE_DIR is not set, the cache of tfxfer is used, and not the temporary folder, which
  operating systems empty.
- tensorflow_hub takes any folder in the cache that is not empty for a complete model
  (tensorflow/hub #646, #850, #896). Here each folder is checked. One that is not complete is
  removed and fetched again, once.
"""

import contextlib
import datetime
import hashlib
import http.client
import importlib
import ipaddress
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.parse
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import BinaryIO

import tensorflow as tf

from tfxfer.cache import default_folder
from tfxfer.distribute.loopback import is_private
from tfxfer.errors import ArchiveError, HandleError
from tfxfer.files import appear
from tfxfer.handles import archive, checksum, tar
from tfxfer.handles.aside import MOST_SAID, beside, first_line, publish, unwritable
from tfxfer.handles.download import PACE, BrokenOffError, Pace, answer_of_303, download
from tfxfer.handles.folder import check, discard, problem, set_aside
from tfxfer.limits import MOST_MEMBERS, MOST_UNPACKED
from tfxfer.safety.names import one_line

PIECE = 1024**2
LOOK = 0.5  # seconds between two checks of the lock of another process
NOTED = "SHA-256: "  # the beginning of a line of the descriptor
# In China these hosts can be reached, and tfhub.dev can't. The second one holds the archives of the
# first; tensorflow_hub uses the same pair.
CHINA = "https://hub.tensorflow.google.cn/"
CHINAS_ARCHIVES = "https://gcs.tensorflow.google.cn/tfhub-modules/"
BROKEN = (BrokenOffError, http.client.HTTPException, ConnectionError, TimeoutError)


def is_url(text: str) -> bool:
    """Return whether a handle is a URL that `fetch` can fetch."""
    return text.startswith(("https://", "http://", "gs://"))


def fetch(url: str, wanted: str = "", pace: Pace = PACE) -> tuple[Path, str | None]:
    """Return the local SavedModel folder of a URL.

    It is downloaded if the cache does not hold it, or holds an incomplete one.

    Args:
        wanted: the SHA-256 that the archive must have, or the copy of a gs:// folder; "" for any.
        pace: how slow and how large a download may be.

    Returns:
        The folder, and its SHA-256, or None for a folder that tensorflow_hub put into the cache.

    Raises:
        HandleError: there is no internet connection; the server answers with an error such as 404,
            or with something other than an archive of a SavedModel; the download broke off twice,
            is too slow or too large; or the SHA-256 is not `wanted`, or not the one of the last
            time.
    """
    try:
        if url.startswith("gs://") and not archive.is_archive(Path(url)):
            return copy(url, wanted, pace)
        if not url.startswith("gs://") and resolver().model_load_format() == "UNCOMPRESSED":
            warn_of_http(url, wanted)
            place = answer_of_303(with_query(url, "uncompressed"), pace).strip()
            if not place.startswith("gs://"):
                raise HandleError(f"{url} answers {place[:100]!r}; expected a gs:// folder.")
            return copy(place, wanted, pace)
        return fetch_once(url, wanted, pace)
    except (*BROKEN, OSError, ValueError, tf.errors.OpError) as error:
        raise HandleError(f"{url} can't be fetched: {reason(error)}") from error


def fetch_once(url: str, wanted: str, pace: Pace) -> tuple[Path, str | None]:
    """Fetch an archive and return the folder with its content; see `fetch`."""
    folder = hub_folder() / hashlib.sha1(url.encode()).hexdigest()
    failure = ""
    for _ in range(2):
        if folder.exists() and (fault := problem(folder)):
            set_aside(folder, fault)
        if held(folder, wanted):
            return check(folder), noted(folder)
        with locked(url, folder, wanted, pace=pace) as number:
            if held(folder, wanted):
                continue  # another process was faster
            try:
                digest = bring(url, folder, number, wanted=wanted, pace=pace)
            except http.client.InvalidURL:
                raise
            except BROKEN as error:
                failure = f"the connection broke off ({first_line(error)})"
            except ArchiveError as error:
                if not isinstance(error.__cause__, tar.DAMAGES):
                    raise
                failure = first_line(error)
            except IncompleteError as error:
                failure = first_line(error)
            else:
                return check(folder), digest
    if held(folder, wanted):
        return check(folder), noted(folder)
    raise HandleError(
        f"{url} was fetched twice and did not arrive whole: {failure}. Try again later, or fetch "
        "the archive by hand and use its path."
    )


class IncompleteError(Exception):
    """Something is missing in an archive of a SavedModel."""


def held(folder: Path, wanted: str) -> bool:
    """Return whether the cache holds the folder, with the SHA-256 `wanted` unless that is ""."""
    return folder.is_dir() and any(folder.iterdir()) and wanted in ("", noted(folder))


def bring(url: str, folder: Path, number: str, wanted: str, pace: Pace) -> str:
    """Download and unpack an archive, and put its SavedModel into the cache as `folder`.

    Args:
        number: the number of the download, for the name of the temporary folder; see `locked`.

    Returns:
        The SHA-256 of the archive.

    Raises:
        HandleError: it is not an archive, is too large, or has another SHA-256 than it should.
        IncompleteError: something is missing in it.
        OSError and others: see `download`.
    """
    warn_of_http(url, wanted)
    with beside(folder, number) as aside:
        packed = aside.with_name("archive")
        with open(packed, "xb+") as file, progress(url) as more:
            digest = pull(url, file, pace, more=more)
            checksum.check(url, digest, wanted)
            check_unchanged(url, digest, wanted, before=noted(folder), folder=folder)
            if not tar.looks_like_one(file):
                raise HandleError(
                    f"{url} can't be fetched: the server sent something other than an archive of a "
                    "SavedModel, perhaps a web page. Is the URL that of a TensorFlow 2 model?"
                )
            tar.extract(file, aside, url)
        packed.unlink()
        if fault := archive.fault(aside):
            raise IncompleteError(fault)
        if folder.exists():
            discard(folder, "another one was asked for by its SHA-256")
        note(url, folder, digest)
        publish(archive.inside(aside)[0], folder)
    return digest


def pull(url: str, file: BinaryIO, pace: Pace, more: Callable[[int], None]) -> str:
    """Download the archive at a URL into a file, and return its SHA-256."""
    if url.startswith("gs://"):
        return pull_remote(url, file, pace, more=more)
    if url.startswith(CHINA):
        return download(
            f"{CHINAS_ARCHIVES}{url.removeprefix(CHINA)}.tar.gz", file, pace, progress=more
        )
    return download(with_query(url, "compressed"), file, pace, progress=more)


def pull_remote(url: str, file: BinaryIO, pace: Pace, more: Callable[[int], None]) -> str:
    """Copy a file from a file system that TensorFlow reads, such as gs://; return its SHA-256."""
    digest = hashlib.sha256()
    until, count = time.monotonic() + pace.whole, 0
    with tf.io.gfile.GFile(url, "rb") as source:
        while piece := source.read(PIECE):
            count += len(piece)
            if count > pace.size:
                raise HandleError(f"{url} has more than {pace.size:,} bytes; it was not fetched.")
            if time.monotonic() > until:
                raise HandleError(f"{url} did not come within {pace.whole:,.0f} seconds.")
            digest.update(piece)
            file.write(piece)
            more(len(piece))
    return digest.hexdigest()


def with_query(url: str, form: str) -> str:
    """Return the URL with the query that asks a TF Hub server for a format.

    Args:
        form: "compressed" or "uncompressed".
    """
    parts = urllib.parse.urlsplit(url)
    query = [*urllib.parse.parse_qsl(parts.query), ("tf-hub-format", form)]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


@contextlib.contextmanager
def progress(url: str) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes of each piece.

    It prints how much has arrived if TFHUB_DOWNLOAD_PROGRESS is set.
    """
    shown = bool(os.environ.get("TFHUB_DOWNLOAD_PROGRESS"))
    count = 0

    def more(size: int) -> None:
        nonlocal count
        count += size
        if shown:
            print(f"\rDownloading {url}: {count / 1e6:,.1f} MB", end="", flush=True)

    yield more
    if shown:
        print(f"\rDownloaded {url}, Total size: {count / 1e6:,.1f} MB", flush=True)


# --- what can be trusted --------------------------------------------------------------------------


def warn_of_http(url: str, wanted: str) -> None:
    """Warn if a model is fetched over http without a SHA-256, so that anybody could change it."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and not wanted and not is_loopback(parts.hostname or ""):
        logging.getLogger(__name__).warning(
            "warning: %s is fetched without encryption, so that anybody on the way can change it. "
            "Use https://, or add #sha256= and the hash that its publisher gives.",
            url,
        )


def is_loopback(host: str) -> bool:
    """Return whether the name or address of a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def descriptor(folder: Path) -> Path:
    """Return the file beside a model in the cache that says where the model came from.

    tensorflow_hub writes such a file too.
    """
    return folder.with_name(f"{folder.name}.descriptor.txt")


def noted(folder: Path) -> str | None:
    """Return the SHA-256 in the descriptor of a folder, or None if there is none."""
    try:
        with open(descriptor(folder), errors="replace") as file:
            lines = file.read(PIECE).splitlines()
    except OSError:
        return None
    hashes = [line.removeprefix(NOTED) for line in lines if line.startswith(NOTED)]
    return hashes[0] if hashes and re.fullmatch("[0-9a-f]{64}", hashes[0]) else None


def note(url: str, folder: Path, digest: str) -> None:
    """Write the descriptor: the lines that tensorflow_hub writes, and one with the SHA-256."""
    text = (
        f"Module: {url}\nDownload Time: {datetime.datetime.today()}\n"
        f"Downloader Hostname: {socket.gethostname()} (PID:{os.getpid()})\n{NOTED}{digest}\n"
    )
    path = descriptor(folder)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    appear(path, aside, lambda name: Path(name).write_text(text, errors="backslashreplace"))


def check_unchanged(url: str, digest: str, wanted: str, before: str | None, folder: Path) -> None:
    """Check that a URL still has the content that it had when it was fetched before.

    Args:
        digest: the SHA-256 of the content now.
        wanted: the SHA-256 that was asked for. Unless it is "", changed content is accepted.
        before: the SHA-256 of the content before, or None if it is not known.

    Raises:
        HandleError: the content has changed.
    """
    if before and digest != before and not wanted:
        raise HandleError(
            f"{url} leads to another content than when it was fetched before: the SHA-256 was "
            f"{before} and is {digest} now. It was not used. To accept it, add #sha256={digest} to "
            f"the handle; what is known of it stands in {descriptor(folder)}."
        )


# --- one process at a time ------------------------------------------------------------------------


@contextlib.contextmanager
def locked(url: str, folder: Path, wanted: str, pace: Pace) -> Iterator[str]:
    """Hold the lock of a model in the cache.

    The function waits while another process holds the lock, but not for a process that is dead,
    makes no progress, or has already fetched what is wanted.

    Yields:
        The number of the download, a part of the name of its temporary folder.

    Raises:
        HandleError: the wait took too long.
    """
    number = uuid.uuid4().hex
    lock = folder.with_name(f"{folder.name}.lock")
    mine = f"{socket.gethostname()}.{os.getpid()}.{number}"
    until = time.monotonic() + pace.whole
    seen, since = None, time.monotonic()
    while not take(lock, mine):
        forget_dead_download(folder)
        now = growth(folder, lock)
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > pace.standstill:
            lock.unlink(missing_ok=True)
        if held(folder, wanted):
            break
        if time.monotonic() > until:
            raise HandleError(
                f"another process has been fetching {url} for more than {pace.whole:,.0f} seconds "
                f"({lock} says which). End it, or remove that file."
            )
        if lock.exists():
            time.sleep(min(LOOK, pace.standstill / 4))
    try:
        yield number
    finally:
        with contextlib.suppress(OSError):
            if lock.read_text() == mine:
                lock.unlink()


def take(lock: Path, mine: str) -> bool:
    """Try to take the lock, and return whether it was free."""
    try:
        with open(lock, "x") as file:
            file.write(mine)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    return True


def owner(lock: Path) -> tuple[str, int, str] | None:
    """Read a lock.

    Returns:
        The name of the machine, the id of the process and the number of its download, or None if
        the file can't be read or is not a lock.
    """
    try:
        host, process, number = lock.read_text().rsplit(".", 2)
        return (host, int(process), number) if re.fullmatch("[0-9a-f]{32}", number) else None
    except (OSError, ValueError):
        return None


def growth(folder: Path, lock: Path) -> tuple[object, int]:
    """Return the owner of a lock and the bytes that it has downloaded.

    As long as this value changes, the owner makes progress.
    """
    holder = owner(lock)
    if holder is None:
        return holder, 0
    size = 0
    with contextlib.suppress(OSError):
        for path in folder.with_name(f"{folder.name}.{holder[2]}.tmp").rglob("*"):
            size += path.stat().st_size
    return holder, size


def forget_dead_download(folder: Path) -> None:
    """Remove the lock and the files of a download whose process, on this machine, is dead."""
    lock = folder.with_name(f"{folder.name}.lock")
    holder = owner(lock)
    if holder is None or os.name != "posix" or holder[0] != socket.gethostname():
        return
    try:
        os.kill(holder[1], 0)
    except ProcessLookupError:
        if owner(lock) == holder:
            lock.unlink(missing_ok=True)
            shutil.rmtree(folder.with_name(f"{folder.name}.{holder[2]}.tmp"), ignore_errors=True)
    except (OSError, OverflowError):
        return


# --- folders on remote file systems ---------------------------------------------------------------


def copy(path: str, wanted: str = "", pace: Pace = PACE) -> tuple[Path, str]:
    """Copy a folder from a file system that TensorFlow reads, such as gs://, into the cache.

    The copy is kept under a hash of the names, sizes and times of the files.

    Returns:
        The folder of the copy, and its SHA-256.

    Raises:
        HandleError: the folder can't be copied, is not a complete SavedModel, or its SHA-256 is not
            `wanted`, or not the one of the last time.
    """
    top = path.rstrip("/")
    try:
        files = remote_files(top)
        key = hashlib.sha256(repr(files).encode()).hexdigest()[:32]
        folder = default_folder() / "copies" / key
        if folder.exists() and (fault := problem(folder)):
            set_aside(folder, fault)
        if not folder.exists():
            with beside(folder) as aside:
                copy_files(top, [name for name, *_ in files], aside, pace=pace)
                publish(aside, folder)
        digest = checksum.of_folder(check(folder))
    except (OSError, tf.errors.OpError) as error:
        raise HandleError(f"{path} can't be copied into the cache: {first_line(error)}.") from error
    checksum.check(path, digest, wanted)
    record = default_folder() / "copies" / hashlib.sha1(top.encode()).hexdigest()
    check_unchanged(path, digest, wanted, before=noted(record), folder=record)
    if noted(record) != digest:
        note(path, record, digest)
    return folder, digest


def remote_files(top: str) -> list[tuple[str, int, int]]:
    """List the files below `top`, sorted.

    Returns:
        For each file its name below `top`, its size in bytes, and the time of its last change in
        nanoseconds.

    Raises:
        HandleError: there is no file, there are too many, they are too large, or one would be
            written outside the folder.
    """
    tf.io.gfile.listdir(top)  # raises errors that `walk` would hide
    files, size = [], 0
    for place, _, names in tf.io.gfile.walk(top):
        for name in names:
            whole = f"{place.rstrip('/')}/{name}"
            stat = tf.io.gfile.stat(whole)
            below = PurePosixPath(whole.removeprefix(f"{top}/"))
            if below.is_absolute() or ".." in below.parts or "\\" in name:
                raise HandleError(f"{top} holds {whole!r}, which would leave the folder.")
            files.append((str(below), stat.length, stat.mtime_nsec))
            size += stat.length
            if len(files) > MOST_MEMBERS or size > MOST_UNPACKED:
                raise HandleError(
                    f"{top} holds more than {MOST_MEMBERS:,} files or {MOST_UNPACKED:,} bytes, "
                    "which no SavedModel does; it was not copied."
                )
    if not files:
        raise HandleError(f"{top} is empty; expected a SavedModel folder.")
    return sorted(files)


def copy_files(top: str, names: list[str], to: Path, pace: Pace) -> None:
    """Copy the files `names` below `top` into the new folder `to`."""
    until, room = time.monotonic() + pace.whole, MOST_UNPACKED
    for name in names:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file, tf.io.gfile.GFile(f"{top}/{name}", "rb") as source:
            while piece := source.read(PIECE):
                room -= len(piece)
                if room < 0 or time.monotonic() > until:
                    raise HandleError(
                        f"{top} sends more than {MOST_UNPACKED:,} bytes, or for longer than "
                        f"{pace.whole:,.0f} seconds; it was not copied."
                    )
                file.write(piece)


# --- the cache and errors -------------------------------------------------------------------------


def hub_folder() -> Path:
    """Return the cache folder of tensorflow_hub, or one in tfxfer's cache if none was chosen."""
    chosen = resolver().tfhub_cache_dir()
    if "://" in (chosen or ""):
        raise HandleError(
            f"TFHUB_CACHE_DIR is {chosen}; expected a folder of this machine. Set another one."
        )
    folder = Path(chosen or default_folder() / "tfhub")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HandleError(
            f"{folder} can't be written ({error.strerror}). Choose another folder with "
            "TFHUB_CACHE_DIR."
        ) from error
    return folder


def reason(error: Exception) -> str:
    """Return what an error during a download means, and what to try."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # the error holds the connection open
        why = one_line(str(error.reason)[:MOST_SAID])
        return f"the server answers {error.code} ({why}). {hint(error.code)}"
    if isinstance(error, urllib.error.URLError):
        advice = "Is this computer online? `efficientnet-lite0` needs no connection."
        if is_private():
            advice += (
                " The workers of tfxfer launch can reach only each other: fetch it first with "
                "tfxfer inspect, or add --open-ports to launch."
            )
        return f"no connection to the server ({error.reason}). {advice}"
    return f"{first_line(error)}."


def hint(code: int) -> str:
    if code in (404, 410):
        return "Check the name and the version at its end; `tfxfer backbones` lists handles."
    if code in (401, 403):
        return (
            "The model may need an account or a consent: fetch the archive by hand and use its "
            "path."
        )
    return "Try again later."


def resolver() -> ModuleType:
    """Return tensorflow_hub's module for its settings; to import it takes a second."""
    with warnings.catch_warnings():
        # tensorflow_hub imports pkg_resources, which warns that it is deprecated. The user can do
        # nothing about that.
        warnings.simplefilter("ignore")
        return importlib.import_module("tensorflow_hub.resolver")
