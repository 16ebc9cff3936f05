"""A person's parameters: the shape of the face, colours, hair, and what they own to wear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np

from headstart.drawing import colours
from headstart.drawing.colours import Colour

Gender = Literal["F", "M"]
Look = Literal["light", "infrared"]
HairStyle = Literal["bald", "bob", "bun", "buzz", "curly", "fringe", "long", "short", "side"]
Beard = Literal["", "full", "goatee", "moustache", "stubble"]
Glasses = Literal["", "rectangle", "round"]
Cap = Literal["", "baseball", "beanie"]

_Choice = TypeVar("_Choice", bound=str)
DRAWS: Final = {"person": 1, "scene": 2, "frame": 3, "hair": 4, "broken": 5}
"""One number per kind of thing drawn, so that a person, a scene and a frame never share random numbers."""
_STYLES: Final[dict[Gender, dict[HairStyle, float]]] = {
    "M": {"short": 5, "side": 4, "buzz": 2, "fringe": 2, "curly": 1.5, "bald": 1.5, "long": 0.5},
    "F": {"long": 4, "bob": 3, "bun": 2.5, "fringe": 2, "curly": 1.5, "short": 1, "side": 0.7},
}
_BEARDS: Final[dict[Beard, float]] = {"": 5, "stubble": 2, "full": 1.5, "moustache": 0.8, "goatee": 0.7}
_GLASSES: Final[dict[Glasses, float]] = {"": 1.7, "rectangle": 1, "round": 1}
_CAPS: Final[dict[Cap, float]] = {"": 2.6, "baseball": 1, "beanie": 0.5}


@dataclass(frozen=True)
class Shape:
    """What a face is like, each number 0 for the usual face and mostly within −1 … 1."""

    face_width: float
    jaw: float
    chin: float
    eye_size: float
    eye_gap: float
    eye_tilt: float
    brow_height: float
    brow_arch: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lips: float


@dataclass(frozen=True)
class Person:
    """One person, the same on all their pictures.

    Attributes:
        number: 1 and up.
        age: In whole decades, as file names have it: 20 … 70.
    """

    number: int
    age: int
    gender: Gender
    shape: Shape
    skin: Colour
    hair: Colour
    iris: Colour
    hair_style: HairStyle
    parting: int
    hair_volume: float
    beard: Beard
    glasses: Glasses
    frame: Colour
    cap: Cap
    cap_colour: Colour


def draws_for(seed: int, *, kind: str, numbers: tuple[int, ...]) -> np.random.Generator:
    """Give the random numbers of one thing: a function of the seed and of what it is, never of what came before."""
    sequence = np.random.SeedSequence((seed, DRAWS[kind], *numbers))
    return np.random.Generator(np.random.Philox(sequence))


def draw_person(seed: int, number: int) -> Person:
    """Give a person of a set.

    Examples:
        >>> draw_person(0, 7) == draw_person(0, 7), draw_person(0, 7) == draw_person(1, 7)
        (True, False)
    """
    draws = draws_for(seed, kind="person", numbers=(number,))
    gender: Gender = "M" if draws.random() < 0.5 else "F"
    age = int(draws.choice([20, 30, 40, 50, 60, 70], p=[0.26, 0.24, 0.18, 0.14, 0.11, 0.07]))
    skin = int(draws.integers(len(colours.SKINS)))
    hair = colours.pick(draws, colours.HAIRS[: 4 if skin > 4 else None])  # dark skin comes with dark hair
    greying = float(np.clip(draws.normal((age - 45) / 30, 0.25), 0, 1))
    glasses: Glasses = _choose(draws, _GLASSES)
    cap: Cap = _choose(draws, _CAPS)
    return Person(
        number=number,
        age=age,
        gender=gender,
        shape=_draw_shape(draws, gender),
        skin=colours.pick(draws, colours.SKINS[skin : skin + 1], spread=4),
        hair=colours.mix(hair, colours.GREY, greying),
        iris=colours.pick(draws, colours.IRISES),
        hair_style=_choose(draws, _STYLES[gender]),
        parting=int(draws.choice([-1, 1])),
        hair_volume=float(draws.uniform(-1, 1)),
        beard=_choose(draws, _BEARDS) if gender == "M" else "",
        glasses=glasses,
        frame=colours.pick(draws, colours.FRAMES),
        cap=cap,
        cap_colour=colours.pick(draws, colours.CAPS),
    )


def _draw_shape(draws: np.random.Generator, gender: Gender) -> Shape:
    """Draw the numbers of a face; men have, on average, broader jaws and brows, women larger eyes and fuller lips."""
    values = np.clip(draws.normal(0, 0.45, 13), -1, 1)
    leaning = np.zeros(13)
    leaning[[1, 2, 3, 7, 8, 9, 12]] = (0.5, 0.25, -0.3, -0.35, 0.5, 0.2, -0.35)
    lean = 1 if gender == "M" else -1
    return Shape(*np.clip(values + lean * leaning, -1.25, 1.25).tolist())


def _choose(draws: np.random.Generator, weights: Mapping[_Choice, float]) -> _Choice:
    shares = np.array(list(weights.values()), np.float64)
    return list(weights)[int(draws.choice(len(shares), p=shares / shares.sum()))]
