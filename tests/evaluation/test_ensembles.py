"""Votes: means of probabilities, weights at their optimum, gains measured on the same persons."""

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.ensembles import (
    check_same_names,
    equal_weights,
    fit_weights,
    gain_in_accuracy,
    gain_in_error,
    gain_in_hits,
    vote,
)
from headstart.evaluation.error_intervals import WeightedMean, means_with_intervals
from headstart.evaluation.intervals import wilson


def members(*, strengths=(1.0, 1.0, 1.0), num_samples=400, num_classes=3, seed=0):
    """Give probabilities of models that err independently, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, num_samples)
    noise = random.normal(size=(len(strengths), num_samples, num_classes))
    logits = noise + np.array(strengths)[:, None, None] * np.eye(num_classes)[labels]
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True), labels


def log_loss(tables, weights, labels):
    return -np.log(vote(tables, weights)[np.arange(len(labels)), labels]).mean()


def test_a_vote_of_probabilities_is_a_probability_and_one_of_equals_is_their_answer():
    tables, _ = members()
    assert vote(tables, equal_weights(3)).sum(axis=1) == pytest.approx(1)
    assert vote([tables[0]] * 3, [0.2, 0.3, 0.5]) == pytest.approx(tables[0])


def test_points_are_averaged_too():
    points = np.random.default_rng(0).random((3, 7, 5, 2))
    assert vote(points, equal_weights(3)) == pytest.approx(points.mean(axis=0))


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(HeadstartError, match=r"weights must be not negative, with the sum 1; got \["):
        vote(np.zeros((2, 1, 2)), weights)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_weights_stand_at_the_optimum(seed):
    tables, labels = members(strengths=(0.2, 1.0, 2.0, 1.5), seed=seed)
    weights = fit_weights(tables, labels)
    of_truth = tables[:, np.arange(len(labels)), labels]
    slopes = (of_truth / (weights @ of_truth)).mean(axis=1)  # Karush, Kuhn, Tucker: 1 where a weight counts, else below
    assert weights.sum() == pytest.approx(1)
    assert slopes[weights > 0] == pytest.approx(1, abs=5e-3)
    assert (slopes <= 1 + 5e-3).all()


def test_no_other_weights_do_better():
    tables, labels = members(strengths=(0.5, 1.0, 2.0))
    best = log_loss(tables, fit_weights(tables, labels), labels)
    others = np.random.default_rng(0).dirichlet(np.ones(3), size=200)
    assert best <= min(log_loss(tables, weights, labels) for weights in others) + 1e-6


def test_a_member_that_knows_nothing_gets_no_vote():
    tables, labels = members(strengths=(3.0, -3.0))
    assert fit_weights(tables, labels).tolist() == [1.0, 0.0]


def test_the_gain_is_the_votes_accuracy_minus_the_mean_of_its_members():
    tables, labels = members()
    weights = equal_weights(3)
    accuracies = (tables.argmax(axis=-1) == labels).mean(axis=1)
    expected = (vote(tables, weights).argmax(axis=-1) == labels).mean() - accuracies.mean()
    found = gain_in_accuracy(tables, weights, labels)
    assert found.value == pytest.approx(expected)
    assert 0 < found.low < found.value < found.high  # they err independently


def test_equal_members_gain_nothing_for_sure():
    tables, labels = members(strengths=(1.0,))
    found = gain_in_accuracy(np.repeat(tables, 4, axis=0), equal_weights(4), labels)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_one_member_is_its_own_vote():
    found = gain_in_hits([[True, False, True]], [True, False, True])
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("is_right", [True, False])
def test_a_gain_of_which_nothing_was_seen_has_an_interval(is_right):
    """Tango's interval for paired shares without one pair that differs: z² / (n + z²) to both sides."""
    found = gain_in_hits(np.full((2, 12), is_right), np.full(12, is_right))
    assert found.value == 0
    assert (-found.low, found.high) == pytest.approx((1.96**2 / (12 + 1.96**2),) * 2, abs=1e-4)
    persons = gain_in_hits(np.full((2, 12), is_right), np.full(12, is_right), units=np.repeat(np.arange(4), 3))
    assert persons.high == pytest.approx(wilson(0.0, 4)[1])


def test_the_interval_of_a_gain_is_that_of_resampling_where_enough_units_differ():
    random = np.random.default_rng(0)
    members, voted = random.random((3, 400)) < 0.7, random.random(400) < 0.8
    found = gain_in_hits(members, voted)
    difference = voted - members.mean(axis=0)
    resampled = means_with_intervals({"": WeightedMean(difference, np.ones(400))}, np.arange(400))[""]
    assert (found.low, found.high) == (resampled.low, resampled.high)


@pytest.mark.parametrize("num_units", [2, 5, 12, 40])
def test_the_interval_of_a_gain_holds_it_and_stays_within_bounds(num_units):
    random = np.random.default_rng(num_units)
    for share in (0.0, 0.05, 0.5, 1.0):
        hits = random.random((4, num_units * 3)) < share
        found = gain_in_hits(hits[:3], hits[3], units=np.repeat(np.arange(num_units), 3), num_resamples=100)
        assert -1 <= found.low < found.value < found.high <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost"), [(0.02, 0.02), (0.05, 0.0), (0.1, 0.02), (0.2, 0.1), (0.0, 0.03)])
@pytest.mark.parametrize("num_samples", [12, 40, 150])
def test_intervals_of_gains_hold_the_true_gain_as_often_as_promised(gained, lost, num_samples):
    random, hits = np.random.default_rng(num_samples), 0
    for seed in range(400):
        kind = random.choice(3, p=[1 - gained - lost, gained, lost], size=num_samples)
        found = gain_in_hits(np.stack([kind != 1, kind != 1]), kind != 2, seed=seed, num_resamples=300)
        hits += found.low <= gained - lost <= found.high
    assert hits / 400 >= 0.92


def test_the_interval_grows_where_persons_have_many_photos():
    tables, labels = members(num_samples=300)
    alone = gain_in_accuracy(tables, equal_weights(3), labels)
    again = [np.repeat(tables, 5, axis=1), np.repeat(labels, 5)]
    known = gain_in_accuracy(again[0], equal_weights(3), again[1], units=np.repeat(np.arange(300), 5))
    fooled = gain_in_accuracy(again[0], equal_weights(3), again[1])
    assert known.high - known.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert fooled.high - fooled.low < 0.6 * (known.high - known.low)


def test_errors_that_are_no_number_do_not_count():
    assert gain_in_error([[3.0, np.nan], [5.0, np.nan]], [3.5, np.nan]).value == pytest.approx(0.5)


def test_members_with_other_classes_are_refused_by_name():
    with pytest.raises(
        HeadstartError, match=r"b must be a model of the same classes as a; got .*it lacks 'dog'.*'owl'"
    ):
        check_same_names({"a": ["cat", "dog"], "b": ["cat", "owl"], "c": ["dog", "cat"]})
