"""Colours: the palettes that persons and cars are drawn from, and mixing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

Colour = tuple[int, int, int]
"""Red, green, blue, 0 … 255."""

SKINS: Final[Sequence[Colour]] = (
    (247, 214, 190), (240, 200, 170), (233, 188, 152), (222, 172, 134), (206, 152, 112), (178, 124, 88), (144, 96, 66),
    (110, 72, 50),
)  # fmt: skip
HAIRS: Final[Sequence[Colour]] = (
    (28, 24, 24), (38, 30, 28), (54, 40, 34), (78, 54, 40), (104, 72, 48), (140, 98, 60), (186, 144, 92), (126, 62, 40),
)  # fmt: skip
GREY: Final[Colour] = (190, 190, 192)
IRISES: Final[Sequence[Colour]] = (
    (62, 40, 28), (80, 52, 34), (96, 66, 40), (112, 92, 52), (90, 112, 84), (84, 116, 146),
)  # fmt: skip
CLOTHES: Final[Sequence[Colour]] = (
    (52, 66, 96), (88, 98, 110), (150, 58, 58), (66, 98, 86), (226, 224, 218), (40, 42, 48), (196, 160, 112),
    (112, 84, 124), (94, 132, 168), (206, 130, 96),
)  # fmt: skip
SEATS: Final[Sequence[Colour]] = (
    (46, 46, 50),
    (70, 66, 64),
    (112, 98, 84),
    (150, 136, 118),
    (58, 60, 66),
    (88, 56, 48),
)
MASKS: Final[Sequence[Colour]] = ((240, 243, 245), (170, 208, 226), (238, 226, 222), (52, 54, 60), (206, 214, 206))
FRAMES: Final[Sequence[Colour]] = ((36, 34, 38), (92, 60, 40), (128, 130, 138), (150, 116, 62), (70, 40, 52))
CAPS: Final[Sequence[Colour]] = (
    (44, 58, 92),
    (36, 38, 42),
    (146, 52, 50),
    (84, 104, 80),
    (214, 206, 192),
    (176, 138, 82),
)
SKIES: Final[Sequence[Colour]] = (
    (206, 222, 236), (238, 226, 206), (168, 188, 206), (250, 214, 170), (140, 160, 178), (190, 206, 190),
)  # fmt: skip


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours; 0 gives the first, 1 the second.

    Examples:
        >>> mix((0, 0, 0), (200, 100, 50), 0.5)
        (100, 50, 25)
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, amount: float) -> Colour:
    """Give the colour in shade: dark keeps its warmth, as skin and hair do."""
    red, green, blue = colour
    return mix(colour, (int(red * 0.36), int(green * 0.22), int(blue * 0.2)), amount)


def lighter(colour: Colour, amount: float) -> Colour:
    """Give the colour in bright light."""
    return mix(colour, (255, 250, 240), amount)


def pick(draws: np.random.Generator, colours: Sequence[Colour], *, spread: float = 6) -> Colour:
    """Draw a colour of a palette, a little off."""
    base = np.asarray(colours[int(draws.integers(len(colours)))], np.float64)
    red, green, blue = np.clip(base + draws.normal(0, spread, 3), 4, 252).astype(int).tolist()
    return red, green, blue
