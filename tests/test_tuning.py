"""Fine-tuning: cuts, a training that a kill does not change, the guard, and what is refused."""

import gc
import glob
import itertools
import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from loaded import python
from savedmodels import save_reusable, tiny_network, vision_transformer
from tensorflow.python.framework.func_graph import FuncGraph

from tfxfer import data, tuning
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.cli import main
from tfxfer.errors import TuningError
from tfxfer.features import Decoder, Extractor, extract
from tfxfer.features.engines import tensorflow_engine
from tfxfer.heads import choose
from tfxfer.outcome import of_model
from tfxfer.tasks import CLASSIFY, find
from tfxfer.tuning import checkpoint, competition, setting
from tfxfer.tuning.folds import best_epoch, prepare_folds, train_final
from tfxfer.tuning.frozen import Heads
from tfxfer.tuning.guard import STEPS, Plan, interpolate_weights, plan, verdict
from tfxfer.tuning.input_source import InputSource
from tfxfer.tuning.optimizers import layerwise
from tfxfer.tuning.picking import Costs, describe_seconds, pick_setting
from tfxfer.tuning.setting import Routine, Setting, prepare_fold, train_before
from tfxfer.tuning.source import count_pieces
from tfxfer.tuning.training import HeldOut, ignore, prepare_training, train

X = np.random.default_rng(0).random((24, 6), dtype=np.float32)
Y = np.eye(2, dtype=np.float32)[(X[:, 0] > 0.5).astype(int)]


# --- the network in two ---


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> str:
    """A SavedModel of a small vision transformer."""
    return save_reusable(vision_transformer(depth=2), tmp_path_factory.mktemp("vit") / "m")


@pytest.mark.long
@pytest.mark.parametrize("network", ["tiny_savedmodel", "transformer"])
def test_prefix_and_rest_are_the_network(network, request):
    backbone = Backbone(request.getfixturevalue(network), trainable=False)
    images = np.random.default_rng(0).random((5, 32, 32, 3), dtype=np.float32)
    whole = {taps: backbone.tapped(taps)(images).numpy() for taps in (None, 3)}
    for stages, taps in itertools.product(range(1, len(backbone.stages)), whole):
        prefix, rest = backbone.cut(stages, taps)
        rows = tensorflow_engine(prefix)(images)
        size = int(np.prod(rest.entry_shape))
        late = rest(rows[:, :size].reshape(-1, *rest.entry_shape)).numpy()
        expected = whole[taps][:, -(rows.shape[1] - size + late.shape[1]) :]
        np.testing.assert_allclose(np.concatenate([rows[:, size:], late], 1), expected, atol=2e-6)
        assert [stage.name for stage in rest.stages] == [
            stage.name for stage in backbone.stages[-stages:]
        ]


@pytest.mark.long
def test_the_rest_trains_what_unfreeze_trains_and_gives_it_back(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False, batch_norm="inference")
    _, rest = backbone.cut(2)
    whole = backbone.tapped(None)
    whole.unfreeze(2)
    assert [v.shape for v in rest.trainable_variables] == [
        v.shape for v in whole.trainable_variables
    ]
    for variable in rest.trainable_variables:
        variable.assign(variable + 1.0)
    before = [v.numpy() for v in whole._own]
    whole.take_weights(rest)
    moved = {
        i
        for i, (old, v) in enumerate(zip(before, whole._own, strict=True))
        if not np.array_equal(old, v.numpy())
    }
    assert moved == {i for i, v in enumerate(whole._own) if v.trainable}


@pytest.mark.long
def test_regularization_of_the_rest_counts(tmp_path):
    network = tiny_network(activation="relu")
    kernels = [network.get_layer(name).kernel for name in ("block0_conv", "head_conv")]
    losses = [
        lambda: 0.5 * tf.reduce_sum(kernels[0] ** 2),
        lambda: 0.5 * tf.reduce_sum(kernels[1] ** 2),
    ]
    backbone = Backbone(save_reusable(network, tmp_path / "m", losses=losses), trainable=False)
    _, rest = backbone.cut(1)
    model = keras.Sequential([keras.Input(rest.entry_shape), rest])
    model(np.zeros((1, *rest.entry_shape), np.float32), training=True)
    expected = sum(0.5 * float(np.sum(kernel.numpy() ** 2)) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stages", [0, 3])
def test_there_must_be_something_on_both_sides_of_a_cut(stages, tiny_savedmodel):
    with pytest.raises(
        ValueError, match=rf"Expected 1 to 2 stages after the cut. Received: stages={stages}"
    ):
        Backbone(tiny_savedmodel, trainable=False).cut(stages)


def test_a_stage_that_is_not_there_is_answered_with_the_list(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    assert tuning.stages_of(backbone, "block1") == 2 and tuning.stages_of(backbone, "3") == 3
    for wrong in ("block7", "4", "0"):
        with pytest.raises(
            TuningError,
            match=rf"no stage '{wrong}'.* Expected auto, all, a number from 1 to 3, or a stage: "
            "block0, block1, block2",
        ):
            tuning.stages_of(backbone, wrong)


def test_a_backbone_that_can_not_train_says_why(tmp_path):
    module = tf.Module()
    module.w = tf.Variable(tf.ones((3, 4)))
    serve = tf.function(
        lambda images: {"features": tf.reduce_mean(images, [1, 2]) @ module.w},
        input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, "images")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=serve)
    with pytest.raises(
        TuningError, match=r"can't be fine-tuned: it has signatures only.* Use the recipe frozen"
    ):
        tuning.stages_of(Backbone(str(tmp_path / "m"), trainable=False), "1")


def test_one_image_a_class_cannot_be_judged(photos):
    examples = data.load(str(photos))
    few = examples.take(
        [
            int(examples.where("train")[examples.labels[examples.where("train")] == label][0])
            for label in (0, 1)
        ]
    )
    with pytest.raises(
        TuningError,
        match=(
            "2 training photos, too few photos per class.* "
            "Add photos to each class, or use the recipe frozen"
        ),
    ):
        plan(few, 0)


# --- one training ---


def small() -> tuple[keras.Model, list[np.ndarray]]:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2),
        ]
    )
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    return model, prepare_training(
        model,
        keras.optimizers.SGD(0.0, momentum=0.9),
        batches,
        smoothing=0.1,
        task=CLASSIFY,
        targets=Y.argmax(1),
    )


