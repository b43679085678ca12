"""CSV tables of images."""

import shutil
from collections import defaultdict

import pytest
from test_data import image

from tfxfer.data import find_source, find_unlabelled, load
from tfxfer.data.named_files import (
    FilesBelow,
    complete_names,
    find_column_of_files,
    may_be_names,
)
from tfxfer.errors import DataError
from tfxfer.inputs import KINDS


def table(root, text: str, images: int = 0, name: str = "labels.csv"):
    (root / "photos").mkdir(exist_ok=True)
    for i in range(images):
        (root / "photos" / f"{i}.png").write_bytes(image(i))
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def rows(count: int, columns) -> str:
    return "\n".join(",".join(str(cell) for cell in columns(i)) for i in range(count))


def test_paths_are_relative_to_the_table(tmp_path):
    examples = load(
        table(tmp_path, "path,label\n" + rows(20, lambda i: (f"photos/{i}.png", "ab"[i % 2])), 20)
    )
    assert (
        examples.classes == ("a", "b")
        and examples.files[3] == "photos/3.png"
        and examples.read(3) == image(3)
    )
    assert set(examples.splits) == {"train", "validation", "test"}


def test_a_split_column_is_kept_exactly(tmp_path):
    part = ["train", "Train", "val", "test"]
    text = "\ufeffLabel, PATH ,Split\n" + rows(
        16, lambda i: ("ab"[i // 4 % 2], tmp_path / "photos" / f"{i}.png", part[i % 4])
    )
    examples = load(table(tmp_path, text, 16))
    assert examples.splits == ("train", "train", "validation", "test") * 4


def test_a_group_is_never_torn_apart(tmp_path):
    examples = load(
        table(
            tmp_path,
            "path,label,group\n"
            + rows(120, lambda i: (f"photos/{i}.png", "ab"[i % 2], f"person {i // 6}")),
            120,
        )
    )
    parts = defaultdict(set)
    for i, part in enumerate(examples.splits):
        parts[i // 6].add(part)
    assert all(len(held) == 1 for held in parts.values()) and len(parts) == 20
    assert all(10 <= len(examples.where(part)) <= 30 for part in ("validation", "test"))


def test_rows_without_a_group_stand_alone(tmp_path):
    examples = load(
        table(
            tmp_path,
            "path,label,group\n" + rows(40, lambda i: (f"photos/{i}.png", "ab"[i % 2], "")),
            40,
        )
    )
    assert len(examples.where("test")) == 6


def test_a_split_that_tears_a_group_apart_is_an_error(tmp_path):
    text = "path,label,split,group\n" + rows(
        8, lambda i: (f"photos/{i}.png", "ab"[i % 2], ["train", "test"][i // 4], f"g{i % 3}")
    )
    with pytest.raises(DataError, match="column split divides groups.*: g0, g1, g2"):
        load(table(tmp_path, text, 8))


def test_a_class_of_one_group_cannot_be_split(tmp_path):
    text = "path,label,group\n" + rows(
        12, lambda i: (f"photos/{i}.png", "ab"[i // 6], f"g{i}" if i < 6 else "same")
    )
    with pytest.raises(DataError, match="the class 'b' has 6 examples, but all of one group"):
        load(table(tmp_path, text, 12))


def test_misspelled_classes_are_all_named_with_lines_and_the_name_that_is_meant(tmp_path):
    names = ["spam", "ham"] * 10
    names[4], names[7] = "Spam", "hamm"
    text = "text,label\n" + rows(20, lambda i: (f"a mail with the number {i}", names[i]))
    with pytest.raises(DataError, match="column split") as caught:
        load(table(tmp_path, text))
    said = str(caught.value)
    assert "'Spam' has 1 example (line 6)" in said and "'hamm' has 1 example (line 9)" in said
    assert "'Spam' a misspelling of 'spam'" in said and "'hamm' a misspelling of 'ham'" in said


def test_a_row_that_a_spreadsheet_counts_otherwise_is_named_by_both_numbers(tmp_path):
    text = "text,label\n" + rows(
        9, lambda i: (f'"a mail\nwith the number {i}"', "" if i == 3 else "ab"[i % 2])
    )
    examples = load(table(tmp_path, text))
    said = " ".join(examples.notes)
    assert "1 row without a label (line 9 = row 5)" in said
    assert "labels.csv:3" in examples.files  # names of examples stay as they are


def test_a_column_that_may_be_a_part_of_the_texts_is_asked_about(tmp_path):
    text = "Betreff,text,label,kind\n" + rows(
        8, lambda i: (f"a subject {i}", f"a mail {i}", "ab"[i % 2], "a word")
    )
    said = " ".join(load(table(tmp_path, text)).notes)
    assert "the column betreff" in said and said.count("call it subject") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Found: nothing"),
        ("when;class\na;b", "names the columns path and label.*Found: when, class"),
        ("path,label\n", "no rows below the header"),
        (
            "path,label\n\nphotos/0.png,a\nphotos/7.png,b\n",
            r"1 of 2 files don't exist: photos/7.png \(line 4\). Paths are relative",
        ),
        ("path,label\nphotos/0.png\n", "these lines have more or fewer: 2"),
        ("path,label\nphotos/0.png,\n", "every cell of the labels"),
        ("path,label\nphotos/0.png,a\n,a\n", "path is empty in these lines: 3"),
        (
            "path,label,split\nphotos/0.png,a,rest\n",
            r"unknown values in the column split: 'rest' \(line 2\)",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(table(tmp_path, text, 2))


def test_a_table_that_is_no_text_is_named(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match=r"labels\.csv is not text"):
        load(tmp_path / "labels.csv")


@pytest.mark.parametrize("end", ['"a,x', 'a,"x'])
def test_a_quote_that_is_not_closed_swallows_no_rows(end, tmp_path):
    ends = ["a,x", "b,x"] * 20
    ends[3] = end
    text = "path,label,note\n" + rows(40, lambda i: (f"photos/{i}.png", ends[i]))
    with pytest.raises(DataError, match=r"row that begins in line 5.*quote") as error:
        load(table(tmp_path, text, 40))
    assert "photos/9.png" not in str(error.value)


def test_cells_of_several_lines_are_read(tmp_path):
    text = "path,label,note\n" + rows(8, lambda i: (f"photos/{i}.png", "ab"[i % 2], '"x\ny ""z"""'))
    assert 'column note (x y "z")' in " ".join(load(table(tmp_path, text, 8)).notes)


@pytest.mark.parametrize(
    "path",
    [
        "0.png",
        "photos/0.PNG",
        "photos/0",
        "mine/photos/0.png",
        "/home/ann/photos/0.png",
        "..\\photos\\0.png",
        "file:///photos/0.png",
        "photos/%30.png",
        "~/photos/0.png",
    ],
)
def test_where_a_path_of_another_place_may_lead_is_said(path, tmp_path):
    with pytest.raises(DataError, match=r"mean photos/0\.png"):
        load(table(tmp_path, f"path,label\n{path},a\nphotos/1.png,b\n", 2))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/0.png", "web addresses"),
        ("gs://bucket/0.png", "web addresses"),
        ("photos", "photos is a folder"),
        ("/home/ann/gone.png", "such as photos/1.jpg"),
    ],
)
def test_what_a_path_is_that_leads_nowhere_is_said(path, said, tmp_path):
    with pytest.raises(DataError, match=said):
        load(table(tmp_path, f"path,label\n{path},a\nphotos/1.png,b\n", 2))


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("comment_text,label", "comment_text"),
        ("v2,v1", "v2"),
        ("Utterance,intent", "Utterance"),
        ("headline,category", "headline"),
    ],
)
def test_a_column_of_texts_with_another_name_is_named(header, column, tmp_path):
    rows = "".join(f"the soup number {i} is good,{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "texts.csv").write_text(f"{header}\n{rows}")
    with pytest.raises(DataError, match=f"column {column}.*the name text") as error:
        load(tmp_path / "texts.csv")
    assert ("--label" in str(error.value)) == (header in ("v2,v1", "Utterance,intent"))


def test_a_column_of_texts_beside_paths_that_lead_nowhere_is_named(tmp_path):
    rows = "".join(f"sent/{i}.,the soup number {i} is good,{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "mails.csv").write_text(f"file,message,label\n{rows}")
    with pytest.raises(DataError, match="column message.*remove the column of paths"):
        load(tmp_path / "mails.csv")


def test_rows_without_a_class_are_left_out_and_said(tmp_path):
    rows = "".join(f"soup {i},{'ab'[i % 2] if i % 3 else ''}\n" for i in range(60))
    (tmp_path / "texts.csv").write_text(f"text,label\n{rows}")
    examples = load(tmp_path / "texts.csv")
    assert len(examples) == 40 and examples.classes == ("a", "b")
    assert any("20 rows without a label" in note for note in examples.notes)


def test_an_empty_text_is_called_a_text(tmp_path):
    rows = "".join(f"soup {i},{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "texts.csv").write_text(f'text,label\n"",a\n{rows}')
    with pytest.raises(DataError, match="text is empty in these lines: 2"):
        load(tmp_path / "texts.csv")


def test_the_column_of_labels_that_texts_lack_is_asked_for(tmp_path):
    (tmp_path / "texts.csv").write_text("text,mood\nsoup,a\nbread,b\n")
    with pytest.raises(DataError, match="names the column label.*--label"):
        load(tmp_path / "texts.csv")


def test_names_that_differ_in_unseen_forms_are_told_apart_in_the_error(tmp_path):
    file = table(tmp_path, "path,label\nphotos/\u00e9.png,a\nphotos/1.png,b\n", 2)
    (tmp_path / "photos" / "e\u0301.png").write_bytes(image(9))
    with pytest.raises(DataError, match=r"'photos/\\xe9\.png' mean 'photos/e\\u0301\.png'"):
        load(file)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("photos/9.png,a", "seems to hold data"),
        ("image,species", "Found: image, species. Give the column of class names the name label"),
        ("image,cat,dog", "--task multilabel"),
        ("Datei,Klasse", "the name path"),
        ("# made by hand", "Remove the lines above"),
    ],
)
def test_what_a_first_row_lacks_is_said(header, said, tmp_path):
    with pytest.raises(DataError, match=said):
        load(table(tmp_path, f"{header}\nphotos/0.png,a\n", 1))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,label", "photos/{}.png,{},"),  # a comma too many in each row
        ('"path", "label"', '"photos/{}.png", "{}"'),
        ('"path" ,"label"', '"photos/{}.png" ,"{}" '),
        ("filepaths,labels", "photos/{}.png,{}"),
    ],
)
def test_tables_that_can_be_read_in_one_way_are_read(header, row, tmp_path):
    lines = [header, *(row.format(i, "ab"[i % 2]) for i in range(8))]
    assert load(table(tmp_path, "\n".join(lines), 8)).classes == ("a", "b")


def test_a_table_of_boxes_is_said_to_be_one(tmp_path):
    text = "filename,class,xmin,ymin,xmax,ymax\n"
    text += rows(8, lambda i: (f"photos/{i}.png", "ab"[i % 2], 1, 2, 3, 4))
    said = " ".join(load(table(tmp_path, text, 8)).notes)
    assert "xmin, ymin, xmax, ymax say where things are" in said and "Not used" not in said


def test_a_file_with_two_labels_is_named_with_both(tmp_path):
    text = "path,label\n" + rows(12, lambda i: (f"photos/{i % 10}.png", "ab"[i >= 5]))
    said = " ".join(load(table(tmp_path, text, 10)).notes)
    assert "photos/0.png as 'a' = photos/0.png as 'b'" in said


@pytest.mark.parametrize("column", ["lesion_id", "individual", "user", "groups", "group_id"])
def test_columns_that_may_be_groups_are_asked_about(column, tmp_path):
    text = f"path,label,{column}\n"
    text += rows(12, lambda i: (f"photos/{i}.png", "ab"[i % 2], i // 4))
    assert "call it group" in " ".join(load(table(tmp_path, text, 12)).notes)


@pytest.mark.parametrize("column", ["age_group", "blood group"])
def test_columns_of_kinds_of_people_are_not_taken_for_groups(column, tmp_path):
    text = f"path,label,{column}\n"
    text += rows(12, lambda i: (f"photos/{i}.png", "ab"[i % 2], "cd"[i // 6]))
    notes = load(table(tmp_path, text, 12)).notes
    assert any(column in note for note in notes) and "call it group" not in " ".join(notes)


@pytest.mark.parametrize("name", ["labels.json", "labels.parquet"])
def test_tables_in_other_forms_are_to_be_written_as_csv(name, tmp_path):
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"Write its table as a \.csv"):
        load(tmp_path / name)


def test_images_of_one_person_by_their_names_are_said_unless_there_are_groups(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        (tmp_path / "photos" / f"person{i // 3}_{i}.png").write_bytes(image(i))
    line = "photos/person{}_{}.png,{},{}"
    lines = [line.format(i // 3, i, "ab"[i % 2], i // 3) for i in range(12)]
    for column, said in (("note", True), ("group", False)):
        file = table(tmp_path, "\n".join([f"path,label,{column}", *lines]))
        assert ("persons" in " ".join(load(file).notes)) == said


@pytest.mark.parametrize("pair", [("P{}", "p{}"), ("{}", "{}.0"), ("é {}", "e\u0301  {}")])
def test_groups_that_look_alike_are_named(pair, tmp_path):
    text = "path,label,group\n" + rows(
        24, lambda i: (f"photos/{i}.png", "ab"[i % 2], pair[i // 2 % 2].format(i // 4))
    )
    notes = load(table(tmp_path, text, 24)).notes
    assert any(repr(pair[1].format(0)) in note and "groups" in note for note in notes)
    text = "path,label,group\n" + rows(
        24, lambda i: (f"photos/{i}.png", "ab"[i % 2], pair[1].format(i // 4))
    )
    assert not any("look almost" in note for note in load(table(tmp_path, text, 24)).notes)


@pytest.mark.parametrize(
    "pair",
    [
        ("{}.1", "{}.10"),
        ("{}", "0{}"),
        ("house {}", "house {} (2)"),
        ("a {}", "a_{}"),
        ("1" * 31 + "{}", "1" * 30 + "2{}"),
    ],
)
def test_groups_with_other_numbers_are_others(pair, tmp_path):
    text = "path,label,group\n" + rows(
        24, lambda i: (f"photos/{i}.png", "ab"[i % 2], pair[i // 2 % 2].format(i // 4))
    )
    assert not any("groups" in note for note in load(table(tmp_path, text, 24)).notes)


def test_classes_of_long_numbers_do_not_look_alike(tmp_path):
    names = ["1" * 30 + "12", "1" * 30 + "13"]
    text = "path,label\n" + rows(12, lambda i: (f"photos/{i}.png", names[i % 2]))
    assert load(table(tmp_path, text, 12)).notes == ()


def test_amounts_in_place_of_classes_lead_to_their_task(tmp_path):
    text = "path,label\n" + rows(12, lambda i: (f"photos/{i}.png", f"{i / 7:.3f}"))
    with pytest.raises(DataError, match="--task regress"):
        load(table(tmp_path, text, 12))
    text = "path,label\n" + rows(12, lambda i: (f"photos/{i}.png", i if i < 3 else i % 3))
    assert load(table(tmp_path, text, 12)).classes == ("0", "1", "2")
    text = "path,label\n" + rows(12, lambda i: (f"photos/{i}.png", min(i, 10)))
    with pytest.raises(DataError) as error:
        load(table(tmp_path, text, 12))
    assert "regress" not in str(error.value)


def named_table(root, header: str, names, files):
    """Write labels.csv with a row for each name, and a photo for each file."""
    for i, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(image(i))
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return root / "labels.csv"


IDS = ["000bec18", "00a338a9", "1", "0001", "0002", "2", "x.y", "ff"]


@pytest.mark.parametrize(
    ("header", "names", "files"),
    [
        ("id,breed", IDS, [f"train/{name}.png" for name in IDS]),
        ("image_id,label", IDS, [f"train/train/{name}.png" for name in IDS]),
        ("image,label", IDS, [f"{name}.png" for name in IDS]),
        ("id,breed", [f"{i}.png" for i in IDS], [f"imgs/{i}.png" for i in IDS]),
        ("path,label", [f"a/{i}" for i in IDS], [f"imgs/a/{i}.png" for i in IDS]),
        ("id,dx", IDS, [f"part_{1 + i % 2}/{name}.png" for i, name in enumerate(IDS)]),
    ],
)
def test_names_without_folder_or_ending_are_completed_and_said(header, names, files, tmp_path):
    examples = load(named_table(tmp_path, header, names, files))
    assert list(examples.files) == files and examples.classes == ("a", "b")
    assert examples.read(3) == image(3)
    assert any(f"{names[0]} is read as {files[0]}" in note for note in examples.notes)


def test_names_of_texts_are_completed_too(tmp_path):
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "labels.csv").write_text(f"id,mood\n{rows}")
    (tmp_path / "mails").mkdir()
    for i in range(30):
        (tmp_path / "mails" / f"{i}.txt").write_text(f"the soup number {i}")
    examples = load(tmp_path / "labels.csv")
    assert examples.kind_name == "text" and examples.files[7] == "mails/7.txt"


@pytest.mark.parametrize(
    ("other", "cure"),
    [("small/000bec18.png", "small/"), ("train/000bec18.bmp", "such as train/000bec18")],
)
def test_a_name_of_two_files_is_an_error_with_both(other, cure, tmp_path):
    file = named_table(tmp_path, "id,breed", IDS, [f"train/{i}.png" for i in IDS])
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_bytes(image(20))
    with pytest.raises(DataError, match=cure) as error:
        load(file)
    assert other in str(error.value) and "train/000bec18.png" in str(error.value)


def test_a_name_that_no_file_has_is_named_alone(tmp_path):
    names = [*IDS, *(f"n{i}" for i in range(12))]
    file = named_table(tmp_path, "id,breed", names, [f"train/{i}.png" for i in names[:-1]])
    with pytest.raises(DataError, match=r"1 of 20 files don't exist: n11 \(line 21\).*train/"):
        load(file)


def test_two_columns_of_names_of_files_are_both_named(tmp_path):
    names = [f"{i},{9 - i}" for i in range(10)]
    file = named_table(tmp_path, "id,rank,breed", names, [f"train/{i}.png" for i in range(10)])
    with pytest.raises(DataError, match="id, rank.*path"):
        load(file)


def test_a_class_is_no_name_of_a_file(tmp_path):
    for i in range(12):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / f"{i}.png").write_bytes(image(i))
    lines = "".join(f"{i},{i % 2}\n" for i in range(12))
    (tmp_path / "labels.csv").write_text(f"id,diagnosis\n{lines}")
    examples = load(tmp_path / "labels.csv")
    assert examples.classes == ("0", "1") and examples.files[11] == "train/11.png"


def test_files_found_by_their_names_still_need_a_column_of_labels(tmp_path):
    names = [f"{name},x" for name in IDS]
    file = named_table(tmp_path, "id,source,breed", names, [f"train/{i}.png" for i in IDS])
    with pytest.raises(DataError, match="Found: id, source, breed.*--label"):
        load(file)
    assert load(file, labels=["breed"]).classes == ("a", "b")


@pytest.mark.parametrize("others", [[], ["test/zz.png"]])
def test_a_folder_with_one_table_is_read_by_its_table(others, tmp_path):
    files = [f"train/{name}.png" for name in IDS]
    named_table(tmp_path, "id,breed", IDS, [*files, *others])
    examples = load(tmp_path)
    assert list(examples.files) == files and examples.classes == ("a", "b")
    assert "labels.csv" in examples.notes[0]
    assert load(tmp_path, labels=["breed"]).files == examples.files


def test_a_folder_with_two_tables_is_an_error_with_both(tmp_path):
    named_table(tmp_path, "id,breed", IDS, [f"train/{name}.png" for name in IDS])
    (tmp_path / "sample_submission.csv").write_text("id,breed\nzz,a\n")
    with pytest.raises(DataError, match=r"labels\.csv, sample_submission\.csv"):
        load(tmp_path)
    with pytest.raises(DataError, match="--label breed"):
        load(tmp_path, labels=["breed"])


def test_what_keeps_the_table_of_a_folder_from_being_read_is_said(tmp_path):
    files = [*(f"train/{name}.png" for name in IDS), "test/ff.png"]
    named_table(tmp_path, "id,breed", IDS, files)
    with pytest.raises(DataError, match=r"ff \(line 9\) may be .*test/ff\.png"):
        load(tmp_path)


def test_class_folders_count_more_than_a_table_beside_them(tmp_path):
    named_table(
        tmp_path, "id,breed", IDS, [f"{'cd'[i % 2]}/{name}.png" for i, name in enumerate(IDS)]
    )
    assert load(tmp_path).classes == ("c", "d")


def packed_table(root, text: str, images: int = 8):
    """Pack labels.csv and its photos into an archive."""
    (root / "inner").mkdir()
    table(root / "inner", text, images)
    return shutil.make_archive(str(root / "dogs"), "zip", root / "inner")


def id_table(root):
    return named_table(root, "id,breed", IDS, [f"train/{name}.png" for name in IDS])


def test_the_columns_of_the_labels_in_an_archive_can_be_named(tmp_path):
    id_table(tmp_path / "inner")
    path = shutil.make_archive(str(tmp_path / "dogs"), "zip", tmp_path / "inner")
    examples = load(path, labels=["breed"])
    assert examples.classes == ("a", "b") and examples.source == path


@pytest.mark.parametrize("cell", ["{root}/secret.png", "../secret.png", "..\\secret.png"])
def test_a_table_in_an_archive_reads_no_file_outside_it(cell, tmp_path):
    cell = cell.format(root=tmp_path)
    lines = rows(8, lambda i: (f"photos/{i}.png", "ab"[i % 2]))
    path = packed_table(tmp_path, f"path,label\n{cell},a\n{lines}")
    (tmp_path / "secret.png").write_bytes(image(9))
    with pytest.raises(DataError, match=r"secret\.png \(line 2\)"):
        load(path)


def test_a_table_in_an_archive_reads_the_files_in_it(tmp_path):
    lines = rows(8, lambda i: (f"photos/../photos/{i}.png", "ab"[i % 2]))
    assert len(load(packed_table(tmp_path, f"path,label\n{lines}"))) == 8


def test_a_table_of_the_user_may_lead_to_files_anywhere(tmp_path):
    lines = rows(8, lambda i: (f"../photos/{i}.png", "ab"[i % 2]))
    table(tmp_path, "", 8)
    (tmp_path / "tables").mkdir()
    assert len(load(table(tmp_path / "tables", f"path,label\n{lines}"))) == 8


def test_a_fault_in_class_folders_is_not_hidden_by_a_table(tmp_path):
    for i, name in enumerate(IDS):
        for part in ("train", "training"):
            (tmp_path / part / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / "ab"[i % 2] / f"{part}{name}.png").write_bytes(image(i))
    lines = "".join(f"train{name},{'ab'[i % 2]}\n" for i, name in enumerate(IDS))
    (tmp_path / "labels.csv").write_text(f"id,breed\n{lines}")
    with pytest.raises(DataError, match="train/ and training/ both mean train"):
        load(tmp_path)


def test_photos_in_pieces_are_still_read_by_their_table(tmp_path):
    files = [f"photos_part_{1 + i % 2}/{name}.png" for i, name in enumerate(IDS)]
    named_table(tmp_path, "id,breed", IDS, files)
    assert load(tmp_path).classes == ("a", "b")


def test_a_model_is_judged_by_the_table_beside_a_single_folder(tmp_path):
    named_table(tmp_path, "id,breed", IDS, [f"images/{name}.png" for name in IDS])
    found = find_source(str(tmp_path), judging=True)
    assert sorted(set(found.names)) == ["a", "b"] and "labels.csv" in found.notes[0]


def test_a_model_is_judged_on_one_class_beside_a_table_of_answers(tmp_path):
    named_table(tmp_path, "file,predicted", ["dogs/x/0.png"], ["cat/0.png", "cat/1.png"])
    found = find_source(str(tmp_path), judging=True)
    assert found.names == ["cat", "cat"] and "labels.csv" in found.notes[0]


def test_names_of_photos_and_of_texts_are_asked_about(tmp_path):
    names = [str(i) for i in range(20)]
    file = named_table(tmp_path, "id,breed", names, [f"train/{name}.png" for name in names[1:]])
    for name in names:
        (tmp_path / "train" / f"{name}.txt").write_text("a dog")
    with pytest.raises(DataError, match=r"train/1\.png and train/0\.txt"):
        load(file)


def test_names_with_an_ending_are_photos_also_beside_texts(tmp_path):
    names = [f"{name}.png" for name in IDS]
    file = named_table(tmp_path, "id,breed", names, [f"train/{name}" for name in names])
    for name in names:
        (tmp_path / "train" / f"{name}.txt").write_text("a dog")
    assert load(file).kind_name == "image"


def test_accents_in_names_may_be_written_in_two_ways(tmp_path):
    names = [f"caf\u00e9{i}" for i in range(8)]
    files = [f"tr\u00e9s/cafe\u0301{i}.png" for i in range(8)]
    examples = load(named_table(tmp_path, "id,breed", names, files))
    assert list(examples.files) == files
    (tmp_path / "tr\u00e9s" / "caf\u00e90.png").write_bytes(image(20))
    examples = load(tmp_path / "labels.csv")
    assert list(examples.files) == ["tr\u00e9s/caf\u00e90.png", *files[1:]]


def test_a_column_of_long_cells_is_not_looked_for_in_the_folder():
    assert not may_be_names([f"{i} {'so ' * 100}" for i in range(8)])
    assert not may_be_names(["dog", "cat"] * 10) and may_be_names(IDS)


def test_the_files_below_a_table_are_listed_once(tmp_path):
    id_table(tmp_path)
    below = FilesBelow(tmp_path)
    assert find_column_of_files({"id": IDS}, below, None, source="labels.csv") == "id"
    shutil.rmtree(tmp_path / "train")
    assert complete_names(IDS, range(2, 10), below=below, kind=None, source="labels.csv")[0] == [
        f"train/{name}.png" for name in IDS
    ]


def predicted(*paths):
    return find_unlabelled(paths, KINDS["image"])


def test_tables_to_predict_may_have_their_columns_in_another_order(tmp_path):
    table(tmp_path, "", 4)
    one = table(tmp_path, "id,path,site\n0,photos/0.png,A\n1,photos/1.png,B\n", name="a.csv")
    two = table(tmp_path, "site,path,id\nC,photos/2.png,2\nD,photos/3.png,3\n", name="b.csv")
    given = predicted(one, two).given
    assert [list(row) for row in given] == [["id", "path", "site"]] * 4
    assert [(row["id"], row["site"]) for row in given] == [*zip("0123", "ABCD", strict=True)]


@pytest.mark.parametrize(
    "header", ["path,text,message", "title,text", "text,path", "id,description"]
)
def test_tables_to_predict_are_read_as_those_to_train_on(header, tmp_path):
    names = header.split(",")
    file = {"title,text": "text"}.get(header, names[0] if "path" not in names else "path")
    cells = [
        ",".join(f"photos/{i}.png" if name == file else f"cell {i}" for name in names)
        for i in range(8)
    ]
    path = table(tmp_path, "\n".join([header, *cells]) + "\n", 8)
    assert predicted(path).files[3] == str(tmp_path / "photos/3.png")


def test_a_table_of_one_row_can_be_predicted(tmp_path):
    table(tmp_path, "", 2)
    one = table(tmp_path, "id,site\n1,A\n", name="one.csv")
    assert predicted(one).files == [str(tmp_path / "photos/1.png")]


def test_a_model_of_texts_takes_the_texts_beside_names_of_photos(tmp_path):
    lines = rows(4, lambda i: (f"https://a.b/{i}.jpg", f"the soup {i}", "ab"[i % 2]))
    path = table(tmp_path, f"image,text,label\n{lines}")
    assert find_unlabelled([path], KINDS["text"]).read(3) == b"the soup 3"
    assert find_source(str(path), judging=True, kind=KINDS["text"]).read(3) == b"the soup 3"
