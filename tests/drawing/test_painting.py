"""Pictures: what is painted lies where the points say."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from headstart.drawing.moments import FRAME_SIZE, Expression
from headstart.drawing.painting import paint


def tones_at(picture, points):
    """Give how bright the picture is at places, 0 … 255."""
    grey = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = np.asarray(points, np.float32).T
    return cv2.remap(grey, x[None], y[None], cv2.INTER_LINEAR)[0]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_pupils_are_dark_between_lighter_surroundings(plain, number):
    picture = paint(*plain(number))
    for pupil in picture.points[68:]:
        around = pupil + np.array([(-15, 0), (15, 0)])
        assert tones_at(picture, [pupil])[0] < 40 < tones_at(picture, around).min()


@pytest.mark.parametrize("number", [1, 3, 5])
def test_the_upper_lid_is_a_dark_line_through_its_points(plain, number):
    picture = paint(*plain(number))
    lid = picture.points[[37, 38, 43, 44]]
    assert (tones_at(picture, lid) < tones_at(picture, lid - (0, 12)) - 25).all()


@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (24, 10), (-24, -10)])
def test_the_jaw_points_lie_on_the_edge_of_the_painted_face(plain, yaw, roll):
    person, moment = plain(3, yaw=yaw, roll=roll)
    person = replace(person, beard="", skin=(240, 200, 170))
    scene = replace(moment.scene, clothes=(30, 30, 34), interior=4)
    picture = paint(person, replace(moment, scene=scene))
    jaw = picture.points[:17]
    tangent = jaw[2:] - jaw[:-2]
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) / np.linalg.norm(tangent, axis=1)[:, None]
    steps = np.arange(-7, 7.5, 0.5)
    for point, outwards in list(zip(jaw[1:-1], normal, strict=True))[2:-2]:  # nearer to the ears hair may lie over it
        profile = tones_at(picture, point - outwards * steps[:, None])
        sharpest = steps[np.abs(np.diff(profile)).argmax()] + 0.25
        assert abs(sharpest) <= 1.5


def test_a_mask_hides_the_mouth_and_leaves_its_points_true(plain):
    person, moment = plain(2)
    bare, masked = paint(person, moment), paint(person, replace(moment, has_mask=True))
    np.testing.assert_array_equal(bare.points, masked.points)
    x, y = bare.points[48:68].mean(axis=0).round().astype(int)
    mouth = (slice(y - 20, y + 20), slice(x - 40, x + 40))
    assert np.abs(bare.pixels[mouth].astype(int) - masked.pixels[mouth]).mean() > 20


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_shut_lid_hides_the_pupil(plain, number):
    person, moment = plain(number)
    shut = replace(moment, expression=Expression(left_eye=0.0, right_eye=0.0))
    for pupil in paint(person, moment).points[68:]:
        assert tones_at(paint(person, moment), [pupil])[0] < 40 < 100 < tones_at(paint(person, shut), [pupil])[0]


def test_infrared_is_grey_and_daylight_has_colour(plain):
    person, moment = plain(4)
    lit = paint(person, moment).pixels
    grey = paint(person, replace(moment, scene=replace(moment.scene, look="infrared"))).pixels
    assert (lit.shape, grey.shape) == ((*FRAME_SIZE, 3), FRAME_SIZE)
    assert np.abs(lit[..., 0].astype(int) - lit[..., 2]).mean() > 5