def batches(epoch: int, done: int) -> tf.data.Dataset:
    order = np.random.default_rng(epoch).permutation(len(X))[4 * done :]
    return tf.data.Dataset.from_tensor_slices((X[order], Y[order])).batch(4)


def held_out() -> HeldOut:
    return HeldOut(
        answers=lambda model: np.asarray(model.predict(X, batch_size=8, verbose=0), np.float64),
        targets=Y.argmax(1),
        task=CLASSIFY,
        watch=(np.arange(12), np.arange(12, 24)),
        patience=3,
    )


def trained(folder: Path, **options) -> tuning.Trained:
    model, start = small()
    options = {"epochs": 4, "rate": 0.1, **options}
    return train(model, batches, 6, start=start, examples=24, folder=folder, **options)


def same(one: tuning.Trained, other: tuning.Trained) -> bool:
    weights = zip(
        (w for some in one.weights for w in some),
        (w for some in other.weights for w in some),
        strict=True,
    )
    return one.history == other.history and all(np.array_equal(a, b) for a, b in weights)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuning.Trained:
    return trained(tmp_path_factory.mktemp("unbroken"), held_out=held_out())


@pytest.mark.long
@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_training_that_was_stopped_anywhere_ends_in_the_same_weights(
    after, unbroken, tmp_path, monkeypatch
):
    monkeypatch.setattr("tfxfer.tuning.training.EVERY", 0.0)
    kept, save = [], checkpoint.save

    def save_and_die(*arguments, **more):
        save(*arguments, **more)
        kept.append(arguments)
        if len(kept) == after:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(Killed):
        trained(tmp_path / "broken", held_out=held_out())
    assert same(trained(tmp_path / "broken", held_out=held_out()), unbroken)


@pytest.mark.long
@pytest.mark.parametrize("way", ["statistics move", "from activations"])
def test_a_competition_that_was_stopped_ends_as_one_that_was_not(
    way, photos, tiny_savedmodel, tmp_path, monkeypatch
):
    monkeypatch.setattr("tfxfer.tuning.training.EVERY", 0.0)
    batch_norm = "train" if way == "statistics move" else "inference"
    network = Backbone(tiny_savedmodel, trainable=False, batch_norm=batch_norm)
    extractor = Extractor(Cache(tmp_path / "cache"), batch_size=8)
    features = extractor(data.load(photos), network.prefix(1), progress=False)
    # Two folds are enough.
    _, _, judged = plan(features.examples, 0).for_picking(features.examples, 0)
    source = tuning.from_examples(network, features, augment=("flip",))
    if way == "from activations":
        options = {"views": 1, "augment": ("crop",), "folder": tmp_path / "work"}
        source = tuning.last_stages(network, 2, features, plan=judged, extract=extractor, **options)

    def competed(folder: Path) -> tuning.Competition:
        options = {"epochs": 4, "rate": 0.05, "batch_size": 8, "head": "gaussian"}
        return tuning.compete([source], features, judged, folder=folder, **options)

    unbroken = competed(tmp_path / "unbroken")
    kept, save = [], checkpoint.save

    def save_and_die(*arguments, **more):
        save(*arguments, **more)
        kept.append(arguments)
        if len(kept) in (6, 26):
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(Killed):
            competed(tmp_path / "broken")
    broken = competed(tmp_path / "broken")
    assert broken.history == unbroken.history and str(broken.verdict) == str(unbroken.verdict)
    np.testing.assert_array_equal(broken.probabilities, unbroken.probabilities)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, monkeypatch, said):
    monkeypatch.setattr("tfxfer.tuning.training.EVERY", 0.0)
    unbroken = trained(tmp_path)
    newest = checkpoint.numbered(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-200])
    said.clear()
    assert same(trained(tmp_path), unbroken)
    assert f"{newest} is damaged" in said[0] and "is not used" in said[0]


def test_a_training_that_is_done_is_not_done_again(tmp_path, said):
    first = trained(tmp_path)
    said.clear()
    assert same(trained(tmp_path), first) and said == []


def test_a_loss_that_is_not_finite_goes_back_with_a_smaller_rate(tmp_path, said):
    with pytest.raises(TuningError, match=r"1e\+30.* 2\.7e\+28 .*--learning-rate 1e\+28"):
        trained(tmp_path, rate=1e30)
    assert (
        "epoch 1: the loss is not finite; back to the last good state, at a learning rate of 3e+29"
        in said[0]
        and len(said) == 3
    )


@pytest.mark.long
def test_training_stops_when_nothing_gets_better(tmp_path, said):
    found = trained(tmp_path, epochs=40, rate=1e-9, held_out=held_out())
    assert (
        len(found.history) < 40
        and "training stops here: for 3 epochs" in said[-1]
        and "neither on all of them nor on a half" in said[-1]
    )


def test_training_stops_when_the_time_is_up(tmp_path, said):
    assert len(trained(tmp_path, until=time.monotonic()).history) == 1
    assert "the time is up" in said[-1]


# --- the guard ---


def examples_of(train: int, validation: int) -> data.Examples:
    n = train + validation
    splits = ("train",) * train + ("validation",) * validation
    return data.Examples(
        files=tuple(map(str, range(n))),
        labels=np.arange(n) % 2,
        splits=splits,
        classes=("a", "b"),
        digests=tuple(map(str, range(n))),
        read=lambda i: b"",
        source="numbers",
    )


def test_300_validation_examples_are_halved():
    found = plan(examples_of(400, 300), 0)
    assert (
        len(found.folds) == 1
        and [len(group) for group in found.groups] == [150, 150]
        and not found.taken
    )
    np.testing.assert_array_equal(np.sort(np.concatenate(found.groups)), np.arange(300))
    np.testing.assert_array_equal(found.judged, np.arange(400, 700))
    np.testing.assert_array_equal(found.others(0), found.groups[1])


def test_a_fifth_of_train_is_taken_where_there_is_no_validation():
    found = plan(examples_of(2000, 0), 0)
    ((seen, held),) = found.folds
    assert len(held) == 400 and len(seen) == 1600 and found.taken and len(found.everything) == 2000
    assert np.bincount(examples_of(2000, 0).labels[held]).tolist() == [200, 200]


@pytest.mark.parametrize("validation", [0, 50])
def test_few_validation_examples_mean_three_folds_of_train(validation):
    found = plan(examples_of(240, validation), 0)
    assert len(found.folds) == 3 and all(
        len(seen) == 160 and len(held) == 80 for seen, held in found.folds
    )
    np.testing.assert_array_equal(np.sort(found.judged), np.arange(240))
    assert not set(found.others(1)) & set(found.groups[1])


