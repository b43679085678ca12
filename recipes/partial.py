"""The last stages of the network are trained. What the stages before them compute is kept.

    tfxfer run partial                                      the demo data
    tfxfer run partial --data photos/ --unfreeze block14    from a stage on; see tfxfer inspect

The trained model, or its mean with the frozen one, is used only if it is clearly better: by more
than two standard errors, on photos that were not used to train or to choose either model.
"""

from typing import Annotated, Any, Literal

import tfxfer


@tfxfer.recipe
def partial(
    run: tfxfer.Run,
    *,
    data: Annotated[str, "Your photos: folder of class folders, .zip or .tar of one, .csv of path "
        "and label, tfds:NAME, or demo."] = "demo",
    backbone: Annotated[str, "Pretrained network: name (see tfxfer backbones), folder, archive or "
        "URL of a SavedModel."] = "efficientnet-lite0",
    head: Annotated[Literal["auto", "gaussian", "linear", "ridge", "prototype"],
        "Classifier of the frozen model; see tfxfer run frozen --help."] = "auto",
    unfreeze: Annotated[str, "Stages to train: how many of the last ones, or the name of the first "
        "one (see tfxfer inspect). auto: as many as help."] = "auto",
    unfreeze_by: Annotated[Literal["all", "gradual"], "all: train these stages together. gradual: "
        "train the last one first, then one more at a time."] = "all",
    epochs: Annotated[int | None, "Epochs of the final training; by default 6 to 20, more with few "
        "photos or if that helps.", range(1, 10**6)] = None,
    learning_rate: Annotated[float | None, "Highest learning rate of the last stage; the stages "
        "before it train more slowly. By default two rates are tried.", (0, 1e38)] = None,
    views: Annotated[int | None, "Number of altered copies to make of each training photo. By "
        "default 2 are tried on up to 4,000 photos, and used if they help.", range(1000)] = None,
    augment: Annotated[Literal["auto", "flip", "crop", "flip+crop"], "How --views alters photos: "
        "mirrored or cropped. auto: what does not clearly lower accuracy."] = "auto",
    time_limit: Annotated[float | None, "Stop training after about this many minutes, at the end "
        "of an epoch.", (0, 10**6)] = None,
):
    """Train the last stages of the network. Keeps the frozen model unless training helps."""
    examples = tfxfer.data.load(data, data_dir=run.data_dir, seed=run.seed,
        skip_bad_images=run.skip_bad_images, cache=run.cache_folder)
    run.say(examples.table(), *examples.notes)
    network = tfxfer.Backbone(backbone, trainable=False, image_size=run.image_size,
        value_range=run.value_range, batch_norm="inference", trust=run.trust)
    depths = tfxfer.tuning.depths_of(network, unfreeze)
    tfxfer.tuning.enough_epochs(views, epochs)
    run.record(backbone_fingerprint=network.fingerprint, backbone_sha256=network.sha256,
        data_fingerprint=examples.fingerprint)
    extract = tfxfer.features.Extractor(tfxfer.Cache(run.cache_folder), run.engine,
        run.engine_precision, run.batch_size, run.strategy)
    tfxfer.heads.ranges.settle(network, examples, extract, seed=run.seed)
    run.record(image_size=network.image_size, value_range=network.value_range)
    with run.timed("features"):
        prefix = network.prefix(len(network.stages))
        both = tfxfer.heads.mirrors.are_computed("auto", len(examples))
        features = extract(examples, prefix, mirror=both, skip_bad_images=run.skip_bad_images)
    run.say(*tfxfer.outcome.new_notes(examples, features.examples))
    plan = tfxfer.tuning.plan(features.examples, run.seed)
    how: dict[str, Any] = {"seed": run.seed, "folder": run.folder / "checkpoints" / "tuning"}
    with run.timed("activations"):
        kinds = tuple(kind for kind in augment.split("+") if kind != "auto")
        if augment == "auto" and tfxfer.tuning.views_are_used(views, plan):
            kinds = tfxfer.tuning.harmless(features.one_side, plan.folds[0][0], prefix, extract,
                seed=run.seed)
        sources = [tfxfer.tuning.last_stages(network, depth, features, plan, extract,
            views=views if kinds else 0, augment=kinds, **how) for depth in depths]
    with run.timed("tuning"):
        found = tfxfer.tuning.compete(sources, features, plan, head=head, epochs=epochs,
            rate=learning_rate, gradual=unfreeze_by == "gradual", batch_size=run.global_batch,
            minutes=time_limit, show=tfxfer.outcome.board(run),
            strategy=run.strategy, precision=run.precision, **how)
    if not run.is_main_worker:
        return  # with several workers, the main one evaluates the model and saves it
    features = features if found.mirror else features.one_side
    model, outcome = tfxfer.outcome.settle(found, features, network, run)
    with run.timed("baselines"):
        baselines = tfxfer.outcome.baselines(features, run)
    outcome.write(run, network, model, baselines, found.history)
    with run.timed("report"):
        tfxfer.report.review.look(run, features, outcome, model, network)
        look_at = tfxfer.report.write_reports(run)
    run.finish()
    run.say(outcome.summary(baselines), str(found.verdict), look_at, run.how_to_predict())
