"""The run folder: begun at once, whole at the end, resumed and refused as promised."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tfxfer.errors import RunError
from tfxfer.run import Run, open_run
from tfxfer.safety.names import csv_text


def begin(folder, *, data="photos", given=("data",), **others):
    return Run(
        folder,
        recipe="frozen",
        options={"data": data, "head": "auto", "epochs": 20},
        given=given,
        **others,
    )


def finished(folder):
    run = begin(folder)
    run.write_text("labels.txt", "ant\nbee\n")
    run.finish()
    return run


def test_settings_are_there_at_once_each_with_its_origin(tmp_path):
    run = begin(tmp_path / "r", given=("data", "seed"), seed=3)
    run.record(data_fingerprint="abc")
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    assert settings["seed"] == {"value": 3, "origin": "given"}
    assert settings["epochs"] == {"value": 20, "origin": "default"}
    assert settings["data_fingerprint"] == {"value": "abc", "origin": "derived"}
    assert {"python", "tensorflow", "keras"} <= settings["versions"]["value"].keys()


def test_the_manifest_comes_last_and_checkpoints_go(tmp_path):
    run = begin(tmp_path)
    run.write_text("labels.txt", "ant\n")
    with pytest.raises(
        RunError, match="is not finished. Go on with: tfxfer run frozen --out .* --resume"
    ):
        open_run(tmp_path)
    run.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.txt",
        "manifest.json",
        "settings.json",
    ]
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {
        "labels.txt",
        "settings.json",
    }
    assert open_run(tmp_path).classes() == ["ant"]


def test_class_names_come_back_as_they_were(tmp_path):
    # Line separators that str.splitlines knows, and a name that is not UTF-8.
    names = [
        "a\u2028b",
        "naïve",
        "caf\udce9",
        "x\x0by",
    ]
    run = begin(tmp_path)
    run.write_text("labels.txt", "".join(f"{name}\n" for name in names))
    run.write_json("metrics.json", {"classes": names})
    run.finish()
    assert open_run(tmp_path).classes() == names
    assert open_run(tmp_path).metrics() == {"classes": names}


@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_file_is_named(tmp_path, damage):
    finished(tmp_path)
    labels = tmp_path / "labels.txt"
    if damage == "removed":
        labels.unlink()
    else:
        labels.write_text("ant\nbug\n" if damage == "changed" else "ant\n")
    with pytest.raises(RunError, match=r"labels\.txt"):
        open_run(tmp_path)
    with pytest.raises(RunError, match=r"labels\.txt"):
        begin(tmp_path, resume=True)


def test_what_is_no_run_is_not_read(tmp_path):
    with pytest.raises(RunError, match=r"is not a run's folder: it has no settings\.json"):
        open_run(tmp_path)
    for text in ("{}", "[1]", '{"recipe": "x"}'):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(RunError, match=r"its settings\.json is something else"):
            open_run(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"settings\.json can't be read"):
        open_run(tmp_path)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(
        RunError,
        match=(
            "is not empty. Go on with --resume, replace it with --overwrite, "
            "or choose another --out"
        ),
    ):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_overwrite_never_deletes_what_is_no_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.bin").write_bytes(b"weeks of work")
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="is not a run's folder"):
            begin(tmp_path, **options)
    (tmp_path / "settings.json").write_text('{"editor.fontSize": 12}')
    with pytest.raises(RunError, match="something else"):
        begin(tmp_path, overwrite=True)
    assert (tmp_path / "checkpoints" / "mine.bin").read_bytes() == b"weeks of work"


def test_overwrite_replaces_a_run(tmp_path):
    finished(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events").write_text("old")
    run = begin(tmp_path, data="others", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "settings.json"]
    run.finish()
    assert open_run(tmp_path).settings()["data"]["value"] == "others"


def test_overwrite_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(RunError, match="choose one"):
        begin(tmp_path, overwrite=True, resume=True)


@pytest.mark.parametrize("name", ["data", "head", "seed"])
def test_a_run_is_not_resumed_as_another_one(tmp_path, name):
    begin(tmp_path, given=("data", "head", "seed")).close()
    chosen = {"data": "photos", "head": "auto"} | ({name: "other"} if name != "seed" else {})
    with pytest.raises(RunError, match=f"was begun with {name} .*; received"):
        Run(
            tmp_path,
            recipe="frozen",
            options=chosen,
            given=("data", "head", "seed"),
            resume=True,
            seed=int(name == "seed"),
        )
    with pytest.raises(RunError, match="was begun with recipe frozen; received full"):
        Run(tmp_path, recipe="full", resume=True)


def test_what_is_not_given_again_stays_and_what_differs_is_ignored_with_a_line(tmp_path, capsys):
    begin(tmp_path, given=("data", "batch_size"), batch_size=8, seed=0).close()
    run = Run(
        tmp_path,
        recipe="frozen",
        options={"data": "demo", "epochs": 5},
        given=("epochs",),
        resume=True,
    )
    assert run.settings["data"] == {"value": "photos", "origin": "given"}
    assert (run.batch_size, run.settings["epochs"]["value"]) == (8, 20)
    assert capsys.readouterr().out == "--epochs 5 is ignored: the run goes on with 20\n"


def test_derived_sizes_are_derived_again_and_given_ones_stay_given(tmp_path, capsys):
    run = begin(tmp_path)
    run.record(image_size=(224, 224), value_range=(0.0, 1.0))
    run.close()
    again = begin(tmp_path, resume=True, image_size=192, given=("image_size",))
    assert (again.image_size, again.value_range) == (None, None)
    assert "--image-size [192, 192] is ignored" in capsys.readouterr().out
    given = begin(tmp_path / "other", image_size=192, given=("image_size",))
    given.record(image_size=(192, 192))
    assert given.settings["image_size"] == {"value": [192, 192], "origin": "given"}


def test_another_spelling_of_the_same_data_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    begin("r", data="photos").close()
    run = begin("r", data=str(tmp_path / "photos") + "/", resume=True)
    assert run.settings["data"]["value"] == "photos"


def test_changed_content_under_the_same_name_is_refused(tmp_path):
    run = begin(tmp_path)
    run.record(data_fingerprint="abc", backbone_fingerprint="def")
    run.close()
    run = begin(tmp_path, resume=True)
    run.record(backbone_fingerprint="def")
    run.close()
    with pytest.raises(RunError, match="the data has changed since"):
        begin(tmp_path, resume=True).record(data_fingerprint="xyz")


def test_resume_starts_what_is_absent_or_empty_and_leaves_what_is_finished(tmp_path):
    assert not begin(tmp_path / "absent", resume=True).finished
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert not begin(tmp_path / "empty", resume=True).finished
    finished(tmp_path / "whole")
    before = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert begin(tmp_path / "whole", resume=True).finished
    assert {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()} == before


def test_folders_are_numbered_and_resume_goes_on_with_the_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(begin(None).folder) for _ in range(2)] == ["runs/frozen-1", "runs/frozen-2"]
    assert str(Run(None, recipe="elsewhere/mine.py").folder) == "runs/mine-1"


def test_resume_without_a_folder_takes_the_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(None).close()
    begin(None, data="second").close()
    run = begin(None, resume=True, given=())
    assert (str(run.folder), run.settings["data"]["value"]) == ("runs/frozen-2", "second")


def test_two_runs_do_not_share_a_folder(tmp_path):
    run = begin(tmp_path)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match="is being written by another process"):
            begin(tmp_path, **options)
    run.close()
    assert not begin(tmp_path, resume=True).finished


def test_a_path_below_a_regular_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            RunError, match=r"can't be written: Not a directory. Choose another folder with --out\."
        ):
            begin(out)


def test_a_failed_write_leaves_nothing_under_its_name(tmp_path):
    run = begin(tmp_path)
    run.write_text("labels.txt", "old")

    def dies(path):
        with open(path, "w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="can't be written: No space left on device"):
        run.write("labels.txt", dies)
    assert (tmp_path / "labels.txt").read_text() == "old"
    assert (
        sorted(
            path.name
            for path in (tmp_path / "checkpoints").iterdir()
            if path.name.startswith("new-")
        )
        == []
    )


def test_cache_off_keeps_features_in_the_run_until_it_is_finished(tmp_path):
    assert (
        begin(tmp_path / "off", cache="off").cache_folder
        == tmp_path / "off" / "checkpoints" / "cache"
    )
    assert begin(tmp_path / "on", cache=str(tmp_path / "c")).cache_folder == tmp_path / "c"


WRITER = """
import sys, time
from tfxfer.run import Run
run = Run(sys.argv[1], recipe="frozen", options={"data": "photos"}, given=("data",), resume=True)
if run.finished:
    sys.exit()
