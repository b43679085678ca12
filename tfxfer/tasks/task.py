"""The functions of a kind of answer, and a table of the kinds.

A kind of answer is a module with the functions of `Task`. The rest of tfxfer computes an output
for each example, float [n, K], and asks the module what it means.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfxfer.tasks import classify


class Task(Protocol):
    """A kind of answer.

    Targets are the labels as an array with a row for each example. Outputs are what a model
    computes, float [n, K]; predictions are what users get from them, float64 [n, K].

    Attributes:
        NAME: its name in settings.
        SCORE: the name of the mean score, and its key in figures.
        SCORE_MEANS: one sentence on what it is.
        LOSS: the name of the loss.
        HEADS: heads that can be fitted.
        TRIED: heads that are tried where the user does not choose one.
        PICTURES: pictures of a report that have a meaning here, of "confusion" and "calibration".
    """

    NAME: str
    SCORE: str
    SCORE_MEANS: str
    LOSS: str
    HEADS: tuple[str, ...]
    TRIED: tuple[str, ...]
    PICTURES: tuple[str, ...]

    def encode(
        self, labels: Sequence[str], order: Sequence[str] | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the targets [n, ...] and the names of the K outputs.

        Args:
            labels: the label of each example, as text.
            order: the names in the order that the data gives; None where it gives none.
        """

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
        """Return how good each answer is, float [n], from 0 to 1; also from predictions."""

    def temperature(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Return the number by which outputs are divided so that their loss is smallest."""

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

    def training_loss(self, smoothing: float) -> Any:
        """Return the Keras loss of outputs and codes."""

    def training_score(self) -> Any:
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

    def figures(
        self, targets: np.ndarray, predictions: np.ndarray, names: Sequence[str]
    ) -> dict[str, Any]:
        """Return how good predictions are, as JSON values that begin with those of `share`.

        Figures of each output, if there are any, are in "classes".
        """

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
TASKS: dict[str, Task] = {classify.NAME: CLASSIFY}


def calibrated_loss(task: Task, outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean loss of outputs after they are divided by their temperature."""
    return float(task.losses(outputs / task.temperature(outputs, targets), targets).mean())


def find(name: str) -> Task:
    """Return the kind of answer of that name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"has the task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]
