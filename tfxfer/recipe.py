"""Find and load recipes: functions of a run, whose keyword-only arguments are the options."""

import difflib
import functools
import importlib.util
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from tfxfer.errors import RecipeError
from tfxfer.files import replaced

RECIPES = Path(__file__).parent / "recipes"


def recipe(function: Callable) -> Callable:
    """Mark a function of a `Run` as a recipe, for `tfxfer run`.

    Called from Python, the recipe does what the command line does: it notes its options in the
    run's settings, sets the random seed, unlocks the folder at the end, and removes the folder if
    the recipe fails before it has saved anything.
    """

    @functools.wraps(function)
    def called(run: Any, **chosen: Any) -> Any:
        defaults = {
            name: p.default
            for name, p in inspect.signature(function).parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }
        run.choose(defaults | chosen, chosen)
        if not run.begun_in_python():
            run.start()
            return function(run, **chosen)
        if run.finished:
            run.say(f"The run is finished. {run.how_to_predict()}")
            return None
        try:
            run.start()
            run.note_call(
                name_of(function), chosen, module=function.__module__, function=function.__name__
            )
            set_seed(run.seed)
            return function(run, **chosen)
        except Exception:
            run.abandon()
            raise
        finally:
            run.close()

    called.is_recipe = True  # type: ignore[attr-defined]
    return called


def name_of(function: Callable) -> str:
    """Return the name by which `tfxfer run` finds a recipe, or the path of its file."""
    file = Path(inspect.getsourcefile(function) or "")
    if file.parent.name == RECIPES.name and function.__module__ == f"tfxfer.recipes.{file.stem}":
        return file.stem
    return str(file) if file.is_file() else function.__name__


def set_seed(seed: int) -> None:
    """Set the random seed, from which layers draw their own seeds when they are made.

    Keras is imported only here, where a recipe needs it.
    """
    importlib.import_module("keras").utils.set_random_seed(seed)


def names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.py") if not path.stem.startswith("_"))


def find(name: str) -> Callable:
    """Return the recipe of a built-in name, or of a Python file; both are loaded the same way.

    Raises:
        RecipeError: there is no such recipe, or its file can't be loaded.
    """
    path = RECIPES / f"{name}.py" if name in names() else Path(name).expanduser()
    if path.is_dir() or (path.suffix != ".py" and path.exists()):
        raise RecipeError(
            f"{path} is not a Python file; expected one with a function marked @tfxfer.recipe."
        )
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1)
        raise RecipeError(
            f"there is no recipe {name!r}. "
            + (f"Did you mean {near[0]}? " if near else "")
            + f"There are {', '.join(names())}, or the path of a file."
        )
    module = load(
        path, f"tfxfer.recipes.{path.stem}" if path.parent == RECIPES else f"recipe_{path.stem}"
    )
    recipes = [value for value in vars(module).values() if getattr(value, "is_recipe", False)]
    if len(recipes) != 1:
        raise RecipeError(
            f"{path} has {len(recipes)} functions marked @tfxfer.recipe; expected one."
        )
    return recipes[0]


def load(path: Path, name: str) -> ModuleType:
    """Run a recipe's file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle and dataclasses of the recipe look the module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        line = (
            error.lineno
            if isinstance(error, SyntaxError) and error.filename == str(path)
            else lines[-1]
            if lines
            else None
        )
        raise RecipeError(
            f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}"
        ) from error
    return module


def copy(name: str, to: Path) -> None:
    """Copy a built-in recipe to a file that the user can change.

    Raises:
        RecipeError: there is no such recipe, or the file exists.
    """
    find(name)
    if name not in names():
        raise RecipeError(
            f"{name} is a file of yours already; expected the name of a built-in recipe: "
            f"{', '.join(names())}."
        )
    if os.path.lexists(to):
        raise RecipeError(f"{to} exists. Choose another name, or remove it.")
    try:
        with replaced(to) as file:
            file.write((RECIPES / f"{name}.py").read_bytes())
    except OSError as error:
        raise RecipeError(f"{to} can't be written: {error.strerror}.") from error


def options(function: Callable) -> list[click.Option]:
    """Make a click option for each annotated parameter of a function.

    `Annotated` holds the help and, optionally, limits: a range of whole numbers, or (low, high)
    between which a number must be. `Literal` gives the choices; a bool becomes `--x/--no-x`.
    """
    hints = get_type_hints(function, include_extras=True)
    click_options = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if get_origin(hint) is Annotated:
            kind, *help_and_limits = get_args(hint)
            click_options.append(option(parameter.name, kind, parameter.default, *help_and_limits))
        elif parameter.kind is parameter.KEYWORD_ONLY:
            raise RecipeError(
                f"{parameter.name} of {function.__name__} has no help: write it as "
                f'{parameter.name}: Annotated[type, "help"].'
            )
    return click_options


def option(
    name: str, kind: Any, default: Any, text: str, limits: range | tuple[float, float] | None = None
) -> click.Option:
    """Make one option; see `options`."""
    flag = "--" + name.replace("_", "-")
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not NoneType)
    # click 8.5 treats a required option with a default of None as optional.
    shown = (
        {"required": True}
        if default is inspect.Parameter.empty
        else {"default": default, "show_default": default is not None and default is not False}
    )
    if kind == tuple[str, ...]:
        return click.Option([flag], type=click.STRING, multiple=True, help=text, **shown)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], help=text, **shown)
    kinds: dict[Any, Any] = {
        int: click.INT,
        float: click.FLOAT,
        str: click.STRING,
        Path: click.Path(path_type=Path),
        tuple[float, float]: Pair(),
    }
    if get_origin(kind) is Literal:
        kinds[kind] = click.Choice(get_args(kind))
    elif isinstance(limits, tuple):
        kinds[kind] = Between(*limits)
    elif limits is not None:
        kinds[kind] = click.IntRange(limits.start, limits.stop - 1)
    if kind not in kinds:
        raise RecipeError(
            f"{flag}: options are int, float, str, bool, Path, tuple[float, float], "
            "tuple[str, ...] or Literal; "
            f"found {kind}."
        )
    return click.Option([flag], type=kinds[kind], help=text, **shown)


class Between(click.ParamType):
    """A number above `low` and below `high`."""

    name = "number"

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert a text or a number."""
        number = click.FLOAT.convert(value, param, ctx)
        if not self.low < number < self.high:
            self.fail(
                f"expected a number above {self.low:g} and below {self.high:g}; received {value}.",
                param,
                ctx,
            )
        return number


class Pair(click.ParamType):
    """LOW,HIGH as two numbers."""

    name = "LOW,HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Convert a text or two numbers."""
        try:
            low, high = (
                float(part) for part in (value.split(",") if isinstance(value, str) else value)
            )
        except ValueError:
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            self.fail(f"expected LOW,HIGH such as 0,1 or -1,1; received {value!r}.", param, ctx)
        return low, high