def test_a_validation_part_that_cannot_be_halved_means_three_folds_of_train():
    one_group = replace(examples_of(240, 300), units=np.r_[np.arange(240), np.full(300, 240)])
    assert len(plan(one_group, 0).folds) == 3


def test_one_group_a_class_cannot_be_judged():
    with pytest.raises(
        TuningError,
        match=(
            "40 training photos, too few groups of photos per class.* "
            "Add groups of photos to each class, or use the recipe frozen"
        ),
    ):
        plan(replace(examples_of(40, 0), units=np.arange(40) % 2), 0)


def test_with_three_folds_the_first_one_picks_and_the_others_judge():
    found = plan(examples_of(240, 0), 0)
    seen, held, rest = found.for_picking(examples_of(240, 0), 0)
    np.testing.assert_array_equal(held, found.folds[0][1])
    assert not set(held) & set(rest.judged) and not set(held) & set(seen)
    assert len(rest.judged) == 160 and [len(group) for group in rest.groups] == [80, 80]


def test_with_one_split_what_picks_is_a_part_of_what_is_trained_on():
    examples = examples_of(400, 300)
    found = plan(examples, 0)
    seen, held, same_plan = found.for_picking(examples, 0)
    assert same_plan is found and len(held) == 80
    np.testing.assert_array_equal(np.sort(np.r_[seen, held]), np.arange(400))


TRUTH = np.zeros(100, np.int64)


def saying(right: np.ndarray, sure: float = 2.0) -> np.ndarray:
    """Logits of two classes, of which the first is true."""
    return sure * np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])


@pytest.mark.parametrize(
    ("only_tuned", "only_frozen", "wins"),
    [(4, 0, False), (5, 0, True), (20, 12, False), (30, 12, True), (0, 10, False), (0, 0, False)],
)
def test_the_frozen_model_is_left_for_more_than_two_standard_errors(only_tuned, only_frozen, wins):
    tuned, frozen = np.ones(100, bool), np.ones(100, bool)
    frozen[:only_tuned] = False
    tuned[50 : 50 + only_frozen] = False
    found = verdict(saying(tuned), saying(frozen), TRUTH, folds=1, task=CLASSIFY)
    assert found.tuned_wins is wins
    assert str(found).startswith("Chosen: the tuned model" if wins else "Chosen: the frozen model")
    assert f"({only_tuned - only_frozen:+.1f} ± " in str(found)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_three_examples_decide_nothing(n):
    truth, all_right = TRUTH[:n], np.ones(n, bool)
    assert not verdict(
        saying(all_right), saying(np.arange(n) >= 3), truth, folds=3, task=CLASSIFY
    ).tuned_wins
    worse = verdict(saying(~all_right), saying(all_right), truth, folds=3, task=CLASSIFY)
    assert "no gain at all" not in str(worse)


def test_a_model_that_is_as_often_right_and_more_sure_is_better():
    right = np.arange(100) < 95
    sure, unsure = saying(right, 3.0), saying(right, 0.5)
    assert verdict(sure, unsure, TRUTH, folds=3, task=CLASSIFY).tuned_wins
    assert not verdict(unsure, sure, TRUTH, folds=3, task=CLASSIFY).tuned_wins


def test_a_model_that_is_more_sure_and_less_often_right_is_not_better():
    found = verdict(
        saying(np.arange(100) < 97, 3.0),
        saying(np.arange(100) < 98, 0.2),
        TRUTH,
        folds=3,
        task=CLASSIFY,
    )
    assert found.loss_gain > 2 * found.loss_error and not found.tuned_wins


def test_a_gain_for_which_the_time_was_too_short_is_left():
    tuned, frozen = saying(np.arange(100) < 90), saying(np.arange(100) < 60)
    found = replace(verdict(tuned, frozen, TRUTH, folds=3, task=CLASSIFY), late=True)
    assert not found.tuned_wins
    assert str(found).startswith(
        "Chosen: the frozen model. 0.900 tuned"
    ) and "the time was up before the tuned model was trained to its end" in str(found)


def test_a_comparison_that_the_time_cut_off_says_so():
    said = saying(np.arange(100) < 80)
    found = replace(verdict(said, said, TRUTH, folds=3, task=CLASSIFY), cut=True)
    assert "the time was up" in str(found) and "no gain" not in str(found)


def test_models_that_are_right_on_the_same_examples_are_no_gain():
    said = saying(np.arange(100) < 80)
    found = str(verdict(said, said, TRUTH, folds=1, task=CLASSIFY))
    assert found.endswith("(+0.0 ± 0.0 points): no gain at all.")


def test_the_cost_of_rounding_is_told_in_points_only_where_scores_are_shares():
    truth = np.arange(6.0)[:, None]
    numbers = competition.describe_rounding(
        "tuned", truth + 0.5, truth, truth=truth, task=find("regress")
    )
    gain = -0.25 / truth.var()  # of R2
    assert f"({gain:+.3f} ± 0.000)" in numbers
    right, half = saying(np.arange(100) < 80), saying(np.arange(100) < 30)
    classes = competition.describe_rounding("tuned", half, right, truth=TRUTH, task=CLASSIFY)
    assert "(-50.0 ± 5.0 points)" in classes


def test_between_is_frozen_at_0_and_tuned_at_1():
    a, b = [np.zeros(3, np.float32)], [np.full(3, 4, np.float32)]
    assert [float(interpolate_weights(a, b, share)[0][0]) for share in (0.0, 0.25, 1.0)] == [
        0.0,
        1.0,
        4.0,
    ]


# --- from photos ---


def ready_to_tune(photos: Path, network: str, cache: Path) -> tuple:
    """A network, the features of photos from all its stages, the plan, and what extracts them."""
    backbone = Backbone(network, trainable=False, batch_norm="inference")
    extractor = Extractor(Cache(cache), batch_size=8)
    prefix = backbone.prefix(len(backbone.stages))
    features = extractor(data.load(photos), prefix, progress=False)
    return backbone, features, plan(features.examples, 0), extractor


@pytest.fixture(scope="module")
def world(photos, tiny_savedmodel, tmp_path_factory):
    return ready_to_tune(photos, tiny_savedmodel, tmp_path_factory.mktemp("features"))


