"""Which columns of a table hold points, their visibility, and a box: read from the header alone.

``x1, y1, x2, y2, …`` (also ``x_1``, ``1_x``), ``nose_x, nose_y, …``, or numbered columns that follow one another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from headstart.data.annotation_boxes import CORNERS, SIZES, word_boxes
from headstart.errors import SourceError, all_at_once, did_you_mean, must_be

_AXIS: Final = r"(x|y|v|vis|visible|visibility)"
_FORMS: Final = (
    re.compile(rf"(?i)^(?P<axis>{_AXIS})[ _.\-]?(?P<key>\d+)$"),
    re.compile(rf"(?i)^(?P<key>.+?)[ _.\-](?P<axis>{_AXIS})$"),
    re.compile(rf"(?i)^(?P<axis>{_AXIS})[ _.\-](?P<key>.+)$"),
    re.compile(r"(?i)^(?P<key>(?:p|pt|point|kp|lm|landmark)?\d+)(?P<axis>x|y|v)$"),
)
_BOX_NAMES: Final = frozenset(("box", "bbox", "bndbox", "face_box", "rect"))
_UNNAMED: Final = re.compile(r"^$|^_duplicated_\d+$|^Unnamed: \d+$")
_NUMBERED: Final = re.compile(r"^(\D*?)[ _.\-]?(\d+)$")


@dataclass(frozen=True)
class PointColumns:
    """The columns of a table that hold points.

    Attributes:
        xs: Column of each point's x.
        ys: Column of each point's y.
        visible: Column of each point's visibility, or none.
        names: One per point; empty where they are numbered.
        form: How they were found, for a note.
    """

    xs: tuple[str, ...]
    ys: tuple[str, ...]
    visible: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    form: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is one of a point's."""
        return (*self.xs, *self.ys, *self.visible)


def find_point_columns(columns: Sequence[str], *, place: str) -> PointColumns | None:
    """Find the points of a header (without its path column).

    Raises:
        SourceError: A point has an x and no y, or only some points have a visibility.

    Examples:
        >>> find_point_columns(["x1", "y1", "x2", "y2", "mask"], place="a.csv").xs
        ('x1', 'x2')
        >>> find_point_columns(["nose_x", "nose_y", "chin_x", "chin_y"], place="a.csv").names
        ('nose', 'chin')
        >>> find_point_columns(["0", "1", "2", "3"], place="a.csv").ys
        ('1', '3')
    """
    axes = _axes(columns)
    keys = [key for key, found in axes.items() if "x" in found or "y" in found]
    whole = [key for key in keys if {"x", "y"} <= set(axes[key])]
    if not whole:
        return _consecutive(columns)
    if sum(key.isdigit() for key in whole) > 1:  # a gaze_x beside x1, y1 … is no point
        keys = [key for key in keys if key.isdigit()]
    _refuse_halves({key: axes[key] for key in keys}, place)
    if all(key.isdigit() for key in keys):
        keys.sort(key=int)
    visible = tuple(axes[key]["v"] for key in keys if "v" in axes[key])
    names = () if all(key.isdigit() for key in keys) else tuple(keys)
    xs, ys = tuple(axes[key]["x"] for key in keys), tuple(axes[key]["y"] for key in keys)
    return PointColumns(xs, ys, visible, names, f"{xs[0]}, {ys[0]} … {xs[-1]}, {ys[-1]}")


