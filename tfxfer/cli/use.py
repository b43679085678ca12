"""Commands that use a finished run: predict, evaluate, export, report, compare."""

import importlib.util
from pathlib import Path
from typing import Any

import click

from tfxfer.cli.start import (
    batch_size_option,
    check_data,
    check_order,
    data_dir_option,
    load_module,
    start_tensorflow,
    trust_option,
)
from tfxfer.cli.terminal import as_it_is_for_programs, table, to_stderr
from tfxfer.errors import MissingExtraError
from tfxfer.safety.names import json_text, one_line

FORMATS = ("csv", "json", "jsonl", "parquet", "xlsx")  # of what `predict --to` writes
# Endings of other formats, for which CSV would be a surprise.
NOT_WRITTEN = frozenset(
    "xls xlsb xlsm ods tsv doc docx odt pdf htm html xml npy npz pickle pkl gz bz2 xz zip".split()
)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of classes to list for each example, the most probable first.",
)
@click.option(
    "--sets",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also give, for each example, a short list of classes that contains the right one in this "
    "share of examples, such as 0.9.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="Also flag examples that seem to belong to no class. About 1 in 20 ordinary ones is "
    "flagged by mistake.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Output format; by default from the file name in --to, otherwise csv.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="File for the answers: .csv, .json, .jsonl, .parquet or .xlsx; by default they are "
    "printed.",
)
@batch_size_option
@trust_option
def predict(
    folder: Path, paths: tuple[str, ...], form: str | None, to: Path | None, **options: Any
) -> None:
    """Predict the classes, labels or numbers of photos or texts.

    RUN is the folder of a finished run, or of an export of it. PATH is a photo or a text, a folder
    of them, or a .csv or .tsv table of texts or of names of files. The answers keep the columns of
    a table.
    """
    form = form or form_of(to)
    check_order(folder, paths, "tfxfer predict RUN photo.jpg")
    if form in ("parquet", "xlsx") and to is None:
        raise click.UsageError(f"--format {form} needs --to FILE.")
    files: Any = paths
    # What is wrong with a path is said before TensorFlow starts.
    if not folder.exists():
        load_module("run").open_run(folder)
    if Path(folder, "settings.json").is_file():
        kind = load_module("run").Finished(folder).kind()
        files = load_module("data").find_unlabelled(paths, kind)
        load_module("data").check_any(files, kind)
    start_tensorflow()
    serving = load_module("serving")
    inputs = paths if files is paths else (*paths, *files.files)  # a table names further files
    serving.check_target(to, inputs, folder)
    rows = serving.predict(folder, files, **options, progress=True)
    with as_it_is_for_programs():
        count = serving.write(rows, form, to)
    if to is not None:
        to_stderr(f"{count:,} {'answer' if count == 1 else 'answers'} -> {to}")


def form_of(to: Path | None) -> str:
    """Return the format that the ending of a file's name stands for."""
    ending = to.suffix.lower().removeprefix(".") if to else ""
    if ending in NOT_WRITTEN:
        raise click.UsageError(
            f"--to {to}: .{ending} can't be written. Expected .csv, .json, .jsonl, .parquet or "
            ".xlsx; for any other ending CSV is written."
        )
    return ending if ending in FORMATS else "csv"


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("given", metavar="[DATA]", required=False)
@click.option(
    "--data",
    help="Labelled photos or texts: folder of class folders, .zip or .tar of one, .csv of path and "
    "label, tfds:NAME, or demo.",
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
    help="Also write a file with the label and the answer for each example: .csv, .json, .jsonl, "
    ".parquet or .xlsx.",
)
@data_dir_option
@batch_size_option
@trust_option
def evaluate(
    folder: Path, given: str | None, data: str | None, form: str, to: Path | None, **options: Any
) -> None:
    """Measure the accuracy on other labelled examples.

    RUN is the folder of a finished run. Give the data as DATA or with --data.
    """
    if (given is None) == (data is None):
        raise click.UsageError("Expected the labelled data once: tfxfer evaluate RUN photos/.")
    source, kind = str(given or data), form_of(to)
    if not Path(folder, "settings.json").is_file() and Path(source, "settings.json").is_file():
        raise click.UsageError("The run comes first: tfxfer evaluate RUN photos/.")
    own = load_module("run").open_run(folder).settings().get("data", {}).get("value")
    if not load_module("run").same(own, source):
        check_data(source, judging=True)
    start_tensorflow()
    serving = load_module("serving")
    judged = serving.judge(folder, source, **options, progress=True)
    if to is not None:
        serving.check_target(to, [source, *judged.paths], folder)
        serving.write(judged.predictions(), kind, to)
    if form == "json":
        click.echo(json_text(judged.figures()))
        return
    rows = judged.class_rows()
    click.echo(f"{judged.headline()}\n\n{table(rows)}\n" if rows else judged.headline())
    for line in judged.notes():
        click.echo(one_line(line))


@click.command()
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
    help="Refuse to export if the accuracy is below this, such as 0.9. It is that on the test "
    "examples or, without any, on the held-out ones.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "null"]),
    help="For savedmodel. null: return an empty answer for an unreadable example. error, the "
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
    savedmodel   for TensorFlow Serving; takes image files or texts, returns classes and scores
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
    load_module("run").open_run(folder)
    if form == "litert" and importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingExtraError("A LiteRT file", "litert")
    start_tensorflow()
    serving = load_module("serving")
    write = {
        "savedmodel": serving.export,
        "litert": serving.export_litert,
        "reusable": serving.export_reusable,
    }[form]
    click.echo(f"Exported to {one_line(str(write(folder, to, **options)))}")


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the report page again.

    The files are report.html, report.json and MODEL_CARD.md in RUN, the folder of a finished run.
    """
    load_module("run").open_run(folder)
    click.echo(f"Report: {one_line(str(load_module('report').write_again(folder)))}")


@click.command()
@click.argument(
    "folders", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
def compare(folders: tuple[Path, ...]) -> None:
    """Compare finished runs, example by example.

    RUN is the folder of a finished run. Only test examples that all of them have are compared.
    """
    *rows, (count, *_) = load_module("report").compare_runs(folders)
    click.echo(
        f"{table(rows)}\n\nOn {count}. Differences are measured example by example, with their "
        "95 % interval in parentheses."
    )
