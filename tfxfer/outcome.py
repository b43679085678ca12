"""What a run found: the probabilities of each example, as figures, as a table and as arrays."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfxfer import doubt, evaluate, preprocess
from tfxfer.attempt import Failure, attempt, keep, optional
from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.doubt import Doubt
from tfxfer.errors import DataError, SavedModelError
from tfxfer.evaluate import Baselines, beaten, pays, score, share
from tfxfer.features import Features, Pixels, raw_pixels
from tfxfer.heads import join, seen_by_head
from tfxfer.probe import precision
from tfxfer.run import Run
from tfxfer.tuning import Competition
from tfxfer.tuning.training import nothing

LOG = logging.getLogger(__name__)
BLOCK = 1024  # rows in memory at once
NOTED = 20  # lines of a note that are printed; the report has all
COMPARED = 32  # images on which the served model is compared with an engine
Candidates = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of examples.

    Args:
        probabilities: positions -> float64 [n, classes].
        outputs: positions -> the network's own output, float32 [n, d].
        tail: how many columns of what the head sees are that output: the last ones.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    outputs: Callable[[np.ndarray], np.ndarray]
    tail: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """Calibrated probabilities of those examples that say something.

    Args:
        examples: all of them.
        positions: which ones have probabilities: test, validation, and those of train that were held out once.
        probabilities: float64 [len(positions), classes].
        answers: of the model, to any example.
        candidates: name -> which of the examples that a choice was made on it got right, bool.
    """

    examples: Examples
    positions: np.ndarray
    probabilities: np.ndarray
    answers: Answers
    candidates: Candidates = field(default_factory=dict)

    def of(self, *splits: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels and probabilities of some splits, copies of an image once; None of nothing."""
        mine = np.isin(np.array(self.examples.splits)[self.positions], splits)
        if not mine.any():
            return None
        rows = np.isin(self.positions, self.examples.distinct(self.positions[mine]))
        return self.examples.labels[self.positions[rows]], self.probabilities[rows]

    def doubt(self, seed: int) -> Doubt | None:
        """What the model knows of its own doubt; None where no example was held out."""
        held_out = self.of("train", "validation")
        if held_out:
            judged = could_be_right(*held_out)
            held_out = (held_out[0][judged], held_out[1][judged]) if judged.any() else None
        return (
            doubt.doubt(self.examples, self.answers.outputs, self.answers.tail, held_out, seed)
            if held_out
            else None
        )

    def doubt_figures(self, doubt: Doubt) -> dict[str, Any]:
        """What came of it on test, for metrics.json."""
        test = self.examples.distinct(self.examples.where("test"))
        scores = doubt.unknown.scores(self.answers.outputs(test)) if len(test) else np.zeros(0)
        return doubt.figures(self.of("test"), scores)

    def metrics(self, baselines: Baselines) -> dict[str, Any]:
        """metrics.json: `validation` is the out-of-fold figure on train where there is no validation part; None where there is nothing."""
        judged = {
            split: score(*mine, self.examples.classes) if (mine := self.of(split)) else None
            for split in ("test", "validation", "train")
        }
        if not judged["validation"] and (train := self.of("train")):
            # The only image of its class can't be held out, so it says nothing.
            held = could_be_right(*train)
            scored = (train[0][held], train[1][held])
            judged["train"] = score(*scored, self.examples.classes) if held.any() else None
        found: dict[str, Any] = {
            "test": judged["test"],
            "validation": judged["validation"] or judged["train"],
            "baselines": baselines.scores,
        }
        return found | (
            {"candidates": {name: share(right) for name, right in self.candidates.items()}}
            if self.candidates
            else {}
        )

    def predictions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Rows of predictions.csv: file, split, true class, predicted class, its probability."""
        classes = self.examples.classes
        for i, row in zip(self.positions, self.probabilities, strict=True):
            best = int(row.argmax())
            yield (
                self.examples.files[i],
                self.examples.splits[i],
                classes[self.examples.labels[i]],
                classes[best],
                f"{row[best]:.6f}",
            )

    def save(self, path: str) -> None:
        """probabilities.npz: files, splits, digests, labels, probabilities."""
        files = np.array([self.examples.files[i] for i in self.positions])
        splits = np.array([self.examples.splits[i] for i in self.positions])
        arrays = {
            "labels": self.examples.labels[self.positions],
            "probabilities": self.probabilities.astype(np.float32),
        }
        np.savez_compressed(
            path,
            files=files,
            splits=splits,
            digests=np.array([self.examples.digests[i] for i in self.positions]),
            **arrays,
        )

    def summary(self, baselines: Baselines) -> str:
        """The figures in a few lines, and whether the pretrained network helps."""
        metrics = self.metrics(baselines)
        rows = [("test photos", metrics["test"])] if metrics["test"] else []
        if self.of("validation"):
            held = "validation photos"
        elif len(self.positions) == len(self.examples):
            held = "training photos, each held out once"
        else:
            held = "training photos that were held out"
        rows += [(held, metrics["validation"])] if metrics["validation"] else []
        others = [
            (f"  {evaluate.NAMES.get(name, name)}", found)
            for name, found in baselines.scores.items()
            if found
        ]
        lines = ["accuracy, with its 95 % interval", *map(accuracy_line, rows)]
        if others:
            lines += ["simpler models, on the test photos", *map(accuracy_line, others)]
        return "\n".join([*lines, *filter(None, [self.verdict(baselines)])])

    def verdict(self, baselines: Baselines) -> str | None:
        """Whether the network helps, and which baseline is better, by paired comparisons on test.

        None where there is none.
        """
        test, metrics = self.of("test"), self.metrics(baselines)
        right = {**baselines.right, "test": test[1].argmax(1) == test[0]} if test else None
        return " ".join(filter(None, [pays(metrics, right), beaten(metrics, right)])) or None

    def write(
        self,
        run: Run,
        backbone: Backbone,
        model: keras.Model,
        baselines: Baselines,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """All that was found into the run's folder: labels, history, metrics, predictions, probabilities and the model."""
        LOG.info("Saving the model")
        run.record(verdict=self.verdict(baselines))
        if run.engine != "tensorflow":
            self.compare_engine(run, backbone, model)
        run.write_text("labels.txt", "".join(f"{name}\n" for name in self.examples.classes))
        run.write_csv(
            "history.csv",
            history[0] if history else ("epoch",),
            (epoch.values() for epoch in history),
        )
        metrics, doubt = self.metrics(baselines), None
        what = "What predict --sets and --unknown need"
        if found := optional(run, what, lambda: self.doubt_and_figures(run.seed)):
            doubt, figures = found
            metrics |= figures
        run.write_json("metrics.json", metrics)
        if doubt:
            run.write("doubt.npz", doubt.save)
        run.write_csv(
            "predictions.csv",
            ("file", "split", "true", "predicted", "probability"),
            self.predictions(),
        )
        run.write("probabilities.npz", self.save)
        run.write("model.keras", model.save)

    def doubt_and_figures(self, seed: int) -> tuple[Doubt, dict[str, Any]] | None:
        """The model's doubt, and what came of it on test; None where no example was held out."""
        found = self.doubt(seed)
        return (found, self.doubt_figures(found)) if found else None

    def compare_engine(self, run: Run, backbone: Backbone, model: keras.Model) -> None:
        """Record and say how much an engine's probabilities differ from those of the model that serves."""
        what = f"The comparison of {run.engine} with TensorFlow"
        found = optional(run, what, lambda: self.difference(backbone, model))
        if found is not None:
            run.record(served_difference=found)
            run.say(
                f"{run.engine} against TensorFlow, which serves the model: probabilities differ by at most {found:.1e} on {COMPARED} images."
            )

    def difference(self, backbone: Backbone, model: keras.Model) -> float | None:
        """The largest difference between the model's probabilities and these, on some images that are not of train; None where there is none."""
        rows = np.flatnonzero(np.array(self.examples.splits)[self.positions] != "train")[:COMPARED]
        if not len(rows):
            return None
        images = [
            preprocess.pixels(
                tf.constant(self.examples.read(int(i))), backbone.image_size, backbone.value_range
            )
            for i in self.positions[rows]
        ]
        answers = softmax(np.asarray(model(tf.stack(images), training=False), np.float64), 1)
        return float(np.abs(answers - self.probabilities[rows]).max())


