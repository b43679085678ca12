"""Sources of texts: Python's lists and arrays, tf.data, TensorFlow Datasets, and tables."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import texts
from click.testing import CliRunner
from tables import check_same_table

import tfxfer
from tfxfer.cli import main
from tfxfer.data import from_arrays, from_dataset, load
from tfxfer.errors import DataError, ImageError

pytestmark = pytest.mark.usefixtures("opened_once")

SENTENCES = [text for text, _ in texts.sentences(40)]
TRUE = np.arange(40) % 2
CLASSES = list(texts.KINDS)
MINE = [text for text, _ in texts.sentences(6, seed=9)]


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


class Series:
    """A column of a data frame, as far as tfxfer uses one."""

    def __init__(self, values: list):
        self.values = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, object)

    def __len__(self) -> int:
        return len(self.values)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    return texts.save_network(tmp_path_factory.mktemp("network") / "texts")


@pytest.fixture(scope="module")
def fitted(network) -> tfxfer.Transfer:
    return tfxfer.Transfer(network, head="linear").fit(SENTENCES, TRUE, classes=CLASSES)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    table = texts.write_table(folder / "notes.csv")
    done("run", "frozen", table, "--backbone", network, "--out", folder / "run", "--head", "linear")
    return folder / "run"


@pytest.fixture
def new(tmp_path) -> Path:
    """A table of texts without labels."""
    path = tmp_path / "new.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "Text"), *enumerate(MINE)])
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))


# --- Python ---


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        Series,
        tf.constant,
        lambda values: np.array(values, object),
        lambda values: [value.encode() for value in values],
        lambda values: np.array([value.encode() for value in values]),
    ],
)
def test_strings_of_any_container_are_texts(make):
    examples = from_arrays(make(SENTENCES), TRUE, classes=CLASSES)
    assert examples.kind_name == "text" and examples.classes == tuple(CLASSES)
    assert [examples.read(i).decode() for i in range(40)] == SENTENCES
    assert examples.files[7] == "07"


def test_datasets_of_strings_are_texts_batched_or_not():
    dataset = tf.data.Dataset.from_tensor_slices((SENTENCES, TRUE))
    digests = from_arrays(SENTENCES, TRUE).digests
    for each in (dataset, dataset.batch(7), dataset.map(lambda x, y: (x, tf.one_hot(y, 2)))):
        assert from_dataset(each).digests == digests


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (None, "None, a NoneType, at position 3"),
        (float("nan"), "nan, a float, at position 3"),
        (7, "7, a int, at position 3"),
        ("", "an empty one at position 3"),
        (" \n", "an empty one at position 3"),
        (["a"], "at position 3"),
    ],
)
def test_what_is_no_text_is_named_by_its_position(odd, said):
    values = [*SENTENCES[:3], odd, *SENTENCES[4:]]
    with pytest.raises(ValueError, match=said):
        from_arrays(values, TRUE)


def test_an_empty_text_of_a_dataset_is_named_by_its_position():
    dataset = tf.data.Dataset.from_tensor_slices((["a text", " "], [0, 1]))
    with pytest.raises(ValueError, match="an empty one at position 1 of train"):
        from_dataset(dataset)


def test_names_of_files_are_no_texts():
    names = [f"mails/{i}.txt" for i in range(40)]
    with pytest.raises(ValueError, match="Files are read from a folder"):
        from_arrays(names, TRUE)
    with pytest.raises(ValueError, match="Received: names of files"):
        from_dataset(tf.data.Dataset.from_tensor_slices((names, TRUE)))


def test_one_label_for_each_text_is_needed():
    with pytest.raises(ValueError, match="Expected 40 labels"):
        from_arrays(SENTENCES, TRUE[:30])


@pytest.mark.long
def test_a_model_of_texts_takes_strings_and_paths(fitted, tmp_path):
    found = fitted.predict(MINE)
    assert [one.predicted for one in found] == [kind for _, kind in texts.sentences(6, seed=9)]
    assert fitted.predict(MINE[0])[0].probability == pytest.approx(found[0].probability, abs=1e-5)
    (tmp_path / "a.txt").write_text(MINE[1])
    assert fitted.predict(tmp_path / "a.txt")[0].predicted == found[1].predicted
    with pytest.raises(ValueError, match=r"pathlib\.Path"):
        fitted.predict(["a.txt"])
    with pytest.raises(ValueError, match=r"ndarray of shape \(2, 4, 4, 3\)"):
        fitted.predict(np.zeros((2, 4, 4, 3)))


@pytest.mark.long
def test_a_model_of_texts_is_judged_on_strings(fitted):
    other, kinds = zip(*texts.sentences(20, seed=5), strict=True)
    numbers = [CLASSES.index(kind) for kind in kinds]
    figures = fitted.evaluate(list(other), numbers)
    assert figures["n"] == 20 and figures["accuracy"] >= 0.9
    dataset = tf.data.Dataset.from_tensor_slices((list(other), numbers)).batch(8)
    assert fitted.evaluate(dataset)["accuracy"] == figures["accuracy"]


@pytest.mark.long
def test_the_network_is_that_of_the_kind_where_none_is_named():
    model = tfxfer.Transfer(head="linear").fit(SENTENCES, TRUE, classes=CLASSES)
    assert model.run.settings()["chosen_backbone"]["value"] == "minilm"
    assert tfxfer.load(model.run.folder).backbone == "minilm"
    assert "minilm" in (model.run.folder / "MODEL_CARD.md").read_text()


@pytest.mark.long
def test_features_of_texts_are_those_of_the_network_for_texts(tmp_path):
    table = texts.write_table(tmp_path / "notes.csv", count=8)
    done("features", table, "--to", tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz") as arrays:
        assert arrays["vectors"].shape == (8, 384)


# --- TensorFlow Datasets ---


def write_tfds(folder: Path, labels: int = 2, **columns: list[str]) -> dict[str, object]:
    """Write a dataset with texts as it is on disk, and return what `load` needs."""
    features = {name: tfds.features.Text() for name in columns}
    count = len(next(iter(columns.values())))
    numbers = np.arange(count) % 2 - (labels < 2)
    tfds.dataset_builders.store_as_tfds_dataset(
        "tiny_notes",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {**features, "label": tfds.features.ClassLabel(names=CLASSES)}
        ),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({**columns, "label": numbers})},
        data_dir=folder,
        disable_shuffling=True,
    )
    return {"data": "tfds:tiny_notes", "data_dir": folder}


def test_one_text_with_a_label_is_read_whatever_its_name(tmp_path):
    examples = load(**write_tfds(tmp_path, phrase=SENTENCES))
    assert examples.kind_name == "text" and examples.classes == tuple(CLASSES)
    assert [examples.read(i).decode() for i in range(40)] == SENTENCES


def test_of_several_texts_those_with_known_names_are_joined(tmp_path):
    titles = [f"Title {i}" for i in range(40)]
    examples = load(**write_tfds(tmp_path, text=SENTENCES, number=titles, title=titles))
    assert examples.read(3).decode() == f"Title 3\n{SENTENCES[3]}"


def test_several_texts_without_known_names_are_listed(tmp_path):
    with pytest.raises(DataError, match="one, two"):
        load(**write_tfds(tmp_path, one=SENTENCES, two=SENTENCES))


def test_texts_whose_label_is_hidden_are_left_out(tmp_path):
    with pytest.raises(DataError, match="one class"):  # -1 and 0
        load(**write_tfds(tmp_path, labels=1, text=SENTENCES))


# --- commands ---


@pytest.mark.long
def test_each_row_of_a_table_is_predicted(run, new, tmp_path):
    assert "6 texts" in done("predict", run, new, "--to", tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert [row["file"] for row in rows] == [f"{new}:{line}" for line in range(2, 8)]
    assert [row["predicted"] for row in rows] == [kind for _, kind in texts.sentences(6, seed=9)]


@pytest.mark.long
def test_an_export_predicts_a_table_as_the_run_does(run, new, tmp_path):
    done("export", run, tmp_path / "served")
    for folder in (run, tmp_path / "served"):
        done("predict", folder, new, "--to", tmp_path / f"{folder.name}.csv", "--sets", 0.9)
    own, served = ((tmp_path / f"{name}.csv").read_text("utf-8-sig") for name in ("run", "served"))
    check_same_table(served, own)


@pytest.mark.long
def test_files_and_tables_stay_in_their_order(run, new, tmp_path):
    (tmp_path / "a.txt").write_text("bread and salt")
    answer = done("predict", run, tmp_path / "a.txt", new, tmp_path / "a.txt", "--format", "jsonl")
    files = [json.loads(line)["file"] for line in answer.splitlines() if line.startswith("{")]
    assert len(files) == 8 and files[0] == files[7] == str(tmp_path / "a.txt")


@pytest.mark.long
def test_an_empty_text_in_a_table_is_told_and_the_others_are_predicted(run, tmp_path):
    rose = next(text for text, label in texts.sentences(12, seed=3) if label == "garden")
    (tmp_path / "new.csv").write_text(f'id,text\n1,bread\n2,\n3,"a\n{rose}"\n')
    output = done("predict", run, tmp_path / "new.csv", code=1)
    assert "new.csv:3 is empty" in output and "new.csv:5,garden" in output


@pytest.mark.long
@pytest.mark.parametrize(
    "content", ["id,label\n1,a\n", "text\n", "", "some text, without header\n"]
)
def test_a_table_without_texts_is_told(content, run, tmp_path):
    (tmp_path / "new.csv").write_text(content)
    assert "new.csv" in done("predict", run, tmp_path / "new.csv", code=1)


@pytest.mark.long
def test_a_run_is_judged_grown_and_asked_what_to_label_with_tables(run, new, tmp_path):
    more = tmp_path / "more.csv"
    rows = [(text, "office") for text, _ in texts.sentences(12, seed=3)]
    with more.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"file {t}", k) for t, k in rows)])
    other = texts.write_table(tmp_path / "others.csv", count=20, seed=7)
    answer = done("evaluate", run, "--data", other, "--to", tmp_path / "judged.csv")
    assert "n = 10" in answer and rows_of(tmp_path / "judged.csv")[0]["file"] == "others.csv:4"
    done("grow", run, "--data", more, "--out", tmp_path / "grown")
    assert "office" in (tmp_path / "grown" / "labels.txt").read_text()
    done("compare", run, tmp_path / "grown")


@pytest.mark.long
def test_texts_to_label_next_are_a_table_to_fill_in(run, new, tmp_path):
    table, page = tmp_path / "next.csv", tmp_path / "next.html"
    done("next", run, new, "--count", 4, "--to", table, "--page", page)
    rows = rows_of(table)
    assert rows and {row["label"] for row in rows} == {""}
    assert all(row["text"] == MINE[int(row["row"].split(":")[-1]) - 2] for row in rows)
    assert rows[0]["text"][:30] in page.read_text()
    lines = [(row["text"], "ab"[i % 2]) for i, row in enumerate(rows)]
    lines += [(text, kind) for text, kind in zip(SENTENCES, "ab" * 20, strict=True)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *lines])
    assert load(table).kind_name == "text"


@pytest.mark.long
def test_a_network_is_chosen_for_a_table_of_texts(network, tmp_path):
    table = texts.write_table(tmp_path / "mails.csv")
    answer = done("choose", "--data", table, "--among", network)
    assert f"Take {network}" in answer


# --- forms of tables ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_texts_are_read_in_all_forms(separator, encoding, end, tmp_path):
    one = f'Sch\u00f6ne Gr\u00fc\u00dfe, auch; an "Ren\u00e9"{end}im\tCaf\u00e9'
    written = [f"{one} {i}" for i in range(12)]
    file = io.StringIO(newline="")
    table = csv.writer(file, delimiter=separator, lineterminator=end)
    table.writerows([("id", "text", "label"), *((i, t, i % 2) for i, t in enumerate(written))])
    path = tmp_path / "mails.csv"
    path.write_bytes(file.getvalue().encode(encoding))
    examples = load(path)
    read = {examples.read(i).decode() for i in range(12)}
    assert read == {text.replace("\r\n", "\n") for text in written}


@pytest.mark.long
def test_a_long_cell_is_read_and_one_that_is_too_long_is_named_with_its_size(tmp_path):
    path = tmp_path / "mails.csv"
    lines = ["text,label", *(f"{text},{i % 2}" for i, text in enumerate(SENTENCES))]
    long = "word " * 200_000
    path.write_text("\n".join([*lines, f'"{long}\n{long}",1']))
    assert max(len(load(path).read(i)) for i in range(41)) == 2_000_000
    path.write_text("\n".join([*lines, f"{long * 11},1"]))
    with pytest.raises(ImageError, match=r"mails\.csv:42 has 10,999,999 bytes"):
        load(path)
    assert csv.field_size_limit() == 131_072


def test_a_quote_that_is_not_closed_is_named_where_it_begins(tmp_path):
    path = tmp_path / "mails.csv"
    good = [f'"two\nlines {i}",{i % 2}' for i in range(20)]
    path.write_text("\n".join(["text,label", *good, '"not closed,1', *SENTENCES]))
    with pytest.raises(DataError, match="in line 42"):
        load(path)


def test_a_quote_inside_a_word_is_read_after_cells_of_several_lines(tmp_path):
    path = tmp_path / "mails.csv"
    good = [f'"two\nlines {i}",{i % 2}' for i in range(20)]
    path.write_text("\n".join(["text,label", *good, '"so" called,1', '5" wide,0']))
    examples = load(path)
    assert len(examples) == 22 and b"so called" in {examples.read(i) for i in range(22)}


def test_texts_with_many_commas_are_separated_by_what_separates_their_names(tmp_path):
    path = tmp_path / "mails.csv"
    odd = ["it's, " * 3000 + str(i) for i in range(12)]
    path.write_text("\n".join(["text;label", *(f"{text};{i % 2}" for i, text in enumerate(odd))]))
    assert load(path).read(0).startswith(b"it's, it's")


def unquoted(last: int) -> list[str]:
    """Texts of which one begins with a quote, and a later one ends with a quote."""
    texts = [f"{text} {i}" for i, text in enumerate(SENTENCES[:30])]
    return [*texts[:3], f'"{texts[3]}', *texts[4:last], f'{texts[last]}"', *texts[last + 1 :]]


@pytest.mark.parametrize("last", [4, 20])
@pytest.mark.parametrize("header", ["text\tlabel", "label\ttext", "id\ttext\tlabel"])
def test_quotes_of_two_texts_swallow_no_rows_between_them(header, last, tmp_path):
    path, written = tmp_path / "mails.tsv", unquoted(last)
    lines = [header]
    for i, text in enumerate(written):
        cells = {"text": text, "label": "ab"[i % 2], "id": str(i)}
        lines.append("\t".join(cells[name] for name in header.split("\t")))
    path.write_text("\n".join(lines))
    examples = load(path)
    assert {examples.read(i).decode() for i in range(len(examples))} == set(written)
    assert any(f"5 to {last + 2}" in note for note in examples.notes)


@pytest.mark.parametrize("label", ["ab", "01", ("1", "nan")])
def test_lines_with_commas_that_a_quote_joins_are_named(label, tmp_path):
    path = tmp_path / "mails.csv"
    lines = [f"{label[i % 2]},{text.replace(',', '')}" for i, text in enumerate(unquoted(20))]
    path.write_text("\n".join(["label,text", *lines]))
    with pytest.raises(DataError, match="5 to 22"):
        load(path)
    lines[10] = f"{label[0]},one, two"
    path.write_text("\n".join(["label,text", *lines]))
    assert any("5 to 22" in note for note in load(path).notes)
    # A line that is no row by itself shows that this table is not written without quoting.
    path.write_text("\n".join(["label,text", *lines, f'{label[0]},"several\nlines"']))
    assert any("5 to 22" in note for note in load(path).notes)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("mails.csv", '"Dear Sir, {}\nI want, this\nBye",{}'),
        ("mails.csv", '"Dear Sir\n{}, no\nBye",{}'),
        ("mails.tsv", '"Dear\tSir {}\nBye"\t{}'),
    ],
)
def test_each_line_of_a_mail_may_have_what_separates_cells(name, row, tmp_path):
    separator = "," if name.endswith("csv") else "\t"
    path = tmp_path / name
    rows = [row.format(i, "ab"[i % 2]) for i in range(20)]
    path.write_text("\n".join([f"text{separator}label", *rows]))
    examples = load(path)
    assert len(examples) == 20 and all(b"\nBye" in examples.read(i) for i in range(20))
    assert not any("quote" in note for note in examples.notes)
