"""The car behind the driver: windows, roof, pillars, seats; drawn small, since it is out of focus."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from headstart.drawing import colours
from headstart.drawing.canvas import Canvas
from headstart.drawing.colours import Colour, darker, lighter, mix
from headstart.drawing.curves import Points, ellipse, smooth
from headstart.drawing.moments import FRAME_SIZE, Scene

_STEP = 4  # drawn at a quarter of the size


def paint_interior(scene: Scene) -> NDArray[np.uint8]:
    """Give the empty car of a scene, shape (height, width, 3), RGB."""
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(scene.interior)))
    height, width = (side // _STEP for side in FRAME_SIZE)
    canvas = Canvas(np.empty((height, width, 3), np.uint8))
    seat = colours.pick(draws, colours.SEATS)
    trim = mix(seat, (120, 116, 110), 0.35)
    canvas.pixels[:] = np.asarray(darker(trim, 0.35), np.uint8)
    _paint_windows(canvas, draws)
    _paint_cabin(canvas, draws, trim)
    for x in (draws.uniform(20, 80), draws.uniform(235, 300)):
        _paint_seat(canvas, (x, draws.uniform(95, 115)), draws.uniform(20, 27), darker(seat, 0.2))
    _soften(canvas, 3.2)
    _paint_seat(canvas, (scene.x / _STEP, (scene.y - 1.05 * scene.scale) / _STEP), scene.scale * 1.3 / _STEP, seat)
    _soften(canvas, float(draws.uniform(1.5, 2.4)))
    full = cv2.resize(canvas.pixels, FRAME_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return full.astype(np.uint8, copy=False)


def _soften(canvas: Canvas, blur: float) -> None:
    canvas.pixels[:] = cv2.GaussianBlur(canvas.pixels, (0, 0), blur)


def _paint_windows(canvas: Canvas, draws: np.random.Generator) -> None:
    """Paint three windows with what passes outside."""
    sky = colours.pick(draws, colours.SKIES)
    ground = mix(sky, (70, 84, 66), float(draws.uniform(0.4, 0.8)))
    low = float(draws.uniform(88, 120))
    top = float(draws.uniform(16, 34))
    first, second = float(draws.uniform(70, 105)), float(draws.uniform(210, 245))
    for left, right, lean in ((-20.0, first, 14), (first + 16, second - 16, 0), (second, 345.0, -14)):
        pane = np.array([(left, top), (right - max(lean, 0), top), (right, low), (left, low)])
        pane[0, 0] -= min(lean, 0)
        with canvas.within(pane):
            canvas.fill(pane, sky)
            canvas.fill(
                np.array([(left, low - 20), (right, low - 24), (right, low), (left, low)]), ground, opacity=0.8, blur=6
            )
            _paint_outside(canvas, draws, sky, (left, right, low))


def _paint_outside(canvas: Canvas, draws: np.random.Generator, sky: Colour, pane: tuple[float, float, float]) -> None:
    left, right, low = pane
    for _ in range(int(draws.integers(3, 7))):
        x, size = float(draws.uniform(left, right)), float(draws.uniform(8, 24))
        tone = mix(sky, colours.pick(draws, ((64, 92, 58), (110, 112, 118), (150, 128, 108), (84, 96, 112))), 0.65)
        if draws.random() < 0.5:
            canvas.fill(ellipse((x, low - size * 0.8), (size, size * 1.1)), tone, opacity=0.85, blur=2)
        else:
            tall = float(draws.uniform(20, 70))
            house = np.array([(x, low - tall), (x + size, low - tall), (x + size, low), (x, low)])
            canvas.fill(house, tone, opacity=0.9, blur=1.5)
    for _ in range(int(draws.integers(0, 4))):
        light = lighter(sky, 0.8)
        place = (draws.uniform(left, right), draws.uniform(30, low))
        canvas.fill(ellipse(place, float(draws.uniform(2, 6))), light, opacity=0.6, blur=1.5)


def _paint_cabin(canvas: Canvas, draws: np.random.Generator, trim: Colour) -> None:
    """Paint the roof with its edge, the sills below the windows, a handle."""
    width, height = canvas.pixels.shape[1], canvas.pixels.shape[0]
    bow = float(draws.uniform(14, 30))
    roof = smooth([(-10, bow + 12), (width * 0.3, bow), (width * 0.7, bow), (width + 10, bow + 12)])
    above = np.concatenate([roof, [(width + 10, -10), (-10, -10)]])
    canvas.fill(above, lighter(trim, 0.3))
    canvas.fill(above - (0, 10), lighter(trim, 0.45), opacity=0.6, blur=6)
    x = float(draws.uniform(30, 80)) if draws.random() < 0.5 else float(draws.uniform(240, 290))
    handle = smooth([(x - 14, bow - 2), (x, bow + 6), (x + 14, bow - 2)])
    canvas.fill(np.concatenate([handle, handle[::-1] - (0, 4)]), darker(trim, 0.3))
    sill = float(draws.uniform(100, 125))
    door = np.array([(-10, sill), (width + 10, sill + 6), (width + 10, height + 10), (-10, height + 10)])
    canvas.fill(door, darker(trim, 0.25), opacity=0.96, blur=1.0)
    ledge = np.array([(-10, sill - 1), (width + 10, sill + 5), (width + 10, sill + 10), (-10, sill + 4)])
    canvas.fill(ledge, lighter(trim, 0.2), opacity=0.5, blur=1.0)


def _paint_seat(canvas: Canvas, top: tuple[float, float], unit: float, colour: Colour) -> None:
    """Paint a seat from its head rest's middle; ``unit`` is about half the head rest's width."""
    x, y = top
    for post in (-0.35, 0.35):
        bar = np.array([(post - 0.05, 0.4), (post + 0.05, 0.4), (post + 0.05, 1.1), (post - 0.05, 1.1)])
        canvas.fill(bar * unit + (x, y), (150, 152, 156))
    back = [
        (-1.2, 1.05),
        (0, 0.86),
        (1.2, 1.05),
        (1.6, 1.9),
        (1.75, 4.0),
        (1.6, 9),
        (-1.6, 9),
        (-1.75, 4.0),
        (-1.6, 1.9),
    ]
    rest = [(-0.95, -0.45), (0, -0.62), (0.95, -0.45), (1.04, 0.2), (0.85, 0.62), (0, 0.7), (-0.85, 0.62), (-1.04, 0.2)]
    for part in (back, rest):
        outline = smooth(np.array(part) * unit + (x, y), is_closed=True)
        canvas.fill(outline, colour)
        _shade_cushion(canvas, outline, colour, unit)


def _shade_cushion(canvas: Canvas, outline: Points, colour: Colour, unit: float) -> None:
    middle = outline.mean(axis=0)
    with canvas.within(outline):
        canvas.fill(middle + (outline - middle) * 0.78 - (0, 0.12 * unit), lighter(colour, 0.28), opacity=0.55,
                    blur=0.16 * unit)  # fmt: skip
        seam = np.concatenate([middle + (outline - middle) * 0.8, (middle + (outline - middle) * 0.76)[::-1]])
        canvas.fill(seam, darker(colour, 0.6), opacity=0.5, blur=0.5)
