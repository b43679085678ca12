"""Names that come from strangers, in a terminal, a table and a page."""

import csv
import io
import json

import pytest
from markdown_it import MarkdownIt

from tfxfer.safety.names import (
    Terminal,
    code_block,
    code_span,
    csv_cell,
    csv_text,
    json_text,
    markdown,
    one_line,
    printable,
)

MARKDOWN = MarkdownIt().enable("table")
HOSTILE = [
    "a`b<img src=x onerror=alert(1)>\n## x",
    "- item",
    "1. item",
    "1) item",
    "+ item",
    "# title",
    "===",
    "    code",
    "``` fence",
    "~~~ fence",
    "a | b",
    "[x](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "<http://127.0.0.1>",
    "&lt;b&gt;",
    "*a* _b_ ~~c~~",
    "\\",
    "> quote",
    "[x]: http://127.0.0.1",
    "<!-- a",
    "a\r\n\r\n# b",
    "a\u2028# b",
    "`",
    "`` a `",
    "",
    "   ",
]


def rendered(text: str) -> list[str]:
    """The kinds of what Markdown makes of a text, but for text itself."""
    tokens = MARKDOWN.parse(text)
    kinds = [token.type for token in tokens]
    kinds += [child.type for token in tokens for child in token.children or []]
    plain = ("paragraph_open", "paragraph_close", "inline", "text", "text_special")
    return [kind for kind in kinds if kind not in plain]


@pytest.mark.parametrize(
    "character",
    [
        *("\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x9b", "\u061c", "\u200b", "\u200f"),
        *("\u2028", "\u202e", "\u2066", "\ufeff", "\u3164", "\U000e0041", "\udcff"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_escaped(character):
    escape = character.encode("unicode_escape").decode()
    assert printable(f"a{character}b") == f"a{escape}b" == one_line(f"a{character}b")


@pytest.mark.parametrize(
    "name",
    ["naïve", "e\u0301te\u0301", "蜜蜂", "می\u200cخواهم", "👩\u200d👩\u200d👧", "❤\ufe0f", "हिन्दी"],
)
def test_honest_names_of_all_languages_stay(name):
    assert one_line(name) == name


def test_line_feeds_and_tabs_stay_in_tables_and_are_escaped_in_names():
    assert printable("a\n\tb") == "a\n\tb" and one_line("a\n\tb") == "a\\n\\tb"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_text_in_markdown(text):
    assert not rendered(markdown(text))
    shown = "".join(
        child.content for token in MARKDOWN.parse(markdown(text)) for child in token.children or []
    )
    assert shown == one_line(text).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_inside_its_code(text):
    assert set(rendered(code_span(text))) == {"code_inline"}
    (block,) = MARKDOWN.parse(code_block(text, "console"))
    assert block.type == "fence" and block.content == f"{printable(text)}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_in_its_cell_of_a_markdown_table(text):
    kinds = rendered(f"| a | b |\n| --- | --- |\n| {markdown(text)} | 1 |\n")
    assert kinds.count("td_open") == 2
    assert not [kind for kind in kinds if not kind.startswith(("t", "tr", "td", "th"))]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_a_cell_that_a_spreadsheet_would_run_gets_a_quote(sign):
    assert csv_cell(f"{sign}cmd|' /c calc'!A0") == f"'{sign}cmd|' /c calc'!A0"


@pytest.mark.parametrize(
    "text", ["-1", "-1.5", "+2", "1e-05", "-1.5e+10", "ants", "a=b", "'quoted'"]
)
def test_numbers_and_other_names_stay_as_they_are_in_a_table(text):
    assert csv_cell(text) == text == csv_text(text)


@pytest.mark.parametrize("text", ["=1", "'=1", "''=1", "'-1", "-1", "-a", "'", "", "'a", "-1-1"])
def test_every_text_of_a_table_is_found_again(text):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([csv_cell(text)])
    ((cell,),) = csv.reader(io.StringIO(buffer.getvalue()))
    assert csv_text(cell) == text


def test_json_for_people_is_json_and_shows_nothing_unseen():
    names = {"a\x9b\u202e\x07\udcff": "蜜蜂"}
    text = json_text(names)
    assert json.loads(text) == names and "蜜蜂" in text
    assert printable(text) == text


def test_a_stream_for_people_is_clean_whoever_writes():
    buffer = io.StringIO()
    stream = Terminal(buffer)
    print("a\x1b[2J\u202eb", file=stream)
    stream.writelines(["c\rd\n"])
    assert buffer.getvalue() == "a\\x1b[2J\\u202eb\nc\\rd\n"
    assert not hasattr(stream, "buffer") and not stream.isatty()


@pytest.mark.parametrize(
    "drawn", ["\rfeatures:  50%|█████     |", "\n\n\x1b[A\x1b[A", "\x1b[A", "\r"]
)
def test_progress_bars_go_on_drawing(drawn):
    buffer = io.StringIO()
    Terminal(buffer).write(drawn)
    assert buffer.getvalue() == drawn
