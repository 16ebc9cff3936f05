"""The mean face: how the points of a data set lie on average, and what is drawn on it (errors, left/right pairs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import ArrayLike

from headstart.data.keypoints import KeypointLayout
from headstart.reporting.svg import circle, line, picture, text
from headstart.wording import counted

_WIDTH: Final = 380.0  # of the drawing in its own pixels: a phone, or a third of a page
_BORDER: Final = 30.0
_TOP: Final = 44.0  # of the points, below the title
_MAX_RADIUS: Final = 13.0


def error_face(shape: ArrayLike, per_point: pl.DataFrame) -> Markup:
    """Draw each point's error on the mean face: the area and the shade of a circle grow with it.

    Args:
        shape: The mean shape, (num_keypoints, 2); points that are not numbers are left out.
        per_point: As in ``KeypointEvaluation``.

    Returns:
        The SVG; empty where there is no point to draw. A mouse that rests on a circle sees name and error.

    Examples:
        >>> table = pl.DataFrame({"number": [0, 1], "name": ["eye", "nose"], "nme": [2.0, 4.0], "visible": [1.0, 1.0]})
        >>> "largest at nose (4.00 %)" in error_face([[0, 0], [1, 1]], table)
        True
    """
    placed = _placed(shape)
    places, height = placed or ({}, 0.0)
    rows = per_point.filter(pl.col("nme").is_not_null() & pl.col("number").is_in(list(places)))
    if rows.is_empty():
        return Markup("")
    greatest = float(rows["nme"].max() or 1.0)  # type: ignore[arg-type]
    shapes = [text("Error of each point", (0, 13), "plot-title")]
    for row in rows.sort("nme", descending=True).iter_rows(named=True):
        share = row["nme"] / greatest if greatest > 0 else 0.0
        tip = f"{_tip(row['number'], per_point['name'].to_list())}: {row['nme']:.2f} %"
        radius = round(max(2.2, _MAX_RADIUS * share**0.5 * min(1.0, (24 / len(rows)) ** 0.3)), 1)
        shapes.append(circle(places[row["number"]], radius, f"error e{min(4, int(share * 5))}", tip=tip))
    ordered = rows.sort("nme", descending=True)
    worst, least = ordered.row(0, named=True), ordered.row(-1, named=True)
    shapes.append(_beside(places[worst["number"]], worst["name"]))
    named = f"largest at {worst['name']} ({worst['nme']:.2f} %), smallest at {least['name']} ({least['nme']:.2f} %)"
    return picture((_WIDTH, height), shapes, alt=f"Error of each point on the mean face: {named}.")


def pair_face(shape: ArrayLike, layout: KeypointLayout) -> Markup:
    """Draw the left/right pairs on the mean face: points joined by lines; points without a partner are hollow.

    Args:
        shape: The mean shape, (num_keypoints, 2).
        layout: Names and pairs.

    Returns:
        The SVG; empty where there is no point to draw.

    Examples:
        >>> layout = KeypointLayout(("left eye", "right eye", "nose"), flip_pairs=((0, 1),))
        >>> "1 left/right pair, 1 point" in pair_face([[0, 0], [2, 0], [1, 1]], layout)
        True
    """
    placed = _placed(shape)
    if placed is None:
        return Markup("")
    places, height = placed
    pairs = [pair for pair in layout.flip_pairs or () if all(number in places for number in pair)]
    shapes = [text("Left and right", (0, 13), "plot-title")]
    shapes += [line(places[left], places[right], "pair") for left, right in pairs]
    paired = {number for pair in layout.flip_pairs or () for number in pair}
    for number, place in places.items():
        shapes.append(circle(place, 4.2, "paired" if number in paired else "single", tip=_tip(number, layout.names)))
    num_single = len(places) - len(paired & set(places))
    words = f"{counted(len(pairs), 'left/right pair')}, {counted(num_single, 'point')} without a partner"
    if layout.flip_pairs is None:
        words = f"{counted(len(places), 'point')}, whose left/right pairs are not known"
    return picture((_WIDTH, height), shapes, alt=f"Mean face with {words}.")


def _tip(number: int, names: Sequence[str]) -> str:
    return names[number] if names[number] == str(number) else f"{number} {names[number]}"


def _placed(shape: ArrayLike) -> tuple[dict[int, tuple[float, float]], float] | None:
    """Fit a shape into the drawing: the place of each point by its number, and the drawing's height."""
    points = np.asarray(shape, np.float64)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not len(known):
        return None
    low, high = points[known].min(axis=0), points[known].max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    scale = (_WIDTH - 2 * _BORDER) / max(extent[0], extent[1] / 1.2)
    height = round(float(extent[1] * scale) + _TOP + _BORDER, 1)
    left = (_WIDTH - extent[0] * scale) / 2
    fitted = (points - low) * scale + (left, _TOP)
    return {int(number): (round(fitted[number, 0], 1), round(fitted[number, 1], 1)) for number in known}, height


def _beside(place: tuple[float, float], name: str) -> Markup:
    is_right = place[0] > _WIDTH / 2
    return text(name, (place[0], place[1] - _MAX_RADIUS - 3), "name", anchor="end" if is_right else "start")
