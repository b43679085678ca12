"""Write all that a person should look at into the run's folder."""

import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.data import Examples
from tfxfer.features import Features
from tfxfer.heads.threads import in_background
from tfxfer.outcome import Outcome, plain_features
from tfxfer.report.review.chart import FEWEST as FEWEST_OF_MAP
from tfxfer.report.review.chart import place_on_plane
from tfxfer.report.review.duplicates import find_nearest
from tfxfer.run import Run
from tfxfer.run.attempt import Failure, attempt, keep, optional, several

LOG = logging.getLogger(__name__)
MISTAKES, SUSPECTS, PAIRS, ODD, EXPLAINED = 20, 20, 10, 12, 3
SAMPLES, CLASSES = 4, 12  # sample pictures of a class, and classes that have them
RIGHT = 12  # right answers that are shown beside the wrong ones
FEWEST = 20  # with fewer examples, label errors are not looked for


@dataclass(frozen=True, eq=False)
class Said:
    """The model's answer to an example that was held out.

    predictions: [K], for classes the probability of each.
    column: the index of the answer.
    sure: how sure the model is of it; where answers are no classes, how wrong it is.
    right: whether it is the label.
    """

    predictions: np.ndarray
    column: int
    sure: float
    right: bool


def all_said(outcome: Outcome) -> dict[int, Said]:
    """Return the model's answer to each example that was held out, by its position."""
    labels, predictions = outcome.examples.labels[outcome.positions], outcome.probabilities
    task = outcome.examples.task
    if not task.CLASSES:
        scores = task.prediction_scores(predictions, labels)
        ranked = zip(outcome.positions.tolist(), predictions, scores, strict=True)
        return {
            position: Said(row, column=0, sure=-float(score), right=bool(score >= 1))
            for position, row, score in ranked
        }
    best, sure = task.answers(predictions)
    rows = zip(outcome.positions.tolist(), predictions, best, sure, labels, strict=True)
    return {
        position: Said(row, column=int(column), sure=float(one), right=bool(column == label))
        for position, row, column, one, label in rows
    }


@dataclass(frozen=True, eq=False)
class Found:
    """The examples that a person should look at, by their positions.

    judged: the examples of the map.
    mistakes, right: answers on them that are wrong, the surest first, and some that are right.
    doubtful: examples whose label looks wrong, each with the class that is suggested.
    examined: how many labels were examined.
    pairs: (position, position, similarity) of the most similar examples of two parts of the data.
    strange: examples that look broken, each with the reason.
    mapped, places: examples of the map, and their places on it, [n, 2]; None where it failed.
    samples: some training examples of each class.
    reasons: (position, class) of answers to explain.
    """

    judged: np.ndarray
    mistakes: list[int]
    right: list[int]
    doubtful: list[tuple[int, int]]
    examined: int
    pairs: list[tuple[int, int, float]]
    strange: list[tuple[int, str]]
    mapped: np.ndarray | None
    places: np.ndarray
    samples: dict[str, list[int]]
    reasons: list[tuple[int, int]]


class Shown(NamedTuple):
    """A small JPEG of an example, or the beginning of a text, for the report to show.

    picture: None where the kind has no pictures.
    excerpt: "" where the kind has no texts.
    """

    picture: bytes | None
    excerpt: str


@dataclass(frozen=True, eq=False)
class Reasons:
    """How much an answer depends on each part of an example.

    heat: by how much the answer's probability falls without each part; see `Kind.explain`.
    parts: the parts as text; [] if they are places in a picture.
    """

    heat: np.ndarray
    parts: list[str]


