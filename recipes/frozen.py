"""The network turns each photo into features, once. A classifier, the head, is fitted on them.

    tfxfer run frozen                         the demo data
    tfxfer run frozen --data photos/          your own: a folder with a folder for each class

Expected on the demo data: about 0.91 on its 1,000 test images, in about a minute on two cores.
"""

from typing import Annotated, Literal

import tfxfer


@tfxfer.recipe
def frozen(
    run: tfxfer.Run,
    *,
    data: Annotated[str, "Your photos: folder of class folders, .zip or .tar of one, .csv of path "
        "and label, tfds:NAME, or demo."] = "demo",
    backbone: Annotated[str, "Pretrained network: name (see tfxfer backbones), folder, archive or "
        "URL of a SavedModel."] = "efficientnet-lite0",
    head: Annotated[Literal["auto", "gaussian", "linear", "ridge", "prototype", "mlp", "cosine"],
        "Classifier. auto: gaussian, linear or their mean, whichever is best in cross-validation. "
        "Fitted at once: gaussian (a bell curve for each class), linear (logistic regression), "
        "ridge (least squares), prototype (the nearest class mean). Trained in epochs: mlp (with "
        "a hidden layer), cosine (by the angle to each class)."] = "auto",
    mirror: Annotated[Literal["auto", "yes", "no"], "Average the features of each photo and its "
        "mirror image. auto: if that predicts better; tried on up to 2,000 photos."] = "auto",
    epochs: Annotated[int | None, "Training epochs, for --head mlp and cosine only; by default 20.",
        range(1, 10**6)] = None,
):
    """Train a classifier; the pretrained network stays as it is. Fast; start here."""
    examples = tfxfer.data.load(data, data_dir=run.data_dir, seed=run.seed,
        skip_bad_images=run.skip_bad_images, cache=run.cache_folder)
    run.say(examples.table(), *examples.notes)
    network = tfxfer.Backbone(backbone, trainable=False, image_size=run.image_size,
        value_range=run.value_range, trust=run.trust)
    run.record(backbone_fingerprint=network.fingerprint, backbone_sha256=network.sha256,
        data_fingerprint=examples.fingerprint)
    extract = tfxfer.features.Extractor(tfxfer.Cache(run.cache_folder), run.engine,
        run.engine_precision, run.batch_size, run.strategy)
    tfxfer.heads.ranges.settle(network, examples, extract, seed=run.seed)
    run.record(image_size=network.image_size, value_range=network.value_range)
    trains = head in ("mlp", "cosine")
    with run.timed("features"):
        prefix = network.prefix(None if trains else len(network.stages))
        both = mirror == "yes" if trains else tfxfer.heads.mirrors.are_computed(
            mirror, len(examples))
        features = extract(examples, prefix, mirror=both, skip_bad_images=run.skip_bad_images)
    run.say(*tfxfer.outcome.new_notes(examples, features.examples))
    examples, classes = features.examples, len(features.examples.classes)
    train, validation = examples.where("train"), examples.where("validation")
    with run.timed("head"):
        if trains:
            layer = tfxfer.heads.MLP(classes) if head == "mlp" else tfxfer.heads.Cosine(classes)
            epochs = epochs or 20
            run.record(epochs=epochs)
            found = tfxfer.heads.fit_head(layer, features, examples.labels, train, validation,
                epochs=epochs, units=examples.units, seed=run.seed, strategy=run.strategy)
            layer, taps, held_out = found.head, None, found.positions
            probabilities, history = found.probabilities, found.history
        elif run.is_main_worker:
            part, labels = features.take(train), examples.labels[train]
            choice, part = tfxfer.heads.mirrors.choose_head(mirror, part, head=head, seed=run.seed)
            run.say(*choice.lines)
            both = len(part.views) == 2
            features = features if both else features.one_side
            layer, taps, held_out = choice.fitted.layer(), choice.fitted.taps, train
            probabilities, history = choice.out_of_fold, ()
            run.record(chosen_head=choice.fitted.name, chosen_taps=taps, mirror_images=both)
            if choice.fitted.name == "gaussian":
                tfxfer.outcome.write_gaussian(run, part, labels, classes, choice.fitted.widths)
    if not run.is_main_worker:
        return  # with several workers, the main one evaluates the model and saves it
    answers = tfxfer.outcome.of_head(features, layer)
    outcome = tfxfer.outcome.judge(examples, answers, held_out, probabilities)
    with run.timed("baselines"):
        baselines = tfxfer.outcome.baselines(features, run)
    model = tfxfer.heads.join(network.tapped(taps), layer, network.image_size, mirror=both)
    outcome.write(run, network, model, baselines, history)
    with run.timed("report"):
        tfxfer.report.review.look(run, features, outcome, model, network)
        look_at = tfxfer.report.write_reports(run)
    run.finish()
    run.say(outcome.summary(baselines), look_at, run.how_to_predict())
