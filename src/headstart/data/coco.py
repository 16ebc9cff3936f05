"""COCO keypoint JSON: images, annotations with ``keypoints`` (x, y, v) and ``bbox``, categories with the points' names.

Each annotation is a sample of its own. v = 0 is a point that is not marked; v = 1 (hidden) and 2 (seen) both count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.data.annotation_boxes import checked_box, from_size
from headstart.data.annotations import Annotation, BadAnnotation, Box, PointSet, as_numbers, point_set, shown


def is_coco(document: Any) -> bool:
    """Say whether a JSON has the lists ``images`` and ``annotations``, and keypoints in one of the latter.

    Examples:
        >>> is_coco({"images": [], "annotations": [{"keypoints": [1, 2, 2]}]}), is_coco({"images": []})
        (True, False)
    """
    if not isinstance(document, dict):
        return False
    lists = [document.get("images"), document.get("annotations")]
    if not all(isinstance(value, list) for value in lists):
        return False
    return any(isinstance(entry, dict) and "keypoints" in entry for entry in document["annotations"])


def read_coco(document: Mapping[str, Any], *, place: str, needs_box: bool = False) -> list[Annotation]:
    """Read every annotation.

    Args:
        document: The whole JSON.
        place: The file's name, for messages.
        needs_box: Whether an annotation without a box cannot be used (it is to be cropped to).

    Examples:
        >>> whole = {"images": [{"id": 1, "file_name": "1.jpg"}],
        ...          "annotations": [{"image_id": 1, "keypoints": [5, 6, 2, 0, 0, 0], "bbox": [1, 2, 10, 20]}]}
        >>> [(found.photo, found.content.visible.tolist(), found.box) for found in read_coco(whole, place="a.json")]
        [('1.jpg', [True, False], (1.0, 2.0, 11.0, 22.0))]
    """
    photos = {_key(image.get("id")): image.get("file_name") for image in document["images"] if isinstance(image, dict)}
    names = _names_by_category(document)
    found: list[Annotation] = []
    for number, entry in enumerate(document["annotations"], 1):
        where = f"{place} annotation {number}"
        if not isinstance(entry, dict):
            found.append(Annotation(where, problem=f"{where} is {shown(entry)}", reason="bad annotation"))
            continue
        found.append(_read_entry(entry, where, photos, names, needs_box=needs_box))
    times = Counter(annotation.photo for annotation in found if annotation.content is not None)
    return [replace(annotation, is_one_of_many=times[annotation.photo] > 1) for annotation in found]


def _key(value: Any) -> str:
    """Give an id as text: 7 and "7" are one."""
    return str(value) if isinstance(value, int | str) else ""


def _names_by_category(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    categories = document.get("categories")
    listed = [entry for entry in categories if isinstance(entry, dict)] if isinstance(categories, list) else []
    names = {_key(entry.get("id")): entry.get("keypoints") for entry in listed}
    return {key: tuple(map(str, value)) for key, value in names.items() if isinstance(value, list)}


def _read_entry(
    entry: Mapping[str, Any],
    where: str,
    photos: Mapping[str, Any],
    names: Mapping[str, tuple[str, ...]],
    *,
    needs_box: bool,
) -> Annotation:
    image = _key(entry.get("image_id"))
    photo = photos.get(image)
    annotation = Annotation(where, photo if isinstance(photo, str) else "")
    if not annotation.photo:
        return annotation.refused(f"{where} belongs to image {image or None!r}, which has no file name", "missing")
    try:
        content = _points(entry, names.get(_key(entry.get("category_id")), ()))
        box = _box(entry, needs_box=needs_box and content is not None)
    except BadAnnotation as problem:
        return annotation.refused(f"{where} {problem}")
    if content is None:
        return annotation.refused(f"{where} marks no point", "no annotation")
    return Annotation(where, annotation.photo, content=content, box=box)


def _points(entry: Mapping[str, Any], names: tuple[str, ...]) -> PointSet | None:
    """Read x, y, v of each point; None where none is marked."""
    values = entry.get("keypoints")
    if values is None or values == []:
        return None
    if not isinstance(values, list):
        raise BadAnnotation(f"has keypoints that are no list: {shown(values)}")
    if len(values) % 3:
        raise BadAnnotation(f"has {len(values)} numbers, which make no triples of x, y and v")
    numbers = np.array(as_numbers(values)).reshape(-1, 3)
    if not np.isin(numbers[:, 2], (0, 1, 2)).all():
        raise BadAnnotation("has a v that is not 0, 1 or 2")
    visible = numbers[:, 2] > 0
    if not visible.any() or entry.get("num_keypoints") == 0:
        return None
    return point_set(numbers[:, :2].copy(), visible.tolist(), names if len(names) == len(numbers) else ())


def _box(entry: Mapping[str, Any], *, needs_box: bool) -> Box | None:
    """Read ``bbox`` (left, top, width, height)."""
    try:
        values = entry.get("bbox")
        if not isinstance(values, list) or len(values) != 4:
            raise BadAnnotation(f"is not four numbers: {shown(values)}")
        return checked_box(from_size(as_numbers(values)))
    except BadAnnotation as problem:
        if needs_box:
            raise BadAnnotation(f"box 'bbox' {problem}") from None
        return None