def look(
    run: Run, features: Features, outcome: Outcome, model: keras.Model, network: Backbone
) -> None:
    """Write review.json, thumbnails.zip and label_errors.csv.

    Parts that can't be computed are left out.

    Args:
        features: features of all examples from the pretrained network.
        model: model from decoded examples to logits.
    """
    examples = outcome.examples
    LOG.info(f"Looking for {examples.kind.MANY} that you should look at")
    answers = all_said(outcome)
    highlights, reasons = find_all(run, features, outcome, answers, model=model, network=network)
    notes = examples.kind.said_of_odd(examples, highlights.strange)
    run.say(*notes)
    notes = [*examples.notes, *notes]
    if (
        highlights.mapped is not None
        and not len(highlights.mapped)
        and len(highlights.judged) >= FEWEST_OF_MAP
    ):
        notes.append(
            f"There is no map: to the network, all held-out {examples.kind.MANY} are the same."
        )
    makers = {f"{i}.jpg": partial(preview, examples, i) for i in pictured(highlights)}
    makers |= {
        f"{i}-why.jpg": partial(preview, examples, i, found.heat)
        for (i, _), found in reasons.items()
        if not found.parts
    }
    made = several(run, "The thumbnails", makers)
    pictures = {name: one.picture for name, one in made.items() if one.picture is not None}
    run.write("thumbnails.zip", lambda path: archive(path, pictures.items()))
    excerpts = {name: one.excerpt for name, one in made.items() if one.excerpt}
    decision = outcome.decision
    review = as_json(
        examples, answers, highlights, reasons=reasons, excerpts=excerpts, decision=decision
    )
    run.write_json("review.json", review | {"notes": notes})


def find_all(
    run: Run,
    features: Features,
    outcome: Outcome,
    answers: dict[int, Said],
    *,
    model: keras.Model,
    network: Backbone,
) -> tuple[Found, dict[tuple[int, int], Reasons]]:
    """Find all that a person should look at, and write label_errors.csv.

    Args:
        answers: the model's answer to each example that was held out, by its position.
        Other Args are those of `look`.

    Returns:
        The examples; and how much an answer depends on each part of one, by (position, class).
    """
    examples, output = outcome.examples, features.output
    test, validation, train = (examples.where(split) for split in ("test", "validation", "train"))
    parts = [np.intersect1d(part, outcome.positions) for part in (test, validation, train)]
    judged = next((part for part in parts if len(part)), train[:0])
    doubtful, examined = find_doubtful(run, outcome, answers)
    by_sureness = sorted(judged.tolist(), key=lambda i: (-answers[i].sure, examples.files[i]))
    mistakes = [i for i in by_sureness if not answers[i].right][:MISTAKES]
    right = [i for i in by_sureness if answers[i].right]
    held_out = np.concatenate([test, validation])
    groups, many = examples.strata, examples.kind.MANY
    # Of the right answers, at most one of each class is explained.
    first = list({int(groups[i]): i for i in reversed(right)}.values())[:EXPLAINED]
    explained_ones = [*mistakes[:EXPLAINED], *first] if examples.task.CLASSES else []
    hung = [(i, answers[i].column) for i in explained_ones]
    similar, broken = f"The list of the most similar {many}", f"The list of {many} that look broken"
    # Files are read here and not in a thread, so that Ctrl-C and SIGTERM end it at once.
    plain = attempt(broken, lambda: plain_features(examples, run))
    makers: dict[str, Callable[[], Any]] = {
        similar: partial(find_nearest, output, held_out, train, most=PAIRS),
        broken: lambda: (
            plain if isinstance(plain, Failure) else examples.kind.find_odd(examples, plain)
        ),
        "The map": partial(place_on_plane, output, judged, groups[judged], seed=run.common.seed),
    }
    with in_background() as begin:
        begun = {what: begin(partial(attempt, what, make)) for what, make in makers.items()}
        reasons = explain(run, examples, hung, model=model, network=network)
        made = {what: keep(run, what, part.result()) for what, part in begun.items()}
    drawn = made["The map"]
    mapped, places = (None, np.zeros((0, 2))) if drawn is None else drawn
    return Found(
        judged=judged,
        mistakes=mistakes,
        right=drawn_by_lot(right, groups, RIGHT, seed=run.common.seed),
        doubtful=doubtful,
        examined=examined,
        pairs=made[similar] or [],
        strange=made[broken] or [],
        mapped=mapped,
        places=places,
        samples={
            name: train[examples.labels[train] == i][:SAMPLES].tolist()
            for i, name in enumerate(examples.classes[:CLASSES])
        }
        if examples.task.CLASSES
        else {},
        reasons=hung,
    ), reasons


