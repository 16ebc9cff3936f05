"""Points in a JSON document: the shapes in which people write them, and the key paths where they stand.

A list of points may be flat (x1, y1, x2, y2, …, numbers often as text; or x, y, v triples), a list of pairs or triples,
a list of objects with x and y, or an object of named points. A key path is a tuple of keys, list positions, and None
for every element of a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from headstart.data.annotations import BadAnnotation, PointSet, as_numbers, is_number, point_set, shown
from headstart.errors import SourceError, must_be

KeyPath = tuple[str | int | None, ...]
"""Keys, list positions, and None for every element of a list."""

_X: Final = ("x", "X", "cx")
_Y: Final = ("y", "Y", "cy")
_VISIBLE: Final = ("visible", "v", "visibility", "isVisible", "is_visible", "vis")
_NAME: Final = ("name", "label", "id", "part", "keypoint")
_MOSTLY: Final = 0.8  # share of numbers in a list of numbers
_MAX_DEPTH: Final = 24
_MAX_ELEMENTS: Final = 500  # of a list that are looked into for a guess
_MAX_NODES: Final = 20_000
_ENCODINGS: Final = ("cp949",)  # what is tried after UTF-8, UTF-16 and UTF-32, which JSON tells apart itself


def parse_json(data: bytes) -> Any:
    """Read JSON in UTF-8 (with or without a mark), UTF-16, UTF-32 or cp949.

    Raises:
        BadAnnotation: It is broken, and where; or too deep.

    Examples:
        >>> parse_json('{"이름": [1,]}'.encode("cp949"))
        Traceback (most recent call last):
        headstart.data.annotations.BadAnnotation: is broken JSON at line 1, column 11: Expecting value
    """
    if not data.strip():
        raise BadAnnotation("is empty")
    try:
        return json.loads(_as_text(data))
    except json.JSONDecodeError as error:
        message = f"is broken JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        raise BadAnnotation(message) from None
    except RecursionError:
        raise BadAnnotation("is nested too deeply to be read") from None
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise BadAnnotation(f"cannot be read: {str(error).partition(';')[0]}") from None


def _as_text(data: bytes) -> bytes | str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        first = error
    for encoding in (json.detect_encoding(data), *_ENCODINGS):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadAnnotation(f"is text in no known encoding (bytes {data[first.start : first.end]!r} at {first.start})")


def parse_key(text: str) -> KeyPath:
    """Read ``--points-key``: keys with dots between, ``[]`` for every element of a list, ``[0]`` for one, "." for all.

    Raises:
        SourceError: It is none.

    Examples:
        >>> parse_key("faces[].points"), parse_key("a.b[0]"), parse_key(".")
        (('faces', None, 'points'), ('a', 'b', 0), ())
    """
    steps: list[str | int | None] = []
    for part in text.strip().strip(".").split(".") if text.strip() != "." else []:
        match = re.fullmatch(r"([^\[\]]*)((?:\[\d*\])*)", part)
        if not match or not part:
            expected = "keys with dots between, [] for every element of a list, [0] for one"
            raise SourceError(must_be("--points-key", expected, text, "For instance: ObjectInfo.KeyPoints.Points."))
        steps += [match[1]] if match[1] else []
        steps += [int(number) if number else None for number in re.findall(r"\[(\d*)\]", match[2])]
    return tuple(steps)


def word_key(path: KeyPath) -> str:
    """Write a key path as ``--points-key`` takes it."""
    words = ""
    for step in path:
        words += "[]" if step is None else f"[{step}]" if isinstance(step, int) else f".{step}"
    return words.lstrip(".") or "."


def values_at(document: Any, path: KeyPath) -> Iterator[tuple[Any, Any]]:
    """Give every value that stands at a key path, with the object that holds it. Missing keys give nothing.

    Examples:
        >>> [value for value, _ in values_at({"faces": [{"p": 1}, {"q": 2}, {"p": 3}]}, ("faces", None, "p"))]
        [1, 3]
    """
    found: list[tuple[Any, Any]] = [(document, None)]
    for step in path:
        found = [pair for value, _ in found for pair in _inside(value, step)]
    yield from found


def _inside(value: Any, step: str | int | None) -> list[tuple[Any, Any]]:
    if isinstance(step, str):
        return [(value[step], value)] if isinstance(value, dict) and step in value else []
    if not isinstance(value, list):
        return []
    if step is None:
        return [(element, value) for element in value]
    return [(value[step], value)] if step < len(value) else []


def read_points(value: Any) -> PointSet | None:
    """Read one list of points in any of the shapes; None where it is empty.

    Raises:
        BadAnnotation: It is no list of points, or a point has no place.

    Examples:
        >>> read_points(["1", "2", "3", "4"]).points.tolist()
        [[1.0, 2.0], [3.0, 4.0]]
        >>> read_points([{"x": 1, "y": 2, "visible": False}]).visible.tolist()
        [False]
    """
    if isinstance(value, dict) and value:
        return _named_points(value)
    if not isinstance(value, list):
        raise BadAnnotation(f"has no list of points: {shown(value)}")
    if not value:
        return None
    if isinstance(value[0], list):
        return _rows(value)
    return _objects(value) if isinstance(value[0], dict) else _flat(value)


def _flat(values: list[Any]) -> PointSet:
    if _is_flagged(values):
        return _with_flags(values[0::3], values[1::3], values[2::3])
    if len(values) % 2:
        raise BadAnnotation(f"has {len(values)} numbers, which make no pairs of x and y")
    return point_set(as_numbers(values))


def _is_flagged(values: list[Any]) -> bool:
    """Say whether a flat list is x, y, v of each point: every third number is 0, 1 or 2, as no coordinates are."""
    return len(values) % 3 == 0 and all(flag in (0, 1, 2) for flag in values[2::3])


def _rows(rows: list[Any]) -> PointSet:
    sizes = [len(row) if isinstance(row, list) else 0 for row in rows]
    expected = (2, 3) if set(sizes) - {2, 3} else (sizes[0],)
    bad = [row for row, size in zip(rows, sizes, strict=True) if size not in expected]
    if bad:
        raise BadAnnotation(f"has a point that is not x, y or x, y, visible: {shown(bad[0])}")
    if expected == (2,):
        return point_set(as_numbers(number for row in rows for number in row))
    flags = [row[2] for row in rows]
    if all(flag in (0, 1, 2) for flag in flags):
        return _with_flags([row[0] for row in rows], [row[1] for row in rows], flags)
    return point_set(as_numbers(number for row in rows for number in row[:2]))  # the third is a depth or a score


def _with_flags(xs: list[Any], ys: list[Any], flags: list[Any]) -> PointSet:
    """Read points of which some are not marked; where those lie does not matter, they may even be null."""
    marked = [flag is True or (not isinstance(flag, bool) and flag > 0) for flag in flags]
    numbers = [_or_nan(value, is_marked=shows) for pair in zip(xs, ys, marked, strict=True) for value, shows in
               ((pair[0], pair[2]), (pair[1], pair[2]))]  # fmt: skip
    return point_set(numbers, marked)


def _or_nan(value: Any, *, is_marked: bool) -> float:
    return as_numbers([value])[0] if is_marked or is_number(value) else float("nan")


def _objects(values: list[Any]) -> PointSet:
    """Read [{"x": 1, "y": 2, "visible": true, "name": "nose"}, …]."""
    bad = [value for value in values if not _is_point_object(value)]
    if bad:
        raise BadAnnotation(f"has a point without x and y: {shown(bad[0])}")
    marked = [_is_marked(_first(value, _VISIBLE, default=True)) for value in values]
    numbers = [_or_nan(_first(value, axis), is_marked=shows) for value, shows in zip(values, marked, strict=True)
               for axis in (_X, _Y)]  # fmt: skip
    return point_set(numbers, marked, _names([_first(value, _NAME) for value in values]))


def _names(names: list[Any]) -> tuple[str, ...]:
    """Give the points' names where all have one of their own that is more than a number."""
    texts = tuple(str(name).strip() for name in names if isinstance(name, str) and name.strip())
    if len(texts) < len(names) or len(set(texts)) < len(texts) or all(text.isdigit() for text in texts):
        return ()
    return texts


