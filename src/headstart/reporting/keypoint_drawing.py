"""Points drawn over a thumbnail as SVG, for the pages; ``deploy/point_drawing.py`` draws them into pixels.

Colours are two of Okabe and Ito's, told apart by every kind of colour vision and by shape too: the truth is a ring,
what is predicted a dot, so that a dot inside its ring is a hit. A dark edge keeps both legible on any picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from headstart.deploy.point_drawing import checked_points, mark_radius
from headstart.reporting.svg import element
from headstart.reporting.thumbnails import thumbnail

FACE_SIDE: Final = 240
"""Pixels of a face's longer side on a page: twice what it takes on a phone."""

FACE_MARGIN: Final = 0.2
"""Of the points' extent, shown around a face: points are large, and whose face it is can be seen."""

TRUE_COLOUR: Final = "#56b4e9"
"""Sky blue: the truth."""

PREDICTED_COLOUR: Final = "#f0e442"
"""Yellow: what is predicted."""

_EDGE: Final = "#10131a"
_MAX_OUTSIDE: Final = 0.5  # points outside the picture are shown up to this share of its side away


@dataclass(frozen=True)
class _Frame:
    """What part of a picture is shown: its corner and size in the picture's pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def draw_points_svg(
    image: NDArray[np.uint8],
    points: ArrayLike,
    visible: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    *,
    alt: str,
    margin: float | None = None,
    longest_side: int = FACE_SIDE,
) -> Markup:
    """Draw points over a thumbnail of a picture, as one SVG element that needs nothing else.

    Args:
        image: uint8, shape (height, width, 3) RGB or (height, width) grey.
        points: (x, y) in pixels of this image, shape (num_keypoints, 2).
        visible: Whether a point is marked, shape (num_keypoints,); all of them unless told.
        predicted: Where the network says they are, likewise. Points are then rings, predictions dots, and a thin line
            joins the two; points that are not visible are left out. Without it, visible points are dots, others rings.
        alt: What a reader hears who does not see it.
        margin: Show only the points and around them this share of their extent; None shows the whole picture.
        longest_side: Of the thumbnail in pixels.

    Returns:
        The SVG. Where points lie outside the picture, it reaches beyond the picture so that they are seen.

    Raises:
        HeadstartError: Shapes do not fit, or the array is not an image.

    Examples:
        >>> face = draw_points_svg(np.zeros((90, 120, 3), np.uint8), [[10, 20], [30, 20]], alt="a face")
        >>> face.startswith('<svg viewBox="0 0 120 90"'), face.count("<path")
        (True, 2)
    """
    places, shown, answers = checked_points(points, visible, predicted)
    every = places[shown] if answers is None else np.concatenate([places[shown], answers[shown]])
    frame = _frame(image.shape, every, margin)
    small = thumbnail(frame.cut(image), longest_side=longest_side)
    scale = np.array([small.width / frame.width, small.height / frame.height])
    places = (places - (frame.left, frame.top)) * scale
    radius = mark_radius(places[shown], max(small.width, small.height))
    if answers is None:
        marks = [*_rings(places[~shown], radius, TRUE_COLOUR), *_dots(places[shown], radius, TRUE_COLOUR)]
        every = places[np.isfinite(places).all(axis=1)]
    else:
        answers = (answers - (frame.left, frame.top)) * scale
        marks = [_lines(places[shown], answers[shown], radius)]
        marks += _rings(places[shown], 1.3 * radius, TRUE_COLOUR)
        marks += _dots(answers[shown], 0.8 * radius, PREDICTED_COLOUR)
        every = np.concatenate([places[shown], answers[shown]])
    picture = {"href": small.uri, "width": small.width, "height": small.height}
    look = {
        "viewBox": _view((small.width, small.height), every, pad=3 * radius),
        "role": "img",
        "aria-label": alt,
        "class": "face",
    }
    return element("svg", look, element("image", picture) + Markup("").join(marks))


def draw_mark(kind: Literal["dot", "ring"], colour: str) -> Markup:
    """Draw one mark alone, for a legend.

    Examples:
        >>> "<svg" in draw_mark("ring", TRUE_COLOUR)
        True
    """
    marks = (_dots if kind == "dot" else _rings)(np.array([[9.0, 9.0]]), 4.5, colour)
    return element("svg", {"viewBox": "0 0 18 18", "class": "mark", "aria-hidden": "true"}, Markup("").join(marks))


def _frame(shape: tuple[int, ...], points: NDArray[np.float64], margin: float | None) -> _Frame:
    """Choose what is shown: the whole picture, or a square around the points as far as the picture reaches."""
    height, width = shape[:2]
    if margin is None or not len(points):
        return _Frame(0, 0, width, height)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) * (0.5 + margin), 8.0)
    ends = []
    for middle, side in zip(((low + high) / 2).tolist(), (width, height), strict=True):
        start, end = max(0, int(middle - half)), min(side, int(middle + half) + 1)
        ends.append((start, end - start) if end - start >= 8 else (0, side))
    return _Frame(ends[0][0], ends[1][0], ends[0][1], ends[1][1])


def _view(size: tuple[int, int], places: NDArray[np.float64], *, pad: float) -> str:
    """Give the viewBox: the picture, and points outside of it where they are not too far away."""
    sides = np.array(size, float)
    low, high = np.zeros(2), sides
    if len(places):
        reach = _MAX_OUTSIDE * sides
        is_outside = ((places < 0) | (places > sides)).any()
        low = np.maximum(np.minimum(low, places.min(axis=0) - pad), -reach) if is_outside else low
        high = np.minimum(np.maximum(high, places.max(axis=0) + pad), sides + reach) if is_outside else high
    return " ".join(f"{value:g}" for value in np.round([*low, *(high - low)], 1))


def _dots(places: NDArray[np.float64], radius: float, colour: str) -> list[Markup]:
    """Draw all dots as two paths, the dark edge below: lines without length have round ends."""
    if not len(places):
        return []
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    return [_stroke(path, width, tone) for width, tone in ((2.7 * radius, _EDGE), (2 * radius, colour))]


def _rings(places: NDArray[np.float64], radius: float, colour: str) -> list[Markup]:
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return []
    arc = f"a{radius:.2f} {radius:.2f} 0 1 0 "
    turns = f"{arc}{2 * radius:.2f} 0{arc}{-2 * radius:.2f} 0"
    path = "".join(f"M{x - radius:.1f} {y:.1f}{turns}" for x, y in places)
    return [_stroke(path, width, tone) for width, tone in ((0.85 * radius, _EDGE), (0.5 * radius, colour))]


def _lines(starts: NDArray[np.float64], ends: NDArray[np.float64], radius: float) -> Markup:
    pairs = zip(starts, ends, strict=True)
    path = "".join(f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" for (x, y), (to_x, to_y) in pairs)
    return _stroke(path, 0.5 * radius, "#ffffff") if path else Markup("")


def _stroke(path: str, width: float, colour: str) -> Markup:
    look: dict[str, Any] = {"d": path, "fill": "none", "stroke": colour, "stroke-width": f"{width:.2f}"}
    return element("path", look | {"stroke-linecap": "round"})
