"""The functions of a kind of answer, and a table of the kinds.

A kind of answer is a module with the functions of `Task`. The rest of tfxfer computes an output
for each example, float [n, K], and asks the module what it means.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfxfer.tasks import classify, columns, multilabel, regress
from tfxfer.tasks.part import Part
from tfxfer.tasks.unsure import Unsure


class Task(Protocol):
    """A kind of answer.

    Targets are the labels as an array with a row for each example. Outputs are what a model
    computes, float [n, K]; predictions are what users get from them, float64 [n, K].

    Attributes:
        NAME: its name in settings.
        CLASSES: whether each example has exactly one of several classes. Pages and files say more
            of classes than of other answers.
        PERCENT: whether the score is a share, to be shown in percent.
        OUTPUT: the name of the predictions for other programs.
        NOUN: what an output stands for, such as "class".
        START: the head that a training of the network starts from.
        PLAIN: the head of the simpler models that a run is compared with.
        CONSTANT: what the simplest model of all does.
        SCORE: the name of the mean score, and its key in figures.
        SCORE_MEANS: one sentence on what it is.
        LOSS: the name of the loss.
        HEADS: heads that can be fitted.
        TRIED: heads that are tried where the user does not choose one.
        PICTURES: pictures of a report that have a meaning here, of "confusion", "calibration" and
            "numbers".
    """

    NAME: str
    CLASSES: bool
    PERCENT: bool
    OUTPUT: str
    NOUN: str
    START: str
    PLAIN: str
    CONSTANT: str
    SCORE: str
    SCORE_MEANS: str
    LOSS: str
    HEADS: tuple[str, ...]
    TRIED: tuple[str, ...]
    PICTURES: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that have a head each; () where one head gives all outputs."""

    def encode(
        self, labels: Sequence[str], order: Sequence[str] | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the targets [n, ...] and the names of the K outputs.

        Args:
            labels: the label of each example, as text (see `cells` for several columns).
            order: the names in the order that the data gives; None where it gives none.

        Raises:
            ValueError: a text is no label of this kind; the end of a sentence on the data.
        """

    def encode_known(
        self, labels: Sequence[str], order: Sequence[str], names: Sequence[str]
    ) -> np.ndarray:
        """Return the targets [n, ...] of labels for outputs that are known.

        Args:
            order: the names in the order that the data gives; those of the outputs where it gives
                none.
            names: those of the K outputs.

        Raises:
            ValueError: a text is no label of this kind, or has a name that is no output; the end
                of a sentence on the data.
        """

    def texts(self, targets: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the label of each example as text, from which `encode_known` gets the targets."""

    def holds(self, targets: np.ndarray, outputs: int) -> bool:
        """Whether an array, read from a file, has targets for that many outputs."""

    def has(self, outputs: int) -> bool:
        """Whether the answer can have that many outputs."""

    def may_hold(self, cells: Sequence[str]) -> bool:
        """Whether the cells of a column look like labels of this kind."""

    def check(self, targets: np.ndarray, train: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return notes on targets.

        Args:
            train: bool [n], the training examples.

        Raises:
            ValueError: they can't be learnt; the end of a sentence on the data.
        """

    def count(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return the number of examples of each output, int [K], for tables."""

    def present(self, targets: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the outputs that can be learnt, and the targets numbered by these.

        Raises:
            ValueError: nothing can be learnt from these targets.
        """

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the group of each example, int [n]; each part and fold gets its share of each."""

    def losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each example, float [n], for the outputs as they are."""

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return how good the answer to each example is, float [n], at most 1."""

    def prediction_scores(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the same as `scores`, from predictions."""

    def temperature(self, outputs: np.ndarray, targets: np.ndarray) -> Any:
        """Return what outputs are divided by so that their loss is smallest: a number, or [K]."""

    def offset(self, outputs: np.ndarray, targets: np.ndarray) -> Any:
        """Return what is then added to them, a number or [K]."""

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the predictions, float64 [n, K], of outputs."""

    def prediction_tensor(self, outputs: Any) -> Any:
        """Return the predictions of outputs as a TensorFlow tensor, float32 [n, K]."""

    def answers(self, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of each example's answer, int [n], and how sure it is, float [n]."""

    def leave_own_out(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return outputs of examples that can't be held out, without what their own label tells."""

    def codes(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return the targets as what the Keras loss compares outputs with, float32 [n, K]."""

    def units(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the size of each output, float32 [K]; None where outputs have no unit."""

    def training_loss(self, smoothing: float, targets: np.ndarray) -> Any:
        """Return the Keras loss of outputs and codes, for these training targets."""

    def training_score(self, targets: np.ndarray) -> Any:
        """Return the Keras metric of outputs and codes that is shown while a model trains."""

    def can_judge(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return which held-out examples can be used to judge the model, bool [n]."""

    def constant(self, targets: np.ndarray, outputs: int) -> np.ndarray:
        """Return the best prediction without looking at an example, float64 [K]."""

    def prediction_losses(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each prediction, float [n], where `can_judge` is true."""

    def suspects(self, targets: np.ndarray, predictions: np.ndarray) -> list[tuple[int, int]]:
        """Return (position, index of the suggested answer) where a label looks wrong.

        The most doubtful comes first. The model must not have been fitted on these examples.
        """

    def share(self, scores: np.ndarray) -> dict[str, float]:
        """Return the mean score under the name `SCORE`, "low" to "high" and "n"; n >= 1."""

    def decide(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Return what turns predictions into answers, such as thresholds, as JSON values.

        It is found on predictions of held-out examples. {} where the task needs nothing.
        """

    def figures(
        self,
        targets: np.ndarray,
        predictions: np.ndarray,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return how good predictions are, as JSON values that begin with those of `share`.

        Figures of each output, if there are any, are in "classes".

        Args:
            decision: what `decide` returned.
        """

    def held_out_figures(
        self,
        targets: np.ndarray,
        predictions: np.ndarray,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the same as `figures`, on the examples on which `decide` found its decision.

        So that figures are not better than on new examples, each example is answered by a decision
        that did not look at it.
        """

    def columns(
        self, prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the columns of a table in which users get the answer to one example."""

    def said_of_target(self, target: np.ndarray, names: Sequence[str]) -> str:
        """Return the target of one example as text."""

    def said_of_answer(
        self, prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> str:
        """Return the answer to one example as text."""

    def heading(self, names: Sequence[str]) -> str:
        """Return the beginning of the title of a report, before the names."""

    def named(self, names: Sequence[str]) -> str:
        """Return the name of the task once its outputs are known by these names."""

    def served(
        self, predictions: Any, names: Sequence[str], decision: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what an export answers, as TensorFlow tensors [B, ...] by their names.

        Args:
            predictions: float32 [B, K].
        """

    def label_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the columns in which a table has the labels."""

    def unsure(
        self, predictions: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
    ) -> Unsure | None:
        """Return between which answers the model wavers; None where predictions don't tell."""

    def said_of_score(self, figures: Mapping[str, Any], judged: str) -> str:
        """Return the end of a sentence that begins with the score in percent.

        Args:
            figures: those of `share`.
            judged: what was judged, such as "153 test photos".
        """

    def more_said(self, figures: Mapping[str, Any]) -> list[str]:
        """Return further sentences on the figures, for everybody."""

    def further(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Return name, value and meaning of further figures, for specialists."""

    def compared(self, figures: Mapping[str, Any]) -> dict[str, str]:
        """Return figures besides the score by which models are compared, by their names."""


CLASSIFY: Task = classify
# A new kind of answer is one file, and one row here.
TASKS: dict[str, Task] = {
    classify.NAME: CLASSIFY,
    multilabel.NAME: multilabel,
    regress.NAME: regress,
}


def calibrated(task: Task, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return outputs divided by their temperature, with their offset added."""
    divided = outputs / task.temperature(outputs, targets)
    return divided + task.offset(divided, targets)


def calibrated_loss(task: Task, outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean loss of outputs after they are calibrated."""
    return float(task.losses(calibrated(task, outputs, targets), targets).mean())


def find(name: str) -> Task:
    """Return the kind of answer of that name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(name, str) and name.startswith(columns.PREFIX):
        return columns.read_name(name)
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"has the task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def check_decision(decision: Any, outputs: int) -> dict[str, Any]:
    """Return what `Task.decide` has returned, as it was read from a file.

    Args:
        outputs: K, the number of the model's outputs.

    Raises:
        ValueError: it is something else; the end of a sentence on the file.
    """
    if not isinstance(decision, dict):
        raise ValueError("holds no thresholds")
    for name, value in decision.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(one is None or type(one) in (int, float) for one in numbers):
            raise ValueError(f"has something else than numbers as {name}")
        if isinstance(value, list) and len(value) != outputs:
            raise ValueError(f"has {len(value)} numbers as {name}; expected {outputs}")
    return decision
