"""A Python that starts at once, since TensorFlow and tfxfer are loaded already.

A fresh process takes five seconds for that. Tests start more than a hundred, so most of them use
`python()` in place of `sys.executable`: a client that asks a server for a fork. The fork has the
client's arguments, folder, environment and files, and dies with it. Tests of imports, signals and
clusters start a real process.
"""

import array
import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
request = dict(words={words} + sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
socket.send_fds(connection, [b" "], [0, 1, 2])
connection.sendall(json.dumps(request).encode() + b"\\n")
code = int(connection.makefile().readline())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def tools() -> Path:
    """The folder of `python` and `tfxfer`, to put first into PATH. The first call starts a server.

    Where the system cannot wait for a fork by a file descriptor, it is the folder of the real ones.
    """
    real = Path(sys.executable).parent
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return real
    folder = Path(tempfile.mkdtemp())
    address = str(folder / "server")
    for name, words in (("python", []), ("tfxfer", ["-m", "tfxfer"])):
        client = CLIENT.format(python=sys.executable, address=address, words=words)
        (folder / name).write_text(client)
        (folder / name).chmod(0o755)
    # A fork has only the thread that asked for it, so the server must have no other.
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    alone["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        env={**os.environ, **alone},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.terminate)
    return folder


def python() -> str:
    """Return what starts Python, in place of `sys.executable`."""
    return str(tools() / "python")


def serve(address: str) -> None:
    """Load everything, then answer each connection by a fork."""
    import tensorflow  # noqa: F401

    import tfxfer

    package = Path(tfxfer.__file__).parent
    modules = [path.relative_to(package).with_suffix("").parts for path in package.rglob("*.py")]
    names = [
        ".".join(["tfxfer", *parts])
        for parts in modules
        # Beam's libraries start a thread, and KerasHub adds operations to TensorFlow.
        if parts[0] != "beam"
        and parts[-1] not in ("__init__", "__main__", "kerashub", "kerashub_texts")
    ]
    for name in [*names, "matplotlib.pyplot", "sklearn.linear_model", "tensorflow_hub"]:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "only a process with one thread can be forked"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    os.write(1, b"ready\n")
    # No fork looks at what is loaded already, so the pages stay shared.
    gc.freeze()
    # Nobody waits for the keepers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Fork for one client, and tell it the exit status. Kill the fork when the client goes."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        end(run(request, descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if ended in ready:
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def end(code: int) -> None:
    """End the fork at once: to take all modules down would take a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(request: dict, descriptors: array.array) -> int:
    """Do what a Python with these arguments does, and return the exit status."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # The server's own streams know its files, not the client's.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    here = os.path.dirname(__file__)
    sys.path[:] = [path for path in sys.path if path != here]
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    option, *words = request["words"]
    try:
        if option == "-m":
            sys.argv = words
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        elif option == "-c":
            sys.argv = ["-c", *words[1:]]
            exec(compile(words[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            sys.argv = [option, *words]
            sys.path[0] = os.path.dirname(option)
            runpy.run_path(option, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
