"""Heads and moments to draw in tests: plain ones, made from the seeds' own."""

from dataclasses import replace

import pytest

from headstart.drawing.moments import Expression, Pose, draw_moment
from headstart.drawing.people import draw_person


@pytest.fixture
def plain():
    """Give a person and a moment in daylight: no glasses, cap or mask, eyes open, looking at the camera."""

    def give(number, **pose):
        person = replace(draw_person(0, number), hair_style="short")
        moment = draw_moment(0, person, 0)
        scene = replace(moment.scene, look="light", brightness=1.0, glasses="", cap="")
        moment = replace(moment, scene=scene, has_mask=False, expression=Expression(), pose=Pose(**pose))
        return person, moment

    return give
