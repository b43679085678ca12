"""Networks for texts that cut them by a SentencePiece model, as those for many languages do."""

import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import text_models
import texts
from click.testing import CliRunner
from loaded import python
from tables import check_same_table
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import tfxfer
from tfxfer.cli import main
from tfxfer.errors import DeniedOperationError
from tfxfer.savedmodel import sentencepiece
from tfxfer.savedmodel.check import all_nodes

SENTENCES = ["A rose is a rose.", "", "my bread, good", "\u00c5ngstr\u00f6m \ufb01ne", "soil " * 30]


@pytest.fixture(scope="module")
def model() -> bytes:
    """A SentencePiece model with the map of characters that most of them have."""
    return text_models.sentencepiece_model()


@pytest.fixture(scope="module")
def network(tmp_path_factory, model) -> str:
    return text_models.save(
        text_models.Languages(model), tmp_path_factory.mktemp("languages") / "network"
    )


def rows_of(backbone: tfxfer.Backbone) -> np.ndarray:
    return np.asarray(backbone.takes.decode_many(tf.constant(SENTENCES)))


def done(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
def test_outputs_and_gradients_are_those_of_the_savedmodel(network):
    backbone, loaded = tfxfer.Backbone(network), tf.saved_model.load(network)
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
    backbone = tfxfer.Backbone(network, trainable=False)
    inputs = keras.Input(backbone.entry_shape)
    keras.Model(inputs, backbone(inputs)).save(tmp_path / "model.keras")
    rows = rows_of(backbone)
    np.save(tmp_path / "rows.npy", rows)
    script = (
        "import sys, keras, numpy as np, tfxfer\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "np.save(sys.argv[1] + '/found.npy', model(np.load(sys.argv[1] + '/rows.npy')))\n"
    )
    subprocess.run([python(), "-c", script, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), backbone(rows), atol=1e-6)


@pytest.mark.long
def test_a_run_and_its_export(network, tmp_path):
    table = texts.write_table(tmp_path / "notes.csv")
    run = tmp_path / "run"
    done("run", "frozen", "--data", table, "--backbone", network, "--out", run)
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] > 0.6
    (tmp_path / "new.txt").write_text("My rose is good.")
    own = done("predict", run, tmp_path / "new.txt")
    done("export", run, tmp_path / "served")
    check_same_table(done("predict", tmp_path / "served", tmp_path / "new.txt"), own)


# --- What anybody may have written ----------------------------------------------------------------


def units_of(model: bytes) -> tuple[int, int]:
    """The places of the search tree in a model: its first byte, and the one behind its last."""
    (characters,) = sentencepiece.character_maps(model)
    size = int.from_bytes(characters[:4], "little")
    begin = model.index(characters) + 4
    return begin, begin + size


def with_unit(model: bytes, number: int, unit: int) -> bytes:
    """The model with another unit in its search tree."""
    begin, _ = units_of(model)
    place = begin + 4 * number
    return model[:place] + unit.to_bytes(4, "little") + model[place + 4 :]


def test_a_model_is_sound(model):
    assert sentencepiece.is_sound(model)


def damaged_models(model: bytes) -> dict[str, bytes]:
    begin, end = units_of(model)
    units = np.frombuffer(model[begin:end], "<u4")
    value = int(np.flatnonzero(units >> 31)[0])
    size = (end - begin).to_bytes(4, "little")
    assert model[begin - 4 : begin] == size
    return {
        "empty": b"",
        "no message": b"\x1a\xff\xff",
        "leads far away": with_unit(model, 0, (1 << 30) | (1 << 9)),
        "leads behind the end": with_unit(model, 0, (len(units) << 10)),
        "a text behind the end": with_unit(model, value, (1 << 31) | (1 << 29)),
        "a tree without its texts": model[: begin - 4] + b"\xff\xff\xff\x7f" + model[begin:],
    }


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "no message",
        "leads far away",
        "leads behind the end",
        "a text behind the end",
        "a tree without its texts",
    ],
)
def test_a_damaged_model_is_not_sound(model, damage):
    assert not sentencepiece.is_sound(damaged_models(model)[damage])


@pytest.mark.long
def test_a_network_with_a_damaged_model_is_refused(network, model, tmp_path):
    folder = Path(shutil.copytree(network, tmp_path / "damaged"))
    proto = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for node in all_nodes(proto.meta_graphs[0].graph_def):
        if node.op == "SentencepieceOp":
            node.attr["model"].s = damaged_models(model)["leads far away"]
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    with pytest.raises(DeniedOperationError, match="SentencepieceOp"):
        tfxfer.Backbone(folder)
