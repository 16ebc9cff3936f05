"""The points of some samples in every frame they are needed in: original, stored and the model's.

On the path of a sample: the table holds points in pixels of the original photo, the store holds a smaller photo, and
the network sees a part of it in a frame of its own. This module goes there and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data import geometry
from headstart.data.geometry import Affines
from headstart.data.keypoints import Points, boxes_of, points_of, visible_of
from headstart.data.store_place import header_size
from headstart.errors import SourceError, must_be

if TYPE_CHECKING:
    from headstart.data.table import SampleTable
    from headstart.recipe import Recipe


_NUM_LOOKED_AT: Final = 64
_MOST_LARGER: Final = 6.0  # than the model's input: beyond that the store grows out of all proportion


class HasSizes(Protocol):
    """What knows how large stored photos are: the ``PixelStore``."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(height, width) of each record."""
        ...

    @property
    def scales(self) -> NDArray[np.float64]:
        """(y, x) factors from the original's coordinates to the stored ones, of each record."""
        ...


@dataclass(frozen=True)
class KeypointSamples:
    """Points of n samples with K points each.

    Attributes:
        records: Rows of the store, shape (n,).
        sample_ids: The samples' numbers in the table, shape (n,).
        original: Points in pixels of the original, shape (n, K, 2).
        stored: The same in pixels of the stored photos.
        visible: Which points are marked, shape (n, K).
        original_sizes: (height, width) of the originals, shape (n, 2).
        stored_sizes: Likewise of the stored photos.
        scales: (y, x) factors from the originals' coordinates to the stored photos', shape (n, 2).
        boxes: The part of each stored photo that the model looks at (left, top, right, bottom), shape (n, 4); None:
            whole photos.
    """

    records: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    original: Points
    stored: Points
    visible: NDArray[np.bool_]
    original_sizes: NDArray[np.int64]
    stored_sizes: NDArray[np.int64]
    scales: NDArray[np.float64]
    boxes: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.records)

    def to_original(self, coordinates: NDArray[np.floating], affine: Affines, *, image_size: tuple[int, int]) -> Points:
        """Bring points from the model's frame back to pixels of the original.

        Args:
            coordinates: As shares of the frame, shape (n, K, 2).
            affine: The maps that led from the stored photos to the frame, shape (n, 2, 3).
            image_size: (height, width) of the frame.
        """
        in_frame = np.asarray(coordinates, np.float64) * np.array(image_size[::-1])
        stored = geometry.apply_to_points(geometry.invert(affine), in_frame)
        return geometry.scale_points(stored, 1 / self.scales)

    def to_frame(self, points: Points, affine: Affines, *, image_size: tuple[int, int]) -> Points:
        """Bring points (n, K, 2) from pixels of the original into the model's frame, as shares of it; see above."""
        in_frame = geometry.apply_to_points(affine, geometry.scale_points(points, self.scales))
        return in_frame / np.array(image_size[::-1])


def keypoint_samples(frame: pl.DataFrame, store: HasSizes, recipe: Recipe) -> KeypointSamples:
    """Give the points of kept rows.

    Args:
        frame: Rows of a keypoint table, after the pass over the files.
        store: Their pixels.
        recipe: Says whether the model looks at a part of each photo: ``crop_to_box``, ``crop_to_points``.
    """
    records = frame["record"].cast(pl.Int64).to_numpy()
    originals = frame.select("height", "width").cast(pl.Int64).to_numpy()
    stored = np.asarray(store.sizes)[records].astype(np.int64)
    scales = np.asarray(store.scales)[records]
    boxes = crop_boxes(frame, recipe)
    if boxes is not None:
        boxes = geometry.scale_points(boxes.reshape(-1, 2, 2), scales).reshape(-1, 4)
    ids, points = frame["sample_id"].cast(pl.Int64).to_numpy(), points_of(frame)
    in_store = geometry.scale_points(points, scales)
    return KeypointSamples(records, ids, points, in_store, visible_of(frame), originals, stored, scales, boxes)


def crop_boxes(frame: pl.DataFrame, recipe: Recipe) -> NDArray[np.float64] | None:
    """Give the part of each original that the model looks at, shape (n, 4); None where it is all of it.

    With ``crop_to_points`` that is the box around the marked points, widened on each side by that share of its longer
    side; with ``crop_to_box`` the sample's own box.

    Raises:
        SourceError: A row has no box, or no marked point.
    """
    if recipe.crop_to_box is None and recipe.crop_to_points is None:
        return None
    if recipe.crop_to_box is not None:
        missing = frame["box"].null_count() if "box" in frame.columns else frame.height
        if missing:
            remedy = "Name another box, or leave --crop-to-box out."
            raise SourceError(must_be("--crop-to-box", "a box that every sample has", f"{missing:,} without", remedy))
        return boxes_of(frame)
    points, visible = points_of(frame), visible_of(frame)[..., None]
    low = np.where(visible, points, np.inf).min(axis=1)
    high = np.where(visible, points, -np.inf).max(axis=1)
    if not np.isfinite(low).all():
        raise SourceError(
            must_be("--crop-to-points", "asked for where every sample has a marked point", "some have none")
        )
    margin = recipe.crop_to_points * np.maximum((high - low).max(axis=1, keepdims=True), 1.0)
    return np.concatenate([low - margin, high + margin], axis=1)


def image_size_to_store(table: SampleTable, recipe: Recipe, image_size: tuple[int, int]) -> tuple[int, int]:
    """Give the size that photos must be stored for, so that the parts which the model looks at are large enough.

    A face that fills a third of its photo must be stored three times as large as a whole photo would be. Looks at the
    headers of some photos, and is content where three quarters of the parts are large enough.

    Args:
        table: Before the pass over the files or after it: what the pass left out changes nothing.
        recipe: Says which part of a photo the model looks at.
        image_size: (height, width) of the model's input.
    """
    if recipe.crop_to_box is None and recipe.crop_to_points is None:
        return image_size
    target = "keypoints" if recipe.crop_to_box is None else "box"
    rows = table.frame.filter(pl.col(target).is_not_null()) if target in table.frame.columns else table.kept
    rows = rows[np.unique(np.linspace(0, rows.height - 1, _NUM_LOOKED_AT).astype(np.int64))] if rows.height else rows
    found = [header_size(path, recipe.max_pixels) for path in table.absolute_paths(rows).to_list()]
    is_known = [size is not None for size in found]
    if not any(is_known):
        return image_size
    boxes = crop_boxes(rows.filter(pl.Series(is_known)), recipe)
    sizes = np.array([size for size in found if size is not None], np.float64)
    _, extents = geometry.parts(sizes, boxes)
    shrunk = [np.minimum((np.array(image_size) / each).min(axis=1), 1.0) for each in (extents, sizes)]
    factor = float(np.clip(np.quantile(shrunk[0] / shrunk[1], 0.75), 1, _MOST_LARGER))
    return round(image_size[0] * factor), round(image_size[1] * factor)
