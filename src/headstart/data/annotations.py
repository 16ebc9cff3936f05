"""What one annotation says of one photo, before it is paired with the photo: points, a box, texts, or what is wrong.

JSON, COCO and .pts files all become ``Annotation``s (``json_sources.py``, ``coco.py``, ``pts.py``);
``annotation_files.py`` pairs them with photos and ``annotation_table.py`` makes the table of them. Whatever is wrong
with one annotation is said in its ``problem``; nothing here stops at a bad file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Exclusion

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the original."""

LARGEST_COORDINATE: Final = 1e6
"""No photo is wider or higher, in pixels; a coordinate beyond it is damage."""

_SHOWN: Final = 40  # characters of a bad value that a message shows


class BadAnnotation(ValueError):  # noqa: N818  (the file is bad, not the program)
    """What is wrong with one annotation, in words for ``detail``."""


@dataclass(frozen=True, slots=True, eq=False)
class PointSet:
    """The points of one sample.

    Attributes:
        points: (x, y) in pixels of the original, shape (num_keypoints, 2); not a number where a point has no place.
        visible: Whether each point is marked, shape (num_keypoints,).
        names: One per point, or empty where they have none.
    """

    points: NDArray[np.float64]
    visible: NDArray[np.bool_]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What one annotation says of one photo.

    Attributes:
        place: Where it stands, for messages: ``labels/1.json``, or ``all.json record 7``.
        photo: The photo's name as the annotation states it, or "".
        stem: Its own path without the suffix, where it is a file beside photos, or "".
        content: The points; None where there are none, or a problem.
        box: The box that was asked for.
        texts: Further columns.
        problem: What is wrong, or "".
        reason: Why the sample cannot be used, where it cannot.
        is_one_of_many: Whether further samples may lie in the same photo (faces in a crowd).
    """

    place: str
    photo: str = ""
    stem: str = ""
    content: PointSet | None = None
    box: Box | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    reason: Exclusion | None = None
    is_one_of_many: bool = False

    def refused(self, problem: str, reason: Exclusion = "bad annotation") -> Annotation:
        """Give it without points, and with what is wrong."""
        return replace(self, content=None, problem=problem, reason=reason)


def as_numbers(values: Iterable[Any]) -> list[float]:
    """Read numbers, which are often written as text.

    Raises:
        BadAnnotation: One is no number; its place in the list is named.

    Examples:
        >>> as_numbers(["1.5", 2])
        [1.5, 2.0]
    """
    listed = list(values)
    try:
        if bool not in set(map(type, listed)):
            return list(map(float, listed))
    except (TypeError, ValueError, OverflowError):
        pass
    position, value = next((number, value) for number, value in enumerate(listed) if not is_number(value))
    raise BadAnnotation(f"number {position + 1} of {len(listed)} is {shown(value)}")


def is_number(value: Any) -> bool:
    """Say whether a value is a number or the text of one; "nan" and "inf" are, true and null are not.

    Examples:
        >>> [is_number(value) for value in (1, "2.5", "nan", True, None, "left", 10**400)]
        [True, True, True, False, False, False, False]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        float(value)
    except (ValueError, OverflowError):
        return False
    return True


def shown(value: Any) -> str:
    """Show a bad value in a message, as JSON writes it, cut where it is long.

    Examples:
        >>> shown(None), shown("left")
        ('null', '"left"')
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # also a whole number of more than 4,300 digits
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def point_set(
    coordinates: Sequence[float] | NDArray[np.float64],
    visible: Sequence[bool] | None = None,
    names: tuple[str, ...] = (),
) -> PointSet:
    """Check the coordinates of one sample.

    Args:
        coordinates: x1, y1, …, xK, yK in pixels of the original.
        visible: Whether each point is marked; all must have a place unless told.
        names: One per point, or none.

    Raises:
        BadAnnotation: A point that counts has no place, or lies where no photo reaches.

    Examples:
        >>> point_set([1, 2, 3, float("nan")])
        Traceback (most recent call last):
        headstart.data.annotations.BadAnnotation: point 1 (counted from 0) is at (3.0, nan)
        >>> point_set([1, 2, 3, float("nan")], [True, False]).visible.tolist()
        [True, False]
    """
    points = np.asarray(coordinates, np.float64).reshape(-1, 2)
    marked = np.ones(len(points), bool) if visible is None else np.asarray(visible, bool)
    with np.errstate(invalid="ignore"):
        is_place = (np.abs(points) <= LARGEST_COORDINATE).all(axis=1)
    bad = np.flatnonzero(marked & ~is_place)
    if len(bad):
        x, y = points[bad[0]].tolist()
        raise BadAnnotation(f"point {bad[0]} (counted from 0) is at ({x}, {y})")
    points[~is_place] = math.nan
    return PointSet(points, marked, names)
