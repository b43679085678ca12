"""Download over HTTP, with limits on bytes, redirects, the whole time and the time without data."""

import contextlib
import hashlib
import http.client
import logging
import os
import socket
import ssl
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from tfxfer import limits
from tfxfer.errors import HandleError

REDIRECTS = (301, 302, 303, 307, 308)
PIECE = 1024**2
UNSAFE = "TFHUB_DISABLE_CERT_VALIDATION"  # an environment variable of tensorflow_hub


@dataclass(frozen=True)
class Pace:
    """How slow and how large a download may be.

    Args:
        silence: seconds without a byte after which the server counts as gone.
        rate: the least bytes per second, on average over each window.
        window: the length of a window in seconds.
        whole: seconds for everything, including the wait for another process that downloads.
        standstill: seconds in which the download of another process must grow.
        size: the most bytes.
        redirects: the most redirects.
    """

    silence: float = limits.MOST_SILENCE
    rate: float = limits.LEAST_RATE
    window: float = limits.RATE_WINDOW
    whole: float = limits.LONGEST_DOWNLOAD
    standstill: float = limits.LONGEST_STANDSTILL
    size: int = limits.MOST_DOWNLOADED
    redirects: int = limits.MOST_REDIRECTS


PACE = Pace()


class BrokenOffError(Exception):
    """A connection ended before all bytes had arrived; another try may help."""


