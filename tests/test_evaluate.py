"""Figures from labels and probabilities, and what one would get without transfer."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from sklearn.preprocessing import StandardScaler

from tfxfer.data.folds import sample
from tfxfer.evaluate import (
    beaten,
    lowest,
    members,
    pays,
    reliability,
    score,
    strangeness,
    wilson,
)
from tfxfer.evaluate.baselines import fit_baselines


def quiet(_: str) -> None:
    """A log that nobody reads."""


def test_the_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    probabilities[np.arange(200), labels] += 0.3
    probabilities /= probabilities.sum(1, keepdims=True)
    found, said = score(labels, probabilities, ["a", "b", "c"]), probabilities.argmax(1)
    precision, recall, _, support = precision_recall_fscore_support(labels, said)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, said))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, said))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities))
    assert found["brier"] == pytest.approx(
        np.mean(np.sum((probabilities - np.eye(3)[labels]) ** 2, 1))
    )
    assert found["top5"] is None
    for i, name in enumerate("abc"):
        hits = np.sum((said == i) & (labels == i))
        assert found["classes"][name] == {
            "n": support[i],
            "predicted": np.sum(said == i),
            "precision": pytest.approx(precision[i]),
            "recall": pytest.approx(recall[i]),
            **dict(
                zip(
                    ("precision_low", "precision_high"),
                    wilson(hits, np.sum(said == i)),
                    strict=True,
                )
            ),
            **dict(zip(("recall_low", "recall_high"), wilson(hits, support[i]), strict=True)),
        }


def test_top_5_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, probabilities = np.arange(200) % 8, rng.dirichlet(np.ones(8), 200)
    assert score(labels, probabilities, list("abcdefgh"))["top5"] == pytest.approx(
        top_k_accuracy_score(labels, probabilities, k=5)
    )


def test_equal_probabilities_are_no_hit_among_five():
    assert score(np.arange(20), np.full((20, 20), 0.05), [str(i) for i in range(20)])[
        "top5"
    ] == pytest.approx(5 / 20)


def test_the_calibration_error_is_the_mean_distance_between_confidence_and_accuracy():
    # Three of 15 bins hold examples: the confidence 0.5 twice, once right; 0.9 twice, both right;
    # and 1.0 once, right.
    labels, said = np.array([0, 1, 0, 0, 1]), np.array([0.5, 0.5, 0.9, 0.9, 0.0])
    probabilities = np.stack([said, 1 - said], 1)
    found = reliability(labels, probabilities)
    assert [(b["n"], b["confidence"], b["accuracy"]) for b in found] == [
        (2, 0.5, 0.5),
        (2, pytest.approx(0.9), 1.0),
        (1, 1.0, 1.0),
    ]
    assert score(labels, probabilities, ["a", "b"])["ece"] == pytest.approx(2 / 5 * 0.1)


def test_sure_and_wrong_costs_much_but_not_everything():
    assert score(np.array([1]), np.array([[1.0, 0.0]]), ["a", "b"])["log_loss"] == pytest.approx(
        -np.log(1e-12)
    )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_true_class_as_often_as_promised(coverage):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3] * 4, 4000)
    labels = np.array([rng.choice(4, p=row) for row in probabilities])
    calm, new = np.arange(2000), np.arange(2000, 4000)
    found = members(
        probabilities[new], lowest(strangeness(labels[calm], probabilities[calm]), coverage)
    )
    assert found[np.arange(2000), labels[new]].mean() == pytest.approx(coverage, abs=0.02)


def test_a_set_is_never_empty_and_holds_every_class_where_too_few_examples_are_known():
    assert members(np.array([[0.4, 0.3, 0.3]]), 0.5).tolist() == [[True, False, False]]
    assert lowest(np.array([0.1, 0.2], np.float32), 0.9) == 0.0
    with pytest.raises(
        ValueError, match=r"Expected a coverage above 0 and below 1\. Received: coverage=1\.0"
    ):
        lowest(np.array([0.1]), 1.0)


def test_the_interval_is_wilsons():
    for right, n in ((0, 10), (7, 10), (140, 153), (10, 10)):
        theirs = binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_class_without_examples_has_no_recall_and_does_not_count_in_the_balance():
    found = score(
        np.array([0, 0, 1]),
        np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]]),
        ["a", "b", "never"],
    )
    never, b = found["classes"]["never"], found["classes"]["b"]
    assert (never["n"], never["precision"], never["recall"], never["recall_high"]) == (
        0,
        None,
        None,
        None,
    )
    assert (b["n"], b["precision"], b["precision_low"], b["recall"]) == (1, None, None, 0.0)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.0) / 2)
    assert found["balanced_accuracy"] == pytest.approx(0.5)


def test_the_figures_are_json():
    found = score(np.array([0, 1]), np.eye(2, dtype=np.float32), ["a", "b"])
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        "accuracy",
        "low",
        "high",
        "n",
        "balanced_accuracy",
        "macro_f1",
        "top5",
        "log_loss",
        "brier",
        "ece",
        "classes",
    ]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(
        ValueError,
        match=r"probabilities \[n, 2\] with n >= 1. Received: shapes \(3,\) and \(3, 4\)",
    ):
        score(np.zeros(3, int), np.zeros((3, 4)), ["a", "b"])
    with pytest.raises(ValueError, match=r"Received: shapes \(0,\) and \(0, 2\)"):
        score(np.zeros(0, int), np.zeros((0, 2)), ["a", "b"])


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and labels of scikit-learn's digits.

    Also the positions of 400 to train on and of 400 to test on.
    """
    x, labels = load_digits(return_X_y=True)
    return x.astype(np.float32), labels, np.arange(400), np.arange(400, 800)


