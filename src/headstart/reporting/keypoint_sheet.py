"""The part of the check page that is about keypoints: faces whose points look wrong, and the left/right pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from headstart.data.keypoints import KeypointLayout
from headstart.reporting.keypoint_drawing import TRUE_COLOUR, draw_mark, draw_points_svg
from headstart.reporting.mean_face import pair_face

MAX_CARDS: Final = 24
"""Faces shown; the page says how many were found."""


@dataclass(frozen=True)
class KeypointFinding:
    """A face whose points look wrong.

    Attributes:
        image: As stored, uint8 of shape (height, width, 3).
        points: In pixels of ``image``, shape (num_keypoints, 2); may lie outside of it.
        visible: Shape (num_keypoints,).
        caption: What is strange, a sentence.
        path: Where it is.
    """

    image: NDArray[np.uint8]
    points: NDArray[np.float64]
    visible: NDArray[np.bool_]
    caption: str
    path: str = ""


@dataclass(frozen=True)
class KeypointSheet:
    """What the check page shows of keypoints, drawn: see ``keypoint_sheet``."""

    cards: tuple[tuple[Markup, str, str], ...]
    num_findings: int
    chart: Markup
    pairs: tuple[tuple[str, str], ...]
    note: str
    num_keypoints: int
    is_mirrored: bool
    marks: tuple[tuple[Markup, str], ...]


def keypoint_sheet(
    findings: Sequence[KeypointFinding],
    layout: KeypointLayout,
    *,
    mean_face: ArrayLike | None = None,
    num_findings: int | None = None,
) -> KeypointSheet:
    """Draw what the check page shows of keypoints.

    Args:
        findings: Faces whose points look wrong, the worst first; the first ``MAX_CARDS`` are drawn.
        layout: What the points are.
        mean_face: ``shapes.mean_shape`` of the points, shape (num_keypoints, 2); None leaves the drawing out.
        num_findings: How many there are in all, where only the first are given.

    Examples:
        >>> sheet = keypoint_sheet([], KeypointLayout(("eye", "eye", "nose"), flip_pairs=((0, 1),)))
        >>> sheet.num_keypoints, sheet.note
        (3, '3 points, 1 left/right pair: pictures can be mirrored.')
    """
    cards = [
        (draw_points_svg(one.image, one.points, one.visible, alt=_alt(one)), one.caption, one.path)
        for one in findings[:MAX_CARDS]
    ]
    dot, ring = (draw_mark(kind, TRUE_COLOUR) for kind in ("dot", "ring"))
    pairs = layout.flip_pairs or ()
    return KeypointSheet(
        cards=tuple(cards),
        num_findings=len(findings) if num_findings is None else num_findings,
        chart=Markup("") if mean_face is None else pair_face(mean_face, layout),
        pairs=tuple((layout.names[left], layout.names[right]) for left, right in pairs),
        note=_note(layout),
        num_keypoints=layout.num_keypoints,
        is_mirrored=layout.flip_pairs is not None,
        marks=((dot, "point"), (ring, "point that does not count: not visible")),
    )


def _alt(finding: KeypointFinding) -> str:
    return f"{finding.path or 'face'} with {int(np.sum(finding.visible))} visible points"


def _note(layout: KeypointLayout) -> str:
    count = f"{layout.num_keypoints} point{'' if layout.num_keypoints == 1 else 's'}"
    if layout.flip_pairs is None:
        why = layout.flip_note.rstrip(".") or "left/right pairs are not known"
        return f"{count}. Pictures will not be mirrored: {why}. --flip-pairs names the pairs."
    pairs = f"{len(layout.flip_pairs)} left/right pair{'' if len(layout.flip_pairs) == 1 else 's'}"
    note = f" {layout.flip_note.rstrip('.')}." if layout.flip_note else ""
    return f"{count}, {pairs}: pictures can be mirrored.{note}"
