"""From a person and a moment to a picture and its 70 points: the layers, from the car to the glasses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headstart.drawing import features, hair, interior, light, wearing
from headstart.drawing.canvas import Canvas
from headstart.drawing.curves import Points
from headstart.drawing.faces import Head
from headstart.drawing.moments import FRAME_SIZE, Moment
from headstart.drawing.people import Person, draws_for

MARGIN = 8
"""Every point of every face is at least this many pixels inside of the picture."""


@dataclass(frozen=True)
class Picture:
    """A painted face.

    Attributes:
        pixels: Shape (height, width, 3) in daylight (RGB), (height, width) in infrared.
        points: Shape (70, 2), in pixels.
        outline: Of the face, in pixels: forehead, temples and jaw.
    """

    pixels: NDArray[np.uint8]
    points: Points
    outline: Points


def paint(person: Person, moment: Moment) -> Picture:
    """Paint a person at a moment."""
    head = place_head(person, moment)
    canvas = Canvas(_interior(moment.scene).copy())
    draws = draws_for(moment.grain, kind="hair", numbers=(person.number,))
    hair.paint_hair_behind(canvas, head, person, has_cap=bool(moment.scene.cap))
    wearing.paint_torso(canvas, head, person, moment.scene)
    features.paint_ears(canvas, head, person)
    _paint_face(canvas, head, person, moment, draws)
    if moment.has_mask:
        wearing.paint_mask(canvas, head, moment.scene.mask)
    hair.paint_hair(canvas, head, person, draws, has_cap=bool(moment.scene.cap))
    if moment.scene.cap:
        wearing.paint_cap(canvas, head, person, moment.scene.cap)
    if moment.scene.glasses:
        wearing.paint_glasses(canvas, head, person)
    moved = replace(moment, pose=head.pose)
    return Picture(light.develop(canvas.pixels, moved), head.points, head.outline)


def place_head(person: Person, moment: Moment) -> Head:
    """Give the head where it is, moved where a point would come too near to the picture's edge."""
    head = Head(person.shape, moment.expression, moment.pose)
    low, high = head.points.min(axis=0), head.points.max(axis=0)
    size = np.array(FRAME_SIZE[::-1])
    shift = np.maximum(MARGIN - low, 0) + np.minimum(size - 1 - MARGIN - high, 0)
    pose = replace(moment.pose, x=moment.pose.x + float(shift[0]), y=moment.pose.y + float(shift[1]))
    return replace(head, pose=pose)


def _paint_face(canvas: Canvas, head: Head, person: Person, moment: Moment, draws: np.random.Generator) -> None:
    light_side = moment.scene.light_side
    with canvas.within(features.skin_outline(head, person)):
        features.paint_skin(canvas, head, person, light_side=light_side)
        features.paint_lines_of_age(canvas, head, person)
        features.paint_nose(canvas, head, person, light_side=light_side)
        features.paint_beard(canvas, head, person, draws)
        features.paint_eyes(canvas, head, person)
        features.paint_brows(canvas, head, person)
        features.paint_mouth(canvas, head, person)


_interior = lru_cache(maxsize=8)(interior.paint_interior)
"""The car of a scene is the same on all its pictures."""
