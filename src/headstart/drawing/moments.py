"""One picture's circumstances: where the head is and looks, what the face does, what is worn, and in what light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from headstart.drawing import colours
from headstart.drawing.colours import Colour
from headstart.drawing.people import Cap, Glasses, Look, Person, draws_for

FRAME_SIZE: Final = (720, 1280)
"""(height, width) of every picture, as driver cameras have it."""
FRAMES_PER_SCENE: Final = 4
SCENES_PER_PERSON: Final = 3


@dataclass(frozen=True)
class Pose:
    """How the head is held and where it is.

    Attributes:
        yaw: Degrees; more than 0 looks towards the right of the picture.
        pitch: Degrees; more than 0 looks up.
        roll: Degrees; more than 0 turns the head clockwise in the picture.
        scale: Pixels per unit of the head (the eyes are about 0.9 units apart).
        x: Of the neck, in pixels.
        y: Of the neck, in pixels.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 170.0
    x: float = 640.0
    y: float = 430.0


@dataclass(frozen=True)
class Expression:
    """What the face does.

    Attributes:
        left_eye: 0 closed, 1 open; the eye at the left of the picture.
        right_eye: The other.
        gaze: (x, y) from −1 to 1; 0 looks where the head points.
        mouth: 0 closed, 1 yawning.
        smile: −0.4 sour, 0 even, 1 broad.
        brows: −1 drawn down, 1 raised.
    """

    left_eye: float = 1.0
    right_eye: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)
    mouth: float = 0.0
    smile: float = 0.0
    brows: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A drive: the same car, light, clothes and accessories for some frames.

    Attributes:
        light_side: −1 … 1, where the light comes from; more than 0 is the right of the picture.
        brightness: 1 is usual.
        interior: Number that the car is drawn from.
    """

    number: int
    look: Look
    light_side: float
    warmth: float
    brightness: float
    clothes: Colour
    mask: Colour
    glasses: Glasses
    cap: Cap
    interior: int
    scale: float
    x: float
    y: float


@dataclass(frozen=True)
class Moment:
    """One picture's circumstances. ``frame`` counts within the scene, from 1."""

    scene: Scene
    frame: int
    pose: Pose
    expression: Expression
    has_mask: bool
    grain: int


def draw_moment(seed: int, person: Person, index: int) -> Moment:
    """Give the circumstances of a person's picture.

    Args:
        seed: Of the set.
        person: Who is drawn.
        index: Of the picture among the person's, from 0; some in a row share a scene.
    """
    scene = _draw_scene(seed, person, 1 + index // FRAMES_PER_SCENE)
    draws = draws_for(seed, kind="frame", numbers=(person.number, index))
    return Moment(
        scene=scene,
        frame=1 + index % FRAMES_PER_SCENE,
        pose=_draw_pose(draws, scene),
        expression=_draw_expression(draws),
        has_mask=bool(draws.random() < 0.25),
        grain=int(draws.integers(2**31)),
    )


def _draw_scene(seed: int, person: Person, number: int) -> Scene:
    draws = draws_for(seed, kind="scene", numbers=(person.number, number))
    scale = float(np.exp(draws.uniform(np.log(95), np.log(212))))
    room = FRAME_SIZE[0] / 2 - 1.45 * scale  # above and below the head
    look: Look = "infrared" if draws.random() < 0.3 else "light"
    return Scene(
        number=number,
        look=look,
        light_side=float(draws.choice([-1, 1]) * draws.uniform(0.25, 1)),
        warmth=float(draws.normal(0, 0.4)),
        brightness=float(draws.uniform(0.72, 1.1)),
        clothes=colours.pick(draws, colours.CLOTHES),
        mask=colours.pick(draws, colours.MASKS, spread=3),
        glasses=person.glasses if draws.random() < 0.85 else "",
        cap=person.cap if draws.random() < 0.75 else "",
        interior=int(draws.integers(2**31)),
        scale=scale,
        x=float(draws.uniform(330, 950)),
        y=FRAME_SIZE[0] / 2 + 0.7 * scale + float(draws.uniform(-0.6, 0.9)) * room,
    )


def _draw_pose(draws: np.random.Generator, scene: Scene) -> Pose:
    """Draw a pose: mostly towards the road, at times far to a side."""
    scale = float(np.clip(scene.scale * np.exp(draws.normal(0, 0.06)), 88, 220))
    yaw, pitch, roll = np.clip(draws.normal(0, (14, 8.5, 7.5)), (-32, -20, -20), (32, 20, 20)).tolist()
    return Pose(
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        scale=scale,
        x=scene.x + float(draws.normal(0, 0.25)) * scale,
        y=scene.y + float(draws.normal(0, 0.12)) * scale,
    )


def _draw_expression(draws: np.random.Generator) -> Expression:
    """Draw an expression: calm, smiling, talking, drowsy or yawning. Eyes and mouth are plainly open or plainly not."""
    kind = str(draws.choice(["calm", "smile", "talk", "drowsy", "yawn"], p=[0.4, 0.2, 0.15, 0.13, 0.12]))
    is_closed = draws.random() < {"drowsy": 0.7, "yawn": 0.65}.get(kind, 0.08)
    eye = draws.uniform(0, 0.06) if is_closed else draws.uniform(0.5, 0.7) if kind == "drowsy" else draws.normal(1, 0.1)
    mouth = {"yawn": draws.uniform(0.7, 1), "talk": draws.uniform(0.2, 0.45), "smile": draws.choice([0, 0.2])}
    return Expression(
        left_eye=float(np.clip(eye, 0, 1.2)),
        right_eye=float(np.clip(eye + (0 if is_closed else draws.normal(0, 0.03)), 0, 1.2)),
        gaze=(float(np.clip(draws.normal(0, 0.45), -1, 1)), float(np.clip(draws.normal(0, 0.3), -1, 1))),
        mouth=float(mouth.get(kind, 0)),
        smile=float(draws.uniform(0.5, 1) if kind == "smile" else draws.normal(0.22, 0.2)),
        brows=float(np.clip(draws.normal(0.5 if kind == "yawn" else 0, 0.3), -1, 1)),
    )
