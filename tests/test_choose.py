"""Which network to take: judged on training examples alone, by neighbours and then by heads."""

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from savedmodels import save_reusable

import tfxfer
from tfxfer.cache import Cache
from tfxfer.cli import main
from tfxfer.data import from_arrays
from tfxfer.errors import DataError, HandleError
from tfxfer.features import Extractor
from tfxfer.heads.nearest import score_neighbours
from tfxfer.recipes.frozen import frozen
from tfxfer.steps import choose_network
from tfxfer.tasks import CLASSIFY


def save_network(folder, layer) -> str:
    """A network that sees what a layer leaves of an image, and whose graph tells its range."""
    inputs = keras.Input((16, 16, 3))
    x = layer(keras.layers.Rescaling(2.0, offset=-1.0)(inputs))
    features = keras.layers.Dense(48)(keras.layers.Flatten()(x))
    return save_reusable(keras.Model(inputs, features), folder)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, str]:
    """One network that sees where an image is light, and two that see next to nothing."""
    folder = tmp_path_factory.mktemp("networks")
    keras.utils.set_random_seed(0)
    return {
        "places": save_network(folder / "places", keras.layers.AveragePooling2D(4)),
        "corner": save_network(folder / "corner", keras.layers.Cropping2D(((0, 15), (0, 15)))),
        "blind": save_network(folder / "blind", keras.layers.GlobalMaxPooling2D()),
    }


@pytest.fixture(scope="module")
def examples():
    """Images of which one quarter is light: the class says which one."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    images = rng.uniform(0, 0.6, (160, 16, 16))
    for image, label in zip(images, labels, strict=True):
        image[8 * (label // 2) :][:8, 8 * (label % 2) :][:, :8] += 0.3
    images[:, -1, -1] = 1.0
    return from_arrays(images, labels)


@pytest.fixture
def extract(tmp_path) -> Extractor:
    return Extractor(Cache(tmp_path / "cache"))


@pytest.mark.long
def test_the_network_that_sees_the_difference_is_chosen(networks, examples, extract):
    found = choose_network(examples, list(networks.values()), extract)
    assert found.best.name == networks["places"]
    assert found.best.scores.mean() > 0.9
    assert [len(row) for row in found.rows()] == [6] * 4
    # The best two on the sample are judged by a head; the third is not.
    assert sorted(one.scores is None for one in found.tried) == [False, False, True]


@pytest.mark.long
def test_a_network_that_is_clearly_worse_is_left_behind_after_a_few_examples(
    networks, examples, extract, tmp_path
):
    finer = save_network(tmp_path / "finer", keras.layers.AveragePooling2D(2))
    among = [networks["blind"], networks["places"], finer]
    found = choose_network(examples, among, extract)
    sampled = {one.name: len(one.sampled) for one in found.tried}
    everything = len(examples.where("train"))
    assert sampled == {networks["places"]: everything, finer: everything, networks["blind"]: 64}
    assert found.tried[-1].name == networks["blind"]


@pytest.mark.long
def test_test_examples_are_not_looked_at(networks, examples, extract):
    read = []

    def note(i: int) -> bytes:
        read.append(i)
        return examples.read(i)

    watched = type(examples)(**(vars(examples) | {"read": note}))
    choose_network(watched, [networks["places"]], extract)
    assert read and set(read) <= set(examples.where("train").tolist())


@pytest.mark.long
def test_without_time_only_one_network_is_judged_by_a_head(networks, examples, extract):
    found = choose_network(examples, list(networks.values()), extract, minutes=1e-9)
    assert [one.scores is None for one in found.tried] == [False, True, True]


@pytest.mark.long
def test_a_network_that_is_not_there_is_left_out_and_named(networks, examples, extract):
    found = choose_network(examples, [networks["blind"], "no-such-network"], extract)
    assert list(found.left_out) == ["no-such-network"] and found.best.name == networks["blind"]
    with pytest.raises(HandleError, match="no-such-network"):
        choose_network(examples, ["no-such-network"], extract)


def save_keras(path, mean: float) -> str:
    """A network as a .keras file; with a mean of 0, its BatchNorm is as before training."""
    inputs = keras.Input((16, 16, 3))
    norm = keras.layers.BatchNormalization(
        moving_mean_initializer=keras.initializers.Constant(mean)
    )
    x = norm(keras.layers.Conv2D(8, 4, strides=4, use_bias=False)(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.layers.ReLU()(x)))
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 16, 16, 3)), np.zeros((2, 128)), epochs=0)
    model.save(path)
    return str(path)


@pytest.mark.long
def test_a_network_with_random_weights_is_not_tried_where_others_are(examples, extract, tmp_path):
    random = save_keras(tmp_path / "random.keras", 0.0)
    trained = save_keras(tmp_path / "trained.keras", 0.1)
    found = choose_network(examples, [random, trained], extract)
    assert list(found.left_out) == [random] and "random" in found.left_out[random]
    assert [one.name for one in found.tried] == [trained]
    alone = choose_network(examples, [random], extract)
    assert not alone.left_out and alone.best.name == random
    beside_none = choose_network(examples, [random, "no-such-network"], extract)
    assert list(beside_none.left_out) == ["no-such-network"] and beside_none.best.name == random


def test_a_damaged_network_is_left_out_before_others_are_tried(extract, examples, tmp_path):
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(b"PK not really")
    with pytest.raises(HandleError, match="damaged.keras"):
        choose_network(examples, [str(damaged)], extract)


def test_too_few_examples_are_told(networks, extract):
    few = from_arrays(np.random.default_rng(0).random((6, 16, 16)), [0, 0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="--backbone"):
        choose_network(few, list(networks.values()), extract)


def test_neighbours_of_the_same_group_do_not_count():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.standard_normal((20, 8)), 6, axis=0)
    labels = np.repeat(rng.integers(0, 2, 20), 6)
    groups = np.repeat(np.arange(20), 6)
    alone = score_neighbours(features, labels, 2, task=CLASSIFY, units=None)
    grouped = score_neighbours(features, labels, 2, task=CLASSIFY, units=groups)
    assert alone.mean() == 1 and grouped.mean() < 0.8


@pytest.mark.long
def test_the_command_says_what_to_type_next(networks, examples, tmp_path):
    folder = tmp_path / "photos"
    for i in range(80):
        (folder / examples.classes[examples.labels[i]]).mkdir(parents=True, exist_ok=True)
        (folder / examples.classes[examples.labels[i]] / f"{i}.png").write_bytes(examples.read(i))
    words = [word for name in networks.values() for word in ("--among", name)]
    options = ["--data", str(folder), "--cache", str(tmp_path / "cache")]
    answer = CliRunner().invoke(main, ["choose", *options, *words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    last = answer.stdout.strip().splitlines()[-1]
    assert f"run frozen --data {folder} --backbone {networks['places']}" in last


@pytest.mark.long
def test_a_run_with_auto_takes_the_network_that_is_chosen(
    networks, examples, tmp_path, monkeypatch
):
    names = list(networks.values())  # the five real ones take minutes
    monkeypatch.setattr("tfxfer.steps.extraction.offline_names", lambda kind: names)
    run = tfxfer.Run(tmp_path / "run", cache=str(tmp_path / "cache"))
    frozen(run, data=examples, backbone="auto")
    settings = tfxfer.load(tmp_path / "run").run.settings()
    assert settings["chosen_backbone"]["value"] == networks["places"]
    assert settings["backbone"]["value"] == "auto"
    for page in ("report.html", "MODEL_CARD.md"):
        assert networks["places"] in (tmp_path / "run" / page).read_text()
