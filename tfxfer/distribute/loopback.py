"""Make a network that only a group of processes sees, with nothing but loopback in it.

TensorFlow's workers listen on every interface of a machine, whatever address they are given, since
"0.0.0.0" is fixed in the code of its server. They do what anybody who connects tells them. In a
network namespace of their own, the only interface is the loopback inside it, which no process
outside can reach.

Run as a program (without arguments), this module makes such a namespace, prints "ready", and ends
when its standard input is closed. The namespace exists for as long as a process holds it open.

It works on Linux, and needs only the standard library.
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
    """A network namespace, which is held open by file descriptors.

    They are those of the network namespace, and of the user namespace that owns it.
    """

    def __init__(self, descriptors: list[int]):
        self.descriptors = descriptors
        self.libc = ctypes.CDLL(None, use_errno=True)

    def enter(self) -> None:
        """Move this process, which must have a single thread, into the namespace.

        A child process calls this before it starts its program.
        """
        for descriptor in self.descriptors:
            if self.libc.setns(descriptor, 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Close the descriptors; the namespace ends with the last process inside it."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def make_loopback() -> Loopback:
    """Make a new network with nothing but loopback.

    Raises:
        OSError: this system has no network namespaces, or does not allow them.
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
    """Return an interface's flags, such as UP and LOOPBACK; 0 for an interface that is gone."""
    with suppress(OSError):
        asked = struct.pack("16sH22x", interface.encode(), 0)
        return int(struct.unpack("16xH22x", fcntl.ioctl(any_socket, GET_FLAGS, asked))[0])
    return 0


def leave_the_network() -> None:
    """Move this process into a new network namespace, and switch on its loopback interface.

    Raises:
        OSError: the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    # Root needs no user namespace, and in one it would lose its rights to other people's files.
    if libc.unshare(NEW_NET if user == 0 else NEW_USER | NEW_NET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        # Inside the namespace, this user and this group keep their numbers.
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