for i in range(60):
    time.sleep(0.005)
    run.write_text(f"{i}.txt", f"{i}" * 100_000)
run.finish()
"""


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_files(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "killed")]
    for files in (0, 5, 30):
        process = subprocess.Popen(command)
        until = time.monotonic() + 30
        while time.monotonic() < until and len(list((tmp_path / "killed").glob("*.txt"))) < files:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (tmp_path / "killed" / "settings.json").exists() and not (
            tmp_path / "killed" / "manifest.json"
        ).exists():
            with pytest.raises(RunError, match="is not finished"):
                open_run(tmp_path / "killed")
    for name in ("killed", "whole"):
        subprocess.run([*command[:-1], str(tmp_path / name)], check=True)
    killed, whole = (
        {path.name: path.read_bytes() for path in open_run(tmp_path / name).folder.glob("*.txt")}
        for name in ("killed", "whole")
    )
    assert killed == whole
    assert not list((tmp_path / "killed").glob("*new-*"))


# --- a stranger's folder ---


def theirs(folder, **values):
    """A run that was begun elsewhere, with some settings changed.

    The signature of its settings is not one that this user's key makes.
    """
    begin(folder).close()
    settings = json.loads((folder / "settings.json").read_text())
    for name, value in values.items():
        settings[name] = {"value": value, "origin": "given"}
    settings["signature"] = {"value": "0" * 64, "origin": "derived"}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def said(**options):
    """A resumed run as the command line opens it."""
    given = {name: value for name, value in options.items() if name in ("data", "backbone", "head")}
    others = {name: value for name, value in options.items() if name not in given}
    defaults = {"data": "demo", "backbone": "lite", "head": "auto", "epochs": 20}
    return {"options": {**defaults, **given}, "given": {*options}, "recipe": "frozen", **others}


def test_trust_is_never_read_from_a_file(tmp_path):
    Run(tmp_path, recipe="frozen", trust=True).close()
    run = Run(tmp_path, recipe="frozen", resume=True)
    run.close()
    assert not run.trust
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["trust"]["value"] is False
    settings["trust"]["value"] = True
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    run = Run(tmp_path, recipe="frozen", resume=True)
    run.close()
    assert not run.trust
    assert Run(tmp_path, recipe="frozen", resume=True, trust=True, given=("trust",)).trust


@pytest.mark.parametrize(
    "name, value",
    [
        ("backbone", "/tmp/evil model"),
        ("data", "/etc"),
        ("data_dir", "/home/you"),
        ("cache", "/home/you/thesis"),
        ("head", "linear"),
        ("engine", "openvino"),
        ("batch_size", 2**40),
        ("image_size", [8191, 8191]),
        ("value_range", [0, 1]),
        ("seed", {"a": 1}),
        ("epochs", [[[]]]),
        ("skip_bad_images", True),
    ],
)
def test_a_strangers_run_goes_on_only_with_what_is_said(tmp_path, name, value):
    theirs(tmp_path, **{"data": "demo", name: value})
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(RunError) as caught:
        Run(tmp_path, resume=True, **said())
    assert f"--{name.replace('_', '-')} {str(value)[:6]}" in str(caught.value)
    assert f"tfxfer run frozen --out {tmp_path}" in str(caught.value)
    assert (tmp_path / "settings.json").read_bytes() == before


def test_what_the_user_says_again_goes_on_and_is_the_users_from_then_on(tmp_path):
    theirs(tmp_path, data="/photos", backbone="/models/b", cache="off", surprise="x")
    run = Run(tmp_path, resume=True, **said(data="/photos", backbone="/models/b", cache="off"))
    assert run.settings["backbone"] == {"value": "/models/b", "origin": "given"}
    assert "surprise" not in run.settings
    run.close()
    run = Run(tmp_path, resume=True, **said())
    assert (run.settings["data"]["value"], run.cache) == ("/photos", "off")


def test_a_strangers_run_is_not_resumed_by_another_recipe(tmp_path):
    theirs(tmp_path, data="demo")
    with pytest.raises(RunError, match="recipe frozen; received full"):
        Run(tmp_path, resume=True, **{**said(), "recipe": "full"})


def test_a_copy_under_another_path_is_a_strangers(tmp_path):
    begin(tmp_path / "one").close()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "settings.json").write_bytes(
        (tmp_path / "one" / "settings.json").read_bytes()
    )
    with pytest.raises(RunError, match="--data photos"):
        Run(tmp_path / "two", resume=True, **said())
    assert Run(tmp_path / "one", resume=True, **said()).settings["data"]["value"] == "photos"


def test_without_a_key_nothing_is_ours_and_all_else_works(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    begin(tmp_path / "r").close()
    assert "signature" not in json.loads((tmp_path / "r" / "settings.json").read_text())
    with pytest.raises(RunError, match="--data photos"):
        Run(tmp_path / "r", resume=True, **said())
    begin(tmp_path / "r", resume=True).close()


@pytest.mark.parametrize("place", ["checkpoints", "logs", "checkpoints/tuning", "checkpoints/lock"])
def test_a_link_where_a_run_writes_is_refused(tmp_path, place):
    folder = tmp_path / "r"
    begin(folder).close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "new-settings.json").write_text("precious")
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    if place == "checkpoints":
        (folder / "checkpoints").rmdir()
    (folder / place).symlink_to(tmp_path / "mine")
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match=place):
            begin(folder, **how)
    assert (tmp_path / "mine" / "new-settings.json").read_text() == "precious"


# --- a person's files ---


def kept(folder) -> dict:
    """What a person keeps in the folder of a run."""
    files = {
        "notes.txt": b"notes",
        "figures.csv": b"a,b",
        "mine/labels.txt": b"labels",
        "logs/diary.txt": b"diary",
        "checkpoints/mine.bin": b"weeks",
        "checkpoints/new-york.txt": b"city",
        "checkpoints/tuning/batch-32/notes.txt": b"notes",
        "checkpoints/cache/shards/my.npy": b"numbers",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def present(folder, files: dict) -> dict:
    return {name: (folder / name).read_bytes() for name in files if (folder / name).is_file()}


@pytest.mark.parametrize("state", ["finished", "begun", "damaged"])
def test_overwrite_removes_what_the_run_wrote_and_nothing_else(tmp_path, state):
    run = begin(tmp_path)
    run.write_text("labels.txt", "ant\nbee\n")
    run.write_text("own.txt", "of a recipe of one's own")
    state_file = (
        tmp_path / "checkpoints" / "tuning" / "batch-32" / "rate-0" / "state-0000000001.npz"
    )
    state_file.parent.mkdir(parents=True)
    state_file.write_bytes(b"state")
    if state == "finished":
        run.finish()
    run.close()
    files = kept(tmp_path)
    if state == "damaged":
        (tmp_path / "manifest.json").write_text("[")
    again = begin(tmp_path, overwrite=True)
    assert present(tmp_path, files) == files
    assert not (tmp_path / "labels.txt").exists() and not (tmp_path / "own.txt").exists()
    assert not state_file.exists()
    again.write_text("labels.txt", "ant\nbee\n")
    again.finish()
    assert present(tmp_path, files) == files
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sorted(manifest) == ["labels.txt", "settings.json"]


def test_a_run_that_is_given_up_leaves_a_persons_files(tmp_path):
    run = begin(tmp_path)
    files = kept(tmp_path)
    run.abandon()
    assert present(tmp_path, files) == files


@pytest.mark.parametrize(
    "name", ["../victim.txt", "/victim.txt", "link/victim.txt", "a/../../victim.txt", ""]
)
def test_a_manifest_that_leads_outside_deletes_nothing(tmp_path, name):
    folder = tmp_path / "r"
    finished(folder)
    (tmp_path / "victim.txt").write_text("precious")
    (folder / "link").symlink_to(tmp_path)
    name = str(tmp_path) + name if name.startswith("/") else name
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = manifest["labels.txt"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if name != "link/victim.txt":
        with pytest.raises(RunError, match=r"manifest\.json"):
            open_run(folder)
    begin(folder, overwrite=True).finish()
    assert (tmp_path / "victim.txt").read_text() == "precious"
    assert open_run(folder)


def test_a_link_laid_where_a_file_is_written_is_not_followed(tmp_path):
    run = begin(tmp_path / "r")
    (tmp_path / "victim.txt").write_text("precious")
    (tmp_path / "r" / "checkpoints" / "new-labels.txt").symlink_to(tmp_path / "victim.txt")
    run.write_text("labels.txt", "ant\nbee\n")
    assert (tmp_path / "victim.txt").read_text() == "precious"


def test_cells_that_a_spreadsheet_would_run_have_a_quote(tmp_path):
    run = begin(tmp_path)
    rows = [("=1+1", "+a", "-b", "@c"), ("a=b", "'=d", "5", "x")]
    path = run.write_csv("table.csv", ("a", "b", "c", "d"), [*rows, (-1.5, 2, True, "")])
    assert path.read_text().splitlines()[1:] == [
        "'=1+1,'+a,'-b,'@c",
        "a=b,''=d,5,x",
        "-1.5,2,True,",
    ]
    with open(path, newline="") as file:
        read = [tuple(map(csv_text, line)) for line in csv.reader(file)]
    assert read[1:3] == rows


# --- damage ---

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "3",
        '"x"',
        DEEP,
        "{",
        "\x00",
        '{"settings.json": {}}',
        '{"settings.json": 1}',
        '{"settings.json": {"bytes": "9", "sha256": 9}}',
        '{"settings.json": {"bytes": 1e999}}',
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    finished(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json"):
        open_run(tmp_path)
    with pytest.raises(RunError, match=r"manifest\.json"):
        begin(tmp_path, resume=True)


@pytest.mark.parametrize("text", [DEEP, "9" * 5000, "\x00"])
def test_damaged_settings_are_named(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(RunError, match=r"settings\.json"):
        open_run(tmp_path)


@pytest.mark.parametrize("text", ["", "ant\nant\n"])
def test_labels_that_name_no_class_are_refused(tmp_path, text):
    run = begin(tmp_path)
    run.write_text("labels.txt", text)
    run.finish()
    with pytest.raises(RunError, match=r"labels\.txt"):
        open_run(tmp_path).classes()
