import re

import numpy as np
import polars as pl
import pytest

from headstart.data.keypoints import KeypointLayout
from headstart.evaluation.keypoints import cumulative_curve
from headstart.reporting.keypoint_plots import cumulative_chart, share_within
from headstart.reporting.mean_face import error_face, pair_face
from headstart.reporting.svg import text_width

FACE = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 2.0], [1.0, 4.0], [3.0, 4.0]])


def errors(names: list[str]) -> pl.DataFrame:
    nme = [1.0 + number for number in range(len(names))]
    return pl.DataFrame({"number": range(len(names)), "name": names, "nme": nme, "visible": 1.0})


def test_errors_are_drawn_with_their_names():
    drawn = error_face(FACE, errors(["왼눈", "<b>", "2", "mouth", "chin"]))
    assert drawn.count("<circle") == 5
    assert "0 왼눈: 1.00 %" in drawn
    assert "<title>2: 3.00 %" in drawn
    assert "<b>" not in drawn
    assert "largest at chin (5.00 %), smallest at 왼눈 (1.00 %)" in drawn


def test_larger_errors_are_larger_circles():
    drawn = error_face(FACE, errors(list("abcde")))
    radii = {name: float(radius) for radius, name in re.findall(r'r="([\d.]+)" class="[^"]*"><title>\d (\w)', drawn)}
    assert radii["a"] < radii["c"] < radii["e"]


def test_points_without_a_place_or_an_error_are_left_out():
    table = errors(list("abcde")).with_columns(nme=pl.when(pl.col("number") == 1).then(None).otherwise("nme"))
    shape = FACE.copy()
    shape[4] = np.nan
    assert error_face(shape, table).count("<circle") == 3
    assert error_face(np.full((5, 2), np.nan), table) == ""
    assert error_face(FACE, table.with_columns(nme=pl.lit(0.0))).count("<circle") == 5


def test_pairs_are_joined():
    drawn = pair_face(FACE, KeypointLayout(tuple("abcde"), flip_pairs=((0, 1), (3, 4))))
    assert (drawn.count("<line"), drawn.count("<circle")) == (2, 5)
    assert "2 left/right pairs, 1 point without a partner" in drawn


def test_unknown_pairs_are_said():
    assert "left/right pairs are not known" in pair_face(FACE, KeypointLayout(tuple("abcde")))
    assert pair_face(FACE * np.nan, KeypointLayout(tuple("abcde"))) == ""


def test_the_curve_is_drawn_as_far_as_it_rises():
    short = cumulative_chart({"test": cumulative_curve(np.linspace(0, 5, 100))})
    long = cumulative_chart({"test": cumulative_curve(np.linspace(0, 40, 100))})
    assert ">12</text>" in short
    assert ">14</text>" not in short
    assert ">20</text>" in long
    assert "test: 20 % of faces at most 8 % off, 25 % of faces at most 10 % off" in long


@pytest.mark.parametrize(
    "errors", [[30.0] * 9, [2.0] * 9, [9.0] * 9, [9.0, *[30.0] * 9], [7.0, 9, 9, *[40.0] * 20], [5.0, *[40.0] * 5]]
)
def test_labels_at_the_limits_stand_apart_and_inside(errors):
    drawn = cumulative_chart({"test": cumulative_curve(errors)})
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="best-label"( text-anchor="end")?>([^<]+)', drawn)
    ends = [(float(x) - text_width(words) * bool(is_left), float(y)) for x, y, is_left, words in labels]
    (left, first), (right, second) = ends
    assert abs(first - second) > 11 or left + text_width(labels[0][3]) < right
    assert max(first, second) < 222  # the bottom of the curve: numbers stand below
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="4.5" class="best"', drawn)]
    assert not any(left < x < left + text_width(labels[0][3]) and first - 9 < y < first for x, y in dots)


def test_two_curves_have_a_legend():
    drawn = cumulative_chart({"validation": cumulative_curve([1.0, 3.0]), "test": cumulative_curve([2.0, 9.0])})
    assert ">validation</text>" in drawn
    assert ">50.0%</text>" in drawn
    assert cumulative_chart({}) == ""


@pytest.mark.parametrize(("limit", "share"), [(8, 0.5), (10, 0.75)])
def test_a_face_at_the_limit_is_within(limit, share):
    assert share_within(cumulative_curve([1.0, 8.0, 10.0, 10.5]), limit) == share
