"""A folder of photos whose labels stand in their names → table."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from headstart.data.folders import SPLIT_NAMES, FolderListing, has_image_suffix
from headstart.data.label_columns import take_labels
from headstart.data.name_columns import take_name_columns
from headstart.data.table import SampleTable
from headstart.errors import SourceError, did_you_mean, must_be
from headstart.recipe import Recipe


def read_named_photos(folder: Path, listing: FolderListing, recipe: Recipe) -> SampleTable:
    """Read photos whose labels stand in their names, wherever below the folder they lie.

    Args:
        folder: The folder.
        listing: Its files.
        recipe: Its pattern names every label column.

    Raises:
        SourceError: There is no photo, or a label column is no group of the pattern.
    """
    groups = re.compile(recipe.name_pattern or "").groupindex
    unknown = [name for name in recipe.labels.names if name not in groups]
    if unknown:
        near = did_you_mean(unknown[0], groups)
        expected = f"groups of --name-pattern ({', '.join(groups)}) where the data is a folder of photos"
        raise SourceError(must_be(recipe.labels.flag, expected, unknown, near))
    frame = listing.paths.to_frame("path").filter(has_image_suffix(pl.col("path")))
    if frame.is_empty():
        raise SourceError(must_be(str(folder), "a folder of photos", f"{len(listing.paths):,} files, no image"))
    unusable = pl.col("path").replace_strict(listing.unusable, default=None, return_dtype=pl.String)
    if listing.unusable:
        is_lost = pl.col("path").is_in(list(listing.unusable))
        frame = frame.with_columns(excluded=pl.when(is_lost).then(pl.lit("unreadable")), detail=unusable)
    frame = frame.with_columns(split=_given_splits(frame["path"]))
    frame, notes = take_name_columns(frame, recipe)
    table = take_labels(frame, recipe, root=folder)
    return table.with_frame(table.frame, *notes)


def _given_splits(paths: pl.Series) -> pl.Series:
    """Give the split of each photo where every photo lies in a folder named like one, and some in train; else nulls."""
    first = paths.str.extract(r"^([^/]+)/").str.to_lowercase()
    found = first.replace_strict(dict(SPLIT_NAMES), default=None, return_dtype=pl.String)
    is_given = not found.null_count() and bool((found == "train").any())
    return (found if is_given else pl.Series([None] * len(paths), dtype=pl.String)).alias("split")
