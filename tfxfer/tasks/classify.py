"""One class of several: the softmax of the outputs gives the probability of each class.

Targets are int [n], indices of classes. An answer is the most probable class, and its score is 1 if
that is the right one, else 0.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from tfxfer.tasks import figures as class_figures
from tfxfer.tasks.known import check_known
from tfxfer.tasks.part import Part
from tfxfer.tasks.suspects import find_suspects
from tfxfer.tasks.unsure import Unsure

NAME, SCORE, LOSS = "classify", "accuracy", "log loss"
SCORE_MEANS = "The share of right answers."
HEADS: tuple[str, ...] = ("gaussian", "linear", "ridge", "prototype")
TRIED: tuple[str, ...] = ("gaussian", "linear")
CLASSES, PERCENT, OUTPUT, NOUN = True, True, "probabilities", "class"
START, PLAIN = "linear", "linear"
CONSTANT = "always the most frequent class"
FURTHER = (
    ("macro_f1", "macro F1", "recall and precision in one, every class counts the same; 1 is best"),
    ("log_loss", "log loss", "how far the probabilities are from the truth; 0 is best"),
    ("brier", "Brier score", "the mean squared error of the probabilities; 0 is best"),
    (
        "ece",
        "expected calibration error",
        "how much stated and real hit rates differ; 0 is best",
    ),
)
PICTURES: tuple[str, ...] = ("confusion", "calibration")
parts: tuple[Part, ...] = ()

share = class_figures.share
suspects = find_suspects


def encode(
    labels: Sequence[str], order: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the index of each label, int32 [n], and the classes that occur, sorted or as given."""
    used = set(labels)
    classes = sorted(used) if order is None else [name for name in order if name in used]
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in labels], np.int32), tuple(classes)