def _named_points(value: Mapping[str, Any]) -> PointSet:
    """Read {"nose": [1, 2], …} or {"nose": {"x": 1, "y": 2}, …}."""
    if _is_point_object(value):
        return _objects([value])
    if all(_is_point_object(inner) for inner in value.values()):
        return _objects([{**inner, "name": name} for name, inner in value.items()])
    if not all(isinstance(inner, list) for inner in value.values()):
        raise BadAnnotation(f"has no list of points: {shown(value)}")
    rows = _rows(list(value.values()))
    return PointSet(rows.points, rows.visible, _names(list(value)))


def _is_point_object(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in _X) and any(key in value for key in _Y)


def _first(value: Mapping[str, Any], keys: tuple[str, ...], *, default: Any = None) -> Any:
    return next((value[key] for key in keys if key in value), default)


def _is_marked(flag: Any) -> bool:
    if isinstance(flag, str):
        return flag.strip().lower() not in ("0", "false", "no", "n", "")
    return bool(flag)


def count_points(value: Any) -> int:
    """Say how many points a value holds, 0 where it is no list of points; never fails.

    A list of numbers counts too where a few of them are damaged: which list is meant should not hang on that.

    Examples:
        >>> count_points(["1", "2", None, "4", "5", "6"]), count_points([[1, 2], [3, 4]]), count_points([1, 2, 3])
        (3, 2, 0)
    """
    if not isinstance(value, list | dict) or not value:
        return 0
    if isinstance(value, dict) and (len(value) < 2 or _is_point_object(value)):
        return 0
    if isinstance(value, list) and sum(map(is_number, value)) >= _MOSTLY * len(value):
        return len(value) // 3 if _is_flagged(value) else 0 if len(value) % 2 else len(value) // 2
    try:
        found = read_points(value)
    except BadAnnotation:
        return 0
    return len(found.points) if found else 0