def accuracy_line(row: tuple[str, dict[str, Any]]) -> str:
    """A name and its figures, aligned with the other lines."""
    name, found = row
    interval = f"{found['low']:.3f} to {found['high']:.3f}, n = {found['n']:,}"
    return f"{name:39} {found['accuracy']:.3f}  ({interval})"


def judge(
    examples: Examples,
    answers: Answers,
    held_out: np.ndarray,
    probabilities: np.ndarray,
    candidates: Candidates | None = None,
) -> Outcome:
    """A model's answers on test and validation, beside what is known of examples while they were held out.

    Args:
        answers: of the model (see `of_head`, `of_model`).
        held_out: positions of examples whose probabilities are known from fits without them.
        probabilities: [len(held_out), classes]
        candidates: all that were compared with each other, and which of the judged examples each got right.

    Raises:
        SavedModelError: answers that are no numbers.
    """
    fresh = np.setdiff1d(
        np.concatenate([examples.where("test"), examples.where("validation")]), held_out
    )
    positions = np.concatenate([fresh, held_out])
    found = np.concatenate([answers.probabilities(fresh), probabilities])
    check_numbers(examples, positions, found)
    order = np.argsort(positions, kind="stable")
    return Outcome(examples, positions[order], found[order], answers, candidates or {})