def routine_of(folder: Path, *, epochs: int, **more) -> Routine:
    """Trainings on one device, without a limit of time."""
    given = {"batch_size": 8, "seed": 0, "until": float("inf"), "show": ignore}
    one = tf.distribute.get_strategy()
    return Routine(**given | {"epochs": epochs, "folder": folder, "strategy": one} | more)


def heads_of(features) -> Heads:
    return Heads(features=features, head="auto", seed=0, strategy=tf.distribute.get_strategy())


@pytest.mark.long
def test_activations_are_kept_and_give_the_same_logits_as_pixels(world, said):
    network, features, how, extractor = world
    cached = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    whole = tuning.from_examples(network, features, batch_size=8)
    assert any("output of stage block1" in line for line in said)
    assert any("kept in float" in line for line in said)
    head = choose(
        features.output,
        features.examples.labels,
        2,
        tap_widths=(features.feature_size,),
        head="linear",
    ).fitted
    rows = how.folds[0][1]
    one, other = (source.answers(source.build(head)[0], rows, 8) for source in (cached, whole))
    np.testing.assert_allclose(one, other, atol=2e-2 * np.abs(other).max())


def linear_head(features, rows):
    """As training starts from: logistic regression on the network's own output."""
    part = features.take(rows)
    labels = part.examples.labels
    width = (features.feature_size,)
    return choose(part.output, labels, 2, tap_widths=width, head="linear").fitted


@pytest.fixture(scope="module")
def held_pixels(world) -> np.ndarray:
    """The photos that the first fold holds out, decoded from their files."""
    network, features, how, _ = world
    return np.stack(list(Decoder(features.examples, network.takes, 8).each(how.folds[0][1])))


