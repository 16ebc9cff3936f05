"""``.pts`` files (300-W and its kin): one text file of points per photo.

Their coordinates are written as Matlab counts: the centre of the first pixel is 1. Ours are continuous, with the centre
of the first pixel at 0.5, so half a pixel is taken off.
"""

from __future__ import annotations

import re
from typing import Final

from headstart.data.annotations import Annotation, BadAnnotation, as_numbers, point_set

SHIFT: Final = -0.5
"""From Matlab's 1-based pixel centres to continuous coordinates, in pixels."""


def read_pts(data: bytes | BadAnnotation, *, place: str, stem: str) -> Annotation:
    r"""Read one file; whatever is wrong with it is said in the annotation.

    Args:
        data: The file's bytes.
        place: What it is called in messages.
        stem: Its path without suffix, by which it is paired with its photo.

    Examples:
        >>> text = b"version: 1\nn_points: 2\n{\n1.0 1.0\n3.5 4.5\n}\n"
        >>> read_pts(text, place="1.pts", stem="1").content.points.tolist()
        [[0.5, 0.5], [3.0, 4.0]]
    """
    try:
        if isinstance(data, BadAnnotation):
            raise data
        points = point_set([number + SHIFT for number in _numbers(data)])
    except BadAnnotation as problem:
        return Annotation(place, stem=stem, problem=f"{place} {problem}", reason="bad annotation")
    annotation = Annotation(place, stem=stem, content=points)
    return annotation if len(points.points) else annotation.refused(f"{place} has no points", "no annotation")


def _numbers(data: bytes) -> list[float]:
    text = data.decode("utf-8-sig", "replace")
    body = re.search(r"\{([^{}]*)\}", text)
    if not body:
        raise BadAnnotation("has no points between { and }")
    lines = [line.split() for line in body[1].splitlines() if line.strip()]
    for number, words in enumerate(lines):
        if len(words) != 2:
            raise BadAnnotation(f"has {len(words)} numbers in the line of point {number} (counted from 0), not x and y")
    stated = re.search(r"(?i)n_points\s*:\s*(\d+)", text)
    if stated and int(stated[1][:9]) != len(lines):
        raise BadAnnotation(f"counts {stated[1]} points and lists {len(lines)}")
    return as_numbers(word for words in lines for word in words)