def encode_known(labels: Sequence[str], order: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return the index of each label among the classes `names`, int32 [n].

    Raises:
        ValueError: a label is none of them.
    """
    check_known(set(labels), names, "classes")
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[name] for name in labels], np.int32)


def texts(targets: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return the class of each example."""
    return [names[i] for i in targets]


def holds(targets: np.ndarray, outputs: int) -> bool:
    """Whether an array has indices of that many classes."""
    fits = targets.dtype.kind in "iu" and targets.ndim == 1
    return fits and not ((targets < 0) | (targets >= outputs)).any()


def has(outputs: int) -> bool:
    """Whether there can be that many classes."""
    return outputs > 0


def present(targets: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes that have examples, and the targets as indices of these.

    Raises:
        ValueError: there are fewer than two.
    """
    classes, known = np.unique(targets, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "expected examples of two classes or more. "
            f"Received: {len(targets)} examples of {len(classes)} class(es)"
        )
    return classes, known


def may_hold(cells: Sequence[str]) -> bool:
    """Whether a column of a table may hold classes by its cells alone: that can't be told."""
    return False


def check(targets: np.ndarray, train: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return nothing: that each class has training examples is checked by their names."""
    return []


def count(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the number of examples of each class, int [C]."""
    return np.bincount(targets, minlength=outputs)


def strata(targets: np.ndarray) -> np.ndarray:
    """Return the class of each example, int [n]."""
    return np.asarray(targets)


def losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return -log p of the true class of each example, float [n]."""
    outputs = np.asarray(outputs, np.float64)
    shifted = outputs - outputs.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(targets)), targets]


def scores(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return 1 for each example whose largest output is that of the true class, else 0; float."""
    return (outputs.argmax(1) == targets).astype(np.float64)


# The largest of the outputs is also the largest probability.
prediction_scores = scores


def temperature(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the T for which softmax(outputs / T) has the smallest log loss.

    T is found by bisection on u = log(1/T), in 30 steps. The log loss is convex in exp(u), with the
    derivative mean(sum z softmax(e^u z)) - mean(z_y). One more example, of an unknown
    class, is added; otherwise outputs without a single error would lead to T = 0 (docs/methods.md,
    "Calibration").

    Args:
        outputs: [n, C], of examples that the head was not fitted on.
        targets: int [n].
    """
    z = np.asarray(outputs, np.float64)
    if not len(z):
        return 1.0
    z = z - z.mean(1, keepdims=True)
    unit = float(np.sqrt(np.mean(z * z)))
    if unit == 0.0:
        return 1.0
    z /= unit
    # z has mean zero over the classes, so the example of unknown class adds 0 to the second term.
    target = z[np.arange(len(z)), targets].mean() * len(z) / (len(z) + 1)
    low, high = -12.0, 12.0
    for _ in range(30):
        middle = (low + high) / 2
        if np.mean(np.sum(z * softmax(np.exp(middle) * z, 1), 1)) > target:
            high = middle
        else:
            low = middle
    return unit / float(np.exp((low + high) / 2))


def offset(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return 0: nothing is added to outputs, but where a head does not know the classes' shares."""
    return 0.0


def predictions(outputs: np.ndarray) -> np.ndarray:
    """Return the probability of each class, float64 [n, C]."""
    return softmax(np.asarray(outputs, np.float64), 1)


def prediction_tensor(outputs: Any) -> Any:
    """Return the probability of each class, float32 [n, C], as a TensorFlow tensor."""
    tensorflow = importlib.import_module("tensorflow")  # loaded only where a model runs
    return tensorflow.nn.softmax(tensorflow.cast(outputs, tensorflow.float32))


def answers(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class of each example, int [n], and its probability, float [n]."""
    best = np.asarray(predictions).argmax(1)
    return best, np.asarray(predictions)[np.arange(len(best)), best]


def leave_own_out(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the outputs, with that of each example's true class set to minus infinity."""
    outputs = np.array(outputs, np.float64)
    outputs[np.arange(len(targets)), targets] = -np.inf
    return outputs


def units(targets: np.ndarray) -> np.ndarray | None:
    """Return None: outputs have the size that they have."""
    return None


def codes(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return one-hot rows, float32 [n, C]."""
    return np.eye(outputs, dtype=np.float32)[targets]


def training_loss(smoothing: float, targets: np.ndarray) -> Any:
    """Return cross-entropy; the share `smoothing` of a label is spread evenly over all classes."""
    keras = importlib.import_module("keras")
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


def training_score(targets: np.ndarray) -> Any:
    """Return the accuracy."""
    return importlib.import_module("keras").metrics.CategoricalAccuracy(name=SCORE)


def can_judge(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return which examples could be right, bool [n].

    An example that is the only one of its class can't: without it the class is unknown, and its
    probability is exactly 0.
    """
    return predictions[np.arange(len(targets)), targets] > 0


def constant(targets: np.ndarray, outputs: int) -> np.ndarray:
    """Return the share of each class, float64 [C]."""
    return np.bincount(targets, minlength=outputs) / len(targets)


def prediction_losses(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return -log p of the true class of each example, float [n]."""
    return -np.log(predictions[np.arange(len(targets)), targets])


def decide(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return nothing: the most probable class is the answer, without a threshold."""
    return {}


def figures(
    targets: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how good probabilities are; see `tfxfer.tasks.figures.score`."""
    return class_figures.score(targets, predictions, names)


held_out_figures = figures  # there is no decision


def columns(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what users get for one example: its class, and the probability of that class."""
    best = int(np.asarray(prediction).argmax())
    return {"predicted": names[best], "probability": float(prediction[best])}


def said_of_target(target: np.ndarray, names: Sequence[str]) -> str:
    """Return the class of one example."""
    return names[int(target)]


def said_of_answer(
    prediction: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]
) -> str:
    """Return the most probable class of one example."""
    return names[int(np.asarray(prediction).argmax())]


def heading(names: Sequence[str]) -> str:
    """Return the beginning of the title of a report."""
    return "Telling apart"


def named(names: Sequence[str]) -> str:
    """Return its name: the task is the same for all outputs."""
    return NAME


def served(predictions: Any, names: Sequence[str], decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return "classes", string [B, C], and "scores", [B, C], the most probable first.

    Where an example could not be read, its predictions are 0, and its classes are empty.
    """
    tensorflow = importlib.import_module("tensorflow")
    scores, order = tensorflow.math.top_k(predictions, k=len(names))
    written = [name.encode("utf-8", "surrogateescape") for name in names]
    classes = tensorflow.gather(tensorflow.constant(written), order)
    return {"classes": tensorflow.where(scores[:, :1] > 0, classes, ""), "scores": scores}


def label_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of the column that holds the class."""
    return ("label",)


def unsure(predictions: np.ndarray, names: Sequence[str], decision: Mapping[str, Any]) -> Unsure:
    """Return the two most probable classes; the margin is the difference (Scheffer 2001)."""
    order = np.argsort(-predictions, 1, kind="stable")[:, :2]
    probabilities = np.take_along_axis(predictions, order, 1)
    return Unsure(
        margins=probabilities[:, 0] - probabilities[:, 1],
        why=("between two classes",) * len(order),
        first=tuple(names[i] for i in order[:, 0]),
        second=tuple(names[i] for i in order[:, 1]),
        probabilities=probabilities,
    )


def said_of_score(figures: Mapping[str, Any], judged: str) -> str:
    """Return what the accuracy is a share of."""
    return f"of {judged} got the right class"


def more_said(figures: Mapping[str, Any]) -> list[str]:
    """Return sentences on small classes, and on the first five answers where they are known."""
    said = []
    if abs(figures["balanced_accuracy"] - figures["accuracy"]) >= 0.005:
        said.append(f"If every class counts the same: {100 * figures['balanced_accuracy']:.1f} %.")
    if figures.get("top5") is not None:
        said.append(
            f"The right class is among the first five answers: {100 * figures['top5']:.1f} %."
        )
    return said


def further(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return balanced accuracy, macro F1, log loss, Brier score and calibration error."""
    balanced = f"{100 * figures['balanced_accuracy']:.1f} %"
    rows = [("balanced accuracy", balanced, "every class counts the same")]
    for key, name, meaning in FURTHER:
        if key in figures:  # a run of an early version has none
            rows.append((name, f"{figures[key]:.3f}", meaning))
    return rows


def compared(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the log loss and the calibration error."""
    return {"log loss": f"{figures['log_loss']:.3f}", "calibration error": f"{figures['ece']:.3f}"}