@pytest.mark.long
@pytest.mark.parametrize("way", ["pixels", "activations"])
@pytest.mark.parametrize("head", ["gaussian", "auto"])
def test_an_averaged_model_gives_the_sum_of_both_logits(way, head, world, held_pixels):
    network, features, how, extractor = world
    seen, held = how.folds[0]
    source = tuning.from_examples(network, features, batch_size=8)
    if way == "activations":
        source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    start = linear_head(features, seen)
    model, _ = source.build(start)
    part = features.take(seen)
    labels = part.examples.labels
    frozen = choose(part, labels, 2, tap_widths=features.tap_widths, head=head).fitted
    average = source.average(model, start, frozen, 0.5, False)
    expected = 0.5 * start.logits(features.take(held).output) + frozen.logits(features.take(held))
    found = average.predict(held_pixels, batch_size=8, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.fixture(scope="module")
def both_sides(world):
    network, features, _, extractor = world
    return extractor(features.examples, network.prefix(3), mirror=True, progress=False)


def averaged(source, features, both_sides, rows):
    """A head to start from, a frozen one that sees both sides, and the mean of both models."""
    start = linear_head(features, rows)
    labels = features.examples.labels[rows]
    frozen = choose(both_sides.take(rows), labels, 2, tap_widths=features.tap_widths).fitted
    return start, frozen, source.average(source.build(start)[0], start, frozen, 0.5, True)


@pytest.mark.long
@pytest.mark.parametrize("way", ["pixels", "activations"])
def test_the_frozen_part_of_an_averaged_model_sees_both_sides(way, world, both_sides, held_pixels):
    network, features, how, extractor = world
    seen, held = how.folds[0]
    source = tuning.from_examples(network, features, batch_size=8)
    if way == "activations":
        source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    start, frozen, average = averaged(source, features, both_sides, seen)
    alone = start.logits(features.take(held).output)
    expected = 0.5 * alone + frozen.logits(both_sides.take(held))
    found = average.predict(held_pixels, batch_size=8, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.parametrize("better", [True, False])
def test_the_frozen_model_sees_both_sides_where_that_is_better(
    better, world, both_sides, monkeypatch, tmp_path, said
):
    network, features, how, extractor = world
    monkeypatch.setattr(
        "tfxfer.heads.mirrors.compare", lambda *probabilities, task: (better, "measured")
    )
    source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    options = {"epochs": 1, "rate": 1e-9, "folder": tmp_path}
    found = tuning.compete([source], both_sides, how, **options)
    assert (found.model, found.mirror) == (None, better)
    assert "mirror images: measured" in " ".join(said)
    rows = how.everything
    used = both_sides if better else features
    labels = features.examples.labels[rows]
    expected = choose(used.take(rows), labels, 2, tap_widths=features.tap_widths)
    np.testing.assert_array_equal(found.probabilities, expected.out_of_fold)


@pytest.mark.long
def test_the_last_columns_of_an_averaged_model_are_the_frozen_networks_own_output(
    world, both_sides
):
    network, features, how, extractor = world
    seen, held = how.folds[0]
    source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    _, _, average = averaged(source, features, both_sides, seen)
    pixels = Decoder(features.examples, network.takes, 8)
    found = of_model(pixels, average, both_sides)
    np.testing.assert_allclose(found.outputs(held), both_sides.output[held], atol=2e-5)
    # So a run takes them from there.
    known = of_model(pixels, average, both_sides, tuned=False)
    np.testing.assert_array_equal(known.outputs(held), both_sides.output[held])
    np.testing.assert_allclose(known.probabilities(held), found.probabilities(held), atol=1e-6)


def test_sources_of_one_network_share_the_photos_in_memory(world):
    network, features, how, extractor = world
    one = tuning.from_examples(network, features)
    assert tuning.from_examples(network, features, augment=("flip",)).decoded is one.decoded
    fewer = extractor(features.examples.take(how.folds[0][0]), network.prefix(3), progress=False)
    assert len(tuning.from_examples(network, fewer).decoded) < len(one.decoded)


def test_the_weights_before_training_are_tried_only_after_another_training(world, tmp_path):
    network, features, how, _ = world
    head = heads_of(features).start(how.folds[0][0])
    whole = Setting(tuning.from_examples(network, features), ("all",), 0.01)
    fold = prepare_fold(whole, routine_of(tmp_path, epochs=1), head, *how.folds[0])
    assert fold.shares == STEPS[1:]
    assert replace(fold, setting=whole.further(whole)).shares == STEPS


def test_an_averaged_model_answers_the_same_from_its_file(world, tmp_path):
    network, features, how, extractor = world
    seen = how.folds[0][0]
    source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    start = linear_head(features, seen)
    part = features.take(seen)
    labels = part.examples.labels
    frozen = choose(part, labels, 2, tap_widths=features.tap_widths).fitted
    average = source.average(source.build(start)[0], start, frozen, 0.5, False)
    average.save(tmp_path / "average.keras")
    again = keras.models.load_model(tmp_path / "average.keras")
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    np.testing.assert_allclose(again(images), average(images), atol=1e-6)


def test_auto_tries_the_depths_that_a_network_has(world):
    network = world[0]
    assert tuning.depths_of(network, "auto") == (2,)
    assert tuning.depths_of(network, "1") == (1,)
    with pytest.raises(TuningError, match="Expected auto"):
        tuning.depths_of(network, "block9")


def test_what_does_not_fit_on_the_disk_is_computed_in_each_step(world, monkeypatch, tmp_path, said):
    network, features, how, extractor = world
    monkeypatch.setattr(Cache, "free", lambda self: 1000)
    source = tuning.last_stages(
        network,
        1,
        features,
        plan=how,
        extract=replace(extractor, cache=Cache(tmp_path)),
    )
    assert (
        "no room on the disk for the activations in float16 (0.0 MiB free in" in said[-1]
        and "each training step runs the whole network" in said[-1]
    )
    one = tf.distribute.get_strategy()
    assert next(iter(source.batches(how.folds[0][0][:2], 2, 0, one)(0, 0)))[0].shape == (
        2,
        32,
        32,
        3,
    )


@pytest.mark.long
def test_altered_copies_are_kept_only_where_they_are_tried(world):
    network, features, how, extractor = world
    options = {"views": None, "augment": ("crop",)}
    plain = tuning.last_stages(network, 1, features, plan=how, extract=extractor, **options)
    assert (plain.views, plain.inputs.count("views")) == (0, 0)
    assert plain.more_views is not None and plain.seconds_of_views is not None
    varied = plain.more_views()
    assert varied.views == 2 and varied.inputs.endswith("2 views by crop")
    rows = how.folds[0][0][:8]
    one = tf.distribute.get_strategy()
    seen = [next(iter(varied.batches(rows, 8, 0, one)(epoch, 0)))[0] for epoch in range(4)]
    plain_rows = next(iter(plain.batches(rows, 8, 0, one)(0, 0)))[0]
    np.testing.assert_array_equal(seen[0], plain_rows)
    # Each epoch has an order of its own: compare what is in it, not where.
    sums = [np.sort(np.sum(np.abs(batch), 1)) for batch in seen]
    assert not np.allclose(sums[1], sums[0], rtol=1e-3)
    np.testing.assert_allclose(sums[3], sums[0], rtol=1e-3)


def test_no_altered_copies_are_tried_where_none_is_harmless(world):
    network, features, how, extractor = world
    source = tuning.last_stages(network, 1, features, plan=how, extract=extractor, views=None)
    assert source.more_views is None


def test_activations_that_are_kept_already_need_no_room(world, monkeypatch, tmp_path):
    network, features, how, extractor = world
    first = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    monkeypatch.setattr(Cache, "free", lambda self: 0)
    assert (
        tuning.last_stages(network, 1, features, plan=how, extract=extractor).inputs == first.inputs
    )
    assert first.inputs.startswith("activations after block1 in float")


def test_a_run_that_goes_on_starts_from_the_same_inputs(world, monkeypatch, tmp_path):
    network, features, how, extractor = world
    empty = replace(extractor, cache=Cache(tmp_path / "cache"))
    with monkeypatch.context() as full:
        full.setattr(Cache, "free", lambda self: 0)
        assert (
            tuning.last_stages(
                network, 1, features, plan=how, extract=empty, folder=tmp_path / "work"
            ).inputs
            == "pixels"
        )
    assert (
        tuning.last_stages(
            network, 1, features, plan=how, extract=empty, folder=tmp_path / "work"
        ).inputs
        == "pixels"
    )


@pytest.mark.parametrize(
    ("images", "views", "epochs"), [(10_000, 0, 6), (800, 0, 8), (30, 0, 20), (10_000, 9, 10)]
)
def test_few_images_are_seen_more_often(images, views, epochs):
    assert tuning.epochs_for(images, 32, views) == epochs


def test_views_that_no_epoch_would_see_are_refused():
    with pytest.raises(
        TuningError,
        match=(
            "--views 4 needs at least 5 epochs, one for each set of copies and one for the "
            "examples themselves. Received --epochs 4."
        ),
    ):
        tuning.check_epochs(4, 4)


def test_a_network_without_a_training_mode_moves_no_statistics(tmp_path):
    root, w = tf.train.Checkpoint(), tf.Variable(tf.ones((3, 4)))
    root.variables, root.trainable_variables, root.regularization_losses = [w], [w], []
    root.__call__ = tf.function(
        lambda images: tf.reduce_mean(images, [1, 2]) @ w,
        input_signature=[tf.TensorSpec((None, 8, 8, 3))],
    )
    tf.saved_model.save(root, str(tmp_path / "m"))
    with pytest.raises(
        TuningError,
        match=(
            "has no training mode, so its BatchNorm statistics can't be adapted. "
            "Leave out --batch-norm train."
        ),
    ):
        tuning.stages_of(Backbone(str(tmp_path / "m"), trainable=False, batch_norm="train"), "1")


@pytest.mark.long
def test_flips_that_change_the_label_are_not_used(tmp_path, tiny_savedmodel, said):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for i in range(60):
        image = rng.integers(0, 40, (32, 32, 3)).astype(np.uint8)
        image[:, slice(0, 12) if i % 2 else slice(20, 32)] = 220
        images.append(tf.io.encode_png(image).numpy())
        labels.append("left" if i % 2 else "right")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / f"{i}.png").write_bytes(image)
    network = Backbone(tiny_savedmodel, trainable=False)
    extractor = Extractor(Cache(tmp_path / "cache"))
    features = extract(
        data.load(tmp_path / "photos"), network.prefix(3), cache=extractor.cache, progress=False
    )
    kinds = tuning.harmless(
        features,
        features.examples.where("train"),
        network.prefix(3),
        extract=extractor,
    )
    assert "flip" not in kinds
    assert any("it makes photos harder to recognise, so it is not used" in line for line in said)


RUN = ["-m", "tfxfer", "run"]


def kill_at_a_new_state(words: list[str], run: Path) -> int:
    """Start a run, and kill it as soon as it has kept one more state; return the exit status."""

    def states() -> set[str]:
        return set(glob.glob(f"{run}/checkpoints/tuning/**/state-*.npz", recursive=True))

    before, output = states(), subprocess.PIPE
    with subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            if states() - before:
                process.kill()
            time.sleep(0.002)
        # The fork holds the other end until it is dead, a moment after its client (see `loaded`).
        process.stdout.read()
    return process.returncode


def check_candidates(run: Path, steps: tuple[int, ...] = (25, 50, 75, 100)) -> None:
    """Check which models a run of these recipes has compared.

    Args:
        steps: how many hundredths of the way from the frozen weights to the tuned ones are tried.
    """
    candidates = json.loads((run / "metrics.json").read_text())["candidates"]
    assert set(candidates) == {
        "frozen",
        "tuned",
        *(f"{step}% of the way to tuned" for step in steps),
        *(f"mean of {w}% tuned and {100 - w}% frozen" for w in (33, 50, 67)),
    }
    assert candidates["tuned"]["n"] > 0
    settings = json.loads((run / "settings.json").read_text())
    assert settings["tuning"]["value"]["learning_rate"] == 0.01


@pytest.mark.long
def test_a_killed_gradual_run_ends_as_one_that_was_not(photos, tiny_savedmodel, tmp_path):
    options = ["--data", str(photos), "--backbone", tiny_savedmodel, "--head", "gaussian"]
    options += ["--epochs", "3", "--learning-rate", "0.01"]
    options += ["--unfreeze", "block1", "--unfreeze-by", "gradual"]

    def words(out: str, *more: str) -> list[str]:
        return [python(), *RUN, "partial", *options, "--out", str(tmp_path / out), *more]

    done = subprocess.run(words("unbroken"), capture_output=True, text=True, check=True)
    assert "Chosen: the " in done.stdout and (tmp_path / "unbroken" / "manifest.json").exists()
    check_candidates(tmp_path / "unbroken")
    for _ in range(2):  # the second run goes on where the first was killed
        code = kill_at_a_new_state(words("broken", "--resume"), tmp_path / "broken")
        assert code == -signal.SIGKILL
    subprocess.run(words("broken", "--resume"), capture_output=True, check=True)
    for name in (
        "metrics.json",
        "predictions.csv",
        "probabilities.npz",
        "history.csv",
        "doubt.npz",
    ):
        assert (tmp_path / "broken" / name).read_bytes() == (
            tmp_path / "unbroken" / name
        ).read_bytes(), name


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """120 images whose class is their colour, and a network that sees grey alone.

    The frozen network can't tell the classes apart, and tuning can learn to.
    """
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for i in range(120):
        image = (
            np.array([170, 70, 90] if i % 2 else [70, 170, 90])
            + rng.normal(0, 25, (32, 32, 1))
            + rng.normal(0, 5, (32, 32, 3))
        )
        folder = root / "photos" / ("red" if i % 2 else "green")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(
            tf.io.encode_png(image.clip(0, 255).astype(np.uint8)).numpy()
        )
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="block0_conv")(image)
    network = keras.Model(
        image,
        keras.layers.GlobalAveragePooling2D()(
            keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="block1_conv")(x)
        ),
    )
    kernel = network.get_layer("block0_conv").kernel
    kernel.assign(np.repeat(kernel.numpy().mean(2, keepdims=True), 3, axis=2))
    return ready_to_tune(root / "photos", save_reusable(network, root / "network"), root / "cache")


