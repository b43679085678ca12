"""`tfxfer grow`: make a larger run from a finished one, with more classes or examples."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tfxfer.cli.start import (
    batch_size_option,
    cache_option,
    check_data,
    check_order,
    data_dir_option,
    load_module,
    skip_option,
    start_tensorflow,
    trust_option,
)
from tfxfer.safety.names import one_line


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("given", metavar="[DATA]", required=False)
@click.option(
    "--data",
    help="New labelled examples: folder of class folders, .zip or .tar of one, .csv of path and "
    "label, or tfds:NAME. One class is enough.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the grown run; by default a new one, runs/frozen-<number>.",
)
@click.option(
    "--overwrite", is_flag=True, help="If --out holds another run, delete that one first."
)
@skip_option
@cache_option
@data_dir_option
@batch_size_option
@trust_option
def grow(folder: Path, given: str | None, data: str | None, **options: Any) -> None:
    """Make a larger run from a finished one: add classes or examples.

    RUN is the folder of a finished run of the recipe frozen; it stays as it is. The grown run is
    what a run on all examples would be, with the same kind of classifier. It needs the old examples
    or their cached features, unless RUN was made with --head gaussian or ridge.
    """
    if (given is None) == (data is None):
        raise click.UsageError("Expected the new data once: tfxfer grow RUN --data new/.")
    source = str(given or data)
    check_order(folder, (source,), "tfxfer grow RUN --data new/")
    load_module("run").open_run(folder)
    check_data(source, judging=True)
    start_tensorflow()
    command = shlex.join(["tfxfer", *sys.argv[1:]])
    grown = load_module("growth").grow(folder, source, command=command, **options)
    click.echo(f"Grown: {one_line(str(grown.folder))}")
