"""`tfxfer run`: train a model with a recipe."""

import os
import shlex
import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

from tfxfer.cli.start import check_backend, check_data, check_network, load_module, start_tensorflow
from tfxfer.errors import TfxferError
from tfxfer.safety.names import one_line

SEVERAL_DEVICES = ("strategy", "replicas", "global_batch", "data_service")


class Recipes(click.Group):
    """`tfxfer run RECIPE`: a command for each recipe, made from its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the built-in recipes."""
        return load_module("recipe").names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """Make the command of a built-in recipe, or of one in a file."""
        recipe = load_module("recipe")
        function = recipe.find(name)
        shared = [
            *recipe.options(load_module("run").Place),
            *recipe.options(load_module("run").Common),
        ]
        names = {option.name for option in shared}
        own = recipe.options(function)
        if taken := names & {option.name for option in own}:
            raise load_module("errors").RecipeError(
                f"{name} has an option {', '.join(sorted(taken))}, which every recipe has already. "
                "Choose another name."
            )

        takes_data = any(option.name == "data" for option in own)
        place = [click.Argument(["positional"], required=False, metavar="[DATA]")]

        @click.pass_context
        def callback(context: click.Context, positional: str | None = None, **values: Any) -> None:
            if positional is not None:
                values["data"] = data_by_position(context, positional, values["data"])
            execute(context, function, name, values=values)

        doc = cleandoc(function.__doc__ or "")
        page = cleandoc(sys.modules[function.__module__].__doc__ or "")
        text = "\n\n".join(
            f"\b\n{part}" if part.startswith(" ") else part for part in [doc, *page.split("\n\n")]
        )
        return Recipe(
            name,
            own=own,
            params=[*(place if takes_data else []), *own, *shared],
            callback=callback,
            help=text,
            short_help=doc.split("\n")[0],
        )


class Recipe(click.Command):
    """The command of a recipe.

    Its help lists the recipe's own options first, then those that every recipe has.
    """

    def __init__(self, *args: Any, own: list[click.Option], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.own = own

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write three lists of options; those for several devices come last."""
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        several = [option for option in options if option.name in SEVERAL_DEVICES]
        rest = [option for option in options if option not in several]
        for title, options in (
            ("Options of this recipe", [option for option in rest if option in self.own]),
            ("Options of every recipe", [option for option in rest if option not in self.own]),
            ("Several devices", several),
        ):
            if rows := [row for option in options if (row := option.get_help_record(ctx))]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def data_by_position(context: click.Context, positional: str, data: str) -> str:
    """Take `tfxfer run frozen photos/` as `tfxfer run frozen --data photos/`."""
    given = context.get_parameter_source("data")
    if given is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError(
            f"The data is given twice, as {positional} and as --data {data}. Give it once.", context
        )
    context.set_parameter_source("data", click.core.ParameterSource.COMMANDLINE)
    return positional


def execute(context: click.Context, function: Any, name: str, values: dict[str, Any]) -> None:
    """Open the run folder and hand it to the recipe."""
    check_backend()
    mine = {option.name: option for option in load_module("recipe").options(function)}
    given = [
        key
        for key in values
        if context.get_parameter_source(key) not in (click.core.ParameterSource.DEFAULT, None)
    ]
    shared = {key: value for key, value in values.items() if key not in mine}
    if any(variable in os.environ for variable in load_module("run").CLUSTERS):
        start_tensorflow()  # the run asks it for its place among the workers
    run = load_module("run").Run(
        recipe=name, options={key: values[key] for key in mine}, given=given, **shared
    )
    try:
        click.echo(f"Run folder: {one_line(str(run.folder))}")
        if (started := run.before.get("started")) and not run.finished:
            click.echo(
                f"Continuing the run that was started at {started['value']}. "
                "Finished work is not repeated."
            )
        if run.workers == 1 and not run.finished and name in load_module("recipe").names():
            check_network(run.settings["backbone"]["value"])
            check_data(run.settings["data"]["value"], task=run.common.task, labels=run.common.label)
        if run.workers > 1 or not run.finished:
            start_tensorflow()
            run.start()
            load_module("distribute.preemption").listen()
        if run.finished:
            click.echo(f"The run is finished. {one_line(run.how_to_predict())}")
            return
        run.record(command=shlex.join(["tfxfer", *sys.argv[1:]]))
        # Layers draw their seeds when they are made.
        load_module("heads.layers").keras.utils.set_random_seed(run.seed)
        # A resumed run uses its own settings, which come from JSON.
        function(
            run,
            **{
                key: option.type_cast_value(context, run.settings[key]["value"])
                for key, option in mine.items()
            },
        )
        run.meet()
    except KeyboardInterrupt:
        click.echo(f"\nStopped.{how_to_go_on(name, run.folder)}", err=True)
        context.exit(130)
    except load_module("distribute.preemption").Preempted as error:
        click.echo(f"{error}.{how_to_go_on(name, run.folder)}", err=True)
        context.exit(143)
    except TfxferError:
        run.abandon()
        raise
    except Exception as error:
        if run.workers == 1 or not load_module("distribute.devices").is_loss(error):
            run.abandon()
            raise
        raise TfxferError(
            f"another one of the {run.workers} workers is gone (its own log says why). Start all "
            "of them again with --resume."
        ) from error
    finally:
        run.close()


def how_to_go_on(recipe: str, folder: Path) -> str:
    """Return the command that resumes a run; "" in a worker, whose launcher prints it."""
    return (
        ""
        if load_module("distribute.launch").ENV in os.environ
        else f" Go on with: {load_module('run').again(recipe, folder)}"
    )


@click.group(cls=Recipes, subcommand_metavar="RECIPE [OPTIONS]")
def run() -> None:
    """Train a model with a recipe.

    A recipe is a Python file with one function. Three are built in; start with frozen.

    \b
    tfxfer run frozen --data photos/       train on your photos
    tfxfer run frozen --help               what the recipe does, and its options
    tfxfer copy frozen mine.py             copy the recipe to a file of your own
    tfxfer run mine.py --data photos/      train with your own recipe
    """
