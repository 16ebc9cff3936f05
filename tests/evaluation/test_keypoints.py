from dataclasses import astuple

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.keypoint_metrics import (
    KeypointAnswers,
    choose_examples,
    describe_normaliser,
    keypoint_scores,
    normalisers,
)
from headstart.evaluation.keypoints import (
    KEYPOINT_SCORES,
    KeypointEvaluation,
    evaluate_keypoints,
    seen_against_unseen,
)

NUM_POINTS = 5
NAMES = ("왼쪽 눈", "right eye", "nose", "left mouth", "right mouth")


def answers(
    noise: np.ndarray | float = 0.0, *, num_samples: int = 60, visible: np.ndarray | None = None, seed: int = 0
) -> KeypointAnswers:
    """Faces in photos of 200 pixels, predicted with an error of ``noise`` pixels; the model sees the whole photo."""
    points = np.random.default_rng(seed).uniform(40, 160, size=(num_samples, NUM_POINTS, 2))
    predicted, shown = points + noise, np.ones((num_samples, NUM_POINTS), bool) if visible is None else visible
    lengths = np.full(num_samples, 100.0)
    return KeypointAnswers(predicted, points, shown, lengths, predicted / 200, points / 200)


def shifted(pixels: np.ndarray) -> np.ndarray:
    """An error to the right, of as many pixels as told for each sample."""
    return np.stack([pixels, np.zeros_like(pixels)], axis=-1)[:, None, :]


def scored(given: KeypointAnswers, **settings) -> KeypointEvaluation:
    return evaluate_keypoints(given, **{"names": NAMES, "num_resamples": 300} | settings)


def values(result: KeypointEvaluation) -> dict[str, float]:
    return {name: score.value for name, score in result.scores.items()}


def test_a_perfect_prediction_has_no_error_and_no_failure():
    result = scored(answers())
    perfect = dict.fromkeys(KEYPOINT_SCORES, 0.0) | {"auc_8": 1.0, "auc_10": 1.0}
    assert values(result) == pytest.approx(perfect)
    assert result.curve["share"].to_list() == [1.0] * 201
    assert tuple(result.scores) == KEYPOINT_SCORES


def test_a_known_shift_gives_the_closed_form():
    result = scored(answers(np.array([3.0, 4.0])))  # 5 pixels of 100: 5 %
    expected = {
        "nme": 5.0, "nme_median": 5.0, "auc_8": 3 / 8, "auc_10": 0.5, "failure_8": 0.0, "failure_10": 0.0,
        "mae": 3.5 / 200, "mse": 12.5 / 200**2, "error_pixels": 5.0,
    }  # fmt: skip
    assert values(result) == pytest.approx(expected)
    assert result.per_point["nme"].to_list() == pytest.approx([5.0] * NUM_POINTS)


def test_the_area_is_that_under_the_cumulative_curve():
    result = scored(answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2))))
    for limit in (8, 10):
        steps = np.linspace(0, limit, 20_001)
        under = (result.sample_errors[:, None] <= steps).mean()
        assert result.scores[f"auc_{limit}"].value == pytest.approx(under, abs=1e-3)
        assert result.scores[f"failure_{limit}"].value == np.mean(result.sample_errors > limit)


def test_mean_errors_without_hidden_points_are_those_of_keras():
    given = answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2)))
    moved = np.asarray(given.predicted_model) - np.asarray(given.points_model)
    scores = keypoint_scores(given)
    assert (scores["mae"], scores["mse"]) == pytest.approx((np.abs(moved).mean(), (moved**2).mean()))


def test_cheap_scores_are_those_of_the_whole_evaluation():
    visible = np.random.default_rng(2).random((60, NUM_POINTS)) < 0.7
    given = answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2)), visible=visible)
    whole = values(scored(given))
    assert keypoint_scores(given) == pytest.approx({name: whole[name] for name in ("nme", "mae", "mse")})


