"""Curves in the plane: smooth lines through given points, ellipses, strokes that taper."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
"""Shape (n, 2): (x, y) in pixels, unless said otherwise; or (n, 3) in the head's own units."""


def smooth(points: ArrayLike, *, is_closed: bool = False, num_between: int = 6) -> Points:
    """Draw a Catmull-Rom curve through the points, so that each of them lies on it exactly.

    Args:
        points: Shape (n, d), n of at least 2.
        is_closed: The last point is joined to the first.
        num_between: Steps from one point to the next.

    Examples:
        >>> curve = smooth([[0, 0], [1, 2], [2, 0]], num_between=4)
        >>> curve[4].tolist(), len(curve)
        ([1.0, 2.0], 9)
    """
    given = np.asarray(points, np.float64)
    if is_closed:
        padded = np.concatenate([given[-1:], given, given[:2]])
    else:
        padded = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(num_between) / num_between)[None, :, None]
    p0, p1, p2, p3 = (part[:, None] for part in (before, start, end, after))
    curve = p1 + 0.5 * t * ((p2 - p0) + t * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + t * (3 * (p1 - p2) + p3 - p0)))
    joined = curve.reshape(-1, given.shape[1])
    return joined if is_closed else np.concatenate([joined, given[-1:]])


def ellipse(centre: ArrayLike, radii: ArrayLike, *, angle: float = 0.0, num_points: int = 40) -> Points:
    """Give the outline of an ellipse; ``angle`` turns it (radians, from x towards y)."""
    t = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    rx, ry = np.broadcast_to(np.asarray(radii, np.float64), (2,))
    local = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return local @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + np.asarray(centre)


def stroke(curve: Points, widths: ArrayLike) -> Points:
    """Give the outline of a brush stroke along a curve.

    Args:
        curve: The middle of the stroke.
        widths: One width, or some that are spread evenly along the curve: ``(0, 4, 0)`` tapers at both ends.

    Examples:
        >>> stroke(np.array([[0.0, 0.0], [4.0, 0.0]]), 2).tolist()
        [[0.0, 1.0], [4.0, 1.0], [4.0, -1.0], [0.0, -1.0]]
    """
    given = np.atleast_1d(np.asarray(widths, np.float64))
    places = np.arange(len(curve)) * ((len(given) - 1) / (len(curve) - 1))
    half = np.interp(places, np.arange(len(given)), given)[:, None] / 2
    ends = np.concatenate([2 * curve[:1] - curve[1:2], curve, 2 * curve[-1:] - curve[-2:-1]])
    tangent = ends[2:] - ends[:-2]
    length = np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]
    offset = tangent[:, ::-1] * (-1, 1) * (half / length)
    return np.concatenate([curve + offset, (curve - offset)[::-1]])


def moved(points: Points, x: float, y: float) -> Points:
    """Give the points moved right by x and down by y."""
    return points + np.array((x, y))


def between(first: Points, second: Points, share: float) -> Points:
    """Give the line that lies between two lines of the same length: 0 is the first, 1 the second."""
    return first + (second - first) * share


def resample(curve: Points, num_points: int) -> Points:
    """Give points at equal steps along a line."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    wanted = np.linspace(0, length[-1], num_points)
    return np.stack([np.interp(wanted, length, curve[:, axis]) for axis in range(curve.shape[1])], axis=1)
