import numpy as np
import pytest

from face_points import FIVE, mirrored, noisy, read_faces, turned
from headstart.data.shapes import NoShapeError, align, consensus, fit_similarity, mean_shape, to_complex
from headstart.errors import HeadstartError


def random_similarities(shape, num_samples=50):
    return turned(np.repeat(np.asarray(shape)[None], num_samples, axis=0), seed=3)


def test_a_scaled_turned_and_shifted_shape_is_aligned_exactly():
    moved = random_similarities(FIVE)
    found = align(moved, np.ones((50, 5), bool), FIVE)
    assert np.abs(found.points - FIVE).max() < 1e-9
    assert found.residuals.max() < 1e-12
    assert not found.mirrored.any()


def test_angles_and_scales_are_those_that_moved_the_shape():
    z = (FIVE[:, 0] + 1j * FIVE[:, 1]) * 2.5 * np.exp(1j * np.radians(30))
    found = align(np.stack([z.real, z.imag], axis=-1)[None], np.ones((1, 5), bool), FIVE)
    assert found.angles[0] == pytest.approx(30)
    assert found.scales[0] == pytest.approx(2.5)


def test_no_other_similarity_fits_better():
    (points, visible), random = noisy(FIVE, 1, noise=8), np.random.default_rng(0)
    z, w = to_complex(points, visible)[0], to_complex(FIVE[None], visible)[0][0]
    a, b = fit_similarity(z, visible.astype(float), w)
    best = (np.abs(a[:, None] * z + b[:, None] - w) ** 2).sum()
    tries = random.normal(0, 0.05, (500, 4)) @ [[1, 0], [1j, 0], [0, 20], [0, 20j]]
    others = np.abs((a + tries[:, 0])[:, None] * z + (b + tries[:, 1])[:, None] - w) ** 2
    assert best <= others.sum(axis=1).min()


def test_reflection_is_allowed_only_where_asked_for():
    lopsided = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [1.0, 7.0]])
    flipped, visible = (lopsided * [-1, 1])[None], np.ones((1, 4), bool)
    assert align(flipped, visible, lopsided).residuals[0] > 0.2
    found = align(flipped, visible, lopsided, allow_mirror=True)
    assert found.residuals[0] < 1e-12
    assert found.mirrored.tolist() == [True]


def test_hidden_points_do_not_count_whatever_their_coordinates():
    points, visible = noisy(FIVE, 40)
    visible[:, 2] = False
    expected = align(np.delete(points, 2, axis=1), np.delete(visible, 2, axis=1), np.delete(FIVE, 2, axis=0))
    for hidden in (np.nan, np.inf, 1e6):
        points[:, 2] = hidden
        found = align(points, visible, FIVE)
        assert np.isnan(found.points[:, 2]).all()
        assert np.allclose(np.delete(found.points, 2, axis=1), expected.points)


def test_residual_is_one_for_a_spot_and_unknown_below_two_points():
    points, visible = np.full((2, 5, 2), 7.0), np.ones((2, 5), bool)
    visible[1, 1:] = False
    found = align(points, visible, FIVE)
    assert found.residuals[0] == pytest.approx(1)
    assert np.isnan(found.residuals[1])


def test_mean_shape_is_normalised_and_upright():
    points, visible = noisy(FIVE)
    mean = mean_shape(turned(points, most=20), visible)
    assert np.abs(mean.mean(axis=0)).max() < 1e-12
    assert np.mean(np.sum(mean**2, axis=1)) == pytest.approx(1)
    assert abs(align(mean[None], np.ones((1, 5), bool), FIVE).angles[0]) < 4  # a median of 200 turns
    assert align(mean[None], np.ones((1, 5), bool), FIVE).residuals[0] < 0.01


def test_wrong_mirrored_and_collapsed_samples_do_not_spoil_the_mean():
    points, visible = noisy(FIVE, 400)
    clean, random = mean_shape(points, visible), np.random.default_rng(4)
    points[:12] = random.uniform(0, 100, (12, 5, 2))
    points[12:24] = FIVE[[1, 0, 2, 4, 3]]
    points[24:36] = 50.0
    found = consensus(points, visible)
    assert not found.trusted[found.rows < 36].any()
    assert np.abs(found.mean - clean).max() < 0.005


def test_mean_shape_is_the_same_each_time_and_near_it_from_a_subsample():
    points, visible = noisy(FIVE, 3000, noise=3)
    whole, part = mean_shape(points, visible), mean_shape(points, visible, max_samples=500)
    assert np.array_equal(part, mean_shape(points, visible, max_samples=500))
    assert np.abs(whole - part).max() < 0.03
    assert len(consensus(points, visible, max_samples=500).rows) == 500


def test_a_point_that_no_sample_shows_has_no_mean():
    points, visible = noisy(FIVE, 30)
    visible[:, 3] = False
    mean = mean_shape(points, visible)
    assert np.isnan(mean).all(axis=1).tolist() == [False, False, False, True, False]


def test_samples_with_different_points_hidden_make_the_same_mean():
    points, visible = noisy(FIVE, 2000)
    hidden = np.random.default_rng(1).random(visible.shape) > 0.3
    assert np.abs(mean_shape(points, hidden) - mean_shape(points, visible)).max() < 0.01


def test_spots_alone_have_no_mean():
    with pytest.raises(NoShapeError, match="two different visible points at least; got 0"):
        mean_shape(np.full((3, 5, 2), 4.0), np.ones((3, 5), bool))


@pytest.mark.parametrize(
    ("points", "visible", "reference", "message"),
    [
        ((3, 5), (3, 5), (5, 2), r"points must be an array of shape \(samples, keypoints, 2\); got \(3, 5\)"),
        ((3, 5, 2), (3, 4), (5, 2), r"visible must be an array of shape \(3, 5\); got \(3, 4\)"),
        ((3, 5, 2), (3, 5), (4, 2), r"reference must be an array of shape \(5, 2\); got \(4, 2\)"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(points, visible, reference, message):
    with pytest.raises(HeadstartError, match=message):
        align(np.zeros(points), np.ones(visible, bool), np.zeros(reference))


@pytest.mark.real_data
def test_mean_face_stays_itself_when_samples_are_mirrored_or_turned(real_data):
    points, _, _ = read_faces(real_data)
    visible = np.ones(points.shape[:2], bool)
    mean = mean_shape(points, visible)
    assert mean[8, 1] > mean[27, 1]  # the chin is below the eyes: y points down
    damaged = mean_shape(mirrored(turned(points, most=30)), visible)
    assert align(damaged[None], np.ones((1, 68), bool), mean).residuals[0] < 0.01
