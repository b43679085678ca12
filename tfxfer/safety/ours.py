"""Tell settings that this user wrote on this machine from settings that a stranger wrote.

A resumed run takes its options from `settings.json`. A stranger who gets us to resume a run in a
folder of theirs would decide by that file which model is read, which files are opened and where we
write. So the file has a signature, made with a key that nobody else has, which is valid only for
the folder in which it was written. The module needs only the standard library.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

SIZE = 32  # bytes of the key


def key_file() -> Path | None:
    """Return the path of the key; None for a user without a home folder.

    It is `$XDG_DATA_HOME/tfxfer/key`, else `~/.local/share/tfxfer/key`.
    """
    data = os.environ.get("XDG_DATA_HOME")
    if data and os.path.isabs(data):
        return Path(data) / "tfxfer" / "key"
    try:
        return Path.home() / ".local" / "share" / "tfxfer" / "key"
    except RuntimeError:
        return None


def sign(facts: Any) -> str | None:
    """Sign JSON values; returns None where no key can be kept, so that nothing counts as ours."""
    key = own_key(make=True)
    return None if key is None else digest(key, facts)


def is_signed(facts: Any, signature: Any) -> bool:
    """Whether `sign` gave this signature, to this user on this machine, for the same values."""
    key = own_key(make=False)
    if key is None or not isinstance(signature, str):
        return False
    return hmac.compare_digest(digest(key, facts).encode(), signature.encode("utf-8", "replace"))


def digest(key: bytes, facts: Any) -> str:
    # Convert to JSON and back first, so that values before writing and after reading have the same
    # text.
    values = json.loads(json.dumps(facts))
    text = json.dumps(values, sort_keys=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def own_key(make: bool) -> bytes | None:
    """Read the user's key; None where there is none, or others could have read or changed it.

    With `make`, a new key is made in that case.
    """
    path = key_file()
    if path is None:
        return None
    key = read_key(path)
    if key is None and make:
        with contextlib.suppress(OSError):  # the home folder can't be written: nothing is ours
            write_key(path)
        key = read_key(path)
    return key


def read_key(path: Path) -> bytes | None:
    """Read the key; None where the file does not exist, or others than its owner can read it."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        # On Windows, files have no such modes, and others can't open a user's own folder.
        if hasattr(os, "geteuid") and (facts.st_uid != os.geteuid() or facts.st_mode & 0o077):
            return None
        key = file.read(SIZE + 1)
    return key if len(key) == SIZE else None


def write_key(path: Path) -> None:
    """Make a key.

    The file appears whole. Where several processes make a key at once, the first one's stays.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"key.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            if read_key(path) is None:  # the key there can't be used, so it is replaced
                os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
