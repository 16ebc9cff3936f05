"""Sets of samples that belong together, found in the table and shown as rows of thumbnails on the check page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.table import SampleTable
from headstart.reporting.thumbnails import Thumbnail, thumbnail

MAX_SETS: Final = 12
"""Sets shown of each kind; the page says how many there are."""

MAX_MEMBERS: Final = 6
"""Thumbnails shown of each set: one row on a desktop."""


class ReadsPixels(Protocol):
    """What the page needs of a ``PixelStore``: the pixels of a record."""

    def read(self, record: int) -> NDArray[np.uint8]:
        """Give a record's pixels, uint8 of shape (height, width, 3)."""
        ...


@dataclass(frozen=True)
class Member:
    """One sample of a set: its picture, its class and split (empty where there is none), and its path."""

    picture: Thumbnail
    class_name: str
    split: str
    path: str


@dataclass(frozen=True)
class ImageSet:
    """Samples that belong together: the first few, and how many there are."""

    members: tuple[Member, ...]
    size: int


@dataclass(frozen=True)
class SetFinding:
    """Sets of one kind: how many there are, and the rows of the largest of them."""

    count: int
    largest: tuple[pl.DataFrame, ...]


def find_sets(kept: pl.DataFrame, column: str, *, differing: str) -> SetFinding:
    """Find sets whose samples differ in what they should agree on.

    Args:
        kept: Rows of the table.
        column: What numbers the sets: ``copy_set`` or ``cluster``.
        differing: The column in which a set must hold at least two values: ``label``, ``split``, ``record``.

    Returns:
        The count, and the ``MAX_SETS`` largest.

    Examples:
        >>> rows = pl.DataFrame({"copy_set": [0, 0, 1, 1, None], "label": [0, 1, 2, 2, 0]})
        >>> found = find_sets(rows, "copy_set", differing="label")
        >>> found.count, found.largest[0]["label"].to_list()
        (1, [0, 1])
    """
    if column not in kept.columns or differing not in kept.columns:
        return SetFinding(0, ())
    together = kept.filter(pl.col(column).is_not_null())
    sets = (
        together.group_by(column)
        .agg(size=pl.len(), values=pl.col(differing).drop_nulls().n_unique())
        .filter(pl.col("values") > 1)
        .sort(["size", column], descending=[True, False])
    )
    largest = [together.filter(pl.col(column) == number) for number in sets[column].head(MAX_SETS)]
    return SetFinding(sets.height, tuple(largest))


def show_sets(
    found: SetFinding, table: SampleTable, store: ReadsPixels, *, first_of: str | None = None
) -> list[ImageSet]:
    """Make thumbnails of the largest sets, from the store: the user's files are not opened again.

    Args:
        found: The sets.
        table: Gives class names.
        store: Gives pixels.
        first_of: Show one sample of each value of this column before any second one, so that what differs is seen.

    Returns:
        The sets, each with at most ``MAX_MEMBERS`` thumbnails.
    """
    shown: list[ImageSet] = []
    for rows in found.largest:
        ordered = rows if first_of is None else rows.sort(pl.int_range(pl.len()).over(first_of), maintain_order=True)
        shown.append(ImageSet(_members(ordered.head(MAX_MEMBERS), table, store), rows.height))
    return shown


def _members(rows: pl.DataFrame, table: SampleTable, store: ReadsPixels) -> tuple[Member, ...]:
    members: list[Member] = []
    for row in rows.iter_rows(named=True):
        picture = thumbnail(np.asarray(store.read(row["record"])))
        class_name = "" if row["label"] is None else table.class_names[row["label"]]  # keypoints have no classes
        members.append(Member(picture, class_name, row.get("split") or "", row["path"]))
    return tuple(members)