def check_numbers(examples: Examples, positions: np.ndarray, probabilities: np.ndarray) -> None:
    """SavedModelError where an answer is no number, as of a network that overflows on some images."""
    bad = positions[~np.isfinite(probabilities).all(1)]
    if len(bad):
        raise SavedModelError(
            f"the model's answers hold infinity or not-a-number for {len(bad):,} of {len(positions):,} images, such as "
            f"{examples.files[bad[0]]}. Expected finite numbers. Check the backbone's value range (--value-range LOW,HIGH), "
            "leave these images out, or take another backbone."
        )


def could_be_right(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which examples say something of the model, bool [n]: not the only one of its class, of which a fit without it knows nothing and says exactly 0."""
    return probabilities[np.arange(len(labels)), labels] > 0


def of_head(features: Features, head: keras.layers.Layer) -> Answers:
    """By a layer from the last columns of the features to calibrated logits."""
    width = head.input_shape[-1]

    def probabilities(positions: np.ndarray) -> np.ndarray:
        found = [
            softmax(np.asarray(head(block[:, -width:], training=False), np.float64), 1)
            for block in features.blocks(positions, BLOCK)
        ]
        return np.concatenate([np.zeros((0, head.output_shape[-1])), *found])

    return Answers(probabilities, lambda positions: features.output[positions], tail_of(features))


def of_model(pixels: Pixels, model: keras.Model, features: Features) -> Answers:
    """By a model from pixels to calibrated logits, whose head sees columns like those of `features`.

    The answers raise an ImageError where files can't be read any more.
    """
    outputs, width = keras.Model(model.inputs, seen_by_head(model)), features.feature_size
    tail = min(
        tail_of(features), outputs.output_shape[-1]
    )  # a head without taps sees the network's own output alone

    def said(network: keras.Model, positions: np.ndarray) -> np.ndarray:
        if not len(positions):
            return np.zeros((0, network.output_shape[-1]), np.float32)
        images = pixels.dataset(positions).batch(pixels.batch_size).prefetch(2)
        try:
            return network.predict(images, verbose=0)
        except tf.errors.OpError:
            for _ in pixels.batches(positions.tolist(), None):
                pass  # an ImageError names the files that can't be read any more
            raise

    return Answers(
        lambda positions: softmax(said(model, positions).astype(np.float64), 1),
        lambda positions: said(outputs, positions)[:, -tail:][:, :width],
        tail,
    )


def tail_of(features: Features) -> int:
    """Where the network's own output begins in features, counted from their end."""
    return features.tap_widths[-1] if features.tap_widths else features.feature_size


def small_pixels(examples: Examples, run: Run) -> Features:
    """`raw_pixels` of all examples.

    Raises:
        DataError: some can't be read any more, so that the rows would be of other examples.
    """
    found = raw_pixels(
        examples,
        cache=Cache(run.cache_folder),
        skip_bad_images=run.skip_bad_images,
        progress=True,
    )
    if len(found.examples) != len(examples):
        lost = sorted(set(examples.files) - set(found.examples.files))
        raise DataError(
            f"{len(lost):,} of {len(examples):,} images can't be read any more, such as {lost[0]}. "
            "They were there when the run began."
        )
    return found


def baselines(features: Features, run: Run) -> Baselines:
    """What one would get without transfer, or with the simplest one, on the test part; without what can't be computed."""
    examples = features.examples
    train, test = examples.where("train"), examples.distinct(examples.where("test"))

    def fit(log: Callable[[str], None] = nothing, **inputs: Any) -> Baselines:
        return evaluate.baselines(
            examples.labels, train, test, examples.classes, seed=run.seed, log=log, **inputs
        )

    LOG.info("Fitting simpler models, to compare with")
    found = fit(run.say)
    if not len(test):
        return found
    scores, right = dict(found.scores), dict(found.right)
    makers: dict[str, Callable[[], Baselines]] = {
        "raw_pixels": lambda: fit(raw_pixels=small_pixels(examples, run)),
        "last_layer_logistic": lambda: fit(last_layer=features.output),
    }
    for name, make in makers.items():
        if one := optional(run, f"The baseline {name.replace('_', ' ')}", make):
            scores[name] = one.scores[name]
            right |= one.right
    return Baselines(scores, right)


def new_notes(before: Examples, after: Examples) -> list[str]:
    """What was noted while features were computed, as of files that could not be decoded; the first lines of each note."""
    shown = []
    for note in after.notes:
        if note not in before.notes:
            lines = note.split("\n")
            more = len(lines) - NOTED
            rest = [f"  and {more:,} more, which report.html lists"] if more > 0 else []
            shown.append("\n".join([*lines[:NOTED], *rest]))
    return shown


def board(run: Run) -> Callable[[int, dict[str, float]], None]:
    """Writes each epoch's figures to the run's `logs/`, for TensorBoard; of several workers the chief does."""

    @cache
    def writer() -> Any:
        return tf.compat.v1.summary.FileWriter(str(run.folder / "logs"))

    def add(epoch: int, values: dict[str, float]) -> None:
        summary = tf.compat.v1.Summary(
            value=[
                tf.compat.v1.Summary.Value(tag=name, simple_value=value)
                for name, value in values.items()
            ]
        )
        # `tf.summary.scalar` would need TensorBoard itself, which TensorFlow no longer installs; this writer refuses to work in eager mode.
        with tf.Graph().as_default():
            writer().add_summary(summary, epoch)
            writer().flush()

    working = True

    def show(epoch: int, values: dict[str, float]) -> None:
        nonlocal working
        if working:
            what = "The curves for TensorBoard"
            done = attempt(what, lambda: add(epoch, values))
            keep(run, what, done)
            working = not isinstance(done, Failure)

    return show if run.is_main_worker else nothing


def settle(
    found: Competition, features: Features, network: Backbone, run: Run
) -> tuple[keras.Model, Outcome]:
    """The winner of a competition as a model from pixels, and its answers on examples that had no part in it."""
    taps = found.fitted.taps if features.tap_widths else None
    run.record(
        chosen=chosen_of(found),
        chosen_head=found.fitted.name,
        chosen_taps=taps,
        mirror_images=found.mirror,
        why=str(found.verdict),
        tuning=found.settings,
    )
    layer = found.fitted.layer()
    model = found.model or join(
        network.tapped(taps), layer, network.image_size, mirror=found.mirror
    )
    pixels = Pixels(features.examples, network.image_size, network.value_range, run.batch_size)
    answers = of_model(pixels, model, features) if found.model else of_head(features, layer)
    return model, judge(
        features.examples, answers, found.positions, found.probabilities, found.candidates
    )


def chosen_of(found: Competition) -> str:
    """Which model won: "frozen", "tuned", or "averaged", the mean of both."""
    if found.model is None:
        return "frozen"
    return "tuned" if found.settings["weight"] == 1 else "averaged"


def write_gaussian(
    run: Run, features: Features, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> None:
    """gaussian.npz into the run's folder, where it can be computed; see `gaussian`."""
    what = "gaussian.npz"
    if writer := optional(run, what, lambda: gaussian(features, labels, classes, widths)):
        run.write("gaussian.npz", writer)


def gaussian(
    features: Features, labels: np.ndarray, classes: int, widths: Sequence[int]
) -> Callable[[str], None]:
    """Writes gaussian.npz: `means` [C, d], `P` [d, d], both of features with each tap at length one, and `widths`, the columns of each tap."""
    means, matrix = precision(features, labels, classes, widths)
    return lambda path: np.savez(path, means=means, P=matrix, widths=np.asarray(widths))
