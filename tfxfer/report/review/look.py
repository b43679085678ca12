"""Write all that a person should look at into the run's folder."""

import logging
import zipfile
from collections.abc import Iterable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.features import Features
from tfxfer.inputs.image import decode as preprocess
from tfxfer.inputs.image.occlusion import GRID, TELLING, occlusion
from tfxfer.outcome import Outcome, could_be_right, small_pixels
from tfxfer.report.review.chart import FEWEST as FEWEST_OF_MAP
from tfxfer.report.review.chart import place_on_plane
from tfxfer.report.review.duplicates import find_nearest
from tfxfer.report.review.labels import find_suspects
from tfxfer.report.review.odd import find_odd, said_of_many
from tfxfer.run import Run
from tfxfer.run.attempt import optional, several

LOG = logging.getLogger(__name__)
MISTAKES, SUSPECTS, PAIRS, ODD, EXPLAINED = 20, 20, 10, 12, 3
SAMPLES, CLASSES = 4, 12  # sample pictures of a class, and classes that have them
RIGHT = 12  # right answers that are shown beside the wrong ones
FEWEST = 20  # with fewer examples, label errors are not looked for
SIDE, QUALITY = 112, 80  # of a thumbnail: side in pixels, quality of the JPEG


def look(
    run: Run, features: Features, outcome: Outcome, model: keras.Model, network: Backbone
) -> None:
    """Write review.json, thumbnails.zip and label_errors.csv.

    Parts that can't be computed are left out.

    Args:
        features: features of all examples from the pretrained network.
        model: model from pixels, in the range that the network takes, to logits.
    """
    LOG.info("Looking for photos that you should look at")
    examples, output = outcome.examples, features.output
    test, train = examples.where("test"), examples.where("train")
    labels, answers = examples.labels[outcome.positions], outcome.probabilities
    said = dict(zip(outcome.positions.tolist(), answers, strict=True))
    parts = (
        np.intersect1d(examples.where(split), outcome.positions)
        for split in ("test", "validation", "train")
    )
    judged = next((part for part in parts if len(part)), train[:0])

    known = np.flatnonzero(could_be_right(labels, answers))

    def doubted() -> list[tuple[int, int]]:
        found = find_suspects(labels[known], answers[known]) if len(known) >= FEWEST else []
        return [(int(outcome.positions[known[i]]), suggested) for i, suggested in found]

    doubtful = optional(run, "The list of labels that look wrong", doubted)
    if doubtful is not None:
        header = (
            "file",
            "split",
            "label",
            "suggested",
            "probability_of_label",
            "probability_of_suggested",
        )
        run.write_csv("label_errors.csv", header, doubts(examples, doubtful, said))
    examined = 0 if doubtful is None else len(known)
    doubtful = doubtful or []
    wrong = [i for i in judged.tolist() if said[i].argmax() != examples.labels[i]]
    wrong = sorted(wrong, key=lambda i: (-said[i].max(), examples.files[i]))[:MISTAKES]
    right = sorted(
        (i for i in judged.tolist() if said[i].argmax() == examples.labels[i]),
        key=lambda i: (-said[i].max(), examples.files[i]),
    )
    recognised = drawn_by_lot(right, examples.labels, RIGHT, seed=run.seed)
    held_out = np.concatenate([test, examples.where("validation")])
    what = "The list of the most similar pictures"
    pairs = optional(run, what, lambda: find_nearest(output, held_out, train, most=PAIRS)) or []
    what = "The list of pictures that look broken"
    strange = optional(run, what, lambda: find_odd(examples, small_pixels(examples, run))) or []
    drawn = optional(
        run,
        "The map",
        lambda: place_on_plane(output, judged, examples.labels[judged], seed=run.seed),
    )
    shown, places = drawn or (train[:0], np.zeros((0, 2)))
    seen = said_of_many(examples, strange)
    run.say(*seen)
    notes = [*examples.notes, *seen]
    if drawn is not None and not len(shown) and len(judged) >= FEWEST_OF_MAP:
        notes.append("There is no map: the network sees no difference between the held-out images.")
    samples = {
        name: train[examples.labels[train] == i][:SAMPLES].tolist()
        for i, name in enumerate(examples.classes[:CLASSES])
    }

    # Of the right answers, at most one of each class.
    first = list({int(examples.labels[i]): i for i in reversed(right)}.values())[:EXPLAINED]
    reasons = [(i, int(said[i].argmax())) for i in [*wrong[:EXPLAINED], *first]]
    LOG.info("Looking for what answers hang on")
    heats = several(
        run,
        "The pictures of what answers hang on",
        {
            (i, column): partial(explained, model, examples, i, column, network, run.batch_size)
            for i, column in reasons
        },
    )
    hidden = [(i, column, heat) for (i, column), heat in heats.items()]

    pictured = dict.fromkeys(
        [
            *wrong,
            *recognised,
            *(i for i, _ in doubtful[:SUSPECTS]),
            *(i for pair in pairs for i in pair[:2]),
            *(i for i, _ in strange[:ODD]),
        ]
    )
    pictured |= dict.fromkeys(
        [*(i for several in samples.values() for i in several), *(i for i, _ in reasons)]
    )
    makers = {f"{i}.jpg": partial(thumbnail, examples, i) for i in pictured}
    makers |= {
        f"{i}-why.jpg": partial(thumbnail, examples, i, light(heat)) for i, _, heat in hidden
    }
    pictures = several(run, "The thumbnails", makers)
    run.write("thumbnails.zip", lambda path: archive(path, pictures.items()))

    def named(i: int) -> dict[str, Any]:
        return {
            "file": examples.files[i],
            "split": examples.splits[i],
            "label": examples.classes[examples.labels[i]],
            "picture": f"{i}.jpg",
        }

    def judgement(i: int, column: int | None = None) -> dict[str, Any]:
        column = int(said[i].argmax()) if column is None else column
        return named(i) | {
            "predicted": examples.classes[column],
            "probability": round(float(said[i][column]), 6),
        }

    run.write_json(
        "review.json",
        {
            "counts": {
                split: dict(zip(examples.classes, count.tolist(), strict=True))
                for split, count in examples.counts().items()
                if count.any()
            },
            "samples": {name: [named(i) for i in several] for name, several in samples.items()},
            "mistakes": [judgement(i) for i in wrong],
            "right": [judgement(i) for i in recognised],
            "label_errors": {
                "count": len(doubtful),
                "examined": examined,
                "shown": [
                    judgement(i) | {"suggested": examples.classes[suggested]}
                    for i, suggested in doubtful[:SUSPECTS]
                ],
            },
            "duplicates": [
                {"judged": named(i), "train": named(j), "similarity": round(similarity, 4)}
                for i, j, similarity in pairs
            ],
            "odd": {
                "count": len(strange),
                "shown": [named(i) | {"why": why} for i, why in strange[:ODD]],
            },
            "map": [
                {
                    "x": round(float(x), 4),
                    "y": round(float(y), 4),
                    "label": named(i)["label"],
                    "right": bool(said[i].argmax() == examples.labels[i]),
                }
                for i, (x, y) in zip(shown.tolist(), places, strict=True)
            ],
            "occlusion": [
                judgement(i, column) | {"why": f"{i}-why.jpg", "most": round(float(heat.max()), 4)}
                for i, column, heat in hidden
            ],
            "notes": notes,
        },
    )


