"""A real HTTP server in a thread that serves SavedModels as TF Hub does, and as servers do on a bad day."""

import io
import tarfile
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


def pack(folder: Path, leave_out: str = "") -> bytes:
    """The folder as TF Hub packs it: gzipped tar, the model's files at its root; without files whose name starts with `leave_out`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if not (leave_out and path.name.startswith(leave_out)):
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return buffer.getvalue()


class HubServer(ThreadingHTTPServer):
    """What each path answers is in `answer`; `requests` counts them by path."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.whole = pack(folder)
        self.without_weights = pack(folder, leave_out="variables.data")
        self.requests: Counter[str] = Counter()

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
            self.close_connection = True  # not a word
        elif path == "forbidden":
            self.send_error(403)
        else:
            self.send_error(404)

    def send(self, kind: str, content: bytes, until: int | None = None) -> None:
        """Announce all of `content` and send it up to `until`."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:until])

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
