"""Handles on the web: tfhub.dev, Kaggle Models, any server that speaks as they do, and gs:// folders.

As tensorflow_hub does, the URL is asked with `?tf-hub-format=compressed` for a .tar.gz, whose content is kept in TFHUB_CACHE_DIR under
the SHA-1 of the URL; TFHUB_MODEL_LOAD_FORMAT and TFHUB_DOWNLOAD_PROGRESS hold too. Its locks are understood, so that both can share a
cache. What differs: the download and what it unpacks to are bounded, and its SHA-256 is noted in the descriptor beside it. Where
TFHUB_CACHE_DIR is not set, tfxfer's cache is used rather than the temporary folder, which systems sweep. tensorflow_hub takes any folder
there that is not empty for a whole model (tensorflow/hub #646, #850, #896): each one is looked at here, and one that is not whole is
removed and fetched again, once.
"""

import contextlib
import datetime
import hashlib
import http.client
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
from typing import BinaryIO

import tensorflow as tf

from tfxfer.cache import default_folder
from tfxfer.errors import ArchiveError, HandleError
from tfxfer.files import appear
from tfxfer.handles import archive, checksum, tar
from tfxfer.handles.aside import MOST_SAID, beside, first_line, publish, unwritable
from tfxfer.handles.download import PACE, BrokenOffError, Pace, answer_of_303, download
from tfxfer.handles.folder import check, discard, problem, set_aside
from tfxfer.limits import MOST_MEMBERS, MOST_UNPACKED
from tfxfer.loopback import is_private
from tfxfer.names import one_line

with warnings.catch_warnings():
    # It imports pkg_resources, which warns that it is going away; the user can do nothing about it.
    warnings.simplefilter("ignore")
    from tensorflow_hub import resolver

PIECE = 1024**2
LOOK = 0.5  # seconds between two looks at another process's lock
NOTED = "SHA-256: "  # begins a line of the descriptor
# In China these names answer where tfhub.dev doesn't; tensorflow_hub knows where their archives lie.
CHINA = "https://hub.tensorflow.google.cn/"
CHINAS_ARCHIVES = "https://gcs.tensorflow.google.cn/tfhub-modules/"
BROKEN = (BrokenOffError, http.client.HTTPException, ConnectionError, TimeoutError)


def is_url(text: str) -> bool:
    """Whether `fetch` is to find it."""
    return text.startswith(("https://", "http://", "gs://"))


def fetch(url: str, wanted: str = "", pace: Pace = PACE) -> tuple[Path, str | None]:
    """The local SavedModel folder of a URL, downloaded where it is not in the cache or not whole there.

    Args:
        wanted: SHA-256 that the archive must have (of a gs:// folder: that its copy must have).
        pace: how slow and how large a download may be.

    Returns:
        the folder, and its SHA-256; None of a folder that tensorflow_hub put into the cache.

    Raises:
        HandleError: no network, an answer such as 404, something other than an archive of a SavedModel, a download that broke off
            twice, is too slow or too large; or it has another hash than `wanted`, or than it had when it was fetched before.
    """
    try:
        if url.startswith("gs://") and not archive.is_archive(Path(url)):
            return copy(url, wanted, pace)
        if not url.startswith("gs://") and resolver.model_load_format() == "UNCOMPRESSED":
            warn_of_http(url, wanted)
            place = answer_of_303(with_query(url, "uncompressed"), pace).strip()
            if not place.startswith("gs://"):
                raise HandleError(f"{url} answers {place[:100]!r}; expected a gs:// folder.")
            return copy(place, wanted, pace)
        return fetched(url, wanted, pace)
    except (*BROKEN, OSError, ValueError, tf.errors.OpError) as error:
        raise HandleError(f"{url} can't be fetched: {reason(error)}") from error


def fetched(url: str, wanted: str, pace: Pace) -> tuple[Path, str | None]:
    """See `fetch`; of an archive."""
    folder = hub_folder() / hashlib.sha1(url.encode()).hexdigest()
    found = ""
    for _ in range(2):
        if folder.exists() and (fault := problem(folder)):
            set_aside(folder, fault)
        if held(folder, wanted):
            return check(folder), noted(folder)
        with locked(url, folder, wanted, pace) as number:
            if held(folder, wanted):
                continue  # another process was faster
            try:
                digest = bring(url, folder, number, wanted, pace)
            except http.client.InvalidURL:
                raise
            except BROKEN as error:
                found = f"the connection broke off ({first_line(error)})"
            except ArchiveError as error:
                if not isinstance(error.__cause__, tar.DAMAGES):
                    raise
                found = first_line(error)
            except IncompleteError as error:
                found = first_line(error)
            else:
                return check(folder), digest
    if held(folder, wanted):
        return check(folder), noted(folder)
    raise HandleError(
        f"{url} was fetched twice and did not arrive whole: {found}. Try again later, or fetch the archive by hand and use its path."
    )


