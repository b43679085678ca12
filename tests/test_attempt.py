"""Optional parts of a run: where one fails, a line says so, and the run finishes."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from tfxfer.distribute.preemption import Preempted
from tfxfer.errors import RunError
from tfxfer.recipe import find
from tfxfer.run import Run, open_run
from tfxfer.run.attempt import FILE, attempt, failures, optional, several
from tfxfer.steps.tune_network import board


def fail(error: BaseException):
    def make():
        raise error

    return make


@pytest.mark.parametrize(
    "error",
    [
        OSError(2, "No such file", "a\x1b.jpg"),
        ValueError("bad"),
        KeyError("label"),
        IndexError(7),
        RunError("damaged"),
        MemoryError(),
        RecursionError(),
    ],
)
def test_a_failure_keeps_its_kind_its_reason_and_its_traceback(error, tmp_path, capsys):
    run = Run(tmp_path / "run")
    assert optional(run, "The map", fail(error)) is None
    (kept,) = json.loads((run.folder / FILE).read_text())
    kind = type(error).__name__
    assert kept["what"] == "The map" and kept["why"].startswith(kind) and "\x1b" not in str(kept)
    assert "test_attempt.py" in "".join(kept["traceback"])
    assert failures(run.folder) == [f"The map could not be made: {kept['why']}"]
    assert failures(run.folder)[0] in capsys.readouterr().out


@pytest.mark.parametrize("error", [Preempted("stopped"), KeyboardInterrupt(), SystemExit(3)])
def test_who_stops_the_process_stops_it(error):
    with pytest.raises(type(error)):
        attempt("The map", fail(error))


def test_a_part_that_is_made_in_a_resumed_run_is_no_failure_any_more(tmp_path):
    run = Run(tmp_path / "run")
    optional(run, "The map", fail(ValueError("first")))
    optional(run, "The card", fail(ValueError("second")))
    assert optional(run, "The map", lambda: 5) == 5
    assert [line.split(" could")[0] for line in failures(run.folder)] == ["The card"]


def test_of_many_small_parts_one_line_counts_those_that_fail(tmp_path):
    run = Run(tmp_path / "run")
    makers = {i: fail(OSError(f"{i}.jpg")) if i % 3 else (lambda i=i: i * i) for i in range(9)}
    assert several(run, "The thumbnails", makers) == {0: 0, 3: 9, 6: 36}
    (line,) = failures(run.folder)
    assert "6 of 9" in line and "1.jpg" in line


def test_nothing_is_written_where_all_is_well(tmp_path):
    run = Run(tmp_path / "run")
    assert optional(run, "The map", lambda: 5) == 5 and several(run, "All", {1: int}) == {1: 0}
    assert not (run.folder / FILE).exists() and failures(run.folder) == []


def test_a_folder_that_can_not_be_written_still_stops_the_run(tmp_path):
    run = Run(tmp_path / "run")
    (run.folder / "checkpoints" / f"new-{FILE}").mkdir()
    with pytest.raises(RunError, match="run"):
        optional(run, "The map", fail(ValueError("bad")))


@pytest.mark.parametrize(
    "text", ["", "{", "5", "[5]", '["a"]', '{"a": 1}', '[{"what": "x"}]', "[[]]"]
)
def test_a_damaged_list_of_failures_is_named(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=FILE):
        failures(tmp_path)


def test_curves_that_tensorboard_can_not_get_do_not_stop_the_training(tmp_path):
    run = Run(tmp_path / "run")
    (run.folder / "logs").write_text("a file where the folder should be")
    show = board(run)
    for epoch in (1, 2):
        show(epoch, {"loss": 0.5})
    (line,) = failures(run.folder)
    assert "TensorBoard" in line


class Careless(Run):
    """A run whose photos are deleted or changed while it goes on."""

    photos: Path
    stage: str

    @contextmanager
    def timed(self, what):
        if what == self.stage:
            self.spoil()
        with super().timed(what):
            yield

    def spoil(self) -> None:
        for i, path in enumerate(sorted(self.photos.rglob("*.jpg"))):
            if i % 2:
                path.unlink()
            else:
                path.write_bytes(b"no photo any more")


@pytest.mark.long
@pytest.mark.parametrize("skip", [True, False])
def test_photos_that_vanish_after_the_head_do_not_stop_the_run(
    skip, photos, tiny_savedmodel, tmp_path
):
    run = Careless(tmp_path / "run", cache=str(tmp_path / "cache"), skip_bad_images=skip)
    run.photos, run.stage = Path(shutil.copytree(photos, tmp_path / "photos")), "baselines"
    find("frozen")(run, data=str(run.photos), backbone=tiny_savedmodel)
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {FILE, "manifest.json", "model.keras", "metrics.json", "predictions.csv"}
    assert names >= {"report.html", "report.json", "MODEL_CARD.md", "review.json"}
    metrics = open_run(run.folder).metrics()
    assert metrics["test"] and metrics["baselines"]["last_layer_logistic"]
    assert metrics["baselines"]["raw_pixels"] is None
    lines = failures(run.folder)
    missing = ("raw pixels", "look broken", "hang on", "thumbnails")
    assert len(lines) == len(missing)
    assert all(any(part in line for line in lines) for part in missing)
    for name in ("report.html", "report.json", "MODEL_CARD.md"):
        assert "thumbnails could not be made" in (run.folder / name).read_text(), name
    assert json.loads((run.folder / "review.json").read_text())["map"]
