"""Texts: tables and files of them, networks with a tokenizer, runs, and what is served."""

import csv
import importlib.util
import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import texts
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from loaded import python
from logs import logged
from tables import check_same_table, rows_of
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

import tfxfer
from tfxfer import data, features, inputs, serving, steps, tuning
from tfxfer.cache import Cache
from tfxfer.cli import main
from tfxfer.data.decoding import Alteration
from tfxfer.errors import DataError, HandleError, ImageError, SavedModelError
from tfxfer.features import Decoder
from tfxfer.handles import safetensors, wordllama
from tfxfer.handles.bytepairs import BYTE, SPACE, BytePairs
from tfxfer.handles.lookup import look_up, make_table
from tfxfer.handles.wordpiece import WordPiece
from tfxfer.inputs.text import weigh_words
from tfxfer.inputs.text.pieces import CHECKED
from tfxfer.inputs.text.read import problem, read_together, to_utf8
from tfxfer.savedmodel.bag import COLUMNS
from tfxfer.serving.litert import Judging
from tfxfer.steps import offline_names

pytestmark = pytest.mark.usefixtures("opened_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A SavedModel that takes texts."""
    return texts.save_network(tmp_path_factory.mktemp("network") / "texts")


@pytest.fixture(scope="module")
def network(folder) -> tfxfer.Backbone:
    return tfxfer.Backbone(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return texts.write_table(tmp_path_factory.mktemp("table") / "notes.csv")


@pytest.fixture(scope="module")
def run(folder, table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "notes"
    done("run", "frozen", "--data", table, "--backbone", folder, "--out", out)
    return out


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def decoded(network: tfxfer.Backbone, sentences: list[str]) -> np.ndarray:
    return np.stack([network.takes.decode(tf.constant(one)).numpy() for one in sentences])


# --- tokenizer ---

# What the tokenizer of sentence-transformers/all-MiniLM-L6-v2 gives (transformers 5.x).
ORIGINAL = {
    "Hello, world!": [101, 7592, 1010, 2088, 999, 102],
    "\u00c9l\u00e8ve \u00e0 l'\u00e9cole \u2013 na\u00efve caf\u00e9": [
        *[101, 3449, 18697, 1037, 1048, 1005, 12431, 1516, 15743, 7668, 102],
    ],
    "\u65e5\u672c\u8a9e tokens": [101, 1864, 1876, 1950, 19204, 2015, 102],
    "unaffable antidisestablishmentarianism": [
        *[101, 14477, 20961, 3468, 3424, 10521, 4355, 7875, 13602, 3672, 12199, 2964, 102],
    ],
    "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3": [
        *[101, 1173, 18199, 29733, 29735, 29736, 29730, 29733, 102],
    ],
    "a\tb\r\nc\u0000\u200b": [101, 1037, 1038, 1039, 102],
    "\U0001f600 emoji": [101, 100, 7861, 29147, 2072, 102],
    "x" * 101: [101, 100, 102],
    "": [101, 102],
}
# The first numbers of its sentence vectors.
VECTORS = {
    "The meeting moves to Thursday.": [0.031855, -0.020692, -0.034907, 0.004869, -0.020589],
    "Le caf\u00e9 est ferm\u00e9.": [0.010002, 0.014612, 0.021117, 0.01496, 0.063405],
}


@pytest.mark.long
def test_minilm_is_the_original():
    network = tfxfer.Backbone("minilm", trainable=False)
    rows = decoded(network, list(ORIGINAL)).astype(int)
    assert [[int(i) for i in row if i] for row in rows] == list(ORIGINAL.values())
    assert [stage.name for stage in network.stages] == ["words", *(f"layer_{i}" for i in range(6))]
    vectors = network(decoded(network, list(VECTORS))).numpy()
    np.testing.assert_allclose(vectors[:, :5], list(VECTORS.values()), atol=2e-6)


def test_words_are_cut_into_the_longest_pieces():
    tokenizer = WordPiece(texts.VOCABULARY, 8)
    number = {piece: i for i, piece in enumerate(texts.VOCABULARY)}
    (row,) = tokenizer(tf.constant(["Roses, rosesx the"])).numpy()
    names = ["[CLS]", "rose", "##s", ",", "[UNK]", "the", "[SEP]", "[PAD]"]
    assert row.tolist() == [number[name] for name in names]


def test_a_long_text_is_cut_and_ends_all_the_same():
    tokenizer = WordPiece(texts.VOCABULARY, 8)
    (row,) = tokenizer(tf.constant(["rose " * 100])).numpy()
    assert len(row) == 8 and row[-1] == tokenizer.end and (row[1:-1] == row[1]).all()


def test_neighbours_are_merged_in_the_order_of_the_list():
    pieces = [BYTE.format(i) for i in range(256)]
    pieces = ["<unk>", *pieces, SPACE, *"abcd", SPACE + "a", "ab", "cd", SPACE + "ab", "abcd"]
    merges = [("a", "b"), (SPACE, "a"), ("c", "d"), (SPACE, "ab"), ("ab", "cd")]
    number = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = BytePairs(number, merges, 8)
    rows = tokenizer(tf.constant(["ab a", "abcd  cab", "\u00e9", ""])).numpy()
    expected = [
        [SPACE + "ab", SPACE + "a"],
        [SPACE + "ab", "cd", SPACE, "c", "ab"],
        [SPACE, "<0xC3>", "<0xA9>"],
        [],
    ]
    assert [[pieces[i] for i in row if i] for row in rows] == expected


@pytest.mark.long
def test_the_network_of_static_vectors_cuts_texts_as_its_original():
    network = tfxfer.Backbone("static", trainable=False)
    sentences = [
        "The meeting moves to Thursday.",
        "Le caf\u00e9 est ferm\u00e9: 12,50 \u20ac \U0001f600",
        "=" * 70,
    ]
    spec = importlib.util.find_spec("wordllama")
    folder = Path(spec.origin).parent
    original = Tokenizer.from_file(str(folder / wordllama.TOKENIZER))
    expected = [original.encode(one, add_special_tokens=False).ids for one in sentences]
    rows = decoded(network, sentences).astype(int)
    assert [[int(i) for i in row if i] for row in rows] == expected
    vectors = safetensors.read(folder / wordllama.VECTORS, 2**26)["embedding.weight"]
    means = np.stack([vectors[ids].astype(np.float32).mean(0) for ids in expected])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(network(decoded(network, sentences)).numpy(), means, atol=1e-5)
    shorter = tfxfer.Backbone("static", trainable=False, length=16)
    np.testing.assert_array_equal(decoded(shorter, sentences), decoded(network, sentences)[:, :16])


def test_strings_are_found_in_a_constant_table():
    keys = [f"key {i}" for i in range(1000)]
    found = look_up(make_table(keys, np.arange(1000)), tf.constant([["key 7", "none"]]), -1)
    assert found.numpy().tolist() == [[7, -1]]
    with pytest.raises(ValueError, match="equal"):
        make_table(["a", "a"], np.arange(2))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        (10).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}    ',
    ],
)
def test_a_damaged_file_of_weights_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(HandleError, match="safetensors"):
        safetensors.read(path, 1000)