def compete_for_colours(colours, folder: Path, **options) -> tuning.Competition:
    network, features, how, _ = colours
    options = {"head": "gaussian", "epochs": 10, "rate": 0.03, "folder": folder, **options}
    return tuning.compete([tuning.from_examples(network, features)], features, how, **options)


@pytest.fixture(scope="module")
def tuned_colours(colours, tmp_path_factory) -> tuple[tuning.Competition, Path]:
    """A competition that the tuned model wins, and its folder."""
    folder = tmp_path_factory.mktemp("competition") / "work"
    return compete_for_colours(colours, folder), folder


@pytest.mark.long
def test_the_tuned_model_is_chosen_where_it_pays(colours, tuned_colours):
    network, features = colours[:2]
    found = tuned_colours[0]
    assert found.verdict.tuned_wins and found.model is not None and found.verdict.folds == 3, str(
        found.verdict
    )
    assert found.candidates["frozen"].mean() < 0.7 < found.candidates["tuned"].mean()
    test = features.examples.where("test")
    logits = tuning.from_examples(network, features).answers(found.model, test, 32)
    assert np.mean(logits.argmax(1) == features.examples.labels[test]) > 0.7
    np.testing.assert_array_equal(np.sort(found.positions), features.examples.where("train"))


@pytest.mark.long
@pytest.mark.parametrize("taken", [True, False])
def test_photos_that_were_taken_from_train_are_trained_on_at_last(taken, colours, tmp_path):
    network, features, how, _ = colours
    first = how.folds[0]
    everything = np.union1d(*first)
    places = np.arange(len(first[1]))
    trained_on = everything if taken else first[0]
    how = Plan(
        folds=(first,), groups=(places[::2], places[1::2]), everything=trained_on, taken=taken
    )
    source = tuning.from_examples(network, features)
    options = {"head": "gaussian", "epochs": 10, "rate": 0.03, "folder": tmp_path / "work"}
    found = tuning.compete([source], features, how, **options)
    assert found.verdict.tuned_wins, str(found.verdict)
    expected = heads_of(features).start(trained_on)
    np.testing.assert_array_equal(found.fitted.kernel, expected.kernel)
    assert all("val_loss" in epoch for epoch in found.history)
    np.testing.assert_array_equal(found.positions, first[1])


def test_the_best_epoch_is_that_with_the_smallest_loss_on_held_out_examples():
    losses = [None, 0.5, 0.2, 0.3]
    history = [
        {"epoch": i + 1, "loss": 1.0} | ({} if loss is None else {"val_loss": loss})
        for i, loss in enumerate(losses)
    ]
    assert best_epoch(history) == 3


@pytest.mark.long
def test_more_stages_are_trained_where_they_help(colours, tmp_path, said):
    network, features, how, extractor = colours
    # The first stage sees grey alone: what comes after it can't learn a colour.
    last = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    sources = [last, tuning.from_examples(network, features)]
    options = {"head": "gaussian", "epochs": 20, "rate": 0.03, "folder": tmp_path / "work"}
    found = tuning.compete(sources, features, how, **options)
    assert found.settings["unfreeze"] == "all" and found.verdict.tuned_wins, said
    judged = features.examples.where("train")
    assert len(found.positions) == len(judged) - len(how.folds[0][1])


