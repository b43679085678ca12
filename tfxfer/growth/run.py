"""Grow a finished run: read the new examples, fit the head on all, and write a run of its own."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.data.union import join_classes, leave_out_copies, load_more, with_classes
from tfxfer.errors import DataError, RunError
from tfxfer.features import Extractor, Features
from tfxfer.growth.before import RECIPE, Before, find_old_examples, open_before, recall
from tfxfer.growth.fit import fit_with_old, fit_without_old, grow_head
from tfxfer.heads.growable import Growable
from tfxfer.run import Finished, Run, open_run, same
from tfxfer.run.settings import plain, read_common
from tfxfer.steps.extraction import new_notes
from tfxfer.steps.result import Result, finish

NAMED = 5  # classes that a sentence names
# Settings of the old run that the grown run has, too; the others are options or are derived anew.
TAKEN = (
    "backbone_fingerprint",
    "backbone_sha256",
    "chosen_backbone",
    "chosen_head",
    "chosen_heads",
    "chosen_taps",
    "mirror_images",
)
OPTIONS = ("data", "backbone", "head", "mirror", "epochs")


def grow(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str] | Examples,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    cache: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    skip_bad_images: bool = False,
    trust: bool = False,
    command: str | None = None,
) -> Finished:
    """Make a larger run from a finished one: add examples of its classes, or classes after them.

    The head is the one that a run on all examples would fit, with the same kind of head on the same
    stages. Where the old examples or their cached features are there, it is also calibrated on
    all of them; otherwise a Gaussian or Ridge is fitted from what the run keeps, and where that is
    sums, its old calibration stays.

    Args:
        folder: a finished run of the recipe frozen.
        data: the new examples, as for `tfxfer.data.load`; one class is enough. Copies of examples
            that the run knows are left out.
        out: folder of the grown run; by default a new one, runs/frozen-<number>.
        overwrite: delete the old run in `out` first.
        cache: folder that keeps features; by default the run's own.
        data_dir: the folder in which TensorFlow Datasets keeps its files.
        skip_bad_images: whether to leave out images that can't be decoded, and note them.
        trust: also load a graph that can reach files, Python or the internet.
        command: the command line, for the report.

    Returns:
        the grown run.

    Raises:
        RunError: the run can't grow, or `out` can't be written.
        DataError, ImageError: the new examples can't be used.
        The other errors are those of a run.
    """
    before = open_before(open_run(folder), trust=trust)
    if out is not None and same(str(folder), str(out)):
        raise RunError(f"{out} is the run that is to grow. Choose another --out.")
    run = begin(
        before,
        out=out,
        overwrite=overwrite,
        cache=cache,
        data_dir=data_dir,
        batch_size=batch_size,
        skip_bad_images=skip_bad_images,
        trust=trust,
    )
    try:
        run.start()
        run.record(grown_from=str(Path(folder).resolve()))
        if command is None:
            run.record(call=f"import tfxfer\n\ntfxfer.grow({str(folder)!r}, {plain(data)!r})")
        else:
            run.record(command=command)
        write_grown(run, before, data)
    except Exception:
        run.abandon()
        raise
    finally:
        run.close()
    return open_run(run.folder)


def begin(
    before: Before, *, out: str | os.PathLike[str] | None, overwrite: bool, **own: Any
) -> Run:
    """Open the folder of the grown run, with the old run's options but those of this machine.

    Args:
        own: the options of `grow` that are left.
    """
    values = before.values
    # The network tells the size and the range of its input; devices are those of this machine.
    asked_anew = {"image_size": None, "value_range": None, "strategy": "auto", "replicas": None}
    common = read_common({**values, **asked_anew, "device": "auto", "trust": own["trust"]})
    cache = own["cache"]
    if cache is None and before.run.is_own():  # a path of somebody else's is never written to
        cache = None if common.cache == "off" else common.cache
    common = replace(
        common,
        cache=cache,
        data_dir=Path(own["data_dir"]) if own["data_dir"] else common.data_dir,
        batch_size=own["batch_size"],
        skip_bad_images=own["skip_bad_images"] or common.skip_bad_images,
    )
    return Run(
        None if out is None else Path(out),
        recipe=RECIPE,
        overwrite=overwrite,
        options={name: values.get(name) for name in OPTIONS},
        **vars(common),
    )


def write_grown(run: Run, before: Before, data: str | os.PathLike[str] | Examples) -> None:
    """Read the new examples, fit the head, and write the grown run."""
    new = load_new(run, before, data)
    run.record(**{name: before.values[name] for name in TAKEN if name in before.values})
    run.record(input=before.prefix.takes.KIND, **before.prefix.takes.settings())
    extract = Extractor(
        Cache(run.cache_folder),
        run.common.engine,
        run.common.engine_precision,
        run.common.batch_size,
        run.strategy,
    )
    old, why = find_old_examples(before, extract)
    kept, many = before.growable, before.run.kind().MANY
    if old is None and kept is None:
        raise RunError(
            f"{before.run.folder} has the head {' and '.join(before.heads)}, which is fitted again "
            f"from the features of the old {many}, and these are not there: {why} Put the {many} "
            "or the cache back (--cache), or train with --head gaussian, which grows without them."
        )
    with run.timed("features"):
        features = extract(
            new,
            before.prefix,
            mirror=before.mirror,
            skip_bad_images=run.common.skip_bad_images,
        )
    run.say(*new_notes(new, features.examples))
    new = features.examples
    note_data(run, before, new, with_old=old is not None)
    if old is not None:
        finish(run, fit_with_old(run, before, old, new, extract))
    elif kept is not None:
        finish(run, grow_from_statistics(run, before, kept, features, why), compare=False)


def load_new(run: Run, before: Before, data: str | os.PathLike[str] | Examples) -> Examples:
    """Load the new examples, without copies of those that the run knows.

    Raises:
        DataError, ImageError: they can't be used, or all are known already.
    """
    new = load_more(
        data,
        kind=before.run.kind(),
        data_dir=run.common.data_dir,
        seed=run.common.seed,
        skip_bad_images=run.common.skip_bad_images,
        cache=run.cache_folder,
        labels=run.common.label,
    )
    takes = before.prefix.takes.KIND
    if new.kind_name != takes or new.task_name != before.run.task().NAME:
        raise DataError(
            f"{new.source} holds examples of the kind {new.kind_name} for the task "
            f"{new.task_name}; the run's network takes {takes}. Give other data."
        )
    run.record(added_data=[*before.values.get("added_data", []), described(new)])
    known = set(before.growable.digests) if before.growable else set()
    old = recall(before.run)
    known |= set(old.digests) if old else set()
    kept = leave_out_copies(new, known)
    run.say(kept.table(), *kept.notes)
    return kept


def described(new: Examples) -> dict[str, str]:
    """Return what settings.json notes about data that are added."""
    return {"data": new.origin, "fingerprint": new.fingerprint}


def note_data(run: Run, before: Before, new: Examples, *, with_old: bool) -> None:
    """Note which data the grown run is of."""
    values = before.values
    first = values.get("first_fingerprint", values.get("data_fingerprint"))
    run.record(
        first_fingerprint=first,
        data_fingerprint=hashlib.sha256(
            f"{values.get('data_fingerprint')} {new.fingerprint}".encode()
        ).hexdigest(),
        old_examples="used" if with_old else "not used",
    )


def grow_from_statistics(
    run: Run, before: Before, kept: Growable, features: Features, why: str
) -> Result:
    """Fit the head without the old examples, and say what that means.

    Args:
        kept: what the run keeps of its training examples.
        features: those of the new examples.
        why: why the old examples are not there.
    """
    classes = join_classes(before.run.classes(), features.examples)
    new = with_classes(features.examples, classes)
    many = new.kind.MANY
    notes = [
        f"The figures are of the new {many} alone, because the old {many} are not there, and "
        f"neither are their features: {why}",
        f"predict --sets and --unknown are not there, because they need old {many}, too.",
    ]
    growable = grow_head(kept, replace(features, examples=new))
    if growable.statistics.features is None:
        notes.insert(0, said_of_calibration(before.run.classes(), new))
        run.record(calibration=notes[0])
    run.say(*notes)
    new = replace(new, notes=(*new.notes, *notes))
    return fit_without_old(run, before, growable, replace(features, examples=new))


def said_of_calibration(old: Sequence[str], new: Examples) -> str:
    """Return the sentence that says what the old calibration does not know."""
    added = [name for name in new.classes if name not in old]
    if not added:
        count = len(new.where("train"))
        return (
            f"The calibration is older than {count:,} of the {new.kind.MANY}: the probabilities "
            "may be too high or too low."
        )
    named = ", ".join(added[:NAMED]) + (f" and {len(added) - NAMED} more" * (len(added) > NAMED))
    many = "classes" if len(added) > 1 else "class"
    return (
        f"The calibration is older than the {many} {named}: the probabilities may be too high or "
        "too low."
    )
