"""A recipe is a function: positional is what the house hands in, keyword-only is what the user chooses."""

import difflib
import importlib
import importlib.util
import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from tfxfer.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


def recipe(function: Callable) -> Callable:
    """Mark a function of a `Run` as a recipe, for `tfxfer run`."""
    function.is_recipe = True  # type: ignore[attr-defined]
    return function


def names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.py") if not path.stem.startswith("_"))


def find(name: str) -> Callable:
    """The recipe of a built-in name, or of a Python file; one loader for both.

    Raises:
        RecipeError: there is none, or its file can't be loaded.
    """
    path = RECIPES / f"{name}.py" if name in names() else Path(name).expanduser()
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1)
        raise RecipeError(f"there is no recipe {name!r}. " + (f"Did you mean {near[0]}? " if near else "") + f"There are {', '.join(names())}, or the path of a file.")
    spec = importlib.util.spec_from_file_location(f"tfxfer.recipes.{path.stem}" if path.parent == RECIPES else f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path} is not a Python file; expected one with a function marked @tfxfer.recipe.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and dataclasses of the recipe look it up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = next((f.lineno for f in reversed(inspect.getinnerframes(error.__traceback__)) if f.filename == str(path)), None) if error.__traceback__ else None
        raise RecipeError(f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}") from error
    found = [value for value in vars(module).values() if getattr(value, "is_recipe", False)]
    if len(found) != 1:
        raise RecipeError(f"{path} has {len(found)} functions marked @tfxfer.recipe; expected one.")
    return found[0]


def copy(name: str, to: Path) -> None:
    """Put a built-in recipe's page where the user can change it.

    Raises:
        RecipeError: no such recipe, or the file exists.
    """
    find(name)
    if name not in names():
        raise RecipeError(f"{name} is a file of yours already; expected the name of a built-in recipe: {', '.join(names())}.")
    if to.exists():
        raise RecipeError(f"{to} exists. Choose another name, or remove it.")
    try:
        shutil.copyfile(RECIPES / f"{name}.py", to)
    except OSError as error:
        raise RecipeError(f"{to} can't be written: {error.strerror}.") from error


def options(function: Callable) -> list[click.Option]:
    """A click option for each annotated parameter: `Annotated` is its help, `Literal` its choices, a bool `--x/--no-x`."""
    hints = get_type_hints(function, include_extras=True)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if get_origin(hint) is not Annotated or parameter.name == "self":
            continue
        inner, text = get_args(hint)[:2]
        found.append(option(parameter.name, inner, parameter.default, text))
    return found


def option(name: str, kind: Any, default: Any, text: str) -> click.Option:
    flag = "--" + name.replace("_", "-")
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not NoneType)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=default, help=text, show_default=True)
    if get_origin(kind) is Literal:
        return click.Option([flag], type=click.Choice(get_args(kind)), default=default, help=text, show_default=True)
    kinds = {int: click.INT, float: click.FLOAT, str: click.STRING, Path: click.Path(path_type=Path)}
    if kind not in kinds:
        raise RecipeError(f"{flag}: options are int, float, str, bool, Path or Literal; found {kind}.")
    # click 8.5 takes a required option with a default of None for an optional one.
    required = {"required": True} if default is inspect.Parameter.empty else {"default": default, "show_default": default is not None}
    return click.Option([flag], type=kinds[kind], help=text, **required)
