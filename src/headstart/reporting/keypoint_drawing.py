"""Points drawn over a picture: as SVG over a thumbnail for the pages, as pixels for ``predict --draw``.

Colours are two of Okabe and Ito's, told apart by every kind of colour vision and by shape too: the truth is a ring,
what is predicted a dot, so that a dot inside its ring is a hit. A dark edge keeps both legible on any picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.reporting.svg import element
from headstart.reporting.thumbnails import thumbnail

FACE_SIDE: Final = 240
"""Pixels of a face's longer side on a page: twice what it takes on a phone."""

TRUE_COLOUR: Final = "#56b4e9"
"""Sky blue: the truth."""

PREDICTED_COLOUR: Final = "#f0e442"
"""Yellow: what is predicted."""

_EDGE: Final = "#10131a"
_SIZES: Final = (0.0065, 0.012)  # least and greatest radius of a mark, as shares of the picture's longer side
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
    places, shown, answers = _checked(points, visible, predicted)
    every = places[shown] if answers is None else np.concatenate([places[shown], answers[shown]])
    frame = _frame(image.shape, every, margin)
    small = thumbnail(frame.cut(image), longest_side=longest_side)
    scale = np.array([small.width / frame.width, small.height / frame.height])
    places = (places - (frame.left, frame.top)) * scale
    radius = _radius(places[shown], max(small.width, small.height))
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


def draw_points(
    image: NDArray[np.uint8],
    points: ArrayLike,
    *,
    visible: ArrayLike | None = None,
    colour: tuple[int, int, int] = (240, 228, 66),
) -> NDArray[np.uint8]:
    """Draw points into a copy of a picture: smooth dots with a dark edge, sized for the picture and their distance.

    Args:
        image: uint8, shape (height, width, 3) RGB.
        points: (x, y) in pixels of this image, shape (num_keypoints, 2); pixel (0, 0) covers [0, 1) × [0, 1).
        visible: Points that are not are drawn hollow; all are visible unless told.
        colour: RGB, 0 to 255.

    Returns:
        The drawn picture, of the same shape.

    Raises:
        HeadstartError: Shapes do not fit.

    Examples:
        >>> drawn = draw_points(np.zeros((100, 100, 3), np.uint8), [[50.5, 20.5]])
        >>> drawn[20, 50].tolist(), drawn[60, 50].tolist()
        ([240, 228, 66], [0, 0, 0])
    """
    import cv2

    places, shown, _ = _checked(points, visible, None)
    height, width = image.shape[:2]
    radius = max(1.2, _radius(places[shown], max(height, width)))
    drawn = np.ascontiguousarray(image).copy()
    for place, is_shown in zip(places, shown, strict=True):
        if not np.isfinite(place).all() or np.abs(place).max() > 4 * max(height, width):
            continue
        x, y = (round((side - 0.5) * 16) for side in place.tolist())  # OpenCV counts from the middle of a pixel
        for size, tone in ((1.45 * radius, (16, 19, 26)), (radius, colour)):
            thickness = cv2.FILLED if is_shown else max(1, round((2 if tone is colour else 4) * radius / 4))
            cv2.circle(drawn, (x, y), round((size if is_shown else radius) * 16), tone, thickness, cv2.LINE_AA, 4)
    return drawn


def _checked(
    points: ArrayLike, visible: ArrayLike | None, predicted: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64] | None]:
    """Check shapes, and give points, which of them to draw, and predictions."""
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or places.shape[1] != 2:
        raise HeadstartError(must_be("points", "of shape (keypoints, 2)", places.shape))
    shown = np.ones(len(places), bool) if visible is None else np.asarray(visible, bool)
    answers = None if predicted is None else np.asarray(predicted, np.float64)
    for name, array, shape in (("visible", shown, (len(places),)), ("predicted", answers, places.shape)):
        if array is not None and array.shape != shape:
            raise HeadstartError(must_be(name, f"of shape {shape}", array.shape))
    return places, shown & np.isfinite(places).all(axis=1), answers


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


def _radius(places: NDArray[np.float64], side: float) -> float:
    """Give the radius of a mark: a third of the usual distance to the next point, within bounds."""
    least, greatest = (share * side for share in _SIZES)
    if len(places) < 2:
        return round(greatest, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    spacing = float(np.median(distances.min(axis=1)))
    return round(float(np.clip(0.3 * spacing, least, greatest)), 2)


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