# --- the network ---


@pytest.mark.long
def test_a_network_gives_what_its_savedmodel_gives(folder, network):
    sentences = [text for text, _ in texts.sentences(20)] + ["", "rose", "unknown words only"]
    loaded = tf.saved_model.load(folder)
    expected = loaded(tf.constant(sentences)).numpy()
    np.testing.assert_allclose(network(decoded(network, sentences)).numpy(), expected, atol=1e-5)
    assert len(network.stages) == 1 + texts.LAYERS and network.takes.KIND == "text"


@pytest.mark.long
def test_its_gradients_are_those_of_the_savedmodel(folder, network):
    sentences = [text for text, _ in texts.sentences(8)]
    loaded = tf.saved_model.load(folder)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(tf.constant(sentences))[:, 0] ** 2)
    expected = tape.gradient(loss, loaded.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(decoded(network, sentences))[:, 0] ** 2)
    found = tape.gradient(loss, [one.value for one in network.trainable_weights])

    def sizes(gradients: list) -> list[float]:
        dense = [tf.convert_to_tensor(one) for one in gradients if one is not None]
        return sorted(float(tf.norm(one)) for one in dense)

    np.testing.assert_allclose(sizes(found), sizes(expected), rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_padding_does_not_count_in_taps(network):
    tapped = network.tapped(2)
    short = decoded(network, ["rose"])
    columns = tapped(short).numpy()[0]
    # The mean of three positions lies between their smallest and largest value.
    mean, most = columns[: texts.WIDTH], columns[texts.WIDTH : 2 * texts.WIDTH]
    assert (mean <= most + 1e-6).all()
    weights = {w.name: w.numpy() for w in network.weights}
    longer = np.array(short)
    assert (longer[0, 3:] == 0).all() and weights


@pytest.mark.long
def test_words_and_pairs_are_counted_in_front_of_the_first_stage(network):
    counted = network.tapped(len(network.stages))
    assert counted.stages[0].name == "words" and counted.tap_widths[0] == COLUMNS
    sentences = ["rose tulip", "tulip rose", "rose rose rose tulip", ""]
    columns = np.expm1(counted(decoded(network, sentences)).numpy()[:, :COLUMNS])
    # The beginning and the end of a text are pieces, too.
    np.testing.assert_allclose(columns.sum(1), [7, 7, 11, 3], atol=1e-4)
    same = np.minimum(columns[0], columns[1]).sum()
    assert 4 <= same < 7  # the words are the same, the pairs are not


@pytest.mark.long
def test_a_network_is_cut_at_every_stage(network):
    rows = decoded(network, [text for text, _ in texts.sentences(5)])
    whole = network(rows).numpy()
    for stages in range(1, len(network.stages)):
        prefix, rest = network.cut(stages)
        graph = tf.compat.v1.wrap_function(
            lambda x, prefix=prefix: tf.graph_util.import_graph_def(
                prefix.graph, input_map={prefix.input: x}, return_elements=[prefix.output]
            )[0],
            [tf.TensorSpec((None, texts.LENGTH), tf.float32)],
        )
        np.testing.assert_allclose(rest(graph(tf.constant(rows))).numpy(), whole, atol=1e-5)


@pytest.mark.long
def test_it_is_saved_with_its_tokenizer(network, tmp_path):
    model = keras.Sequential([keras.Input((texts.LENGTH,)), network, keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, numpy as np, tensorflow as tf, tfxfer\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "rows = model.layers[0].takes.decode_many(tf.constant(sys.argv[3:]))\n"
        "np.save(sys.argv[2], model(rows).numpy())\n"
    )
    sentences = ["the rose.", "good bread"]
    words = [python(), "-c", script, tmp_path / "model.keras", tmp_path / "y.npy", *sentences]
    subprocess.run([str(word) for word in words], check=True)
    expected = model(decoded(network, sentences)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


# --- data ---


def test_a_table_of_texts_needs_no_path(table):
    examples = data.load(table)
    assert examples.kind_name == "text" and examples.classes == ("garden", "kitchen")
    assert examples.files[0] == "notes.csv:2" and examples.read(0).endswith(b".")


def test_subject_and_body_are_one_text(tmp_path):
    path = tmp_path / "mails.csv"
    rows = [f"s{i},{'ab'[i % 2]},body {i}" for i in range(12)]
    path.write_text("\n".join(["Subject,label,Body", *rows]))
    assert data.load(path).read(0) in {f"s{i}\nbody {i}".encode() for i in range(12)}


def test_two_columns_that_could_be_the_text_are_refused(tmp_path):
    path = tmp_path / "mails.csv"
    path.write_text("text,body,label\na,b,c\nd,e,f\n")
    with pytest.raises(DataError, match="text, body"):
        data.load(path)


def test_a_column_of_files_with_another_name_is_not_taken_for_texts(tmp_path):
    path = tmp_path / "photos.csv"
    path.write_text("content,label\na.jpg,x\nb.png,y\n")
    with pytest.raises(DataError, match="the name path"):
        data.load(path)


def test_networks_that_are_tried_take_the_kind_of_the_data():
    assert offline_names("text") == ["minilm", "static"]
    assert "minilm" not in offline_names("image")


def test_files_in_class_folders_are_texts(tmp_path):
    for i, (text, kind) in enumerate(texts.sentences(12)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{i}.txt").write_text(text)
    examples = data.load(tmp_path)
    assert examples.kind_name == "text" and len(examples) == 12


@pytest.mark.parametrize(
    "markup",
    [
        "<html><body>{}</body></html>",
        "{}<br /><br />",
        "<div class='x'>{}</div>",
        "{}&nbsp;",
        "{}<BR>",
    ],
)
def test_markup_in_many_texts_is_said_with_its_share(markup, network):
    contents = [f"the soup number {i}".encode() for i in range(20)]
    contents[:5] = [markup.format(f"the soup number {i}").encode() for i in range(5)]
    note = inputs.find("text").said_of_read(contents, network.takes)[0]
    assert "25 % of the texts" in note and markup.replace("{}", "")[:4] in note


@pytest.mark.parametrize("text", ["if a < b and c > d", "<3 you", "List<p2>", "a <link> &amp; b"])
def test_signs_are_no_markup(text, network):
    assert inputs.find("text").said_of_read([text.encode()] * 9, network.takes) == []


def test_markup_in_few_texts_is_not_said(network):
    contents = [b"the <br> tag", *(f"the soup number {i}".encode() for i in range(19))]
    assert inputs.find("text").said_of_read(contents, network.takes) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("na\u00efve caf\u00e9".encode(), "na\u00efve caf\u00e9"),
        ("na\u00efve caf\u00e9".encode("utf-8-sig"), "na\u00efve caf\u00e9"),
        ("na\u00efve caf\u00e9".encode("utf-16"), "na\u00efve caf\u00e9"),
        ("Un caf\u00e9 tr\u00e8s na\u00eff, s'il vous pla\u00eet".encode("cp1252"), None),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree"),
    ],
)
def test_encodings_and_line_ends(content, found):
    text = to_utf8(content, "a.txt").decode()
    assert text == found if found else "caf\u00e9" in text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("K\u00e4se", "latin-1"),
        ("Gr\u00f6\u00dfe und Men\u00fc", "latin-1"),
        ("\u00a1Hola!", "cp1252"),
        ("20 \u20ac", "cp1252"),
        ("Le caf\u00e9 est ferm\u00e9 \u2013 \u201cna\u00efve\u201d", "cp1252"),
        ("informa\u00e7\u00e3o sobre a situa\u00e7\u00e3o, n\u00e3o h\u00e1", "cp1252"),
        ("\u041a\u043d\u0438\u0433\u0430 \u043d\u0430 \u043f\u043e\u043b\u043a\u0435", "cp1251"),
        ("\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "shift_jis"),
        ("Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "cp1250"),
        ("\u0150szi es\u0151, \u00e1rv\u00edzt\u0171r\u0151 t\u00fck\u00f6r. " * 10, "cp1250"),
    ],
)
def test_a_text_alone_in_an_old_encoding_is_read(text, encoding):
    assert to_utf8(text.encode(encoding), "a.txt").decode() == text


def test_a_folder_of_several_encodings_is_read_text_by_text():
    german = (
        "Gr\u00fc\u00dfe aus M\u00fcnchen, wir h\u00f6ren uns am n\u00e4chsten Donnerstag wieder. "
    )
    russian = (
        "\u0412\u0447\u0435\u0440\u0430 \u043c\u044b "
        "\u0432\u0441\u0442\u0440\u0435\u0442\u0438\u043b\u0438 "
        "\u0441\u0442\u0430\u0440\u044b\u0445 \u0434\u0440\u0443\u0437\u0435\u0439 "
        "\u0438 \u0434\u043e\u043b\u0433\u043e "
        "\u0433\u043e\u0432\u043e\u0440\u0438\u043b\u0438. "
    )
    written = {f"{i}": f"{i} {german * 5}".encode("cp1252") for i in range(20)}
    written |= {f"ru{i}": f"{i} {russian * 5}".encode("cp1251") for i in range(4)}
    written |= {"cut": german.encode("utf-8")[:-60] + b"\xc3"}
    names = sorted(written)
    read, notes = read_together(lambda i: written[names[i]], names)
    assert any("cp1252" in note for note in notes)
    for i, name in enumerate(names[:-5]):
        assert to_utf8(read(i), name).decode().endswith(f" {german * 5}")
    for i in [i for i, name in enumerate(names) if name.startswith("ru")]:
        assert to_utf8(read(i), names[i]).decode().endswith(f" {russian * 5}")
    with pytest.raises(ImageError, match="cut"):
        to_utf8(read(names.index("cut")), "cut")


@pytest.mark.parametrize("ending", [".eml", ".mbox"])
def test_mails_with_their_technical_lines_are_not_taken_for_texts(ending, tmp_path):
    for name in ("work", "spam"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}{ending}").write_text(f"Received: by x\n\nmail {i} of {name}")
    with pytest.raises(DataError, match=f"Mails are not read.*{ending}"):
        data.load(tmp_path)
    with pytest.raises(DataError, match=f"0{ending}"):
        data.find_unlabelled([tmp_path / "work" / f"0{ending}"], inputs.find("text"))


def german(folder, encoding: str) -> list[str]:
    """Save short texts, one of them in UTF-8, and return them in the order of the files."""
    written = []
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            text = f"K\u00e4se {name} {i}"
            (folder / name / f"{i}.txt").write_bytes(text.encode(encoding if i else "utf-8"))
            written.append(text)
    return written


def test_short_texts_in_an_old_encoding_are_read_together_and_said(tmp_path):
    written = german(tmp_path, "latin-1")
    examples = data.load(tmp_path)
    assert [examples.read(i).decode() for i in range(16)] == written
    said = [note for note in examples.notes if "cp1252" in note]
    assert len(said) == 1 and "14 of 16" in said[0] and "a/1.txt" in said[0]


def test_nothing_is_said_of_texts_in_utf_8(tmp_path):
    written = german(tmp_path, "utf-8")
    examples = data.load(tmp_path)
    assert [examples.read(i).decode() for i in range(16)] == written
    assert not any("UTF-8" in note for note in examples.notes)


def test_letters_that_one_short_text_does_not_show_are_shown_by_all(tmp_path):
    words = (
        "\u6211\u7231\u8bfb\u4e66 \u4f60\u597d\u4e16\u754c \u8c22\u8c22\u4f60 \u56fe\u4e66".split()
    )
    for i, word in enumerate(words):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}.txt").write_bytes(word.encode("gbk"))
    examples = data.load(tmp_path)
    assert {examples.read(i).decode() for i in range(4)} == set(words)


def test_files_to_predict_are_read_together_and_said(tmp_path, caplog):
    written = german(tmp_path, "latin-1")
    found = data.find_unlabelled([tmp_path], inputs.find("text"))
    assert [found.read(i).decode() for i in range(16)] == written
    assert "cp1252" in caplog.text


def test_bytes_in_an_old_encoding_are_read_together_and_said():
    written = [f"K\u00e4se {i}" for i in range(16)]
    labels = [i % 2 for i in range(16)]
    contents = [text.encode("latin-1") for text in written]
    slices = tf.data.Dataset.from_tensor_slices((contents, labels))
    for examples in (data.from_arrays(contents, labels), data.from_dataset(slices)):
        assert [examples.read(i).decode() for i in range(16)] == written
        assert any("cp1252" in note for note in examples.notes)


def test_texts_in_utf_16_without_a_mark_are_told(tmp_path):
    german(tmp_path, "utf-16-le")
    with pytest.raises(ImageError, match="UTF-16"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" \n\t", "empty"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04...", "ZIP"),
        (b"a\x00b", "zero"),
        (b"a" * (10 * 1024**2 + 1), "bytes"),
        (b"\xff\xfe\xfa", "UTF-8"),
    ],
)
def test_what_is_no_text_is_told(content, said):
    assert said in (problem(content) or "")


