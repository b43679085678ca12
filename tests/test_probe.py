"""Heads on features: every number against a second way to compute it."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge

from tfxfer.data.folds import deal, sample
from tfxfer.errors import SavedModelError
from tfxfer.evaluate.unknown import fit_unknown, out_of_fold
from tfxfer.heads import (
    Averaged,
    choose,
    fit_head,
    fitted,
    gaussian,
    linear,
    logistic,
    prototype,
    ridge,
    validate,
)
from tfxfer.heads.closed import STRENGTHS, ridge_dual
from tfxfer.heads.fitted import normalise_taps
from tfxfer.heads.layers import MLP, Cosine
from tfxfer.tasks import CLASSIFY, calibrated_loss, paired
from tfxfer.tasks.classify import temperature

WIDTHS = (6, 10, 24)
FITS = {"gaussian": gaussian, "linear": linear, "ridge": ridge, "prototype": prototype}


def examples(
    n: int, classes: int = 4, noise: float = 0.8, seed: int = 0, widths=WIDTHS
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, F] like a network's, and labels.

    The features are correlated and never negative, and some columns are constant.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    hidden = rng.normal(0, 1, (classes, 5))[labels] + noise * rng.normal(0, 1, (n, 5))
    x = hidden @ rng.normal(0, 1, (5, sum(widths))) + 0.5 * rng.normal(0, 1, (n, sum(widths))) + 1
    x[:, 3] = 0.25
    return np.maximum(x, 0).astype(np.float32), labels


def quiet(_: str) -> None:
    """A log that nobody reads."""


def centred(logits) -> np.ndarray:
    """Logits with mean zero over the classes: softmax does not see that mean."""
    logits = np.asarray(logits, np.float64)
    return logits - logits.mean(1, keepdims=True)


def assert_same(logits, expected, tolerance=1e-4) -> None:
    """Equal up to a constant for each example, relative to the largest."""
    expected = centred(expected)
    np.testing.assert_allclose(centred(logits), expected, atol=tolerance * np.abs(expected).max())


def gaussian_by_formula(x, labels, classes, widths):
    """The Gaussian of docs/methods.md, word for word, with an explicit inverse in float64."""
    z = normalise_taps(x, widths).astype(np.float64)
    means = np.stack([z[labels == c].mean(0) for c in range(classes)])
    residual = z - means[labels]
    t = np.sum(residual**2) / (len(z) - 1)
    d = z.shape[1]
    p = d * np.linalg.inv(residual.T @ residual + t * np.eye(d))
    return lambda new: (
        (y := normalise_taps(new, widths).astype(np.float64)) @ p @ means.T
        - np.diag(means @ p @ means.T) / 2
        + 0 * y[:, :1]
    )


# --- The heads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 300])
def test_gaussian_is_the_formula_in_both_of_its_forms(n):
    x, labels = examples(n)
    new, _ = examples(50, seed=1)
    assert_same(
        gaussian(x, labels, 4, widths=WIDTHS).logits(new),
        gaussian_by_formula(x, labels, 4, WIDTHS)(new),
    )


def test_gaussian_agrees_with_scikit_learn_given_the_same_covariance():
    x, labels = examples(300)
    z = normalise_taps(x, WIDTHS).astype(np.float64)

    total = sum(np.cov(z[labels == c].T, bias=True) * np.sum(labels == c) for c in range(4))
    t = np.trace(total) / (len(z) - 1)

    class Shrunk:
        """The same covariance for each class.

        `LinearDiscriminantAnalysis` asks for one matrix a class and takes their mean, which is then
        the pooled one.
        """

        def fit(self, rows):
            self.covariance_ = (total + t * np.eye(len(total))) / z.shape[1]
            return self

    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Shrunk(), priors=[0.25] * 4
    ).fit(z, labels)
    assert_same(gaussian(x, labels, 4, widths=WIDTHS).logits(x), theirs.decision_function(z))


def test_gaussian_does_not_depend_on_the_size_of_the_blocks(monkeypatch):
    x, labels = examples(300)
    whole = gaussian(x, labels, 4, widths=WIDTHS).logits(x)
    monkeypatch.setattr(fitted.blocks, "__defaults__", (17,))
    assert_same(gaussian(x, labels, 4, widths=WIDTHS).logits(x), whole)


def test_held_out_logits_of_many_examples_are_those_of_a_fit_on_the_others(monkeypatch):
    monkeypatch.setattr(validate, "ROTATED", 100)
    x, labels = examples(300)
    chosen = choose(x, labels, 4, WIDTHS, head="gaussian")
    folds, widths = deal(labels, logistic.FOLDS, 0), chosen.fitted.widths
    for fold in range(logistic.FOLDS):
        rest = np.flatnonzero(folds != fold)
        part = gaussian(x, labels, 4, widths=widths, rows=rest)
        logits = centred(part.logits(x[folds == fold])) / chosen.fitted.temperature
        found = centred(np.log(chosen.out_of_fold[folds == fold]))
        np.testing.assert_allclose(found, logits, atol=1e-4)


@pytest.mark.parametrize("n", [12, 300])
def test_ridge_is_scikit_learns_at_the_same_strength(n):
    x, labels = examples(n)
    ours = ridge(x, labels, 4, widths=WIDTHS, strength=0.05)
    z = normalise_taps(x, WIDTHS).astype(np.float64)
    assert_same(ours.logits(x), SklearnRidge(alpha=0.05).fit(z, np.eye(4)[labels]).predict(z))
    assert ours.strength == 0.05


def test_ridge_above_its_sample_is_fitted_on_all(monkeypatch):
    monkeypatch.setattr("tfxfer.heads.closed.LEAVE_ONE_OUT", 100)
    x, labels = examples(300)
    ours, z = ridge(x, labels, 4, widths=WIDTHS), normalise_taps(x, WIDTHS).astype(np.float64)
    assert_same(
        ours.logits(x), SklearnRidge(alpha=ours.strength).fit(z, np.eye(4)[labels]).predict(z)
    )


def test_ridge_leaves_one_out_as_if_it_had_fitted_n_times():
    x, labels = examples(40)
    z = normalise_taps(x, WIDTHS).astype(np.float64)
    _, _, left_out, strength = ridge_dual(z @ z.T, np.eye(4)[labels])
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        np.testing.assert_allclose(
            left_out[i],
            SklearnRidge(alpha=strength)
            .fit(z[rest], np.eye(4)[labels[rest]])
            .predict(z[i : i + 1])[0],
            atol=1e-6,
        )


@pytest.mark.long
def test_ridge_does_not_fall_into_the_trap_of_the_constant_vector():
    x, labels = examples(200, noise=1.5)
    z = normalise_taps(x, WIDTHS).astype(np.float64)
    _, _, _, strength = ridge_dual(z @ z.T, np.eye(4)[labels])
    off = z - z.mean(0)
    losses = []
    for value in STRENGTHS * np.sum(off * off) / len(z):
        errors = [
            np.eye(4)[labels[i]]
            - SklearnRidge(alpha=value)
            .fit(np.delete(z, i, 0), np.eye(4)[np.delete(labels, i)])
            .predict(z[i : i + 1])[0]
            for i in range(0, 200, 4)
        ]
        losses.append(np.square(errors).sum())
    assert losses[
        int(np.argmin(np.abs(STRENGTHS * np.sum(off * off) / len(z) - strength)))
    ] <= 1.02 * min(losses)


@pytest.mark.long
@pytest.mark.parametrize("how", ["standardise", "l2"])
@pytest.mark.parametrize("rotated", [2000, 100])
def test_linear_is_scikit_learns_in_both_of_its_forms(how, rotated, monkeypatch):
    monkeypatch.setattr(logistic, "ROTATED", rotated)
    x, labels = examples(300)
    strength = 3.0 if how == "standardise" else 0.1
    ours = linear(x, labels, 4, widths=WIDTHS, strength=strength, normalise=how)
    z = (
        normalise_taps(x, WIDTHS).astype(np.float64)
        if how == "l2"
        else (x - x.mean(0)) / np.where(x.std(0) > 1e-5, x.std(0), 1)
    )
    theirs = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000).fit(z, labels)
    assert_same(ours.logits(x), theirs.decision_function(z), 2e-3)


def test_linear_gives_the_same_whether_folds_descend_together_or_alone(monkeypatch):
    x, labels = examples(200)
    rotated, folds = logistic.Rotated(x @ x.T), deal(labels, 5, 0)
    together, strength = rotated.held_out(labels, folds, 4)
    monkeypatch.setattr(logistic, "TOGETHER", 0)
    alone, same = rotated.held_out(labels, folds, 4)
    assert strength == same
    assert_same(alone, together, 0.02)


def test_linear_standardises_only_with_enough_examples():
    x, labels = examples(300)
    assert linear(x, labels, 4, widths=WIDTHS, strength=1.0).normalise == "standardise"
    assert linear(x, labels, 4, widths=WIDTHS, rows=np.arange(40), strength=1.0).normalise == "l2"


def test_linear_samples_what_would_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr(logistic, "LOADED", 4 * sum(WIDTHS) * 100)
    _, labels = examples(300)
    assert (
        np.bincount(labels[logistic.pick_affordable(labels, np.arange(300), sum(WIDTHS))]).tolist()
        == [25] * 4
    )


def test_linear_on_a_sample_says_so_and_the_others_count_as_held_out(monkeypatch):
    monkeypatch.setattr(validate, "ROTATED", 100)
    monkeypatch.setattr(logistic, "LOADED", 4 * sum(WIDTHS) * 200)
    x, labels = examples(400)
    choice = choose(x, labels, 4, tap_widths=(sum(WIDTHS),), head="linear")
    assert choice.lines[-1] == (
        "linear: fitted on 200 of 400 examples, 1 GiB of features; "
        "the others count as held out, for it never saw them"
    )
    others = np.setdiff1d(
        np.arange(400), logistic.pick_affordable(labels, np.arange(400), sum(WIDTHS))
    )
    np.testing.assert_allclose(
        choice.out_of_fold[others],
        softmax(choice.fitted.logits(x[others]).astype(np.float64), 1),
        atol=1e-5,
    )


@pytest.mark.parametrize("n", [4, 60])
def test_prototype_names_the_class_mean_at_the_smallest_angle(n):
    x, labels = examples(n)
    new, _ = examples(50, seed=1)
    z, y = (
        normalise_taps(x, WIDTHS).astype(np.float64),
        normalise_taps(new, WIDTHS).astype(np.float64),
    )
    y -= z.mean(0)
    z -= z.mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = np.stack([z[labels == c].sum(0) for c in range(4)])
    expected = y @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    assert_same(prototype(x, labels, 4, widths=WIDTHS).logits(new), expected)


@pytest.mark.parametrize("name", FITS)
def test_a_class_without_an_example_is_refused(name):
    x, labels = examples(40)
    with pytest.raises(
        ValueError, match=r"every class needs an example to be fitted on. Received none of class 4"
    ):
        FITS[name](x, labels, 5, WIDTHS)


@pytest.mark.parametrize("name", FITS)
def test_a_head_is_fitted_on_the_rows_and_the_last_columns_that_it_was_given(name):
    x, labels = examples(200)
    rows = np.arange(0, 200, 2)
    part = FITS[name](x, labels, 4, WIDTHS[1:], rows=rows)
    alone = FITS[name](x[rows][:, WIDTHS[0] :], labels[rows], 4, WIDTHS[1:])
    assert part.taps == 2 and part.widths == WIDTHS[1:]
    np.testing.assert_array_equal(part.logits(x), alone.logits(x[:, WIDTHS[0] :]))


@pytest.mark.parametrize("name", FITS)
def test_the_layer_and_the_numpy_logits_are_the_same(name):
    x, labels = examples(200)
    found = choose(x, labels, 4, tap_widths=WIDTHS, head=name).fitted
    np.testing.assert_allclose(
        found.layer()(x[:, -sum(found.widths) :]).numpy(),
        found.logits(x),
        atol=1e-5 * max(1, np.abs(found.logits(x)).max()),
    )


# --- Calibration and folds ------------------------------------------------------------------------


def test_the_temperature_has_the_smallest_log_loss():
    rng = np.random.default_rng(0)
    logits, labels = 7 * rng.normal(0, 1, (400, 5)), rng.integers(0, 5, 400)
    logits[np.arange(400), labels] += 9
    found = minimize_scalar(
        lambda t: -log_softmax(logits / t, 1)[np.arange(400), labels].mean(),
        bounds=(0.1, 100),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # One example in 401 counts as of unknown class.
    assert temperature(logits, labels) == pytest.approx(found.x, rel=0.02)


def test_the_temperature_does_not_depend_on_the_unit_of_the_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 1, (50, 3)), rng.integers(0, 3, 50)
    assert temperature(1e6 * logits, labels) == pytest.approx(
        1e6 * temperature(logits, labels), rel=1e-5
    )


def test_logits_without_an_error_get_a_temperature_that_leaves_doubt():
    logits = 3 * np.eye(3)[np.arange(30) % 3]
    confidence = softmax(logits / temperature(logits, np.arange(30) % 3), 1).max()
    assert 0.95 < confidence < 0.999


def test_folds_are_stratified_and_the_only_example_of_a_class_is_in_none():
    labels = np.array([0] * 50 + [1] * 23 + [2] * 2 + [3])
    folds = deal(labels, 5, seed=3)
    assert folds[-1] == -1 and (folds[:-1] >= 0).all()
    assert np.ptp(np.bincount(folds[:-1])) <= 1 and np.ptp(np.bincount(folds[:50])) == 0
    assert len(set(folds[73:75])) == 2
    assert (deal(labels, 5, seed=3) == folds).all() and (deal(labels, 5, seed=4) != folds).any()


def test_a_sample_keeps_the_shares_and_two_of_each_class():
    labels = np.array([0] * 7000 + [1] * 2990 + [2] * 9 + [3])
    rows = sample(labels, 1000)
    counts = np.bincount(labels[rows])
    assert (
        len(rows) == len(set(rows)) == 1000
        and counts[3] == 1
        and counts[2] >= 2
        and abs(counts[0] - 700) < 5
    )


# --- The choice -----------------------------------------------------------------------------------


def test_the_kernel_form_and_a_plain_loop_over_folds_agree():
    x, labels = examples(150)
    choice = choose(x, labels, 4, tap_widths=WIDTHS, head="gaussian")
    folds, widths = deal(labels, 5, 0), choice.fitted.widths
    for fold in range(5):
        part = gaussian_by_formula(
            x[folds != fold][:, -sum(widths) :], labels[folds != fold], 4, widths
        )
        logits = part(x[folds == fold][:, -sum(widths) :])
        assert_same(
            np.log(choice.out_of_fold[folds == fold]), logits / choice.fitted.temperature, 1e-3
        )


@pytest.mark.parametrize("head", ["auto", "gaussian", "linear", "ridge", "prototype"])
def test_two_choices_with_one_seed_are_the_same_bit_for_bit(head):
    x, labels = examples(120)
    one, two = (choose(x, labels, 4, tap_widths=WIDTHS, head=head, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.fitted.logits(x), two.fitted.logits(x))
    np.testing.assert_array_equal(one.out_of_fold, two.out_of_fold)


@pytest.mark.parametrize("head", ["auto", "gaussian", "linear", "ridge", "prototype"])
@pytest.mark.parametrize("rotated", [2000, 100])
def test_out_of_fold_probabilities_are_as_good_as_those_on_new_examples(head, rotated, monkeypatch):
    monkeypatch.setattr(validate, "ROTATED", rotated)
    monkeypatch.setattr(logistic, "ROTATED", rotated)
    x, labels = examples(1200, noise=1.2)
    train = np.arange(400)
    choice = choose(x[train], labels[train], 4, tap_widths=WIDTHS, head=head)
    new = choice.fitted.logits(x[400:])
    held_out = -np.log(choice.out_of_fold[train, labels[train]]).mean()
    assert choice.out_of_fold.shape == (400, 4)
    np.testing.assert_allclose(choice.out_of_fold.sum(1), 1, atol=1e-9)
    assert held_out == pytest.approx(
        -log_softmax(new, 1)[np.arange(800), labels[400:]].mean(), abs=0.12
    )
    assert (choice.out_of_fold.argmax(1) == labels[train]).mean() == pytest.approx(
        (new.argmax(1) == labels[400:]).mean(), abs=0.06
    )


def test_auto_tries_both_heads_on_each_number_of_taps_and_says_what_it_found():
    x, labels = examples(120, widths=(4,) * 10)
    choice = choose(x, labels, 4, tap_widths=(4,) * 10)
    singles = [entry for entry in choice.table if not entry.members]
    assert [(entry.head, entry.taps) for entry in singles] == [
        (head, taps) for head in ("gaussian", "linear") for taps in (1, 3, 8, 10)
    ]
    rows = choice.lines[1:-1]
    assert len(rows) == len(choice.table) and sum(row.startswith("->") for row in rows) == 1
    rows = [row for row in rows if "mean" not in row]
    assert "gaussian on the last 3 stages" in rows[1] and "linear on all 10 stages" in rows[7]
    for entry, row in zip(singles, rows, strict=True):
        assert f"{entry.score:.3f} ± {entry.error:.3f}  {entry.loss:.4f}" in row


def test_the_last_line_says_why_unless_nothing_else_was_tried():
    x, labels = examples(120)
    last = {
        (head, widths): choose(x, labels, 4, widths, head=head).lines[-1]
        for head in ("auto", "linear")
        for widths in (WIDTHS, (sum(WIDTHS),))
    }
    alone = last.pop(("linear", (sum(WIDTHS),)))
    assert all("log loss" in line for line in last.values()) and "log loss" not in alone


def guesses(name: str, labels: np.ndarray, wrong: slice, *, sure: float) -> validate.Candidate:
    """A candidate that is sure of the true class, but for some examples of another one."""
    said = labels.copy()
    said[wrong] = (said[wrong] + 1) % 3
    logits = sure * np.eye(3)[said]
    loss = calibrated_loss(CLASSIFY, logits, labels)
    return validate.Candidate(
        head=name,
        taps=1,
        scores=(said == labels).astype(float),
        loss=loss,
        strength=None,
        logits=logits,
    )


def test_the_mean_of_two_heads_is_taken_where_it_predicts_better_than_each():
    labels = np.arange(300) % 3
    one = guesses("gaussian", labels, slice(0, 60), sure=2.0)
    two = guesses("linear", labels, slice(100, 160), sure=9.0)
    known = np.ones(300, bool)
    chosen = validate.pick_candidate([one, two], CLASSIFY, labels, known)
    assert chosen.members == (one, two)
    assert chosen.loss < min(one.loss, two.loss)


def test_a_head_alone_is_taken_where_the_other_one_only_harms():
    labels = np.arange(300) % 3
    good = guesses("gaussian", labels, slice(0, 3), sure=2.0)
    useless = guesses("linear", labels, slice(0, 200), sure=2.0)
    chosen = validate.pick_candidate([good, useless], CLASSIFY, labels, np.ones(300, bool))
    assert chosen is good


def test_the_mean_of_heads_is_that_of_their_log_probabilities():
    x, labels = examples(200)
    members = tuple(
        choose(x, labels, 4, tap_widths=WIDTHS, head=head).fitted for head in ("gaussian", "linear")
    )
    average = Averaged(members)
    log_probabilities = np.mean([log_softmax(one.logits(x), 1) for one in members], axis=0)
    expected = log_softmax(log_probabilities, 1)
    np.testing.assert_allclose(log_softmax(average.logits(x), 1), expected, atol=1e-5)
    layer = average.layer()(x[:, -sum(average.widths) :])
    np.testing.assert_allclose(log_softmax(layer, 1), expected, atol=1e-4)
    np.testing.assert_allclose(
        average.cooled(2.0).logits(x), average.logits(x) / 2, rtol=1e-5, atol=1e-5
    )


def test_the_mean_of_heads_survives_a_keras_file(tmp_path):
    x, labels = examples(200)
    one, two = (
        choose(x, labels, 4, tap_widths=WIDTHS, head=head).fitted for head in ("gaussian", "linear")
    )
    layer = Averaged((one, two)).layer()
    layer.save(tmp_path / "mean.keras")
    found = keras.models.load_model(tmp_path / "mean.keras")
    x = x[:, -layer.input_shape[-1] :]
    np.testing.assert_array_equal(found(x), layer(x))


@pytest.mark.parametrize("classes", [2, 40])
def test_heads_are_listed_one_after_the_other_whatever_order_they_are_tried_in(classes):
    x, labels = examples(4 * classes, classes=classes, widths=(4,) * 3)
    lines = choose(x, labels, classes, tap_widths=(4,) * 3).lines
    heads = [line.removeprefix("->").split()[0] for line in lines[1:-1] if "mean" not in line]
    assert heads == ["gaussian", "gaussian", "linear", "linear"]


def candidate(taps: int, loss: float) -> validate.Candidate:
    """A candidate of which only the loss matters."""
    return validate.Candidate(
        head="gaussian",
        taps=taps,
        scores=np.ones(4),
        loss=loss,
        strength=None,
        logits=np.zeros((4, 2)),
    )


def test_the_taps_with_the_smallest_loss_are_taken():
    assert validate.pick_taps([candidate(1, 0.5), candidate(3, 0.3), candidate(8, 0.4)]).taps == 3
    assert validate.pick_taps([candidate(1, 0.5), candidate(8, 0.4)]).taps == 8
    assert validate.pick_taps([candidate(8, 0.4), candidate(1, 0.4)]).taps == 1


def test_a_paired_gain_counts_only_where_the_two_differ():
    a, b = np.array([1, 1, 1, 0, 1], bool), np.array([1, 0, 0, 1, 1], bool)
    gain, error = paired(a, b)
    assert gain == pytest.approx(1 / 5) and error == pytest.approx(np.sqrt(3 - 1 / 5) / 5)


def test_a_class_with_one_example_is_learnt_and_counts_as_wrong_out_of_fold():
    x, labels = examples(81, classes=4, noise=0.3)
    labels[labels == 3] = 2
    labels[-1] = 3
    for head in ("auto", "ridge", "prototype"):
        choice = choose(x, labels, 4, tap_widths=WIDTHS, head=head)
        assert choice.out_of_fold[-1, 3] == 0 and choice.out_of_fold[-1].sum() == pytest.approx(1)
        assert choice.fitted.logits(x).shape == (81, 4)


def test_one_example_a_class_gets_the_prototype_and_a_word_about_it():
    x, labels = examples(4)
    choice = choose(x, labels, 4, tap_widths=WIDTHS)
    assert (
        choice.fitted.name == "prototype"
        and choice.table == ()
        and "nothing can be held out" in choice.lines[0]
    )
    assert (choice.fitted.logits(x).argmax(1) == labels).all()


def test_a_class_that_is_absent_from_training_is_never_named():
    x, labels = examples(80)
    labels = np.array([0, 1, 3, 4])[labels]
    choice = choose(x, labels, 6, tap_widths=WIDTHS)
    logits = choice.fitted.logits(x)
    assert logits.shape == choice.out_of_fold.shape == (80, 6)
    assert (
        softmax(logits, 1)[:, [2, 5]].max() < 1e-12 and (choice.out_of_fold[:, [2, 5]] == 0).all()
    )
    assert (logits.argmax(1) == labels).mean() > 0.8


def test_the_shares_of_unequal_classes_are_added_where_they_predict_better():
    x, labels = examples(4000, noise=2.0)
    keep = (labels == 0) | (np.arange(4000) % 12 == 0)
    choice = choose(x[keep], labels[keep], 4, tap_widths=WIDTHS, head="gaussian")
    assert choice.prior
    assert choice.out_of_fold.mean(0) == pytest.approx(
        np.bincount(labels[keep]) / keep.sum(), abs=0.05
    )


def test_examples_that_are_all_alike_do_not_break_the_choice():
    labels = np.arange(40) % 2
    choice = choose(np.ones((40, sum(WIDTHS)), np.float32), labels, 2, tap_widths=WIDTHS)
    np.testing.assert_allclose(choice.out_of_fold, 0.5, atol=0.1)


def test_features_that_are_not_finite_are_refused_with_what_to_try():
    x, labels = examples(40)
    x[3, 5] = np.nan
    with pytest.raises(
        SavedModelError,
        match=(
            "not-a-number for 1 of 40 examples. Expected finite numbers. "
            r"Check its value range \(--value-range"
        ),
    ):
        choose(x, labels, 4, tap_widths=WIDTHS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"head": "forest"},
            (
                'head: expected "auto" or one of gaussian, linear, ridge, prototype. '
                'Received: "forest"'
            ),
        ),
        (
            {"tap_widths": (6, 10)},
            r"expected features with 16 columns, the sum of tap_widths. Received: shape \(40, 40\)",
        ),
        (
            {"labels": np.zeros(40, int)},
            r"expected examples of two classes or more. Received: 40 examples of 1 class",
        ),
    ],
)
def test_wrong_arguments_are_named(change, message):
    x, labels = examples(40)
    arguments = {"labels": labels, "n_classes": 4, "tap_widths": WIDTHS, **change}
    with pytest.raises(ValueError, match=message):
        choose(x, **arguments)


# --- Training by fit ------------------------------------------------------------------------------


@pytest.mark.long
def test_a_trained_head_is_calibrated_on_validation(said):
    x, labels = examples(600)
    found = fit_head(
        MLP(4, hidden=32),
        x,
        labels,
        train_rows=np.arange(400),
        validation_rows=np.arange(400, 600),
        epochs=8,
        batch_size=16,
    )
    assert [entry["epoch"] for entry in found.history] == list(range(1, 9)) and {
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
    } <= set(found.history[0])
    assert len(said) == 8 and "epoch 1/8" in said[0]
    assert "training accuracy" in said[0] and "val_accuracy" in said[0]
    np.testing.assert_allclose(
        found.probabilities, softmax(found.head(x[400:]).numpy(), 1), atol=1e-5
    )
    assert (found.probabilities.argmax(1) == labels[400:]).mean() > 0.7


@pytest.mark.long
def test_without_validation_the_head_is_calibrated_on_a_fifth_and_then_trained_on_all(said):
    x, labels = examples(400)
    found = fit_head(Cosine(4), x, labels, train_rows=np.arange(400), epochs=2, batch_size=32)
    assert (
        len(found.positions) == 80
        and "first on 320 examples, to judge it on the other 80" in said[0]
    )
    assert len(found.history) == 2 and "val_loss" not in found.history[0]
    direct = fit_head(
        Cosine(4),
        x,
        labels,
        train_rows=np.arange(400),
        validation_rows=np.arange(10),
        epochs=2,
        batch_size=32,
    )
    assert_same(
        found.head(x).numpy() * found.temperature, direct.head(x).numpy() * direct.temperature, 1e-4
    )


@pytest.mark.long
def test_two_trainings_with_one_seed_are_the_same_bit_for_bit():
    x, labels = examples(300)

    def trained():
        keras.utils.set_random_seed(3)  # a layer draws its seeds when it is made
        return fit_head(
            MLP(4, hidden=8),
            x,
            labels,
            train_rows=np.arange(300),
            epochs=2,
            batch_size=32,
            seed=3,
        )

    one, two = trained(), trained()
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    np.testing.assert_array_equal(one.head(x).numpy(), two.head(x).numpy())


@pytest.mark.long
def test_features_that_are_read_batch_by_batch_train_the_same_head(monkeypatch):
    x, labels = examples(300)
    one = fit_head(Cosine(4), x, labels, train_rows=np.arange(300), epochs=2, batch_size=32)
    monkeypatch.setattr("tfxfer.heads.train.LOADED", 0)
    two = fit_head(Cosine(4), x, labels, train_rows=np.arange(300), epochs=2, batch_size=32)
    np.testing.assert_array_equal(one.head(x).numpy(), two.head(x).numpy())


def test_a_head_with_too_few_logits_is_refused():
    x, labels = examples(40)
    with pytest.raises(
        ValueError,
        match=r"expected logits \[B, C\] with C >= 4.*Received: output shape \(None, 3\)",
    ):
        fit_head(MLP(3), x, labels, train_rows=np.arange(40))


def test_a_trained_head_is_calibrated_on_whole_groups():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20), 4)
    x, labels = rng.standard_normal((80, 8)).astype(np.float32), rng.integers(0, 2, 20)[units]
    trained = fit_head(Cosine(2), x, labels, train_rows=np.arange(80), epochs=1, units=units)
    held_out = np.isin(np.arange(80), trained.positions)
    assert 0 < held_out.sum() < 80
    assert all(len(set(held_out[units == unit])) == 1 for unit in range(20))


@pytest.mark.parametrize("head", ["gaussian", "ridge"])
def test_twins_are_held_out_together(head):
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 5)
    x = (rng.standard_normal((60, 32))[units] + 0.01 * rng.standard_normal((300, 32))).astype(
        np.float32
    )
    labels = rng.integers(0, 2, 60)[units]
    folds = deal(labels, 5, 0, units=units)
    assert all(len(set(folds[units == unit])) == 1 for unit in range(60))
    alone = choose(x, labels, 2, tap_widths=(32,), head=head).out_of_fold
    together = choose(x, labels, 2, tap_widths=(32,), head=head, units=units).out_of_fold
    assert (alone.argmax(1) == labels).mean() > 0.8 and (together.argmax(1) == labels).mean() < 0.7


# --- none of these --------------------------------------------------------------------------------


def blobs(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return rng.normal(size=(n, d)).astype(np.float32) + 2 * rng.normal(size=(3, d)).astype(
        np.float32
    )[labels], labels


@pytest.mark.parametrize(("n", "d"), [(12, 40), (300, 20)])
def test_the_score_is_the_distance_to_the_nearest_class_minus_that_to_all_data(n, d):
    x, labels = blobs(n, d)
    new = np.random.default_rng(1).normal(size=(50, d)).astype(np.float32)
    z = normalise_taps(x, (d,)).astype(np.float64)
    means, mean = np.stack([z[labels == c].mean(0) for c in range(3)]), z.mean(0)
    within, total = z - means[labels], z - mean
    shrunk = np.sum(within**2) / (n - 1) * np.eye(d)
    p, p0 = (
        d * np.linalg.inv(within.T @ within + shrunk),
        d * np.linalg.inv(total.T @ total + shrunk),
    )
    v = normalise_taps(new, (d,)).astype(np.float64)
    distances = [
        np.einsum("nd,de,ne->n", v - m, q, v - m) for m, q in [*((m, p) for m in means), (mean, p0)]
    ]
    expected = np.min(distances[:3], 0) - distances[3]
    np.testing.assert_allclose(
        fit_unknown(x, labels).scores(new), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_an_image_of_an_unknown_class_scores_higher():
    x, labels = blobs(300, 20)
    known = labels < 2
    fitted = fit_unknown(x[known][:150], labels[known][:150])
    strange, familiar = fitted.scores(x[~known]), fitted.scores(x[known][150:])
    assert np.mean(strange[:, None] > familiar) > 0.9


def test_scores_out_of_fold_are_not_those_of_examples_that_were_fitted_on():
    x, labels = blobs(60, 40)
    assert np.median(out_of_fold(x, labels, 0)) > np.median(fit_unknown(x, labels).scores(x))


def test_the_only_example_of_a_class_is_never_held_out():
    x, labels = blobs(10, 5)
    assert len(out_of_fold(x, np.where(np.arange(10) == 0, 3, labels), 0)) == 9


# --- features that say nothing ---


def flat_features() -> dict[str, np.ndarray]:
    """Equal features, nearly equal ones, and classes without any spread."""
    rng = np.random.default_rng(0)
    noise, one = rng.normal(size=(60, 20)), rng.uniform(size=(1, 20))
    found = {f"apart by 1e-{n}": one + 10.0**-n * noise for n in range(3, 9)}
    found |= {
        "equal": np.repeat(one, 60, 0),
        "zeros": np.zeros((60, 20)),
        "one apart": np.where(np.arange(60)[:, None] == 7, noise, one),
        "classes without spread": np.eye(3, 20)[np.arange(60) % 3],
        "denormal": 1e-40 * noise,
        "too large to square": 1e30 * noise,
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


FLAT = flat_features()


@pytest.mark.long
@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("head", FITS)
def test_features_that_say_nothing_give_a_head_with_numbers(head, name):
    x, labels = FLAT[name], np.arange(60) % 3
    found = choose(x, labels, 3, tap_widths=(12, 8), head=head)
    assert np.isfinite(found.out_of_fold).all() and np.isfinite(found.fitted.kernel).all()
    assert np.isfinite(found.fitted.logits(x)).all()


@pytest.mark.parametrize("name", FLAT)
def test_features_that_say_nothing_give_scores_for_doubt_with_numbers(name):
    x, labels = FLAT[name], np.arange(60) % 3
    assert np.isfinite(fit_unknown(x, labels).scores(x)).all()
    assert np.isfinite(out_of_fold(x, labels, 0)).all()
