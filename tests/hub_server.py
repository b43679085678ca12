"""A real HTTP server in a thread that serves SavedModels as TF Hub does.

It also answers in the ways in which servers fail.
"""

import io
import tarfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

AWAY = {
    "round": "round",
    "to-file": "file:///etc/passwd",
    "to-ftp": "ftp://127.0.0.1/model",
    "to-gs": "gs://bucket/model",
    "to-nowhere": "http://[",
}


def pack(folder: Path, leave_out: str = "") -> bytes:
    """Pack the folder as TF Hub does: a gzipped tar with the model's files at its root.

    Files whose name starts with `leave_out` are left out.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if not (leave_out and path.name.startswith(leave_out)):
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return buffer.getvalue()


class HubServer(ThreadingHTTPServer):
    """`Handler.do_GET` says what each path answers; `requests` counts the requests by path."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.whole = pack(folder)
        self.without_weights = pack(folder, leave_out="variables.data")
        self.requests: Counter[str] = Counter()
        self.archives: dict[str, bytes] = {}  # what other paths answer with

    def handle_error(self, *_) -> None:
        """Print nothing: the tests want clients that hang up."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.rsplit("/", 1)[-1]
        self.server.requests[path] += 1
        first = self.server.requests[path] == 1
        if path == "redirect":
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/model?{parts.query}")
            self.end_headers()
        elif path in AWAY:
            self.send_response(302)
            self.send_header("Location", AWAY[path])
            self.end_headers()
        elif path == "drip-header":
            self.drip(b"HTTP/1.0 200 OK\r\nX: ")
        elif path == "drip":
            self.drip(b"HTTP/1.0 200 OK\r\n\r\n\x1f\x8b")
        elif path == "silent":
            self.rfile.read()  # until the client hangs up
        elif path == "endless-continue":
            self.pour(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
        elif path == "endless":
            self.pour(bytes(1024**2), b"HTTP/1.0 200 OK\r\n\r\n\x1f\x8b")
        elif path == "endless-redirect":
            self.pour(bytes(1024**2), b"HTTP/1.0 302 Found\r\nLocation: model\r\n\r\n")
        elif path == "large":
            self.send("application/gzip", b"\x1f\x8b", announced=10**15)
        elif path in self.server.archives:
            self.send("application/gzip", self.server.archives[path])
        elif parse_qs(parts.query).get("tf-hub-format") != ["compressed"] or path == "page":
            self.send("text/html", b"<html>A page about a model</html>")
        elif path in ("model", "model.tar.gz"):
            self.send("application/gzip", self.server.whole)
        elif path == "half" or (path == "half-once" and first):
            self.send("application/gzip", self.server.whole, len(self.server.whole) // 2)
        elif path == "half-once":
            self.send("application/gzip", self.server.whole)
        elif path == "without-weights" or (path == "without-weights-once" and first):
            self.send("application/gzip", self.server.without_weights)
        elif path == "without-weights-once":
            self.send("application/gzip", self.server.whole)
        elif path == "hang-up":
            self.close_connection = True  # without an answer
        elif path == "forbidden":
            self.send_error(403)
        else:
            self.send_error(404)

    def send(
        self, kind: str, content: bytes, until: int | None = None, announced: int | None = None
    ) -> None:
        """Announce all of `content` and send it up to `until`."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if announced is None else announced))
        self.end_headers()
        self.wfile.write(content[:until])

    def drip(self, content: bytes) -> None:
        """Send a byte now and then, without end."""
        self.wfile.write(content)
        while True:
            self.wfile.write(b"x")
            time.sleep(0.02)

    def pour(self, content: bytes, first: bytes = b"") -> None:
        """Send without end, as fast as it goes."""
        self.wfile.write(first)
        while True:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def serving(folder: Path):
    """The server, up while the block runs."""
    with HubServer(folder) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