def test_hidden_points_do_not_count():
    visible = np.ones((60, NUM_POINTS), bool)
    visible[:, 2] = False
    noise = np.zeros((60, NUM_POINTS, 2))
    noise[:, 2] = 1000.0
    result = scored(answers(noise, visible=visible))
    assert values(result)["nme"] == values(result)["mae"] == values(result)["error_pixels"] == 0.0
    assert result.per_point.row(2) == (2, "nose", None, None, None, 0.0)
    assert "1 of 5 points are visible in no sample of this split: nose" in result.notes[0]


def test_a_hidden_point_need_not_be_a_number():
    visible = np.ones((60, NUM_POINTS), bool)
    visible[:, 2] = False
    given = answers(visible=visible)
    np.asarray(given.points)[:, 2] = np.nan
    assert values(scored(given))["nme"] == 0.0


def test_the_order_of_samples_does_not_matter():
    noise = np.random.default_rng(1).normal(scale=4, size=(60, NUM_POINTS, 2))
    given, order = answers(noise), np.random.default_rng(3).permutation(60)
    turned = KeypointAnswers(*(np.asarray(getattr(given, name))[order] for name in given.__dataclass_fields__))
    units = np.arange(60) // 4
    first, second = scored(given, units=units), scored(turned, units=units[order])
    for name in KEYPOINT_SCORES:
        one, other = first.scores[name], second.scores[name]
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high)), name


@pytest.mark.parametrize("num_units", [2, 5, 60])
def test_an_interval_holds_its_value(num_units):
    given = answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2)))
    result = scored(given, units=np.arange(60) % num_units)
    for name, score in result.scores.items():
        assert 0 <= score.low <= score.value <= score.high, name
        assert score.low < score.high, name
        assert score.high <= 1 or not name.startswith(("auc", "failure")), name
    points = result.per_point
    assert ((points["nme_low"] <= points["nme"]) & (points["nme"] <= points["nme_high"])).all()


def test_one_person_alone_gives_no_interval():
    given = answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2)))
    result = scored(given, units=np.zeros(60))
    assert not any(score.has_interval for score in result.scores.values())
    assert result.to_metrics_json()["nme"] == {"value": values(result)["nme"], "low": None, "high": None}
    assert result.per_point.select("nme_low", "nme_high").null_count().row(0) == (NUM_POINTS, NUM_POINTS)
    assert "there is no interval" in result.notes[0]


