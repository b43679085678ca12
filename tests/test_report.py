"""The report: one page made from a run folder's files."""

import csv
import io
import json
import re
import shlex
import sys
import zipfile
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from tfxfer import report
from tfxfer.errors import RunError
from tfxfer.evaluate import pays
from tfxfer.report.page import Row
from tfxfer.report.scatter import scatter
from tfxfer.run import Run, open_run
from tfxfer.run.attempt import failures
from tfxfer.safety.names import printable

LABELS = ["ants", "<script>alert(1)</script>", 'a "quoted" & $x^$ name', "蜜蜂"]


def figures(accuracy):
    return {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "low": accuracy - 0.05,
        "high": accuracy + 0.05,
        "n": 8,
        "classes": {},
    }


def write_run(folder, *, rows=None, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    baselines = {"majority": figures(0.25), "raw_pixels": figures(0.5), "last_layer_logistic": None}
    (folder / "metrics.json").write_text(
        json.dumps({"test": figures(0.75), "validation": None, "baselines": baselines} | changes)
    )
    settings = {
        "data": {"value": "<b>photos</b>", "origin": "given"},
        "command": {"value": "tfxfer run frozen --data '<b>photos</b>'", "origin": "derived"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    if rows is None:
        rows = [(f"{i}.jpg", "test", LABELS[i % 4], LABELS[i % 4], 0.9) for i in range(6)]
        rows += [
            ('wrong "sure"\n<img src=x>.jpg', "test", LABELS[0], LABELS[1], 0.99),
            ("wrong.jpg", "test", LABELS[0], LABELS[2], 0.5),
        ]
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([Row.__annotations__, *rows])
    return folder


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def sections(text):
    """The ids of the page's parts, in their order."""
    found = Tags(text).found
    return [parts["id"] for tag, parts in found if tag in ("section", "div") and "id" in parts]


def part(text, name):
    """The markup of one part of the page."""
    start = text.index(f'id="{name}"')
    return text[start : text.index("</section>", start)]


def test_page_shows_the_figures_the_baselines_and_the_settings(tmp_path):
    text = report.make_page(write_run(tmp_path))
    assert "75.0 %" in text and "70.0 to 80.0&nbsp;%" in text and "<td>given</td>" in text
    rows = re.findall(r"<tr.*?</tr>", part(text, "baselines"), re.DOTALL)[1:]
    accuracies = [re.search(r'class="number">([\d.]+) %', row)[1] for row in rows]
    assert accuracies == ["25.0", "50.0", "75.0"]
    assert pays(json.loads((tmp_path / "metrics.json").read_text())) in unescape(text)


def test_labels_and_file_names_are_shown_as_text(tmp_path):
    text = report.make_page(write_run(tmp_path))
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("script", "img", "b")]
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        and "&lt;img src=x&gt;" in text
        and "蜜蜂" in text
    )


def test_pictures_are_well_formed_and_have_alternative_texts(tmp_path):
    text = report.make_page(write_run(tmp_path))
    drawn = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    alternatives = [
        attributes["aria-label"]
        for tag, attributes in Tags(text).found
        if attributes.get("role") == "img"
    ]
    assert len(drawn) == len(alternatives) == 1
    assert "6 of 8 are right" in alternatives[0] and "ants taken for" in alternatives[0]


def test_page_needs_no_network(tmp_path):
    tags = Tags(report.make_page(write_run(tmp_path))).found
    links = [
        value
        for _, attributes in tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)


def test_the_same_run_gives_the_same_page(tmp_path):
    write_run(tmp_path)
    assert report.make_page(tmp_path) == report.make_page(tmp_path)


def test_most_confident_mistakes_come_first(tmp_path):
    text = report.make_page(write_run(tmp_path))
    assert text.index("wrong &#34;sure&#34;") < text.index("wrong.jpg")


def test_page_says_when_transfer_does_not_pay(tmp_path):
    changes = {
        "test": figures(0.1) | {"n": 1000},
        "baselines": {"majority": figures(0.25) | {"n": 1000}},
    }
    assert (
        "The pretrained network does not help here: 0.100 on 1,000 test photos"
        in report.make_page(write_run(tmp_path, **changes))
    )


def test_without_a_test_part_validation_is_shown_and_no_baseline(tmp_path):
    rows = [("a.jpg", "validation", "ants", "ants", 0.9)]
    text = report.make_page(write_run(tmp_path, rows=rows, test=None, validation=figures(0.6)))
    assert "8 validation photos" in text and "baselines" not in sections(text)


def test_without_test_and_validation_parts_the_held_out_figure_is_shown(tmp_path):
    rows = [("a.jpg", "train", "ants", "ants", 0.9)]
    text = report.make_page(write_run(tmp_path, rows=rows, test=None, validation=figures(0.6)))
    assert "8 held-out training photos" in text
    assert "Confusion matrix on held-out training photos: 1 of 1 are right." in text


def test_without_test_and_validation_the_page_says_that_nothing_is_known(tmp_path):
    assert "nothing is known about new examples" in report.make_page(
        write_run(tmp_path, rows=[], test=None)
    )


@pytest.mark.long
def test_a_page_of_500_classes_stays_small(tmp_path):
    names = [f"class {i}" for i in range(500)]
    rows = [(f"{i}.jpg", "test", name, names[i // 2], 0.5) for i, name in enumerate(names)]
    write_run(tmp_path, rows=rows)
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    assert len(report.make_page(tmp_path).encode()) < 2e6


def test_a_missing_file_is_named(tmp_path):
    (write_run(tmp_path) / "metrics.json").unlink()
    with pytest.raises(
        RunError,
        match=(
            r"can't be reported on: .*metrics\.json.*A report needs settings\.json, labels\.txt, "
            r"metrics\.json and predictions\.csv"
        ),
    ):
        report.make_page(tmp_path)


# --- what was reviewed ----------------------------------------------------------------------------


FILES = ["plain.jpg", 'wrong "sure"\n<img src=x>.jpg', "蜂蜜/\u202ereversed.jpg"]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def reviewed(folder):
    """A run with everything that a page can show."""
    write_run(
        folder,
        sets={"coverage": 0.9, "test": figures(0.92) | {"mean_size": 1.2}},
        unknown={
            "false_alarms": 0.05,
            "by": "validation",
            "threshold": 3.0,
            "calibrated_on": 200,
            "test": figures(0.97),
        },
    )
    items = [
        {
            "file": file,
            "split": "test",
            "label": LABELS[0],
            "predicted": LABELS[1],
            "probability": 0.9,
            "picture": f"{i}.jpg",
        }
        for i, file in enumerate(FILES)
    ]
    review = {
        "counts": {"train": dict.fromkeys(LABELS, 5), "test": dict.fromkeys(LABELS, 2)},
        "samples": {LABELS[1]: items},
        "mistakes": items,
        "right": [items[2] | {"predicted": LABELS[0]}],
        "label_errors": {
            "count": 30,
            "examined": 3000,
            "shown": [item | {"suggested": LABELS[1]} for item in items],
        },
        "duplicates": [{"judged": items[0], "train": items[1], "similarity": 0.99}],
        "odd": {"count": 1, "shown": [items[2] | {"why": "black"}]},
        "map": [
            {"x": i / 20, "y": 0.5, "label": LABELS[i % 4], "right": i % 5 > 0} for i in range(20)
        ],
        "occlusion": [items[0] | {"why": "0-why.jpg", "most": 0.4}],
        "notes": ["3 images dropped: <b>identical</b>"],
    }
    (folder / "review.json").write_text(json.dumps(review))
    with zipfile.ZipFile(folder / "thumbnails.zip", "w") as archive:
        for name in ("0.jpg", "1.jpg", "2.jpg", "0-why.jpg"):
            archive.writestr(name, jpeg())
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 40)
    files, splits, labels = np.arange(40).astype(str), np.repeat(["test"], 40), np.arange(40) % 4
    np.savez(
        folder / "probabilities.npz",
        files=files,
        splits=splits,
        labels=labels,
        probabilities=probabilities,
    )
    (folder / "history.csv").write_text("epoch,loss,val_loss\n1,0.9,1.0\n2,0.5,0.8\n")
    return folder


def test_everything_that_was_reviewed_is_on_the_page(tmp_path):
    page = report.make_page(reviewed(tmp_path))
    text = unescape(page)
    assert sections(page) == [
        "score",
        "next",
        "answers",
        "wrong",
        "right",
        "doubt",
        "baselines",
        "map",
        "occlusion",
        "labels",
        "duplicates",
        "odd",
        "photos",
        "settings",
    ]
    assert "30 of 3,000" in part(text, "labels")
    assert "92.0 %" in part(text, "doubt") and "1.20" in part(text, "doubt")
    assert "3.0 %" in part(text, "doubt") and "40 points" in part(text, "occlusion")
    assert text.count("<h1>") == 1 and "None" not in part(text, "settings")


def test_the_page_says_what_is_told_apart_from_how_many_photos_when_and_how(tmp_path):
    settings = {
        "recipe": {"value": "frozen", "origin": "given"},
        "backbone": {"value": "small-net", "origin": "given"},
        "started": {"value": "2026-03-04T10:52:07+0000", "origin": "derived"},
        "cache": {"value": None, "origin": "default"},
    }
    (reviewed(tmp_path) / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "labels.txt").write_text("ants\nbees\n")
    (tmp_path / "predictions.csv").write_text(
        "file,split,true,predicted,probability\na.jpg,test,ants,bees,0.9\n"
    )
    text = unescape(report.make_page(tmp_path))
    (title,) = re.findall(r"<h1>(.*?)</h1>", text)
    (line,) = re.findall(r"<h1>.*?</h1>\n<p[^>]*>(.*?)</p>", text, re.DOTALL)
    assert "ants" in title and "bees" in title
    for expected in ("28 photos", "20 ", "8 ", "tfxfer run frozen", "small-net", "4 March 2026"):
        assert expected in line, expected
    assert "cache" not in part(text, "settings")


def kinds(folder):
    """What the page says is to be done next."""
    found = Tags(report.make_page(folder)).found
    return [attributes["data-kind"] for _, attributes in found if "data-kind" in attributes]


def of_class(right, n):
    return {"n": n, "predicted": n, "recall": right / n, "precision": right / n}


@pytest.mark.long
def test_what_to_do_next_follows_from_the_figures(tmp_path):
    classes = dict(zip(LABELS, [of_class(9, 10), of_class(3, 10), of_class(1, 1)], strict=False))
    write_run(tmp_path, test=figures(0.7) | {"classes": classes})
    assert kinds(tmp_path) == ["photos", "test", "use"]
    steps = unescape(part(report.make_page(tmp_path), "next"))
    assert LABELS[1] in steps and "3 of 10" in steps and f"tfxfer predict {tmp_path}" in steps
    perfect = dict.fromkeys(LABELS, of_class(10, 10))
    write_run(tmp_path, test=figures(0.9) | {"classes": perfect, "n": 1000})
    assert kinds(tmp_path) == ["judge", "judge", "use"]
    write_run(tmp_path, rows=[], test=None)
    assert kinds(tmp_path) == ["test", "judge", "use"]
    assert kinds(reviewed(tmp_path))[1] == "labels"


def test_a_file_and_a_class_in_what_to_do_next_are_text(tmp_path):
    folder = tmp_path / "a <img src=x> 'b'"
    classes = {LABELS[1]: of_class(3, 10)}
    text = report.make_page(write_run(folder, test=figures(0.7) | {"classes": classes}))
    assert "<img" not in text and "<script" not in text
    assert shlex.quote(str(folder)) in unescape(part(text, "next"))


def test_ids_are_unique(tmp_path):
    ids = re.findall(r'<[^>]* id="(.*?)"', report.make_page(reviewed(tmp_path)))
    assert len(ids) == len(set(ids))


def test_tables_that_scroll_can_be_reached_by_keyboard(tmp_path):
    tags = Tags(report.make_page(reviewed(tmp_path))).found
    regions = [attributes for _, attributes in tags if attributes.get("class") == "wide"]
    assert regions
    assert all(found["tabindex"] == "0" and found["aria-label"] for found in regions)


def test_what_says_nothing_is_left_out(tmp_path):
    review = json.loads((reviewed(tmp_path) / "review.json").read_text())
    review["occlusion"][0]["most"] = 0.0
    review["duplicates"][0]["similarity"] = 0.54
    (tmp_path / "review.json").write_text(json.dumps(review))
    text = report.make_page(tmp_path)
    assert "occlusion" not in sections(text)
    duplicates = part(text, "duplicates")
    assert "0.54" in duplicates and "<img" not in duplicates


def test_the_classes_are_listed_worst_first(tmp_path):
    rows = [(f"{i}.jpg", "test", name, name, 0.9) for i, name in enumerate(LABELS)]
    counts = {"ants": (9, 10), LABELS[2]: (2, 10), LABELS[3]: (5, 10)}
    classes = {name: of_class(*count) for name, count in counts.items()}
    classes[LABELS[1]] = {"n": 0, "predicted": 1, "recall": None, "precision": 0.0}
    text = report.make_page(
        write_run(tmp_path, rows=rows, test=figures(0.5) | {"classes": classes})
    )
    listed = re.findall(r'<tr><td class="any">(.*?)</td>', part(text, "classes"))
    assert [unescape(name) for name in listed] == [LABELS[2], LABELS[3], "ants", LABELS[1]]


@pytest.mark.parametrize("count", [3, 10, 24, 25])
def test_every_class_on_the_map_has_its_own_mark(count):
    names = [f"class {i}" for i in range(count)]
    points = [
        {"x": i / count, "y": 0.5, "label": name, "right": i != 1} for i, name in enumerate(names)
    ]
    drawn = scatter(points, names, "photos")
    marks = re.findall(r"<path transform=.*? (d=.*?)/>", drawn.svg)
    assert len(marks) == count and drawn.svg.count("<circle") == drawn.wrong == 1
    if count <= 24:
        assert len(set(marks)) == count == len(drawn.legend)
        assert [(mark.name, mark.n, mark.wrong) for mark in drawn.legend[:2]] == [
            ("class 0", 1, 0),
            ("class 1", 1, 1),
        ]
        assert all(mark in line.svg for mark, line in zip(marks, drawn.legend, strict=True))
    else:
        assert set(marks) == {marks[0]} and drawn.legend == ()
    if count <= 10:
        assert len({re.search(r'fill="(.*?)"', mark)[1] for mark in marks}) == count


@pytest.mark.long
@pytest.mark.parametrize(("folds", "share"), [(3, "two thirds"), (2, "one half"), (1, "other")])
def test_the_page_says_on_what_frozen_and_tuned_were_fitted_and_judged(tmp_path, folds, share):
    names = ("frozen", "tuned", "50% of the way to tuned", "learning rate 0.01, short")
    write_run(reviewed(tmp_path), candidates={name: figures(0.8) | {"n": 20} for name in names})
    settings = json.loads((tmp_path / "settings.json").read_text())
    for name, value in (("why", "because"), ("tuning", {"folds": folds})):
        settings[name] = {"value": value, "origin": "derived"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    text = part(report.make_page(tmp_path), "candidates")
    assert share in text and "20 training photos" in text and "because" in text
    final, _, tried = text.partition("<details>")
    assert final.count("80.0 %") == 2 and tried.count("80.0 %") == 2
    assert "50 %" in tried and "0.01" in tried


def test_thumbnails_are_in_the_page_and_have_alternative_texts(tmp_path):
    tags = Tags(report.make_page(reviewed(tmp_path))).found
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 3 + 1 + 3 + 3 + 2 + 1 + 2
    assert all(
        picture["src"].startswith("data:image/jpeg;base64,") and picture["alt"]
        for picture in pictures
    )
    assert not [attributes for tag, attributes in tags if tag in ("script", "b") and attributes]
    assert {
        attributes["aria-label"][:11] for _, attributes in tags if attributes.get("role") == "img"
    } >= {"Calibration", "Loss of 2 e", "Map of 20 p"}


def test_names_of_files_and_labels_are_text_wherever_they_stand(tmp_path):
    text = report.make_page(reviewed(tmp_path))
    assert "<script>alert" not in text and "<img src=x>" not in text and "<b>identical" not in text
    assert all(printable(file) in unescape(text) for file in FILES)
    assert not re.search(r"\balt=\"[^\"]*<", text)


def test_the_figure_of_validation_is_shown_beside_that_of_test(tmp_path):
    text = report.make_page(write_run(tmp_path, validation=figures(0.5)))
    assert "8 training photos" in text and "50.0 % (45.0 to 55.0&nbsp;%)" in text


def test_the_same_figures_are_there_as_json(tmp_path):
    found = json.loads(report.as_json(reviewed(tmp_path)))
    assert found["figures"]["accuracy"] == 0.75 and found["sets"]["test"]["mean_size"] == 1.2
    assert found["history"] == [
        {"epoch": 1, "loss": 0.9, "val_loss": 1.0},
        {"epoch": 2, "loss": 0.5, "val_loss": 0.8},
    ]
    assert sum(row["n"] for row in found["reliability"]) == 40 and len(found["mistakes"]) == 2


def test_a_damaged_archive_of_thumbnails_is_named(tmp_path):
    (reviewed(tmp_path) / "thumbnails.zip").write_bytes(b"no archive")
    with pytest.raises(RunError, match=r"thumbnails\.zip can't be read: File is not a zip file"):
        report.make_page(tmp_path)


def test_the_card_is_markdown_that_labels_do_not_break(tmp_path):
    text = report.make_card(reviewed(tmp_path))
    assert text.startswith("---\nlibrary_name: tfxfer\n")
    assert "| accuracy | 75.0 % (95 % interval 70.0 % to 80.0 %) |" in text
    assert "\\<script\\>alert(1)\\</script\\>" in text and "<script>" not in text.replace(
        "\\<script", ""
    )
    assert "\n- 30 of 3,000 labels " in text and "\n- 8 photos " in text
    assert "```console\ntfxfer run frozen --data" in text
    assert "\n\n\n" not in text.partition("## Limits")[2]


def test_the_card_names_the_licence_of_a_known_backbone(tmp_path):
    settings = json.loads((write_run(tmp_path) / "settings.json").read_text())
    for name, expected in (
        ("efficientnet-lite0", "licence Apache-2.0 (https://"),
        ("mine/", "its licence is not known to tfxfer"),
    ):
        (tmp_path / "settings.json").write_text(
            json.dumps(settings | {"backbone": {"value": name, "origin": "given"}})
        )
        assert expected in report.make_card(tmp_path)


def finished(
    folder,
    *,
    accuracy=0.75,
    right=30,
    seed=0,
    classes=("a", "b"),
    count=40,
    options=None,
    chosen=None,
):
    """A finished run of some test examples."""
    options = {"data": "photos", "backbone": "mine"} | (options or {})
    run = Run(folder, options=options, seed=seed)
    run.record(**(chosen or {}))
    probabilities = np.full((count, 2), 0.3)
    labels = np.arange(count) % 2
    said = np.where(np.arange(count) < right, labels, 1 - labels)
    probabilities[np.arange(count), said] = 0.7
    run.write_text("labels.txt", "".join(f"{name}\n" for name in classes))
    run.write_json("metrics.json", {"test": figures(accuracy), "validation": None, "baselines": {}})
    run.write_csv(
        "predictions.csv", Row.__annotations__, [("0.jpg", "test", classes[0], classes[0], 0.7)]
    )
    files = np.array([f"{seed}-{i}.jpg" for i in range(count)])
    run.write(
        "probabilities.npz",
        lambda path: np.savez(
            path,
            files=files,
            splits=np.repeat(["test"], count),
            labels=labels,
            probabilities=probabilities,
        ),
    )
    report.write_reports(run)
    run.finish()
    return folder


def test_a_report_is_made_anew_and_the_run_stays_whole(tmp_path):
    folder = finished(tmp_path / "run")
    before = {
        name: (folder / name).read_text()
        for name in ("report.html", "report.json", "MODEL_CARD.md", "manifest.json")
    }
    open_run(folder).replace({"report.html": "old"})
    (folder / "report.json").unlink()
    (folder / "MODEL_CARD.md").write_text("edited")
    assert open_run(folder) and (folder / "report.html").read_text() == "old"
    assert report.write_again(folder) == folder / "report.html"
    assert {name: (folder / name).read_text() for name in before} == before
    (folder / "labels.txt").write_text("changed")
    with pytest.raises(RunError, match=r"labels\.txt is not the file that the run wrote"):
        report.write_again(folder)


def test_a_report_that_could_not_be_written_whole_leaves_the_run_whole(tmp_path):
    run = open_run(finished(tmp_path / "run"))
    (run.folder / ".new-report.json").mkdir()
    with pytest.raises(RunError, match=r"run can't be written: Is a directory"):
        run.replace({"report.html": "new", "report.json": "new"})
    assert open_run(run.folder).classes() == ["a", "b"]


def test_names_with_odd_line_ends_and_bytes_are_shown(tmp_path):
    folder = finished(tmp_path / "run", classes=("a\u2028b", "c\udcff"))
    assert open_run(folder).classes() == ["a\u2028b", "c\udcff"]
    json.loads((folder / "report.json").read_text("utf-8"))


def test_runs_are_compared_image_by_image(tmp_path):
    rows = report.compare_runs(
        [finished(tmp_path / "one", right=30), finished(tmp_path / "two", right=36)]
    )
    assert [row[4] for row in rows] == ["accuracy", "0.750", "0.900", ""]
    gain, error = 6 / 42, np.sqrt(7 - 36 / 42) / 42
    assert (
        rows[2][8]
        == f"+15.0 ({100 * (gain - 1.96 * error):+.1f} to {100 * (gain + 1.96 * error):+.1f})"
    )
    assert rows[-1][0] == "40 test photos"


@pytest.mark.long
@pytest.mark.parametrize("rights", [(30, 36), (13, 37), (21, 22), (40, 0)])
def test_the_printed_difference_is_that_of_the_printed_accuracies(tmp_path, rights):
    folders = [finished(tmp_path / str(i), right=right) for i, right in enumerate(rights)]
    _, first, second, _ = report.compare_runs(folders)
    printed = 100 * (float(second[4]) - float(first[4]))
    assert second[8].split()[0] == f"{printed:+.1f}"


@pytest.mark.long
def test_the_difference_of_thirds_is_that_of_the_printed_accuracies(tmp_path):
    # 23 of 24 against 13 of 24 is 41.67 points, and 0.958 against 0.542 is 41.6.
    folders = [finished(tmp_path / str(n), right=n, count=24) for n in (13, 23)]
    assert report.compare_runs(folders)[2][8].startswith("+41.6 ")


@pytest.mark.long
def test_runs_on_other_photos_are_said_to_be(tmp_path):
    folders = [finished(tmp_path / str(n), right=20, count=n) for n in (40, 24)]
    assert report.compare_runs(folders)[-1][0] == "24 test photos that all runs have (of 40 and 24)"


def test_the_head_that_was_asked_for_is_named_where_none_was_chosen(tmp_path):
    folder = finished(tmp_path / "run", options={"head": "mlp"})
    assert report.compare_runs([folder, folder])[1][3] == "mlp"


def test_the_network_and_the_head_that_were_chosen_are_compared_by_their_plain_names(tmp_path):
    folder = finished(
        tmp_path / "run", chosen={"chosen_backbone": "minilm", "chosen_head": "gaussian_and_linear"}
    )
    assert report.compare_runs([folder, folder])[1][2:4] == ("minilm", "gaussian and linear")
    assert "| gaussian and linear" in (folder / "MODEL_CARD.md").read_text()
    names = re.findall(
        "<tr><td>([a-z_]+)</td>", part((folder / "report.html").read_text(), "settings")
    )
    assert names[names.index("backbone") + 1] == "chosen_backbone"


@pytest.mark.long
def test_runs_that_can_not_be_compared_are_said(tmp_path):
    one, other, strange = (
        finished(tmp_path / "one"),
        finished(tmp_path / "two", seed=1),
        finished(tmp_path / "three", classes=("a", "c")),
    )
    with pytest.raises(RunError, match=r"1 run to compare; expected at least two\."):
        report.compare_runs([one])
    with pytest.raises(
        RunError,
        match=(
            r"have no test example in common\. Compare runs on the same data, "
            r"split by the same --seed\."
        ),
    ):
        report.compare_runs([one, other])
    with pytest.raises(
        RunError,
        match=r"three has other classes than .*one: b, c\. Compare runs on the same data\.",
    ):
        report.compare_runs([one, strange])


# --- what can't be made ---


def broken(*arguments):
    raise RuntimeError("no fonts <here>")


def test_pictures_that_can_not_be_drawn_are_said_on_the_page(tmp_path, monkeypatch):
    for name in ("confusion", "reliability"):
        monkeypatch.setattr(f"tfxfer.report.pictures.{name}", broken)
    folder = finished(tmp_path / "run")
    lines = failures(folder)
    assert len(lines) == 2 and all("no fonts <here>" in line for line in lines)
    page = (folder / "report.html").read_text()
    assert page.count("no fonts &lt;here&gt;") == 2 and page.count("<svg") == 0
    assert "no fonts" in (folder / "report.json").read_text()
    assert "no fonts \\<here\\>" in (folder / "MODEL_CARD.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "function"),
    [("report.html", "make_page"), ("report.json", "as_json"), ("MODEL_CARD.md", "make_card")],
)
def test_a_run_finishes_without_a_report_that_can_not_be_made(
    file, function, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["tfxfer.report.write"], function, broken)
        folder = finished(tmp_path / "run")
    assert not (folder / file).exists() and open_run(folder).classes() == ["a", "b"]
    assert len(failures(folder)) == 1 and failures(folder)[0].startswith(file)
    report.write_again(folder)
    assert (folder / file).exists() and open_run(folder)


# --- hostile names ---

HOSTILE = [
    "a`b<img src=x onerror=alert(1)>\t## x",
    "$x",
    "$\\frac{$",
    "{x}",
    "_hidden",
    "__",
    "#010203",
    "currentColor",
    "</script><script>alert(1)</script>",
    "</style></svg></figure><h1>x</h1>",
    "<metadata>x</metadata>",
    "]]>",
    "-->",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "&lt;b&gt;&#60;",
    "{{ 7 * 7 }}{% for %}",
    "%s %d %(x)s",
    "=1+1",
    "'=1+1",
    "-1",
    "+1",
    "@a",
    "   ",
    " a",
    "a",
    "a ",
    "\u200b",
    "\u200b\u200b",
    "\u202eabc",
    "\u05d0\u05d1 \u0661",
    "a\x1b[31m",
    "a\x1b[32m",
    "\x00",
    "\x7f",
    "\ufeff",
    "\ufffe",
    "\U0001f469\u200d\U0001f469",
    "e" + "\u0301" * 50,
    "\udcff",
    "x" * 10_000,
    "x" * 9_999 + "y",
    "| a | b |",
    "``` x",
    "nan",
    "0",
    "CON",
    "a/../../b",
    "\\",
    "'",
]


def hostile_run(folder, names):
    """A finished run whose classes and files are called anything."""
    count = len(names)
    run = Run(folder, options={"data": HOSTILE[0] + "\n## x", "backbone": HOSTILE[8]})
    run.record(command=f"tfxfer run frozen --data '{HOSTILE[0]}\n```\n## x'", why=HOSTILE[0])
    rows = [(f"{name}.jpg", "test", name, names[i // 2], 0.7) for i, name in enumerate(names)]
    labels = np.arange(count)
    probabilities = np.full((count, count), 0.3 / count)
    probabilities[labels, labels // 2] += 0.7
    run.write_text("labels.txt", "".join(f"{name}\n" for name in names))
    run.write_json("metrics.json", {"test": figures(0.5), "validation": None, "baselines": {}})
    run.write_csv("predictions.csv", Row.__annotations__, rows)
    arrays = {
        "files": np.array([f"{i}.jpg" for i in range(count)]),
        "splits": np.repeat(["test"], count),
        "labels": labels,
        "probabilities": probabilities,
    }
    run.write("probabilities.npz", lambda path: np.savez(path, **arrays))
    points = [
        {"x": i / count, "y": 0.5, "label": name, "right": True} for i, name in enumerate(names)
    ]
    item = {"file": HOSTILE[0], "split": "test", "label": HOSTILE[9], "picture": "0.jpg"}
    item |= {"predicted": HOSTILE[8], "probability": 0.5}
    review = {
        "counts": {"test": dict.fromkeys(names, 1)},
        "mistakes": [item],
        "map": points,
        "notes": [HOSTILE[0] + "\n## x", "- a\n- b"],
    }
    run.write_json("review.json", review)
    report.write_reports(run)
    run.finish()
    return folder


@pytest.fixture(scope="module", params=[0, 1, 2])
def hostile(request, tmp_path_factory):
    """A run's folder and its classes, so few that every picture names them."""
    names = HOSTILE[request.param :: 3]
    folder = tmp_path_factory.mktemp("hostile") / "a`b<img src=x onerror=alert(1)>\n## x"
    return hostile_run(folder, names), names


def test_everything_is_made_whatever_classes_are_called(hostile):
    folder, names = hostile
    assert failures(folder) == []
    found = json.loads((folder / "report.json").read_text())
    assert found["classes"] == names and len(found["counts"]["test"]) == len(names)
    assert {row["true"] for row in found["mistakes"]} <= set(names)
    assert len(report.compare_runs([folder, folder])) == 4


def test_hostile_names_are_text_on_the_page(hostile):
    folder, names = hostile
    text = (folder / "report.html").read_text()
    tags = Tags(text).found
    kinds = {tag for tag, _ in tags}
    assert not kinds & {"script", "img", "a", "iframe", "object", "link", "form"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    count = [tag for tag, _ in tags].count
    assert count("h1") == 1 and count("style") <= 1 + count("svg")
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    assert printable(text) == text
    # Every class that can be seen is on the map's legend, in the confusion matrix and elsewhere.
    for name in ("_hidden", "#010203", "$x", "currentColor", "%s %d %(x)s"):
        assert name not in names or text.count(f">{name}<") >= 4, name


def test_hostile_names_are_text_in_the_card(hostile):
    folder, _ = hostile
    card = (folder / "MODEL_CARD.md").read_text()
    tokens = MarkdownIt().enable("table").parse(card.split("---\n", 2)[2])
    kinds = [child.type for token in tokens for child in [token, *(token.children or [])]]
    assert not {"html_inline", "html_block", "image", "link_open"} & set(kinds)
    headings = [
        tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert headings[1:] == ["What it is", "Data", "Figures", "Limits", "To do it again"]
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert "## x" in fence.content
    assert printable(card) == card
