"""Networks for texts that cut them by a SentencePiece model, as those for many languages do."""

import json
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
import text_models
import texts
from click.testing import CliRunner
from loaded import python
from tables import check_same_table

import tfxfer
from tfxfer.cli import main
from tfxfer.errors import DeniedOperationError

SENTENCES = ["A rose is a rose.", "", "my bread, good", "\u00c5ngstr\u00f6m \ufb01ne", "soil " * 30]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    languages = text_models.Languages(text_models.sentencepiece_model())
    return text_models.save(languages, tmp_path_factory.mktemp("languages") / "network")


def rows_of(backbone: tfxfer.Backbone) -> np.ndarray:
    return np.asarray(backbone.takes.decode_many(tf.constant(SENTENCES)))


def done(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
def test_outputs_and_gradients_are_those_of_the_savedmodel(network):
    backbone, loaded = tfxfer.Backbone(network, trust=True), tf.saved_model.load(network)
    with tf.GradientTape() as tape:
        original = loaded(tf.constant(SENTENCES))
        loss = tf.reduce_sum(original[:, 0] ** 2)
    expected = tape.gradient(loss, [loaded.pieces, loaded.dense])
    with tf.GradientTape() as tape:
        found = backbone(rows_of(backbone))
        loss = tf.reduce_sum(found[:, 0] ** 2)
    weights = {tuple(weight.shape): weight.value for weight in backbone.trainable_weights}
    gradients = tape.gradient(loss, [weights[tuple(one.shape)] for one in expected])
    np.testing.assert_allclose(found, original, atol=1e-6)
    for mine, theirs in zip(gradients, expected, strict=True):
        dense = [tf.convert_to_tensor(one) for one in (mine, theirs)]
        np.testing.assert_allclose(*dense, atol=1e-6)


@pytest.mark.long
def test_a_file_of_the_model_holds_it_in_a_fresh_process(network, tmp_path):
    backbone = tfxfer.Backbone(network, trainable=False, trust=True)
    inputs = keras.Input(backbone.entry_shape)
    keras.Model(inputs, backbone(inputs)).save(tmp_path / "model.keras")
    rows = rows_of(backbone)
    np.save(tmp_path / "rows.npy", rows)
    script = (
        "import sys, keras, numpy as np, tfxfer\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras', safe_mode=False)\n"
        "np.save(sys.argv[1] + '/found.npy', model(np.load(sys.argv[1] + '/rows.npy')))\n"
    )
    subprocess.run([python(), "-c", script, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), backbone(rows), atol=1e-6)


@pytest.mark.long
def test_a_run_and_its_export(network, tmp_path):
    table = texts.write_table(tmp_path / "notes.csv")
    run = tmp_path / "run"
    done("run", "frozen", "--data", table, "--backbone", network, "--out", run, "--trust")
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] > 0.6
    (tmp_path / "new.txt").write_text("My rose is good.")
    own = done("predict", run, tmp_path / "new.txt", "--trust")
    done("export", run, tmp_path / "served", "--trust")
    served = done("predict", tmp_path / "served", tmp_path / "new.txt", "--trust")
    check_same_table(served, own)


@pytest.mark.long
def test_it_needs_trust(network, tmp_path):
    with pytest.raises(DeniedOperationError, match="SentencePiece"):
        tfxfer.Backbone(network)
    backbone = tfxfer.Backbone(network, trainable=False, trust=True)
    keras.Sequential([keras.Input(backbone.entry_shape), backbone]).save(tmp_path / "model.keras")
    with pytest.raises(DeniedOperationError, match="SentencePiece"):
        keras.models.load_model(tmp_path / "model.keras")
