"""The pages in docs/: every command of a console block runs, and every Python block.

The pages build, too.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import click
import pytest
import texts
from conftest import crops, jpeg
from loaded import python, tools
from PIL import ImageOps
from savedmodels import save_reusable, tiny_network
from test_beam import TWO

from tfxfer.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
TOOLS = Path(sys.executable).parent


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return re.findall(
        r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def lines(page: str) -> list[str]:
    """Return the calls of tfxfer in console blocks and in sh blocks.

    The tests run console blocks. They have no cluster or server to run sh blocks.
    """
    joined = [
        content.replace("\\\n", " ")
        for language, content in blocks(page)
        if language in ("console", "sh")
    ]
    return [
        line.removeprefix("$ ").strip()
        for content in joined
        for line in content.splitlines()
        if line.removeprefix("$ ").startswith("tfxfer ")
    ]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command of a line, and what follows it."""
    command: click.Command = main
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            found = command.get_command(
                context, words[0] if words[0] not in ("mine.py", "wide.py") else "frozen"
            )
        assert found is not None, words
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page):
    for line in lines(page):
        command, words = command_of(line.split(" -- ")[0].split()[1:])
        options = {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        # --units is an option of the page's own recipe.
        named = {word.split("=")[0] for word in words if word.startswith("--")} - {"--units"}
        assert named <= options, f"{page}: {line}"


def test_every_page_is_in_the_table_of_contents():
    (listed,) = [
        content
        for language, content in re.findall(
            r"^```\{(\w+)\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL
        )
    ]
    assert {f"{name}.md" for name in listed.split()[2:]} | {"index.md"} == set(PAGES)


@pytest.mark.long
def test_the_pages_build_without_a_warning(tmp_path):
    done = subprocess.run(
        [TOOLS / "sphinx-build", "-q", "-W", "--keep-going", DOCS, tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "tfxfer.serving.export_litert" in (tmp_path / "api.html").read_text()


@dataclass(frozen=True)
class Small:
    """Small networks, which start sooner than the default ones.

    of_layers: takes 224 x 224 pixels, as the Keras models on the pages do.
    of_runs: for all that reads photos of any size.
    of_texts: in place of minilm.
    """

    of_layers: str
    of_runs: str
    of_texts: str


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    of_layers = tiny_network(size=224, centred=True)
    of_runs = tiny_network(size=64, widths=(8, 8), centred=True)
    return Small(
        of_layers=save_reusable(of_layers, folder / "layers"),
        of_runs=save_reusable(of_runs, folder / "runs"),
        of_texts=texts.save_network(folder / "texts"),
    )


@pytest.fixture(scope="module")
def mine(tmp_path_factory, photos, small) -> Path:
    """A folder with photos and the run that most pages begin with."""
    folder = tmp_path_factory.mktemp("docs")
    for label, name in (("china", "cats"), ("flower", "dogs")):
        (folder / "photos" / name).mkdir(parents=True)
        for photo in sorted((photos / label).iterdir())[:16]:
            shutil.copy(photo, folder / "photos" / name)
    (folder / "more" / "birds").mkdir(parents=True)
    for i, picture in enumerate(crops("flower.jpg", 12, 9)):
        (folder / "more" / "birds" / f"{i}.jpg").write_bytes(jpeg(ImageOps.invert(picture)))
    done = subprocess.run(
        [
            *[tools() / "tfxfer", "run", "frozen", "--data", "photos/"],
            *["--backbone", small.of_runs, "--out", "mine"],
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


# `.ci/run` runs this on the demo data. Here it takes a few photos.
ON_FEW_PHOTOS = {"tfxfer run frozen --out first": "tfxfer run frozen --data photos/ --out first"}
# The first page of a newcomer runs with the default network. `.ci/run` does that, too.
WITH_THE_DEFAULT = ("index.md",)
DEFAULT = "efficientnet-lite0"
OF_DATA = re.compile(r"tfxfer (run|launch|extract) .*--data (photos(/|\.csv)|notes\.csv)")


DIGITS = "load_digits(n_class=3, return_X_y=True)"
# A test of Beam starts the same two processes.
IN_TWO_PROCESSES = f" -- {' '.join(TWO)}"


def made_quick(script: str, small: Small) -> str:
    """Return the same script with small networks in place of the default ones, and few digits.

    Lines that name another network stay as they are, and so does the page's own recipe wide.py,
    which names its network itself.
    """
    for old, new in (
        (f'Transfer("{DEFAULT}"', f'Transfer("{small.of_runs}"'),
        ("Transfer(task=", f'Transfer("{small.of_runs}", task='),
        ("Transfer()", f'Transfer("{small.of_texts}")'),
        ('Run("linear-digits")', f'Run("linear-digits"), backbone="{small.of_runs}"'),
        (DIGITS, f"(part[:90] for part in {DIGITS})"),
        (f'"{DEFAULT}"', f'"{small.of_layers}"'),
        (f"inspect {DEFAULT}", f"inspect {small.of_runs}"),
        (IN_TWO_PROCESSES, ""),
    ):
        script = script.replace(old, new)
    done = []
    for line in script.splitlines():
        found = OF_DATA.match(line)
        if found and "--backbone" not in line and "wide.py" not in line:
            network = small.of_texts if found[2] == "notes.csv" else small.of_runs
            line = f"{found[0]} --backbone {network}{line[found.end() :]}"
        done.append(line)
    return "\n".join(done)


def scripts(page: str) -> list[tuple[str, str]]:
    """Return what a reader of a page runs: its console blocks and its Python blocks.

    Blocks of one language that follow each other are one program.
    """
    run = [
        (language, content)
        for language, content in blocks(page)
        if language in ("console", "python")
    ]
    return [
        (language, "\n".join(content for _, content in group))
        for language, group in groupby(run, key=itemgetter(0))
    ]


@pytest.mark.long
def test_the_python_of_the_readme_can_be_run(small, tmp_path):
    text = (DOCS.parent / "README.md").read_text("utf-8")
    script = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    script = made_quick(script, small)
    done = subprocess.run([python(), "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"report.html", "MODEL_CARD.md"} <= {
        path.name for path in (tmp_path / "digits").iterdir()
    }


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if scripts(page)])
def test_what_a_page_says_can_be_done(page, mine, small, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(mine, folder)
    if "--out mine\n" in (DOCS / page).read_text():  # the page makes it itself
        shutil.rmtree(folder / "mine")
    path = os.pathsep.join([str(tools()), str(TOOLS), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    for language, script in scripts(page):
        typed = [line.removeprefix("$ ") for line in script.splitlines()]
        commands = "\n".join(ON_FEW_PHOTOS.get(line, line) for line in typed)
        if page not in WITH_THE_DEFAULT:
            commands = made_quick(commands, small)
        words = (
            ["bash", "-euo", "pipefail", "-c", commands]
            if language == "console"
            else [python(), "-c", commands]
        )
        done = subprocess.run(
            words,
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{page}:\n{script}\n{done.stdout}\n{done.stderr}"
