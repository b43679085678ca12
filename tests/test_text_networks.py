"""Networks for texts from elsewhere: vocabularies in files, TensorFlow Text, words as they come."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import text_models
import texts
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from loaded import python
from tables import check_same_table

import tfxfer
from tfxfer import serving
from tfxfer.cli import main
from tfxfer.errors import DeniedOperationError, SavedModelError, ServingError
from tfxfer.features.engines import tensorflow_engine
from tfxfer.features.padding import STEP, lengths_of
from tfxfer.savedmodel.open import variables_of

pytestmark = pytest.mark.usefixtures("opened_once")

SENTENCES = ["A rose is a rose.", "", "my bread, good", "nothing known", "the", "soil " * 30]


@dataclass
class Saved:
    """A network in a folder, and its preprocessor where it has one."""

    folder: str
    before: str | None = None

    def backbone(self, **options) -> tfxfer.Backbone:
        return tfxfer.Backbone(self.folder, preprocess=self.before, **options)

    @cached_property
    def frozen(self) -> tfxfer.Backbone:
        """The network, opened once."""
        return self.backbone(trainable=False)

    def original(self, sentences: list[str], loaded=None) -> tf.Tensor:
        """What the SavedModel itself gives."""
        loaded = loaded or tf.saved_model.load(self.folder)
        if self.before is None:
            return loaded(tf.constant(sentences))
        pieces = tf.saved_model.load(self.before)(tf.constant(sentences))
        outputs = loaded(pieces, training=False)["sequence_output"]
        there = tf.cast(pieces["input_mask"], tf.float32)[:, :, None]
        return tf.reduce_sum(outputs * there, 1) / tf.reduce_sum(there, 1)

    def words(self) -> list[str]:
        """The options of a command that uses it."""
        before = [] if self.before is None else ["--backbone-preprocess", self.before]
        return ["--backbone", self.folder, *before]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Saved]:
    place = tmp_path_factory.mktemp("networks")
    words = text_models.write_vocabulary(place / "words", text_models.WORDS)
    pieces = text_models.write_vocabulary(place / "pieces", text_models.PIECES)
    found = {
        "nnlm": Saved(text_models.save(text_models.Nnlm(words), place / "nnlm")),
        "sentences": Saved(text_models.save(text_models.Sentences(), place / "sentences")),
        "pair": Saved(
            text_models.save(text_models.Encoder(), place / "encoder"),
            text_models.save(text_models.Preprocessor(pieces), place / "preprocessor"),
        ),
    }
    # What is read later must not need the files that the networks were made from.
    shutil.rmtree(place / "words")
    shutil.rmtree(place / "pieces")
    return found


@pytest.fixture(params=["nnlm", "sentences", "pair"])
def network(request, saved) -> Saved:
    return saved[request.param]


def rows_of(backbone: tfxfer.Backbone, sentences: list[str]) -> np.ndarray:
    return np.asarray(backbone.takes.decode_many(tf.constant(sentences)))


def done(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
def test_outputs_are_those_of_the_savedmodel(network):
    backbone = network.backbone()
    found = backbone(rows_of(backbone, SENTENCES)).numpy()
    np.testing.assert_allclose(found, network.original(SENTENCES).numpy(), atol=1e-5)


@pytest.mark.long
def test_gradients_are_those_of_the_savedmodel(network):
    backbone, loaded = network.backbone(), tf.saved_model.load(network.folder)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network.original(SENTENCES, loaded)[:, 0] ** 2)
    variables = [one for one in variables_of(loaded) if one.trainable]
    expected = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone(rows_of(backbone, SENTENCES))[:, 0] ** 2)
    found = tape.gradient(loss, [one.value for one in backbone.trainable_weights])

    def sizes(gradients: list) -> list[float]:
        dense = [tf.convert_to_tensor(one) for one in gradients if one is not None]
        return sorted(filter(None, (float(tf.norm(one)) for one in dense)))

    assert len(sizes(found)) >= 1
    np.testing.assert_allclose(sizes(found), sizes(expected), rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_its_last_stages_train_and_the_others_do_not(network):
    backbone = network.backbone()
    backbone.unfreeze(1)
    stage = backbone.stages[-1]
    assert len(backbone.trainable_weights) == len(stage.weights)
    model = keras.Sequential([keras.Input(backbone.entry_shape), backbone, keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [one.numpy() for one in backbone.weights]
    model.fit(rows_of(backbone, SENTENCES), np.arange(6) % 2, verbose=0)
    changed = [
        not np.array_equal(one.numpy(), old)
        for one, old in zip(backbone.weights, before, strict=True)
    ]
    assert 1 <= sum(changed) <= len(stage.weights)


@pytest.mark.long
def test_cuts_give_the_whole(network):
    backbone = network.frozen
    rows = rows_of(backbone, SENTENCES)
    for stages in range(1, len(backbone.stages)):
        prefix, rest = backbone.cut(stages)
        activations = tensorflow_engine(prefix)(rows)
        np.testing.assert_allclose(
            rest(tf.constant(activations)).numpy(), backbone(rows).numpy(), atol=1e-5
        )


@pytest.mark.long
def test_a_file_of_the_model_holds_all_in_a_fresh_process(network, tmp_path):
    backbone = network.frozen
    model = keras.Sequential([keras.Input(backbone.entry_shape), backbone, keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, numpy as np, tensorflow as tf, tfxfer\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "rows = model.layers[0].takes.decode_many(tf.constant(sys.argv[3:]))\n"
        "np.save(sys.argv[2], model(rows).numpy())\n"
    )
    words = [python(), "-c", script, tmp_path / "model.keras", tmp_path / "y.npy", *SENTENCES]
    subprocess.run([str(word) for word in words], check=True)
    expected = model(rows_of(backbone, SENTENCES)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)


@pytest.mark.long
def test_features_have_the_same_bits_whatever_the_batch(network):
    backbone = network.frozen
    engine = tensorflow_engine(backbone.prefix())
    sentences = [text for text, _ in texts.sentences(20)]
    rows = rows_of(backbone, sentences)
    together = engine(rows)
    alone = np.concatenate([engine(rows[i : i + 1]) for i in range(20)])
    mixed = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[mixed], engine(rows[mixed]))
    np.testing.assert_allclose(together, backbone(rows).numpy(), atol=1e-5)


def test_lengths_of_rows_are_rounded_up():
    rows = np.zeros((3, 80), np.float32)
    rows[0, 0] = rows[1, STEP] = rows[2, 40 + 38] = 1
    assert lengths_of(rows, 1).tolist() == [STEP, 2 * STEP, 80]
    assert lengths_of(rows, 2).tolist() == [STEP, 2 * STEP, 40]


@pytest.mark.long
@pytest.mark.parametrize("name", ["nnlm", "pair"])
def test_a_run_and_its_export(name, saved, tmp_path):
    table = texts.write_table(tmp_path / "notes.csv")
    run = tmp_path / "run"
    done("run", "frozen", "--data", table, *saved[name].words(), "--out", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.6 and metrics["baselines"]["tf_idf"]["n"] == 40
    (tmp_path / "new.txt").write_text("My rose is good.")
    own = done("predict", run, tmp_path / "new.txt")
    done("export", run, tmp_path / "served")
    check_same_table(done("predict", tmp_path / "served", tmp_path / "new.txt"), own)
    script = (
        "import sys, tensorflow as tf\n"
        "if sys.argv[3:]: import tensorflow_text\n"
        "answer = tf.saved_model.load(sys.argv[1] + '/1').signatures['serving_default']\n"
        "print(answer(inputs=tf.constant([sys.argv[2]]))['classes'][0, 0].numpy().decode())\n"
    )
    words = [python(), "-c", script, tmp_path / "served", "My rose is good."]
    words += ["text"] if name == "pair" else []
    shown = subprocess.run([str(word) for word in words], check=True, capture_output=True)
    assert f",{shown.stdout.decode().strip()}," in own


@pytest.mark.long
def test_litert_files_of_a_pair_take_what_its_preprocessor_gives(saved, tmp_path):
    table, run = texts.write_table(tmp_path / "notes.csv"), tmp_path / "run"
    done("run", "frozen", "--data", table, *saved["pair"].words(), "--out", run)
    done("export", run, tmp_path / "phone", "--format", "litert")
    interpreter = Interpreter(str(tmp_path / "phone" / "1" / "model.float32.tflite"))
    interpreter.allocate_tensors()
    places = {one["name"]: one["index"] for one in interpreter.get_input_details()}
    (output,) = interpreter.get_output_details()
    pieces = tf.saved_model.load(saved["pair"].before)(tf.constant(SENTENCES))
    named = {"ids": "input_word_ids", "mask": "input_mask", "types": "input_type_ids"}
    answers = []
    for i in range(len(SENTENCES)):
        for name, own in named.items():
            interpreter.set_tensor(places[name], pieces[own][i : i + 1].numpy())
        interpreter.invoke()
        answers.append(interpreter.get_tensor(output["index"])[0])
    expected = serving.open_model(run).answer(tf.constant(SENTENCES))["probabilities"]
    np.testing.assert_allclose(answers, expected, atol=1e-5)


@pytest.mark.long
def test_litert_is_refused_where_an_app_can_not_make_the_numbers(saved, tmp_path):
    table, run = texts.write_table(tmp_path / "notes.csv"), tmp_path / "run"
    done("run", "frozen", "--data", table, *saved["nnlm"].words(), "--out", run)
    with pytest.raises(ServingError, match="vocabulary"):
        serving.export_litert(run, tmp_path / "phone")
    assert not (tmp_path / "phone").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["sentences", "pair"])
def test_partial_trains_its_last_stage(name, saved, tmp_path):
    table, run = texts.write_table(tmp_path / "notes.csv"), tmp_path / "run"
    words = ["--data", table, *saved[name].words(), "--out", run, "--unfreeze", 1, "--epochs", 2]
    done("run", "partial", *words, "--learning-rate", 0.001)
    candidates = json.loads((run / "metrics.json").read_text())["candidates"]
    assert {"frozen", "tuned"} <= set(candidates)


@pytest.mark.long
def test_an_encoder_without_its_preprocessor_says_what_to_do(saved):
    with pytest.raises(SavedModelError, match="--backbone-preprocess"):
        tfxfer.Backbone(saved["pair"].folder)
    with pytest.raises(SavedModelError, match="input_word_ids"):
        tfxfer.Backbone(saved["pair"].folder, preprocess=saved["nnlm"].folder)
    pooled = saved["pair"].backbone(output="pooled_output")
    assert pooled.feature_size == text_models.WIDTH


@pytest.mark.long
def test_a_preprocessor_gives_rows_of_the_length_that_is_asked_for(saved):
    pair = saved["pair"]
    backbone = pair.backbone(length=16)
    first, encoder = tf.saved_model.load(pair.before), tf.saved_model.load(pair.folder)
    assert backbone.takes.length == 16 and pair.backbone().takes.length == 24
    pieces = first.bert_pack_inputs([first.tokenize(tf.constant(SENTENCES))], tf.constant(16))
    there = tf.cast(pieces["input_mask"], tf.float32)[:, :, None]
    sequence = encoder(pieces, training=False)["sequence_output"]
    expected = tf.reduce_sum(sequence * there, 1) / tf.reduce_sum(there, 1)
    np.testing.assert_allclose(backbone(rows_of(backbone, SENTENCES)), expected, atol=1e-5)


@pytest.mark.long
def test_a_length_is_refused_where_a_network_has_its_own(saved, tmp_path):
    with pytest.raises(SavedModelError, match="4,096 bytes"):
        saved["nnlm"].backbone(length=16)
    with pytest.raises(SavedModelError, match="24"):  # the encoder has no more places
        saved["pair"].backbone(length=32)
    first = text_models.Preprocessor(
        text_models.write_vocabulary(tmp_path / "pieces", text_models.PIECES)
    )
    del first.bert_pack_inputs
    before = text_models.save(first, tmp_path / "first")
    with pytest.raises(SavedModelError, match="bert_pack_inputs"):
        tfxfer.Backbone(saved["pair"].folder, preprocess=before, length=16)


@pytest.mark.long
def test_a_text_is_read_up_to_a_number_of_bytes(saved):
    backbone = saved["sentences"].backbone()
    long = "rose \u00e9" * 1000
    row = rows_of(backbone, [long])[0]
    kept = bytes(int(i) - 1 for i in row if i).decode()  # no letter is cut in two
    assert long.startswith(kept) and len(row) - 3 <= len(kept.encode()) <= len(row)


@pytest.mark.long
def test_a_table_from_another_file_is_refused(saved, tmp_path):
    """The file name is a constant in the graph, and no asset."""

    class Reader(tf.Module):
        def __init__(self):
            super().__init__()
            self.vectors = tf.Variable(tf.random.normal((10, 4)))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, inputs):
            table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
            fill = tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=table, filename="/etc/passwd", key_index=-2, value_index=-1
            )
            with tf.control_dependencies([fill]):
                ids = tf.raw_ops.LookupTableFindV2(
                    table_handle=table, keys=inputs, default_value=tf.constant(0, tf.int64)
                )
            return tf.gather(self.vectors, ids % 10)

    tf.saved_model.save(Reader(), str(tmp_path / "reader"))
    with pytest.raises(DeniedOperationError, match="InitializeTableFromTextFileV2"):
        tfxfer.Backbone(str(tmp_path / "reader"))


@pytest.mark.long
def test_assets_that_lead_elsewhere_are_refused(saved, tmp_path):
    folder = Path(shutil.copytree(saved["nnlm"].folder, tmp_path / "nnlm"))
    (asset,) = (folder / "assets").iterdir()
    asset.unlink()
    asset.symlink_to("/etc/passwd")
    with pytest.raises(DeniedOperationError, match="asset"):
        tfxfer.Backbone(str(folder))
