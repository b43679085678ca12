"""The command line: each command reads its options and calls a function of another module.

start      loads TensorFlow when a command needs it, and has the options that commands share
terminal   what is printed, and where
run        train a model with a recipe
use        predict, evaluate, export, report, compare
choose     which network to take
grow       make a larger run from a finished one
explore    what features alone show: next, similar, features
look       what there is: backbones, recipes, devices, the cache
many       several processes and machines
"""

import difflib
import io
import sys
from typing import Any

import click

from tfxfer.cli import explore, look, many, use
from tfxfer.cli.choose import choose
from tfxfer.cli.grow import grow
from tfxfer.cli.run import run
from tfxfer.cli.terminal import one_line_usage_errors, steps_on_stderr
from tfxfer.errors import TfxferError
from tfxfer.safety.names import Terminal

COMMANDS = (
    run,
    choose,
    use.predict,
    use.evaluate,
    use.export,
    use.report,
    use.compare,
    grow,
    explore.next_labels,
    explore.similar,
    explore.features,
    look.backbones,
    look.inspect,
    look.recipes,
    look.copy,
    look.devices,
    look.cache,
    many.launch,
    many.extract,
)


class Commands(click.Group):
    """A group of commands whose errors are printed as one line.

    The error for an unknown command names the nearest one.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; characters that a terminal obeys or can't show are printed escaped."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
            if stream is not None and not isinstance(stream, Terminal):
                setattr(sys, name, Terminal(stream))
        return super().main(*args, **kwargs)

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **kwargs: Any
    ) -> click.Context:
        """Read the options before the name of the command.

        Raises:
            click.UsageError: an argument is empty, such as a shell variable that is not set. As a
                path it would mean the current folder.
        """
        with one_line_usage_errors():
            for before, word in zip(["tfxfer", *args], args, strict=False):
                if word == "--":
                    break  # what follows is for other programs
                option, given, value = word.partition("=")
                if not word or (word.startswith("--") and given and not value):
                    raise click.UsageError(
                        f"the argument after {option or before} is empty. Is a shell variable not "
                        "set?"
                    )
            return super().make_context(info_name, args, *more, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print a TfxferError as one line, and exit with status 1."""
        try:
            with one_line_usage_errors(), steps_on_stderr():
                return super().invoke(ctx)
        except TfxferError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("\nStopped.", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command; the error for an unknown one names the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if hint := how_to_run(args[0]):
                raise click.UsageError(f"{error.message} {hint}", ctx) from error
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near and near[0] not in error.message:
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from error
            raise


def how_to_run(word: str) -> str:
    """Return what to type, for a word that is a command of other tools; "" for other words."""
    if word in ("train", "fit", "learn"):
        return "Training is tfxfer run frozen --data photos/, or another recipe: tfxfer recipes."
    if word in ("frozen", "partial", "full"):
        return f"It is a recipe: tfxfer run {word} --data photos/."
    return ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfxfer")
def main() -> None:
    """Train a classifier from your photos or texts and a pretrained network.

    \b
    tfxfer run frozen                      try it on the demo data
    tfxfer run frozen --data photos/       your own photos, a folder for each class
    tfxfer predict runs/frozen-1 new.jpg   use the result
    """


for command in COMMANDS:
    main.add_command(command)
