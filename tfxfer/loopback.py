"""A network that only a group of processes sees: nothing in it but loopback. Linux; standard library only.

TensorFlow's workers listen on every interface of a machine, whatever address they are given, and do what
anybody who connects says: "0.0.0.0" is written into its server. In a network namespace of their own every
interface is the loopback inside it, which no process outside reaches.

As a program (no arguments) it makes such a namespace, says "ready", and ends with its standard input; the
namespace lives on for as long as somebody holds it open.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

NEW_USER, NEW_NET = 0x10000000, 0x40000000  # flags of unshare(2)
GET_FLAGS, SET_FLAGS = 0x8913, 0x8914  # requests of ioctl(2) about an interface, see netdevice(7)
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40  # flags of an interface


class Loopback:
    """A network namespace, held open by descriptors of it (and of the user namespace that owns it)."""

    def __init__(self, descriptors: list[int]):
        self.descriptors = descriptors
        self.libc = ctypes.CDLL(None, use_errno=True)

    def enter(self) -> None:
        """Move this process, which must have one thread, into the namespace: for a child before its exec."""
        for descriptor in self.descriptors:
            if self.libc.setns(descriptor, 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Let it go; it ends with the last process inside."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def make_loopback() -> Loopback:
    """A new network with nothing but loopback.

    Raises:
        OSError: this system has no such thing, or does not allow it.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"{sys.platform} has no network namespaces")
    words = [sys.executable, "-I", "-S", __file__]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdin is not None and keeper.stdout is not None
        answer = keeper.stdout.readline().strip()
        if answer != "ready":
            raise OSError(answer or "the process that was to make a network namespace ended")
        kinds = ["net"] if os.geteuid() == 0 else ["user", "net"]  # in the order of entering
        descriptors = [os.open(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
    return Loopback(descriptors)


def is_private() -> bool:
    """Whether this process sees no network but loopback."""
    if not sys.platform.startswith("linux"):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            flags = flags_of(any_socket, name)
            if flags & UP and not flags & LOOPBACK:
                return False
    return True


def flags_of(any_socket: socket.socket, interface: str) -> int:
    """UP, LOOPBACK and so on; 0 for an interface that is gone."""
    with suppress(OSError):
        asked = struct.pack("16sH22x", interface.encode(), 0)
        return int(struct.unpack("16xH22x", fcntl.ioctl(any_socket, GET_FLAGS, asked))[0])
    return 0


def leave_the_network() -> None:
    """Move this process into a new network namespace, and switch its loopback on.

    Raises:
        OSError: the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    # Root needs no user namespace, and would lose its rights to other people's files in one.
    if libc.unshare(NEW_NET if user == 0 else NEW_USER | NEW_NET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        # Inside, this user and this group stay who they are.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH22x", b"lo", UP | RUNNING))


if __name__ == "__main__":
    try:
        leave_the_network()
    except OSError as error:
        print(f"{error.strerror or error}", flush=True)
        sys.exit(1)
    print("ready", flush=True)
    sys.stdin.read()
