"""Commands that a user is told to type, in the words that started tfxfer."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = "from tfxfer.process.program import command; print(command('predict', 'my run'))"


def told(script: Path) -> str:
    """What a program at this path tells the user to type."""
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(CODE)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_program_on_the_path_is_told_by_its_name(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "tfxfer"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert told(script) == "tfxfer predict 'my run'"


@pytest.mark.parametrize("other_on_the_path", [False, True])
def test_a_program_elsewhere_is_told_with_its_place(other_on_the_path, tmp_path, monkeypatch):
    if other_on_the_path:
        (tmp_path / "tfxfer").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    script = tmp_path / ".venv" / "bin" / "tfxfer"
    assert told(script) == f"{script} predict 'my run'"


def test_a_module_is_told_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told(tmp_path / "tfxfer" / "__main__.py") == (
        f"{sys.executable} -m tfxfer predict 'my run'"
    )


def test_a_notebook_is_told_the_plain_name(tmp_path):
    assert told(tmp_path / "notebook.py") == "tfxfer predict 'my run'"