@pytest.mark.long
def test_more_epochs_and_altered_copies_are_taken_where_they_help(colours, tmp_path, said):
    network, features, how, extractor = colours
    options = {"views": None, "augment": ("flip",)}
    last = tuning.last_stages(network, 1, features, plan=how, extract=extractor, **options)
    routine = routine_of(tmp_path, epochs=4, longest=8)
    setting, judged = pick_setting(
        [Setting(last, (1,), 0.01)],
        (0.01,),
        features,
        plan=how,
        routine=routine,
        start=heads_of(features).start,
    )
    losses = {
        line.partition(":")[0]: float(re.search(r"log loss (\d+\.\d+)", line)[1])
        for line in said
        if "log loss" in line
    }
    assert len(losses) == 3 and len(judged.folds) == 2
    assert losses[str(setting)] == min(losses.values())
    assert "2 times as many epochs" in " ".join(losses)
    assert "2 altered copies" in " ".join(losses)


@pytest.mark.long
def test_the_whole_network_goes_on_from_what_fewer_stages_came_to(colours, tmp_path):
    network, features, how, extractor = colours
    last = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    routine = routine_of(tmp_path, epochs=2)
    head = heads_of(features).start(how.folds[0][0])
    one = Setting(last, (1,), 0.01)
    whole = Setting(tuning.from_examples(network, features), ("all",), 0.01).further(one)
    first = prepare_fold(one, routine, head, *how.folds[0])
    weights = setting.train_fold(first, "first", 2).weights[-1]
    before = train_before(whole, routine, head, *how.folds[0], "before", epochs=2)
    fold = prepare_fold(whole, routine, head, *how.folds[0]).starting_from(before)
    rows = how.folds[0][1]
    np.testing.assert_allclose(fold.logits(fold.first), first.logits(weights), atol=1e-3)
    moved = np.abs(fold.logits(fold.first) - head.logits(features.output[rows])).max()
    assert moved > 1e-2


@pytest.mark.long
def test_what_a_step_took_is_gone_with_its_model(world, tmp_path):
    network, features, how, extractor = world
    source = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    one = Setting(source, (1,), 0.01)
    routine = routine_of(tmp_path, epochs=1)

    def graphs() -> set[int]:
        gc.collect()
        return {
            id(found)
            for found in gc.get_objects()
            if isinstance(found, FuncGraph) and found.name.startswith("one_step")
        }

    before = graphs()
    head = linear_head(features, how.folds[0][0])
    setting.train_fold(prepare_fold(one, routine, head, *how.folds[0]), "one", 1)
    assert graphs() - before
    routine.free_other_models(None)
    assert not graphs() - before


@pytest.mark.long
def test_a_batch_in_pieces_is_learnt_as_a_whole(world):
    network = world[0]
    x, y = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32), np.arange(8) % 2
    ends = []
    for pieces in (1, 4):
        keras.utils.set_random_seed(0)
        backbone = network.tapped(None)
        backbone.unfreeze("all")
        model = keras.Sequential([keras.Input((32, 32, 3)), backbone, keras.layers.Dense(2)])
        optimizer = layerwise(
            keras.optimizers.AdamW,
            base=1e-3,
            decay=0.9,
            backbone=backbone,
            weight_decay=0.01,
            global_clipnorm=1.0,
            gradient_accumulation_steps=None if pieces == 1 else pieces,
        )
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, batch_size=8 // pieces, epochs=3, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_cpu_trains_on_few_large_images_at_once(world, tmp_path):
    network, features = world[:2]
    source = tuning.from_examples(network, features)
    one, several = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert count_pieces(source.at_once, 32, one) == 1  # of images of 32 x 32 pixels
    assert [count_pieces(8, size, one) for size in (8, 20, 32)] == [1, 3, 4]
    assert count_pieces(8, 32, several) == 1


@pytest.mark.long
def test_settings_for_which_there_is_no_time_are_not_tried(colours, tmp_path):
    network, features, how, extractor = colours
    one, deeper = (
        Setting(
            tuning.last_stages(network, 1, features, plan=how, extract=extractor),
            (n,),
            0.01,
        )
        for n in (1, 2)
    )
    until = time.monotonic() + 1000
    routine = routine_of(tmp_path, epochs=10, until=until)
    costs = Costs({one.source: 1e-3, deeper.source: 1.0}, how, routine)
    assert costs.fits(one, 100) and not costs.fits(deeper, 100)
    # A fold of two thirds three times, and all of train once: three times 10 epochs.
    images = len(features.examples.where("train"))
    assert costs.judged(one) == pytest.approx(3 * images * 10 * 1e-3, rel=1e-6)
    assert "1 to " in costs.said([one, deeper], (0.01,), 100, 5)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (3, 20, "less than a minute"),
        (50, 70, "about 1 minute"),
        (110, 130, "about 2 minutes"),
        (20, 400, "1 to 7 minutes"),
    ],
)
def test_times_are_said_in_minutes(low, high, said):
    assert describe_seconds(low, high) == said


@pytest.mark.long
def test_with_moving_batchnorm_the_frozen_rival_still_reads_taps(world, tmp_path):
    network, features, how, _ = world
    moving = Backbone(network.handle, trainable=False, batch_norm="train")
    source = tuning.from_examples(moving, features)
    found = tuning.compete(
        [source],
        features,
        how,
        head="linear",
        epochs=1,
        rate=1e-9,
        folder=tmp_path / "work",
    )
    expected = []
    for seen, held in how.folds:
        part, judged = features.take(seen), features.take(held)
        head = choose(
            part,
            part.examples.labels,
            2,
            tap_widths=features.tap_widths,
            head="linear",
            units=part.examples.units,
        ).fitted
        expected.append(head.logits(judged).argmax(1) == judged.examples.labels)
    np.testing.assert_array_equal(found.candidates["frozen"], np.concatenate(expected))
    assert not found.verdict.tuned_wins and sum(found.fitted.widths) > features.feature_size


