"""Extraction by several processes, compared with that of the local engine."""

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import texts
from loaded import python

from tfxfer import beam, data
from tfxfer.backbone import Backbone
from tfxfer.beam import work
from tfxfer.beam.work import Worker, keep_plan
from tfxfer.cache import Cache
from tfxfer.errors import ImageError
from tfxfer.features import extract, plain_values, prepare_missing

TWO = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@pytest.fixture
def examples(photos) -> data.Examples:
    return data.load(photos)


@pytest.fixture
def prefix(tiny_savedmodel):
    network = Backbone(tiny_savedmodel, trainable=False)
    return network.prefix(len(network.stages))


def kept(folder: Path) -> list[tuple[str, str, int]]:
    """Keys and rows of a cache, in the order of the keys."""
    return sorted(
        (entry.description["kind"], json.dumps(entry.description), entry.rows)
        for entry in Cache(folder).summary()
    )


# The pipeline is started by that Python, too.
COMMAND = "import sys; sys.executable = sys.argv.pop(1); from tfxfer.cli import main; main()"


def tfxfer(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python(), "-c", COMMAND, python(), *map(str, words)], capture_output=True, text=True
    )


@pytest.fixture
def quick_start(monkeypatch):
    """Start pipelines by a Python that has loaded everything already."""
    monkeypatch.setattr(sys, "executable", python())


@pytest.mark.long
def test_two_processes_fill_a_cache_that_frozen_reads(
    examples, prefix, photos, tiny_savedmodel, tmp_path
):
    done = tfxfer(
        "extract",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--to",
        tmp_path / "beam",
        "--mirror",
        "--",
        *TWO,
    )
    assert done.returncode == 0, done.stderr
    assert "60 of 60 photos computed." in done.stdout and "run frozen --data" in done.stdout
    local = Cache(tmp_path / "local")
    features, pixels = (
        extract(examples, prefix, cache=local, mirror=True, progress=False),
        plain_values(examples, cache=local),
    )
    # The command also keeps what it tried to find the range of pixels.
    assert set(kept(tmp_path / "local")) <= set(kept(tmp_path / "beam"))
    cache = Cache(tmp_path / "beam")
    np.testing.assert_allclose(
        extract(examples, prefix, cache=cache, mirror=True, progress=False)[:],
        features[:],
        atol=1e-5,
    )
    np.testing.assert_array_equal(plain_values(examples, cache=cache)[:], pixels[:])
    before = sorted(path.name for path in (tmp_path / "beam" / "shards").iterdir())
    ran = tfxfer(
        "run",
        "frozen",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--cache",
        tmp_path / "beam",
        "--mirror",
        "yes",
        "--out",
        tmp_path / "run",
    )
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "beam" / "shards").iterdir()) == before


@pytest.mark.long
def test_texts_are_computed_with_their_tokenizer(tmp_path):
    folder = texts.save_network(tmp_path / "network")
    table = texts.write_table(tmp_path / "notes.csv", count=40)
    words = ("--data", table, "--backbone", folder)
    done = tfxfer("extract", *words, "--to", tmp_path / "beam")
    assert done.returncode == 0 and "40 of 40 texts computed." in done.stdout, done.stderr
    before = sorted(path.name for path in (tmp_path / "beam" / "shards").iterdir())
    next_words = shlex.split(done.stdout)
    ran = tfxfer(*next_words[next_words.index("run") :], "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "beam" / "shards").iterdir()) == before


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is one of Beam's workers, and not the shell that started it."""
    try:
        return "sdk_worker_main" in " ".join(process.cmdline()) and not process.children()
    except psutil.NoSuchProcess:  # such as one that an earlier test left to be reaped
        return False


def kill_a_worker(folder: Path, ended: threading.Event, killed: list[psutil.Process]) -> None:
    """Kill one of Beam's workers when the first features are in the cache."""
    while not ended.wait(0.02):
        workers = list(filter(is_worker, psutil.Process().children(recursive=True)))
        if len(workers) == 2 and list(folder.glob("shards/*.npy")):
            workers[0].kill()
            killed.append(workers[0])
            return


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing(examples, prefix, tmp_path, monkeypatch):
    # Each photo is a list of its own, so dozens are left when the first one is done.
    monkeypatch.setattr(beam, "SMALLEST", 1)
    monkeypatch.setattr(beam, "LOOK", 0.02)
    cache, ended, killed = Cache(tmp_path / "cache"), threading.Event(), []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "cache", ended, killed))
    killer.start()
    try:
        with pytest.raises(
            beam.BeamError,
            match="the pipeline lost a worker process.*The features computed so far are kept",
        ):
            beam.extract(examples, prefix, cache=cache, arguments=TWO, progress=False)
    finally:
        ended.set()
        killer.join()
    assert len(killed) == 1
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", python())
    assert 0 < beam.extract(examples, prefix, cache=cache, progress=False) < len(examples)
    local = Cache(tmp_path / "local")
    expected = extract(examples, prefix, cache=local, progress=False)
    plain_values(examples, cache=local)
    assert kept(tmp_path / "cache") == kept(tmp_path / "local")
    np.testing.assert_allclose(
        extract(examples, prefix, cache=cache, progress=False)[:], expected[:], atol=1e-5
    )