class IncompleteError(Exception):
    """An archive of a SavedModel that lacks something."""


def held(folder: Path, wanted: str) -> bool:
    """Whether the cache has it, and with that hash if one is asked for."""
    return folder.is_dir() and any(folder.iterdir()) and wanted in ("", noted(folder))


def bring(url: str, folder: Path, number: str, wanted: str, pace: Pace) -> str:
    """Download, look at and unpack an archive, and put its SavedModel in its place; returns its SHA-256.

    Raises:
        HandleError: it is none, too large, or has another hash than it should.
        IncompleteError: something is missing in it.
        OSError and so on: see `download`.
    """
    warn_of_http(url, wanted)
    with beside(folder, number) as aside:
        packed = aside.with_name("archive")
        with open(packed, "xb+") as file, progress(url) as more:
            digest = pull(url, file, pace, more)
            checksum.check(url, digest, wanted)
            check_unchanged(url, digest, wanted, noted(folder), folder)
            if not tar.looks_like_one(file):
                raise HandleError(
                    f"{url} can't be fetched: the server sent something other than an archive of a "
                    "SavedModel, perhaps a web page. Is the URL that of a TensorFlow 2 model?"
                )
            tar.extract(file, aside, url)
        packed.unlink()
        if found := archive.fault(aside):
            raise IncompleteError(found)
        if folder.exists():
            discard(folder, "another one was asked for by its SHA-256")
        note(url, folder, digest)
        publish(archive.inside(aside)[0], folder)
    return digest


def pull(url: str, file: BinaryIO, pace: Pace, more: Callable[[int], None]) -> str:
    """Write the archive at a URL into a file; returns its SHA-256."""
    if url.startswith("gs://"):
        return pull_remote(url, file, pace, more)
    if url.startswith(CHINA):
        return download(f"{CHINAS_ARCHIVES}{url.removeprefix(CHINA)}.tar.gz", file, pace, more)
    return download(with_query(url, "compressed"), file, pace, more)


def pull_remote(url: str, file: BinaryIO, pace: Pace, more: Callable[[int], None]) -> str:
    """Write a file of one of TensorFlow's file systems into a file; returns its SHA-256."""
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
    """The URL with the question that TF Hub's servers know."""
    parts = urllib.parse.urlsplit(url)
    query = [*urllib.parse.parse_qsl(parts.query), ("tf-hub-format", form)]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


@contextlib.contextmanager
def progress(url: str) -> Iterator[Callable[[int], None]]:
    """Told of each piece, prints how much has come where TFHUB_DOWNLOAD_PROGRESS is set."""
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


# --- whom to believe --------------------------------------------------------------------------------------------------------------------------


def warn_of_http(url: str, wanted: str) -> None:
    """Say it where anybody on the way could change what is sent."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and not wanted and not is_loopback(parts.hostname or ""):
        logging.getLogger(__name__).warning(
            "warning: %s is fetched without encryption, so that anybody on the way can change it. "
            "Use https://, or add #sha256= and the hash that its publisher gives.",
            url,
        )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def descriptor(folder: Path) -> Path:
    """The file beside a model in the cache that says where it is from; tensorflow_hub writes the like."""
    return folder.with_name(f"{folder.name}.descriptor.txt")


def noted(folder: Path) -> str | None:
    """The SHA-256 of what was fetched last under this name, None where nobody noted it."""
    try:
        with open(descriptor(folder), errors="replace") as file:
            lines = file.read(PIECE).splitlines()
    except OSError:
        return None
    hashes = [line.removeprefix(NOTED) for line in lines if line.startswith(NOTED)]
    return hashes[0] if hashes and re.fullmatch("[0-9a-f]{64}", hashes[0]) else None


def note(url: str, folder: Path, digest: str) -> None:
    """Write the descriptor, in tensorflow_hub's words and one more line."""
    text = (
        f"Module: {url}\nDownload Time: {datetime.datetime.today()}\n"
        f"Downloader Hostname: {socket.gethostname()} (PID:{os.getpid()})\n{NOTED}{digest}\n"
    )
    path = descriptor(folder)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    appear(path, aside, lambda name: Path(name).write_text(text, errors="backslashreplace"))


def check_unchanged(url: str, digest: str, wanted: str, before: str | None, folder: Path) -> None:
    """Refuse what is another content than was fetched from there before, unless it was asked for by its hash."""
    if before and digest != before and not wanted:
        raise HandleError(
            f"{url} leads to another content than when it was fetched before: the SHA-256 was "
            f"{before} and is {digest} now. It was not used. To accept it, add #sha256={digest} to "
            f"the handle; what is known of it stands in {descriptor(folder)}."
        )


