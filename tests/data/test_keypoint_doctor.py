import numpy as np
import polars as pl
import pytest

from face_points import FACE_PAIRS, FIVE, noisy, read_faces, turned
from headstart.data.keypoint_doctor import examine
from headstart.errors import HeadstartError

SIZE = (120, 100)
SWAP = [1, 0, 2, 4, 3]


def five(num_samples=200, **noise):
    points, visible = noisy(FIVE, num_samples, **noise)
    return points, visible, np.full((num_samples, 2), SIZE)


def rows_of(found, kind):
    return set(found.findings.filter(pl.col("kind") == kind)["row"].to_list())


def detail_of(found, row, kind):
    (detail,) = found.findings.filter((pl.col("row") == row) & (pl.col("kind") == kind))["detail"]
    return detail


@pytest.fixture(scope="module")
def faces(real_data):
    return read_faces(real_data)


@pytest.fixture(scope="module")
def examined(faces):
    points, sizes, _ = faces
    return examine(points, np.ones(points.shape[:2], bool), sizes)


@pytest.fixture(scope="module")
def sound_faces(faces, examined):
    """1,500 real faces without the few that the doctor finds something in."""
    points, sizes, _ = faces
    sound = np.setdiff1d(np.arange(len(points)), examined.findings["row"].to_numpy())[:1500]
    return points[sound], sizes[sound]


@pytest.mark.parametrize("num_points", [5, 12, 68])
def test_nothing_is_found_in_sound_samples(num_points):
    shape = np.random.default_rng(num_points).uniform(20, 80, (num_points, 2))
    points, visible = noisy(shape, 2000, noise=1.5)
    found = examine(points, visible, np.full((2000, 2), SIZE))
    assert found.findings.is_empty()
    assert found.deviations.shape == (num_points,)


def test_the_edges_of_a_picture_are_inside_and_what_lies_beyond_is_named():
    points, visible, sizes = five()
    sizes[:] = (1000, 1000)
    points[3, [0, 1]] = [[0.0, 40.0], [70.0, 0.0]]
    sizes[5], points[5, 1, 0], points[5, 4] = SIZE, 100.0, [65.0, 120.0]
    sizes[7], points[7, 1, 0], points[7, 4] = SIZE, 101.5, [65.0, 120.25]
    found = examine(points, visible, sizes)
    assert rows_of(found, "outside") == {7}
    assert detail_of(found, 7, "outside") == "points 1, 4 lie outside the picture (farthest point 1: x 101.5 of 100)"


def test_hidden_points_are_never_outside():
    points, visible, sizes = five()
    visible[3, 0], points[3, 0] = False, [-50.0, 7.0]
    visible[4, 1], points[4, 1] = False, np.nan
    assert examine(points, visible, sizes).findings.is_empty()


@pytest.mark.parametrize(("jitter", "words"), [(0.0, "in one place"), (0.2, "within 0.")])
def test_points_in_one_spot_are_collapsed(jitter, words):
    points, visible, sizes = five()
    points[9] = 50 + jitter * np.random.default_rng(0).normal(size=(5, 2))
    found = examine(points, visible, sizes)
    assert found.findings["row", "kind", "severity"].rows() == [(9, "collapsed", 1.0)]
    assert found.findings["detail"][0].startswith(f"all 5 visible points lie {words}")


def test_small_faces_in_large_photos_are_not_collapsed():
    points, visible, sizes = five()
    assert examine(points / 2, visible, sizes * 40).findings.is_empty()
    points[0] = 50 + (points[0] - 50) / 30
    assert rows_of(examine(points * 10, visible, sizes * 400), "collapsed") == {0}


def test_swapped_labels_and_mirrored_points_are_found_alike():
    points, visible, sizes = five()
    points[4] = points[4, SWAP]
    points[6, :, 0] = SIZE[1] - points[6, :, 0]
    found = examine(points, visible, sizes)
    assert found.findings["kind"].to_list() == ["mirrored"] * 2
    assert rows_of(found, "mirrored") == {4, 6}
    assert detail_of(found, 4, "mirrored").startswith("left and right look swapped: with the pairs exchanged")


def test_swapping_is_judged_by_given_pairs_unless_the_shapes_contradict_them():
    points, visible, sizes = five()
    points[4] = points[4, SWAP]
    assert rows_of(examine(points, visible, sizes, ((0, 1), (3, 4))), "mirrored") == {4}
    found = examine(points, visible, sizes, ((0, 3), (1, 4)))
    assert "mirrored" not in found.counts
    assert "Swapped left and right are not looked for" in found.notes[0]
    assert "with these pairs" in found.pairs.reason


def test_upside_down_and_sideways_samples_are_turned():
    points, visible, sizes = five()
    points[4] = SIZE[::-1] - points[4]
    points[6] = np.stack([110 - points[6, :, 1], points[6, :, 0]], axis=1)
    found = examine(points, visible, sizes)
    assert rows_of(found, "turned") == {4, 6}
    assert detail_of(found, 4, "turned").endswith("against the other samples (upside down)")
    assert "degrees clockwise against the other samples" in detail_of(found, 6, "turned")


def test_turned_samples_are_no_news_where_all_are_turned():
    points, visible, sizes = five()
    found = examine(turned(points) + 500, visible, np.full_like(sizes, 5000))
    assert found.findings.is_empty()
    assert "the samples have no direction in common" in " ".join(found.notes)


@pytest.mark.parametrize("point", range(5))
def test_a_single_wrong_point_is_named(point):
    points, visible, sizes = five()
    points[8, point] = [2.0, 3.0]
    found = examine(points, visible, sizes)
    assert found.findings["row", "kind"].rows() == [(8, "stray point")]
    assert found.findings["detail"][0].startswith(f"point {point} lies ")


