"""The same training by one process, by logical CPUs, and by real processes over loopback."""

import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loaded import python

from tfxfer.distribute import launch, workers

HERE = Path(__file__).parent
WAYS = {
    "one": (1, "one"),
    "2 CPUs": (1, "mirrored", "2"),
    "2 workers": (2, "multiworker"),
    "3 workers": (3, "multiworker"),
}
LONG = ("2 CPUs", "2 workers", "3 workers")


def processes(count: int, script: str, *words: str) -> list[subprocess.Popen]:
    """So many workers of one cluster, that run a script."""
    addresses = launch.free_addresses(count)
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    started = []
    for index in range(count):
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            **({"TF_CONFIG": launch.config(addresses, index)} if count > 1 else {}),
        }
        started.append(
            subprocess.Popen(
                [python(), script, *words],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_savedmodel, photos) -> Callable[[str], list[dict]]:
    """Way of computing -> what each of its workers found."""

    @functools.cache
    def of(way: str) -> list[dict]:
        count, *words = WAYS[way]
        out = tmp_path_factory.mktemp("out")
        for process in processes(
            count, str(HERE / "under_strategy.py"), str(out), tiny_savedmodel, str(photos), *words
        ):
            said, _ = process.communicate(timeout=600)
            assert process.returncode == 0, said[-3000:]
        return [json.loads((out / f"worker-{i}.json").read_text()) for i in range(count)]

    return of


# Three workers share batches in another way, and one of them may get nothing. What is trained in
# these batches makes no difference, so they train in one way only.
LIKE_TWO = ("2 CPUs", "2 workers")

ways = [pytest.param(way, marks=pytest.mark.long if way in LONG else ()) for way in WAYS]


@pytest.mark.long
@pytest.mark.parametrize("way", LIKE_TWO)
def test_the_losses_of_20_steps_are_those_of_one_process(way, found):
    one = found("one")[0]["frozen statistics"]
    assert len(one["losses"]) == 20
    for each in found(way):
        np.testing.assert_allclose(each["frozen statistics"]["losses"], one["losses"], atol=1e-4)
        for name, values in one["history"].items():
            np.testing.assert_allclose(
                each["frozen statistics"]["history"][name], values, atol=1e-4, err_msg=name
            )


@pytest.mark.long
@pytest.mark.parametrize("way", LIKE_TWO)
def test_evaluate_and_predict_give_the_figures_of_all_examples(way, found):
    one = found("one")[0]["frozen statistics"]
    for each in found(way):
        np.testing.assert_allclose(
            each["frozen statistics"]["evaluate"], one["evaluate"], atol=1e-4
        )
        np.testing.assert_allclose(each["frozen statistics"]["predict"], one["predict"], atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("way", LIKE_TWO)
def test_moving_statistics_are_the_same_for_every_worker_and_near_those_of_one_process(way, found):
    one, mine = (
        found("one")[0]["moving statistics"],
        [each["moving statistics"] for each in found(way)],
    )
    frozen = found("one")[0]["frozen statistics"]["statistics"]
    for each in mine:
        assert each == mine[0] and each != frozen
        np.testing.assert_allclose(each, one, rtol=0.1)


@pytest.mark.long
@pytest.mark.parametrize(
    "recipe, way",
    [
        *(("full", way) for way in LONG),
        *((recipe, way) for recipe in ("partial", "head") for way in LIKE_TWO),
    ],
)
def test_uneven_batches_train_as_in_one_process(recipe, way, found):
    one = found("one")[0][recipe]
    for each in found(way):
        for epoch, expected in zip(each[recipe]["history"], one["history"], strict=True):
            np.testing.assert_allclose(list(epoch.values()), list(expected.values()), atol=1e-4)
        np.testing.assert_allclose(each[recipe]["predict"], one["predict"], atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("way", LIKE_TWO)
def test_weights_fade_as_in_one_process(way, found):
    for each in found(way):
        np.testing.assert_allclose(each["faded"], found("one")[0]["faded"], rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("way", ways)
def test_every_example_is_seen_once_an_epoch(way, found):
    for name in found(way)[0]["seen"]:
        rows = sorted(row for each in found(way) for row in each["seen"][name])
        assert rows == list(range(int(name.split()[0])))


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
@pytest.mark.parametrize("count, size", [(1, 8), (23, 8), (24, 8), (7, 3)])
def test_rows_are_dealt_out_once_and_batches_stay_together(replicas, count, size):
    rows, parts = np.random.default_rng(0).permutation(count), []
    for first in range(replicas):
        mine, real, chunk = workers.deal_rows(rows, size, replicas, first=first, count=1)
        assert len(mine) == chunk * -(-count // size)
        parts.append([mine[i : i + chunk][real[i : i + chunk]] for i in range(0, len(mine), chunk)])
    for step, start in enumerate(range(0, count, size)):
        np.testing.assert_array_equal(
            np.concatenate([part[step] for part in parts]), rows[start : start + size]
        )


PLAIN = """
import os, sys
import keras, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=False)
model.fit(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"), batch_size=4, verbose=0)
"""


@pytest.mark.long
@pytest.mark.xfail(
    strict=True,
    reason="keras-team/keras #20585: when it passes, tfxfer/distribute/multiworker.py can go",
)
def test_plain_keras_fits_under_several_workers(tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    for process in processes(2, str(tmp_path / "plain.py")):
        process.communicate(timeout=200)
        assert process.returncode == 0
