"""The run folder."""

import json
import subprocess
import sys

import pytest

from tfxfer.errors import RunError
from tfxfer.run import Run, open_run


def finished(folder, **options):
    run = Run(folder, recipe="frozen", options={"data": "demo", **options})
    run.write_text("labels.txt", "a\nb\n")
    run.finish()
    return folder


def test_settings_are_there_at_once_with_their_origin(tmp_path):
    run = Run(tmp_path / "r", recipe="frozen", seed=3, options={"data": "photos"}, given=["data"])
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    assert settings["data"] == {"value": "photos", "origin": "given"}
    assert settings["seed"] == {"value": 3, "origin": "default"}
    assert settings["versions"]["origin"] == "derived"
    run.close()


def test_a_finished_run_reads_back(tmp_path):
    assert open_run(finished(tmp_path / "r")).classes() == ["a", "b"]
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_an_unfinished_run_is_not_read(tmp_path):
    Run(tmp_path / "r", recipe="frozen").close()
    with pytest.raises(RunError, match=r"is not finished. Go on with: tfxfer run frozen --out .*r --resume"):
        open_run(tmp_path / "r")


def test_a_changed_file_is_named(tmp_path):
    finished(tmp_path / "r")
    (tmp_path / "r" / "labels.txt").write_text("a\nc\n")
    with pytest.raises(RunError, match=r"labels.txt is not the file that the run wrote"):
        open_run(tmp_path / "r")
    (tmp_path / "r" / "labels.txt").unlink()
    with pytest.raises(RunError, match=r"lacks labels.txt, which its manifest lists"):
        open_run(tmp_path / "r")


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    finished(tmp_path / "r")
    with pytest.raises(RunError, match="is not empty. Go on with --resume, replace it with --overwrite"):
        Run(tmp_path / "r", recipe="frozen")


def test_overwrite_replaces_a_run_but_nothing_else(tmp_path):
    finished(tmp_path / "r")
    Run(tmp_path / "r", recipe="frozen", overwrite=True).close()
    assert not (tmp_path / "r" / "manifest.json").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"is not a run \(found: cat.jpg\); --overwrite replaces runs only"):
        Run(tmp_path / "photos", recipe="frozen", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_resume_of_an_absent_run_starts_it_and_of_a_finished_one_does_nothing(tmp_path):
    run = Run(tmp_path / "r", recipe="frozen", resume=True, options={"data": "demo"})
    assert not run.finished
    run.finish()
    assert Run(tmp_path / "r", recipe="frozen", resume=True, options={"data": "demo"}).finished


@pytest.mark.parametrize(("name", "value"), [("data", "other"), ("head", "ridge"), ("backbone", "vit")])
def test_resume_with_another_choice_that_matters_is_refused(tmp_path, name, value):
    options = {"data": "demo", "head": "auto", "backbone": "efficientnet-lite0"}
    Run(tmp_path / "r", recipe="frozen", options=options).close()
    with pytest.raises(RunError, match=rf"was begun with {name}='{options[name]}'; received '{value}'"):
        Run(tmp_path / "r", recipe="frozen", resume=True, options=options | {name: value})


def test_resume_ignores_other_options_and_says_so(tmp_path, capsys):
    Run(tmp_path / "r", recipe="frozen", batch_size=16).close()
    run = Run(tmp_path / "r", recipe="frozen", resume=True, batch_size=64, given=["batch_size"])
    assert run.batch_size == 16
    assert "--batch-size 64 is ignored: the run goes on with 16" in capsys.readouterr().out
    run.close()


def test_resume_with_other_content_is_refused(tmp_path):
    run = Run(tmp_path / "r", recipe="frozen")
    run.record(data_fingerprint="one")
    run.close()
    run = Run(tmp_path / "r", recipe="frozen", resume=True)
    with pytest.raises(RunError, match="was begun with other data than there is now"):
        run.record(data_fingerprint="two")
    run.close()


def test_two_processes_do_not_write_one_run(tmp_path):
    run = Run(tmp_path / "r", recipe="frozen")
    code = f"from tfxfer.run import Run; Run({str(tmp_path / 'r')!r}, recipe='frozen', resume=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is being written by another process" in done.stderr
    run.close()


def test_an_output_path_below_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run can't be written: Not a directory. Choose another folder with --out"):
        Run(tmp_path / "file" / "run", recipe="frozen")


def test_a_failed_write_leaves_nothing(tmp_path):
    run = Run(tmp_path / "r", recipe="frozen")

    def broken(path):
        with open(path, "w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left on device"):
        run.write("model.keras", broken)
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["checkpoints", "settings.json"]
    run.close()


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        run = Run(recipe="frozen")
        assert str(run.folder) == f"runs/frozen-{number}"
        run.close()


def test_a_wrong_value_range_is_told(tmp_path):
    with pytest.raises(RunError, match="--value-range: expected LOW,HIGH such as 0,1 or -1,1; received 'x'"):
        Run(tmp_path / "r", value_range="x")