@pytest.mark.long
def test_mixed_precision_says_what_it_costs_and_leaves_a_float32_model(colours, tmp_path, said):
    network, features, how, _ = colours
    options = {"head": "gaussian", "epochs": 10, "rate": 0.03, "precision": "mixed"}
    found = tuning.compete(
        [tuning.from_examples(network, features)],
        features,
        how,
        folder=tmp_path / "work",
        **options,
    )
    (cost,) = [line for line in said if line.startswith("mixed precision: ")]
    assert re.search(
        (
            r"the frozen model's accuracy on held-out examples is 0\.\d+ against 0\.\d+ in "
            r"float32, n = \d+ \([+-]\d\.\d ± \d\.\d points\)"
        ),
        cost,
    )
    assert found.verdict.tuned_wins, str(found.verdict)
    layers = [layer for layer in found.model.layers if isinstance(layer, Backbone)]
    assert layers and all(layer.precision == "float32" for layer in layers)


def of_kind(kind: type[InputSource], source: InputSource) -> InputSource:
    """The same source as an object of another class."""
    return kind(**{one.name: getattr(source, one.name) for one in fields(source) if one.init})


class Greedy(keras.layers.Layer):
    """Runs out of memory when it sees more than eight images."""

    def call(self, x):
        def ask(images):
            if len(images) > 8:
                raise MemoryError
            return images

        return tf.ensure_shape(tf.numpy_function(ask, [x], tf.float32), x.shape)


@pytest.mark.long
def test_the_batch_is_halved_when_memory_runs_out(colours, tmp_path, said):
    network, features, how, _ = colours
    plain = tuning.from_examples(network, features)

    class GreedySource(InputSource):
        def build(self, fitted):
            model, part = plain.build(fitted)
            pixels = keras.Input(model.input_shape[1:])
            return keras.Model(pixels, model(Greedy()(pixels))), part

        def finish(self, model, fitted):
            return plain.finish(model, fitted)

        def average(self, *arguments):
            return plain.average(*arguments)

    greedy = of_kind(GreedySource, plain)
    tuning.compete(
        [greedy],
        features,
        how,
        head="gaussian",
        epochs=1,
        rate=1e-9,
        folder=tmp_path / "work",
    )
    assert [line for line in said if "memory" in line] == [
        f"out of memory: once more with {size} examples at a time" for size in (16, 8)
    ]
    again = tuning.compete(
        [greedy],
        features,
        how,
        head="gaussian",
        epochs=1,
        rate=1e-9,
        folder=tmp_path / "work",
    )
    assert (
        again.settings["batch_size"] == 8 and len([line for line in said if "memory" in line]) == 2
    )


@pytest.mark.long
def test_epochs_are_dealt_out_among_the_steps_of_gradual_unfreezing(colours, tmp_path, said):
    network, features, how, _ = colours
    seen = []

    class NotedSource(InputSource):
        def batches(self, *arguments):
            found = super().batches(*arguments)
            return lambda epoch, done: (seen.append(epoch), found(epoch, done))[1]

    options = {
        "gradual": True,
        "epochs": 5,
        "head": "gaussian",
        "folder": tmp_path / "work",
    }
    gradual = replace(of_kind(NotedSource, tuning.from_examples(network, features)), unfreeze=2)
    found = tuning.compete([gradual], features, how, rate=0.01, **options)
    assert [epoch["epoch"] for epoch in found.history] == [1, 2, 3, 4, 5]
    # The first three batches build the three folds. Then one builds each step anew, whose data go
    # on where those of the step before ended.
    assert seen[:10] == [0, 0, 0, 0, 0, 1, 0, 2, 3, 4]
    assert [line[:11] for line in said if line.startswith(("unfrozen", "epoch"))][:7] == [
        "unfrozen: 1",
        "epoch 1/2  ",
        "epoch 2/2  ",
        "unfrozen: 2",
        "epoch 1/3  ",
        "epoch 2/3  ",
        "epoch 3/3  ",
    ]


@pytest.mark.long
def test_no_final_model_is_begun_when_the_time_is_up(colours, tuned_colours, tmp_path, monkeypatch):
    # What was trained there is not trained again.
    shutil.copytree(tuned_colours[1], tmp_path / "work", ignore=shutil.ignore_patterns("final*"))
    clock, judge = time.monotonic, competition.judge

    def judge_until_time_is_up(*arguments, **more):
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 1e6)
        return judge(*arguments, **more)

    monkeypatch.setattr(competition, "judge", judge_until_time_is_up)
    found = compete_for_colours(colours, tmp_path / "work", minutes=100)
    assert found.model is None and found.verdict.late
    assert not list((tmp_path / "work").rglob("final*"))


@pytest.mark.long
def test_no_final_model_is_kept_that_lacks_what_it_begins_with(colours, tmp_path, monkeypatch):
    network, features, how, extractor = colours
    last = tuning.last_stages(network, 1, features, plan=how, extract=extractor)
    whole = tuning.from_examples(network, features)
    setting = Setting(whole, ("all",), 0.01).further(Setting(last, (1,), 0.01))
    clock, fit = time.monotonic, Heads.start
    until = clock() + 1e5
    routine = routine_of(tmp_path, epochs=1, until=until)
    heads = heads_of(features)
    folds = prepare_folds(setting, routine, heads, plan=how)

    def time_is_up_after(heads, rows):
        start = fit(heads, rows)
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 1e6)
        return start

    monkeypatch.setattr(Heads, "start", time_is_up_after)
    assert train_final(setting, heads, how, folds=folds, ended=None) is None


@pytest.mark.long
def test_the_whole_network_is_trained_with_moving_statistics(photos, tiny_savedmodel, tmp_path):
    words = ["run", "full", "--data", str(photos), "--backbone", tiny_savedmodel]
    words += ["--batch-norm", "train", "--head", "gaussian", "--epochs", "3"]
    words += ["--learning-rate", "0.01", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0 and "Chosen: the " in done.output, done.output
    # Moving statistics leave nothing to try between the frozen weights and the tuned ones.
    check_candidates(tmp_path / "run", steps=(100,))


@pytest.mark.long
def test_errors_are_one_line(photos, tiny_savedmodel, tmp_path):
    def said(*options: str) -> str:
        words = [
            python(),
            *RUN,
            "partial",
            "--data",
            str(photos),
            "--backbone",
            tiny_savedmodel,
            "--out",
            str(tmp_path / "run"),
            *options,
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip().splitlines()[-1]

    assert (
        "has no stage 'block9'. Did you mean block2? Expected auto, all, a number from 1 to 3, or "
        "a stage: " in said("--unfreeze", "block9")
    )
    assert "the loss is not finite at a learning rate of 1e+30" in said(
        "--learning-rate", "1e30", "--overwrite"
    )
