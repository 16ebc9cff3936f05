"""Points drawn into the pixels of a picture, for ``predict --draw``; and what drawing them on pages shares with it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be

_SIZES: Final = (0.0065, 0.012)  # least and greatest radius of a mark, as shares of the picture's longer side
_LEAST_DRAWN: Final = 0.0025  # in a whole photo, where a face may be small


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
    places, shown, _ = checked_points(points, visible, None)
    height, width = image.shape[:2]
    radius = max(1.2, mark_radius(places[shown], max(height, width), least=_LEAST_DRAWN))
    drawn = np.ascontiguousarray(image).copy()
    for place, is_shown in zip(places, shown, strict=True):
        if not np.isfinite(place).all() or np.abs(place).max() > 4 * max(height, width):
            continue
        x, y = (round((side - 0.5) * 16) for side in place.tolist())  # OpenCV counts from the middle of a pixel
        for size, tone in ((1.45 * radius, (16, 19, 26)), (radius, colour)):
            thickness = cv2.FILLED if is_shown else max(1, round((2 if tone is colour else 4) * radius / 4))
            cv2.circle(drawn, (x, y), round((size if is_shown else radius) * 16), tone, thickness, cv2.LINE_AA, 4)
    return drawn


def checked_points(
    points: ArrayLike, visible: ArrayLike | None, predicted: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64] | None]:
    """Check shapes, and give points, which of them to draw, and predictions.

    Raises:
        HeadstartError: Shapes do not fit.
    """
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or places.shape[1] != 2:
        raise HeadstartError(must_be("points", "of shape (keypoints, 2)", places.shape))
    shown = np.ones(len(places), bool) if visible is None else np.asarray(visible, bool)
    answers = None if predicted is None else np.asarray(predicted, np.float64)
    for name, array, shape in (("visible", shown, (len(places),)), ("predicted", answers, places.shape)):
        if array is not None and array.shape != shape:
            raise HeadstartError(must_be(name, f"of shape {shape}", array.shape))
    return places, shown & np.isfinite(places).all(axis=1), answers


def mark_radius(places: NDArray[np.float64], side: float, *, least: float = _SIZES[0]) -> float:
    """Give the radius of a mark: a third of the usual distance to the next point, within bounds."""
    least, greatest = least * side, _SIZES[1] * side
    if len(places) < 2:
        return round(greatest, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    spacing = float(np.median(distances.min(axis=1)))
    return round(float(np.clip(0.3 * spacing, least, greatest)), 2)
