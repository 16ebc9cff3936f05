"""From what the doctor found to the check page's sheet of faces; imports no PyTorch, so that the page comes at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.data.geometry import scale_points
from headstart.data.keypoint_check import KeypointCheck, finding_rows, num_samples_found
from headstart.data.keypoints import points_of, visible_of
from headstart.data.table import SampleTable, layout_of
from headstart.reporting.image_sets import ReadsPixels
from headstart.reporting.keypoint_sheet import MAX_CARDS, KeypointFinding, KeypointSheet, keypoint_sheet


class ReadsPhotos(ReadsPixels, Protocol):
    """What gives stored photos, and how much smaller than the originals they are."""

    @property
    def scales(self) -> NDArray[np.float64]:
        """(y, x) factors from the original's coordinates to the stored ones, of each record."""
        ...


def find_sheet(table: SampleTable, store: ReadsPhotos, check: KeypointCheck) -> KeypointSheet:
    """Give the check page's sheet of faces whose points look wrong, the worst first, and of the pairs.

    Where too few look wrong to fill it, ordinary faces follow, spread over the table: to see that points lie right.
    """
    kept, rows = table.kept, finding_rows(check, limit=MAX_CARDS)
    named = {row for row, _ in rows}
    others = [row for row in np.linspace(0, kept.height - 1, MAX_CARDS).astype(int).tolist() if row not in named]
    rows += [(row, "") for row in dict.fromkeys(others)][: MAX_CARDS - len(rows)]
    chosen = kept[[row for row, _ in rows]]
    records = chosen["record"].to_numpy()
    points = scale_points(points_of(chosen), np.asarray(store.scales)[records])
    findings = [
        KeypointFinding(store.read(int(record)), points[place], visible, caption, path)
        for place, (record, visible, (_, caption), path) in enumerate(
            zip(records, visible_of(chosen), rows, chosen["path"], strict=True)
        )
    ]
    return keypoint_sheet(
        findings,
        layout_of(table),
        mean_face=check.examination.mean_shape,
        num_findings=num_samples_found(check),
        notes=check.examination.notes,
        crowding=check.crowding,
    )
