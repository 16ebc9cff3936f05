"""``--boxes``: the face in each photo, from a table; a photo without a box that can be used gets the reason instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_files import open_label_file
from headstart.errors import RecipeError, SourceError, must_be

_SIDES: Final = ("left", "top", "right", "bottom")
_NUM_EXAMPLES: Final = 3


@dataclass(frozen=True)
class FaceBoxes:
    """The face in each of some photos.

    Attributes:
        sides: Left, top, right, bottom in pixels of the photos, shape (n, 4); without meaning where there is a problem.
        problems: Why a photo has no box that can be used, else None; one a photo.
    """

    sides: NDArray[np.float64]
    problems: tuple[str | None, ...]

    @property
    def num_unusable(self) -> int:
        """Photos without a box that can be used."""
        return sum(problem is not None for problem in self.problems)


def read_boxes(table: Path, paths: Sequence[str]) -> FaceBoxes:
    """Read the face in each photo from a table of path, left, top, right, bottom.

    Args:
        table: CSV, TSV or Parquet; a photo is found by its path, as given or from the table's folder, or by its file
            name where one photo alone has it.
        paths: The photos.

    Returns:
        A box a photo, or why it has none.

    Raises:
        SourceError: The table cannot be read, lacks a column, or has no usable box for any of the photos.
    """
    rows = open_label_file(table).rows.collect()
    missing = [name for name in ("path", *_SIDES) if name not in rows.columns]
    if missing:
        expected = "a table with the columns path, left, top, right, bottom"
        raise SourceError(must_be(str(table), expected, rows.columns, f"It lacks {', '.join(missing)}."))
    sides = rows.select(pl.col(_SIDES).cast(pl.Float64, strict=False).fill_null(float("nan"))).to_numpy()
    cells = rows.select(_SIDES).rows()
    chosen = [_word_rows(found, sides, cells, table.name) for found in _rows_of_photos(rows["path"], table, paths)]
    boxes = FaceBoxes(
        np.stack([np.full(4, np.nan) if row is None else sides[row] for row, _ in chosen]),
        tuple(problem for _, problem in chosen),
    )
    if boxes.num_unusable == len(paths):
        raise SourceError(_word_useless(table, paths, boxes.problems))
    return boxes


def check_boxes(boxes: NDArray[np.float64], num_photos: int) -> None:
    """Refuse boxes that are none, given in Python: there is no table whose row could be named.

    Raises:
        RecipeError: There is not one box a photo, or a box has no area or is not in pixels.
    """
    if boxes.shape != (num_photos, 4):
        expected = f"of shape ({num_photos}, 4), one (left, top, right, bottom) a photo"
        raise RecipeError(must_be("boxes", expected, boxes.shape))
    for row, sides in enumerate(boxes):
        expected = _what_is_wrong(sides)
        if expected:
            raise RecipeError(must_be(f"boxes[{row}]", expected, sides.tolist()))


def word_outside(box: NDArray[np.float64], size: tuple[int, int]) -> str | None:
    """Say that a box is not one of this photo, where its middle lies outside; a face may be cut off by the edge.

    Args:
        box: Left, top, right, bottom.
        size: (height, width) of the photo.

    Examples:
        >>> word_outside(np.array([900.0, 20.0, 1100.0, 80.0]), (100, 200))
        'box outside the photo: its middle is at x 1000, y 50 in a photo of 100 × 200 (height × width)'
        >>> word_outside(np.array([-20.0, 20.0, 60.0, 80.0]), (100, 200))
    """
    (x, y), (height, width) = ((box[:2] + box[2:]) / 2).tolist(), size
    if 0 <= x <= width and 0 <= y <= height:
        return None
    place = f"its middle is at x {x:.0f}, y {y:.0f} in a photo of {height} × {width} (height × width)"
    return f"box outside the photo: {place}"


def _rows_of_photos(listed: pl.Series, table: Path, paths: Sequence[str]) -> list[list[int]]:
    """Give, for each photo, the rows that name it."""
    by_path: dict[str, list[int]] = {}
    by_name: dict[str, list[int]] = {}
    for row, path in enumerate(listed.cast(pl.String).fill_null("").to_list()):
        for key in dict.fromkeys((path, str(table.parent / path))):
            by_path.setdefault(key, []).append(row)
        by_name.setdefault(Path(path).name, []).append(row)
    alike = Counter(Path(path).name for path in paths)
    names = [Path(path).name for path in paths]
    return [
        by_path.get(path) or (by_name.get(name, []) if alike[name] == 1 else [])
        for path, name in zip(paths, names, strict=True)
    ]


def _word_rows(
    rows: list[int], sides: NDArray[np.float64], cells: Sequence[tuple[Any, ...]], file: str
) -> tuple[int | None, str | None]:
    """Give the row that holds a photo's box, or say why none does."""
    if not rows:
        return None, f"no box: {file} has none for this photo"
    if len(np.unique(sides[rows], axis=0)) > 1:
        numbers = " and ".join(str(row + 2) for row in rows[:2])
        return None, f"no single box: rows {numbers} of {file} give several for this photo"
    expected = _what_is_wrong(sides[rows[0]])
    if not expected:
        return rows[0], None
    got = ", ".join("nothing" if cell is None else str(cell) for cell in cells[rows[0]])
    return None, f"bad box: {file} row {rows[0] + 2} must be {expected}; got {got}"


def _what_is_wrong(sides: NDArray[np.float64]) -> str:
    """Say what a box should be, where it is not; an empty text where it is."""
    left, top, right, bottom = sides.tolist()
    if not np.isfinite(sides).all():
        return "four numbers"
    if not (left < right and top < bottom):
        return "left < right and top < bottom"
    if sides.min() >= 0 and sides.max() <= 1:
        return "in pixels, not shares of width and height"
    return ""


def _word_useless(table: Path, paths: Sequence[str], problems: Sequence[str | None]) -> str:
    named = [f"{path}: {problem}" for path, problem in zip(paths, problems, strict=True)]
    more = f" (and {len(named) - _NUM_EXAMPLES:,} more)" if len(named) > _NUM_EXAMPLES else ""
    remedy = "Give left, top, right, bottom of the face in each photo, in its pixels."
    got = "; ".join(named[:_NUM_EXAMPLES])
    return f"{table} must be a table with a box for one of the photos at least; got {got}{more}. {remedy}"