def find_doubtful(
    run: Run, outcome: Outcome, answers: dict[int, Said]
) -> tuple[list[tuple[int, int]], int]:
    """Find labels that look wrong, and write them to label_errors.csv.

    Returns:
        The positions with the suggested classes, and how many labels were examined.
    """
    labels, probabilities = outcome.examples.labels[outcome.positions], outcome.probabilities
    task = outcome.examples.task
    if not task.CLASSES:  # a label that looks wrong is not looked for there
        return [], 0
    known = np.flatnonzero(task.can_judge(labels, probabilities))

    def find() -> list[tuple[int, int]]:
        suspects = (
            task.suspects(labels[known], probabilities[known]) if len(known) >= FEWEST else []
        )
        return [(int(outcome.positions[known[i]]), suggested) for i, suggested in suspects]

    doubtful = optional(run, "The list of labels that look wrong", find)
    if doubtful is None:
        return [], 0
    header = (
        "file",
        "split",
        "label",
        "suggested",
        "probability_of_label",
        "probability_of_suggested",
    )
    run.write_csv("label_errors.csv", header, doubts(outcome.examples, doubtful, answers))
    return doubtful, len(known)


def pictured(highlights: Found) -> list[int]:
    """Return the positions of all examples that the report shows, each once."""
    positions = [*highlights.mistakes, *highlights.right]
    positions += [i for i, _ in highlights.doubtful[:SUSPECTS]]
    positions += [i for pair in highlights.pairs for i in pair[:2]]
    positions += [i for i, _ in highlights.strange[:ODD]]
    positions += [i for sample in highlights.samples.values() for i in sample]
    positions += [i for i, _ in highlights.reasons]
    return list(dict.fromkeys(positions))


