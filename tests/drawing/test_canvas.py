"""The canvas: what is painted where, and that nothing leaks out of an outline."""

import numpy as np
import pytest

from headstart.drawing.canvas import Canvas
from headstart.drawing.curves import ellipse, resample, smooth

RED, BLUE = (200, 0, 0), (0, 0, 200)


@pytest.fixture
def canvas():
    return Canvas(np.zeros((60, 80, 3), np.uint8))


def square(left, top, size):
    return np.array([(left, top), (left + size, top), (left + size, top + size), (left, top + size)], float)


def test_an_opaque_shape_has_its_colour_inside_and_nothing_outside(canvas):
    canvas.fill(square(20, 10, 20), RED)
    assert (canvas.pixels[12:28, 22:38] == RED).all()
    assert not canvas.pixels[:, :18].any()
    assert not canvas.pixels[33:].any()


def test_half_opacity_mixes_with_what_was_there(canvas):
    canvas.pixels[:] = 100
    canvas.fill(square(20, 10, 20), (200, 200, 200), opacity=0.5)
    assert (np.abs(canvas.pixels[12:28, 22:38].astype(int) - 150) <= 1).all()


@pytest.mark.parametrize("blur", [1.0, 4.0, 11.0])
def test_a_blurred_edge_passes_its_middle_at_the_outline(canvas, blur):
    canvas.fill(square(40, -200, 400), (255, 255, 255), opacity=1, blur=blur)
    row = canvas.pixels[30, :, 0].astype(int)
    assert (np.diff(row) >= -1).all()
    middle = np.interp(127.5, row[20:61], np.arange(20, 61))
    assert abs(middle - 40) < 0.5 + 0.3 * blur  # OpenCV fills half a pixel more, of the smaller mask


def test_paint_stays_within_an_outline_also_when_nested(canvas):
    with canvas.within(square(10, 10, 20)), canvas.within(square(20, 20, 30)):
        canvas.fill(square(0, 0, 100), BLUE)
    painted = np.argwhere(canvas.pixels[..., 2] > 100)
    assert painted.min(axis=0).tolist() == [20, 20]
    assert painted.max(axis=0).tolist() == [30, 30]


@pytest.mark.parametrize("blur", [0.0, 3.0])
def test_a_shape_outside_of_the_picture_changes_nothing(canvas, blur):
    with canvas.within(square(-90, -90, 20)):
        canvas.fill(square(0, 0, 50), RED)
    canvas.fill(square(300, 10, 20), RED, opacity=0.9, blur=blur)
    assert not canvas.pixels.any()


def test_a_smooth_closed_curve_runs_through_its_points_and_can_be_walked_in_equal_steps():
    given = ellipse((5, 3), (4, 2), angle=0.4, num_points=9)
    curve = smooth(given, is_closed=True)
    np.testing.assert_allclose(curve[::6], given)
    steps = np.linalg.norm(np.diff(resample(curve, 50), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1
