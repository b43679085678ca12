"""Recipes: found by name or path, copied, their options."""

from pathlib import Path
from typing import Annotated, Literal

import click
import pytest

from tfxfer import recipe
from tfxfer.errors import RecipeError


def write(path: Path, body: str) -> Path:
    path.write_text(f"import tfxfer\n\n\n{body}")
    return path


def test_a_name_and_a_path_find_the_same_recipe(tmp_path):
    recipe.copy("frozen", tmp_path / "mine.py")
    assert recipe.find("frozen").__name__ == recipe.find(str(tmp_path / "mine.py")).__name__ == "frozen"


def test_a_recipe_is_one_page():
    for name in recipe.names():
        assert len((recipe.RECIPES / f"{name}.py").read_text().splitlines()) <= 80, name


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(RecipeError, match="there is no recipe 'frozn'. Did you mean frozen"):
        recipe.find("frozn")


def test_a_file_without_a_recipe_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"has 0 functions marked @tfxfer.recipe; expected one"):
        recipe.find(str(write(tmp_path / "mine.py", "x = 1\n")))


def test_an_error_in_a_file_names_its_line(tmp_path):
    with pytest.raises(RecipeError, match=r"mine.py, line 4: ZeroDivisionError"):
        recipe.find(str(write(tmp_path / "mine.py", "x = 1 / 0\n")))


def test_copy_does_not_overwrite(tmp_path):
    (tmp_path / "mine.py").write_text("mine")
    with pytest.raises(RecipeError, match="exists. Choose another name"):
        recipe.copy("frozen", tmp_path / "mine.py")


def test_keyword_only_arguments_are_the_options():
    def function(run, *, rate: Annotated[float, "Rate."] = 0.1, mirror: Annotated[bool, "Both."] = False, head: Annotated[Literal["a", "b"], "Head."] = "a",
                 size: Annotated[int | None, "Size."] = None, data: Annotated[str, "Data."]):  # fmt: skip
        pass

    command = click.Command("c", params=recipe.options(function), callback=lambda **values: values)
    assert command.main(["--data", "x", "--mirror", "--head", "b"], standalone_mode=False) == {"rate": 0.1, "mirror": True, "head": "b", "size": None, "data": "x"}
    with pytest.raises(click.MissingParameter):
        command.main([], standalone_mode=False)