def test_a_point_that_one_person_shows_has_no_interval():
    visible = np.ones((60, NUM_POINTS), bool)
    visible[6:, 2] = False
    result = scored(answers(np.array([3.0, 4.0]), visible=visible), units=np.arange(60) // 6)
    assert result.per_point["nme_low"].is_null().to_list() == [False, False, True, False, False]


def test_errors_that_go_with_the_person_widen_the_interval():
    of_person = np.random.default_rng(4).uniform(1, 9, size=20)
    given = answers(shifted(np.repeat(of_person, 10)), num_samples=200)
    grouped, alone = scored(given, units=np.repeat(np.arange(20), 10)), scored(given)
    for name in ("nme", "nme_median", "auc_8", "failure_8", "error_pixels", "mae"):
        ours, theirs = grouped.scores[name], alone.scores[name]
        assert ours.value == theirs.value
        assert ours.high - ours.low > 1.5 * (theirs.high - theirs.low), name


def test_no_failure_seen_is_not_no_failure():
    result = scored(answers(shifted(np.full(60, 2.0))), units=np.arange(60) // 6)
    assert result.scores["failure_8"].value == 0.0
    assert 0.2 < result.scores["failure_8"].high < 0.35  # Wilson over 10 persons


def grouped_errors(num_units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of faces whose persons differ, skewed as real ones are; the true mean is 4."""
    random = np.random.default_rng(seed)
    of_person, of_face = (random.lognormal(-0.08, 0.4, size=size) for size in (num_units, num_units * 6))
    return 4 * np.repeat(of_person, 6) * of_face, np.repeat(np.arange(num_units), 6)


@pytest.mark.slow
@pytest.mark.parametrize("num_units", [10, 30, 100])
def test_intervals_hold_the_true_error_as_often_as_promised(num_units):
    hits = 0
    for seed in range(300):
        errors, units = grouped_errors(num_units, seed)
        score = scored(answers(shifted(errors), num_samples=len(errors)), units=units).scores["nme"]
        hits += score.low <= 4 <= score.high
    assert hits / 300 >= 0.91


def test_the_same_seed_gives_the_same_intervals():
    given = answers(np.random.default_rng(1).normal(scale=5, size=(60, NUM_POINTS, 2)))
    assert scored(given, seed=3).scores == scored(given, seed=3).scores != scored(given, seed=4).scores


def test_samples_that_cannot_be_scored_are_left_out_and_counted():
    visible = np.ones((60, NUM_POINTS), bool)
    visible[7] = False
    given = answers(shifted(np.full(60, 2.0)), visible=visible)
    np.asarray(given.normaliser)[[3, 4]] = (np.nan, 0.0)
    result = scored(given)
    left_out = "3 samples are left out of the scores: 1 without a visible point, 2 without a length to divide errors by"
    assert (result.num_samples, result.num_units) == (57, 57)
    assert result.notes[0].startswith(left_out)
    assert np.flatnonzero(np.isnan(result.sample_errors)).tolist() == [3, 4, 7]
    assert values(result)["nme"] == pytest.approx(2.0)


def test_groups_stand_worst_first_with_their_worst_sample():
    given = answers(shifted(np.array([1.0, 2, 6, 4, 9, 3])), num_samples=6)
    table = scored(given, groups=["김", "김", "Lee", "Lee", None, "Park"]).per_group
    assert table.rows() == [
        ("Lee", 2, pytest.approx(5.0), 2, pytest.approx(6.0)),
        ("Park", 1, pytest.approx(3.0), 5, pytest.approx(3.0)),
        ("김", 2, pytest.approx(1.5), 1, pytest.approx(2.0)),
    ]


def test_without_groups_there_is_no_table_of_them():
    assert scored(answers()).per_group.height == 0


def test_metrics_json_holds_every_score_with_its_ends():
    found = scored(answers(np.array([3.0, 4.0]))).to_metrics_json()
    assert found["nme"] == {"value": pytest.approx(5.0), "low": pytest.approx(5.0), "high": pytest.approx(5.0)}
    assert tuple(found) == KEYPOINT_SCORES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.full((60, NUM_POINTS, 2), np.nan)}, r"predicted\[0, 0\] must be finite; got \[nan, nan\]"),
        ({"points": np.full((60, NUM_POINTS, 2), np.inf)}, r"points\[0, 0\] must be finite; got \[inf, inf\]. Mark it"),
        ({"visible": np.ones((60, 4), bool)}, r"visible must be of shape \(60, 5\); got \(60, 4\)"),
        ({"visible": np.zeros((60, 5), bool)}, "visible must be of at least one sample .* got '60 samples"),
        ({"normaliser": np.ones(3)}, r"normaliser must be of shape \(60,\); got \(3,\)"),
        ({"predicted": np.ones((60, NUM_POINTS))}, r"predicted must be of shape .* got \(60, 5\)"),
    ],
)
def test_answers_that_do_not_fit_are_refused(change, message):
    given = answers()
    arrays = {name: getattr(given, name) for name in given.__dataclass_fields__} | change
    with pytest.raises(HeadstartError, match=message):
        scored(KeypointAnswers(**arrays))


def test_names_units_and_groups_must_fit():
    with pytest.raises(HeadstartError, match="names must be 5 names, one per point; got 1"):
        scored(answers(), names=["nose"])
    with pytest.raises(HeadstartError, match=r"units must be of shape \(60,\), one per sample; got \(2,\)"):
        scored(answers(), units=[0, 1])
    with pytest.raises(HeadstartError, match="groups must be 60 names, one per sample; got 2"):
        scored(answers(), groups=["a", "b"])


SQUARE = np.array([[[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]])


@pytest.mark.parametrize(
    ("visible", "by", "length"),
    [
        ([1, 1, 1], "points", 5.0), ([1, 1, 1], "box", 5.0), ([1, 1, 1], "image", 50.0), ([1, 1, 0], "box", 3.0),
        ([1, 1, 0], "points", np.nan), ([0, 1, 0], "box", np.nan), ([0, 0, 0], "box", np.nan),
        ([0, 0, 0], "image", 50.0),
    ],
)  # fmt: skip
def test_lengths_are_those_of_what_is_visible(visible, by, length):
    found = normalisers(SQUARE, [visible], [(30, 40)], by=by, pair=(1, 2))
    assert found.tolist() == pytest.approx([length], nan_ok=True)


def test_two_points_in_one_place_have_no_distance():
    assert np.isnan(normalisers(SQUARE * 0, np.ones((1, 3)), [(30, 40)], by="points", pair=(0, 1))).all()


def test_a_pair_must_name_two_points():
    with pytest.raises(HeadstartError, match="pair must be two point numbers from 0 to 2; got None"):
        normalisers(SQUARE, np.ones((1, 3)), [(30, 40)], by="points")
    with pytest.raises(HeadstartError, match=r"got \(0, 3\)"):
        normalisers(SQUARE, np.ones((1, 3)), [(30, 40)], by="points", pair=(0, 3))
    with pytest.raises(HeadstartError, match="by must be one of 'points', 'box', 'image'; got 'eyes'"):
        normalisers(SQUARE, np.ones((1, 3)), [(30, 40)], by="eyes")  # type: ignore[arg-type]


def test_what_errors_are_divided_by_is_said():
    assert describe_normaliser("points", pair=(36, 45)) == "the distance between the points 36 and 45"
    assert describe_normaliser("image") == "the diagonal of the image"


def test_new_persons_are_compared_with_known_ones():
    groups = [f"person {number // 5}" for number in range(200)]
    errors = np.random.default_rng(0).normal(3, 0.3, size=200) + (np.arange(200) >= 100)
    found = seen_against_unseen(errors, groups, {f"person {number}" for number in range(20)}, num_resamples=300)
    assert (found.num_seen, found.num_unseen, found.num_seen_groups, found.num_unseen_groups) == (100, 100, 20, 20)
    assert found.gap.value == pytest.approx(found.unseen.value - found.seen.value)
    assert 0.8 < found.gap.low < found.gap.value < found.gap.high < 1.2


def test_a_side_without_samples_has_no_score():
    found = seen_against_unseen([1.0, 2.0, np.nan], ["a", None, "b"], {"a"})
    assert (found.seen.value, found.unseen, found.gap) == (1.0, None, None)
    assert (found.num_seen, found.num_unseen) == (1, 0)


def test_one_person_on_a_side_leaves_the_gap_without_an_interval():
    found = seen_against_unseen([1.0, 3.0, 5.0, 7.0, 5.0], ["a", "a", "b", "b", "c"], {"a"})
    assert [score.has_interval for score in (found.seen, found.unseen, found.gap)] == [False, True, False]
    assert found.gap.value == pytest.approx(17 / 3 - 2)


def test_the_same_samples_have_one_interval_whatever_the_groups_are():
    given = answers(shifted(np.random.default_rng(4).uniform(1, 9, size=60)))
    groups, units = [f"person {number // 5}" for number in range(60)], np.arange(60) // 10  # two persons a burst
    whole = scored(given, units=units, groups=groups)
    found = seen_against_unseen(whole.sample_errors, groups, set(), units=units, num_resamples=300)
    assert astuple(found.unseen) == pytest.approx(astuple(whole.scores["nme"]))
    assert (found.num_unseen_groups, whole.num_units) == (12, 6)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(HeadstartError, match="groups must be of 2 names, one per sample; got 1"):
        seen_against_unseen([1.0, 2.0], ["a"], {"a"})


def test_examples_are_chosen_once_and_one_per_person():
    errors = np.arange(40, dtype=float)
    errors[5] = np.nan
    found = choose_examples(errors, groups=np.arange(40) // 2, num_each=3)
    assert found["worst"] == [39, 37, 35]
    assert found["best"] == [0, 2, 4]
    assert found["median"] == [20, 19, 22]


def test_few_samples_are_shown_once_each():
    chosen = choose_examples([1.0, 2.0, 3.0]).values()
    assert sorted(position for positions in chosen for position in positions) == [0, 1, 2]
    assert choose_examples([np.nan]) == {"worst": [], "median": [], "best": []}
