"""Keypoints in the table: the columns that hold them, and what a set of points means (names, left/right pairs).

A keypoint table has, beside the columns of every table, ``keypoints`` (x1, y1, … in pixels of the original upright
photo, null where a sample has none), ``visible`` (whether a point is marked; one that is not does not count), maybe
``box`` (left, top, right, bottom of the face, likewise in the original) and text columns taken from the source or the
file name (person, mask, …). Coordinates are continuous: pixel (0, 0) covers [0, 1) × [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be

Points = NDArray[np.float64]
"""(x, y) of each point, shape (n, num_keypoints, 2)."""

Pairs = tuple[tuple[int, int], ...]
"""(left, right) point numbers, counted from 0, that change places when a picture is mirrored."""

NOT_LOOKED_FOR: Final = "Left/right pairs were not looked for."
"""What is said of pairs before the shapes were examined."""

COUNTED_FROM_ZERO: Final = "Points are counted from 0: columns x1, y1 of a CSV are point 0."
"""What is said wherever numbers of points are shown."""


@dataclass(frozen=True)
class KeypointLayout:
    """What the points of a data set are.

    Attributes:
        names: One per point, in the order of the coordinates.
        flip_pairs: Left/right pairs; None where they are not known, so that no picture is ever mirrored.
        flip_note: How the pairs were found, or why they could not be, a sentence.
        flip_doubt: What in the shapes speaks against pairs that the user gave, a sentence; empty where nothing does.
        box_names: Boxes that samples have, by the names that ``--crop-to-box`` takes, the most frequent first.

    Examples:
        >>> layout = KeypointLayout(("left eye", "right eye", "nose"), flip_pairs=((0, 1),))
        >>> layout.num_keypoints, layout.mirrored_order().tolist()
        (3, [1, 0, 2])
    """

    names: tuple[str, ...]
    flip_pairs: Pairs | None = None
    flip_note: str = ""
    flip_doubt: str = ""
    box_names: tuple[str, ...] = field(default=(), compare=False)  # of the source, not of the points

    def __post_init__(self) -> None:
        """Check that pairs name points, each at most once."""
        named = [number for pair in self.flip_pairs or () for number in pair]
        if len(set(named)) < len(named) or any(not 0 <= number < len(self.names) for number in named):
            expected = f"pairs of different points from 0 to {len(self.names) - 1}"
            raise HeadstartError(must_be("flip_pairs", expected, self.flip_pairs, "Name each point once."))

    @property
    def num_keypoints(self) -> int:
        """Number of points."""
        return len(self.names)

    def mirrored_order(self) -> NDArray[np.int64]:
        """Give which point each point becomes in a mirrored picture, shape (num_keypoints,).

        Raises:
            HeadstartError: The pairs are not known.
        """
        if self.flip_pairs is None:
            raise HeadstartError(f"Pictures cannot be mirrored. {self.flip_note or NOT_LOOKED_FOR}")
        order = np.arange(self.num_keypoints)
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Take it back from JSON values."""
        pairs = values["flip_pairs"]
        flip_pairs = None if pairs is None else tuple((int(left), int(right)) for left, right in pairs)
        doubt, boxes = values.get("flip_doubt", ""), tuple(values.get("box_names", ()))  # older files have neither
        return cls(tuple(values["names"]), flip_pairs, values["flip_note"], doubt, boxes)


def numbered_layout(num_keypoints: int) -> KeypointLayout:
    """Give a layout whose points are named by their numbers.

    Examples:
        >>> numbered_layout(3).names
        ('0', '1', '2')
    """
    return KeypointLayout(tuple(map(str, range(num_keypoints))), flip_note=NOT_LOOKED_FOR)


def keypoint_columns(points: ArrayLike, visible: ArrayLike | None = None) -> list[pl.Series]:
    """Give the columns ``keypoints`` and ``visible`` of n samples.

    Args:
        points: (x, y) in pixels of the original, shape (n, num_keypoints, 2); where a coordinate is not a number the
            point is not visible.
        visible: Shape (n, num_keypoints); all points whose coordinates are numbers unless told.

    Examples:
        >>> [column.dtype for column in keypoint_columns([[[1, 2], [3, float("nan")]]])]
        [Array(Float32, shape=(4,)), Array(Boolean, shape=(2,))]
    """
    values = np.asarray(points, np.float32)
    is_number: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=2))
    shown: NDArray[np.bool_] = is_number if visible is None else is_number & np.asarray(visible, bool)
    num_keypoints = values.shape[1]
    flat = np.where(is_number[..., None], values, 0).reshape(len(values), 2 * num_keypoints)
    return [
        pl.Series("keypoints", flat, pl.Array(pl.Float32, 2 * num_keypoints)),
        pl.Series("visible", shown, pl.Array(pl.Boolean, num_keypoints)),
    ]


def point_columns(points: Points) -> list[pl.Series]:
    """Give points (n, K, 2) as the columns x1, y1, …, xK, yK.

    Examples:
        >>> [column.name for column in point_columns(np.zeros((1, 2, 2)))]
        ['x1', 'y1', 'x2', 'y2']
    """
    numbers = range(points.shape[1])
    return [pl.Series(f"{axis}{k + 1}", points[:, k, place]) for k in numbers for place, axis in enumerate("xy")]


def points_of(frame: pl.DataFrame) -> Points:
    """Give the points of rows that all have some, in pixels of the original, shape (n, num_keypoints, 2)."""
    flat = frame["keypoints"].to_numpy()
    return flat.astype(np.float64).reshape(len(frame), -1, 2)


def visible_of(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Give which points of rows are marked, shape (n, num_keypoints)."""
    return frame["visible"].to_numpy().astype(bool)


def boxes_of(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Give the boxes of rows that all have one: left, top, right, bottom in pixels of the original, shape (n, 4)."""
    return frame["box"].to_numpy().astype(np.float64)
