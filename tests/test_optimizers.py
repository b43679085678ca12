"""Layer-wise rates, the schedule, and the pull back to the start."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import own_optimizers
import pytest
import tensorflow as tf
from keras.optimizers import SGD, Adam, AdamW, Lion, Muon, Nadam, RMSprop, ScheduleFreeAdamW
from loaded import python

from tfxfer.backbone import Backbone
from tfxfer.tuning.optimizers import hold, layerwise, warm_up_cosine, with_factors

HERE = Path(__file__).parent
X = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
Y = np.arange(8) % 2
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SCHEDULE = {"initial_learning_rate": 1e-2, "decay_steps": 1, "decay_rate": 0.5}


@pytest.fixture
def model(tiny_savedmodel) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            Backbone(tiny_savedmodel, batch_norm="inference"),
            keras.layers.Dense(2),
        ]
    )


def test_each_stage_learns_at_its_rate(model):
    backbone, variables = model.layers[0], model.trainable_variables
    before = [v.numpy() for v in variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(Y, model(X), from_logits=True)
        )
    gradients = tape.gradient(loss, [v.value for v in variables])
    layerwise(keras.optimizers.SGD, base=0.1, decay=0.5, backbone=backbone).apply(
        gradients, variables
    )
    numbers = {id(v): i for i, v in enumerate(backbone._own)}
    for variable, old, gradient in zip(variables, before, gradients, strict=True):
        above = [
            2 - i
            for i, stage in enumerate(backbone.stages)
            if numbers.get(id(variable)) in stage.weights
        ]
        np.testing.assert_allclose(
            variable.numpy(), old - 0.1 * 0.5 ** (above or [0])[0] * gradient.numpy(), atol=1e-7
        )


def test_weights_that_learn_slowly_fade_slowly(model):
    backbone, variables = model.layers[0], model.trainable_variables
    before = [v.numpy() for v in variables]
    optimizer = layerwise(
        keras.optimizers.AdamW, base=0.1, decay=0.5, backbone=backbone, weight_decay=0.2
    )
    optimizer.apply([tf.zeros_like(v.value) for v in variables], variables)
    numbers = {id(v): i for i, v in enumerate(backbone._own)}
    for variable, old in zip(variables, before, strict=True):
        above = [
            2 - i
            for i, stage in enumerate(backbone.stages)
            if numbers.get(id(variable)) in stage.weights
        ]
        np.testing.assert_allclose(
            variable.numpy(), old * (1 - 0.2 * 0.1 * 0.5 ** (above or [0])[0]), rtol=1e-6
        )


@pytest.mark.long
def test_a_compiled_model_reloads_with_its_rates_in_another_process(model, tmp_path):
    optimizer = layerwise(keras.optimizers.Adam, base=1e-3, decay=0.75, backbone=model.layers[0])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    path = str(tmp_path / "m.keras")
    code = (
        f"import tfxfer, keras, json; o = keras.models.load_model({path!r}).optimizer; "
        "print(json.dumps([type(o).__name__, o.factors]))"
    )
    found = subprocess.run(
        [python(), "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    assert json.loads(found) == ["LayerwiseAdam", model.optimizer.factors]


def stages_above(backbone: Backbone, variables: list) -> list[int]:
    """Return how many stages lie above that of each weight; 0 for the weights of a head."""
    numbers = {id(variable): i for i, variable in enumerate(backbone._own)}
    above = []
    for variable in variables:
        name = numbers.get(id(variable))
        own = [2 - i for i, stage in enumerate(backbone.stages) if name in stage.weights]
        above.append(own[0] if own else 0)
    return above


def weights_after_fit(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list:
    """Return the trainable weights after three steps; the model is then set back."""
    before = [v.numpy() for v in model.variables]
    model.compile(optimizer, LOSS, jit_compile=False)
    model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    after = [v.numpy() for v in model.trainable_variables]
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return after


def load_elsewhere(path: Path, before: str) -> dict:
    """Return a model's optimizer as another process loads it, which ran `before` first."""
    code = f"""
import json
import keras
import tfxfer
{before}
optimizer = keras.models.load_model({str(path)!r}).optimizer
config = optimizer.get_config()
print(json.dumps({{"class": type(optimizer).__name__, "config": config}}))
"""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(
        [python(), "-c", code], capture_output=True, text=True, env=env, check=False
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


KINDS = [
    (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (Adam, {}),
    (AdamW, {"weight_decay": 0.1}),
    (Lion, {"weight_decay": 0.1}),
    (Muon, {"weight_decay": 0.1, "adam_weight_decay": 0.2}),
    (Muon, {"weight_decay": None}),
    (Nadam, {}),
    (RMSprop, {"weight_decay": 0.1}),
    (ScheduleFreeAdamW, {"weight_decay": 0.1}),
    (own_optimizers.Scaled, {"scale": 3.0, "weight_decay": 0.1}),
]


@pytest.mark.long
@pytest.mark.parametrize("kind, options", KINDS)
def test_each_stage_learns_as_with_an_optimizer_of_its_own(kind, options, model):
    backbone, variables = model.layers[0], model.trainable_variables
    above = stages_above(backbone, variables)
    assert set(above) == {0, 1, 2}
    before, rng = [v.numpy() for v in variables], np.random.default_rng(0)
    steps = [[rng.normal(size=v.shape).astype(np.float32) for v in variables] for _ in range(3)]
    optimizer = layerwise(kind(0.01, **options), decay=0.5, backbone=backbone)
    for gradients in steps:
        optimizer.apply([tf.constant(g) for g in gradients], variables)
    found = [v.numpy() for v in variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    for stages in set(above):
        places = [i for i, each in enumerate(above) if each == stages]
        alone = kind(0.01 * 0.5**stages, **options)
        for gradients in steps:
            alone.apply([tf.constant(gradients[i]) for i in places], [variables[i] for i in places])
    for variable, after, start in zip(variables, found, before, strict=True):
        assert np.abs(after - start).max() > 1e-5
        np.testing.assert_allclose(after, variable.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    "kind, options",
    [
        (SGD, {"momentum": 0.9}),
        (AdamW, {"weight_decay": 0.1, "global_clipnorm": 0.1}),
        (Muon, {"weight_decay": 0.1}),
        (own_optimizers.Scaled, {"scale": 3.0}),
    ],
)
def test_an_optimizer_and_its_class_give_the_same_weights(kind, options, model):
    backbone = model.layers[0]
    found = [
        weights_after_fit(model, layerwise(kind(1e-2, **options), decay=0.75, backbone=backbone)),
        weights_after_fit(
            model, layerwise(kind, base=1e-2, decay=0.75, backbone=backbone, **options)
        ),
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_an_optimizer_brings_its_schedule(model):
    schedule = keras.optimizers.schedules.ExponentialDecay
    backbone = model.layers[0]
    by_class = layerwise(SGD, base=schedule(**SCHEDULE), decay=0.75, backbone=backbone)
    optimizer = SGD(schedule(**SCHEDULE))
    found = layerwise(optimizer, decay=0.75, backbone=backbone)
    assert isinstance(found._learning_rate, schedule)
    assert not optimizer.built and type(optimizer) is SGD
    for one, other in zip(
        weights_after_fit(model, found), weights_after_fit(model, by_class), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert float(found.learning_rate) == pytest.approx(1e-2 / 8)


def rate_of(step: int) -> Callable[[], float]:
    """A rate as a function, which Keras can't save."""

    def rate() -> float:
        return 0.1 * step

    return rate


def test_a_schedule_or_function_that_keras_was_not_told_of_is_taken_over(model):
    found = layerwise(SGD(own_optimizers.Once()), decay=0.5, backbone=model.layers[0])
    assert isinstance(found._learning_rate, own_optimizers.Once)
    found = layerwise(SGD(rate_of(2)), decay=0.5, backbone=model.layers[0])
    assert float(found.learning_rate) == pytest.approx(0.2)


def test_what_is_kept_from_weight_decay_stays_so(model):
    variables = model.trainable_variables
    before = [v.numpy() for v in variables]
    adamw = AdamW(0.1, weight_decay=0.5)
    adamw.exclude_from_weight_decay(var_list=variables[:1], var_names=["bias"])
    optimizer = layerwise(adamw, decay=0.5, backbone=model.layers[0])
    optimizer.apply([tf.zeros_like(v.value) for v in variables], variables)
    for i, (variable, old) in enumerate(zip(variables, before, strict=True)):
        kept = i == 0 or "bias" in variable.name
        assert kept == np.array_equal(variable.numpy(), old) or not old.any()


@pytest.mark.parametrize(
    "optimizer, options, error, told",
    [
        (lambda: SGD, {}, ValueError, "SGD"),
        (lambda: SGD(0.1), {"base": 0.1}, ValueError, "'base': 0.1"),
        (lambda: SGD(0.1), {"momentum": 0.9}, ValueError, "'momentum': 0.9"),
        (lambda: "adam", {}, TypeError, "'adam'"),
        (lambda: keras.layers.Dense, {"base": 0.1}, TypeError, "Dense"),
        (lambda: with_factors(SGD)(0.1), {}, ValueError, "LayerwiseSGD"),
        (lambda: with_factors(SGD), {"base": 0.1}, ValueError, "LayerwiseSGD"),
        (
            lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1)),
            {},
            ValueError,
            "LossScaleOptimizer",
        ),
        (
            lambda: keras.optimizers.LossScaleOptimizer,
            {"base": 0.1},
            ValueError,
            "LossScaleOptimizer",
        ),
        (
            lambda: keras.optimizers.MultiOptimizer(lambda variable: SGD(0.1)),
            {},
            ValueError,
            "MultiOptimizer",
        ),
        (lambda: own_optimizers.Both(SGD(0.1), Adam(0.1)), {}, ValueError, "Both"),
        (lambda: own_optimizers.Forgetful(0.1, scale=2.0), {}, TypeError, "scale"),
        (lambda: own_optimizers.Stubborn(0.1), {}, TypeError, "Stubborn"),
    ],
)
def test_what_can_have_no_rate_for_each_stage_is_refused(optimizer, options, error, told, model):
    with pytest.raises(error, match=told):
        layerwise(optimizer(), decay=0.5, backbone=model.layers[0], **options)


def test_an_optimizer_that_was_used_is_refused(model):
    optimizer = SGD(0.1)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="SGD"):
        layerwise(optimizer, decay=0.5, backbone=model.layers[0])


def test_a_loss_can_be_scaled_around_rates_by_stage(model):
    def plain() -> keras.optimizers.Optimizer:
        return layerwise(SGD(1e-2), decay=0.5, backbone=model.layers[0])

    scaled = keras.optimizers.LossScaleOptimizer(plain(), initial_scale=4.0)
    for one, other in zip(
        weights_after_fit(model, scaled), weights_after_fit(model, plain()), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.long
def test_a_model_with_an_optimizer_reloads_with_its_schedule_in_another_process(model, tmp_path):
    adamw = AdamW(keras.optimizers.schedules.ExponentialDecay(**SCHEDULE), weight_decay=0.25)
    model.compile(layerwise(adamw, decay=0.75, backbone=model.layers[0]), LOSS)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    found = load_elsewhere(tmp_path / "m.keras", "")
    assert found["class"] == "LayerwiseAdamW" and found["config"]["weight_decay"] == 0.25
    assert found["config"]["factors"] == model.optimizer.factors
    assert found["config"]["learning_rate"]["config"].items() >= SCHEDULE.items()


@pytest.mark.long
def test_a_model_with_a_users_own_optimizer_reloads(model, tmp_path):
    scaled = own_optimizers.Scaled(1e-3, scale=3.0, momentum=0.5)
    model.compile(layerwise(scaled, decay=0.75, backbone=model.layers[0]), LOSS)
    model.fit(X, Y, verbose=0)
    path = tmp_path / "m.keras"
    model.save(path)
    again = keras.models.load_model(path).optimizer
    assert type(again) is type(model.optimizer)
    for one, other in zip(again.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    told = "import own_optimizers\ntfxfer.optimizers.with_factors(own_optimizers.Scaled)"
    found = load_elsewhere(path, told)
    assert found["class"] == "LayerwiseScaled" and found["config"]["scale"] == 3.0
    assert found["config"]["factors"] == model.optimizer.factors
    with pytest.raises(RuntimeError, match="LayerwiseScaled"):
        load_elsewhere(path, "import own_optimizers")


def test_a_class_that_is_called_like_one_of_keras_does_not_take_its_place(model, tmp_path):
    model.compile(layerwise(SGD(0.1), decay=0.5, backbone=model.layers[0]), LOSS)
    model.save(tmp_path / "keras.keras")
    own = layerwise(own_optimizers.SGD(0.1), decay=0.5, backbone=model.layers[0])
    model.compile(own, LOSS)
    model.save(tmp_path / "own.keras")
    for name, kind in (("keras", SGD), ("own", own_optimizers.SGD)):
        found = keras.models.load_model(tmp_path / f"{name}.keras").optimizer
        assert type(found) is with_factors(kind)


def test_a_decay_that_is_none_is_refused(model):
    with pytest.raises(
        ValueError, match=r"Expected a decay above 0 and at most 1. Received: decay=1.5"
    ):
        layerwise(keras.optimizers.SGD, base=0.1, decay=1.5, backbone=model.layers[0])


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [warm_up_cosine(1.0, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0 == rates[9] and rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_hold_pulls_towards_where_a_weight_was():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    hold(layer, 0.5)
    assert float(sum(layer.losses)) == 0.0
    layer.kernel.assign_add(np.full((3, 2), 2.0))
    assert float(sum(layer.losses)) == pytest.approx(0.5 / 2 * 6 * 4)
    hold(layer, 0)
    assert layer.losses == []
