"""Extract the features of a frozen network with an Apache Beam pipeline.

Many machines compute, and one stores the rows in a cache, under the keys of `features.extract`. If
a pipeline is killed, or a bundle is tried again, nothing is stored incompletely or twice; what
was finished is kept.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

import numpy as np

from tfxfer.backbone import Prefix
from tfxfer.beam.work import BY_NAME, LOST, Plan, Where, found, keep_plan, read, remove, write
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.errors import BeamError, ImageError
from tfxfer.features import Progress, named, prepare_missing

SMALLEST, LISTED = 32, 1024  # fewest and most images in a list
LISTS = 64  # at least, if there are enough images, so that many workers have something to do
LOOK = 0.5  # seconds between two looks for finished lists
# What Beam's log says of options that it ignores.
IGNORED = ("Unparseable argument", "If direct_num_workers is not equal to 1")


def extract(
    examples: Examples,
    prefix: Prefix,
    *,
    cache: Cache,
    runner: str = "DirectRunner",
    arguments: Sequence[str] = (),
    staging: str | None = None,
    where: Where = BY_NAME,
    engine: Literal["tensorflow", "openvino"] = "tensorflow",
    precision: Literal["float32", "bf16"] = "float32",
    batch_size: int = 32,
    mirror: bool = False,
    skip_bad_images: bool = False,
    progress: bool = True,
) -> int:
    """Let a Beam pipeline compute what the cache lacks.

    This is the features, and the small images of `features.plain_values`.

    Args:
        examples: examples from a source that the workers find under the same name, because each of
            them reads `examples.source` again.
        runner: Beam's name of the runner.
        arguments: Beam's own options, such as --direct_num_workers=2.
        where: how the workers find them, besides the name.
        staging: a folder that this machine and every worker can reach, also gs://...; "staging" in
            the cache by default.
        engine, precision, batch_size, mirror, skip_bad_images, progress: as for `features.extract`.

    Returns:
        the number of images that were computed.

    Raises:
        BeamError: the pipeline failed, or lost a worker process. What was finished is in the cache.
        ImageError: some files can't be decoded; the message names them. All others are in the
            cache.
        CacheError: the cache can't be written.
    """
    plan = Plan(
        prefix=prefix,
        source=examples.source,
        where=where,
        engine=engine,
        precision=precision,
        mirror=mirror,
        batch_size=batch_size,
    )
    hows = plan.computations()
    keys = [key for how in hows for key in how.keys]
    home = (
        f"{staging or cache.folder.absolute() / 'staging'}/"
        f"{hashlib.sha256(json.dumps([keys, examples.source]).encode()).hexdigest()[:16]}"
    )
    log = cache.folder / "beam.log"
    gather(home, cache)  # what an earlier pipeline has finished
    wanted = [set(positions) for how in hows for positions in prepare_missing(how, cache, examples)]
    todo = sorted(set().union(*wanted))
    if not todo:
        return 0
    remove(f"{home}/todo/")
    keep_plan(home, plan)
    each = min(LISTED, max(SMALLEST, len(todo) // LISTS))
    for start in range(0, len(todo), each):
        keep_list(home, examples, todo[start : start + each], wanted=wanted)
    bad: dict[str, str] = {}
    with closing(Progress(len(todo), progress, unit=examples.kind.MANY)) as shown:

        def look() -> None:
            if count := gather(home, cache, bad):
                shown.update(count)

        ended = run(home, runner, arguments, log=log, look=look)
        look()
    if ended:
        raise BeamError(
            f"the pipeline {ended}. Its log is {log}. "
            "The features computed so far are kept. Run the same command again to go on."
        )
    remove(f"{home}/todo/", f"{home}/done/", f"{home}/")
    if bad and not skip_bad_images:
        raise ImageError(
            f"{len(bad)} {examples.kind.MANY} can't be decoded: {named(bad)}. "
            "All others are done. Remove or mend them, or use --skip-bad-images."
        )
    return len(todo)


def keep_list(home: str, examples: Examples, positions: list[int], wanted: list[set[int]]) -> None:
    """Write a list of files for a worker.

    Its name is the hash of its content, so that work that is finished already is recognised.
    """
    listed = {
        "files": [examples.files[i] for i in positions],
        "digests": [examples.digests[i] for i in positions],
        "wanted": [[place for place, i in enumerate(positions) if i in view] for view in wanted],
    }
    content = json.dumps(listed).encode()
    write(f"{home}/todo/{hashlib.sha256(content).hexdigest()[:16]}.json", content)


def gather(home: str, cache: Cache, bad: dict[str, str] | None = None) -> int:
    """Move what workers have finished into the cache, and return the number of images.

    Args:
        bad: is filled with the files that can't be decoded: file -> reason.
    """
    count = 0
    for path in found(f"{home}/done/*.npz"):
        with np.load(io.BytesIO(read(path)), allow_pickle=False) as parts:
            about = json.loads(str(parts["about"]))
            for i, key in enumerate(about["keys"]):
                cache.append(key, parts[f"digests{i}"].tolist(), parts[f"rows{i}"])
        count += about["images"]
        if bad is not None:
            bad |= about["bad"]
        remove(path)
    return count


def run(
    home: str, runner: str, arguments: Sequence[str], log: Path, look: Callable[[], None]
) -> str | None:
    """Run the pipeline in another process, and return how it failed; None if it didn't.

    It forms a process group with the workers that it starts, so that all of them are ended with it.

    Args:
        look: is called every `LOOK` seconds while the pipeline runs.
    """
    words = [sys.executable, "-m", "tfxfer.beam", home, runner, *arguments]
    with (
        open(log, "w") as to,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=to, stderr=to, start_new_session=True
        ) as pipeline,
    ):
        try:
            while pipeline.poll() is None:
                time.sleep(LOOK)
                look()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pipeline.pid, signal.SIGKILL)
    said = log.read_text(errors="replace").strip().splitlines()
    for line in said:
        if any(sign in line for sign in IGNORED):
            print(f"Beam: {line}", file=sys.stderr)
    if pipeline.returncode == LOST:
        return "lost a worker process"
    return (
        f"ended with exit status {pipeline.returncode}: {(said or [''])[-1].rstrip('.')}"
        if pipeline.returncode
        else None
    )
