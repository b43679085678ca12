"""Rows on disk: what was kept is found, what was damaged or half written is not."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from tfxfer import cache as room
from tfxfer.cache import Cache, default_folder, remove_cache
from tfxfer.errors import CacheError

KEY = {"backbone": "b", "view": 0}
WRITER = """
import sys, numpy as np
from tfxfer.cache import Cache
cache, start = Cache(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for shard in range(start, start + int(sys.argv[3])):
    digests = [f"{shard}-{i}" for i in range(50)]
    if cache.missing({"backbone": "b", "view": 0}, digests):
        cache.append({"backbone": "b", "view": 0}, digests, np.full((50, 40), shard, np.float32))
"""


def numbers(n: int, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def names(n: int, start: int = 0) -> list[str]:
    return [f"digest{i}" for i in range(start, start + n)]


def filled(folder) -> tuple[Cache, np.ndarray]:
    """Twenty rows in two shards."""
    cache, rows = Cache(folder), numbers(20)
    cache.append(KEY, names(12), rows[:12])
    cache.append(KEY, names(8, 12), rows[12:])
    return cache, rows


def shards(folder) -> list:
    """The files of the shards, the largest first."""
    return sorted((folder / "shards").iterdir(), key=lambda path: -path.stat().st_size)


def test_rows_come_back_in_the_order_asked_for(tmp_path):
    cache, rows = filled(tmp_path)
    order = [19, 0, 12, 11, 0, 7]
    found = cache.rows(KEY, [names(20)[i] for i in order])
    assert found.shape == (6, 5) and len(found) == 6
    np.testing.assert_array_equal(found[:], rows[order])
    np.testing.assert_array_equal(found[np.array([2, 2, 5])], rows[[12, 12, 7]])
    np.testing.assert_array_equal(found[-1], rows[7])
    np.testing.assert_array_equal(found[np.arange(6) < 2], rows[[19, 0]])
    assert found[:].dtype == np.float32 and found[[]].shape == (0, 5)


def test_another_process_object_finds_the_rows(tmp_path):
    _, rows = filled(tmp_path)
    np.testing.assert_array_equal(Cache(tmp_path).rows(KEY, names(20))[:], rows)


def test_missing_are_the_positions_without_a_row(tmp_path):
    cache, _ = filled(tmp_path)
    assert cache.missing(KEY, ["new", "digest3", "other"]) == [0, 2]
    assert cache.missing({**KEY, "view": 1}, names(3)) == [0, 1, 2]


def test_the_order_of_a_keys_entries_does_not_matter(tmp_path):
    cache, _ = filled(tmp_path)
    assert cache.missing({"view": 0, "backbone": "b"}, names(20)) == []


def test_the_version_of_the_format_is_part_of_the_key(tmp_path, monkeypatch):
    cache, _ = filled(tmp_path)
    monkeypatch.setattr(room, "FORMAT", room.FORMAT + 1)
    assert cache.missing(KEY, names(20)) == list(range(20))


def test_a_row_that_is_there_already_is_kept(tmp_path):
    cache, rows = filled(tmp_path)
    cache.append(KEY, names(3), numbers(3, seed=9))
    np.testing.assert_array_equal(cache.rows(KEY, names(3))[:], rows[:3])
    assert len(shards(tmp_path)) == 2


def test_no_rows_make_no_shard(tmp_path):
    cache = Cache(tmp_path)
    cache.append(KEY, [], np.empty((0, 5)))
    assert shards(tmp_path) == [] and cache.rows(KEY, []).shape[0] == 0


@pytest.mark.parametrize("damage", ["gone", "cut short", "empty", "overwritten"])
def test_a_damaged_shard_is_forgotten_and_only_that_one(tmp_path, damage):
    cache, rows = filled(tmp_path)
    first = shards(tmp_path)[0]
    content = first.read_bytes()
    first.unlink()
    if damage != "gone":
        first.write_bytes(
            {"cut short": content[:-4], "empty": b"", "overwritten": b"x" * len(content)}[damage]
        )
    assert cache.missing(KEY, names(20)) == list(range(12))
    np.testing.assert_array_equal(cache.rows(KEY, names(8, 12))[:], rows[12:])
    cache.append(KEY, names(12), rows[:12])
    np.testing.assert_array_equal(Cache(tmp_path).rows(KEY, names(20))[:], rows)


def test_a_shard_that_goes_while_it_is_read_says_run_again(tmp_path):
    cache, _ = filled(tmp_path)
    rows = cache.rows(KEY, names(20))
    cache.clear()
    with pytest.raises(
        CacheError, match=r"the cache lost .*\.npy while it was in use.*Run the same command again"
    ):
        rows[0]


def test_rows_that_are_not_there_say_run_again(tmp_path):
    cache, _ = filled(tmp_path)
    with pytest.raises(
        CacheError,
        match=r"lacks 1 of 2 rows: it was cleared while in use. Run the same command again",
    ):
        cache.rows(KEY, ["digest0", "never"])


def test_another_width_under_the_same_key_is_refused(tmp_path):
    cache, _ = filled(tmp_path)
    with pytest.raises(
        CacheError,
        match=r"holds rows of 5 numbers for this key; received 6. Clear it: tfxfer cache --clear",
    ):
        cache.append(KEY, ["new"], numbers(1, 6))
    assert len(shards(tmp_path)) == 2


def test_float16_rows_take_half_the_room_and_are_read_as_float32(tmp_path):
    cache, rows = Cache(tmp_path), numbers(100, 50)
    cache.append(KEY, names(100), rows.astype(np.float16))
    found = cache.rows(KEY, names(100))[:]
    assert found.dtype == np.float32 and cache.summary()[0].size < 100 * 50 * 2 + 200
    np.testing.assert_array_equal(found, rows.astype(np.float16))


def test_summary_has_an_entry_each_key_and_clear_empties_it(tmp_path):
    cache, _ = filled(tmp_path)
    cache.append({**KEY, "view": 1}, names(1), numbers(1, 7))
    first, second = cache.summary()
    assert (first.description["backbone"], first.rows) == ("b", 20) and first.size >= 20 * 5 * 4
    assert (second.description["view"], second.rows) == (1, 1) and second.size >= 7 * 4
    assert cache.clear() == first.size + second.size
    assert (
        cache.summary() == [] and shards(tmp_path) == [] and cache.missing(KEY, names(2)) == [0, 1]
    )


def test_a_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path):
    cache, rows = filled(tmp_path)
    folder = tmp_path / "shards"
    orphan, under_way, abandoned = (folder / f"{letter * 32}.npy" for letter in "abc")
    under_way, abandoned = (path.with_suffix(".npy.tmp") for path in (under_way, abandoned))
    orphan.write_bytes(b"123")
    under_way.write_bytes(b"123")
    abandoned.write_bytes(b"12345")
    long_ago = time.time() - 2 * room.ABANDONED
    os.utime(abandoned, (long_ago, long_ago))
    assert cache.sweep() == 8
    assert len(shards(tmp_path)) == 3 and under_way.exists()
    np.testing.assert_array_equal(cache.rows(KEY, names(20))[:], rows)


def test_two_processes_may_write_at_once(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start), "20"])
        for start in (0, 10)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    rows = Cache(tmp_path).rows(KEY, [f"{shard}-{i}" for shard in range(30) for i in range(50)])
    np.testing.assert_array_equal(rows[:][:, 0], np.repeat(np.arange(30), 50))


def test_a_killed_writer_leaves_whole_shards_only(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), "0", "10000"], stdout=subprocess.PIPE
        )
        writer.stdout.readline()
        while not list(tmp_path.glob("shards/*.npy")):
            assert writer.poll() is None
            time.sleep(0.002)
        time.sleep(rng.uniform(0.05, 0.4))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        cache = Cache(tmp_path)
        digests = [f"{shard}-{i}" for shard in range(300) for i in range(50)]
        absent = set(cache.missing(KEY, digests))
        done = [i for i in range(len(digests)) if i not in absent]
        assert done == list(range(len(done))) and len(done) % 50 == 0
        np.testing.assert_array_equal(
            cache.rows(KEY, [digests[i] for i in done])[:][:, -1], np.array(done) // 50
        )
    assert done


def limited(folder, limit: int) -> subprocess.CompletedProcess:
    """A writer that may write no file above `limit` bytes."""
    words = [sys.executable, "-c", WRITER.replace("(50, 40)", "(50, 40000)"), str(folder), "0", "1"]
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_full_disk_says_where_how_much_and_what_to_try(tmp_path):
    done = limited(tmp_path, 200_000)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert f"the cache in {tmp_path} can't be written: File too large. Needed: 7.6 MiB more" in said
    assert (
        "free on that disk. Make room there (tfxfer cache --clear), "
        "or choose another folder with --cache DIR." in said
    )
    assert shards(tmp_path) == []


def test_rows_that_can_not_fit_are_refused_before_they_are_computed(tmp_path):
    cache = Cache(tmp_path)
    cache.require(1000)
    with pytest.raises(
        CacheError,
        match=r"can't be written: No space left. Needed: \d+\.\d GiB more, .* free on that disk",
    ):
        cache.require(10**15)


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CacheError,
        match=(
            "the cache in .*file/cache can't be used: Not a directory. "
            "Choose another folder with --cache DIR"
        ),
    ):
        Cache(tmp_path / "file" / "cache")


def test_a_damaged_index_says_what_to_delete(tmp_path):
    filled(tmp_path)
    (tmp_path / "index.sqlite3").write_bytes(b"not a database, " * 100)
    with pytest.raises(
        CacheError,
        match=(
            "the index of the cache in .* is damaged: file is not a database. "
            r"Delete .*index\.sqlite3 and .*shards"
        ),
    ):
        Cache(tmp_path)


def test_an_open_transaction_of_another_process_is_waited_for(tmp_path):
    cache, _ = filled(tmp_path)
    other = sqlite3.connect(tmp_path / "index.sqlite3", isolation_level=None)
    other.execute("begin immediate")
    assert cache.missing(KEY, names(3)) == []
    other.execute("rollback")
    other.close()


def test_a_temporary_cache_is_gone_afterwards(tmp_path):
    with room.temporary(tmp_path / "t") as cache:
        cache.append(KEY, ["a"], numbers(1))
        assert cache.missing(KEY, ["a"]) == []
    assert not (tmp_path / "t").exists()


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.delenv("TFXFER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "tfxfer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "tfxfer"


def persons_files(folder) -> dict:
    """Files and folders that a person might keep in a folder `shards`, long untouched."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my.npy").write_bytes(b"numbers")
    (folder / "old.tar").write_bytes(b"tar")
    (folder / "notes.npy.tmp").write_bytes(b"notes")
    (folder / f"{'A' * 32}.npy").write_bytes(b"upper case is not ours")
    (folder / f"{'d' * 32}.npy").mkdir()
    (folder / f"{'d' * 32}.npy" / "inside.txt").write_text("text")
    (folder / f"{'e' * 32}.npy").symlink_to(folder / "my.npy")
    long_ago = time.time() - 2 * room.ABANDONED
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    return content(folder)


