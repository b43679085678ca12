"""Training batches from a real tf.data service with two workers, on loopback."""

import io
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from logs import logged
from PIL import Image

from tfxfer import data, tuning
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.distribute import dataservice, launch
from tfxfer.errors import DataError, DistributeError
from tfxfer.features import extract


@pytest.fixture(scope="module")
def service():
    """The address of the service's dispatcher."""
    made = tf.data.experimental.service
    dispatcher = made.DispatchServer(made.DispatcherConfig(port=0))
    address = dispatcher.target.removeprefix("grpc://")
    workers = [
        made.WorkerServer(made.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=100))
        for _ in range(2)
    ]
    yield address
    for worker in workers:
        worker._stop()
    dispatcher._stop()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    """Features are computed once for all tests."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def world(photos, tiny_savedmodel, cache):
    network = Backbone(tiny_savedmodel, trainable=False, batch_norm="inference")
    return network, extract(data.load(photos), network.prefix(3), cache=cache, progress=False)


def batches(
    source: tuning.Source, rows: np.ndarray, number: int, done: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (x.numpy(), y.numpy())
        for x, y in source.batches(rows, 7, 3, tf.distribute.get_strategy())(number, done)
    ]


@pytest.mark.long
@pytest.mark.parametrize("done", [0, 2])
def test_batches_are_those_of_this_process_in_its_order(done, world, service):
    network, features = world
    rows = features.examples.where("train")
    here = batches(tuning.from_examples(network, features, augment=("flip", "crop")), rows, 1, done)
    there = batches(
        tuning.from_examples(network, features, augment=("flip", "crop"), service=service),
        rows,
        1,
        done,
    )
    assert [len(x) for x, _ in there] == [len(x) for x, _ in here]  # the last one isn't full
    for (x, y), (expected, labels) in zip(there, here, strict=True):
        np.testing.assert_allclose(x, expected, atol=1e-6)
        np.testing.assert_array_equal(y, labels)


@pytest.mark.long
def test_two_replicas_share_each_batch(world, service):
    network, features = world
    rows, strategy = (
        features.examples.where("train"),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    )
    here = batches(tuning.from_examples(network, features), rows, 0)
    steps = list(
        tuning.from_examples(network, features, service=service).batches(rows, 7, 3, strategy)(0, 0)
    )
    assert len(steps) == len(here)
    for (x, y), (expected, labels) in zip(steps, here, strict=True):
        parts = [
            np.concatenate([part.numpy() for part in strategy.experimental_local_results(values)])
            for values in (x, y)
        ]
        np.testing.assert_allclose(parts[0], expected, atol=1e-6)
        np.testing.assert_array_equal(parts[1], labels)


@pytest.mark.long
def test_a_training_ends_as_one_without_it(world, service, tmp_path):
    network, features = world
    plan, options = (
        tuning.plan(features.examples, 0),
        {"head": "gaussian", "epochs": 1, "rate": 1e-2},
    )
    here, there = (
        tuning.compete(
            [tuning.from_examples(network, features, service=where)],
            features,
            plan,
            folder=tmp_path / str(where),
            **options,
        )
        for where in (None, service)
    )
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-6)


def test_images_that_are_no_files_are_refused(world, service, tmp_path, photos):
    network, features = world
    none = replace(features, examples=replace(features.examples, paths=None, source="demo"))
    with pytest.raises(DataError, match="demo has none.*--data-service"):
        tuning.from_examples(network, none, service=service)
    subprocess.run(["cp", "-r", str(photos), str(tmp_path / "photos")], check=True)
    path = tmp_path / "photos" / "china" / "china00.jpg"
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "TIFF")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(
        DataError,
        match=(
            "can't read 1 files that TensorFlow doesn't decode: china/china00.jpg. "
            "Convert them to JPEG, or leave out --data-service."
        ),
    ):
        tuning.from_examples(
            network, replace(features, examples=data.load(tmp_path / "photos")), service=service
        )


@pytest.mark.parametrize("address", ["nowhere", "localhost:service"])
def test_an_address_is_host_and_port(address, world):
    network, features = world
    with pytest.raises(
        DistributeError,
        match=(
            f"--data-service {address}: expected host:port of the dispatcher of a tf.data service."
        ),
    ):
        batches(tuning.from_examples(network, features, service=address), np.arange(8), 0)


def test_a_service_that_does_not_answer_is_told(world):
    network, features = world
    (address,) = launch.free_addresses(1)
    with pytest.raises(
        DistributeError,
        match=(
            f"no tf.data service answers at {address}: .*refused. Start its dispatcher, "
            "or leave out --data-service."
        ),
    ):
        batches(tuning.from_examples(network, features, service=address), np.arange(8), 0)


WORKER = """
import sys
import tensorflow as tf
service = tf.data.experimental.service
service.WorkerServer(service.WorkerConfig(sys.argv[1], heartbeat_interval_ms=100)).join()
"""


@pytest.mark.long
def test_a_worker_of_the_service_that_dies_ends_the_training(world, tmp_path, monkeypatch):
    network, features = world
    made = tf.data.experimental.service
    dispatcher = made.DispatchServer(made.DispatcherConfig(port=0))
    address = dispatcher.target.removeprefix("grpc://")
    worker = subprocess.Popen([python(), "-c", WORKER, address])

    def kill_the_worker(line):
        if line.startswith("epoch 1/9"):  # the worker has started, which may take long
            monkeypatch.setattr(dataservice, "PATIENCE", 5.0)
        if line.startswith("epoch 2/9"):
            worker.kill()

    options = {
        "head": "gaussian",
        "epochs": 9,
        "rate": 1e-2,
        "folder": tmp_path / "work",
    }
    try:
        with (
            logged(each=kill_the_worker) as said,
            pytest.raises(DistributeError, match="has sent no batch for two minutes"),
        ):
            tuning.compete(
                [tuning.from_examples(network, features, service=address)],
                features,
                tuning.plan(features.examples, 0),
                **options,
            )
    finally:
        worker.kill()
        worker.wait()
    assert said[-1].startswith("epoch ")
