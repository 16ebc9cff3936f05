import numpy as np
import pytest
from sklearn import metrics as reference

from headstart.errors import HeadstartError
from headstart.evaluation.metrics import SCORES, classification_scores, confusion_counts, per_class_scores


def predictions(num_samples: int = 500, num_classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=num_samples)
    weights = random.gamma(1.0, size=(num_samples, num_classes))
    weights[np.arange(num_samples), labels] += 1.5
    return weights / weights.sum(axis=1, keepdims=True), labels


def test_scores_are_those_of_scikit_learn():
    probabilities, labels = predictions()
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(probabilities, labels)
    assert tuple(scores) == SCORES
    assert scores["accuracy"] == reference.accuracy_score(labels, predicted)
    assert scores["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert scores["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities))


def test_macro_scores_are_means_over_the_classes_that_are_present():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    scores = classification_scores(probabilities, [0, 0, 1, 1])
    assert scores["balanced_accuracy"] == pytest.approx((1.0 + 0.5) / 2)
    assert scores["macro_f1"] == pytest.approx((1.0 + 2 / 3) / 2)


def test_a_sure_mistake_has_a_large_but_finite_loss():
    assert 30 < classification_scores([[1.0, 0.0]], [1])["log_loss"] < 40


def test_one_class_alone_can_be_scored():
    assert classification_scores([[1.0], [1.0]], [0, 0])["macro_f1"] == 1.0


def test_confusion_has_the_true_class_as_row():
    assert confusion_counts([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]], [0, 1]).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_per_class_scores_are_null_where_there_is_nothing_to_divide_by():
    table = per_class_scores([[0.6, 0.3, 0.1], [0.7, 0.2, 0.1]], [0, 1], ("가", "나", "다"))
    assert table["class_name"].to_list() == ["가", "나", "다"]
    assert table["support"].to_list() == [1, 1, 0]
    assert table["predicted"].to_list() == [2, 0, 0]
    assert table["precision"].to_list() == [0.5, None, None]
    assert table["recall"].to_list() == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5, 0.5], [0], r"probabilities must be of shape \(samples, classes\); got \(2,\)"),
        ([[0.5, 0.5]], [0, 1], r"labels must be of shape \(1,\), one per row of the probabilities; got \(2,\)"),
        (np.empty((0, 2)), np.empty(0, int), "labels must be of at least one sample; got 0"),
        ([[0.5, 0.5]], [0.0], "labels must be whole numbers; got 'float64'"),
        ([[0.5, 0.5]], [2], r"labels\[0\] must be from 0 to 1; got 2"),
        ([[np.nan, 0.5]], [0], "probabilities row 0 must be finite and not negative; got .nan, 0.5"),
        ([[0.5, 0.5], [3.0, 2.0]], [0, 0], "probabilities row 1 must be a row that sums to 1; got 5.0. Apply softmax"),
    ],
)
def test_wrong_input_is_refused_with_place_and_value(probabilities, labels, message):
    with pytest.raises(HeadstartError, match=message):
        classification_scores(probabilities, labels)


def test_class_names_must_fit_the_probabilities():
    with pytest.raises(HeadstartError, match=r"class_names must be 2 names.*got 3"):
        per_class_scores([[0.5, 0.5]], [0], ("a", "b", "c"))
