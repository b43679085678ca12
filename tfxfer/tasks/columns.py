"""Several columns of labels, each a class or a number, answered at once.

Targets are float32 [n, J], a column each: the index of a class, or a number; not-a-number where
nobody knows. Outputs are those of all columns side by side. The score of an example is the mean of
the scores of its known columns, and its loss the mean of their losses: that of a class is divided
by the logarithm of the number of classes, so that guessing costs about 1 in every column.
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfxfer.tasks import classify, regress
from tfxfer.tasks.cells import is_empty, join_cells, split_cells
from tfxfer.tasks.part import Part
from tfxfer.tasks.scores import share_of_scores
from tfxfer.tasks.strata import group_rows
from tfxfer.tasks.unsure import Unsure

PREFIX = "columns:"
KINDS: dict[str, Any] = {classify.NAME: classify, regress.NAME: regress}
BETWEEN = ": "  # between the name of a column and that of a class
MOST_CLASSES = 20  # a column of more different whole numbers holds numbers, and no classes
# A kind; where the names of classes hold `BETWEEN`, too, how often the name of the column does; and
# the number of outputs.
ONE = rf"({'|'.join(KINDS)})(?:@(\d{{1,3}}))?(?:\*(\d{{1,6}}))?"
WRITTEN = re.compile(rf"{PREFIX}{ONE}(?:,{ONE})*")


def kind_of(cells: Sequence[str]) -> str:
    """Return the task of a column of a table: numbers, or classes.

    Numbers have fractions, or more than `MOST_CLASSES` different values.
    """
    if not regress.may_hold(cells):
        return classify.NAME
    values = {float(cell) for cell in cells if not is_empty(cell)}
    whole = all(value.is_integer() for value in values)
    return classify.NAME if whole and len(values) <= MOST_CLASSES else regress.NAME


def name_of(kinds: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return the name of the task of these columns, whose outputs are not counted yet.

    Args:
        names: those of the columns.
        cells: what the table holds in each.
    """
    words = []
    for kind, name, own in zip(kinds, names, cells, strict=True):
        odd = KINDS[kind].CLASSES and any(BETWEEN in " ".join(cell.split()) for cell in own)
        words.append(word_of(kind, name.count(BETWEEN) if odd else None))
    return PREFIX + ",".join(words)


def word_of(kind: str, depth: int | None, size: int = 0) -> str:
    """Return a kind as it stands in the name of a task, such as "classify*3"."""
    deep = "" if depth is None else f"@{depth}"
    return f"{kind}{deep}*{size}" if size else f"{kind}{deep}"


@functools.cache
def read_name(name: str) -> "Columns":
    """Return the task of a name such as "columns:classify*3,regress*1".

    Raises:
        ValueError: the name is of another form.
    """
    if WRITTEN.fullmatch(name) is None:
        raise ValueError(f"has the task {name!r}; expected {PREFIX} and the kind of each column")
    words = re.findall(ONE, name.removeprefix(PREFIX))
    return Columns(
        name,
        tuple(kind for kind, _, _ in words),
        tuple(int(size or 0) for _, _, size in words),
        tuple(int(depth) if depth else None for _, depth, _ in words),
    )


def column_of(name: str, depth: int | None) -> str:
    """Return the name of the column in that of an output that stands for a class.

    Args:
        depth: how often the name of the column holds `BETWEEN`; None where that of the class does
            not.
    """
    if depth is None:
        return name.rpartition(BETWEEN)[0]
    return BETWEEN.join(name.split(BETWEEN)[: depth + 1])


def cell_of(value: float, classes: Sequence[str] | None) -> str:
    """Return a target as it stands in a table; "" where it is not known."""
    if value != value:
        return ""
    return repr(value) if classes is None else classes[int(value)]


