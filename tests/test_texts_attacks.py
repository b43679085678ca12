"""Texts, names and networks from strangers: nothing is run, read, shown or waited for."""

import contextlib
import csv
import io
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import texts
from click.testing import CliRunner
from loaded import python
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import tfxfer
from tfxfer import savedmodel, serving
from tfxfer.cli import main
from tfxfer.data import find_unlabelled, load
from tfxfer.errors import DataError, DeniedOperationError, ImageError
from tfxfer.explore import Pick, write_picks
from tfxfer.inputs import find
from tfxfer.inputs.text.input import BYTES
from tfxfer.safety.names import csv_text
from tfxfer.serving.predict import Answer

pytestmark = pytest.mark.usefixtures("opened_once")

MOST = 10 * 1024**2  # bytes of one text
# A spreadsheet would run cells that begin like these.
FORMULAS = ['=HYPERLINK("x")', "+1+cmd", "-1+cmd", "@SUM(A1)", "\tx"]
RUN_BY_SPREADSHEETS = tuple("=+-@\t\r")
# What a terminal must not get: but for the line feed and the tab of our own tables.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]")
# How progress bars draw.
BARS = re.compile(r"\r|\x1b\[A")
HOSTILE = {
    "html": b"<script>alert(1)</script><img src=x onerror=alert(1)> rose",
    "template": b"{{ 7 * 7 }} {% include '/etc/passwd' %} rose",
    "bidi": "rose \u202eetisopmoc\u202c \u2066tulip".encode(),
    "zero width": "ro\u200bse\ufeff\u200d tulip\u2060".encode(),
    "escapes": b"\x1b[2J\x1b]0;title\x07 rose \x9b1m".replace(b"\x9b", "\x9b".encode()),
    "accents": ("rose" + "\u0301" * 100_000).encode(),
    "one word": b"x" * MOST,
    "long": b"rose tulip " * (MOST // 11),
    "lines": b"rose" + b"\n" * 100_000 + b"tulip",
    "surrogates": b"rose \xed\xa0\xbd\xed\xb8\x80 tulip",
    "latin": "caf\u00e9 cr\u00e8me, la rose et la tulipe".encode("latin-1"),
}
REFUSED = {
    "zero": (b"rose\x00tulip", "zero"),
    "empty": (b" \n\t \r\n", "empty"),
    "larger": (b"x" * (MOST + 1), "10,485,761 bytes"),
    "pdf": (b"%PDF-1.7 rose", "PDF"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return texts.save_network(tmp_path_factory.mktemp("network") / "texts")


@pytest.fixture(scope="module")
def network(folder) -> tfxfer.Backbone:
    return tfxfer.Backbone(folder, trainable=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Folders of texts whose names are formulas, with texts that are hostile themselves."""
    top = tmp_path_factory.mktemp("data")
    for number, name in enumerate(FORMULAS):
        (top / name).mkdir()
        for i, (text, _) in enumerate(texts.sentences(12, seed=number)):
            (top / name / f"=1+{i}.txt").write_text(f"{name} {text}")
    for i, (name, content) in enumerate(HOSTILE.items()):
        (top / FORMULAS[i % 5] / f"\u202e{name}\x1b[2J.txt").write_bytes(content)
    return top


@pytest.fixture(scope="module")
def run(folder, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ("--data", data, "--backbone", folder, "--out", out, "--head", "gaussian")
    shown = done("run", "frozen", *words)
    assert not UNSEEN.search(BARS.sub("", shown))
    return out


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def cells_of(path: Path) -> list[list[str]]:
    text = path.read_text("utf-8-sig", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def is_harmless(cell: str) -> bool:
    number = re.fullmatch(r"[+-]?[0-9.]+(e-?[0-9]+)?", cell)
    return bool(number) or not cell.startswith(RUN_BY_SPREADSHEETS)


# --- names in tables ---


@pytest.mark.long
def test_no_table_of_a_run_holds_a_formula_and_classes_can_be_joined(run):
    classes = set(json.loads((run / "metrics.json").read_text())["test"]["classes"])
    assert classes == {name.strip() for name in FORMULAS}
    for name in ("predictions.csv", "label_errors.csv", "history.csv"):
        if (run / name).is_file():
            assert all(is_harmless(cell) for row in cells_of(run / name) for cell in row), name
    header, *rows = cells_of(run / "predictions.csv")
    assert {csv_text(row[header.index("true")]) for row in rows} == classes
    assert {csv_text(row[header.index("predicted")]) for row in rows} <= classes
    files = {csv_text(row[header.index("file")]) for row in rows}
    assert {name.split("/")[0].strip() for name in files} == classes


@pytest.mark.long
def test_no_answer_in_a_table_is_a_formula(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("=new.csv").write_text('text\n=1+cmd\n"rose, tulip"\n')
    commands = {
        "predict.csv": ("predict", run, "=new.csv", "--top-k", 5, "--sets", 0.9),
        "next.csv": ("next", run, "=new.csv"),
        "judged.csv": ("evaluate", run, "--data", data),
    }
    for name, words in commands.items():
        shown = done(*words, "--to", name)
        assert not UNSEEN.search(BARS.sub("", shown)), name
        cells = [cell for row in cells_of(Path(name)) for cell in row]
        assert cells and all(is_harmless(cell) for cell in cells), name
    assert "'=new.csv:2" in Path("predict.csv").read_text("utf-8-sig")


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_a_label_that_heads_a_column_is_no_formula(form, tmp_path):
    path = tmp_path / f"out.{form}"
    values = {"labels": ["=1+1"], "=1+1": 0.5, "+cmd": 0.25}
    serving.write([Answer("a.txt", values)], form, path)
    if form == "csv":
        assert cells_of(path)[0] == ["file", "labels", "'=1+1", "'+cmd"]
        return
    openpyxl = pytest.importorskip("openpyxl")
    head = next(openpyxl.load_workbook(path).active.iter_rows())
    assert [(cell.value, cell.data_type) for cell in head[2:]] == [("=1+1", "s"), ("+cmd", "s")]


def test_a_text_to_label_next_is_no_formula(tmp_path):
    picked = Pick("=new.csv:2", "between", "@a", 0.5, "+b", 0.4, 0.1, cell="=cmd|' /c calc'!A0")
    write_picks([picked], tmp_path / "next.csv", ("-label",))
    assert all(is_harmless(cell) for row in cells_of(tmp_path / "next.csv") for cell in row)


# --- texts ---


@pytest.mark.long
def test_hostile_texts_are_answered(run, tmp_path):
    for i, content in enumerate(HOSTILE.values()):
        (tmp_path / f"{i:02d}.txt").write_bytes(content)
    done("predict", run, tmp_path, "--to", tmp_path / "out.csv")
    rows = cells_of(tmp_path / "out.csv")[1:]
    assert len(rows) == len(HOSTILE) and all(0 < float(row[2]) <= 1 for row in rows)


@pytest.mark.long
def test_what_is_no_text_is_named_and_the_others_are_answered(run, tmp_path):
    for name, (content, _) in REFUSED.items():
        (tmp_path / f"{name}\x1b[2J.txt").write_bytes(content)
    (tmp_path / "good.txt").write_bytes(b"rose")
    shown = BARS.sub("", done("predict", run, tmp_path, "--to", tmp_path / "out.csv", code=1))
    for name, (_, why) in REFUSED.items():
        assert re.search(rf"{name}\\x1b\[2J\.txt .*{why}", shown), name
    assert not UNSEEN.search(shown) and len(cells_of(tmp_path / "out.csv")) == 2


def test_a_row_with_a_byte_of_zero_stops_a_run_by_its_number(tmp_path):
    table = texts.write_table(tmp_path / "notes.csv")
    table.write_bytes(table.read_bytes() + b"a\x00b,garden,train\r\n")
    with pytest.raises(ImageError, match=r"notes\.csv:82 .*zero"):
        load(table)


@pytest.mark.parametrize("name", ["long", "one word", "accents"])
def test_only_the_beginning_of_a_text_is_read(name, network):
    large = HOSTILE[name][:MOST]
    beginning = large[: BYTES * network.takes.length]
    rows = network.takes.decode_many(tf.constant([large, beginning])).numpy()
    assert len(beginning) < len(large)
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.long
def test_bytes_that_are_no_text_can_not_stop_the_served_model(run, tmp_path):
    done("export", run, tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    contents = [*HOSTILE.values(), *(content for content, _ in REFUSED.values()), b""]
    contents += [b"\xff\xfe\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", bytes(1000)]
    scores = served(inputs=tf.constant(contents))["scores"].numpy()
    assert scores.shape == (len(contents), len(FORMULAS))
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


# --- tables ---


@pytest.mark.parametrize("label", ["a\x00b", '"a\nb"', '"a\r\nb"'])
def test_a_label_of_several_lines_is_refused(label, tmp_path):
    path = tmp_path / "notes.csv"
    rows = [f"text {i},{(label, 'other')[i % 2]}" for i in range(20)]
    path.write_text("\n".join(["text,label", *rows]))
    with pytest.raises(DataError, match="line break or a zero byte"):
        load(path)


@pytest.mark.long
def test_a_label_that_a_terminal_obeys_is_kept_and_shown_escaped(folder, tmp_path):
    path = tmp_path / "notes.csv"
    labels = ["\x1b[2Ja", "b\u202e\u200b", "<i>&"]
    rows = [f"{text},{labels[i % 3]}" for i, (text, _) in enumerate(texts.sentences(30))]
    path.write_text("\n".join(["text,label", *rows]))
    assert set(load(path).classes) == set(labels)
    words = ("--backbone", folder, "--out", tmp_path / "run", "--head", "gaussian")
    shown = done("run", "frozen", path, *words)
    assert "\\x1b[2Ja" in shown and not UNSEEN.search(BARS.sub("", shown))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<i>" not in page and not UNSEEN.search(page)


def test_a_split_that_a_terminal_obeys_is_told_escaped(folder, tmp_path):
    path = tmp_path / "notes.csv"
    rows = [f"text {i},{i % 2},tra\u200bin\x1b[2J" for i in range(20)]
    path.write_text("\n".join(["text,label,split", *rows]))
    words = ("--backbone", folder, "--out", tmp_path / "run")
    shown = done("run", "frozen", path, *words, code=1)
    assert "tra\\u200bin" in shown and not UNSEEN.search(shown)


@pytest.mark.parametrize("column", ["label", "split", "group", "other"])
def test_only_a_text_may_be_long(column, tmp_path):
    path = tmp_path / "notes.csv"
    rows = [f"text {i},{i % 2},{'x' * 200_000}" for i in range(20)]
    path.write_text("\n".join([f"text,{'class' if column != 'label' else 'id'},{column}", *rows]))
    with pytest.raises(DataError, match=f"{column} in line 2 has 200,000 char") as refused:
        load(path)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("content", ["", "text,label", "text,label\n", "\ufefftext;label\r\n\r\n"])
def test_a_table_without_rows_is_refused(content, tmp_path):
    (tmp_path / "notes.csv").write_text(content)
    with pytest.raises(DataError, match=r"notes\.csv"):
        load(tmp_path / "notes.csv")
    with pytest.raises(DataError, match=r"notes\.csv"):
        find_unlabelled([tmp_path / "notes.csv"], find("text"))


@pytest.mark.parametrize("text", ['",' * 20_000, '"a ' * 20_000, "\n'a b" * 13_000, '"' * 60_001])
def test_a_first_row_of_quotes_takes_no_time(text, tmp_path):
    (tmp_path / "notes.csv").write_text(text)
    begin = time.process_time()
    with pytest.raises(DataError, match=r"notes\.csv") as refused:
        load(tmp_path / "notes.csv")
    # With time that grows by the square it took minutes.
    assert time.process_time() - begin < 10 and len(str(refused.value)) < 10_000


@pytest.mark.long
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_many_copies_of_one_text_take_no_time(task, tmp_path):
    rows = [f"{'same' if task == 'classify' else i},{i % 2}" for i in range(30_000)]
    (tmp_path / "notes.csv").write_text("\n".join(["text,label", *rows, "other,0", "another,1"]))
    begin = time.process_time()
    with contextlib.suppress(DataError):
        load(tmp_path / "notes.csv", task=task)
    # With time that grows by the square it took minutes for 100,000 of them.
    assert time.process_time() - begin < 10


SCRIPT = """
import resource, sys
from tfxfer.data import load
from tfxfer.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load(sys.argv[1])
except DataError as error:
    print(len(str(error)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("row", ["\n", ",a\n", '"",""\n'])
def test_a_million_empty_rows_are_refused_in_little_memory(row, tmp_path):
    (tmp_path / "notes.csv").write_text("text,label\n" + row * 1_000_000)
    words = [python(), "-c", SCRIPT, str(tmp_path / "notes.csv")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    length, kilobytes = map(int, said)
    assert length < 1000 and kilobytes < 1024**2


# --- networks ---


class Looking(tf.Module):
    """A network of texts that looks words up in a table, which is filled from a file.

    Args:
        file: name of the file that is an asset.
        place: None, or a function from the texts to the name of a file, which is read in each call.
    """

    def __init__(self, file: Path, place=None):
        first = tf.lookup.TextFileIndex
        self.table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(file), tf.string, first.WHOLE_LINE, tf.int64, first.LINE_NUMBER
            ),
            1,
        )
        self.weight = tf.Variable(tf.random.normal((4, 8)))
        self.place = place

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, sentences):
        if self.place is not None:
            self.read(self.place(sentences))
        words = tf.strings.split(sentences).to_tensor("", shape=(None, 6))
        return tf.reduce_mean(tf.gather(self.weight, self.table.lookup(words)), 1)

    def read(self, name: tf.Tensor) -> None:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=name, key_index=-2, value_index=-1
        )


def save_looking(folder: Path, place=None) -> Path:
    (folder / "words.txt").write_text("rose\ntulip\nsoil\n")
    tf.saved_model.save(Looking(folder / "words.txt", place), str(folder / "looking"))
    return folder / "looking"


def test_a_table_of_words_may_come_from_an_asset_inside_the_folder(tmp_path):
    savedmodel.check_saved_model(save_looking(tmp_path))


@pytest.mark.parametrize(
    "place",
    [
        lambda sentences: tf.constant("/etc/passwd"),
        lambda sentences: tf.constant("assets/../../secret.txt"),
        lambda sentences: tf.strings.join([tf.constant("/etc"), tf.constant("/passwd")]),
        lambda sentences: sentences[0],
    ],
)
def test_a_table_of_words_from_a_file_elsewhere_is_refused(place, tmp_path):
    model = save_looking(tmp_path, place)
    for call in (savedmodel.check_saved_model, tfxfer.Backbone):
        with pytest.raises(DeniedOperationError, match="InitializeTableFromTextFileV2"):
            call(model)


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/passwd", "words.txt/../../../secret"])
def test_an_asset_whose_name_climbs_is_refused(name, tmp_path):
    model = save_looking(tmp_path)
    (tmp_path / "secret.txt").write_text("secret\n")
    path = model / "saved_model.pb"
    read = SavedModel.FromString(path.read_bytes())
    read.meta_graphs[0].asset_file_def[0].filename = name
    path.write_bytes(read.SerializeToString())
    with pytest.raises(DeniedOperationError, match="asset"):
        savedmodel.check_saved_model(model)
    if (model / "assets" / name).is_file():  # otherwise it is told before that a file is missing
        with pytest.raises(DeniedOperationError, match="asset"):
            tfxfer.Backbone(model)


def test_an_asset_that_is_a_link_to_another_folder_is_refused(tmp_path):
    model = save_looking(tmp_path)
    (tmp_path / "secret.txt").write_text("secret\n")
    (model / "assets" / "words.txt").unlink()
    (model / "assets" / "words.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DeniedOperationError, match=r"words\.txt"):
        tfxfer.Backbone(model)
    shutil.move(model / "assets", tmp_path / "elsewhere")
    (model / "assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeniedOperationError, match=r"words\.txt"):
        tfxfer.Backbone(model)
