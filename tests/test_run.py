"""The run folder: begun at once, whole at the end, resumed and refused as promised."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tfxfer.errors import RunError
from tfxfer.run import Run, open_run


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
    names = [
        "a\u2028b",
        "naïve",
        "caf\udce9",
        "x\x0by",
    ]  # line separators that str.splitlines knows, and a name that is not UTF-8
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
        match="is not empty. Go on with --resume, replace it with --overwrite, or choose another --out",
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
    with pytest.raises(RunError, match="was begun with other data than there is now"):
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
import sys
from tfxfer.run import Run
run = Run(sys.argv[1], recipe="frozen", options={"data": "photos"}, given=("data",), resume=True)
for i in range(60):
    run.write_text(f"{i}.txt", f"{i}" * 100_000)
run.finish()
"""


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
