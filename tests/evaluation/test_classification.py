import json

import numpy as np
import polars as pl
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.classification import evaluate, most_confident_mistakes, most_confused_pairs

NAMES = ("강아지", "고양이", "새")


def answers(num_samples: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=num_samples)
    return random.normal(size=(num_samples, 3)) + 2 * np.eye(3)[labels], labels


def test_metrics_json_has_value_low_and_high_of_every_score():
    logits, labels = answers()
    content = json.loads(json.dumps(evaluate(logits, labels, class_names=NAMES, temperature=1.5).to_metrics_json()))
    expected = ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error"]
    assert list(content) == [*expected, "log_loss_unscaled", "calibration_error_unscaled"]
    for score in content.values():
        assert list(score) == ["value", "low", "high"]
        assert score["low"] <= score["value"] <= score["high"]


def test_temperature_moves_probabilities_but_no_answer():
    logits, labels = answers()
    plain, scaled = (evaluate(logits, labels, class_names=NAMES, temperature=one) for one in (1.0, 3.0))
    assert (plain.confusion == scaled.confusion).all()
    assert plain.scores["accuracy"] == scaled.scores["accuracy"]
    assert scaled.scores["log_loss_unscaled"] == plain.scores["log_loss"]
    assert scaled.scores["log_loss"] != plain.scores["log_loss"]
    assert scaled.bins_unscaled.equals(plain.bins)


def test_log_probabilities_serve_as_logits():
    logits, labels = answers()
    plain = evaluate(logits, labels, class_names=NAMES)
    with np.errstate(divide="ignore"):
        again = evaluate(np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)), labels, class_names=NAMES)
    assert again.scores["log_loss"].value == pytest.approx(plain.scores["log_loss"].value)


def test_units_are_counted_and_widen_the_recall_intervals():
    logits, labels = answers()
    alone = evaluate(logits, labels, class_names=NAMES)
    grouped = evaluate(logits, labels, class_names=NAMES, units=np.arange(120) // 10)
    assert (alone.num_units, grouped.num_units, grouped.num_samples) == (120, 12, 120)
    width = pl.col("recall_high") - pl.col("recall_low")
    assert (grouped.per_class.select(width).to_series() > alone.per_class.select(width).to_series()).all()


def test_a_class_without_samples_is_named_and_left_blank():
    logits, _ = answers(40)
    result = evaluate(logits, [0, 1] * 20, class_names=NAMES)
    assert result.notes[0].startswith("1 of 3 classes have no sample in this split: 새.")
    assert result.per_class.row(2, named=True)["recall_low"] is None


def test_a_single_group_is_warned_of():
    logits, labels = answers(30)
    assert "one group" in evaluate(logits, labels, class_names=NAMES, units=["kim"] * 30).notes[0]


def test_mistakes_come_surest_first():
    probabilities = np.array([[0.7, 0.3], [0.1, 0.9], [0.95, 0.05], [0.8, 0.2]])
    assert most_confident_mistakes(probabilities, [1, 1, 1, 0]).tolist() == [2, 0]
    assert most_confident_mistakes(probabilities, [1, 1, 1, 0], limit=1).tolist() == [2]
    assert most_confident_mistakes(probabilities, [0, 1, 0, 0]).tolist() == []


def test_confused_pairs_are_the_largest_cells_off_the_diagonal():
    logits = np.eye(3)[[1, 1, 1, 2, 0, 1, 2]] * 5
    pairs = most_confused_pairs(evaluate(logits, [0, 0, 0, 0, 0, 1, 1], class_names=NAMES), limit=2)
    assert pairs["count"].to_list() == [3, 1]
    assert pairs.row(0) == ("강아지", "고양이", 3, 0.6)


def test_no_samples_are_refused():
    with pytest.raises(HeadstartError, match="labels must be of at least one sample; got 0"):
        evaluate(np.empty((0, 3)), np.empty(0, int), class_names=NAMES)
