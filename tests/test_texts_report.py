"""What is said about texts, and how a report shows them."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import texts
from click.testing import CliRunner

from tfxfer import inputs, report
from tfxfer.cli import main
from tfxfer.inputs.text.excerpt import LETTERS, excerpt
from tfxfer.inputs.text.words import MOST, explain, first_words

pytestmark = pytest.mark.usefixtures("opened_once")

ATTACK = "<script>alert(1)</script> rose"
# What is about images alone, or is a word of the page itself.
PICTURES = re.compile(r"photo|image|picture|camera|pixel", re.IGNORECASE)
STYLES = re.compile(r"<(style|svg)\b.*?</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return texts.save_network(tmp_path_factory.mktemp("network") / "texts")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Texts of two kinds; the first one holds markup, and a test text the label of the others."""
    path = texts.write_table(tmp_path_factory.mktemp("table") / "notes.csv")
    lines = path.read_text().splitlines()
    wrong = [f'"{ATTACK} bread.",garden,test', "\u202egood salt bread soup oven.,garden,test"]
    path.write_text("\n".join([*lines, *wrong]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(folder, table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "notes"
    done("run", "frozen", "--data", table, "--backbone", folder, "--out", out)
    return out


def done(*words: object) -> str:
    """Run a command; return all that it prints."""
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def visible(page: str) -> str:
    """Return what a reader of the page sees, and what is read aloud to one."""
    body = STYLES.sub(" ", page)
    read_aloud = re.findall(r'(?:alt|aria-label)="([^"]*)"', body)
    return unescape(" ".join([re.sub(r"<[^>]*>", " ", body), *read_aloud]))


def check_words(said: str) -> None:
    """Check that it is about texts, and says nothing of images."""
    assert "text" in said
    found = PICTURES.search(said)
    assert not found, said[max(0, found.start() - 100) : found.end() + 100]


@pytest.mark.long
def test_the_report_is_about_texts(run):
    said = visible((run / "report.html").read_text())
    # The settings keep their names, and all of them are listed.
    check_words(said.split("All settings")[0])
    check_words((run / "MODEL_CARD.md").read_text())
    assert "text-classification" in (run / "MODEL_CARD.md").read_text()
    assert "A text classifier for 2 classes" in (run / "MODEL_CARD.md").read_text()
    assert "text.txt" in said and "texts of this class" in said


@pytest.mark.long
def test_commands_speak_of_texts(folder, table, run, tmp_path):
    check_words(
        done("run", "frozen", "--data", table, "--backbone", folder, "--out", tmp_path / "r")
    )
    (tmp_path / "new.txt").write_text("Good soup with salt.")
    check_words(done("predict", run, tmp_path / "new.txt"))
    other = texts.write_table(tmp_path / "others.csv", count=20, seed=7)
    check_words(done("evaluate", run, "--data", other))
    check_words(done("compare", run, tmp_path / "r"))


@pytest.mark.long
def test_wrong_answers_are_shown_with_their_texts(run):
    page = (run / "report.html").read_text()
    review = json.loads((run / "review.json").read_text())
    shown = [row["excerpt"] for row in review["mistakes"]]
    assert shown and all(f'<blockquote dir="auto">{escaped(one)}' in page for one in shown)
    assert review["right"][0]["excerpt"] and review["samples"]["garden"][0]["excerpt"]
    assert 'class="grid texts" id="wrong"' in page


@pytest.mark.long
def test_markup_in_a_text_is_harmless(run):
    page = (run / "report.html").read_text()
    assert ATTACK in (run / "review.json").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page and "\\u202egood" in page


@pytest.mark.long
def test_the_words_that_decide_are_marked(run):
    review = json.loads((run / "review.json").read_text())
    assert review["occlusion"]
    for row in review["occlusion"]:
        weights = [weight for _, weight in row["words"]]
        assert min(weights) >= 0 and max(weights) in (0, 1) and "why" not in row
    page = (run / "report.html").read_text()
    if any(row["most"] >= inputs.TELLING for row in review["occlusion"]):
        assert "Which words decide?" in page and '<mark style="--w: 1.00">' in page


@pytest.mark.long
def test_the_page_shows_the_strength_of_a_word(run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    review = json.loads((run / "review.json").read_text())
    words = [["<b>rose</b>", 1.0], ["and", 0.0], ["soil", 0.25]]
    review["occlusion"] = [review["right"][0] | {"words": words, "most": 0.5}]
    (copy / "review.json").write_text(json.dumps(review))
    page = report.make_page(copy)
    marked = '<mark style="--w: 1.00">&lt;b&gt;rose&lt;/b&gt;</mark> and '
    assert marked + '<mark style="--w: 0.25">soil</mark></blockquote>' in page
    assert "50 points less without the strongest word" in page


@pytest.mark.long
def test_a_page_is_made_again_from_a_run_without_excerpts(run, tmp_path):
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    review = json.loads((run / "review.json").read_text())
    for rows in (review["mistakes"], review["right"], *review["samples"].values()):
        for row in rows:
            del row["excerpt"]
    (tmp_path / "review.json").write_text(json.dumps(review | {"occlusion": []}))
    page = report.make_page(tmp_path)
    assert "notes.csv:82" in page and 'id="wrong"' not in page


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- excerpts and words ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b" one\n\n two\tthree ", "one two three"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("a\u202eb\u200bc\x1b[2J".encode(), "a\\u202eb\\u200bc\\x1b[2J"),
        (b"\xff\xfe", ""),
    ],
)
def test_an_excerpt_is_one_line(content, expected):
    assert excerpt(content) == expected


def test_a_long_text_is_cut_between_words():
    cut = excerpt(b"word " * 1000)
    assert cut.endswith("word\u2026") and LETTERS - 10 < len(cut) <= LETTERS
    assert len(excerpt(b"x" * 1000)) == LETTERS + 1


class Lengths:
    """An input that counts the letters of a text, and whether it has the word that decides."""

    def decode_many(self, contents):
        return tf.constant([[float(len(one)), float(b"rose" in one)] for one in contents])


def test_the_word_that_the_answer_hangs_on_is_found():
    def answers(batch):
        right = 0.2 + 0.6 * batch[:, 1]
        return np.stack([right, 1 - right], 1)

    content = b"Water the rose, please"
    falls = explain(answers, Lengths(), content, 0)
    assert first_words(content) == ["Water", "the", "rose,", "please"]
    np.testing.assert_allclose(falls, [0, 0, 0.6, 0], atol=1e-6)
    np.testing.assert_allclose(explain(answers, Lengths(), content, 1), 0, atol=1e-6)
    assert explain(answers, Lengths(), b" ", 0) is None


def test_only_the_first_words_are_left_out():
    seen = []

    def answers(batch):
        seen.append(batch)
        return np.ones((len(batch), 2)) / 2

    content = b"a " * (MOST + 40)
    assert len(explain(answers, Lengths(), content, 0)) == MOST == len(first_words(content))
    # What follows the first words stays in the text.
    assert len(seen[0]) == MOST + 1 and seen[0][1:, 0].min() > 2 * (MOST + 38)
    assert all(len(word) == 40 for word in first_words(b"x" * 500))