def drawn_by_lot(positions: list[int], labels: np.ndarray, most: int, seed: int) -> list[int]:
    """Draw at most `most` positions at random, from as many classes as possible."""
    lot = np.random.default_rng(seed).permutation(np.array(sorted(positions), int)).tolist()
    drawn: list[int] = []
    while lot and len(drawn) < most:
        # One of each class that is left, in random order.
        turn = list({int(labels[i]): i for i in reversed(lot)}.values())[::-1]
        drawn += turn
        lot = [i for i in lot if i not in turn]
    return drawn[:most]


def doubts(
    examples: Examples, doubtful: list[tuple[int, int]], said: dict[int, np.ndarray]
) -> Iterable[tuple[str, ...]]:
    for i, suggested in doubtful:
        own = examples.labels[i]
        yield (
            examples.files[i],
            examples.splits[i],
            examples.classes[own],
            examples.classes[suggested],
            f"{said[i][own]:.6f}",
            f"{said[i][suggested]:.6f}",
        )


def explained(
    model: keras.Model,
    examples: Examples,
    position: int,
    column: int,
    network: Backbone,
    batch_size: int,
) -> np.ndarray:
    """`occlusion` of one example."""
    pixels = preprocess.pixels(
        tf.constant(examples.read(position)), network.image_size, network.value_range
    ).numpy()

    def answers(covered: np.ndarray) -> np.ndarray:
        parts = [
            model(tf.constant(covered[i : i + batch_size]), training=False)
            for i in range(0, len(covered), batch_size)
        ]
        return softmax(np.concatenate([np.asarray(part, np.float64) for part in parts]), 1)

    return occlusion(answers, pixels, column)


def thumbnail(examples: Examples, position: int, weight: np.ndarray | None = None) -> bytes:
    """The middle of the picture, as the model sees it, as a JPEG.

    Args:
        weight: from 0 to 1 for each pixel, darkens the picture.
    """
    pixels = preprocess.pixels(tf.constant(examples.read(position)), (SIDE, SIDE), (0.0, 255.0))
    pixels = pixels if weight is None else pixels * weight[..., None]
    return tf.io.encode_jpeg(
        tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8), quality=QUALITY
    ).numpy()


def light(heat: np.ndarray) -> np.ndarray:
    """A weight from 0 to 1 for each pixel of a thumbnail, highest where covering costs the most."""
    share = tf.constant(heat / max(float(heat.max()), TELLING), tf.float32, (GRID, GRID, 1))
    weight = 0.2 + 0.8 * tf.image.resize(share, (SIDE, SIDE), "bicubic")[..., 0]
    return np.clip(weight.numpy(), 0.2, 1.0)


def archive(path: str, pictures: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in pictures:
            # Without a date, so that the same run gives the same file.
            file.writestr(zipfile.ZipInfo(name), content)
