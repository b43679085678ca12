"""Trains in every way under one strategy, and writes down the results.

    python under_strategy.py OUT SAVEDMODEL PHOTOS STRATEGY [REPLICAS]

Run it as several processes with TF_CONFIG, or as one.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf

import tfxfer
from tfxfer import data, heads, tuning
from tfxfer.distribute import devices, workers
from tfxfer.features import Extractor
from tfxfer.tuning import optimizers
from tfxfer.tuning.frozen import Heads
from tfxfer.tuning.setting import Routine, Setting, prepare_fold, train_fold
from tfxfer.tuning.training import ignore

BATCH = 12  # two replicas divide it


class Losses(keras.callbacks.Callback):
    """The mean loss so far, after each step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float(np.mean(logs["loss"])))


def seen(strategy, rows: np.ndarray, size: int) -> list[int]:
    """Return which rows this worker's replicas are given in an epoch."""
    found = []
    for step in workers.make_batches(
        strategy, rows, size, examples=tf.data.Dataset.from_tensor_slices, then=lambda at: at
    ):
        for part in strategy.experimental_local_results(step):
            found += part.numpy().tolist()
    return found


def some_images() -> tuple[np.ndarray, np.ndarray]:
    """Images and their labels."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(60, 32, 32, 3)).astype(np.float32), rng.integers(0, 3, 60)


def plain_model(strategy, pretrained, batch_norm: str) -> tuple[keras.Model, tfxfer.Backbone]:
    """Return the whole network with a Dense head, compiled as Keras does it, and its Backbone."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((32, 32, 3))
        backbone = tfxfer.Backbone(pretrained, batch_norm=batch_norm)
        model = tfxfer.MultiWorkerModel(
            inputs, keras.layers.Dense(3, kernel_initializer="zeros")(backbone(inputs))
        )
        optimizer = optimizers.layerwise(
            keras.optimizers.SGD,
            base=1e-2,
            decay=0.75,
            backbone=backbone,
            momentum=0.9,
            global_clipnorm=0.5,
        )
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
    return model, backbone


def plain_fit(strategy, pretrained) -> dict:
    """Run Keras' own fit for 20 steps, evaluate and predict; statistics stay as they are."""
    model, backbone = plain_model(strategy, pretrained, "inference")
    x, y = some_images()
    losses = Losses()
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=4,
        shuffle=False,
        verbose=0,
        validation_data=(x[:17], y[:17]),
        callbacks=[losses],
    ).history
    uneven = model.evaluate(x[:17], y[:17], batch_size=BATCH, verbose=0)
    answers = model.predict(x, batch_size=BATCH, verbose=0)
    return {
        "losses": losses.values,
        "history": history,
        "evaluate": uneven,
        "predict": answers.tolist(),
        "statistics": statistics(backbone),
    }


def moving_fit(strategy, pretrained) -> list[float]:
    """Return the statistics after 20 steps of Keras' own fit that move them."""
    model, backbone = plain_model(strategy, pretrained, "train")
    x, y = some_images()
    model.fit(x, y, batch_size=BATCH, epochs=4, shuffle=False, verbose=0)
    return statistics(backbone)


def statistics(backbone: tfxfer.Backbone) -> list[float]:
    """Return the size of each of the statistics of BatchNorm."""
    return [
        float(np.abs(v.numpy()).sum())
        for v in backbone.non_trainable_variables
        if v.dtype == "float32"
    ]


def fade(strategy, pretrained) -> list[float]:
    """Return each weight's size after two steps of weight decay alone, which differs by stage."""
    with strategy.scope():
        backbone = tfxfer.Backbone(pretrained, batch_norm="inference")
        variables = backbone.trainable_variables
        adamw = keras.optimizers.AdamW(0.1, weight_decay=0.5)
        optimizer = optimizers.layerwise(adamw, decay=0.5, backbone=backbone)
        optimizer.build(variables)

    def apply_nothing() -> None:
        optimizer.apply([tf.zeros_like(v.value) for v in variables], variables)

    step = tf.function(lambda: strategy.run(apply_nothing))
    step()
    step()
    return [float(np.abs(v.numpy()).sum()) for v in variables]