def as_json(
    examples: Examples,
    answers: dict[int, Said],
    highlights: Found,
    *,
    reasons: dict[tuple[int, int], Reasons],
    excerpts: dict[str, str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what review.json holds, but for the notes.

    Args:
        reasons: how much an answer depends on each part of an example, by (position, class).
        excerpts: the beginnings of examples that are read by people, by the name of the picture.
    """
    task = examples.task

    def named(i: int) -> dict[str, Any]:
        picture = f"{i}.jpg"
        row = {
            "file": examples.files[i],
            "split": examples.splits[i],
            "label": task.said_of_target(examples.labels[i], examples.classes),
            "picture": picture,
        }
        if picture in excerpts:
            row["excerpt"] = excerpts[picture]
        return row

    def judgement(i: int, column: int | None = None) -> dict[str, Any]:
        if not task.CLASSES:
            said = task.said_of_answer(answers[i].predictions, examples.classes, decision)
            return named(i) | {"predicted": said, "probability": round(-answers[i].sure, 6)}
        column = answers[i].column if column is None else column
        return named(i) | {
            "predicted": examples.classes[column],
            "probability": round(float(answers[i].predictions[column]), 6),
        }

    # Marks of the map stand for classes.
    drawn = highlights.mapped is not None and task.CLASSES
    mapped = highlights.mapped.tolist() if drawn and highlights.mapped is not None else []
    places = highlights.places[: len(mapped)]
    return {
        "counts": {
            split: dict(zip(examples.classes, count.tolist(), strict=True))
            | ({} if task.CLASSES else {"": examples.splits.count(split)})
            for split, count in examples.counts().items()
            if count.any()
        },
        "samples": {
            name: [named(i) for i in sample] for name, sample in highlights.samples.items()
        },
        "mistakes": [judgement(i) for i in highlights.mistakes],
        "right": [judgement(i) for i in highlights.right],
        "label_errors": {
            "count": len(highlights.doubtful),
            "examined": highlights.examined,
            "shown": [
                judgement(i) | {"suggested": examples.classes[suggested]}
                for i, suggested in highlights.doubtful[:SUSPECTS]
            ],
        },
        "duplicates": [
            {"judged": named(i), "train": named(j), "similarity": round(similarity, 4)}
            for i, j, similarity in highlights.pairs
        ],
        "odd": {
            "count": len(highlights.strange),
            "shown": [named(i) | {"why": why} for i, why in highlights.strange[:ODD]],
        },
        "map": [
            {
                "x": round(float(x), 4),
                "y": round(float(y), 4),
                "label": named(i)["label"],
                "right": answers[i].right,
            }
            for i, (x, y) in zip(mapped, places, strict=True)
        ],
        "occlusion": [
            judgement(i, column) | said_of_parts(found, f"{i}-why.jpg")
            for (i, column), found in reasons.items()
        ],
    }


def said_of_parts(found: Reasons, picture: str) -> dict[str, Any]:
    """Return what review.json says about the parts that an answer depends on.

    Args:
        picture: name of the picture that shows them where they are no words.
    """
    most = float(found.heat.max())
    if not found.parts:
        return {"why": picture, "most": round(most, 4)}
    weights = found.heat / most if most > 0 else np.zeros(len(found.heat))
    words = [
        [part, round(float(weight), 4)] for part, weight in zip(found.parts, weights, strict=True)
    ]
    return {"words": words, "most": round(most, 4)}


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
    examples: Examples, doubtful: list[tuple[int, int]], said: dict[int, Said]
) -> Iterable[tuple[str, ...]]:
    for i, suggested in doubtful:
        own = examples.labels[i]
        yield (
            examples.files[i],
            examples.splits[i],
            examples.classes[own],
            examples.classes[suggested],
            f"{said[i].predictions[own]:.6f}",
            f"{said[i].predictions[suggested]:.6f}",
        )


def explain(
    run: Run,
    examples: Examples,
    answers: Iterable[tuple[int, int]],
    *,
    model: keras.Model,
    network: Backbone,
) -> dict[tuple[int, int], Reasons]:
    """Return how much some answers, (position, class), depend on each part of their examples."""
    LOG.info("Looking for what answers hang on")
    one = partial(explained, model, examples, network=network, batch_size=run.common.batch_size)
    makers = {(i, column): partial(one, i, column) for i, column in answers}
    tried = several(run, "The list of what answers hang on", makers)
    return {place: found for place, found in tried.items() if found is not None}


def explained(
    model: keras.Model,
    examples: Examples,
    position: int,
    column: int,
    network: Backbone,
    batch_size: int,
) -> Reasons | None:
    """How much an answer hangs on each part of one example; see `Kind.explain`."""
    content = examples.read(position)

    def answers(covered: np.ndarray) -> np.ndarray:
        parts = [
            model(tf.constant(covered[i : i + batch_size]), training=False)
            for i in range(0, len(covered), batch_size)
        ]
        return examples.task.predictions(np.concatenate([np.asarray(part) for part in parts]))

    heat = examples.kind.explain(answers, network.takes, content, column)
    return None if heat is None else Reasons(heat, examples.kind.parts(content))


def preview(examples: Examples, position: int, heat: np.ndarray | None = None) -> Shown:
    """Return what the report shows of an example; `heat` comes from `Kind.explain`."""
    content = examples.read(position)
    return Shown(examples.kind.preview(content, heat), examples.kind.excerpt(content))


def archive(path: str, pictures: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in pictures:
            # Without a date, so that the same run gives the same file.
            file.writestr(zipfile.ZipInfo(name), content)