def content(folder) -> dict:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("how", ["sweep", "clear", "remove"])
def test_nothing_is_removed_but_what_is_made_here(tmp_path, how):
    cache, _ = filled(tmp_path)
    made = {path.name for path in shards(tmp_path)}
    before = persons_files(tmp_path / "shards")
    (tmp_path / "thesis.txt").write_text("chapter")
    {"sweep": cache.sweep, "clear": cache.clear, "remove": lambda: remove_cache(tmp_path)}[how]()
    after = content(tmp_path / "shards")
    assert {name: after.get(name, b"") for name in before if name.name not in made} == {
        name: text for name, text in before.items() if name.name not in made
    }
    assert (tmp_path / "thesis.txt").read_text() == "chapter"
    assert (tmp_path / "shards" / f"{'e' * 32}.npy").is_symlink()


def test_a_folder_shards_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path):
    persons_files(tmp_path / "shards")
    (tmp_path / "shards" / f"{'a' * 32}.npy").write_bytes(b"named by a hash")
    before = content(tmp_path)
    with pytest.raises(CacheError) as caught:
        Cache(tmp_path)
    assert str(tmp_path / "shards") in str(caught.value)
    assert {name: content(tmp_path).get(name) for name in before} == before


def test_an_index_of_another_program_is_refused_and_left_as_it_is(tmp_path):
    other = sqlite3.connect(tmp_path / "index.sqlite3")
    other.execute("create table photos (id integer)")
    other.commit()
    other.close()
    before = (tmp_path / "index.sqlite3").read_bytes()
    with pytest.raises(CacheError, match="photos"):
        Cache(tmp_path)
    assert (tmp_path / "index.sqlite3").read_bytes() == before


