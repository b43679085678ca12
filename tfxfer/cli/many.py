"""Commands for several processes and machines: launch, extract."""

from pathlib import Path
from typing import Any

import click

from tfxfer.cli.start import (
    batch_size_option,
    check_network,
    data_dir_option,
    label_option,
    load_module,
    skip_option,
    start_tensorflow,
    task_option,
    trust_option,
    words_of_labels,
)
from tfxfer.process.program import command
from tfxfer.process.quiet import quiet
from tfxfer.recipe import Pair
from tfxfer.safety.names import one_line

RUNNERS = ["DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"]


@click.command(context_settings={"ignore_unknown_options": True})
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
    ctx.exit(load_module("distribute.launch").launch(arguments, workers, open_ports))


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--data",
    required=True,
    help="Photos or texts: folder of class folders, .csv of path and label, tfds:NAME, or demo. "
    "Every machine must be able to read them.",
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
    help="Folder where all machines can write, for files that they exchange; it may begin with "
    "gs://. By default it is in --to.",
)
@click.option(
    "--backbone",
    help="Pretrained network: name (see tfxfer backbones), folder, archive or URL of a SavedModel; "
    "by default efficientnet-lite0 for photos and minilm for texts.",
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
    help="Also compute the features of each photo's mirror image; a run needs them if there are at "
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
@task_option
@label_option
@skip_option
@trust_option
@click.argument("arguments", metavar="[-- BEAM OPTION ...]", nargs=-1, type=click.UNPROCESSED)
def extract(
    data: str,
    to: Path,
    backbone: str | None,
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
    check_network(backbone)
    start_tensorflow()
    with quiet():  # Beam warns of cloud packages that nobody needs here
        beam = load_module("beam")
    where = {name: options[name] for name in ("data_dir", "skip_bad_images", "task", "labels")}
    examples = load_module("data").load(data, cache=to, **where)
    network = load_module("backbone").Backbone(
        backbone or examples.kind.NETWORK,
        trainable=False,
        image_size=image_size,
        value_range=value_range,
        trust=trust,
    )
    load_module("steps.extraction").check_kind(examples, network)
    kept = load_module("cache").Cache(to)
    here = load_module("features").Extractor(
        kept, options["engine"], engine_precision, options["batch_size"]
    )
    load_module("heads.ranges").settle(network, examples, here, seed=0)
    prefix = network.prefix(len(network.stages) if taps else None)
    data_dir, task, labels = (options.pop(name) for name in ("data_dir", "task", "labels"))
    where_again = beam.Where(
        data_dir=None if data_dir is None else str(data_dir), task=task, labels=labels
    )
    count = beam.extract(
        examples, prefix, cache=kept, precision=engine_precision, where=where_again, **options
    )
    words = words_of_labels(task, labels)
    given = {
        "--backbone": backbone,
        "--image-size": image_size,
        "--value-range": value_range and ",".join(map(str, value_range)),
        "--engine": None if options["engine"] == "tensorflow" else options["engine"],
        "--engine-precision": None if engine_precision == "float32" else engine_precision,
        "--data-dir": data_dir,
    }
    flags = {"--skip-bad-images": options["skip_bad_images"], "--trust": trust}
    words += [name for name, is_set in flags.items() if is_set]
    words += [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    then = command("run", "frozen", "--data", data, *words, "--cache", to)
    click.echo(
        f"{count:,} of {len(examples):,} {examples.kind.MANY} computed. Next: {one_line(then)}"
    )
