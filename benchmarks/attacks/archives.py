"""Archives of a SavedModel that were changed at random, and bombs, from disk and from a server.

The server is on 127.0.0.1. Each archive gives a model, or an error of a handle. Nothing unfinished
may stay in the cache, and nothing may be touched outside it.
"""

import contextlib
import gzip
import io
import os
import random
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tensorflow as tf

from tfxfer.errors import TfxferError
from tfxfer.handles import resolve

BLOCK = 512  # bytes of a header
FIELDS = [(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
VALUES = [
    b"../" * 30 + b"evil",
    b"/tmp/evil",
    b"\xff" * 12,
    b"77777777777\0",
    b"-1",
    b"2",
    b"S",
    b"L",
]
state: dict[str, ThreadingHTTPServer] = {}


def prepare(folder: Path) -> Path:
    """Write a small SavedModel with a variable and an asset, as a tar.

    A person's file is put into the cache.
    """
    (folder / "words.txt").write_text("one\ntwo\n")
    root = tf.train.Checkpoint(kernel=tf.Variable(tf.ones((12, 4))))
    root.words = tf.saved_model.Asset(str(folder / "words.txt"))

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.float32)])
    def call(images):
        return tf.reshape(images, (-1, 12)) @ root.kernel

    root.__call__ = call
    tf.saved_model.save(root, str(folder / "model"))
    with tarfile.open(folder / "good.tar", "w") as archive:
        archive.add(folder / "model", ".")
    return folder


class Handler(BaseHTTPRequestHandler):
    """Answers every question with the archive of this try."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(Handler.content)))
        self.end_headers()
        self.wfile.write(Handler.content)

    def log_message(self, *_) -> None:
        """Print nothing."""


def address() -> str:
    """Return the address of the server, which is started once a process."""
    if not state:
        state["server"] = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=state["server"].serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{state['server'].server_port}"


def attack(folder: Path, number: int, seed: int) -> str:
    """Resolve one archive from disk and from the server; returns what went wrong, or nothing."""
    draw = random.Random(f"{seed} {number}")
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    (cache / "thesis.tmp").mkdir()
    (cache / "thesis.tmp" / "mine.txt").write_text("mine")
    os.environ |= {"TFXFER_CACHE_DIR": str(cache), "TFHUB_CACHE_DIR": str(cache)}
    Handler.content = a_bomb(draw) if number % 10 == 0 else changed(folder, draw)
    (folder / "a.tar.gz").write_bytes(Handler.content)
    for handle in (str(folder / "a.tar.gz"), f"{address()}/{number}"):
        with contextlib.suppress(TfxferError):
            resolve(handle)
    mine = cache / "thesis.tmp" / "mine.txt"
    if not mine.is_file() or mine.read_text() != "mine":
        return "a person's file is gone"
    left = [path.name for path in cache.rglob("*.tmp") if path.name != "thesis.tmp"]
    outside = sorted(path.name for path in folder.iterdir())
    known = ["a.tar.gz", "cache", "good.tar", "model", "tfxfer-cache", "words.txt"]
    strange = [name for name in outside if name not in known]
    return f"left {left} and {strange}" if left or strange else ""


def changed(folder: Path, draw: random.Random) -> bytes:
    """The archive with some changes, most of them to headers, packed."""
    content = bytearray((folder / "good.tar").read_bytes())
    for _ in range(draw.choice([1, 2, 4])):
        kind = draw.choice(["byte", "cut", "without", "more", "field", "field", "field"])
        at = draw.randrange(len(content))
        if kind == "byte":
            content[at] = draw.randrange(256)
        elif kind == "cut":
            del content[at + 1 :]
        elif kind == "without":
            del content[at : at + draw.randrange(1, 2000)]
        elif kind == "more":
            content[at // BLOCK * BLOCK : at // BLOCK * BLOCK] = draw.randbytes(BLOCK)
        else:
            change_header(content, draw)
    packed = bytearray(gzip.compress(bytes(content), 1))
    if draw.random() < 0.25:
        packed[draw.randrange(len(packed))] = draw.randrange(256)
    return bytes(packed)


def change_header(content: bytearray, draw: random.Random) -> None:
    """Another name, size, kind or link in a header, with a checksum that fits."""
    headers = [
        at for at in range(0, len(content), BLOCK) if content[at + 257 : at + 262] == b"ustar"
    ]
    if not headers:
        return
    at = draw.choice(headers)
    header = bytearray(content[at : at + BLOCK])
    start, size = draw.choice(FIELDS)
    value = draw.choice([*VALUES, draw.randbytes(size)])[:size]
    header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[at : at + BLOCK] = header


def a_bomb(draw: random.Random) -> bytes:
    """Return an archive that is small as it is sent, and large when it is unpacked.

    It is one of zeros, of very many members, or of a file with holes.
    """
    kind = draw.choice(["zeros", "members", "holes", "name"])
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9) as packed:
        if kind == "zeros":
            member = tarfile.TarInfo("saved_model.pb")
            member.size = 512 * 1024**2
            packed.write(member.tobuf())
            for _ in range(512):
                packed.write(bytes(1024**2))
        elif kind == "members":
            for i in range(30_000):
                packed.write(tarfile.TarInfo(f"{i}").tobuf())
        elif kind == "holes":
            member = tarfile.TarInfo("saved_model.pb")
            member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**12)}
            packed.write(member.tobuf(tarfile.PAX_FORMAT))
        else:
            member = tarfile.TarInfo("a/" * 100_000 + "b")
            packed.write(member.tobuf(tarfile.GNU_FORMAT))
        packed.write(bytes(2 * BLOCK))
    return raw.getvalue()