def test_a_cache_beside_other_files_works(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    _, rows = filled(tmp_path)
    np.testing.assert_array_equal(Cache(tmp_path).rows(KEY, names(20))[:], rows)


@pytest.mark.parametrize("place", [0, 60, 200, -1])
def test_a_flipped_bit_is_noticed_and_the_shard_forgotten(tmp_path, place):
    cache, rows = filled(tmp_path)
    shard = shards(tmp_path)[0]
    damaged = bytearray(shard.read_bytes())
    damaged[place] ^= 1
    shard.write_bytes(damaged)
    assert cache.missing(KEY, names(20)) == list(range(12))
    cache.append(KEY, names(12), rows[:12])
    np.testing.assert_array_equal(cache.rows(KEY, names(20))[:], rows)


def test_a_bit_that_flips_after_the_look_up_is_an_error(tmp_path):
    cache, _ = filled(tmp_path)
    rows = cache.rows(KEY, names(20))
    shard = shards(tmp_path)[0]
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(CacheError, match=shard.name):
        rows[0]


def test_an_index_of_the_first_version_goes_on_and_gets_checksums(tmp_path):
    cache, rows = filled(tmp_path)
    with sqlite3.connect(tmp_path / "index.sqlite3") as index:
        index.execute("alter table shards drop column checksum")
        index.execute("pragma application_id = 0")
    index.close()
    cache = Cache(tmp_path)
    assert cache.missing(KEY, names(20)) == []
    np.testing.assert_array_equal(cache.rows(KEY, names(20))[:], rows)
    with sqlite3.connect(tmp_path / "index.sqlite3") as index:
        checksums = [value for (value,) in index.execute("select checksum from shards")]
    index.close()
    assert [len(value) for value in checksums] == [64, 64]


def test_an_index_that_points_elsewhere_is_not_followed(tmp_path):
    cache, _ = filled(tmp_path / "cache")
    np.save(tmp_path / "secret.npy", numbers(12))
    with sqlite3.connect(tmp_path / "cache" / "index.sqlite3") as index:
        index.execute("update shards set file = '../../secret.npy', checksum = null where id = 1")
        index.execute("update rows set row = 1000 where shard = 2")
    index.close()
    assert cache.missing(KEY, names(12)) == list(range(12))
    with pytest.raises(CacheError, match="lacks 8 of 8"):
        cache.rows(KEY, names(8, 12))
