"""The report: one page made from a run folder's files."""

import csv
import json
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tfxfer import report
from tfxfer.errors import RunError
from tfxfer.evaluate import pays

LABELS = ["ants", "<script>alert(1)</script>", 'a "quoted" & $x^$ name', "蜜蜂"]


def figures(accuracy):
    return {"accuracy": accuracy, "balanced_accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "n": 8, "classes": {}}


def write_run(folder, *, rows=None, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    baselines = {"majority": figures(0.25), "raw_pixels": figures(0.5), "last_layer_logistic": None}
    (folder / "metrics.json").write_text(json.dumps({"test": figures(0.75), "validation": None, "baselines": baselines} | changes))
    settings = {"data": {"value": "<b>photos</b>", "origin": "given"}, "command": {"value": "tfxfer run frozen --data '<b>photos</b>'", "origin": "derived"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    if rows is None:
        rows = [(f"{i}.jpg", "test", LABELS[i % 4], LABELS[i % 4], 0.9) for i in range(6)]
        rows += [('wrong "sure"\n<img src=x>.jpg', "test", LABELS[0], LABELS[1], 0.99), ("wrong.jpg", "test", LABELS[0], LABELS[2], 0.5)]
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([report.Row.__annotations__, *rows])
    return folder


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_shows_the_figures_the_baselines_and_the_settings(tmp_path):
    text = report.page(write_run(tmp_path))
    for expected in ("75.0 %", "70.0 % to 80.0 %", "logistic regression on raw pixels", "always the most frequent class", "<td>given</td>"):
        assert expected in text
    assert pays(json.loads((tmp_path / "metrics.json").read_text())) in unescape(text)


def test_labels_and_file_names_are_shown_as_text(tmp_path):
    text = report.page(write_run(tmp_path))
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("script", "img", "b")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "&lt;img src=x&gt;" in text and "蜜蜂" in text


def test_pictures_are_well_formed_and_have_alternative_texts(tmp_path):
    text = report.page(write_run(tmp_path))
    assert len([ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]) == 3
    alternatives = [attributes["aria-label"] for tag, attributes in Tags(text).found if attributes.get("role") == "img"]
    assert len(alternatives) == 3
    assert "6 of 8 are right. The most frequent confusion: ants taken for" in alternatives[1]


def test_page_needs_no_network(tmp_path):
    tags = Tags(report.page(write_run(tmp_path))).found
    links = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:")) for link in links)


def test_the_same_run_gives_the_same_page(tmp_path):
    write_run(tmp_path)
    assert report.page(tmp_path) == report.page(tmp_path)


def test_most_confident_mistakes_come_first(tmp_path):
    text = report.page(write_run(tmp_path))
    assert text.index("wrong &#34;sure&#34;") < text.index("wrong.jpg")


def test_page_says_when_transfer_does_not_pay(tmp_path):
    changes = {"test": figures(0.1) | {"n": 1000}, "baselines": {"majority": figures(0.25) | {"n": 1000}}}
    assert "Transfer does not pay here: 0.100 on 1,000 test examples" in report.page(write_run(tmp_path, **changes))


def test_without_a_test_part_validation_is_shown_and_no_baseline(tmp_path):
    rows = [("a.jpg", "validation", "ants", "ants", 0.9)]
    text = report.page(write_run(tmp_path, rows=rows, test=None, validation=figures(0.6)))
    assert "8 validation images are right" in text and "raw pixels" not in text


def test_without_test_and_validation_parts_the_held_out_figure_is_shown(tmp_path):
    rows = [("a.jpg", "train", "ants", "ants", 0.9)]
    text = report.page(write_run(tmp_path, rows=rows, test=None, validation=figures(0.6)))
    assert "8 held-out training images are right" in text and "Confusion matrix on held-out training images: 1 of 1 are right." in text


def test_without_test_and_validation_the_page_says_that_nothing_is_known(tmp_path):
    assert "nothing is known about new examples" in report.page(write_run(tmp_path, rows=[], test=None))


def test_a_page_of_500_classes_stays_small(tmp_path):
    names = [f"class {i}" for i in range(500)]
    rows = [(f"{i}.jpg", "test", name, names[i // 2], 0.5) for i, name in enumerate(names)]
    write_run(tmp_path, rows=rows)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert len(report.page(tmp_path).encode()) < 2e6


def test_a_missing_file_is_named(tmp_path):
    (write_run(tmp_path) / "metrics.json").unlink()
    with pytest.raises(
        RunError, match=r"can't be reported on: .*metrics\.json.*A report needs settings\.json, labels\.txt, metrics\.json and predictions\.csv"
    ):
        report.page(tmp_path)
