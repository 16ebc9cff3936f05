"""The part of the check page that is about keypoints: faces whose points look wrong, and the left/right pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from headstart.data.keypoints import NOT_LOOKED_FOR, KeypointLayout
from headstart.reporting.concerns import CROWDING, SIDES, Concern, word_doubt
from headstart.reporting.keypoint_drawing import FACE_MARGIN, TRUE_COLOUR, draw_mark, draw_points_svg
from headstart.reporting.mean_face import pair_face

MAX_CARDS: Final = 24
"""Faces shown; the page says how many were found."""

_LEAST_EXTENT: Final = 0.04  # of the picture's shorter side: points within less are a spot, no face


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
    """What the check page shows of keypoints, drawn: see ``keypoint_sheet``.

    Attributes:
        cards: Faces: picture, what is strange, path.
        num_findings: Faces whose points look wrong.
        chart: The pairs on the mean face.
        pairs: Names of left and right points.
        note: How many points and pairs there are.
        num_keypoints: Points of a face.
        marks: The legend.
        concerns: What to worry about, the gravest first.
        is_fully_examined: Whether everything was looked for; else a concern says what was not.
    """

    cards: tuple[tuple[Markup, str, str], ...]
    num_findings: int
    chart: Markup
    pairs: tuple[tuple[str, str], ...]
    note: str
    num_keypoints: int
    marks: tuple[tuple[Markup, str], ...]
    concerns: tuple[Concern, ...]
    is_fully_examined: bool


def keypoint_sheet(
    findings: Sequence[KeypointFinding],
    layout: KeypointLayout,
    *,
    mean_face: ArrayLike | None = None,
    num_findings: int | None = None,
    notes: Sequence[str] = (),
    crowding: str = "",
) -> KeypointSheet:
    """Draw what the check page shows of keypoints.

    Args:
        findings: Faces whose points look wrong, the worst first; the first ``MAX_CARDS`` are drawn.
        layout: What the points are.
        mean_face: ``shapes.mean_shape`` of the points, shape (num_keypoints, 2); None leaves the drawing out.
        num_findings: How many there are in all, where only the first are given.
        notes: What could not be examined, a sentence each.
        crowding: What to say of photos with several faces; empty where there are none.

    Examples:
        >>> sheet = keypoint_sheet([], KeypointLayout(("eye", "eye", "nose"), flip_pairs=((0, 1),)))
        >>> sheet.num_keypoints, sheet.note, sheet.concerns
        (3, '3 points. 1 left/right pair. Pictures can be mirrored.', ())
    """
    num_findings = len(findings) if num_findings is None else num_findings
    cards = [
        (draw_points_svg(one.image, one.points, one.visible, alt=_alt(one), margin=_margin(one)), one.caption, one.path)
        for one in findings[:MAX_CARDS]
    ]
    dot, ring = (draw_mark(kind, TRUE_COLOUR) for kind in ("dot", "ring"))
    pairs = layout.flip_pairs or ()
    return KeypointSheet(
        cards=tuple(cards),
        num_findings=num_findings,
        chart=Markup("") if mean_face is None else pair_face(mean_face, layout),
        pairs=tuple((layout.names[left], layout.names[right]) for left, right in pairs),
        note=_note(layout),
        num_keypoints=layout.num_keypoints,
        marks=((dot, "point"), (ring, "point that does not count: not visible")),
        concerns=tuple(_concerns(layout, num_findings, notes, crowding)),
        is_fully_examined=not notes,
    )


def _concerns(layout: KeypointLayout, num_findings: int, notes: Sequence[str], crowding: str) -> Iterator[Concern]:
    if crowding:
        yield Concern(CROWDING, crowding)
    if layout.flip_doubt:
        yield Concern(SIDES, word_doubt(layout))
    if num_findings:
        faces = "1 image has" if num_findings == 1 else f"{num_findings:,} images have"
        yield Concern("Points to look at", f"{faces} points that look wrong: see below.")
    if layout.flip_pairs is None:
        why = layout.flip_note or NOT_LOOKED_FOR
        yield Concern(SIDES, f"{why} Pictures will not be mirrored; --flip-pairs FILE names the pairs.")
    if notes:
        yield Concern("Not everything was examined", " ".join(notes))


def _margin(finding: KeypointFinding) -> float | None:
    """Show a face with a margin; but points in one spot in their whole picture, or nothing would be seen."""
    points = finding.points[finding.visible & np.isfinite(finding.points).all(axis=1)]
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    return FACE_MARGIN if extent >= _LEAST_EXTENT * min(finding.image.shape[:2]) else None


def _alt(finding: KeypointFinding) -> str:
    return f"{finding.path or 'face'} with {int(np.sum(finding.visible))} visible points"


def _note(layout: KeypointLayout) -> str:
    count = f"{layout.num_keypoints} point{'' if layout.num_keypoints == 1 else 's'}"
    if layout.flip_pairs is None:
        return f"{count}; left/right pairs are not known."
    pairs = f"{len(layout.flip_pairs)} left/right pair{'' if len(layout.flip_pairs) == 1 else 's'}."
    return f"{count}. {layout.flip_note or pairs} Pictures can be mirrored."
