"""Layer-wise rates, the schedule, and the pull back to the start."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.optimizers import hold, layerwise, warm_up_cosine

X = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
Y = np.arange(8) % 2


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
    numbers = {id(v): f"weight_{i}" for i, v in enumerate(backbone._own)}
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
    numbers = {id(v): f"weight_{i}" for i, v in enumerate(backbone._own)}
    for variable, old in zip(variables, before, strict=True):
        above = [
            2 - i
            for i, stage in enumerate(backbone.stages)
            if numbers.get(id(variable)) in stage.weights
        ]
        np.testing.assert_allclose(
            variable.numpy(), old * (1 - 0.2 * 0.1 * 0.5 ** (above or [0])[0]), rtol=1e-6
        )


def test_a_compiled_model_reloads_with_its_rates_in_another_process(model, tmp_path):
    optimizer = layerwise(keras.optimizers.Adam, base=1e-3, decay=0.75, backbone=model.layers[0])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    path = str(tmp_path / "m.keras")
    code = f"import tfxfer, keras, json; o = keras.models.load_model({path!r}).optimizer; print(json.dumps([type(o).__name__, o.factors]))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    assert json.loads(found) == ["LayerwiseAdam", model.optimizer.factors]


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