def _axes(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Give, for each point, the columns of its x, y and v."""
    axes: dict[str, dict[str, str]] = {}
    for column in columns:
        match = next((found for form in _FORMS if (found := form.match(column.strip()))), None)
        if match:
            axis = match["axis"].lower()[0]
            axes.setdefault(match["key"], {}).setdefault(axis, column)
    return {key: found for key, found in axes.items() if key.lower() not in _BOX_NAMES}


def _refuse_halves(axes: Mapping[str, Mapping[str, str]], place: str) -> None:
    problems = []
    for found in axes.values():
        if ("x" in found) != ("y" in found):
            has, lacks = ("x", "y") if "x" in found else ("y", "x")
            problems.append(f"{place}: column {found[has]!r} must have one of {lacks} beside it; got none.")
    num_flags = sum("v" in found for found in axes.values())
    if num_flags not in (0, len(axes)):
        absent = next(found["x"] for found in axes.values() if "v" not in found)
        problems.append(f"{place}: all points or none must have a visibility; got none for {absent!r}.")
    if problems:
        raise SourceError(all_at_once(problems[:10]))


def _consecutive(columns: Sequence[str]) -> PointColumns | None:
    """Take numbered or unnamed columns that follow one another as x, y of one point after another."""
    unnamed = [name for name in columns if _UNNAMED.match(name)]
    prefixes: dict[str, list[tuple[int, str]]] = {}
    for name in columns:
        if (match := _NUMBERED.match(name)) and name not in unnamed:
            prefixes.setdefault(match[1], []).append((int(match[2]), name))
    runs = [[name for _, name in run] for run in prefixes.values() if _is_run([number for number, _ in run])]
    lists = [found for found in (*runs, unnamed) if len(found) >= 4 and len(found) % 2 == 0]
    if len(lists) != 1:
        return None
    chosen = lists[0]
    return PointColumns(tuple(chosen[0::2]), tuple(chosen[1::2]), form=f"{chosen[0]!r} to {chosen[-1]!r} in pairs")


def _is_run(numbers: list[int]) -> bool:
    return numbers[0] in (0, 1) and all(after == before + 1 for before, after in pairwise(numbers))


@dataclass(frozen=True)
class BoxColumns:
    """Four columns of a box; where ``is_size``, the last two are width and height."""

    columns: tuple[str, str, str, str]
    is_size: bool = False


def find_box_columns(columns: Sequence[str], crop_to_box: str | None, *, place: str) -> BoxColumns | None:
    """Find the box's columns: those named, those with a prefix, or ``box_x1`` … where none is asked for.

    Args:
        columns: The header.
        crop_to_box: Four names with commas between, or a prefix (``face`` for ``face_x1, face_y1, face_x2, face_y2``).
        place: The file, for messages.

    Raises:
        SourceError: What was asked for is not there.

    Examples:
        >>> find_box_columns(["face_left", "face_top", "face_width", "face_height"], "Face", place="a.csv").is_size
        True
    """
    if crop_to_box and "," in crop_to_box:
        return _named_columns(columns, crop_to_box, place)
    prefix = (crop_to_box or "box").rpartition(".")[2].strip().lower()
    plain = _plain_names(columns)
    for names in (*CORNERS, *SIZES):
        found = [plain.get(f"{prefix}_{side}") for side in names]
        left, top, right, bottom = found
        if left and top and right and bottom:
            return BoxColumns((left, top, right, bottom), is_size=names in SIZES)
    if crop_to_box is None:
        return None
    expected = f"four columns of {place}, or a prefix of four ({prefix}_x1, {prefix}_y1, {prefix}_x2, {prefix}_y2)"
    there = box_prefixes(columns)
    remedy = word_boxes(crop_to_box, there) if there else did_you_mean(f"{prefix}_x1", columns)
    raise SourceError(must_be("--crop-to-box", expected, crop_to_box, remedy))


def box_prefixes(columns: Sequence[str]) -> tuple[str, ...]:
    """Give what ``--crop-to-box`` may be called in a table: prefixes of four columns that make a box.

    Examples:
        >>> box_prefixes(["path", "face_x1", "face_y1", "face_x2", "face_y2", "eye_x", "eye_y"])
        ('face',)
    """
    plain = _plain_names(columns)
    first = {names[0] for names in (*CORNERS, *SIZES)}
    starts = [name.rpartition("_")[0] for name in plain if name.rpartition("_")[2] in first]
    is_whole = [
        any(all(f"{start}_{side}" in plain for side in names) for names in (*CORNERS, *SIZES)) for start in starts
    ]
    return tuple(dict.fromkeys(start for start, found in zip(starts, is_whole, strict=True) if start and found))


def _plain_names(columns: Sequence[str]) -> dict[str, str]:
    """Give columns by their names in lower case with underscores."""
    return {re.sub(r"[ .\-]", "_", name.strip().lower()): name for name in columns}


def _named_columns(columns: Sequence[str], crop_to_box: str, place: str) -> BoxColumns:
    names = [name.strip() for name in crop_to_box.split(",")]
    absent = [name for name in names if name not in columns]
    if len(names) != 4 or absent:
        remedy = did_you_mean(absent[0], columns) if absent else "Give left, top, right, bottom."
        raise SourceError(must_be("--crop-to-box", f"four columns of {place}", crop_to_box, remedy))
    left, top, right, bottom = names
    is_size = bool(re.search(r"(?i)(^|[ _.\-])w(idth)?$", right) and re.search(r"(?i)(^|[ _.\-])h(eight)?$", bottom))
    return BoxColumns((left, top, right, bottom), is_size=is_size)
