"""Geometry of the 70 points: left and right, poses, expressions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from headstart.drawing.faces import FLIP_PAIRS, LEFT_EYE, NUM_POINTS, RIGHT_EYE, Head
from headstart.drawing.moments import FRAME_SIZE, Expression, Pose, draw_moment
from headstart.drawing.painting import MARGIN, place_head
from headstart.drawing.people import draw_person

SHAPES = [draw_person(0, number).shape for number in range(1, 7)]
POSES = [Pose(), Pose(yaw=25, pitch=-9, roll=12), Pose(yaw=-31, pitch=18, roll=-15)]


def mirrored(points, middle):
    order = np.arange(NUM_POINTS)
    for left, right in FLIP_PAIRS:
        order[[left, right]] = right, left
    return (points * (-1, 1) + (2 * middle, 0))[order]


def drawn_heads(num_persons):
    for number in range(1, num_persons + 1):
        person = draw_person(5, number)
        yield from (place_head(person, draw_moment(5, person, index)) for index in range(12))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pose", POSES)
def test_the_mirrored_head_is_the_head_turned_the_other_way_with_pairs_swapped(shape, pose):
    expression = Expression(left_eye=0.9, right_eye=0.1, gaze=(0.4, 0.1), mouth=0.3, smile=0.5)
    swapped = replace(expression, left_eye=0.1, right_eye=0.9, gaze=(-0.4, 0.1))
    points = Head(shape, expression, pose).points
    other = Head(shape, swapped, replace(pose, yaw=-pose.yaw, roll=-pose.roll)).points
    np.testing.assert_allclose(mirrored(points, pose.x), other, atol=0.01)


def test_points_without_a_partner_lie_on_the_middle_line():
    paired = [point for pair in FLIP_PAIRS for point in pair]
    assert len(paired) == len(set(paired)) == 60
    alone = sorted(set(range(NUM_POINTS)) - set(paired))
    assert alone == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    np.testing.assert_allclose(Head(SHAPES[0], Expression(), Pose()).points[alone, 0], Pose().x)


def test_every_point_of_every_face_is_inside_of_the_picture():
    for head in drawn_heads(60):
        assert (head.points >= MARGIN - 0.01).all()
        assert (head.points <= np.array(FRAME_SIZE[::-1]) - 1 - MARGIN + 0.01).all()


def test_a_guess_that_does_not_look_is_far_off():
    points = np.stack([head.points for head in drawn_heads(40)])
    eyes = np.linalg.norm(points[:, 45] - points[:, 36], axis=1)
    error = np.linalg.norm(points - points.mean(axis=0), axis=2).mean(axis=1) / eyes
    assert np.median(error) > 0.7  # of the distance between the eyes' outer corners
    centred = points - points.mean(axis=1, keepdims=True)
    error = np.linalg.norm(centred - centred.mean(axis=0), axis=2).mean(axis=1) / eyes
    assert np.median(error) > 0.12  # even where the face's place is known


def test_no_point_leaves_the_face_when_the_head_turns():
    for head in drawn_heads(15):
        outline = head.outline.astype(np.float32)
        depth = [cv2.pointPolygonTest(outline, tuple(map(float, point)), True) for point in head.points[17:]]
        assert min(depth) > -0.06 * head.pose.scale


@pytest.mark.parametrize("pose", POSES)
def test_lids_meet_when_shut_and_hold_the_pupil_when_open(pose):
    shut, wide = (Head(SHAPES[1], Expression(left_eye=eye, right_eye=eye), pose).points for eye in (0.0, 1.0))
    for number, eye in enumerate((LEFT_EYE, RIGHT_EYE)):
        assert np.linalg.norm(shut[eye][[1, 2]] - shut[eye][[5, 4]], axis=1).max() < 0.01 * pose.scale
        assert np.linalg.norm(wide[eye][[1, 2]] - wide[eye][[5, 4]], axis=1).min() > 0.1 * pose.scale
        contour = wide[eye].astype(np.float32)
        assert cv2.pointPolygonTest(contour, tuple(map(float, wide[68 + number])), False) > 0


def test_a_yawn_opens_the_lips_and_drops_the_chin():
    calm, yawn = (Head(SHAPES[2], Expression(mouth=mouth), Pose()).points for mouth in (0.0, 1.0))
    assert np.linalg.norm(calm[62] - calm[66]) < 3 < 50 < np.linalg.norm(yawn[62] - yawn[66])
    assert yawn[8, 1] - calm[8, 1] > 40
    np.testing.assert_allclose(calm[17:48], yawn[17:48])