# --- one process at a time --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(url: str, folder: Path, wanted: str, pace: Pace) -> Iterator[str]:
    """Hold the lock of a model in the cache; yields the number in the name of the folder for the download.

    Waits while another process holds it, but not for one that is dead, stands still, or has brought what is wanted.

    Raises:
        HandleError: it took too long.
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
    """Whether the lock was free, and is ours now."""
    try:
        with open(lock, "x") as file:
            file.write(mine)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    return True


def owner(lock: Path) -> tuple[str, int, str] | None:
    """(machine, process, number of the download) in a lock; None where it can't be read, or isn't one."""
    try:
        host, process, number = lock.read_text().rsplit(".", 2)
        return (host, int(process), number) if re.fullmatch("[0-9a-f]{32}", number) else None
    except (OSError, ValueError):
        return None


def growth(folder: Path, lock: Path) -> tuple[object, int]:
    """What changes while the owner of a lock works: who it is, and the bytes that it has brought."""
    found = owner(lock)
    if found is None:
        return found, 0
    size = 0
    with contextlib.suppress(OSError):
        for path in folder.with_name(f"{folder.name}.{found[2]}.tmp").rglob("*"):
            size += path.stat().st_size
    return found, size


def forget_dead_download(folder: Path) -> None:
    """Remove the lock of a download whose process on this machine is dead, and what it had brought."""
    lock = folder.with_name(f"{folder.name}.lock")
    found = owner(lock)
    if found is None or os.name != "posix" or found[0] != socket.gethostname():
        return
    try:
        os.kill(found[1], 0)
    except ProcessLookupError:
        if owner(lock) == found:
            lock.unlink(missing_ok=True)
            shutil.rmtree(folder.with_name(f"{folder.name}.{found[2]}.tmp"), ignore_errors=True)
    except (OSError, OverflowError):
        return


# --- folders that are elsewhere ---------------------------------------------------------------------------------------------------------------


def copy(path: str, wanted: str = "", pace: Pace = PACE) -> tuple[Path, str]:
    """A local copy of a folder on a file system of TensorFlow's, such as gs://, under a key of its names, sizes and times.

    Returns:
        the folder, and its SHA-256.
    """
    top = path.rstrip("/")
    try:
        files = remote_files(top)
        key = hashlib.sha256(repr(files).encode()).hexdigest()[:32]
        folder = default_folder() / "copies" / key
        if folder.exists() and (found := problem(folder)):
            set_aside(folder, found)
        if not folder.exists():
            with beside(folder) as aside:
                copy_files(top, [name for name, *_ in files], aside, pace)
                publish(aside, folder)
        digest = checksum.of_folder(check(folder))
    except (OSError, tf.errors.OpError) as error:
        raise HandleError(f"{path} can't be copied into the cache: {first_line(error)}.") from error
    checksum.check(path, digest, wanted)
    record = default_folder() / "copies" / hashlib.sha1(top.encode()).hexdigest()
    check_unchanged(path, digest, wanted, noted(record), record)
    if noted(record) != digest:
        note(path, record, digest)
    return folder, digest


def remote_files(top: str) -> list[tuple[str, int, int]]:
    """(name below `top`, bytes, time of change) of each file.

    Raises:
        HandleError: there is none, there are too many, they are too large, or one would leave the folder.
    """
    tf.io.gfile.listdir(top)  # raises what `walk` would swallow
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
    """Copy files into a new folder."""
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


# --- the cache, and what went wrong -----------------------------------------------------------------------------------------------------------


def hub_folder() -> Path:
    """tensorflow_hub's cache folder, ours where the user chose none."""
    chosen = resolver.tfhub_cache_dir()
    if "://" in (chosen or ""):
        raise HandleError(
            f"TFHUB_CACHE_DIR is {chosen}; expected a folder of this machine. Set another one."
        )
    folder = Path(chosen or default_folder() / "tfhub")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HandleError(
            f"{folder} can't be written ({error.strerror}). Choose another folder with TFHUB_CACHE_DIR."
        ) from error
    return folder


def reason(error: Exception) -> str:
    """What an error on the way means, and what to try."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        why = one_line(str(error.reason)[:MOST_SAID])
        return f"the server answers {error.code} ({why}). {hint(error.code)}"
    if isinstance(error, urllib.error.URLError):
        advice = "Is there a network? `efficientnet-lite0` needs none."
        if is_private():
            advice += (
                " The workers of tfxfer launch have none but their own: fetch it first with tfxfer "
                "inspect, or add --open-ports to launch."
            )
        return f"no connection to the server ({error.reason}). {advice}"
    return f"{first_line(error)}."


def hint(code: int) -> str:
    if code in (404, 410):
        return "Check the name and the version at its end; `tfxfer backbones` lists handles."
    if code in (401, 403):
        return "The model may need an account or a consent: fetch the archive by hand and use its path."
    return "Try again later."
