"""Scores of label columns, of all at once, and of several classes at once, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from headstart.data.label_layout import MISSING, LabelColumn, LabelLayout
from headstart.errors import HeadstartError
from headstart.evaluation.calibration import fit_presence_temperature
from headstart.evaluation.classification import evaluate
from headstart.evaluation.multi_label import average_precisions, evaluate_multi_label, multi_label_scores
from headstart.evaluation.several_labels import evaluate_labels

COLUMNS = (LabelColumn("mask", ("no", "yes")), LabelColumn("age", ("<30", "30–60", "≥60")))
HEADS = LabelLayout("heads", COLUMNS)
JOINT = LabelLayout("joint", COLUMNS, tuple((one, two) for one in range(2) for two in range(3)))


def drawn(num=300, *, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.stack([draw.integers(0, 2, num), draw.integers(0, 3, num)], axis=1)
    logits = draw.normal(0, 1, (num, 5))
    logits[np.arange(num), labels[:, 0]] += 2
    logits[np.arange(num), 2 + labels[:, 1]] += 2
    return logits, labels


def test_a_column_of_heads_scores_like_a_classifier_of_its_own():
    logits, labels = drawn()
    found = evaluate_labels(logits, labels, HEADS, temperatures=(1.5, 0.7))
    alone = evaluate(logits[:, 2:], labels[:, 1], class_names=COLUMNS[1].class_names, temperature=0.7)
    assert found.columns["age"].scores == alone.scores
    assert found.to_metrics_json()["age.accuracy"]["value"] == alone.scores["accuracy"].value


def test_exact_counts_samples_with_every_label_right():
    logits, labels = drawn()
    right = (logits[:, :2].argmax(1) == labels[:, 0]) & (logits[:, 2:].argmax(1) == labels[:, 1])
    found = evaluate_labels(logits, labels, HEADS)
    assert found.exact.value == pytest.approx(right.mean())
    assert found.exact.low < found.exact.value < found.exact.high


def test_missing_labels_count_in_no_score_of_their_column():
    logits, labels = drawn()
    part = labels.copy()
    part[100:, 1] = MISSING
    found = evaluate_labels(logits, part, HEADS)
    alone = evaluate_labels(logits[:100], labels[:100], HEADS)
    assert found.columns["age"].scores == alone.columns["age"].scores
    assert found.columns["mask"].num_samples == 300
    assert any("200 of 300 samples lack some label" in note for note in found.notes)
    part[:, 1] = MISSING
    assert "age" not in evaluate_labels(logits, part, HEADS).columns


def test_columns_of_joint_classes_are_their_marginals():
    logits = np.log(np.array([[0.3, 0.0, 0.3, 0.4, 0.0, 0.0]] * 12) + 1e-12)
    labels = np.array([[0, 0], [1, 0], [0, 2]] * 4)
    found = evaluate_labels(logits, labels, JOINT)
    assert found.joint is not None
    assert found.joint.scores["accuracy"].value == found.exact.value == pytest.approx(1 / 3)  # "yes + <30" is likeliest
    assert found.columns["mask"].scores["accuracy"].value == pytest.approx(2 / 3)  # but "no" has 0.6
    assert found.columns["age"].scores["accuracy"].value == pytest.approx(2 / 3)
    assert {"accuracy", "mask.accuracy", "age.macro_f1", "exact"} <= set(found.to_metrics_json())


def test_intervals_are_resampled_over_groups():
    logits, labels = drawn(400)
    units = np.repeat(np.arange(20), 20)
    alone, grouped = (evaluate_labels(logits, labels, HEADS, units=one) for one in (None, units))
    assert (alone.num_units, grouped.num_units) == (400, 20)
    assert alone.exact.value == grouped.exact.value
    assert alone.exact != grouped.exact


def tagged(num=200, *, seed=1):
    draw = np.random.default_rng(seed)
    labels = (draw.random((num, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(int)
    logits = draw.normal(0, 1.5, (num, 4)) + 2 * labels - 1
    return np.round(logits, 1), labels  # rounded: samples of equal score


def test_average_precision_is_that_of_scikit_learn():
    logits, labels = tagged()
    found = average_precisions(logits, labels)
    for place in range(3):
        assert found[place] == pytest.approx(average_precision_score(labels[:, place], logits[:, place]))
    assert np.isnan(found[3])


def test_weights_count_samples_as_often_as_they_are_drawn():
    logits, labels = tagged()
    weights = np.random.default_rng(2).integers(0, 3, (2, 200)).astype(float)
    found = average_precisions(logits, labels, weights)
    for draw in range(2):
        again = np.repeat(np.arange(200), weights[draw].astype(int))
        expected = average_precision_score(labels[again, 1], logits[again, 1])
        assert found[1, draw] == pytest.approx(expected)


def test_f1_and_exact_match_are_those_of_scikit_learn():
    logits, labels = tagged()
    given = logits >= 0
    found = multi_label_scores(logits, labels)
    assert found["micro_f1"] == pytest.approx(f1_score(labels, given, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(labels[:, :3], given[:, :3], average="macro"))
    assert found["exact"] == pytest.approx((labels == given).all(axis=1).mean())


def test_every_score_of_several_classes_has_an_interval_that_holds_it():
    logits, labels = tagged()
    found = evaluate_multi_label(logits, labels, ("a", "b", "c", "d"), units=np.repeat(np.arange(40), 5))
    assert found.num_units == 40
    for name, score in found.scores.items():
        assert score.low <= score.value <= score.high, name
        assert score.high - score.low > 0.01, name
    assert found.per_class["average_precision"].to_list()[3] is None
    assert any("No sample of this split has d" in note for note in found.notes)


def test_intervals_hold_the_true_precision_about_as_often_as_they_say():
    big_logits, big_labels = tagged(20_000, seed=9)
    truth = multi_label_scores(big_logits, big_labels)["mean_average_precision"]
    held = 0
    for seed in range(60):
        found = evaluate_multi_label(*tagged(150, seed=100 + seed), ("a", "b", "c", "d"), num_resamples=200)
        score = found.scores["mean_average_precision"]
        held += score.low <= truth <= score.high
    assert held >= 51  # 95 % of 60 are 57; fewer than 51 would come by chance once in 200


def test_one_temperature_fits_all_classes():
    logits, labels = tagged(2000)
    probability = 1 / (1 + np.exp(-logits))
    labels = (np.random.default_rng(3).random(logits.shape) < probability).astype(int)
    assert fit_presence_temperature(3 * logits, labels).temperature == pytest.approx(3, rel=0.1)
    assert fit_presence_temperature(logits[:3], labels[:3]).note is not None


def test_labels_that_do_not_fit_the_logits_are_refused():
    with pytest.raises(HeadstartError, match="labels must be 0 or 1 for each logit"):
        multi_label_scores(np.zeros((3, 2)), np.zeros((3, 1)))