def tuned(strategy, source, features, plan, folder: Path, images: np.ndarray) -> dict:
    """Run one training of the recipes from the fitted head, with uneven batches.

    Returns its history and what the model that comes out of it answers.
    """
    rows, held = plan.folds[0]
    fitted = Heads(features, "auto", 0, tf.distribute.get_strategy()).start(rows)
    routine = Routine(
        epochs=2,
        batch_size=7,
        seed=0,
        folder=folder,
        until=float("inf"),
        show=ignore,
        strategy=strategy,
    )
    setting = Setting(source, (source.unfreeze,), 1e-3)
    fold = prepare_fold(setting, routine, fitted, seen=rows, held=held)
    held_out = tuning.HeldOut(
        answers=lambda model: source.answers(model, held, 7),
        targets=features.examples.labels[held],
        task=features.examples.task,
        watch=(np.arange(len(held)),),
        patience=9,
    )
    result = train_fold(fold, "one", routine.epochs, held_out=held_out)
    model = source.finish(fold.model, fitted)
    answers = np.asarray(model(images))
    if not workers.place(strategy)[0]:
        model.export(folder / "exported", format="tf_saved_model", verbose=False)
        loaded = tf.saved_model.load(str(folder / "exported"))
        assert np.abs(loaded.serve(images) - answers).max() < 1e-4
    return {"history": result.history, "predict": answers.tolist()}


def fit_head(strategy, features, plan) -> dict:
    """Train a head alone; return its history and its answers."""
    keras.utils.set_random_seed(0)
    rows, held = plan.folds[0]
    head = heads.fit_head(
        heads.Cosine(2),
        features,
        features.examples.labels,
        train_rows=rows,
        validation_rows=held,
        epochs=2,
        batch_size=7,
        strategy=strategy,
    )
    return {"history": head.history, "predict": np.asarray(head.head(features[held])).tolist()}


def main(out: Path, handle: str, photos: str, name: str, replicas: int | None) -> None:
    strategy = devices.strategy(name, replicas=replicas)
    index, count = workers.place(strategy)
    keras.utils.set_random_seed(0)
    examples = data.load(photos)
    network = tfxfer.Backbone(handle, trainable=False, batch_norm="inference")
    extract = Extractor(tfxfer.Cache(out / "cache"), strategy=strategy)
    features = extract(examples, network.prefix(len(network.stages)), progress=False)
    plan = tuning.plan(examples, 0)
    images = np.stack(
        [
            tf.image.resize(tf.io.decode_jpeg(examples.read(int(i))), (32, 32)).numpy() / 255
            for i in plan.folds[0][1][:4]
        ]
    )
    found = {
        "place": [index, count],
        "seen": {
            f"{n} by {size}": seen(strategy, np.arange(n), size)
            for n, size in ((37, 12), (24, 12), (13, 7), (2, 12))
        },
    }
    found["full"] = tuned(
        strategy,
        tuning.from_examples(network, features, augment=("flip",)),
        features,
        plan,
        out / "full",
        images,
    )
    if strategy.num_replicas_in_sync < 3:
        pretrained = tfxfer.savedmodel.read(handle)  # outside the scope
        found["frozen statistics"] = plain_fit(strategy, pretrained)
        found["moving statistics"] = moving_fit(strategy, pretrained)
        found["faded"] = fade(strategy, pretrained)
        source = tuning.last_stages(network, 1, features, plan=plan, extract=extract)
        found["partial"] = tuned(strategy, source, features, plan, out / "partial", images)
        found["head"] = fit_head(strategy, features, plan)
    (out / f"worker-{index}.json").write_text(json.dumps(found))
    workers.barrier(strategy)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        sys.argv[3],
        sys.argv[4],
        int(sys.argv[5]) if len(sys.argv) > 5 else None,
    )
