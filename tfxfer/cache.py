"""A cache of rows of numbers on disk, which are found by key and content.

It needs only NumPy and the standard library.

A row is kept under a key (what was computed: backbone, preprocessing, engine, ...) and the digest
of the file that it was computed from. Rows are stored in shards (`.npy` files, which are
memory-mapped for reading). A shard is written under a temporary name and fsynced; then, in one
SQLite transaction, it is renamed and indexed. A file that is not in the index is ignored. So a
process killed at any moment leaves at most a file that nobody refers to, and any process that holds
the index's write lock may remove it. A shard that is missing, cut short, unreadable or no longer
what was written (its SHA-256 is in the index) is removed from the index, and its rows are computed
again.

The folder may be one in which a person keeps other files. Only the index makes it a cache. Besides
the index, only files with names that are made here are ever removed: 32 hexadecimal digits and
`.npy` or `.npy.tmp`, in `shards/`; and in `networks/`, where `tfxfer.savedmodel` keeps what it has
read, 64 hexadecimal digits and `.npz`, also with those of a temporary file after it.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from tfxfer.errors import CacheError
from tfxfer.files import open_regular, remove_named, sync_folder

FORMAT = 1  # raise it when the meaning of a row changes; old rows are then never found
ABANDONED = 600  # seconds after its last write, a half-written shard counts as abandoned
OPEN_SHARDS = 64  # memory maps kept open by a reader; each holds a file descriptor
TABLES = {"keys", "shards", "rows"}
SCHEMA = (
    "create table if not exists keys"
    " (id integer primary key, hash text unique, description text, width integer)",
    "create table if not exists shards"
    " (id integer primary key, key integer, file text unique, rows integer, checksum text)",
    "create table if not exists rows (key integer, digest text, shard integer, row integer,"
    " primary key (key, digest)) without rowid",
)
MARK = 0x74667866  # "tfxf", in the header of the index, marks it as an index of tfxfer
SHARD = re.compile(r"[0-9a-f]{32}\.npy")
ASIDE = re.compile(r"[0-9a-f]{32}\.npy\.tmp")
NETWORKS = "networks"
NETWORK = re.compile(r"[0-9a-f]{64}\.npz(\.[0-9a-f]{32}\.tmp)?")
# What NumPy may raise where the header of a .npy file is no Python literal.
ODD_HEADER = (TokenError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError)
HASHED = 1024 * 1024  # bytes of a shard that are read at once for its checksum
READERS = 4  # threads that compare checksums


def default_folder() -> Path:
    """`$TFXFER_CACHE_DIR`, else `$XDG_CACHE_HOME/tfxfer`, else `~/.cache/tfxfer`."""
    if folder := os.environ.get("TFXFER_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfxfer"


def networks(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """List the networks that are kept in a cache, the one that was written last first."""
    found = []
    with contextlib.suppress(OSError):  # there is no such folder
        for path in (folder / NETWORKS).iterdir():
            if NETWORK.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    found.append((path, path.lstat()))
    return sorted(found, key=lambda entry: -entry[1].st_mtime_ns)


def remove_networks(folder: Path, most: int = 0) -> int:
    """Remove networks that are kept in a cache; return the number of bytes freed.

    Args:
        most: so many bytes of the networks that were written last stay.
    """
    held = freed = 0
    for path, status in networks(folder):
        held += status.st_size
        if held > most and stat.S_ISREG(status.st_mode):
            path.unlink(missing_ok=True)
            freed += status.st_size
    return freed


@dataclass(frozen=True)
class Entry:
    """One key of the cache: its description, its rows (one for each image), its bytes on disk."""

    description: dict[str, Any]
    rows: int
    size: int


class Rows:
    """Cached rows in the order asked for.

    `rows[positions]` is a float32 array of shape [m, width]. It is read from memory-mapped shards,
    which may also be float16.

    Raises:
        CacheError: a shard was removed or damaged after the rows were looked up.
    """

    def __init__(self, files: list["Shard"], shard: np.ndarray, row: np.ndarray, width: int):
        self.files, self.shard, self.row, self.shape = files, shard, row, (len(row), width)
        self._open = lru_cache(OPEN_SHARDS)(open_checked)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, positions: Any) -> np.ndarray:
        positions = np.arange(len(self))[positions]
        flat = np.atleast_1d(positions)
        out = np.empty((len(flat), self.shape[1]), np.float32)
        shards = self.shard[flat]
        for number in np.unique(shards):
            where = np.flatnonzero(shards == number)
            out[where] = self._map(self.files[number])[self.row[flat[where]]]
        return out if positions.ndim else out[0]

    def take(self, positions: Any) -> "Rows":
        """Return only these rows, in this order."""
        return Rows(self.files, self.shard[positions], self.row[positions], self.shape[1])

    def _map(self, shard: "Shard") -> np.ndarray:
        try:
            return self._open(shard)
        except (OSError, ValueError) as error:
            raise CacheError(
                f"the cache lost {shard.path} while it was in use: {error}. "
                "Run the same command again."
            ) from error


class Cache:
    """A folder of cached rows; any number of processes may use it at once.

    Args:
        folder: the folder of the cache; it is made where it doesn't exist.

    Raises:
        CacheError: the folder can't be used, the disk is full, or the index is damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.shards = self.folder / "shards"
        self.index = self.folder / "index.sqlite3"
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            used = self.shards.is_symlink() or (self.shards.exists() and any(self.shards.iterdir()))
        with self._database() as database:
            self._own(database, used)
        with self._explained():
            self.shards.mkdir(exist_ok=True)

    def _own(self, database: sqlite3.Connection, used: bool) -> None:
        """Mark the index as ours where it is new or of an earlier version; refuse what is not ours.

        Args:
            used: whether there was something in `shards/` before the index was looked at.
        """
        if database.execute("pragma application_id").fetchone()[0] == MARK:
            return
        # Read again under the lock: another process may have marked it in between.
        with self._database(write=True) as writing:
            if writing.execute("pragma application_id").fetchone()[0] == MARK:
                return
            tables = {
                name
                for (name,) in writing.execute(
                    "select name from sqlite_master where type = 'table'"
                )
            }
            if tables and not tables >= TABLES:
                raise CacheError(
                    f"{self.index} is not an index of tfxfer: it holds {', '.join(sorted(tables))}."
                    " Choose another folder with --cache DIR."
                )
            if not tables and used:
                raise CacheError(
                    f"{self.shards} is not empty, and {self.folder} is no cache of tfxfer. Nothing"
                    " there was touched. Choose another folder with --cache DIR."
                )
            for statement in SCHEMA:
                writing.execute(statement)
            columns = [row[1] for row in writing.execute("pragma table_info(shards)")]
            if "checksum" not in columns:
                writing.execute("alter table shards add column checksum text")
            writing.execute(f"pragma application_id = {MARK}")

    def missing(self, key: dict[str, Any], digests: Sequence[str]) -> list[int]:
        """Return the positions whose digest has no row yet.

        Rows of shards that are missing or damaged are removed from the index first.
        """
        with self._database() as database:
            record = identify(database, key)
            if record is None:
                return list(range(len(digests)))
            self._forget_damaged(database, *record)
            return [
                i for i, place in enumerate(places(database, record[0], digests)) if place is None
            ]

    def digests(self, key: dict[str, Any]) -> list[str]:
        """Return the digests that have a row.

        Rows of shards that are missing or damaged are removed from the index first.
        """
        with self._database() as database:
            record = identify(database, key)
            if record is None:
                return []
            self._forget_damaged(database, *record)
            rows = database.execute("select digest from rows where key = ?", (record[0],))
            return [digest for (digest,) in rows]

    def free(self) -> int:
        """Number of bytes that are free on the disk of the cache."""
        with self._explained():
            return shutil.disk_usage(self.folder).free

    def require(self, need: int) -> None:
        """Check that `need` more bytes fit on the disk, before hours are spent on computing them.

        Raises:
            CacheError: the disk has less room.
        """
        if need > self.free():
            raise self._full("No space left", need)

    def append(self, key: dict[str, Any], digests: Sequence[str], rows: np.ndarray) -> None:
        """Keep one row for each digest; `rows` is float32 or float16 [m, width].

        The whole shard is on disk before any process can find it. A row that exists already is kept
        as it is, so that a process that has looked it up goes on reading the same bytes.
        """
        if not len(digests):
            return
        rows = np.ascontiguousarray(rows, rows.dtype if rows.dtype == np.float16 else np.float32)
        name = f"{uuid.uuid4().hex}.npy"
        aside = self.shards / f"{name}.tmp"
        try:
            with self._explained(rows.nbytes), open(aside, "xb") as file:
                # np.save hides why a write failed, and a full disk needs a message of its own.
                header = npy_header(rows)
                file.write(header)
                file.write(rows.data)
                file.flush()
                os.fsync(file.fileno())
            checksum = hashlib.sha256(header)
            checksum.update(rows.data)
            shard = Shard(self.shards / name, checksum.hexdigest())
            with self._database(write=True, need=rows.nbytes) as database:
                if self._index(database, key, digests, rows, shard):
                    # Renamed under the index's write lock. So a shard that is not in the index is
                    # always a leftover, and never one that another process is about to add.
                    os.rename(aside, self.shards / name)
                    sync_folder(self.shards)
                    remember_checked(shard)
        finally:
            aside.unlink(missing_ok=True)

    def _index(
        self,
        database: sqlite3.Connection,
        key: dict[str, Any],
        digests: Sequence[str],
        rows: np.ndarray,
        made: "Shard",
    ) -> bool:
        """Name the shard in the index, unless every row is there already."""
        text, hashed = canonical(key)
        database.execute(
            "insert or ignore into keys (hash, description, width) values (?, ?, ?)",
            (hashed, text, rows.shape[1]),
        )
        number, width = identify(database, key) or (0, 0)
        if width != rows.shape[1]:
            raise CacheError(
                f"the cache in {self.folder} holds rows of {width} numbers for this key; received "
                f"{rows.shape[1]}. Clear it: tfxfer cache --clear"
            )
        shard = database.execute(
            "insert into shards (key, file, rows, checksum) values (?, ?, ?, ?)",
            (number, made.path.name, len(rows), made.checksum),
        ).lastrowid
        values = [(number, digest, shard, i) for i, digest in enumerate(digests)]
        if database.executemany("insert or ignore into rows values (?, ?, ?, ?)", values).rowcount:
            return True
        database.execute("delete from shards where id = ?", (shard,))
        return False

    def rows(self, key: dict[str, Any], digests: Sequence[str]) -> Rows:
        """Return the rows of `digests`, in that order; the same digest may come twice.

        Raises:
            CacheError: the cache lacks some of them.
        """
        place = np.zeros((len(digests), 2), np.int64)
        with self._database() as database:
            number, width = identify(database, key) or (0, 0)
            names = database.execute(
                "select id, file, checksum, rows from shards where key = ? order by id", (number,)
            ).fetchall()
            position = {shard: i for i, (shard, *_) in enumerate(names)}
            absent = 0
            for i, location in enumerate(places(database, number, digests)):
                if (
                    location is None
                    or location[0] not in position
                    or not 0 <= location[1] < names[position[location[0]]][3]
                ):
                    absent += 1
                else:
                    place[i] = position[location[0]], location[1]
        if absent:
            raise CacheError(
                f"the cache in {self.folder} lacks {absent} of {len(digests)} rows: it was cleared "
                "while in use. Run the same command again."
            )
        shards = [Shard(self.shards / file, checksum) for _, file, checksum, _ in names]
        return Rows(shards, place[:, 0], place[:, 1], width)

    def summary(self) -> list[Entry]:
        """List what is kept, one entry for each key, in the order in which the keys were added."""
        with self._database() as database:
            keys = database.execute(
                "select k.id, k.description, (select count(*) from rows r where r.key = k.id) from "
                "keys k order by k.id"
            ).fetchall()
            files = database.execute("select key, file from shards").fetchall()
        sizes = Counter[int]()
        for key, file in files:
            # The next look-up removes a missing file from the index.
            with contextlib.suppress(FileNotFoundError):
                sizes[key] += (self.shards / file).stat().st_size
        try:
            return [Entry(json.loads(text), rows, sizes[key]) for key, text, rows in keys]
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(str(error)) from error

    def clear(self) -> int:
        """Forget everything; returns the number of bytes freed."""
        with self._database(write=True) as database:
            for table in ("rows", "shards", "keys"):
                database.execute(f"delete from {table}")
            return self._remove_orphans(database)

    def sweep(self) -> int:
        """Remove what killed processes left behind; returns the number of bytes freed."""
        with self._database(write=True) as database:
            return self._remove_orphans(database)

    def _remove_orphans(self, database: sqlite3.Connection) -> int:
        known = {file for (file,) in database.execute("select file from shards")}
        freed = 0
        for path in self.shards.iterdir():
            try:
                status = path.lstat()
                ours = stat.S_ISREG(status.st_mode) and path.name not in known
                abandoned = time.time() - status.st_mtime > ABANDONED
                if ours and (
                    SHARD.fullmatch(path.name) or (ASIDE.fullmatch(path.name) and abandoned)
                ):
                    path.unlink()
                    freed += status.st_size
            except FileNotFoundError:
                pass  # its writer removed it
        return freed

    def _forget_damaged(self, database: sqlite3.Connection, key: int, width: int) -> None:
        """Compare each shard of a key with its checksum; remove from the index those that differ.

        A process reads each shard only once for that.
        """
        shards = database.execute(
            "select id, file, rows, checksum from shards where key = ?", (key,)
        ).fetchall()

        def check(shard: tuple[int, str, int, str | None]) -> str | None:
            """Return the checksum of a shard; None where the shard is damaged."""
            _, file, rows, checksum = shard
            if not SHARD.fullmatch(file):
                return None
            try:
                checksum_now = check_shard(Shard(self.shards / file, checksum))
                shape = open_shard(self.shards / file).shape
            except (OSError, ValueError):
                return None
            return checksum_now if shape == (rows, width) else None

        with ThreadPoolExecutor(READERS) as pool:
            checksums = list(pool.map(check, shards))
        for (shard, _, _, checksum), now in zip(shards, checksums, strict=True):
            if now is None:
                with self._database(write=True) as writing:
                    writing.execute("delete from rows where shard = ?", (shard,))
                    writing.execute("delete from shards where id = ?", (shard,))
            elif checksum is None:  # the cache is from tfxfer 0.1.0
                with self._database(write=True) as writing:
                    writing.execute("update shards set checksum = ? where id = ?", (now, shard))

    @contextmanager
    def _database(self, *, write: bool = False, need: int = 0) -> Iterator[sqlite3.Connection]:
        """Open the index; with `write`, in one transaction during which nobody else can write."""
        with self._explained(need):
            connection = sqlite3.connect(self.index, timeout=120, isolation_level=None)
            try:
                if write:
                    connection.execute("begin immediate")
                yield connection
                if write:
                    connection.execute("commit")
            finally:
                connection.close()  # rolls back what was not committed

    @contextmanager
    def _explained(self, need: int = 0) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if (
                getattr(error, "errno", None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
                or "full" in reason
            ):
                raise self._full(reason, need) from error
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(
                error, sqlite3.OperationalError
            ):
                raise self._damaged(reason) from error
            raise CacheError(
                f"the cache in {self.folder} can't be used: {reason}. "
                "Choose another folder with --cache DIR."
            ) from error

    def _damaged(self, reason: str) -> CacheError:
        return CacheError(
            f"the index of the cache in {self.folder} is damaged: {reason}. Delete {self.index} and"
            f" {self.shards}: what they held is computed again."
        )

    def _full(self, reason: str, need: int) -> CacheError:
        try:
            free = f", {size(shutil.disk_usage(self.folder).free)} free on that disk"
        except OSError:
            free = ""
        return CacheError(
            f"the cache in {self.folder} can't be written: {reason}. Needed: {size(need)} "
            f"more{free}. Make room there (tfxfer cache --clear), "
            "or choose another folder with --cache DIR."
        )


def canonical(key: dict[str, Any]) -> tuple[str, str]:
    """Return the key as JSON text, and its hash; the order of the key's items does not matter."""
    text = json.dumps({**key, "format": FORMAT}, sort_keys=True, allow_nan=False)
    return text, hashlib.sha256(text.encode()).hexdigest()


def identify(database: sqlite3.Connection, key: dict[str, Any]) -> tuple[int, int] | None:
    """Return the number and the width of a key in the index; None where it has none."""
    return database.execute(
        "select id, width from keys where hash = ?", (canonical(key)[1],)
    ).fetchone()


def places(
    database: sqlite3.Connection, key: int, digests: Sequence[str]
) -> Iterator[tuple[int, int] | None]:
    """Yield (shard, row) for each digest, and None where there is no row.

    500 digests are looked up at a time, so that memory does not grow with the index.
    """
    for start in range(0, len(digests), 500):
        part = digests[start : start + 500]
        query = (
            "select digest, shard, row from rows where key = ? and digest in "
            f"({','.join('?' * len(part))})"
        )
        place_of = {
            digest: (shard, row) for digest, shard, row in database.execute(query, (key, *part))
        }
        yield from (place_of.get(digest) for digest in part)


@dataclass(frozen=True)
class Shard:
    """A file of rows, and the SHA-256 of what was written; None in an index of tfxfer 0.1.0."""

    path: Path
    checksum: str | None


# Checksums that this process has computed. The key is all that changes when a file is written:
# path, inode, size and time of the last change.
CHECKED: dict[tuple[Path, int, int, int], str] = {}
CHECKED_LOCK = threading.Lock()
HEADER_LOCK = threading.Lock()


def identity(path: Path) -> tuple[Path, int, int, int]:
    status = path.stat()
    return path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns


def check_shard(shard: Shard) -> str:
    """Return the checksum of a shard's content.

    The file is read only where this process has not read the same file before.

    Raises:
        ValueError: the content is not what was written.
    """
    file = identity(shard.path)
    checksum = CHECKED.get(file)
    if checksum is None:
        hashed = hashlib.sha256()
        with open_regular(shard.path) as opened:
            while block := opened.read(HASHED):
                hashed.update(block)
        checksum = hashed.hexdigest()
        with CHECKED_LOCK:
            CHECKED[file] = checksum
    if shard.checksum is not None and checksum != shard.checksum:
        raise ValueError("its content is not what was written")
    return checksum


def remember_checked(shard: Shard) -> None:
    """Note a shard whose content this process has just written."""
    with contextlib.suppress(OSError):  # somebody cleared the cache
        file = identity(shard.path)
        with CHECKED_LOCK:
            CHECKED[file] = str(shard.checksum)


def open_checked(shard: Shard) -> np.ndarray:
    """Compare a shard's checksum, and return its rows, memory-mapped.

    Raises:
        ValueError: the file is cut short, or was changed.
    """
    check_shard(shard)
    return open_shard(shard.path)


def npy_header(rows: np.ndarray) -> bytes:
    """Return the bytes that come before the numbers in a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
    return file.getvalue()


def open_shard(path: Path) -> np.ndarray:
    """Return a shard's rows, memory-mapped; raises ValueError where the file is damaged."""
    try:
        # NumPy reads the header with ast.literal_eval. Where several threads call that at once, it
        # sometimes fails with a SystemError, as in Python 3.11.
        with HEADER_LOCK:
            return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except EOFError as error:
        raise ValueError("it is empty") from error
    except ODD_HEADER as error:
        raise ValueError(f"its header is damaged: {error}") from error


def size(count: int) -> str:
    """Format a number of bytes for people."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def remove_cache(folder: str | os.PathLike) -> None:
    """Remove what tfxfer made in a cache's folder, and the folder itself if nothing else is in it.

    No process may be using the cache.

    Raises:
        OSError: a file can't be removed.
    """
    folder = Path(folder)
    shards = [] if (folder / "shards").is_symlink() else list(folder.glob("shards/*"))
    names = [
        f"shards/{path.name}"
        for path in shards
        if not path.is_symlink() and (SHARD.fullmatch(path.name) or ASIDE.fullmatch(path.name))
    ]
    remove_named(folder, [*names, "index.sqlite3", "index.sqlite3-journal"])
    for empty in (folder / "shards", folder):
        with contextlib.suppress(OSError):  # it holds a person's files, or does not exist
            empty.rmdir()


@contextmanager
def temporary(folder: str | os.PathLike) -> Iterator[Cache]:
    """Open a cache that is removed when the block ends; other files in the folder stay."""
    cache = Cache(folder)
    try:
        yield cache
    finally:
        remove_cache(folder)
