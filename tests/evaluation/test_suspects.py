"""Suspect labels: what is wrong on purpose is found, what is right is left alone."""

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.suspects import confident_joint, find_suspects


def noisy(*, num_samples=600, num_classes=4, share=0.1, seed=0):
    """Give out-of-fold probabilities of a fair model, labels with some wrong on purpose, and where they are wrong."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, num_classes, num_samples)
    logits = random.normal(size=(num_samples, num_classes)) + 4 * np.eye(num_classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    is_wrong = random.random(num_samples) < share
    labels = np.where(is_wrong, (truth + random.integers(1, num_classes, num_samples)) % num_classes, truth)
    return probabilities, labels, is_wrong, truth


@pytest.mark.parametrize("seed", range(4))
def test_most_wrong_labels_are_found_and_most_suspects_are_wrong(seed):
    probabilities, labels, is_wrong, _ = noisy(seed=seed)
    rows = find_suspects(probabilities, labels)["row"].to_numpy()
    assert is_wrong[rows].mean() > 0.85
    assert len(set(rows) & set(np.flatnonzero(is_wrong))) > 0.75 * is_wrong.sum()


def test_the_suggestion_is_the_true_class():
    probabilities, labels, is_wrong, truth = noisy()
    found = find_suspects(probabilities, labels)
    rows = found["row"].to_numpy()
    hits = found["suggested"].to_numpy() == truth[rows]
    assert hits[is_wrong[rows]].mean() > 0.95


def test_the_least_credible_label_comes_first_and_is_never_the_suggestion():
    probabilities, labels, _, _ = noisy()
    found = find_suspects(probabilities, labels)
    assert found["self_confidence"].is_sorted()
    rows = found["row"].to_numpy()
    assert found["self_confidence"].to_numpy() == pytest.approx(probabilities[rows, labels[rows]])
    assert (found["suggested"].to_numpy() != labels[rows]).all()


def test_right_labels_are_left_alone():
    probabilities = np.full((40, 2), 0.1)
    labels = np.arange(40) % 2
    probabilities[np.arange(40), labels] = 0.9
    assert find_suspects(probabilities, labels).is_empty()


def test_the_joint_estimates_how_many_labels_are_wrong():
    probabilities, labels, is_wrong, truth = noisy(num_samples=6000)
    joint = confident_joint(probabilities, labels)
    counts = np.zeros((4, 4))
    np.add.at(counts, (labels, truth), 1)
    assert joint.sum(axis=1) == pytest.approx(np.bincount(labels))
    assert np.abs(joint - counts).max() < 40
    assert joint.sum() - np.trace(joint) == pytest.approx(is_wrong.sum(), rel=0.15)


def test_a_class_without_samples_changes_nothing():
    probabilities, labels, _, _ = noisy(num_classes=3)
    wider = np.concatenate([probabilities, np.zeros((len(labels), 1))], axis=1)
    assert find_suspects(wider, labels)["row"].to_list() == find_suspects(probabilities, labels)["row"].to_list()


def test_what_is_no_probability_is_refused():
    with pytest.raises(HeadstartError, match="sums to 1; got 3"):
        find_suspects([[1.0, 2.0]], [0])