class Watch:
    """Counts the received bytes, and closes the connection from another thread if it is too slow.

    The timeout of a socket does not help against a server that sends one byte per second.
    """

    def __init__(self, pace: Pace):
        self.pace, self.count, self.verdict = pace, 0, ""
        self._connections: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def follow(self, connection: socket.socket) -> None:
        """Close this connection too if the download is given up."""
        # The watch needs a copy: TLS takes over the original socket, and the reader closes it.
        self._connections.append(connection.dup())

    def _look(self) -> None:
        began = since = time.monotonic()
        before = 0
        step = min(1.0, self.pace.window / 4, self.pace.whole / 4)
        while not self._done.wait(step):
            now = time.monotonic()
            if now - began > self.pace.whole:
                self.verdict = f"it did not end within {self.pace.whole:,.0f} seconds"
            elif now - since > self.pace.window:
                if self.count - before < self.pace.rate * (now - since):
                    self.verdict = (
                        f"it sent {self.count - before:,} bytes in {now - since:,.0f} seconds, and "
                        f"{self.pace.rate:,} a second are the least"
                    )
                since, before = now, self.count
            if self.verdict:
                break
        # Closed again and again, so that a connection made in the meantime is closed as well.
        while self.verdict and not self._done.wait(step):
            self._close()

    def _close(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()


class Context(ssl.SSLContext):
    """An SSL context that passes each connection to the watch before its handshake."""

    watch: Watch

    def wrap_socket(self, sock: socket.socket, *words: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap a socket like `ssl.SSLContext.wrap_socket`, after passing it to the watch."""
        self.watch.follow(sock)
        return super().wrap_socket(sock, *words, **options)


class Plain(urllib.request.HTTPHandler):
    """A handler for http:// that passes each connection to the watch."""

    watch: Watch

    def http_open(self, request: urllib.request.Request) -> Any:
        """Open a URL like `urllib.request.HTTPHandler.http_open`."""

        class Connection(http.client.HTTPConnection):
            def connect(inner) -> None:
                super().connect()
                self.watch.follow(inner.sock)

        return self.do_open(Connection, request)


def opener(watch: Watch) -> urllib.request.OpenerDirector:
    """Return an opener for http:// and https:// only, with the proxy that the environment names.

    The opener follows no redirects; `open_url` follows them one by one.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.watch = watch
    if os.environ.get(UNSAFE) == "true":
        logging.getLogger(__name__).warning("warning: %s: certificates are not checked", UNSAFE)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain = Plain()
    plain.watch = watch
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        plain,
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        director.add_handler(handler)
    return director


def download(
    url: str, file: BinaryIO, pace: Pace = PACE, progress: Callable[[int], None] | None = None
) -> str:
    """Download `url` into a file.

    Args:
        progress: called with the number of bytes of each piece.

    Returns:
        The SHA-256 of what was downloaded.

    Raises:
        HandleError: the server is too slow, sends too much, or redirects too often or to a URL that
            is not safe.
        BrokenOffError: the connection ended early.
        OSError, ValueError, http.client.HTTPException: see `urllib.request.urlopen`.
    """
    digest = hashlib.sha256()
    with Watch(pace) as watch, raise_if_refused(url, watch), open_url(url, watch) as response:
        announced = response.length
        if announced is not None and announced > pace.size:
            raise too_much(url, pace)
        while piece := response.read1(PIECE):
            watch.count += len(piece)
            if watch.count > pace.size:
                raise too_much(url, pace)
            digest.update(piece)
            file.write(piece)
            if progress is not None:
                progress(len(piece))
        if announced is not None and watch.count < announced:
            raise BrokenOffError(f"{watch.count:,} of {announced:,} bytes came")
    return digest.hexdigest()


def answer_of_303(url: str, pace: Pace = PACE) -> str:
    """Return the short text of an answer with status 303.

    TF Hub gives such an answer to name a gs:// folder.

    Raises:
        HandleError: the answer has another status, or see `download`.
    """
    with Watch(pace) as watch, raise_if_refused(url, watch):
        try:
            with opener(watch).open(url, timeout=pace.silence) as response:
                code = response.status
        except urllib.error.HTTPError as error:
            with error:
                code = error.code
                if code == 303:
                    return error.read(limits.MOST_ANSWER).decode(errors="replace")
    raise HandleError(f"{url} answers {code}; expected 303 and the name of a gs:// folder.")


@contextlib.contextmanager
def raise_if_refused(url: str, watch: Watch) -> Iterator[None]:
    """Raise HandleError with the reason of the watch if the watch closed the connection.

    An error that follows is then only a consequence. Other errors are raised as they are.
    """
    try:
        yield
    except HandleError:
        raise
    except (BrokenOffError, OSError, ValueError, http.client.HTTPException) as error:
        if watch.verdict:
            raise HandleError(
                f"{url} was given up: {watch.verdict}. Try again later, or fetch the archive by "
                "hand and use its path."
            ) from error
        raise
    if watch.verdict:
        raise HandleError(f"{url} was given up: {watch.verdict}. Try again later.")


@contextlib.contextmanager
def open_url(url: str, watch: Watch) -> Iterator[Any]:
    """Open `url`, follow its redirects, and yield the response.

    Raises:
        HandleError: there are too many redirects, or one is not safe.
    """
    director = opener(watch)
    now = url
    for _ in range(watch.pace.redirects + 1):
        try:
            response = director.open(now, timeout=watch.pace.silence)
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in REDIRECTS or not target:
                raise
            error.close()
            now = redirected(url, now, target)
            continue
        with response:
            yield response
        return
    raise HandleError(
        f"{url} redirects more than {watch.pace.redirects} times, the last time to {now}. "
        "Is the URL right?"
    )


def redirected(url: str, now: str, target: str) -> str:
    """Return the URL that a redirect leads to.

    Args:
        url: the URL that was asked for first.
        now: the URL that answered with the redirect.
        target: its Location header.

    Raises:
        HandleError: the redirect leads to something other than http or https, or from https to
            http.
    """
    quoted = urllib.parse.quote(target, encoding="iso-8859-1", safe=string.punctuation)
    new = urllib.parse.urljoin(now, quoted)
    scheme = urllib.parse.urlsplit(new).scheme
    if scheme not in ("http", "https"):
        raise HandleError(
            f"{url} redirects to {new}; only http and https are followed. Is the URL right?"
        )
    if scheme == "http" and urllib.parse.urlsplit(now).scheme == "https":
        raise HandleError(
            f"{url} redirects to {new}, from https to http, where anybody on the way can change "
            "what is sent. It was not followed."
        )
    return new


def too_much(url: str, pace: Pace) -> HandleError:
    return HandleError(
        f"{url} sends more than {pace.size:,} bytes, the most that are downloaded. Is the URL that "
        "of a model? Else fetch the archive by hand and use its path."
    )
