import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.intervals import score_with_intervals, wilson
from headstart.evaluation.metrics import SCORES

MACRO = ("accuracy", "balanced_accuracy", "macro_f1")


def grouped_answers(
    num_units: int, unit_size: int, *, accuracy: float, correlation: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of a four-class classifier that is better at some persons than at others (beta-binomial)."""
    random = np.random.default_rng(seed)
    spread = 1 / correlation - 1
    units = np.repeat(np.arange(num_units), unit_size)
    labels = random.integers(4, size=len(units))
    is_right = random.random(len(units)) < random.beta(accuracy * spread, (1 - accuracy) * spread, num_units)[units]
    predicted = np.where(is_right, labels, (labels + random.integers(1, 4, size=len(units))) % 4)
    return np.where(np.arange(4) == predicted[:, None], 0.85, 0.05), labels, units


def coverage(num_simulations: int, *, grouped: bool, **setting: float) -> dict[str, float]:
    hits = dict.fromkeys(MACRO, 0)
    for seed in range(num_simulations):
        probabilities, labels, units = grouped_answers(**setting, seed=seed)  # type: ignore[arg-type]
        scores = score_with_intervals(
            probabilities, labels, units=units if grouped else None, seed=seed, num_resamples=500
        )
        for name in MACRO:
            hits[name] += scores[name].low <= setting["accuracy"] <= scores[name].high
    return {name: count / num_simulations for name, count in hits.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {"num_units": 120, "unit_size": 8, "accuracy": 0.85, "correlation": 0.3},
        {"num_units": 200, "unit_size": 3, "accuracy": 0.9, "correlation": 0.5},
        {"num_units": 20, "unit_size": 8, "accuracy": 0.85, "correlation": 0.4},
        {"num_units": 8, "unit_size": 10, "accuracy": 0.8, "correlation": 0.3},
        {"num_units": 60, "unit_size": 8, "accuracy": 0.97, "correlation": 0.3},
    ],
)
def test_grouped_intervals_hold_the_true_score_as_often_as_promised(setting):
    assert min(coverage(400, grouped=True, **setting).values()) >= 0.92


@pytest.mark.slow
def test_intervals_that_ignore_groups_hold_the_true_score_too_seldom():
    setting = {"num_units": 60, "unit_size": 8, "accuracy": 0.85, "correlation": 0.4}
    assert coverage(200, grouped=False, **setting)["accuracy"] < 0.8


@pytest.mark.slow
def test_ungrouped_intervals_hold_the_true_score_as_often_as_promised():
    setting = {"num_units": 400, "unit_size": 1, "accuracy": 0.93, "correlation": 0.01}
    assert min(coverage(400, grouped=True, **setting).values()) >= 0.92


@pytest.mark.parametrize("num_units", [1, 2, 5, 40])
@pytest.mark.parametrize("accuracy", [0.02, 0.6, 0.98])
def test_an_interval_holds_its_value_and_stays_within_bounds(num_units, accuracy):
    probabilities, labels, units = grouped_answers(num_units, 5, accuracy=accuracy, correlation=0.3, seed=num_units)
    scores = score_with_intervals(probabilities, labels, units=units, num_resamples=200)
    assert tuple(scores) == SCORES
    for name, score in scores.items():
        assert 0 <= score.low <= score.value <= score.high, name
        assert score.high <= 1 or name == "log_loss", name


@pytest.mark.parametrize("predicted", [0, 1], ids=["all right", "all wrong"])
@pytest.mark.parametrize("units", [None, [0] * 12, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]])
def test_no_interval_collapses_to_a_point(predicted, units):
    probabilities = np.eye(2)[[predicted] * 12]
    for name, score in score_with_intervals(probabilities, [0] * 12, units=units, num_resamples=50).items():
        assert score.high - score.low > 0.01, name


def test_all_right_has_the_interval_of_wilson_over_units():
    probabilities, units = np.eye(2)[[0] * 12], np.repeat(np.arange(6), 2)
    score = score_with_intervals(probabilities, [0] * 12, units=units, num_resamples=50)["accuracy"]
    assert (score.low, score.high) == pytest.approx(wilson(1.0, 6))


def test_accuracy_without_groups_has_the_interval_of_wilson():
    probabilities, labels, _ = grouped_answers(100, 1, accuracy=0.8, correlation=0.01, seed=1)
    score = score_with_intervals(probabilities, labels, num_resamples=50)["accuracy"]
    assert (score.low, score.high) == wilson(score.value, 100)


def test_wilson_gives_the_known_interval():
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_groups_widen_the_interval():
    probabilities, labels, units = grouped_answers(60, 8, accuracy=0.85, correlation=0.5, seed=3)
    grouped = score_with_intervals(probabilities, labels, units=units)
    alone = score_with_intervals(probabilities, labels)
    for name in SCORES:
        assert grouped[name].value == alone[name].value
        assert grouped[name].high - grouped[name].low > 1.3 * (alone[name].high - alone[name].low), name


def test_the_same_seed_gives_the_same_interval():
    probabilities, labels, units = grouped_answers(30, 4, accuracy=0.8, correlation=0.3, seed=5)
    first, again, other = (score_with_intervals(probabilities, labels, units=units, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_names_of_units_do_not_matter():
    probabilities, labels, units = grouped_answers(15, 4, accuracy=0.8, correlation=0.3, seed=5)
    names = np.array([f"person {unit:03}" for unit in units])
    assert score_with_intervals(probabilities, labels, units=names, num_resamples=99) == score_with_intervals(
        probabilities, labels, units=units, num_resamples=99
    )


def test_many_samples_are_resampled_in_bounded_memory():
    import tracemalloc

    probabilities, labels, units = grouped_answers(10_000, 2, accuracy=0.9, correlation=0.3, seed=0)
    tracemalloc.start()
    score_with_intervals(probabilities, labels, units=units, num_resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6  # 1,000 × 10,000 weights at once would be 80 MB as float64, thrice over


def test_units_that_do_not_fit_are_refused():
    with pytest.raises(HeadstartError, match=r"units must be of shape \(1,\), one per sample; got \(2,\)"):
        score_with_intervals([[0.5, 0.5]], [0], units=[1, 2])
