"""The results of a run: the probabilities of each example, as figures, as a table and as arrays."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfxfer.backbone import Backbone
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.errors import SavedModelError
from tfxfer.evaluate import beaten, called, doubt, pays, unmeasured
from tfxfer.evaluate.baselines import Baselines
from tfxfer.evaluate.doubt import Doubt
from tfxfer.features import Decoder, Features, plain_values
from tfxfer.heads.layers import TakeColumns, seen_by_head
from tfxfer.run import Run
from tfxfer.run.attempt import optional

LOG = logging.getLogger(__name__)
BLOCK = 1024  # rows that are in memory at once
ANSWERED = 8192  # examples that a tuned model answers in one call: it takes half a second to begin
COMPARED = 32  # images on which the served model is compared with an engine
Candidates = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Answers:
    """Functions that return a model's answers to examples.

    Args:
        probabilities: maps positions to probabilities, float64 [n, classes].
        outputs: maps positions to the network's own output, float32 [n, d].
        tail: how many of the columns that the head sees are that output: the last ones.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    outputs: Callable[[np.ndarray], np.ndarray]
    tail: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """Calibrated probabilities of the examples on which the model can be judged.

    Args:
        examples: all examples.
        positions: the examples that have probabilities: test, validation, and those of train that
            were held out once.
        probabilities: float64 [len(positions), classes].
        answers: the model's answers to any example.
        candidates: maps the name of each candidate to the scores of the examples on which the
            choice was made.
    """

    examples: Examples
    positions: np.ndarray
    probabilities: np.ndarray
    answers: Answers
    candidates: Candidates = field(default_factory=dict)

    def of(self, *splits: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return labels and probabilities of some splits; None where they have no examples.

        Of copies of the same example, only one is returned.
        """
        mine = np.isin(np.array(self.examples.splits)[self.positions], splits)
        if not mine.any():
            return None
        rows = np.isin(self.positions, self.examples.distinct(self.positions[mine]))
        return self.examples.labels[self.positions[rows]], self.probabilities[rows]

    @cached_property
    def decision(self) -> dict[str, Any]:
        """Find what turns predictions into answers, on held-out examples that are not of test."""
        held_out = self.of("train", "validation")
        if held_out is None:
            return {}
        judged = self.examples.task.can_judge(*held_out)
        return self.examples.task.decide(held_out[0][judged], held_out[1][judged])

    def doubt(self, seed: int) -> Doubt | None:
        """Return the thresholds of the model's doubt.

        None where no example was held out, or where answers are no classes.
        """
        held_out = self.of("train", "validation") if self.examples.task.CLASSES else None
        if held_out:
            judged = self.examples.task.can_judge(*held_out)
            held_out = (held_out[0][judged], held_out[1][judged]) if judged.any() else None
        return (
            doubt.doubt(
                self.examples, self.answers.outputs, self.answers.tail, held_out=held_out, seed=seed
            )
            if held_out
            else None
        )

    def doubt_figures(self, doubt: Doubt) -> dict[str, Any]:
        """Return the results of these thresholds on test, for metrics.json."""
        test = self.examples.distinct(self.examples.where("test"))
        scores = doubt.unknown.scores(self.answers.outputs(test)) if len(test) else np.zeros(0)
        return doubt.figures(self.of("test"), scores)

    def metrics(self, baselines: Baselines) -> dict[str, Any]:
        """Return the values of metrics.json.

        Where there is no validation part, `validation` is the out-of-fold figure on train. A figure
        is None where there are no examples for it.
        """
        task, names = self.examples.task, self.examples.classes
        test, held_out = self.of("test"), self.of("validation")
        if held_out is None and (held_out := self.of("train")):
            # The only example of its class can't be held out, so it can't be used to judge.
            held = task.can_judge(*held_out)
            held_out = (held_out[0][held], held_out[1][held]) if held.any() else None
        values: dict[str, Any] = {
            "test": task.figures(*test, names, self.decision) if test else None,
            "validation": task.held_out_figures(*held_out, names, self.decision)
            if held_out
            else None,
            "baselines": baselines.figures,
        }
        return values | (
            {"candidates": {name: task.share(one) for name, one in self.candidates.items()}}
            if self.candidates
            else {}
        )

    def predictions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield the rows of predictions.csv.

        Each has the file, the split, the true class, the predicted class and its probability. Where
        answers are no classes, it has the score of the answer in place of a probability.
        """
        task, classes = self.examples.task, self.examples.classes
        labels = self.examples.labels[self.positions]
        if task.CLASSES:
            _, last = task.answers(self.probabilities)
        else:
            last = task.prediction_scores(self.probabilities, labels)
        for i, label, prediction, number in zip(
            self.positions, labels, self.probabilities, last, strict=True
        ):
            yield (
                self.examples.files[i],
                self.examples.splits[i],
                task.said_of_target(label, classes),
                task.said_of_answer(prediction, classes, self.decision),
                f"{number:.6f}",
            )

    def save(self, path: str) -> None:
        """Write probabilities.npz: files, splits, digests, labels, units and probabilities."""
        files = np.array([self.examples.files[i] for i in self.positions])
        splits = np.array([self.examples.splits[i] for i in self.positions])
        arrays = {
            "labels": self.examples.labels[self.positions],
            "probabilities": self.probabilities.astype(np.float32),
        }
        if self.examples.units is not None:
            arrays["units"] = self.examples.units[self.positions]
        np.savez_compressed(
            path,
            files=files,
            splits=splits,
            digests=np.array([self.examples.digests[i] for i in self.positions]),
            **arrays,
        )

    def summary(self, baselines: Baselines) -> str:
        """Return the figures in a few lines, and whether the pretrained network helps."""
        metrics, many = self.metrics(baselines), self.examples.kind.MANY
        rows = [(f"test {many}", metrics["test"])] if metrics["test"] else []
        if self.of("validation"):
            held = f"validation {many}"
        elif len(self.positions) == len(self.examples):
            held = f"training {many}, each held out once"
        else:
            held = f"training {many} that were held out"
        rows += [(held, metrics["validation"])] if metrics["validation"] else []
        task = self.examples.task
        others = [
            (f"  {called(name, task, self.examples.kind)}", figures)
            for name, figures in baselines.figures.items()
            if figures
        ]
        score = task.SCORE
        width = max([len(name) for name, _ in (*rows, *others)], default=0)
        lines = [f"{score}, with its 95 % interval"]
        lines += [score_line(*row, score, width) for row in rows]
        if others:
            lines += [f"simpler models, on the test {many}"]
            lines += [score_line(*row, score, width) for row in others]
        return "\n".join([*lines, *filter(None, [self.verdict(baselines)])])

    def verdict(self, baselines: Baselines) -> str | None:
        """Say whether the network helps, and which baseline is better; None without baselines.

        Both are paired comparisons on test.
        """
        task, kind = self.examples.task, self.examples.kind
        test, metrics = self.of("test"), self.metrics(baselines)
        if not test:
            return unmeasured(kind)
        labels, predictions = test
        scores = baselines.scores | {"test": task.prediction_scores(predictions, labels)}
        said = [
            pays(metrics, scores, task=task, kind=kind),
            beaten(metrics, scores, task=task, kind=kind),
        ]
        return " ".join(filter(None, said)) or None

    def write(
        self,
        run: Run,
        backbone: Backbone,
        model: keras.Model,
        baselines: Baselines,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write all results into the run's folder.

        They are labels, history, metrics, predictions, probabilities and the model.
        """
        LOG.info("Saving the model")
        run.record(verdict=self.verdict(baselines))
        if run.common.engine != "tensorflow":
            self.compare_engine(run, backbone, model)
        run.write_text("labels.txt", "".join(f"{name}\n" for name in self.examples.classes))
        run.write_csv(
            "history.csv",
            history[0] if history else ("epoch",),
            (epoch.values() for epoch in history),
        )
        metrics, doubt = self.metrics(baselines), None
        what = "The file for predict --sets and --unknown"
        if pair := optional(run, what, lambda: self.doubt_and_figures(run.common.seed)):
            doubt, figures = pair
            metrics |= figures
        run.write_json("metrics.json", metrics)
        if doubt:
            run.write("doubt.npz", doubt.save)
        if self.decision:
            run.write_json("decision.json", self.decision)
        last = "probability" if self.examples.task.CLASSES else "score"
        run.write_csv(
            "predictions.csv", ("file", "split", "true", "predicted", last), self.predictions()
        )
        run.write("probabilities.npz", self.save)
        run.write("model.keras", model.save)

    def doubt_and_figures(self, seed: int) -> tuple[Doubt, dict[str, Any]] | None:
        """Return the model's doubt and its results on test; None where no example was held out."""
        thresholds = self.doubt(seed)
        return (thresholds, self.doubt_figures(thresholds)) if thresholds else None

    def compare_engine(self, run: Run, backbone: Backbone, model: keras.Model) -> None:
        """Record and print how far an engine's probabilities are from the served model's."""
        what = f"The comparison of {run.common.engine} with TensorFlow"
        difference = optional(run, what, lambda: self.difference(backbone, model))
        if difference is not None:
            run.record(served_difference=difference)
            run.say(
                f"The probabilities of {run.common.engine} and of TensorFlow, which serves the "
                f"model, differ by at most {difference:.1e} on {COMPARED} "
                f"{self.examples.kind.MANY}."
            )

    def difference(self, backbone: Backbone, model: keras.Model) -> float | None:
        """Return the largest difference between the model's probabilities and these.

        They are compared on some examples that are not of train; the answer is None where there are
        none.
        """
        rows = np.flatnonzero(np.array(self.examples.splits)[self.positions] != "train")[:COMPARED]
        if not len(rows):
            return None
        decoded = [
            backbone.takes.decode(tf.constant(self.examples.read(int(i))))
            for i in self.positions[rows]
        ]
        served = self.examples.task.predictions(model(tf.stack(decoded), training=False))
        return float(np.abs(served - self.probabilities[rows]).max())


def score_line(name: str, figures: dict[str, Any], score: str, width: int) -> str:
    """Return a line with a name, filled up to `width`, and its figures."""
    interval = f"{figures['low']:.3f} to {figures['high']:.3f}, n = {figures['n']:,}"
    return f"{name:{width}} {figures[score]:.3f}  ({interval})"


def judge(
    examples: Examples,
    answers: Answers,
    held_out: np.ndarray,
    probabilities: np.ndarray,
    candidates: Candidates | None = None,
) -> Outcome:
    """Collect a model's answers on test and validation, and the answers to held-out examples.

    Args:
        answers: the model's answers (see `of_head`, `of_model`).
        held_out: positions of examples whose probabilities are known from fits without them.
        probabilities: their probabilities, [len(held_out), classes].
        candidates: all candidates that were compared, and which of the judged examples each of
            them got right.

    Raises:
        SavedModelError: some answers are not finite numbers.
    """
    fresh = np.setdiff1d(
        np.concatenate([examples.where("test"), examples.where("validation")]), held_out
    )
    positions = np.concatenate([fresh, held_out])
    all_probabilities = np.concatenate([answers.probabilities(fresh), probabilities])
    check_numbers(examples, positions, all_probabilities)
    order = np.argsort(positions, kind="stable")
    return Outcome(
        examples=examples,
        positions=positions[order],
        probabilities=all_probabilities[order],
        answers=answers,
        candidates=candidates or {},
    )


def check_numbers(examples: Examples, positions: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise a SavedModelError where an answer is not finite.

    This happens where a network overflows on some examples.
    """
    bad = positions[~np.isfinite(probabilities).all(1)]
    if len(bad):
        raise SavedModelError(
            f"the model's answers are infinite or not a number (NaN) for {len(bad):,} of "
            f"{len(positions):,} {examples.kind.MANY}, such as {examples.files[bad[0]]}. Expected "
            "finite numbers. Check the backbone's value range (--value-range LOW,HIGH), leave "
            f"these {examples.kind.MANY} out, or choose another --backbone."
        )


def of_head(features: Features, head: keras.layers.Layer) -> Answers:
    """Return the answers of a layer that maps the last columns of features to calibrated logits."""
    width, task = head.input_shape[-1], features.examples.task

    def probabilities(positions: np.ndarray) -> np.ndarray:
        parts = [
            task.predictions(head(block[:, -width:], training=False))
            for block in features.blocks(positions, BLOCK)
        ]
        return np.concatenate([np.zeros((0, head.output_shape[-1])), *parts])

    return Answers(probabilities, lambda positions: features.output[positions], tail_of(features))


def of_model(
    decoder: Decoder, model: keras.Model, features: Features, *, tuned: bool = True
) -> Answers:
    """Return the answers of a model that maps decoded examples to calibrated logits.

    Its head sees columns like those of `features`. Each example is decoded and answered once; where
    its outputs are needed, they stay in memory. The answers raise an ImageError where files can't
    be read any more.

    Args:
        tuned: whether the network's own output is another one than that in `features`.
    """
    seen: Any = seen_by_head(model)
    # A head without taps sees only the network's own output.
    tail = min(tail_of(features), seen.shape[-1])
    task, parts = features.examples.task, [model.outputs[0]]
    if tuned and task.CLASSES:  # nobody needs the outputs otherwise
        parts.append(TakeColumns(-tail, min(tail, features.feature_size))(seen))
    network = keras.Model(model.inputs, parts)
    known = np.zeros(len(features.examples), bool)
    kept = [np.zeros((len(known), part.shape[-1]), np.float32) for part in parts]

    def answer(positions: np.ndarray) -> None:
        decoded = decoder.dataset(positions).batch(decoder.batch_size).prefetch(2)
        try:
            answers = tf.nest.flatten(network.predict(decoded, verbose=0))
        except tf.errors.OpError:
            for _ in decoder.batches(positions.tolist(), None):
                pass  # an ImageError names the files that can't be read any more
            raise
        for values, rows in zip(kept, answers, strict=True):
            values[positions] = rows
        known[positions] = True

    def rows_of(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        new = np.unique(positions[~known[positions]])
        for start in range(0, len(new), ANSWERED):
            answer(new[start : start + ANSWERED])
        return values[positions]

    return Answers(
        probabilities=lambda positions: task.predictions(rows_of(kept[0], positions)),
        outputs=lambda positions: (
            rows_of(kept[1], positions) if len(kept) > 1 else features.output[positions]
        ),
        tail=tail,
    )


def tail_of(features: Features) -> int:
    """Return where the network's own output begins in features, counted from their end."""
    return features.tap_widths[-1] if features.tap_widths else features.feature_size


def plain_features(examples: Examples, run: Run) -> Features | None:
    """Return `plain_values` of all examples; None for a kind of example without any.

    Raises:
        ImageError: some examples can't be read any more, so that the rows would be of others.
    """
    return plain_values(
        examples,
        cache=Cache(run.cache_folder),
        skip_bad_images=run.common.skip_bad_images,
        progress=True,
    )