@pytest.fixture
def staged(examples, prefix, tmp_path):
    """A staging folder with one list of all examples, the list's name, and the cache to fill."""
    home, cache = str(tmp_path / "staging"), Cache(tmp_path / "cache")
    plan = beam.Plan(
        prefix=prefix,
        source=examples.source,
        where=beam.BY_NAME,
        engine="tensorflow",
        precision="float32",
        mirror=False,
        batch_size=32,
    )
    keep_plan(home, plan)
    beam.keep_list(
        home,
        examples,
        list(range(len(examples))),
        wanted=[
            set(view)
            for how in plan.computations()
            for view in prepare_missing(how, cache, examples)
        ],
    )
    (name,) = [path.stem for path in Path(home, "todo").iterdir()]
    return home, name, cache


def test_a_worker_finds_the_photos_of_a_table_without_a_column_label(prefix, photos, tmp_path):
    files = sorted(photos.rglob("*.jpg"))[:4]
    table = tmp_path / "photos.csv"
    table.write_text("path,red\n" + "\n".join(f"{file},{i / 4}" for i, file in enumerate(files)))
    plan = beam.Plan(
        prefix=prefix,
        source=str(table),
        where=beam.Where(task="regress", labels=("red",)),
        engine="tensorflow",
        precision="float32",
        mirror=False,
        batch_size=32,
    )
    keep_plan(str(tmp_path), plan)
    assert list(Worker(str(tmp_path)).position) == [str(file) for file in files]


@pytest.mark.long
def test_a_bundle_that_is_tried_again_does_nothing_twice(staged, examples):
    home, name, cache = staged
    worker = Worker(home)
    worker(name)
    (done,) = Path(home, "done").iterdir()
    first = done.stat().st_mtime_ns
    worker(name)
    assert done.stat().st_mtime_ns == first
    assert beam.gather(home, cache) == len(examples)
    rows, shards = kept(cache.folder), sorted(os.listdir(cache.shards))
    worker(name)  # as when the runner was not told that it was done
    assert beam.gather(home, cache) == len(examples)
    assert (kept(cache.folder), sorted(os.listdir(cache.shards))) == (rows, shards)


def test_a_worker_that_dies_while_it_writes_leaves_nothing_half_done(staged, examples, monkeypatch):
    home, name, cache = staged
    monkeypatch.setattr(work.FileSystems, "rename", lambda *a: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        Worker(home)(name)
    assert beam.gather(home, cache) == 0 and not cache.summary()


@pytest.mark.long
def test_files_that_cannot_be_read_are_named_and_the_rest_is_done(
    photos, prefix, tmp_path, quick_start
):
    folder, cache = tmp_path / "photos", Cache(tmp_path / "cache")
    subprocess.run(["cp", "-r", str(photos), str(folder)], check=True)
    examples = data.load(folder)
    (folder / "china" / "china03.jpg").write_bytes(b"another file by now")
    (folder / "flower" / "flower07.jpg").unlink()
    with pytest.raises(ImageError) as caught:
        beam.extract(examples, prefix, cache=cache, progress=False)
    changed, gone = (
        "china/china03.jpg (it was changed after it was listed; run again)",
        "flower/flower07.jpg (it is not there on a worker)",
    )
    assert f"2 photos can't be decoded: {changed}; {gone}. All others" in str(caught.value)
    assert str(caught.value).endswith(
        "All others are done. Remove or mend them, or use --skip-bad-images."
    )
    assert {rows for _, _, rows in kept(cache.folder)} == {len(examples) - 2}
    assert beam.extract(examples, prefix, cache=cache, skip_bad_images=True, progress=False) == 2


@pytest.mark.long
def test_images_that_the_workers_cannot_see_are_told(examples, prefix, tmp_path, quick_start):
    (tmp_path / "elsewhere").mkdir()
    moved = data.load(os.path.relpath(examples.source))
    here = os.getcwd()
    os.chdir(tmp_path / "elsewhere")
    try:
        with pytest.raises(
            beam.BeamError,
            match=(
                "the pipeline ended with exit status 1: .* is not there on a worker. "
                "Every worker has to see"
            ),
        ):
            beam.extract(moved, prefix, cache=Cache(tmp_path / "cache"), progress=False)
    finally:
        os.chdir(here)


@pytest.mark.long
def test_beam_is_an_extra():
    code = (
        "import sys; sys.modules['apache_beam'] = None; from tfxfer.cli import main; "
        "main(['extract', '--data', 'demo', '--to', 'x'])"
    )
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "tfxfer[beam]"' in done.stderr
    assert "Traceback" not in done.stderr
