import re

import numpy as np
import pytest

from face_points import FACE_AXIS, FACE_PAIRS, FIVE, mirrored, noisy, read_faces, turned
from headstart.data.flip_pairs import infer_flip_pairs, judge_flip_pairs
from headstart.data.mirror_search import assign
from headstart.data.shapes import align, mean_shape

PLANT = [(0, 0), (0, 10), (0, 20), (0, 30), (0, 40), (-10, 8), (12, 16), (-11, 25), (9, 33), (-3, 44)]
PROFILE = [(0, 0), (-5, 5), (-6, 10), (-5, 15), (-12, 23), (-6, 26), (-8, 29), (-6, 31), (-8, 33), (-5, 36), (8, 41)]


@pytest.fixture(scope="module")
def faces(real_data):
    return read_faces(real_data)[0]


def all_visible(points):
    return np.ones(points.shape[:2], bool)


def spoilt(points, how):
    changed = {"as it is": points, "turned": turned(points), "mirrored": mirrored(points)}
    return changed[how] if how in changed else turned(mirrored(points))


@pytest.mark.parametrize("how", ["as it is", "turned", "mirrored", "turned and mirrored"])
def test_pairs_of_a_plain_face_are_found(how):
    points, visible = noisy(FIVE)
    found = infer_flip_pairs(spoilt(points, how), visible)
    assert (found.pairs, found.axis_points) == (((0, 1), (3, 4)), (2,))
    assert found.is_sure
    assert not found.reason


def test_exchanging_twice_is_identity():
    found = infer_flip_pairs(*noisy(FIVE))
    places = found.permutation(5)
    assert places.tolist() == [1, 0, 2, 4, 3]
    assert (places[places] == np.arange(5)).all()


def test_the_axis_may_lie():
    points, visible = noisy(FIVE @ np.array([[0.0, 1.0], [-1.0, 0.0]]))
    assert infer_flip_pairs(points, visible).pairs == ((0, 1), (3, 4))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_points", [7, 21, 68])
def test_random_points_are_refused_as_asymmetrical(num_points, seed):
    shape = np.random.default_rng(seed).normal(0, 20, (num_points, 2))
    found = infer_flip_pairs(*noisy(shape, 100))
    assert not found.is_sure
    assert found.reason.startswith("The shape is asymmetrical: its best mirror image is 0.")


@pytest.mark.parametrize("shape", [PLANT, PROFILE])
def test_a_plant_and_a_profile_are_refused_as_asymmetrical(shape):
    found = infer_flip_pairs(*noisy(np.array(shape, float)))
    assert not found.is_sure
    assert "asymmetrical" in found.reason


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([(0, 0), (40, 0), (40, 40), (0, 40)], "symmetrical about two axes, (45|90) degrees apart"),
        ([(0, 0), (80, 0), (80, 40), (0, 40)], "symmetrical about two axes, 90 degrees apart"),
        ([(0, 10 * i) for i in range(7)], "symmetrical about two axes, 90 degrees apart"),
        ([(0, 10 * i**2) for i in range(7)], "No two points are each other's mirror image"),
    ],
)
def test_shapes_with_several_axes_or_none_that_tells_are_refused(shape, reason):
    found = infer_flip_pairs(*noisy(np.array(shape, float)))
    assert not found.is_sure
    assert re.search(reason, found.reason)


def test_points_that_coincide_are_ambiguous_unless_they_move_apart():
    shape = np.concatenate([FIVE, FIVE[3:]])
    points, visible = noisy(shape, 400)
    assert "points 3, 4, 5, 6" in infer_flip_pairs(points, visible).reason
    points[:, 5:, 1] += np.random.default_rng(1).normal(0, 6, (400, 1))
    found = infer_flip_pairs(points, visible)
    assert found.pairs == ((0, 1), (3, 4), (5, 6))
    assert found.is_sure


