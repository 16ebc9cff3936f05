import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.calibration import (
    NUM_BINS,
    apply_temperature,
    calibration_bins,
    calibration_error,
    fit_temperature,
)


def calibrated_logits(num_samples: int = 4000, num_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the very distribution that the labels are drawn from."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(num_samples, num_classes))
    chances = apply_temperature(logits).cumsum(axis=1)
    return logits, (random.random(num_samples)[:, None] > chances).sum(axis=1).clip(0, num_classes - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoiled_the_logits_is_found(temperature):
    logits, labels = calibrated_logits()
    fit = fit_temperature(logits * temperature, labels)
    assert fit.note is None
    assert fit.temperature == pytest.approx(temperature, rel=0.06)


def test_temperature_lowers_the_calibration_error_and_keeps_every_answer():
    logits, labels = calibrated_logits()
    before = apply_temperature(logits * 3)
    after = apply_temperature(logits * 3, fit_temperature(logits * 3, labels).temperature)
    assert calibration_error(after, labels) < 0.03 < 0.1 < calibration_error(before, labels)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("logits", "labels", "note"),
    [
        (np.empty((0, 3)), np.empty(0, int), "0 validation samples are too few"),
        (np.eye(3), [0, 1, 2], "3 validation samples are too few"),
        (np.eye(20), range(20), "every validation sample is answered rightly"),
        (np.eye(20), np.roll(np.arange(20), 1), "the best one lies outside 0.05 to 20"),
        (np.zeros((20, 1)), [0] * 20, "every validation sample is answered rightly"),
    ],
)
def test_samples_that_determine_no_temperature_leave_it_at_one_and_say_so(logits, labels, note):
    fit = fit_temperature(logits, list(labels))
    assert fit.temperature == 1.0
    assert note in str(fit.note)


def test_classes_that_are_ruled_out_do_not_break_the_fit():
    logits, labels = calibrated_logits(200)
    ruled_out = np.where(np.arange(4) == (labels[:, None] + 1) % 4, -np.inf, logits)
    assert 0.05 < fit_temperature(ruled_out, labels).temperature < 20


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, 2.0], [0, 1], r"logits must be of shape \(2, classes\).*got \(2,\)"),
        ([[np.nan, 2.0]], [0], "logits row 0 must be numbers; got .nan, 2.0.. Training has diverged"),
        ([[1.0, 2.0]], [2], "labels must be from 0 to 1; got 2"),
    ],
)
def test_wrong_logits_are_refused_with_place_and_value(logits, labels, message):
    with pytest.raises(HeadstartError, match=message):
        fit_temperature(logits, labels)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(HeadstartError, match="temperature must be greater than 0; got 0"):
        apply_temperature([[1.0, 2.0]], 0)


def test_huge_logits_do_not_overflow():
    assert apply_temperature([[1e4, 0.0]]).tolist() == [[1.0, 0.0]]


def test_bins_hold_every_sample_and_explain_the_error():
    logits, labels = calibrated_logits()
    probabilities = apply_temperature(logits * 3)
    bins = calibration_bins(probabilities, labels)
    assert bins.height == NUM_BINS
    assert bins["count"].sum() == len(labels)
    gaps = (bins["confidence"] - bins["accuracy"]).abs() * bins["count"]
    assert calibration_error(probabilities, labels) == pytest.approx((gaps.sum() or 0.0) / len(labels))


def test_always_sure_and_always_wrong_is_the_worst_calibration():
    assert calibration_error(np.array([[1.0, 0.0]] * 5), np.ones(5, np.int64)) == 1.0
