"""Commands that use features alone: features, similar, next."""

import csv
import sys
from pathlib import Path
from typing import Any

import click

from tfxfer.cli.start import (
    batch_size_option,
    cache_option,
    check_data,
    check_network,
    check_order,
    data_dir_option,
    label_option,
    load_module,
    skip_option,
    start_tensorflow,
    task_option,
    trust_option,
)
from tfxfer.cli.terminal import as_it_is_for_programs, to_stderr
from tfxfer.errors import TfxferError
from tfxfer.safety.names import csv_cell, one_line


@click.command()
@click.argument("data", default="demo")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    help="File for the features: .parquet (columns file, split, label, vector) or .npz.",
)
@click.option(
    "--backbone",
    help="Pretrained network, as for tfxfer run; by default efficientnet-lite0 for photos and "
    "minilm for texts.",
)
@cache_option
@skip_option
@task_option
@label_option
@data_dir_option
@batch_size_option
@trust_option
def features(data: str, to: Path, backbone: str | None, cache: str | None, **options: Any) -> None:
    """Write the network's features of labelled examples to a file.

    DATA is a folder of class folders, a table, or another source, as for tfxfer run.
    """
    said = {name: options[name] for name in ("task", "labels")}
    check_network(backbone)
    check_data(data, **said)
    start_tensorflow()
    kept = load_module("cache").Cache(cache or load_module("cache").default_folder())
    where = {name: options[name] for name in ("data_dir", "skip_bad_images")}
    examples = load_module("data").load(data, cache=kept.folder, **where, **said)
    network = load_module("backbone").Backbone(
        backbone or examples.kind.NETWORK, trainable=False, trust=options["trust"]
    )
    load_module("steps.extraction").check_kind(examples, network)
    extract = load_module("features").Extractor(kept, batch_size=options["batch_size"])
    load_module("heads.ranges").settle(network, examples, extract, seed=0)
    vectors = extract(examples, network.prefix(1), skip_bad_images=options["skip_bad_images"])
    count = load_module("explore").write_vectors(vectors, to)
    to_stderr(f"{count:,} vectors of {vectors.output.shape[1]:,} numbers -> {one_line(str(to))}")


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE")
@click.argument("among", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Number of examples to list.",
)
@batch_size_option
@trust_option
def similar(folder: Path, file: str, among: tuple[str, ...], count: int, **options: Any) -> None:
    """List the photos or texts that are most like a given one.

    RUN is the folder of a finished run, whose network is used. FILE is a photo or a text; PATH is
    another one, or a folder of them. The similarity is 1 for two that the network can't tell apart.
    """
    check_order(folder, (file, *among), "tfxfer similar RUN photo.jpg photos/")
    start_tensorflow()
    neighbours = load_module("explore").find_alike(
        folder, [file], among, count=count, progress=True, **options
    )
    with as_it_is_for_programs():
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("file", "similarity"))
        writer.writerows((csv_cell(one.like), f"{one.similarity:.6f}") for one in neighbours)


@click.command("next")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Number of examples to list.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="CSV file with empty columns for the labels; by default it is printed.",
)
@click.option("--page", type=click.Path(path_type=Path), help="HTML page that shows each example.")
@batch_size_option
@trust_option
def next_labels(
    folder: Path, paths: tuple[str, ...], to: Path | None, page: Path | None, **options: Any
) -> None:
    """Say which unlabelled examples to label next.

    RUN is the folder of a finished run. PATH is a photo or a text, a folder of them, or a .csv or
    .tsv table of texts. Those that teach the model most come first: those where it is unsure
    between two answers, or that look unlike every class. Of examples that are nearly the same, only
    one is listed.
    """
    check_order(folder, paths, "tfxfer next RUN photos/")
    run = load_module("run").open_run(folder)
    start_tensorflow()
    for target in filter(None, (to, page)):
        load_module("serving").check_target(target, paths, folder)
    explore = load_module("explore")
    picks = explore.pick_next(folder, paths, progress=True, **options)
    try:
        with as_it_is_for_programs():
            explore.write_picks(picks, to, run.task().label_columns(run.classes()))
        if page is not None:
            explore.write_gallery(picks, page, run.kind())
    except OSError as error:
        raise TfxferError(
            f"{error.filename or to or page} can't be written: {error.strerror or error}."
        ) from error
    if to is not None:
        to_stderr(f"{len(picks):,} {run.kind().MANY} -> {one_line(str(to))}")
    if page is not None:
        to_stderr(f"Look at {one_line(str(page))}")