def test_pairs_that_are_nearly_as_good_crosswise_are_ambiguous():
    shape = np.array([*FIVE[:4], [65, 80.95], [35, 82], [65, 81.05]])
    found = infer_flip_pairs(*noisy(shape, 400, noise=0.1))
    assert not found.is_sure
    assert found.reason.startswith("Ambiguous: another assignment of points 3, 4, 5, 6")


@pytest.mark.parametrize(("num_samples", "is_sure"), [(5, False), (15, False), (40, True)])
def test_few_samples_are_never_sure(num_samples, is_sure):
    found = infer_flip_pairs(*noisy(FIVE, num_samples))
    assert found.pairs == ((0, 1), (3, 4))
    assert found.is_sure is is_sure
    assert is_sure or "at least 20 are needed" in found.reason


def test_a_point_that_is_never_seen_makes_unsure():
    points, visible = noisy(FIVE)
    visible[:, 2] = False
    found = infer_flip_pairs(points, visible)
    assert found.pairs == ((0, 1), (3, 4))
    assert found.reason == "Too few samples show point 2."


def test_assignments_are_their_own_inverse_even_where_a_cycle_would_be_cheaper():
    costs = np.full((5, 5), 9.0)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        costs[i, j] = costs[j, i] = 1.0
    costs[3, 3] = costs[4, 4] = 0.0
    places = assign(costs)
    assert (places[places] == np.arange(5)).all()
    assert places[3:].tolist() == [3, 4]


def test_given_pairs_keep_their_say_but_are_measured():
    points, visible = noisy(FIVE)
    right, wrong = (judge_flip_pairs(points, visible, pairs) for pairs in (((4, 3), (0, 1)), ((0, 3), (1, 4))))
    assert (right.pairs, right.axis_points, right.is_sure) == (((0, 1), (3, 4)), (2,), True)
    assert right.residual < 0.02
    assert (wrong.pairs, wrong.is_sure) == (((0, 3), (1, 4)), False)
    assert "mirrored with these pairs, is 0.19 of its size" in wrong.reason


@pytest.mark.real_data
def test_the_68_point_table_is_found_in_real_faces(faces):
    found = infer_flip_pairs(faces, all_visible(faces))
    assert (found.pairs, found.axis_points) == (FACE_PAIRS, FACE_AXIS)
    assert found.is_sure
    assert found.residual < 0.03


@pytest.mark.real_data
@pytest.mark.parametrize("how", ["as it is", "turned", "mirrored", "turned and mirrored"])
@pytest.mark.parametrize(("num_samples", "least_sure"), [(50, 7), (200, 8)])
def test_the_68_point_table_is_found_in_small_subsets(faces, num_samples, least_sure, how):
    random, num_sure = np.random.default_rng(2), 0
    for _ in range(8):
        points = faces[random.choice(len(faces), num_samples, replace=False)]
        found = infer_flip_pairs(spoilt(points, how), all_visible(points))
        assert (found.pairs, found.axis_points) == (FACE_PAIRS, FACE_AXIS)
        num_sure += found.is_sure
    assert num_sure >= least_sure


@pytest.mark.real_data
def test_the_68_point_table_is_found_with_a_third_of_the_points_hidden(faces):
    random = np.random.default_rng(3)
    points = faces[random.choice(len(faces), 300, replace=False)]
    visible = random.random(points.shape[:2]) > 1 / 3
    found = infer_flip_pairs(np.where(visible[..., None], points, np.nan), visible)
    assert (found.pairs, found.axis_points, found.is_sure) == (FACE_PAIRS, FACE_AXIS, True)


@pytest.mark.real_data
def test_real_faces_that_all_look_one_way_are_refused(faces):
    aligned = align(faces, all_visible(faces), mean_shape(faces, all_visible(faces))).points
    way = aligned[:, 30, 0] - (aligned[:, 0, 0] + aligned[:, 16, 0]) / 2  # nose against the middle of the jaw
    profiles = faces[np.argsort(way)[:150]]
    found = infer_flip_pairs(profiles, all_visible(profiles))
    assert not found.is_sure
    assert "asymmetrical" in found.reason