def find_points(document: Any) -> dict[KeyPath, int]:
    """Find every list of points in a document, and how many points each has.

    Below a list, elements of one point each are the points of one sample; elements of more are samples of their own.

    Examples:
        >>> find_points({"face": {"points": [[1, 2], [3, 4]]}, "size": [640, 480]})
        {('face', 'points'): 2}
        >>> find_points({"shapes": [{"points": [[1, 2]]}, {"points": [[3, 4]]}]})
        {('shapes', None, 'points'): 2}
    """
    found: dict[KeyPath, list[int]] = {}
    waiting: list[tuple[KeyPath, Any]] = [((), document)]
    for _ in range(_MAX_NODES):
        if not waiting:
            break
        path, value = waiting.pop()
        num_points = count_points(value)
        if num_points:
            found.setdefault(path, []).append(num_points)
        elif len(path) < _MAX_DEPTH:
            waiting += _children(path, value)
    numbers = {path: max(sizes) if max(sizes) > 1 else sum(sizes) for path, sizes in found.items()}
    return {path: number for path, number in sorted(numbers.items(), key=str) if number > 1}


def _children(path: KeyPath, value: Any) -> list[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        return [((*path, key), inner) for key, inner in value.items()]
    if isinstance(value, list):
        return [((*path, None), inner) for inner in value[:_MAX_ELEMENTS] if isinstance(inner, dict | list)]
    return []


def points_at(document: Any, path: KeyPath) -> list[tuple[PointSet | None, Any]]:
    """Read the points that stand at a key path, one entry per sample, with the object that holds each.

    Below a list, elements of one point each are the points of one sample.

    Raises:
        BadAnnotation: What stands there is no list of points.

    Examples:
        >>> shapes = {"shapes": [{"label": "a", "points": [[1, 2]]}, {"label": "b", "points": [[3, 4]]}]}
        >>> [found.names for found, _ in points_at(shapes, ("shapes", None, "points"))]
        [('a', 'b')]
    """
    found = [(None if value is None else read_points(value), holder) for value, holder in values_at(document, path)]
    sets = [points for points, _ in found if points is not None]
    if None not in path or len(sets) < 2 or any(len(points.points) != 1 for points in sets):
        return found
    names = _names([_first(holder, _NAME) if isinstance(holder, dict) else None for _, holder in found])
    points = np.concatenate([points.points for points in sets])
    return [(PointSet(points, np.concatenate([points.visible for points in sets]), names), None)]