def test_another_shape_is_an_outlier():
    points, visible, sizes = five()
    points[8] = [[20, 20], [80, 90], [25, 70], [70, 30], [50, 95]]
    found = examine(points, visible, sizes)
    assert rows_of(found, "outlier") == {8}
    assert "times as far as usual" in detail_of(found, 8, "outlier")


def test_a_way_in_which_many_samples_vary_makes_no_outlier():
    points, visible, sizes = five(400)
    points[:, 2, 0] += np.random.default_rng(1).normal(0, 8, 400)
    points[:, 2, 0] = points[:, 2, 0].clip(25, 75)
    points[7, 2, 0] = 75
    assert examine(points, visible, sizes).findings.is_empty()


def test_findings_do_not_depend_on_place_in_the_file_or_on_blocks():
    points, visible, sizes = five(300)
    points[8, 2], points[9] = [2.0, 3.0], points[9, SWAP]
    few = examine(points, visible, sizes)
    many = examine(*(np.concatenate([array] * 40) for array in (points, visible, sizes)))
    assert sorted(few.counts) == ["mirrored", "stray point"]
    expected = {row + 300 * copy for row in (8, 9) for copy in range(40)}
    assert set(many.findings["row"].to_list()) == expected


def test_the_worst_comes_first():
    points, visible, sizes = five()
    points[3, 0, 0], points[5], points[9, 1] = -1.0, 50.0, [99.0, 119.0]
    severities = examine(points, visible, sizes).findings["severity"].to_list()
    assert severities == sorted(severities, reverse=True)
    assert len(severities) >= 3
    assert 0 < severities[-1] < severities[0] <= 1


@pytest.mark.parametrize("num_points", [1, 2, 3])
def test_too_few_points_are_only_looked_for_outside(num_points):
    points, visible, sizes = five()
    points[3, 0, 0] = -4.0
    found = examine(points[:, :num_points], visible[:, :num_points], sizes)
    assert found.findings["row", "kind"].rows() == [(3, "outside")]
    assert f"of {num_points}." in found.notes[0]


@pytest.mark.parametrize("num_samples", [0, 1, 12])
def test_too_few_samples_are_examined_as_far_as_they_go(num_samples):
    points, visible, sizes = five(num_samples)
    points[:1] -= 200
    found = examine(points, visible, sizes)
    assert found.findings["kind"].to_list() == ["outside"] * min(num_samples, 1)
    assert found.notes[0].startswith("Shapes are not examined: they need 20 samples that agree")
    assert found.mean_shape.shape == (5, 2)


def test_samples_without_any_visible_point_are_passed_over():
    points, visible, sizes = five()
    points[3], visible[3] = np.nan, False
    visible[4, 1:] = False
    assert examine(points, visible, sizes).findings.is_empty()
    assert examine(np.full((3, 5, 2), np.nan), np.zeros((3, 5), bool), sizes[:3]).findings.is_empty()


def test_sizes_that_do_not_go_together_are_refused():
    points, visible, sizes = five(30)
    with pytest.raises(HeadstartError, match=r"sizes must be an array of shape \(30, 2\); got \(29, 2\)"):
        examine(points, visible, sizes[1:])


@pytest.mark.real_data
def test_the_six_frames_with_points_outside_are_found(faces, examined):
    _, _, names = faces
    assert {names[row] for row in rows_of(examined, "outside")} == {
        *("Mariana_Ohata_22.jpg", "Chris_Cooper_42.jpg", "Charlotte_Casiraghi_00.jpg"),
        *("Eliza_Dushku_20.jpg", "Eliza_Dushku_21.jpg", "Eliza_Dushku_22.jpg"),
    }


@pytest.mark.real_data
def test_few_real_faces_are_flagged_and_those_with_misplaced_points_first(faces, examined):
    points, _, names = faces
    assert examined.pairs.pairs == FACE_PAIRS
    assert set(examined.counts) == {"outlier", "stray point", "outside"}
    assert examined.findings["row"].n_unique() <= 0.02 * len(points)
    first = [names[row] for row in examined.findings["row"].head(3)]  # seen: points in the air, on glasses, a heap
    assert sorted(first) == ["Chris_Cirino_30.jpg", "Elton_John_10.jpg", "Marieta_Chrousala_12.jpg"]


@pytest.mark.real_data
def test_damage_done_to_real_faces_is_found(sound_faces):
    points, sizes = sound_faces
    random, places = np.random.default_rng(0), np.arange(68)
    for left, right in FACE_PAIRS:
        places[left], places[right] = right, left
    damaged = points.copy()
    damaged[:60, :, 0] = sizes[:60, 1:] - points[:60, :, 0]
    damaged[60:120] = points[60:120][:, places]
    damaged[120:180] = sizes[120:180, None, ::-1] - points[120:180]
    damaged[180:240] = points[180:240, :1] + random.normal(0, 0.3, (60, 68, 2))
    damaged[np.arange(240, 300), random.integers(0, 68, 60)] = 0
    found = examine(damaged, np.ones(points.shape[:2], bool), sizes)
    assert rows_of(found, "mirrored") == set(range(120))
    assert rows_of(found, "turned") == set(range(120, 180))
    assert rows_of(found, "collapsed") == set(range(180, 240))
    assert set(range(240, 300)) <= rows_of(found, "stray point")
    assert (found.findings["row"].unique() >= 300).sum() <= 0.01 * 1200