def test_a_file_that_is_no_text_stops_the_run_by_its_name(tmp_path):
    for i, (text, kind) in enumerate(texts.sentences(12)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{i}.txt").write_text(text)
    (tmp_path / "garden" / "scan.txt").write_bytes(b"%PDF-1.7")
    with pytest.raises(ImageError, match="scan.txt is no text, but a PDF"):
        data.load(tmp_path)


def test_words_and_letters_are_learnt_from_the_training_texts():
    sentences = [text for text, _ in texts.sentences(40)]
    rows = weigh_words([*sentences, "Rose, rose and TULIP", "zzz"], 40, seed=0)
    assert rows.shape[0] == 42 and rows.shape[1] <= 40 and rows.dtype == np.float32
    # Of the training texts, the products of the rows are those of the weighted words.
    np.testing.assert_allclose((rows[:40] ** 2).sum(1), 1, atol=1e-5)
    garden = [i for i, text in enumerate(sentences) if "rose" in text.lower()]
    others = [i for i in range(40) if i not in garden]
    alike = rows[:40] @ rows[40]
    assert alike[garden].mean() > alike[others].mean()
    assert np.abs(rows[41]).max() < 0.2  # nothing in it was seen in training


# --- runs ---


@pytest.mark.long
def test_texts_of_two_kinds_are_told_apart(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.95 and metrics["test"]["n"] == 40


@pytest.mark.long
def test_new_texts_are_answered_by_a_run_and_by_its_export(run, tmp_path):
    for name, text in (
        ("a", "Good soup with salt and bread."),
        ("b", "Water and sun for the tulip and the soil."),
    ):
        (tmp_path / f"{name}.txt").write_text(text)
    files = (tmp_path / "a.txt", tmp_path / "b.txt")
    done("predict", run, *files, "--to", tmp_path / "run.csv")
    own = (tmp_path / "run.csv").read_text("utf-8-sig")
    assert [row["predicted"] for row in rows_of(own)] == ["kitchen", "garden"]
    done("export", run, tmp_path / "served")
    done("predict", tmp_path / "served", *files, "--to", tmp_path / "served.csv")
    check_same_table((tmp_path / "served.csv").read_text("utf-8-sig"), own)
    served = tf.saved_model.load(str(tmp_path / "served" / "1"))
    said = served.signatures["serving_default"](inputs=tf.constant(["bread and salt"]))
    assert said["classes"].numpy()[0, 0] == b"kitchen"
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.append(b"bread and salt")
    found = served.signatures["classify"](tf.constant([example.SerializeToString()]))
    assert found["classes"].numpy()[0, 0] == b"kitchen"


@pytest.mark.long
def test_answers_of_a_table_of_texts_keep_its_other_columns(run, tmp_path):
    (tmp_path / "new.csv").write_text("ID,text,Day\n007,Good soup with salt,-5\n02,Water it,=x\n")
    done("predict", run, tmp_path / "new.csv", "--to", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["ID", "Day", "file", "predicted", "probability"]
    assert [(row["ID"], row["Day"]) for row in rows] == [("007", "-5"), ("02", "'=x")]


@pytest.mark.long
def test_a_run_is_judged_on_other_texts(run, tmp_path):
    other = texts.write_table(tmp_path / "others.csv", count=20, seed=7)
    assert "n = 10" in done("evaluate", run, "--data", other)


@pytest.fixture(scope="module")
def phone(run, tmp_path_factory) -> Path:
    """The LiteRT files of the run."""
    folder = tmp_path_factory.mktemp("phone")
    with logged() as lines:
        done("export", run, folder, "--format", "litert")
    assert any("vocab.txt" in line and "tokenizer.json" in line for line in lines)
    return folder / "1"


@pytest.mark.long
@pytest.mark.parametrize(("kind", "bound"), [("float32", 1e-5), ("float16", 1e-2), ("int8", 0.1)])
def test_litert_files_answer_numbers_as_the_run_answers_texts(run, phone, network, kind, bound):
    sentences = [text for text, _ in texts.sentences(30, seed=5)]
    expected = serving.open_model(run).answer(tf.constant(sentences))["probabilities"].numpy()
    interpreter = Interpreter(str(phone / f"model.{kind}.tflite"))
    interpreter.allocate_tensors()
    (ids,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert ids["name"] == "ids" and ids["dtype"] == np.int32
    answers = []
    for row in decoded(network, sentences).astype(np.int32):
        interpreter.set_tensor(ids["index"], row[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(output["index"])[0])
    np.testing.assert_allclose(answers, expected, atol=bound)
    assert (phone / "labels.txt").read_text().split() == ["garden", "kitchen"]


@pytest.mark.long
def test_another_library_makes_the_numbers_from_what_lies_beside_the_files(phone, network):
    steps = json.loads((phone / "tokenizer.json").read_text())
    tokenizer = BertWordPieceTokenizer(
        str(phone / steps["vocabulary"]),
        lowercase=steps["lower_case"],
        strip_accents=steps["strip_accents"],
    )
    tokenizer.enable_truncation(steps["length"])
    tokenizer.enable_padding(length=steps["length"], pad_id=steps["padding"])
    sentences = ["My R\u00f3se is GOOD, the roses!", "", "\u6c34 water\tand  soil.", "the " * 30]
    own = [tokenizer.encode(sentence).ids for sentence in sentences]
    np.testing.assert_array_equal(own, decoded(network, sentences))


@pytest.mark.long
def test_a_network_whose_length_is_in_its_graph_says_so(folder, tiny_savedmodel):
    with pytest.raises(SavedModelError, match="16 pieces"):
        tfxfer.Backbone(folder, length=32)
    with pytest.raises(SavedModelError, match="no texts"):
        tfxfer.Backbone(tiny_savedmodel, length=32)


@pytest.mark.long
def test_images_and_texts_do_not_fit(folder, photos, tmp_path):
    words = ("--data", photos, "--backbone", folder, "--out", tmp_path / "run")
    assert "text" in done("run", "frozen", *words, code=1)


@pytest.mark.long
def test_altered_copies_have_the_features_of_altered_texts(folder, network, table, tmp_path):
    examples, kinds = data.load(table), ("dropout", "order")
    prefix = network.prefix(None)
    options = {"cache": Cache(tmp_path), "augment": kinds}
    copies = features.extract(examples, prefix, number=1, **options)
    assert (copies[:] != features.extract(examples, prefix, number=2, **options)[:]).any()
    altered = [
        inputs.find("text")
        .alter(
            tf.constant(examples.read(i)),
            tf.constant(inputs.seed_of(examples.digests[i], 1)),
            kinds,
        )
        .numpy()
        for i in range(len(examples))
    ]
    expected = network(network.takes.decode_many(tf.constant(altered)))
    np.testing.assert_allclose(copies[:], expected, atol=1e-5)


@pytest.mark.long
def test_many_texts_are_altered_as_few_are(network, tmp_path):
    examples = data.load(texts.write_table(tmp_path / "many.csv", count=1100))
    decoder = Decoder(examples, network.takes, 32, Alteration(("dropout", "order"), 1))
    rows = range(len(examples))
    many = np.stack(list(decoder.each(rows)))
    few = [one for start in rows[::500] for one in decoder.each(rows[start : start + 500])]
    np.testing.assert_array_equal(many, few)
    np.testing.assert_array_equal(many, list(decoder.dataset(rows).as_numpy_iterator()))


def key_of_copies(network: tfxfer.Backbone) -> dict:
    prefix = network.prefix(None)
    (key,) = features.of_prefix(
        prefix, "tensorflow", "float32", augment=("dropout",), number=1
    ).keys
    return key


def test_texts_that_are_altered_in_another_way_are_other_rows_of_the_cache(network, monkeypatch):
    before = key_of_copies(network)
    monkeypatch.setattr(inputs.find("text"), "ALTERATION", 99)
    assert key_of_copies(network) != before


def test_an_app_is_described_by_a_few_of_many_texts(network):
    sentences = [text.encode() for text, _ in texts.sentences(CHECKED + 100)]
    left = iter(sentences)
    inputs.find("text").for_app(network.takes, left)
    assert [*left] == sentences[CHECKED:]


def test_litert_files_are_judged_on_copies_that_no_epoch_has(network, table):
    examples = data.load(table)
    rows, takes = np.arange(len(examples)), network.takes
    judged = Judging(Decoder(examples, takes, 8), rows, rows, is_altered=True).judged_examples()
    first = Decoder(examples, takes, 8, Alteration(("dropout",), 0)).each(rows)
    assert (np.stack([*judged]) != np.stack([*first])).any()


@pytest.mark.long
def test_an_alteration_that_changes_no_text_is_not_used(network, tmp_path):
    words = {kind: [a + b for a in words for b in words] for kind, words in texts.KINDS.items()}
    lines = [f"{word},{kind}\n" for kind, many in words.items() for word in many]
    (tmp_path / "words.csv").write_text("text,label\n" + "".join(lines))
    extractor, prefix = features.Extractor(Cache(tmp_path / "cache")), network.prefix(None)
    found = features.extract(data.load(tmp_path / "words.csv"), prefix, cache=extractor.cache)
    with logged() as said:
        assert not tuning.harmless(found, found.examples.where("train"), prefix, extractor)
    assert [line.split()[0] for line in said if "changes none" in line] == ["dropout", "order"]


@pytest.mark.long
def test_a_run_that_goes_on_keeps_its_alterations(folder, table, tmp_path):
    begun = tfxfer.Run(tmp_path / "run", recipe="full")
    begun.record(chosen_augmentations=["order"])
    begun.close()
    run = tfxfer.Run(tmp_path / "run", recipe="full", resume=True)
    extracted = steps.extract(run, steps.prepare(run, data.load(table), folder))
    assert steps.choose_augmentations(run, extracted, "auto", whole=True) == ("order",)
    run.close()


@pytest.mark.long
def test_training_from_texts_alters_them_anew_in_each_epoch(folder, network, table, tmp_path):
    found = features.extract(data.load(table), network.prefix(None), cache=Cache(tmp_path))
    source = tuning.from_examples(network, found, augment=("dropout",))
    strategy = tf.distribute.get_strategy()

    def epoch(source: tuning.Source, number: int) -> np.ndarray:
        batches = source.batches(np.arange(8), 8, 0, strategy)(number, 0)
        return next(iter(batches))[0].numpy()

    altered, plain = epoch(source, 1), epoch(tuning.from_examples(network, found), 1)
    np.testing.assert_array_equal(altered, epoch(source, 1))
    assert ((altered != 0).sum(1) <= (plain != 0).sum(1)).all()
    assert (altered != plain).any()
    decoded_rows = [tuple(row) for row in epoch(source, 2)]
    assert sorted(decoded_rows) != sorted(tuple(row) for row in altered)


@pytest.mark.long
def test_views_of_texts_are_used_where_they_are_asked_for(folder, table, tmp_path):
    words = ("--data", table, "--backbone", folder, "--epochs", 2, "--learning-rate", 0.001)
    words = (*words, "--unfreeze", 1, "--views", 1, "--augment", "dropout+order")
    found = []
    for name in ("first", "second"):
        done("run", "partial", *words, "--out", tmp_path / name)
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    settings = json.loads((tmp_path / "first" / "settings.json").read_text())
    assert settings["tuning"]["value"]["views"] == 1
    assert found[0]["candidates"] == found[1]["candidates"]


@pytest.fixture(scope="module")
def partly_tuned(folder, table, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run that has tuned the last stage, and its log."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    words = ("--data", table, "--backbone", folder, "--unfreeze", 1, "--out", out)
    with logged() as lines:
        done("run", "partial", *words)
    return out, list(lines)


@pytest.mark.long
def test_short_trainings_decide_whether_views_of_texts_are_used(partly_tuned):
    run, lines = partly_tuned
    assert any(line.startswith("dropout changes the accuracy") for line in lines)
    assert any("altered copies of each example" in line for line in lines)
    settings = json.loads((run / "settings.json").read_text())
    assert "dropout" in settings["chosen_augmentations"]["value"]


@pytest.mark.long
def test_the_last_stage_is_tuned(partly_tuned):
    metrics = json.loads((partly_tuned[0] / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.9


@pytest.mark.long
def test_the_whole_network_is_tuned(table, tmp_path):
    network = texts.save_network(tmp_path / "network", layers=1)
    words = ("--data", table, "--backbone", network, "--out", tmp_path / "run", "--epochs", 2)
    done("run", "full", *words, "--learning-rate", 0.001)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.9
