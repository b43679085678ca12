"""Full fine-tuning: the head is fitted as in frozen, and from there the whole network trains.

    tfxfer run full                         the demo data
    tfxfer run full --data photos/          your own

The tuned model is chosen only where it is better than the frozen one by more than two standard errors, on examples that picked neither.
"""

from typing import Annotated, Literal

import tfxfer


@tfxfer.recipe
def full(
    run: tfxfer.Run,
    *,
    data: Annotated[str, "Folder of class folders, .csv of path and label, tfds:NAME, or demo."] = "demo",
    backbone: Annotated[str, "Name (see tfxfer backbones), folder, archive or URL of a SavedModel."] = "efficientnet-lite0",
    head: Annotated[Literal["auto", "gaussian", "linear", "ridge", "prototype"], "That training starts from, fitted as in frozen."] = "auto",
    epochs: Annotated[int, "Of the long training.", range(1, 10**6)] = 8,
    learning_rate: Annotated[float | None, "Of the last stage; a few are tried by default.", (0, 1e38)] = None,
    batch_norm: Annotated[Literal["inference", "train"], "train moves its statistics, and starts from the network's own output, not from taps."] = "inference",
    augment: Annotated[Literal["auto", "none", "flip", "crop", "flip+crop"], "auto takes what held-out examples show to be harmless."] = "auto",
    data_service: Annotated[str | None, "host:port of a tf.data service that reads, decodes and augments the training images."] = None,
    time_limit: Annotated[float | None, "Minutes of tuning after which each training ends with its epoch.", (0, 10**6)] = None,
):
    """Train a whole network from the head that frozen fits, and keep the frozen model unless that pays."""
    if data_service:
        tfxfer.dataservice.answer(data_service)
    examples = tfxfer.data.load(data, data_dir=run.data_dir, seed=run.seed, skip_bad_images=run.skip_bad_images, cache=run.cache_folder)
    run.say(examples.table(), *examples.notes)
    network = tfxfer.Backbone(backbone, trainable=False, image_size=run.image_size, value_range=run.value_range, batch_norm=batch_norm, trust=run.trust)
    tfxfer.tuning.stages_of(network, "1")
    run.record(backbone_fingerprint=network.fingerprint, backbone_sha256=network.sha256, data_fingerprint=examples.fingerprint)
    extract = tfxfer.features.Extractor(tfxfer.Cache(run.cache_folder), run.engine, run.engine_precision, run.batch_size, run.strategy)
    tfxfer.ranges.settle(network, examples, extract, seed=run.seed, log=run.say)
    run.record(image_size=network.image_size, value_range=network.value_range)
    with run.timed("features"):
        prefix = network.prefix(len(network.stages))
        features = extract(examples, prefix, skip_bad_images=run.skip_bad_images)
    run.say(*tfxfer.outcome.new_notes(examples, features.examples))
    plan = tfxfer.tuning.plan(features.examples, run.seed)
    with run.timed("tuning"):
        kinds = tuple(kind for kind in augment.split("+") if kind not in ("auto", "none"))
        if augment == "auto":
            kinds = tfxfer.tuning.harmless(features, plan.folds[0][0], prefix, extract, seed=run.seed, log=run.say)
        found = tfxfer.tuning.compete(
            tfxfer.tuning.from_pixels(network, features, augment=kinds, batch_size=run.batch_size, service=data_service),
            features,
            plan,
            head=head,
            epochs=epochs,
            rate=learning_rate,
            batch_size=run.global_batch,
            seed=run.seed,
            folder=run.folder / "checkpoints" / "tuning",
            minutes=time_limit,
            log=run.say,
            show=tfxfer.outcome.board(run),
            strategy=run.strategy,
            precision=run.precision,
        )
    if run.follows:
        return  # the chief alone judges and writes
    model, outcome = tfxfer.outcome.settle(found, features, network, run)
    with run.timed("baselines"):
        baselines = tfxfer.outcome.baselines(features, run)
    outcome.write(run, network, model, baselines, found.history)
    with run.timed("report"):
        tfxfer.review.look(run, features, outcome, model, network)
        look_at = tfxfer.report.write(run)
    run.finish()
    run.say(outcome.summary(baselines), str(found.verdict), look_at, f"Next: tfxfer predict {run.folder} photo.jpg")
