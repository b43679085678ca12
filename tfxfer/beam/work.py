"""Files in the staging folder, and the workers that use them, which may be on other machines.

    plan.json, network.pb    what is computed
    todo/NAME.json           a list of files, and which rows of each are wanted
    done/NAME.npz            the rows of that list

Every file is written under another name and then renamed, so that it is complete or not there.
"""

import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.framework.graph_pb2 import GraphDef

from tfxfer import data, inputs, tasks
from tfxfer.backbone import Prefix
from tfxfer.data import Examples
from tfxfer.errors import DataError, MissingExtraError
from tfxfer.features import Computation, compute_batches, decoder_for, of_plain, of_prefix
from tfxfer.tasks import CLASSIFY

try:
    import apache_beam
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.utils.shared import Shared
except ImportError as error:
    raise MissingExtraError("tfxfer extract", "beam") from error


LOST = 70  # exit status of a pipeline that lost a worker process


class Where(NamedTuple):
    """How a worker finds the examples again; see `tfxfer.data.load`."""

    data_dir: str | None = None
    task: str = CLASSIFY.NAME
    labels: tuple[str, ...] = ()


BY_NAME = Where()


@dataclass(frozen=True)
class Plan:
    """The computation of features for some images, in a form that workers can read.

    These are the features of the network, and the plain values (see `Kind.plain`) that recipes
    compare them with.
    """

    prefix: Prefix
    source: str
    where: Where
    engine: str
    precision: str
    mirror: bool
    batch_size: int

    def computations(self) -> list[Computation]:
        """The computation of the features, which is the same on every machine."""
        plain = of_plain(inputs.find(self.prefix.takes.KIND))
        features = of_prefix(self.prefix, self.engine, self.precision, mirror=self.mirror)
        return [features] if plain is None else [features, plain]


def keep_plan(home: str, plan: Plan) -> None:
    """Write the plan for the workers.

    The network is a file of its own, because the description of a pipeline has to be small.
    """
    write(f"{home}/network.pb", plan.prefix.graph.SerializeToString())
    write(f"{home}/input.pb", plan.prefix.takes.apart())
    facts = asdict(replace(plan, prefix=replace(plan.prefix, graph=None)))  # type: ignore[arg-type]
    takes = plan.prefix.takes
    facts["prefix"]["takes"] = {"kind": takes.KIND, **takes.settings()}
    write(f"{home}/plan.json", json.dumps(facts).encode())


def plan_of(home: str) -> Plan:
    """Read the plan that `keep_plan` wrote."""
    facts = json.loads(read(f"{home}/plan.json"))
    prefix = with_tuples(facts.pop("prefix"))
    kind = inputs.find(prefix["takes"]["kind"])
    prefix["takes"] = kind.restore(prefix["takes"], read(f"{home}/input.pb"))
    prefix["graph"] = GraphDef.FromString(read(f"{home}/network.pb"))
    data_dir, task, labels = facts.pop("where")
    where = Where(data_dir=data_dir, task=task, labels=tuple(labels))
    return Plan(prefix=Prefix(**prefix), where=where, **facts)


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with tuples in place of the lists that JSON has made of them."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


class Worker:
    """Computes lists in one process; the network is loaded and the source is listed only once."""

    def __init__(self, home: str):
        self.home = home
        self.plan = plan_of(home)
        where = self.plan.where
        source = data.find_source(
            self.plan.source, where.data_dir, task=tasks.find(where.task), labels=where.labels
        )
        if source is None:
            raise DataError(
                f"{self.plan.source} is not there on a worker. "
                "Every worker has to see the files under the same path."
            )
        self.found = source
        self.position = {file: i for i, file in enumerate(source.files)}
        # An engine takes seconds to start, so the same one serves all lists.
        self.computations = [
            replace(how, start=cache(how.start)) for how in self.plan.computations()
        ]

    def __call__(self, name: str) -> None:
        """Compute the list of that name, unless this was done before."""
        done = f"{self.home}/done/{name}.npz"
        if FileSystems.exists(done):
            return
        listed = json.loads(read(f"{self.home}/todo/{name}.json"))
        files, wanted = listed["files"], iter(listed["wanted"])
        bad: dict[int, str] = {}

        def look(i: int) -> bytes:
            if files[i] not in self.position:
                raise ValueError("it is not there on a worker")
            return self.found.kind.readable(self.found.read(self.position[files[i]]), files[i])

        count = len(files)
        examples = Examples(
            files=tuple(files),
            labels=np.zeros(count, np.int32),
            splits=("train",) * count,
            classes=("",),
            digests=tuple(listed["digests"]),
            read=look,
            source=self.plan.source,
            kind_name=self.found.kind_name,
        )
        parts: dict[str, Any] = {}
        keys: list[dict[str, Any]] = []
        for how in self.computations:
            held: list[tuple[list[int], list[np.ndarray]]] = [([], []) for _ in how.keys]
            mine = [next(wanted) for _ in how.keys]
            for _, views in compute_batches(
                how,
                decoder_for(how, examples, self.plan.batch_size),
                mine,
                bad=bad,
            ):
                for number, at, values in views:
                    held[number][0].extend(at)
                    held[number][1].append(values)
            for key, (positions, rows) in zip(how.keys, held, strict=True):
                if positions:
                    parts[f"digests{len(keys)}"] = np.array(
                        [examples.digests[i] for i in positions]
                    )
                    parts[f"rows{len(keys)}"] = np.concatenate(rows)
                    keys.append(key)
        named = {files[i]: reason for i, reason in bad.items()}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            about=np.array(json.dumps({"keys": keys, "images": count, "bad": named})),
            **parts,
        )
        write(done, buffer.getvalue())


class Compute(apache_beam.DoFn):
    """Decoding and inference in one stage, which takes names of lists and returns nothing."""

    def __init__(self, home: str):
        self.home, self.shared = home, Shared()

    def process(self, element: str) -> Iterator[None]:
        """Compute that list."""
        self.shared.acquire(lambda: Worker(self.home))(element)
        yield from ()


def read(path: str) -> bytes:
    """Read a file, on any file system that Beam knows."""
    with FileSystems.open(path, compression_type="uncompressed") as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """Write a file completely or not at all; a file that exists already is replaced."""
    aside = f"{path}.{os.getpid()}-{uuid.uuid4().hex}.tmp"
    with FileSystems.create(aside, compression_type="uncompressed") as file:
        file.write(content)
    FileSystems.rename([aside], [path])


def found(pattern: str) -> list[str]:
    """The files that match a pattern, sorted."""
    return sorted(each.path for each in FileSystems.match([pattern])[0].metadata_list)


def remove(*paths: str) -> None:
    """Delete files, and folders, whose names end with a slash, as far as they exist."""
    for path in paths:
        with suppress(BeamIOError):
            FileSystems.delete([path])
