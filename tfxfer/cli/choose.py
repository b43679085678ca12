"""The command that says which network to take."""

from typing import Any, get_args

import click

from tfxfer.cli.start import (
    cache_option,
    check_data,
    check_network,
    data_dir_option,
    label_option,
    load_module,
    start_tensorflow,
    task_option,
    trust_option,
    words_of_labels,
)
from tfxfer.cli.terminal import table, to_stderr
from tfxfer.options import Data
from tfxfer.process.program import command
from tfxfer.safety.names import one_line


@click.command()
@click.option(
    "--data",
    default="demo",
    show_default=True,
    help=get_args(Data)[1],
)
@click.option(
    "--among",
    multiple=True,
    metavar="NETWORK",
    help="Network to try, as for --backbone; can be given several times. By default all that need "
    "no internet.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="After about this many minutes, fit no more classifiers. All networks are tried on a "
    "sample in any case.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Random seed: for the data split, the sample and cross-validation.",
)
@cache_option
@task_option
@label_option
@data_dir_option
@trust_option
def choose(
    data: str,
    among: tuple[str, ...],
    minutes: float | None,
    seed: int,
    cache: str | None,
    task: str,
    labels: tuple[str, ...],
    data_dir: Any,
    trust: bool,
) -> None:
    """Say which pretrained network suits your photos or texts.

    Only training examples are used. Afterwards: tfxfer run frozen --backbone NAME.
    """
    for name in among:
        check_network(name)
    check_data(data, task=task, labels=labels)
    start_tensorflow()
    kept = load_module("cache").Cache(cache or load_module("cache").default_folder())
    where = {"data_dir": data_dir, "cache": kept.folder}
    examples = load_module("data").load(data, seed=seed, task=task, labels=labels, **where)
    steps = load_module("steps")
    choice = steps.choose_network(
        examples,
        among or steps.offline_names(examples.kind_name),
        load_module("features").Extractor(kept),
        seed=seed,
        minutes=minutes,
        trust=trust,
    )
    for name, reason in choice.left_out.items():
        to_stderr(f"{name} was not tried: {one_line(reason)}")
    words = words_of_labels(task, labels)
    then = command("run", "frozen", "--data", data, *words, "--backbone", choice.best.name)
    click.echo(f"{table(choice.rows())}\n\nTake {choice.best.name}: {one_line(then)}")
