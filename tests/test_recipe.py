"""Recipes: found by name or path by one loader, copied, and their parameters as options."""

import ast
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from click.testing import CliRunner

import tfxfer
from tfxfer import recipe as decorator
from tfxfer.errors import RecipeError
from tfxfer.recipe import RECIPES, copy, find, names, options
from tfxfer.run import Run


@pytest.fixture
def page(tmp_path):
    def write(body: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(f"import tfxfer\n\n\n{body}")
        return path

    return write


def test_the_public_name_is_the_decorator_however_the_room_was_imported():
    assert tfxfer.recipe is decorator and callable(tfxfer.recipe)


def test_every_built_in_recipe_is_a_short_page_that_imports_only_tfxfer():
    assert "frozen" in names()
    for name in names():
        text = (RECIPES / f"{name}.py").read_text()
        imported = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        found = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in imported
            for alias in node.names
        }
        assert found <= {"tfxfer", "typing", "pathlib"}, name
        assert len(text.splitlines()) <= 45, name
        assert find(name).__name__ == name


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(
        RecipeError,
        match=(
            r"there is no recipe 'frozn'. Did you mean frozen\? There are frozen.*, "
            "or the path of a file"
        ),
    ):
        find("frozn")


def test_a_page_without_a_recipe_is_said(page):
    with pytest.raises(
        RecipeError, match=r"mine.py has 0 functions marked @tfxfer.recipe; expected one"
    ):
        find(str(page("def f(run): ...")))
    with pytest.raises(RecipeError, match="has 2 functions"):
        find(str(page("@tfxfer.recipe\ndef f(run): ...\n@tfxfer.recipe\ndef g(run): ...")))


def test_a_page_that_fails_names_file_and_line(page):
    with pytest.raises(RecipeError, match=r"mine.py, line 5: ZeroDivisionError: division by zero"):
        find(str(page("x = 1\n1 / 0\n")))
    with pytest.raises(RecipeError, match=r"mine.py, line 4: SyntaxError"):
        find(str(page("def f(:\n")))
    with pytest.raises(
        RecipeError, match=r"mine.py, line 4: ModuleNotFoundError: No module named 'nowhere'"
    ):
        find(str(page("import nowhere\n")))


def test_what_is_no_python_file_is_said(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for path in (tmp_path, tmp_path / "photo.jpg"):
        with pytest.raises(RecipeError, match="is not a Python file"):
            find(str(path))


def test_a_copy_is_the_same_page_and_is_never_written_over_another(tmp_path):
    copy("frozen", tmp_path / "mine.py")
    assert (tmp_path / "mine.py").read_bytes() == (RECIPES / "frozen.py").read_bytes()
    assert find(str(tmp_path / "mine.py")).__name__ == "frozen"
    with pytest.raises(RecipeError, match="exists. Choose another name"):
        copy("frozen", tmp_path / "mine.py")
    with pytest.raises(RecipeError, match="can't be written: No such file or directory"):
        copy("frozen", tmp_path / "nowhere" / "mine.py")
    with pytest.raises(RecipeError, match="is a file of yours already"):
        copy(str(tmp_path / "mine.py"), tmp_path / "other.py")


def answered(function, *args):
    seen = {}
    command = click.Command(
        "it", params=options(function), callback=lambda **values: seen.update(values)
    )
    result = CliRunner().invoke(command, args)
    return result.exit_code, seen, result.output


def example(
    run,
    *,
    needed: Annotated[str, "Must be there."],
    size: Annotated[int, "At least 1.", range(1, 100)] = 3,
    rate: Annotated[float | None, "None: found."] = None,
    kind: Annotated[Literal["a", "b"], "One of two."] = "a",
    fast: Annotated[bool, "Or slow."] = False,
    to: Annotated[Path | None, "A file."] = None,
    between: Annotated[tuple[float, float], "Two numbers."] = (0.0, 1.0),
): ...


def test_keyword_only_arguments_are_options():
    code, seen, _ = answered(example, "--needed", "x")
    assert code == 0
    assert seen == {
        "needed": "x",
        "size": 3,
        "rate": None,
        "kind": "a",
        "fast": False,
        "to": None,
        "between": (0.0, 1.0),
    }
    args = [
        "--needed",
        "x",
        "--size",
        "7",
        "--rate",
        ".5",
        "--kind",
        "b",
        "--fast",
        "--to",
        "f",
        "--between",
        "-1,1",
    ]
    _, seen, _ = answered(example, *args)
    assert seen == {
        "needed": "x",
        "size": 7,
        "rate": 0.5,
        "kind": "b",
        "fast": True,
        "to": Path("f"),
        "between": (-1.0, 1.0),
    }


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("", "Missing option '--needed'"),
        ("--needed x --size 0", "0 is not in the range 1<=x<=99"),
        ("--needed x --kind c", "'c' is not one of 'a', 'b'"),
        ("--needed x --between 1", "expected LOW,HIGH such as 0,1 or -1,1; received '1'"),
        ("--needed x --between 1,0", "expected LOW,HIGH"),
        ("--needed x --between 0,nan", "expected LOW,HIGH"),
        ("--needed x --siez 1", "Did you mean '--size'?"),
    ],
)
def test_wrong_options_are_usage_errors(args, text):
    code, _, output = answered(example, *args.split())
    assert code == 2 and text in output


def test_help_shows_text_choices_and_defaults():
    _, _, output = answered(example, "--help")
    for text in ("Must be there.", "[required]", "[a|b]", "default: 3", "--fast / --no-fast"):
        assert text in output


def test_an_argument_that_can_not_be_an_option_is_said():
    def bare(run, *, size: int = 3): ...

    def odd(run, *, size: Annotated[dict, "No."] = {}): ...  # noqa: B006

    with pytest.raises(RecipeError, match="size of bare has no help: write it as size: Annotated"):
        options(bare)
    with pytest.raises(
        RecipeError,
        match=(
            r"--size: options are int, float, str, bool, Path, tuple\[float, float\], "
            r"tuple\[str, ...\] or Literal; found <class 'dict'>"
        ),
    ):
        options(odd)


def test_a_recipe_called_from_python_notes_its_options(tmp_path):
    @tfxfer.recipe
    def mine(
        run, *, data: Annotated[str, "Which."] = "demo", epochs: Annotated[int, "How many."] = 20
    ):
        return data, epochs

    run = Run(tmp_path)
    assert mine(run, epochs=3) == ("demo", 3)
    assert run.settings["data"] == {"value": "demo", "origin": "default"}
    assert run.settings["epochs"] == {"value": 3, "origin": "given"}