class Columns:
    """The task of several columns; see `tfxfer.tasks.Task` for its functions.

    Args:
        name: its name in settings, which says the kinds and sizes.
        kinds: the task of each column.
        sizes: the number of outputs of each; 0 before they are counted.
        depths: see `column_of`, for each.
    """

    CLASSES, PERCENT, OUTPUT, NOUN = False, False, "outputs", "output"
    START, PLAIN = "linear", "linear"
    CONSTANT = "always the most frequent class, and the mean"
    SCORE, LOSS = "mean score", "normalised loss"
    SCORE_MEANS = (
        "The mean over columns: of classes the share of right answers, of numbers R2, which is 1 "
        "where all are right and 0 where they are no better than the mean."
    )
    HEADS: tuple[str, ...] = ("gaussian", "linear", "ridge", "huber", "prototype")
    TRIED: tuple[str, ...] = ("gaussian",)
    PICTURES: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        kinds: tuple[str, ...],
        sizes: tuple[int, ...],
        depths: tuple[int | None, ...],
    ):
        self.NAME, self.kinds, self.sizes, self.depths = name, kinds, sizes, depths

    @property
    def parts(self) -> tuple[Part, ...]:
        """The columns in order."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return tuple(
            Part(KINDS[kind], place, slice(ends[place], ends[place + 1]))
            for place, kind in enumerate(self.kinds)
        )

    def column_names(self, names: Sequence[str]) -> list[str]:
        """Return the names of the columns, from those of the outputs."""
        first = [names[part.outputs.start] for part in self.parts]
        return [
            column_of(name, self.depths[part.place]) if part.task.CLASSES else name
            for name, part in zip(first, self.parts, strict=True)
        ]

    def own_names(self, part: Part, names: Sequence[str]) -> list[str]:
        """Return the names of a column's classes, or of its number."""
        own = list(names[part.outputs])
        if not part.task.CLASSES:
            return own
        depth = self.depths[part.place]
        if depth is None:
            return [name.rpartition(BETWEEN)[2] for name in own]
        return [BETWEEN.join(name.split(BETWEEN)[depth + 1 :]) for name in own]

    def named(self, names: Sequence[str]) -> str:
        """Return the name of the task, with the number of outputs of each column."""
        left, words = list(names), []
        for kind, depth in zip(self.kinds, self.depths, strict=True):
            count = 1
            if KINDS[kind].CLASSES:
                column = column_of(left[0], depth)
                count = sum(column_of(name, depth) == column for name in left)
            words.append(word_of(kind, depth, count))
            left = left[count:]
        return PREFIX + ",".join(words)

    def may_hold(self, cells: Sequence[str]) -> bool:
        """Columns are named by the user."""
        return False

    def encode(
        self, labels: Sequence[str], order: Sequence[str] | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return float32 [n, J], and the names of all outputs.

        Args:
            order: the names of the columns; or of the outputs, where these are known already.

        Raises:
            ValueError: a cell holds no number, or a class that is not in `order`.
        """
        rows = [split_cells(text) or [text] for text in labels]
        count = len(self.kinds)
        order = list(order or ())
        fresh = len(order) == count
        if not fresh and len(order) != sum(self.sizes):
            raise ValueError(f"has {len(order)} columns of labels; expected {count}")
        if odd := next((row for row in rows if len(row) != count), None):
            raise ValueError(f"has {len(odd)} columns of labels; expected {count}")
        columns = order if fresh else self.column_names(order)
        targets = np.full((len(rows), count), np.nan, np.float32)
        names: list[str] = []
        for place, (kind, column) in enumerate(zip(self.kinds, columns, strict=True)):
            cells = [row[place] for row in rows]
            known = np.array([not is_empty(cell) for cell in cells], bool)
            said = [" ".join(cell.split()) for cell in cells if not is_empty(cell)]
            if kind == regress.NAME:
                read = [regress.numbers_in([cell], [column], i) for i, cell in enumerate(cells)]
                targets[:, place] = np.array(read, np.float32).reshape(len(rows))
                names.append(column)
                continue
            given = None if fresh else self.own_names(self.parts[place], order)
            if given is not None and (odd_names := sorted(set(said) - set(given))):
                raise ValueError(
                    f"has {odd_names[0]!r} in the column {column}; expected one of "
                    f"{', '.join(given)}"
                )
            numbers = {name: i for i, name in enumerate(given or sorted(set(said)))}
            targets[known, place] = [numbers[name] for name in said]
            names += [f"{column}{BETWEEN}{name}" for name in numbers]
        return targets, tuple(names)

    def encode_known(
        self, labels: Sequence[str], order: Sequence[str], names: Sequence[str]
    ) -> np.ndarray:
        """Return float32 [n, J] for the outputs `names`.

        Args:
            order: the names of the columns of the data, or of all outputs.

        Raises:
            ValueError: as `encode`.
        """
        own = self.column_names(order) if len(order) == len(names) else list(order)
        wanted = self.column_names(names)
        if own != wanted and sorted(own) == sorted(wanted):
            places = [own.index(column) for column in wanted]
            rows = [split_cells(text) or [text] for text in labels]
            labels = [join_cells([row[place] for place in places]) for row in rows]
        return self.encode(labels, names)[0]

    def texts(self, targets: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the cells of each example."""
        own = [self.own_names(part, names) if part.task.CLASSES else None for part in self.parts]
        rows = np.asarray(targets, np.float64).tolist()
        return [
            join_cells([cell_of(value, classes) for value, classes in zip(row, own, strict=True)])
            for row in rows
        ]

    def holds(self, targets: np.ndarray, outputs: int) -> bool:
        """Whether an array has a column of indices for each of classes, and one for each number."""
        if targets.dtype.kind != "f" or targets.shape != (len(targets), len(self.kinds)):
            return False
        return self.has(outputs) and all(
            part.task.holds(part.own(targets[part.known(targets)]), part.size)
            for part in self.parts
        )

    def has(self, outputs: int) -> bool:
        """Whether its columns have that many outputs together."""
        return outputs == sum(self.sizes)

    def check(self, targets: np.ndarray, train: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return notes on what is not known.

        Raises:
            ValueError: a column has fewer than two classes in training, or one number alone.
        """
        task = read_name(self.named(names))
        notes = []
        for part, column in zip(task.parts, task.column_names(names), strict=True):
            known = part.known(targets)
            own = part.own(targets[known])
            if not part.task.CLASSES:
                part.task.check(own, train[known], [column])
            elif len(np.unique(own[train[known]])) < 2:
                raise ValueError(
                    f"has fewer than two classes in the training part of the column {column!r}; "
                    "add examples, or leave the column out"
                )
            if lost := int((~known).sum()):
                notes.append(f"{column} is not known for {lost:,} of {len(targets):,} examples.")
        return notes

    def count(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return how many examples each class has, and each number, int [K]."""
        return np.concatenate(
            [
                part.task.count(part.own(targets[part.known(targets)]), part.size)
                for part in self.parts
            ]
        )

    def present(self, targets: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all outputs, and the targets as they are."""
        return np.arange(outputs), np.asarray(targets)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return a group for each example, int [n]: those of the same classes in all columns."""
        targets = np.asarray(targets, np.float64)
        classes = [i for i, kind in enumerate(self.kinds) if KINDS[kind].CLASSES]
        if not classes:
            return regress.strata(targets)
        own = np.nan_to_num(targets[:, classes], nan=-1)
        return group_rows(own, regress.GROUPS, own[:, 0].astype(int))

    def mean(
        self, outputs: np.ndarray, targets: np.ndarray, of: Callable[[Part], Callable]
    ) -> np.ndarray:
        """Return the mean of a figure over the known columns of each example, float [n]."""
        outputs, targets = np.asarray(outputs), np.asarray(targets)
        total, count = np.zeros(len(targets)), np.zeros(len(targets))
        for part in self.parts:
            known = part.known(targets)
            if known.any():
                own = part.own(targets[known])
                total[known] += of(part)(outputs[known][:, part.outputs], own)
                count[known] += 1
        return total / np.maximum(count, 1)

    def weight(self, part: Part) -> float:
        """Return what the loss of a column is multiplied by."""
        return 1 / float(np.log(part.size)) if part.task.CLASSES else 1.0

    def losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the mean normalised loss of each example, float [n]."""
        return self.mean(
            outputs,
            targets,
            lambda part: lambda z, own: self.weight(part) * part.task.losses(z, own),
        )

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the mean score of each example, float [n]."""
        return self.mean(outputs, targets, lambda part: part.task.scores)

    def prediction_scores(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the same from predictions."""
        return self.mean(predictions, targets, lambda part: part.task.prediction_scores)

    def prediction_losses(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the mean normalised loss of predictions, float [n]."""

        def of(part: Part) -> Callable:
            def loss(own_predictions: np.ndarray, own: np.ndarray) -> np.ndarray:
                if part.task.CLASSES:
                    own_predictions = np.maximum(own_predictions, 1e-12)
                return self.weight(part) * part.task.prediction_losses(own_predictions, own)

            return loss

        return self.mean(predictions, targets, of)

    def temperature(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the temperature of each output, float64 [K]."""
        values = np.ones(sum(self.sizes))
        for part in self.parts:
            known = part.known(targets)
            values[part.outputs] = part.task.temperature(
                np.asarray(outputs)[known][:, part.outputs],
                part.own(targets[known]),
            )
        return values

    def offset(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Return 0: nothing is added."""
        return 0.0

    def side_by_side(self, of: Callable[[Part], np.ndarray]) -> np.ndarray:
        """Return what is computed for each column, side by side."""
        return np.concatenate([of(part) for part in self.parts], -1)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return probabilities and numbers, float64 [n, K]."""
        outputs = np.asarray(outputs)
        return self.side_by_side(lambda part: part.task.predictions(outputs[:, part.outputs]))

    def prediction_tensor(self, outputs: Any) -> Any:
        """Return probabilities and numbers as a TensorFlow tensor, float32 [n, K]."""
        tensorflow = importlib.import_module("tensorflow")
        return tensorflow.concat(
            [part.task.prediction_tensor(outputs[:, part.outputs]) for part in self.parts], 1
        )

    def answers(self, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0 and the first prediction of each example: there is not one answer."""
        return regress.answers(predictions)

    def leave_own_out(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the outputs as they are."""
        return np.asarray(outputs, np.float64)

    def codes(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return one-hot rows and numbers, float32 [n, K]; not-a-number where it is not known."""
        targets = np.asarray(targets)

        def of(part: Part) -> np.ndarray:
            rows = np.full((len(targets), part.size), np.nan, np.float32)
            known = part.known(targets)
            rows[known] = part.task.codes(part.own(targets[known]), part.size)
            return rows

        return self.side_by_side(of)

    def units(self, targets: np.ndarray) -> np.ndarray | None:
        """Return 1 for classes, and the standard deviation of each number, float32 [K]."""
        if regress.NAME not in self.kinds:
            return None
        units = np.ones(sum(self.sizes), np.float32)
        for part in self.parts:
            if not part.task.CLASSES:
                own = regress.variances_of(part.own(targets))
                units[part.outputs] = np.sqrt(np.where(own > 0, own, 1.0))
        return units

    def training_loss(self, smoothing: float, targets: np.ndarray) -> Any:
        """Return the mean of the normalised losses of the known columns."""
        tensorflow = importlib.import_module("tensorflow")
        numbers = self.number_losses(smoothing, targets)

        def loss(part: Part, truth: Any, outputs: Any) -> Any:
            if not part.task.CLASSES:
                return numbers[part.place](truth, outputs)
            truth = truth * (1 - smoothing) + smoothing / part.size
            each = tensorflow.nn.softmax_cross_entropy_with_logits(truth, outputs)
            return self.weight(part) * each

        return self.mean_tensor(loss)

    def training_score(self, targets: np.ndarray) -> Any:
        """Return the mean score of the known columns."""
        tensorflow = importlib.import_module("tensorflow")
        numbers = self.number_losses(0.0, targets)

        def score(part: Part, truth: Any, outputs: Any) -> Any:
            if not part.task.CLASSES:
                return 1 - numbers[part.place](truth, outputs)
            same = tensorflow.argmax(truth, 1) == tensorflow.argmax(outputs, 1)
            return tensorflow.cast(same, tensorflow.float32)

        keras = importlib.import_module("keras")
        return keras.metrics.MeanMetricWrapper(self.mean_tensor(score), name=self.SCORE)

    def number_losses(self, smoothing: float, targets: np.ndarray) -> dict[int, Callable]:
        """Return the Keras loss of each column of numbers, by its place."""
        return {
            part.place: regress.training_loss(smoothing, part.own(targets))
            for part in self.parts
            if not part.task.CLASSES
        }

    def mean_tensor(self, of: Callable[[Part, Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Return a function of codes and outputs: the mean of a figure over known columns."""
        tensorflow = importlib.import_module("tensorflow")

        def mean(codes: Any, outputs: Any) -> Any:
            total = tensorflow.zeros(tensorflow.shape(outputs)[0])
            count = tensorflow.zeros_like(total)
            for part in self.parts:
                truth = codes[:, part.outputs]
                known = tensorflow.reduce_all(tensorflow.math.is_finite(truth), 1)
                truth = tensorflow.where(known[:, None], truth, 0.0)
                each = of(part, truth, outputs[:, part.outputs])
                total += tensorflow.where(known, each, 0.0)
                count += tensorflow.cast(known, tensorflow.float32)
            return total / tensorflow.maximum(count, 1.0)

        return mean

    def can_judge(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return which examples have a target that is known, bool [n]."""
        known = ~np.isnan(np.asarray(targets, np.float64))
        return np.asarray(known.any(1))

    def constant(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return the share of each class and the mean of each number, float64 [K]."""
        return self.side_by_side(
            lambda part: part.task.constant(part.own(targets[part.known(targets)]), part.size)
        )

    def suspects(self, targets: np.ndarray, predictions: np.ndarray) -> list[tuple[int, int]]:
        """Return nothing: labels that look wrong are not looked for yet."""
        return []

    def share(self, scores: np.ndarray) -> dict[str, float]:
        """Return the mean score with its 95 % interval "low" to "high", and "n"."""
        return share_of_scores(scores, self.SCORE)

    def decide(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Return "half_widths" [K] of the intervals of numbers; None for classes."""
        widths: list[float | None] = [None] * sum(self.sizes)
        for part in self.parts:
            if not part.task.CLASSES:
                own = part.own(targets)
                said = np.asarray(predictions)[:, part.outputs]
                widths[part.outputs.start] = regress.decide(own, said)["half_widths"][0]
        return {"coverage": regress.COVERAGE, "half_widths": widths}

    def own_decision(self, part: Part, decision: Mapping[str, Any]) -> dict[str, Any]:
        """Return the decision of one column."""
        widths = list(decision.get("half_widths") or [None] * sum(self.sizes))
        return {} if part.task.CLASSES else {"half_widths": widths[part.outputs]}

    def each(
        self, targets: np.ndarray, predictions: np.ndarray, names: Sequence[str], decision: Any
    ) -> Iterator[tuple[str, Part, dict[str, Any]]]:
        """Yield the name of each column that has known targets, the column, and its figures."""
        for part, column in zip(self.parts, self.column_names(names), strict=True):
            known = part.known(targets)
            if known.any():
                yield (
                    column,
                    part,
                    part.task.figures(
                        part.own(targets[known]),
                        np.asarray(predictions)[known][:, part.outputs],
                        self.own_names(part, names),
                        self.own_decision(part, decision),
                    ),
                )

    def figures(
        self,
        targets: np.ndarray,
        predictions: np.ndarray,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the figures of `share`, and "columns" with those of each column by its own task.

        "classes" has the figures of all classes, by the names of the outputs.
        """
        columns: dict[str, Any] = {}
        classes: dict[str, Any] = {}
        for column, part, figures in self.each(targets, predictions, names, decision):
            columns[column] = {"task": part.task.NAME, **figures}
            own = figures.get("classes", {})
            classes |= {f"{column}{BETWEEN}{name}": one for name, one in own.items()}
        return {
            **self.share(self.prediction_scores(predictions, targets)),
            "columns": columns,
            **({"classes": classes} if classes else {}),
        }

    def held_out_figures(
        self,
        targets: np.ndarray,
        predictions: np.ndarray,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the same: neither classes nor numbers have thresholds."""
        return self.figures(targets, predictions, names, decision)

    def columns(
        self, prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the answer of each column: a class and its probability, or a number."""
        row: dict[str, Any] = {}
        for part, column in zip(self.parts, self.column_names(names), strict=True):
            own = part.task.columns(
                np.asarray(prediction)[part.outputs],
                self.own_names(part, names),
                self.own_decision(part, decision),
            )
            if part.task.CLASSES:
                own = {column: own["predicted"], f"{column}_probability": own["probability"]}
            row |= own
        return row

    def said_of_target(self, target: np.ndarray, names: Sequence[str]) -> str:
        """Return the targets of one example as text."""
        said = []
        for part, column in zip(self.parts, self.column_names(names), strict=True):
            value = np.asarray(target)[part.place]
            text = "?"
            if value == value:
                own = self.own_names(part, names)
                text = own[int(value)] if part.task.CLASSES else f"{value:.6g}"
            said.append(f"{column} {text}")
        return "; ".join(said)

    def said_of_answer(
        self, prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> str:
        """Return the answer to one example as text."""
        said = []
        for part, column in zip(self.parts, self.column_names(names), strict=True):
            own = np.asarray(prediction)[part.outputs]
            said.append(
                f"{column} {part.task.said_of_answer(own, self.own_names(part, names), {})}"
            )
        return "; ".join(said)

    def served(
        self, predictions: Any, names: Sequence[str], decision: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return an output for each column, by its name: a class or a number, [B], and more."""
        tensorflow = importlib.import_module("tensorflow")
        outputs: dict[str, Any] = {}
        for part, column in zip(self.parts, self.column_names(names), strict=True):
            name = re.sub(r"\W", "_", column)
            own = part.task.served(
                predictions[:, part.outputs],
                self.own_names(part, names),
                self.own_decision(part, decision),
            )
            if part.task.CLASSES:
                outputs |= {
                    name: own["classes"][:, 0],
                    f"{name}_probability": own["scores"][:, 0],
                }
                continue
            outputs |= {
                name if key == part.task.OUTPUT else f"{name}_{key}": tensorflow.reshape(one, [-1])
                for key, one in own.items()
            }
        return outputs

    def heading(self, names: Sequence[str]) -> str:
        """Return the beginning of the title of a report."""
        return "Answering"

    def label_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self.column_names(names))

    def unsure(
        self, predictions: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> Unsure | None:
        """Return the two classes of the column whose margin is smallest; None without classes."""
        each = [
            (
                column,
                part.task.unsure(predictions[:, part.outputs], self.own_names(part, names), {}),
            )
            for part, column in zip(self.parts, self.column_names(names), strict=True)
            if part.task.CLASSES
        ]
        if not each:
            return None
        closest = np.stack([one.margins for _, one in each]).argmin(0)
        chosen = [(each[k][0], each[k][1], i) for i, k in enumerate(closest)]
        return Unsure(
            margins=np.array([one.margins[i] for _, one, i in chosen]),
            why=tuple(f"between two classes of {column}" for column, _, _ in chosen),
            first=tuple(one.first[i] for _, one, i in chosen),
            second=tuple(one.second[i] for _, one, i in chosen),
            probabilities=np.stack([one.probabilities[i] for _, one, i in chosen]),
        )

    def said_of_score(self, figures: Mapping[str, Any], judged: str) -> str:
        """Return what the score is a mean of."""
        return f"is the mean score over {len(figures['columns'])} columns on {judged}"

    def more_said(self, figures: Mapping[str, Any]) -> list[str]:
        """Return a sentence on each column."""
        said = []
        for column, one in figures["columns"].items():
            task = KINDS[one["task"]]
            score = one[task.SCORE]
            shown = f"{100 * score:.1f} %" if task.PERCENT else f"{score:.3f}"
            said.append(f"{column}: {task.SCORE} {shown}.")
        return [
            *said,
            "A frozen network serves all columns, each with a head of its own, so nothing has to "
            "be balanced between them.",
        ]

    def further(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Return the further figures of each column."""
        return [
            (name if name.startswith(f"{column}: ") else f"{column}: {name}", value, meaning)
            for column, one in figures["columns"].items()
            for name, value, meaning in KINDS[one["task"]].further(one)
        ]

    def compared(self, figures: Mapping[str, Any]) -> dict[str, str]:
        """Return the score of each column."""
        return {
            f"{column} {KINDS[one['task']].SCORE}": f"{one[KINDS[one['task']].SCORE]:.3f}"
            for column, one in figures["columns"].items()
        }
