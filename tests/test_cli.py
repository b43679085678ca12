"""The command line, as a user types it."""

import contextlib
import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from loaded import python

from tfxfer import serving
from tfxfer.cli import main
from tfxfer.cli.terminal import as_it_is_for_programs
from tfxfer.safety.names import Terminal, printable


def tfxfer(*words, cwd=None, code=0) -> Result:
    """Run a command in this process."""
    words, before = [str(word) for word in words], sys.argv
    with contextlib.chdir(cwd or "."):
        sys.argv = ["tfxfer", *words]
        try:
            done = CliRunner().invoke(main, words, prog_name="tfxfer", catch_exceptions=False)
        finally:
            sys.argv = before
    assert done.exit_code == code, done.output
    return done


def in_a_process(
    *words, cwd=None, code=0, program=sys.executable, **environment
) -> subprocess.CompletedProcess:
    """Run a command in a process of its own, for what only that shows: noise, signals, start-up."""
    done = subprocess.run(
        [program, "-m", "tfxfer", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(photos, tiny_savedmodel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = in_a_process(
        "run", "frozen", "--data", photos, "--backbone", tiny_savedmodel, "--out", folder
    )
    assert done.stdout.startswith(f"Run folder: {folder}\n")
    assert done.stdout.endswith(f" -m tfxfer predict {folder} photo.jpg\n")
    assert "Traceback" not in done.stderr and "oneDNN" not in done.stderr
    return folder


@pytest.mark.long
def test_a_report_and_a_comparison_need_no_tensorflow(finished):
    code = (
        "import sys\n"
        "from tfxfer.cli import main\n"
        "main(['report', sys.argv[1]], standalone_mode=False)\n"
        "main(['compare', sys.argv[1], sys.argv[1]], standalone_mode=False)\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, str(finished)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.long
def test_a_run_ends_in_a_whole_folder(finished):
    names = {p.name for p in finished.iterdir()}
    assert names >= {
        "settings.json",
        "labels.txt",
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "model.keras",
        "probabilities.npz",
        "report.html",
        "report.json",
        "review.json",
        "thumbnails.zip",
        "label_errors.csv",
        "doubt.npz",
        "MODEL_CARD.md",
        "manifest.json",
    }
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == {"test", "validation", "baselines", "sets", "unknown"}
    assert set(metrics["baselines"]) == {
        "majority",
        "raw_pixels",
        "last_layer_logistic",
    }
    assert {"accuracy", "balanced_accuracy", "low", "high", "n", "classes"} <= set(metrics["test"])


NAMES_ALONE = """
import sys
from tfxfer.cli import main
code = main(sys.argv[1:], standalone_mode=False)
print(code, "tensorflow" in sys.modules)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ("run", "frozen", "--data", "wrong.csv"),
        ("run", "full", "--data", "missing"),
        ("run", "partial", "--data", "empty"),
        ("run", "frozen", "--data", "photos", "--backbone", "efficientnet_lite0"),
        ("run", "frozen", "--data", "photos", "--backbone", "keras:MobileNetV9"),
        ("predict", "nowhere", "nowhere.jpg"),
        ("predict", "run", "text.jpg"),
        ("predict", "run", "missing.jpg"),
        ("predict", "run", "empty"),
        ("evaluate", "run", "wrong.csv"),
        ("evaluate", "run", "missing"),
    ],
    ids=" ".join,
)
def test_wrong_names_are_told_before_tensorflow_is_loaded(finished, tmp_path, words):
    (tmp_path / "wrong.csv").write_text("pfad;etikett\na.jpg;cat\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("a text and no photo")
    (tmp_path / "run").symlink_to(finished)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", NAMES_ALONE, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split()[-2:] == ["1", "False"], done.stdout + done.stderr
    named = words[-1].split(".")[0].removeprefix("keras:")
    assert named in done.stderr or "no photo" in done.stderr
    assert sorted(path for path in tmp_path.iterdir() if path.name != "runs") == before


@pytest.mark.long
def test_steps_are_told_beside_the_answer(finished, photos):
    photo = next(photos.rglob("*.jpg"))
    done = in_a_process("predict", finished, photo)
    steps = done.stderr.splitlines()
    assert len(steps) >= 3 and "TensorFlow" in steps[0] and len(set(steps)) == len(steps)
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.long
def test_in_python_steps_are_logged_and_not_printed(finished, photos, capfd, caplog):
    with caplog.at_level("INFO", "tfxfer"):
        list(serving.predict(finished, [next(photos.rglob("*.jpg"))]))
    assert {record.name for record in caplog.records} >= {
        "tfxfer.serving.model",
        "tfxfer.serving.predict",
    }
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
def test_predictions_csv_agrees_with_predict(finished, photos, tmp_path):
    with open(finished / "predictions.csv") as file:
        expected = {
            Path(row["file"]).name: row for row in csv.DictReader(file) if row["split"] == "test"
        }
    tfxfer("predict", finished, photos, "--to", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8-sig") as file:
        found = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert expected
    for name, row in expected.items():
        assert found[name]["predicted"] == row["predicted"]
        assert float(found[name]["probability"]) == pytest.approx(
            float(row["probability"]), abs=1e-4
        )


@pytest.mark.long
def test_the_difference_of_an_engine_is_printed(photos, tiny_savedmodel, tmp_path):
    done = tfxfer(
        "run",
        "frozen",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--engine",
        "openvino",
        "--out",
        tmp_path / "run",
    )
    said = re.search(r"openvino and of TensorFlow.* differ by at most (\S+) on", done.stdout)
    assert said and 0 < float(said[1]) < 1e-2
    assert (
        f"differed from them by at most {said[1]}"
        in tfxfer("export", tmp_path / "run", tmp_path / "serving").stderr
    )


@pytest.mark.long
def test_evaluate_prints_the_figures_as_json(finished, photos):
    done = tfxfer("evaluate", finished, "--data", photos, "--format", "json")
    found = json.loads(done.stdout)
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
    assert set(found["classes"]) == {"china", "flower"}


@pytest.mark.long
def test_evaluate_prints_a_table_and_writes_each_answer(finished, photos, tmp_path):
    done = tfxfer("evaluate", finished, photos, "--to", tmp_path / "answers.csv")
    with open(tmp_path / "answers.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert f"accuracy {right / len(rows):.3f}," in done.stdout
    assert f"n = {len(rows)}" in done.stdout
    for name in ("china", "flower"):
        count = sum(row["label"] == name for row in rows)
        assert re.search(rf"^{name} +{count} +[01]\.\d{{3}} ", done.stdout, re.MULTILINE)
    assert not re.search(r"\d\.\d{4}", done.stdout)


@pytest.mark.long
def test_evaluate_never_writes_over_a_photo_that_it_judges(finished, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    photo = next(folder.rglob("*.jpg"))
    before = photo.read_bytes()
    done = tfxfer("evaluate", finished, folder, "--to", photo, code=1)
    assert photo.name in done.stderr and photo.read_bytes() == before


@pytest.mark.long
def test_evaluate_says_that_the_run_comes_first(finished, photos):
    assert "The run comes first" in tfxfer("evaluate", photos, finished, code=2).stderr


@pytest.mark.long
def test_evaluate_asks_for_photos_that_are_not_named(finished):
    assert "tfxfer evaluate RUN photos/" in tfxfer("evaluate", finished, code=2).stderr


@pytest.mark.long
def test_two_runs_with_one_seed_give_the_same_bytes(finished, photos, tiny_savedmodel, tmp_path):
    folders = (finished, tmp_path / "second")
    words = ("--data", photos, "--backbone", tiny_savedmodel, "--out", folders[1])
    # It hashes otherwise than the first one, so nothing may depend on the order of a set.
    in_a_process("run", "frozen", *words, "--cache", "off", program=python())
    for name in ("metrics.json", "predictions.csv", "labels.txt"):
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name
    first, second = (np.load(folder / "probabilities.npz")["probabilities"] for folder in folders)
    np.testing.assert_array_equal(first, second)


@pytest.mark.long
@pytest.mark.parametrize("head", ["mlp", "ridge"])
def test_other_heads_and_a_copied_recipe(head, photos, tiny_savedmodel, tmp_path):
    tfxfer("copy", "frozen", "mine.py", cwd=tmp_path)
    tfxfer(
        "run",
        "mine.py",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--head",
        head,
        "--epochs",
        2,
        "--mirror",
        "yes",
        cwd=tmp_path,
    )
    assert (tmp_path / "runs" / "mine-1" / "manifest.json").exists()
    history = (tmp_path / "runs" / "mine-1" / "history.csv").read_text().splitlines()
    assert len(history) == (3 if head == "mlp" else 1)


@pytest.mark.long
def test_resume_of_a_finished_run_does_nothing(finished, photos, tiny_savedmodel):
    before = (finished / "manifest.json").stat().st_mtime_ns
    done = tfxfer(
        "run",
        "frozen",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--out",
        finished,
        "--resume",
    )
    assert (
        "run is finished" in done.stdout
        and (finished / "manifest.json").stat().st_mtime_ns == before
    )


@pytest.mark.long
def test_backbones_recipes_inspect_and_cache_print_tables(tiny_savedmodel, finished):
    assert "efficientnet-lite0" in tfxfer("backbones").stdout
    assert "frozen" in tfxfer("recipes").stdout
    stages = tfxfer("inspect", tiny_savedmodel).stdout
    assert "block1" in stages and "fine-tuning yes" in stages
    assert "tensorflow float32" in tfxfer("cache").stdout


def test_an_unknown_option_names_the_nearest():
    assert "--backbone" in tfxfer("run", "frozen", "--backbon", "x", code=2).stderr


@pytest.mark.long
def test_ctrl_c_leaves_a_run_that_resumes_and_says_how(photos, tiny_savedmodel, tmp_path):
    page = tmp_path / "slow.py"
    page.write_text(
        "import tfxfer\n\n\n@tfxfer.recipe\ndef slow(run):\n"
        "    run.write_text('part.txt', 'x')\n    if not run.before:\n        import time\n"
        "        print('now', flush=True)\n        time.sleep(60)\n    run.finish()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tfxfer", "run", page, "--out", tmp_path / "r", "--seed", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.stdout.readline() != "now\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith(f" -m tfxfer run {page} --out {tmp_path / 'r'} --resume")
    in_a_process(*said.split(" -m tfxfer ")[1].split())
    assert json.loads((tmp_path / "r" / "settings.json").read_text())["seed"] == {
        "value": 5,
        "origin": "given",
    }
    assert (tmp_path / "r" / "manifest.json").exists()


@pytest.mark.long
def test_a_resumed_run_may_not_be_another_one(finished, photos, tmp_path):
    for words in (
        ("--data", tmp_path),
        ("--backbone", "efficientnet-lite1"),
        ("--head", "ridge"),
        ("--seed", "1"),
    ):
        done = tfxfer("run", "frozen", "--out", finished, "--resume", *words, code=1)
        assert (
            f"was begun with {words[0][2:]} " in done.stderr and len(done.stderr.splitlines()) == 1
        )
    assert (
        "--batch-size 7 is ignored"
        in tfxfer("run", "frozen", "--out", finished, "--resume", "--batch-size", 7).stdout
    )


@pytest.mark.long
def test_a_gaussian_head_leaves_its_means_and_precision(photos, tiny_savedmodel, tmp_path):
    tfxfer(
        "run",
        "frozen",
        "--data",
        photos,
        "--backbone",
        tiny_savedmodel,
        "--head",
        "gaussian",
        "--mirror",
        "yes",
        "--out",
        tmp_path / "r",
    )
    with np.load(tmp_path / "r" / "gaussian.npz") as found:
        width = int(found["widths"].sum())
        assert found["means"].shape == (2, width) and found["P"].shape == (width, width)


@pytest.mark.long
def test_a_name_that_the_terminal_can_not_show_is_escaped(photos, tmp_path):
    folder = tmp_path / "photos"
    for label in ("naïve", "b"):
        shutil.copytree(photos / "china", folder / label)
    done = in_a_process(
        "run",
        "frozen",
        "--data",
        folder,
        "--backbone",
        tmp_path / "no-such-thing",
        "--out",
        tmp_path / "r",
        code=1,
        PYTHONIOENCODING="ascii",
    )
    assert "na\\xefve" in done.stdout


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "frozen", "--help"), ("recipes",), ("backbones",)]
)
def test_help_loads_nothing_heavy(words):
    code = (
        f"import sys; from tfxfer.cli import main; main({words!r}, standalone_mode=False); "
        "print(*sys.modules)"
    )
    loaded = {
        name.split(".")[0]
        for name in subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    }
    assert "tfxfer" in loaded and not loaded & {
        "tensorflow",
        "keras",
        "sklearn",
        "scipy",
        "matplotlib",
        "tensorflow_hub",
        "h5py",
        "jinja2",
    }


@pytest.mark.long
def test_help_is_quick():
    def cpu_time() -> float:
        """CPU seconds of all processes that were started and have ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def seconds(*command) -> float:
        times = []
        for _ in range(5):
            before = cpu_time()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(cpu_time() - before)
        return min(times)

    assert seconds("-m", "tfxfer", "--help") <= 3 * seconds("-c", "import click")


def test_an_unknown_command_names_the_nearest():
    assert "Did you mean predict?" in tfxfer("predicct", code=2).stderr


def test_an_error_is_one_line_on_stderr(tmp_path):
    done = tfxfer("run", "frozen", "--data", tmp_path / "nothing", "--out", tmp_path / "r", code=1)
    assert (
        done.stderr.startswith("Error: ")
        and len(done.stderr.splitlines()) == 1
        and "does not exist" in done.stderr
    )


def test_another_keras_backend_is_told(tmp_path):
    assert (
        "KERAS_BACKEND is jax"
        in in_a_process(
            "run", "frozen", "--out", tmp_path / "r", code=1, KERAS_BACKEND="jax"
        ).stderr
    )


@pytest.mark.long
def test_an_undecodable_photo_stops_the_run_with_its_path_unless_skipped(
    photos, tiny_savedmodel, tmp_path
):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "china" / "text.jpg").write_text("not a photo")
    done = tfxfer(
        "run",
        "frozen",
        "--data",
        folder,
        "--backbone",
        tiny_savedmodel,
        "--out",
        tmp_path / "r",
        code=1,
    )
    assert "text.jpg" in done.stderr and "--skip-bad-images" in done.stderr
    done = tfxfer(
        "run",
        "frozen",
        "--data",
        folder,
        "--backbone",
        tiny_savedmodel,
        "--out",
        tmp_path / "r2",
        "--skip-bad-images",
    )
    assert "text.jpg" in done.stdout + done.stderr


@pytest.mark.long
def test_the_model_is_an_ordinary_keras_model(finished):
    model = keras.models.load_model(finished / "model.keras")
    assert model.input_shape == (None, 32, 32, 3) and model.output_shape == (None, 2)
    assert tf.nn.softmax(model(tf.zeros((1, 32, 32, 3)))).shape == (1, 2)


@pytest.mark.long
def test_a_trusted_run_can_be_used_with_trust_alone(photos, tmp_path):
    (tmp_path / "one").write_bytes(b"1.0")
    root, one = tf.train.Checkpoint(), str(tmp_path / "one")
    spec = tf.TensorSpec((None, 32, 32, 3), tf.float32)
    root.__call__ = tf.function(
        lambda x: tf.reduce_mean(x, [1, 2]) * tf.strings.to_number(tf.io.read_file(one)),
        input_signature=[spec],
    )
    tf.saved_model.save(root, str(tmp_path / "m"))
    assert (
        "holds ReadFile"
        in tfxfer(
            "run",
            "frozen",
            "--data",
            photos,
            "--backbone",
            tmp_path / "m",
            "--out",
            tmp_path / "r0",
            code=1,
        ).stderr
    )
    tfxfer(
        "run",
        "frozen",
        "--data",
        photos,
        "--backbone",
        tmp_path / "m",
        "--trust",
        "--out",
        tmp_path / "r",
    )
    assert "--trust" in tfxfer("predict", tmp_path / "r", photos, code=1).stderr
    assert tfxfer("predict", tmp_path / "r", photos, "--trust").stdout.startswith(
        "file,predicted,probability"
    )


@pytest.mark.parametrize(
    "option", [("--learning-rate", "0"), ("--learning-rate", "nan"), ("--time-limit", "-5")]
)
def test_numbers_that_make_no_sense_are_refused_at_once(option):
    said = tfxfer("run", "full", *option, code=2).stderr
    assert "expected a number above 0 and below" in said and f"received {option[1]}" in said


@pytest.mark.long
def test_a_recipe_of_the_user_that_fails_at_once_leaves_no_folder(tmp_path):
    page = tmp_path / "mine.py"
    page.write_text("import tfxfer\n\n\n@tfxfer.recipe\ndef mine(run):\n    lod('photos')\n")
    words = ("run", "mine.py", "--out", "r")
    said = in_a_process(*words, cwd=tmp_path, code=1, program=python()).stderr
    assert "NameError" in said and "line 6" in said
    assert not (tmp_path / "r").exists()


@pytest.mark.long
def test_a_recipe_of_the_user_that_fails_later_keeps_what_it_saved(tmp_path):
    page = tmp_path / "mine.py"
    page.write_text(
        "import tfxfer\n\n\n@tfxfer.recipe\ndef mine(run):\n"
        "    run.write_text('part.txt', 'x')\n    lod('photos')\n"
    )
    words = ("run", "mine.py", "--out", "r")
    done = in_a_process(*words, cwd=tmp_path, code=1, program=python())
    assert "NameError" in done.stderr
    assert (tmp_path / "r" / "part.txt").read_text() == "x"


@pytest.mark.long
def test_a_folder_with_blanks_is_quoted_in_the_next_command(photos, tiny_savedmodel, tmp_path):
    words = ["run", "frozen", "--data", photos, "--backbone", tiny_savedmodel]
    done = in_a_process(*words, "--out", "my run", cwd=tmp_path, program=python())
    assert done.stdout.splitlines()[-1].endswith(" -m tfxfer predict 'my run' photo.jpg")
    assert done.stdout.count("Run folder:") == 1
    settings = json.loads((tmp_path / "my run" / "settings.json").read_text())
    assert settings["epochs"]["value"] is None


def test_a_refused_run_leaves_no_folder(tmp_path):
    tfxfer("run", "frozen", "--data", tmp_path / "nothing", cwd=tmp_path, code=1)
    assert not list((tmp_path / "runs").iterdir())


EVIL = "a\x1b[2Jb\x07\u202ec\nError: all is well\rz"


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", EVIL),
        (f"--{EVIL}",),
        (EVIL,),
        ("run", EVIL),
        ("run", "frozen", f"--{EVIL}"),
        ("run", "frozen", "--seed", EVIL),
        ("run", "frozen", "--head", EVIL),
        ("predict", EVIL, EVIL),
        ("evaluate", EVIL, "--data", EVIL),
        ("export", EVIL, EVIL),
        ("report", EVIL),
        ("compare", EVIL, EVIL),
        ("copy", EVIL, EVIL),
        ("launch", "--workers", "2", "--", EVIL),
        ("cache", "--cache", EVIL),
    ],
)
def test_names_never_reach_the_terminal_raw(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # main replaces it
    with pytest.raises(SystemExit):
        main(words)
    out, err = capsys.readouterr()
    assert out + err and printable(out + err) == out + err
    assert sum(line.startswith("Error:") for line in (out + err).splitlines()) <= 1


@pytest.mark.parametrize("shown", [True, False])
def test_answers_keep_every_character_but_on_a_terminal(shown, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return shown

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", Terminal(screen))
    with as_it_is_for_programs():
        print("a\x1b[2J", file=sys.stdout)
    print("b\x1b[2J", file=sys.stdout)
    assert (
        screen.getvalue()
        == f"{'a' + printable(chr(27)) if shown else 'a' + chr(27)}[2J\nb\\x1b[2J\n"
    )


@pytest.mark.parametrize(
    "words",
    [("run", "frozen", "--data", ""), ("run", "frozen", "--data="), ("export", "run", "")],
    ids=" ".join,
)
def test_a_shell_variable_that_was_not_set_is_told(words, tmp_path):
    assert words[-1].strip("=") or words[-2] in tfxfer(*words, cwd=tmp_path, code=2).output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.docx", "out.tsv", "out.csv.gz"])
def test_a_format_that_is_not_written_is_told(name, photos, tmp_path):
    words = ("predict", "run", photos, "--to", tmp_path / name)
    assert name in tfxfer(*words, code=2).output and not (tmp_path / name).exists()
