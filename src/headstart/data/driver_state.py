"""The driver-state layout: one JSON per photo with FileInfo, KeyPoints and the boxes of face, eyes and mouth.

It is read like any JSON with points; here is what is known of it besides: the state of each box, and what the parts of
a file name mean.
"""

from __future__ import annotations

from typing import Any, Final

POINTS_KEY: Final = ("ObjectInfo", "KeyPoints", "Points")
"""Where the points stand."""
NAME_PATTERN: Final = (
    r"^(?P<look>[A-Za-z]+)_(?P<person>\d+)_(?P<age>\d+)_(?P<sex>[A-Za-z])_(?P<scene>\d+)"
    r"_(?P<mask>M\d)_(?P<glasses>G\d)_(?P<cap>C\d)_(?P<frame>\d+)\.[A-Za-z]+$"
)
"""File names such as ``R_202_40_M_01_M0_G0_C0_01.jpg``."""

_TRUE: Final = {True: "true", False: "false"}


def is_driver_state(document: Any) -> bool:
    """Say whether a JSON has this layout.

    Examples:
        >>> is_driver_state({"FileInfo": {}, "ObjectInfo": {"KeyPoints": {}, "BoundingBox": {}}}), is_driver_state([])
        (True, False)
    """
    if not isinstance(document, dict) or "FileInfo" not in document:
        return False
    inside = document.get("ObjectInfo")
    return isinstance(inside, dict) and "KeyPoints" in inside and "BoundingBox" in inside


def box_states(document: Any) -> dict[str, str]:
    """Give whether each box is visible, and opened where that has a meaning, as text columns.

    Examples:
        >>> eye = {"isVisible": True, "Opened": False, "Position": [1, 2, 3, 4]}
        >>> box_states({"ObjectInfo": {"BoundingBox": {"Leye": eye}}})
        {'leye_visible': 'true', 'leye_opened': 'false'}
    """
    boxes = document["ObjectInfo"]["BoundingBox"] if is_driver_state(document) or "ObjectInfo" in document else {}
    if not isinstance(boxes, dict):
        return {}
    states: dict[str, str] = {}
    for name, box in boxes.items():
        for key, word in (("isVisible", "visible"), ("Opened", "opened")):
            if isinstance(box, dict) and (value := box.get(key)) is not None:
                states[f"{name.lower()}_{word}"] = _TRUE[value] if isinstance(value, bool) else str(value).lower()
    return states