@pytest.mark.long
def test_a_baseline_is_as_good_as_scikit_learns_tuned_logistic_regression():
    x, labels, train, test = digits()
    found = fit_baselines(labels, train, test, classes=list("0123456789"), raw_pixels=x)
    scaler = StandardScaler().fit(x[train])
    theirs = LogisticRegressionCV(
        Cs=10.0 ** np.arange(-4, 2),
        l1_ratios=(0,),
        use_legacy_attributes=False,
        scoring="neg_log_loss",
        max_iter=2000,
    )
    theirs.fit(scaler.transform(x[train]), labels[train])
    assert found.figures["raw_pixels"]["accuracy"] == pytest.approx(
        np.mean(theirs.predict(scaler.transform(x[test])) == labels[test]), abs=0.01
    )
    assert found.scores["raw_pixels"].mean() == found.figures["raw_pixels"]["accuracy"]


def test_the_majority_is_that_of_train():
    labels = np.array([0, 0, 1, 1, 1, 0])
    found = fit_baselines(labels, np.array([0, 1, 2]), np.array([3, 4, 5]), classes=["a", "b"])
    assert found.figures["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert found.figures["raw_pixels"] is None and found.figures["last_layer_logistic"] is None


def test_without_a_test_part_there_are_no_baselines():
    x, labels, train, _ = digits()
    found = fit_baselines(
        labels,
        train,
        np.array([], int),
        classes=list("0123456789"),
        raw_pixels=x,
        last_layer=x,
    )
    assert (
        found.figures == {"majority": None, "raw_pixels": None, "last_layer_logistic": None}
        and found.scores == {}
    )


def test_a_class_that_only_test_has_is_never_named_by_a_baseline():
    x, labels, train, test = digits()
    train = train[labels[train] != 3]
    found = fit_baselines(labels, train, test, classes=list("0123456789"), last_layer=x)
    assert found.figures["last_layer_logistic"]["classes"]["3"]["predicted"] == 0


def test_with_many_examples_a_baseline_is_fitted_on_a_sample(monkeypatch):
    monkeypatch.setitem(fit_baselines.__globals__, "BASELINE_EXAMPLES", 100)
    x, labels, train, test = digits()
    classes = list("0123456789")
    few = train[sample(labels[train], 100, 0)]
    scores = [
        fit_baselines(labels, rows, test, classes=classes, raw_pixels=x).figures["raw_pixels"]
        for rows in (train, few)
    ]
    assert len(few) == 100 < len(train) and scores[0] == scores[1]


def metrics(test: float, raw: float, n: int) -> dict:
    """What metrics.json holds, as far as `pays` reads it."""
    return {
        "test": {"accuracy": test, "n": n},
        "baselines": {
            "majority": {"accuracy": 0.1, "n": n},
            "raw_pixels": {"accuracy": raw, "n": n},
        },
    }


def test_it_is_said_when_transfer_pays():
    assert pays(metrics(0.90, 0.83, 1000)).startswith(
        "The pretrained network helps: 0.900 on 1,000 test photos against 0.830 by logistic "
        "regression on raw pixels (+7.0 ± 1.5 points)"
    )


def test_it_is_said_when_transfer_does_not_pay():
    assert pays(metrics(0.919, 0.961, 1000)).startswith(
        "The pretrained network does not help here: 0.919 on 1,000 test photos against 0.961"
    )


def test_it_is_said_when_it_is_open():
    assert pays(metrics(0.90, 0.88, 50)).startswith("Too few test photos to say")


def test_paired_answers_decide_what_two_figures_alone_leave_open():
    raw = np.arange(400) < 352
    test = np.arange(400) < 364
    figures = metrics(0.91, 0.88, 400)
    assert pays(figures).startswith("Too few test photos")
    assert pays(figures, {"test": test, "raw_pixels": raw}).startswith(
        "The pretrained network helps"
    )


@pytest.mark.parametrize(("n", "expected"), [(8, "Too few test photos"), (400, "as good")])
def test_equal_answers_prove_that_a_simple_model_is_as_good_only_where_they_are_many(n, expected):
    right = np.arange(n) > n // 10
    said = pays(metrics(right.mean(), right.mean(), n), {"test": right, "raw_pixels": right})
    assert expected in said and "(+0.0 ± " in said


def test_equal_figures_of_few_photos_prove_nothing_without_the_answers_either():
    assert pays(metrics(1.0, 1.0, 8)).startswith("Too few test photos")


def test_a_simple_model_that_is_better_by_chance_is_not_called_as_good():
    test, raw = np.arange(1000) >= 32, np.arange(1000) < 980  # 32 and 20 wrong
    said = pays(metrics(0.968, 0.98, 1000), {"test": test, "raw_pixels": raw})
    assert "-1.2 ± 0.7 points" in said and "may be chance" in said and "as good" not in said


def test_nothing_is_said_without_a_test_part():
    assert pays({"test": None, "baselines": {"majority": None, "raw_pixels": None}}) is None


def test_baselines_have_probabilities():
    x, labels, train, test = digits()
    found = fit_baselines(
        labels, train, test, classes=[str(i) for i in range(10)], raw_pixels=x
    ).figures["raw_pixels"]
    assert 0 < found["brier"] < 0.5 and 0 <= found["ece"] < 0.2 and found["log_loss"] < 1


def test_a_baseline_that_is_better_is_named_with_whether_it_is_chance():
    found = {"accuracy": 0.80, "n": 100}
    better = {"last_layer_logistic": {"accuracy": 0.90, "n": 100}, "majority": None}
    metrics = {"test": found, "baselines": better}
    some, more = np.arange(100) < 80, np.arange(100) < 90
    mixed = np.roll(more, 45)
    assert "0.900 against 0.800, more than chance" in beaten(
        metrics, {"test": some, "last_layer_logistic": more}
    )
    assert "may be chance" in beaten(metrics, {"test": some, "last_layer_logistic": mixed})
    assert "logistic regression on the last layer" in beaten(metrics)
    assert beaten({"test": found, "baselines": {"majority": found}}) is None
    assert beaten({"test": None, "baselines": better}) is None
