"""The box that ``--crop-to-box`` names, in a JSON: where it stands, and what its numbers mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from headstart.data.annotations import LARGEST_COORDINATE, BadAnnotation, Box, as_numbers, shown
from headstart.errors import did_you_mean

CORNERS: Final = (("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"), ("xmin", "ymin", "xmax", "ymax"))
"""What the sides of a box are called."""
SIZES: Final = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
"""What corner and size of a box are called."""
_INNER: Final = ("position", "bbox", "box", "rect", "coordinates")  # keys that hold the numbers inside a named box
_DEPTH: Final = 12
_MAX_NAMED: Final = 12  # boxes that a message lists


def checked_box(numbers: list[float]) -> Box:
    """Give left, top, right, bottom as a box.

    Raises:
        BadAnnotation: It has no area, or reaches where no photo does.

    Examples:
        >>> checked_box([1.0, 2.0, 1.0, 5.0])
        Traceback (most recent call last):
        headstart.data.annotations.BadAnnotation: has no area: 1.0, 2.0, 1.0, 5.0
    """
    left, top, right, bottom = numbers
    if not all(abs(number) <= LARGEST_COORDINATE for number in numbers):
        raise BadAnnotation(f"is not in a photo: {', '.join(map(str, numbers))}")
    if not (left < right and top < bottom):
        raise BadAnnotation(f"has no area: {', '.join(map(str, numbers))}")
    return left, top, right, bottom


def find_box(document: Any, name: str) -> Box:
    """Find a box by its key or dotted path.

    Args:
        document: The JSON of one sample.
        name: The box's key (``Face``) or path (``ObjectInfo.BoundingBox.Face``), in upper or lower case.

    Raises:
        BadAnnotation: There is no such box, there are several, or its numbers make no box.

    Examples:
        >>> find_box({"boxes": {"Face": {"Position": ["1", "2", "30", "40"]}}}, "face")
        (1.0, 2.0, 30.0, 40.0)
    """
    found = _called(document, name)
    if not found:
        raise BadAnnotation(f"has no box {name!r}")
    if len(found) > 1:
        raise BadAnnotation(f"has {len(found)} boxes {name!r}; name one by its whole path")
    try:
        return checked_box(_numbers(found[0]))
    except BadAnnotation as problem:
        raise BadAnnotation(f"box {name!r} {problem}") from None


def has_box(document: Any, name: str) -> bool:
    """Say whether something in a document is called so, whatever its numbers are."""
    return bool(_called(document, name))


def list_boxes(document: Any) -> list[str]:
    """Name the boxes of a document as ``find_box`` takes them: by their key, or by the path where two have one key.

    Examples:
        >>> eye = {"Position": [1, 2, 3, 4]}
        >>> list_boxes({"size": [640, 480], "boxes": {"Face": [1, 2, 30, 40], "Eye": eye}, "old": {"Eye": eye}})
        ['Face', 'boxes.Eye', 'old.Eye']
    """
    found: list[tuple[str, ...]] = []
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), document)])
    while waiting:
        keys, value = waiting.popleft()
        if keys and _is_box(value):
            found.append(keys)
        elif isinstance(value, dict) and len(keys) < _DEPTH:
            waiting += [((*keys, str(key)), inner) for key, inner in value.items()]
    last = [keys[-1].lower() for keys in found]
    return [keys[-1] if last.count(keys[-1].lower()) == 1 else ".".join(keys) for keys in found]


def word_boxes(name: str, there: Sequence[str]) -> str:
    """Say which boxes there are, the nearest first, where one was named that is not.

    Examples:
        >>> word_boxes("Fase", ["Face", "Leye"]), word_boxes("Nose", [])
        ("Did you mean 'Face'? Boxes there are: 'Face', 'Leye'.", 'There is no box at all.')
    """
    if not there:
        return "There is no box at all."
    more = f" and {len(there) - _MAX_NAMED:,} more" if len(there) > _MAX_NAMED else ""
    listed = f"Boxes there are: {', '.join(map(repr, there[:_MAX_NAMED]))}{more}."
    return " ".join(part for part in (did_you_mean(name, there), listed) if part)


def _is_box(value: Any) -> bool:
    try:
        checked_box(_numbers(value))
    except BadAnnotation:
        return False
    return True


def _called(document: Any, name: str) -> list[Any]:
    """Give what stands at every key, or path's end, of a name."""
    path = tuple(part.lower() for part in name.split("."))
    return [value for keys, value in _walk(document) if keys[-len(path) :] == path]


def _walk(document: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give every key path of objects within objects, in lower case, and what stands there."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while waiting:
        keys, value = waiting.pop()
        if keys:
            yield keys, value
        if isinstance(value, dict) and len(keys) < _DEPTH:
            waiting += [((*keys, str(key).lower()), inner) for key, inner in value.items()]


def _numbers(value: Any) -> list[float]:
    """Read left, top, right, bottom from a list of four, or an object with names of sides."""
    if isinstance(value, dict):
        keys = {str(key).lower(): inner for key, inner in value.items()}
        for names in (*CORNERS, *SIZES):
            if all(name in keys for name in names):
                numbers = as_numbers(keys[name] for name in names)
                return numbers if names in CORNERS else from_size(numbers)
        value = next((keys[name] for name in _INNER if name in keys), value)
    if not isinstance(value, list) or len(value) != 4:
        raise BadAnnotation(f"is not four numbers: {shown(value)}")
    return as_numbers(value)


def from_size(numbers: list[float]) -> list[float]:
    """Turn left, top, width, height into left, top, right, bottom."""
    left, top, width, height = numbers
    return [left, top, left + width, top + height]
